//! From the YAML's `edges` or `order` to lines between nodes, each checked by itself.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use petgraph::graph::NodeIndex as Vertex;

use crate::diagnostic::{FINDINGS_LIMIT, Finding, code, suggest};
use crate::document::Document;
use crate::graph::build::{Access, ScopeRead};
use crate::graph::spec::{EdgeSpec, Ends, GraphSpec, JoinRule, JoinWord, Mode};
use crate::graph::text::Texts;
use crate::graph::topology::{self, Said, Take, Topology};
use crate::graph::{Guard, Line, Needs, NodeIndex, OnError, Policy, Target};
use crate::limits::ExpressionLimits;
use crate::state::Channels;

/// All lines of a graph.
pub(super) struct Lines {
    pub(super) start: Vec<Line>,
    /// By node, in the order of the YAML.
    pub(super) leaving: Vec<Vec<Line>>,
    pub(super) joins: Vec<Joined>,
    /// By node: what its conditions read.
    pub(super) reads: Vec<Vec<Access>>,
    /// What all conditions read besides channels.
    pub(super) scope: Vec<ScopeRead>,
    pub(super) topology: Topology,
    /// No line was left out because of an error.
    pub(super) complete: bool,
}

/// A join as it is written.
pub(super) struct Joined {
    pub(super) target: NodeIndex,
    pub(super) needs: Needs,
    pub(super) sources: Vec<NodeIndex>,
}

/// Where a line begins or ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Point {
    Start,
    End,
    Node(NodeIndex),
}

struct Reader<'a> {
    document: &'a Document,
    channels: &'a Channels,
    limits: ExpressionLimits,
    names: &'a [Arc<str>],
    places: HashMap<&'a str, NodeIndex>,
    lines: Lines,
    seen: BTreeSet<(String, String, String)>,
    findings: &'a mut Vec<Finding>,
}

/// Reads the lines of a graph whose nodes are `names`. Where a node goes by its policy is no line
/// and counts in the topology alone.
pub(super) fn read<'p>(
    document: &Document,
    spec: &GraphSpec,
    channels: &Channels,
    limits: ExpressionLimits,
    names: &[Arc<str>],
    policies: impl IntoIterator<Item = &'p Policy>,
    findings: &mut Vec<Finding>,
) -> Lines {
    let lines = Lines {
        start: Vec::new(),
        leaving: names.iter().map(|_| Vec::new()).collect(),
        joins: Vec::new(),
        reads: names.iter().map(|_| Vec::new()).collect(),
        scope: Vec::new(),
        topology: Topology::new(names.len()),
        complete: true,
    };
    let places = names.iter().enumerate().map(|(node, name)| (&**name, node)).collect();
    let seen = BTreeSet::new();
    let mut reader = Reader { document, channels, limits, names, places, lines, seen, findings };
    match spec.mode {
        Mode::Graph => reader.edges(spec),
        Mode::Linear => reader.order(spec),
    }
    for (node, policy) in policies.into_iter().enumerate() {
        reader.ways(node, policy);
    }
    reader.lines
}

/// Where the YAML says line `line`.
pub(super) fn pointer(mode: Mode, line: usize) -> String {
    match mode {
        Mode::Graph => format!("/edges/{line}"),
        Mode::Linear => format!("/order/{line}"),
    }
}

impl Reader<'_> {
    fn edges(&mut self, spec: &GraphSpec) {
        if spec.order.is_some() {
            let message = "`order` belongs to `mode: linear`";
            self.error_at_key(
                code::UNKNOWN_KEY,
                "/order",
                message,
                "write `mode: linear`, or `edges`",
            );
        }
        let Some(edges) = &spec.edges else {
            self.missing("edges", "add `edges:` with `{ from: START, to: … }` as its first line");
            return;
        };
        for (i, edge) in edges.iter().enumerate() {
            if self.enough() {
                break;
            }
            self.duplicate(i, edge);
            match &edge.from {
                Ends::One(from) => self.plain(i, from, edge),
                // What the shape check took out.
                Ends::Many(from) if from.is_empty() => self.lines.complete = false,
                Ends::Many(from) => self.join(i, from, edge),
            }
        }
    }

    fn order(&mut self, spec: &GraphSpec) {
        if spec.edges.is_some() {
            let message = "`edges` belongs to `mode: graph`";
            self.error_at_key(
                code::UNKNOWN_KEY,
                "/edges",
                message,
                "write `mode: graph`, or `order`",
            );
        }
        let Some(order) = &spec.order else {
            self.missing("order", "add `order: [NODE, …]`");
            return;
        };
        if order.is_empty() {
            let fix = "list the nodes in the order they run in";
            self.error_at_key(code::NO_START, "/order", "`order` lists no node", fix);
            self.lines.complete = false;
            return;
        }
        let (mut last, mut seen) = (Point::Start, BTreeSet::new());
        for (i, name) in order.iter().enumerate() {
            if self.enough() {
                break;
            }
            let at = format!("/order/{i}");
            if !seen.insert(name) {
                let message = format!("`{name}` is listed twice");
                let fix = "keep one, or write `mode: graph` with `edges` for a cycle";
                self.error(code::DUPLICATE_NAME, &at, message, fix);
                continue;
            }
            match self.point(&at, name) {
                Some(Point::Node(node)) => {
                    self.connect(last, Point::Node(node), Guard::Always, Take::Always, i);
                    last = Point::Node(node);
                }
                Some(_) => {
                    let fix = "list nodes only: a linear graph begins and ends by itself";
                    self.error(code::INVALID_LINE, &at, format!("`{name}` is no node"), fix);
                }
                None => {}
            }
        }
        self.connect(last, Point::End, Guard::Always, Take::Always, order.len() - 1);
    }

    /// Whether there are more findings than a person reads; what is left out then says nothing.
    fn enough(&mut self) -> bool {
        let enough = self.findings.len() > FINDINGS_LIMIT;
        self.lines.complete &= !enough;
        enough
    }

    fn ways(&mut self, node: NodeIndex, policy: &Policy) {
        let topology = &mut self.lines.topology;
        let from = topology.node(node);
        for (i, target) in policy.goto.iter().flat_map(|goto| &goto.among).enumerate() {
            let to = match target {
                Target::Node(node) => topology.node(*node),
                Target::Slot { .. } | Target::End => topology::end(),
            };
            topology.connect(from, to, Take::Goto, Said::Goto(i));
        }
        if let OnError::Node(target) = policy.on_error {
            topology.connect(from, topology.node(target), Take::Error, Said::OnError);
        }
    }

    /// A key that is there and was not understood has been reported.
    fn missing(&mut self, key: &str, fix: &str) {
        self.lines.complete = false;
        if !self.document.keys("").contains(&key) {
            self.error_at_key(code::MISSING_KEY, "", format!("`{key}` is missing"), fix);
        }
    }

    fn plain(&mut self, i: usize, from: &str, edge: &EdgeSpec) {
        if edge.join.is_some() {
            let message = "a join needs several sources";
            let fix = "write a list in `from`, or remove `join`";
            self.error_at_key(code::INVALID_LINE, &format!("/edges/{i}/join"), message, fix);
        }
        let (from, to) = (self.source(i, from), self.target(i, &edge.to));
        let take = match (&edge.when, edge.otherwise.0) {
            (Some(_), _) => Take::When,
            (None, true) => Take::Otherwise,
            (None, false) => Take::Always,
        };
        if edge.when.is_some() && edge.otherwise.0 {
            let message = "a line has `when` or `otherwise`, not both";
            let fix = "remove one of them";
            self.error_at_key(code::INVALID_LINE, &format!("/edges/{i}/otherwise"), message, fix);
        }
        let guard = match (take, &edge.when) {
            (Take::When, Some(source)) => self.when(i, from, source),
            (Take::Otherwise, _) => Some(Guard::Otherwise),
            _ => Some(Guard::Always),
        };
        match (from, to) {
            // A condition that does not compile still shows where the line leads.
            (Some(from), Some(to)) => {
                self.connect(from, to, guard.unwrap_or(Guard::Otherwise), take, i);
            }
            _ => self.lines.complete = false,
        }
    }

    fn when(&mut self, i: usize, from: Option<Point>, source: &str) -> Option<Guard> {
        let (document, channels, mut ignored) = (self.document, self.channels, Vec::new());
        let reads = match from {
            Some(Point::Node(node)) => &mut self.lines.reads[node],
            _ => &mut ignored,
        };
        let (scope, findings) = (&mut self.lines.scope, &mut *self.findings);
        let limits = self.limits;
        let mut texts =
            Texts { document, channels, limits, handles_error: false, reads, scope, findings };
        texts.expression(&format!("/edges/{i}/when"), source).map(Guard::When)
    }

    fn join(&mut self, i: usize, from: &[String], edge: &EdgeSpec) {
        for (key, there) in [("when", edge.when.is_some()), ("otherwise", edge.otherwise.0)] {
            if there {
                let message = format!("a line with several sources cannot have `{key}`");
                let fix = "put the condition on a line after the join";
                self.error_at_key(
                    code::CONDITION_ON_JOIN,
                    &format!("/edges/{i}/{key}"),
                    message,
                    fix,
                );
            }
        }
        let (mut sources, mut listed) = (Vec::new(), HashSet::new());
        for (k, name) in from.iter().enumerate() {
            if self.enough() {
                break;
            }
            let at = format!("/edges/{i}/from/{k}");
            match self.point(&at, name) {
                Some(Point::Node(node)) if !listed.insert(node) => {
                    let message = format!("`{name}` is listed twice");
                    self.error(code::DUPLICATE_NAME, &at, message, "keep one");
                }
                Some(Point::Node(node)) => sources.push(node),
                Some(_) => {
                    self.lines.complete = false;
                    let fix = "join nodes only";
                    self.error(code::INVALID_LINE, &at, format!("`{name}` cannot be joined"), fix);
                }
                None => self.lines.complete = false,
            }
        }
        if from.len() == 1 {
            let message = "a join of one source waits for nothing else";
            let fix = format!("write `from: {}`, or list what else it waits for", from[0]);
            let finding = self.document.error_at(
                code::INVALID_LINE,
                &format!("/edges/{i}/from"),
                message,
                fix,
            );
            self.findings.push(finding.warning());
        }
        match self.target(i, &edge.to) {
            Some(Point::Node(target)) if !sources.is_empty() => {
                let needs = self.needs(i, edge.join, sources.len());
                self.connect_join(i, Joined { target, needs, sources });
            }
            // END waits for nothing: a join before it is its single lines.
            Some(Point::End) => {
                self.joins_nothing(i, edge.join);
                for source in sources {
                    self.connect(Point::Node(source), Point::End, Guard::Always, Take::Always, i);
                }
            }
            _ => self.lines.complete = false,
        }
    }

    fn needs(&mut self, i: usize, rule: Option<JoinRule>, sources: usize) -> Needs {
        let at = format!("/edges/{i}/join");
        match rule {
            None | Some(JoinRule::Word(JoinWord::All)) => {}
            Some(JoinRule::Word(JoinWord::Any)) => return Needs::Count(1),
            Some(JoinRule::Count(count)) if count <= sources => return Needs::Count(count),
            Some(JoinRule::Count(count)) => {
                let message = format!("a join of {sources} sources cannot wait for {count}");
                let fix = format!("write `all`, `any`, or a number from 1 to {sources}");
                self.error(code::JOIN_COUNT, &at, message, fix);
            }
        }
        Needs::All
    }

    fn joins_nothing(&mut self, i: usize, rule: Option<JoinRule>) {
        if !matches!(rule, None | Some(JoinRule::Word(JoinWord::All))) {
            let message = "END waits for nothing: a run ends when nothing is left to do";
            let fix = "remove `join`; to go on with the first, join at a node";
            self.error_at_key(code::INVALID_LINE, &format!("/edges/{i}/join"), message, fix);
        }
    }

    fn connect_join(&mut self, i: usize, joined: Joined) {
        let join = self.lines.joins.len();
        let vertex = self.lines.topology.add_join();
        for (slot, source) in joined.sources.iter().enumerate() {
            let line = Line { guard: Guard::Always, to: Target::Slot { join, slot } };
            self.lines.leaving[*source].push(line);
            let source = self.lines.topology.node(*source);
            self.lines.topology.connect(source, vertex, Take::Always, Said::Line(i));
        }
        let to = self.lines.topology.node(joined.target);
        self.lines.topology.connect(vertex, to, Take::Always, Said::Line(i));
        self.lines.joins.push(joined);
    }

    fn connect(&mut self, from: Point, to: Point, guard: Guard, take: Take, line: usize) {
        let target = match to {
            Point::Node(node) => Target::Node(node),
            Point::Start | Point::End => Target::End,
        };
        let leaving = match from {
            Point::Node(node) => &mut self.lines.leaving[node],
            Point::Start | Point::End => &mut self.lines.start,
        };
        leaving.push(Line { guard, to: target });
        let (from, to) = (self.vertex(from), self.vertex(to));
        self.lines.topology.connect(from, to, take, Said::Line(line));
    }

    fn vertex(&self, point: Point) -> Vertex {
        match point {
            Point::Start => topology::start(),
            Point::End => topology::end(),
            Point::Node(node) => self.lines.topology.node(node),
        }
    }

    fn source(&mut self, i: usize, name: &str) -> Option<Point> {
        let at = format!("/edges/{i}/from");
        let point = self.point(&at, name)?;
        if point == Point::End {
            let fix = "END ends the run: begin the line at a node";
            self.error(code::INVALID_LINE, &at, "no line can leave END", fix);
            return None;
        }
        Some(point)
    }

    fn target(&mut self, i: usize, name: &str) -> Option<Point> {
        let at = format!("/edges/{i}/to");
        let point = self.point(&at, name)?;
        if point == Point::Start {
            let fix = "name the node that the cycle goes back to";
            self.error(code::INVALID_LINE, &at, "no line can lead to START", fix);
            return None;
        }
        Some(point)
    }

    fn point(&mut self, at: &str, name: &str) -> Option<Point> {
        match name {
            "START" => return Some(Point::Start),
            "END" => return Some(Point::End),
            _ => {}
        }
        let node = self.places.get(name).copied();
        // Without any node there is a finding that says so.
        if node.is_none() && !self.names.is_empty() {
            let known = self.names.iter().map(|name| &**name).chain(["START", "END"]);
            let fix = suggest(name, known);
            self.error(code::UNKNOWN_NODE, at, format!("no node is named `{name}`"), fix);
        }
        self.lines.complete &= node.is_some();
        node.map(Point::Node)
    }

    fn duplicate(&mut self, i: usize, edge: &EdgeSpec) {
        let from = match &edge.from {
            Ends::One(from) => from.clone(),
            Ends::Many(from) if from.is_empty() => return,
            Ends::Many(from) => {
                let mut from = from.clone();
                from.sort();
                from.join(",")
            }
        };
        let guard = format!("{:?} {} {:?}", edge.when, edge.otherwise.0, edge.join);
        if !self.seen.insert((from, edge.to.clone(), guard)) {
            let message = "the same line stands here a second time";
            self.error(code::DUPLICATE_LINE, &format!("/edges/{i}"), message, "remove it");
        }
    }

    fn error(
        &mut self,
        code: &'static str,
        at: &str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.findings.push(self.document.error_at(code, at, message, fix));
    }

    fn error_at_key(
        &mut self,
        code: &'static str,
        at: &str,
        message: impl Into<String>,
        fix: &str,
    ) {
        self.findings.push(self.document.error_at_key(code, at, message, fix));
    }
}
