//! From a document to a [`Graph`], with every finding at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::diagnostic::{FINDINGS_LIMIT, Finding, any_error, bound, code, sort, suggest};
use crate::document::{Document, child};
use crate::graph::build::{Access, Build, Known, Memo};
use crate::graph::check::Checked;
use crate::graph::effort::Effort;
use crate::graph::inside::{Brings, Nested};
use crate::graph::lines::{Joined, Lines};
use crate::graph::policy::Common;
use crate::graph::reading::{self, Reading, UNSUPPORTED_KINDS};
use crate::graph::spec::{COMMON_KEYS, GraphSpec, NodeSpec};
use crate::graph::{
    Branch, Graph, GraphNode, Guard, Join, Limits, Line, Names, NodeIndex, Policy, Schedule, Slot,
    Target, channels, lines,
};
use crate::limits::{Beyond, FileLimits};
use crate::node::{NodeKind, Work};
use crate::run::record::Durability;
use crate::schema;
use crate::shape::{self, Shape};
use crate::state::{Channels, Reducer};
use crate::yaml;

/// What became of a graph's document.
#[derive(Debug)]
pub struct Compiled {
    /// As in the YAML; `unnamed` if it says none.
    pub name: String,
    /// As in the YAML.
    pub description: String,
    /// `None` if there is any error among the findings.
    pub graph: Option<Arc<Graph>>,
    /// Sorted by place.
    pub findings: Vec<Finding>,
    /// What its nodes need besides it.
    pub(super) brings: Brings,
    /// Listed inputs that begin as nothing.
    pub(super) required: Vec<Arc<str>>,
}

impl Compiled {
    /// A file that cannot be read as a graph.
    #[must_use]
    pub fn unread(mut findings: Vec<Finding>) -> Self {
        sort(&mut findings);
        bound(&mut findings);
        Self {
            name: "unnamed".into(),
            description: String::new(),
            graph: None,
            findings,
            brings: Brings::default(),
            required: Vec::new(),
        }
    }

    /// Skills that its nodes name, those of the graphs inside it included.
    #[must_use]
    pub fn skills(&self) -> &BTreeSet<String> {
        &self.brings.skills
    }

    /// Graphs that its nodes run, those inside them included.
    pub fn graphs(&self) -> impl Iterator<Item = &String> {
        self.brings.graphs.keys()
    }
}

/// Checks a document and compiles it, for runs of its own.
#[must_use]
pub fn compile(document: &Document, known: Known<'_>) -> Compiled {
    compile_as(document, known, true)
}

/// Compiles it for nodes of others that keep its messages to themselves. What is wrong with it
/// [`compile`] has said.
pub(super) fn hidden(document: &Document, known: Known<'_>) -> Option<Arc<Graph>> {
    compile_as(document, known, false).graph
}

fn compile_as(document: &Document, known: Known<'_>, shown: bool) -> Compiled {
    let reading = match reading::read(document) {
        Ok(reading) => reading,
        Err(findings) => return Compiled::unread(findings),
    };
    let Reading { spec, broken_nodes, broken_lines, mut findings } = reading;
    check_name(document, "/graph", &spec.graph, &mut findings);
    let channels = Arc::new(channels::collect(document, &spec.state, &mut findings));
    let listed = |key, list: Option<&Vec<String>>, findings: &mut Vec<Finding>| {
        channels::listed(document, key, list, &channels, findings)
    };
    let input = listed("input", spec.input.as_ref(), &mut findings);
    let output = listed("output", spec.output.as_ref(), &mut findings);
    if spec.nodes.is_empty() && !broken_lines {
        let fix = "add `nodes:` with at least one node";
        findings.push(document.error_at_key(
            code::EMPTY_GRAPH,
            "/nodes",
            "the graph has no nodes",
            fix,
        ));
    }
    let scene = Scene {
        document,
        graph: &spec.graph,
        channels: &channels,
        shown,
        handles_error: false,
        memo: &Memo::default(),
        known,
    };
    let nodes = build_nodes(scene, &spec, &broken_nodes, &mut findings);
    let names: Vec<Arc<str>> = nodes.iter().map(|node| node.name.clone()).collect();
    let limits = known.catalog.limits.expression;
    let policies = nodes.iter().map(|node| &node.policy);
    let lines = lines::read(document, &spec, &channels, limits, &names, policies, &mut findings);
    let complete = lines.complete && !broken_lines && nodes.iter().all(|node| node.complete);
    let effort = Effort::new(known.catalog.limits.files.checks);
    let whole = complete && !nodes.is_empty();
    let alive = whole.then(|| alive(&lines, names.len(), &effort)).flatten();
    if let Some(alive) = &alive {
        let whole = Checked {
            document,
            mode: spec.mode,
            schedule: spec.schedule,
            names: &names,
            branches: nodes.iter().map(|node| node.branch).collect(),
            writes: nodes.iter().map(|node| &*node.writes).collect(),
            reads: nodes
                .iter()
                .zip(&lines.reads)
                .map(|(n, l)| [&n.reads[..], l].concat())
                .collect(),
            joins: &lines.joins,
            channels: &channels,
            topology: &lines.topology,
            alive,
            effort: &effort,
        };
        findings.extend(whole.findings());
    }
    if effort.is_spent() {
        findings.push(not_all_looked_at(document, &known.catalog.limits.files, alive.is_some()));
    }
    sort(&mut findings);
    bound(&mut findings);
    let mut brings = Brings::default();
    for node in &nodes {
        brings.add(&node.brings);
    }
    brings.scope.extend(lines.scope.iter().map(|read| read.name));
    let required = required(&spec);
    let head = Head {
        name: spec.graph.as_str().into(),
        schedule: spec.schedule,
        durability: spec.durability,
        limits: run_limits(&spec),
        input,
        output,
        shown,
    };
    let alive = alive.filter(|_| !any_error(&findings));
    let graph = alive.and_then(|alive| assemble(head, channels, nodes, lines, alive));
    let (name, description, graph) = (spec.graph, spec.description, graph.map(Arc::new));
    Compiled { name, description, graph, findings, brings, required }
}

/// Listed inputs that begin as nothing, so that a node that runs the graph must give them.
fn required(spec: &GraphSpec) -> Vec<Arc<str>> {
    let nothing = |name: &&String| {
        let channel = spec.state.get(*name);
        channel.is_some_and(|c| c.default.is_none() && c.reduce == Reducer::Replace)
    };
    spec.input.iter().flatten().filter(nothing).map(|name| name.as_str().into()).collect()
}

/// Names that appear in addresses: ASCII letters, digits, `_` and `-`.
pub(crate) fn check_name(
    document: &Document,
    pointer: &str,
    name: &str,
    findings: &mut Vec<Finding>,
) {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
        let message = format!("`{name}` is no name");
        let fix = "use 1 to 64 letters, digits, `_` and `-`";
        findings.push(document.error_at(code::INVALID_NAME, pointer, message, fix));
    }
}

/// A node whose YAML was read; without `work` if it could not be built.
#[derive(Default)]
struct Built {
    name: Arc<str>,
    kind: &'static str,
    branch: Branch,
    work: Option<Work>,
    policy: Policy,
    writes: Vec<Access>,
    /// What the node itself and its `goto` read.
    reads: Vec<Access>,
    brings: Brings,
    /// Where it goes by itself is known.
    complete: bool,
}

/// What surrounds the nodes that are built.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) document: &'a Document,
    /// The graph's name.
    pub(super) graph: &'a str,
    pub(super) channels: &'a Arc<Channels>,
    /// Whether messages written here are the conversation's.
    pub(super) shown: bool,
    /// Whether all of them stand in a node that handles another's failure.
    pub(super) handles_error: bool,
    pub(super) memo: &'a Memo,
    pub(super) known: Known<'a>,
}

/// Builds one node after another.
struct Builder<'a> {
    scene: Scene<'a>,
    places: HashMap<&'a str, NodeIndex>,
    /// Nodes that some `on_error` names.
    handlers: BTreeSet<&'a str>,
    /// By kind, each compiled once.
    shapes: BTreeMap<&'static str, Option<Shape>>,
    findings: &'a mut Vec<Finding>,
}

fn build_nodes(
    scene: Scene<'_>,
    spec: &GraphSpec,
    broken: &BTreeSet<String>,
    findings: &mut Vec<Finding>,
) -> Vec<Built> {
    let places = spec.nodes.keys().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let handlers = spec.nodes.values().filter_map(|yaml| yaml.get("on_error")?.as_str()).collect();
    let mut builder = Builder { scene, places, handlers, shapes: BTreeMap::new(), findings };
    let mut nodes = Vec::with_capacity(spec.nodes.len());
    for (name, yaml) in &spec.nodes {
        builder.check_name(name);
        // There are more findings than a person reads.
        let enough = builder.findings.len() > FINDINGS_LIMIT;
        let complete = !enough && !["goto", "on_error"].iter().any(|key| yaml.contains_key(*key));
        let mut built = Built { name: name.as_str().into(), complete, ..Built::default() };
        if !broken.contains(name) && !enough {
            builder.build(&mut built, &child("/nodes", name), yaml);
        }
        nodes.push(built);
    }
    nodes
}

/// Builds one node that stands inside another, and says what it brings.
pub(super) fn nested(
    scene: Scene<'_>,
    name: &str,
    pointer: &str,
    yaml: &Map<String, Value>,
    findings: &mut Vec<Finding>,
) -> Option<(Nested, Brings)> {
    let (places, handlers, shapes) = (HashMap::new(), BTreeSet::new(), BTreeMap::new());
    let mut built = Built { name: name.into(), ..Built::default() };
    Builder { scene, places, handlers, shapes, findings }.build(&mut built, pointer, yaml);
    let Built { name, kind, branch, work, policy, writes, reads, brings, .. } = built;
    let lines = vec![Line { guard: Guard::Always, to: Target::End }];
    let node = GraphNode { name, kind, work: work?, branch, lines, policy };
    let writes = writes.into_iter().map(|write| write.channel).collect();
    Some((Nested { node, writes, reads }, brings))
}

impl Builder<'_> {
    fn check_name(&mut self, name: &str) {
        let good = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        let message = if name == "START" || name == "END" {
            format!("`{name}` is where every graph begins or ends; no node can have that name")
        } else if name.is_empty() || name.chars().count() > 64 || !name.chars().all(good) {
            format!("`{name}` is no name for a node")
        } else {
            return;
        };
        let fix = "use 1 to 64 letters, digits, `_` and `-`";
        let finding = self.scene.document.error_at_key(
            code::INVALID_NAME,
            &child("/nodes", name),
            message,
            fix,
        );
        self.findings.push(finding);
    }

    /// Fills in what can be read; where a node goes is known even if it cannot be built.
    fn build(&mut self, built: &mut Built, pointer: &str, yaml: &Map<String, Value>) {
        let kind = self.kind(pointer, yaml);
        let value = Value::Object(yaml.clone());
        let (scene, before) = (self.scene, self.findings.len());
        let document = scene.document;
        let kind = kind.filter(|kind| {
            let shape = self.shape(pointer, &**kind);
            let wrong = shape.map(|shape| shape.check(document, pointer, &value));
            let good = wrong.as_ref().is_some_and(Vec::is_empty);
            self.findings.extend(wrong.into_iter().flatten().map(|violation| violation.finding));
            good
        });
        let spec = match NodeSpec::deserialize(&value) {
            Ok(spec) => spec,
            Err(error) => {
                if self.findings.len() == before && kind.is_some() {
                    self.findings.push(shape::unread(document, pointer, &error));
                }
                return;
            }
        };
        let mut common = Common {
            document,
            channels: scene.channels,
            limits: scene.known.catalog.limits.expression,
            places: &self.places,
            pointer: pointer.to_owned(),
            reads: Vec::new(),
            scope: Vec::new(),
            complete: true,
            findings: self.findings,
        };
        built.branch = spec.branch;
        built.policy = common.policy(&spec);
        built.complete = common.complete;
        if let Some(kind) = kind {
            let mut own = yaml.clone();
            own.retain(|key, _| !COMMON_KEYS.contains(&key.as_str()));
            let mut build = Build {
                known: scene.known,
                document,
                graph: scene.graph,
                channels: scene.channels,
                shown: scene.shown,
                handles_error: scene.handles_error || self.handlers.contains(&*built.name),
                memo: scene.memo,
                name: built.name.clone(),
                pointer: pointer.to_owned(),
                own: own.clone(),
                writes: Vec::new(),
                reads: Vec::new(),
                scope: Vec::new(),
                brings: Brings::default(),
                findings: Vec::new(),
            };
            built.kind = kind.name();
            built.work = kind.build(&mut build);
            built.policy.cache = common.cache(spec.cache, built.kind, &own, &build);
            common.findings.append(&mut build.findings);
            (built.writes, built.brings) = (build.writes, build.brings);
            built.brings.scope.extend(build.scope.iter().map(|read| read.name));
            built.reads = build.reads;
        }
        built.reads.append(&mut common.reads);
        built.brings.scope.extend(common.scope.iter().map(|read| read.name));
    }

    fn kind(&mut self, pointer: &str, yaml: &Map<String, Value>) -> Option<Arc<dyn NodeKind>> {
        let (document, kinds) = (self.scene.document, &self.scene.known.catalog.kinds);
        let at = child(pointer, "kind");
        let finding = match yaml.get("kind") {
            None => {
                let fix = format!("add `kind: …`; {}", suggest("", kinds.names()));
                document.error_at_key(code::MISSING_KEY, pointer, "`kind` is missing", fix)
            }
            Some(Value::String(name)) => match kinds.get(name) {
                Some(kind) => return Some(kind.clone()),
                None if UNSUPPORTED_KINDS.contains(&name.as_str()) => {
                    let message = format!("`kind: {name}` is not supported by this version");
                    let fix = "remove the node, or use a later version of exile";
                    document.error_at(code::NOT_SUPPORTED, &at, message, fix)
                }
                None => {
                    let message = format!("no kind of node is named `{name}`");
                    let fix = suggest(name, kinds.names());
                    document.error_at(code::UNKNOWN_KIND, &at, message, fix)
                }
            },
            Some(other) => {
                let message = format!("`kind` must be text, not {}", shape::kind_of(other));
                let fix = suggest("", kinds.names());
                document.error_at(code::WRONG_TYPE, &at, message, fix)
            }
        };
        self.findings.push(finding);
        None
    }

    fn shape(&mut self, pointer: &str, kind: &dyn NodeKind) -> Option<&Shape> {
        let (document, findings) = (self.scene.document, &mut *self.findings);
        let shape = self.shapes.entry(kind.name()).or_insert_with(|| {
            Shape::new(schema::node(kind))
                .map_err(|why| {
                    let fix = "this is a defect of the kind: please report it";
                    findings.push(document.error_at(code::INVALID_SCHEMA, pointer, why, fix));
                })
                .ok()
        });
        shape.as_ref()
    }
}

fn run_limits(spec: &GraphSpec) -> Limits {
    Limits {
        steps: spec.limits.steps,
        timeout: spec.limits.timeout.map(|period| period.0),
        tokens: spec.limits.tokens,
    }
}

struct Head {
    name: Arc<str>,
    schedule: Schedule,
    durability: Durability,
    limits: Limits,
    input: Vec<Arc<str>>,
    output: Vec<Arc<str>>,
    shown: bool,
}

/// By join and slot: the nodes from which its source can still be reached ([`Slot::alive`]).
pub(super) type Alive = Vec<Vec<Vec<bool>>>;

/// Bytes that these may take, and are kept for as long as the graph.
const ALIVE_LIMIT: usize = 32 * 1024 * 1024;

/// `None` if that is more than can be looked at.
fn alive(lines: &Lines, nodes: usize, effort: &Effort) -> Option<Alive> {
    let slots: usize = lines.joins.iter().map(|join| join.sources.len()).sum();
    if slots.saturating_mul(nodes) > ALIVE_LIMIT {
        effort.spend(usize::MAX);
        return None;
    }
    let of = |(join, joined): (usize, &Joined)| lines.topology.alive(&joined.sources, join, effort);
    lines.joins.iter().enumerate().map(of).collect()
}

/// Not all of the graph was looked at. A graph that runs all the same must know of its joins.
fn not_all_looked_at(document: &Document, limits: &FileLimits, joins: bool) -> Finding {
    if limits.beyond == Beyond::Postpone {
        return yaml::not_checked_yet(document.path());
    }
    let fix = "divide the graph, with `kind: graph` for its parts; or raise `limits: { file_checks }` \
               in exile.yaml";
    let message = if joins {
        "too many paths lead through this graph to check all that can run at the same time, or twice"
    } else {
        "the joins of this graph have more sources than can be kept in mind"
    };
    let finding = document.error_at_key(code::TOO_MANY_PATHS, "/edges", message, fix);
    if joins { finding.warning() } else { finding }
}

/// `None` if a node could not be built, which a finding has said.
fn assemble(
    head: Head,
    channels: Arc<Channels>,
    nodes: Vec<Built>,
    lines: Lines,
    alive: Alive,
) -> Option<Graph> {
    let Lines { start, leaving, joins, .. } = lines;
    let joins = joins
        .into_iter()
        .zip(alive)
        .map(|(Joined { target, needs, sources }, alive)| {
            let slots = sources.into_iter().zip(alive);
            let slots = slots.map(|(from, alive)| Slot { from, alive }).collect();
            Join { target, needs, slots }
        })
        .collect();
    let nodes = nodes
        .into_iter()
        .zip(leaving)
        .map(|(node, lines)| {
            let Built { name, kind, branch, work, policy, .. } = node;
            work.map(|work| GraphNode { name, kind, work, branch, lines, policy })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Graph {
        name: head.name,
        channels,
        nodes,
        start,
        start_branch: Branch::First,
        joins,
        schedule: head.schedule,
        durability: head.durability,
        limits: head.limits,
        input: head.input,
        output: head.output,
        shown: head.shown,
        names: Names::default(),
    })
}
