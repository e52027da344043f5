//! What all nodes and lines together say: reachability, conditions, cycles, parallel writes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::NodeIndex as Vertex;
use petgraph::visit::EdgeRef as _;

use crate::diagnostic::{FINDINGS_LIMIT, Finding, code};
use crate::document::{Document, child};
use crate::graph::build::Access;
use crate::graph::compile::Alive;
use crate::graph::effort::Effort;
use crate::graph::lines::Joined;
use crate::graph::spec::Mode;
use crate::graph::topology::{Components, Place, Said, Take, Topology, end, start};
use crate::graph::{Branch, Schedule, lines, parallel};
use crate::state::Channels;

/// What is checked.
pub(super) struct Checked<'a> {
    pub(super) document: &'a Document,
    pub(super) mode: Mode,
    pub(super) schedule: Schedule,
    pub(super) names: &'a [Arc<str>],
    pub(super) branches: Vec<Branch>,
    pub(super) writes: Vec<&'a [Access]>,
    /// Of a node, its `goto` and its conditions.
    pub(super) reads: Vec<Vec<Access>>,
    pub(super) joins: &'a [Joined],
    pub(super) channels: &'a Channels,
    pub(super) topology: &'a Topology,
    /// By join and slot.
    pub(super) alive: &'a Alive,
    pub(super) effort: &'a Effort,
}

impl Checked<'_> {
    /// Every finding about the whole.
    pub(super) fn findings(&self) -> Vec<Finding> {
        if self.topology.out(start()).is_empty() {
            let fix = "add `{ from: START, to: NODE }`";
            let message = "nothing begins at START";
            return vec![self.document.error_at_key(code::NO_START, "/edges", message, fix)];
        }
        let mut findings = self.ways();
        findings.extend(self.conditions());
        let components = self.topology.components();
        findings.extend(self.endless(&components));
        findings.extend(parallel::findings(self, &components));
        findings
    }

    pub(super) fn name(&self, vertex: Vertex) -> &str {
        match self.topology.arcs[vertex] {
            Place::Start => "START",
            Place::End => "END",
            Place::Node(node) => &self.names[node],
            Place::Join(_) => "a join",
        }
    }

    pub(super) fn branch(&self, vertex: Vertex) -> Branch {
        match self.topology.arcs[vertex] {
            Place::Node(node) => self.branches[node],
            Place::Start | Place::End | Place::Join(_) => Branch::First,
        }
    }

    /// Where the YAML says an arc that leaves `from`.
    pub(super) fn said(&self, from: Vertex, said: Said) -> String {
        let node = || child("/nodes", self.name(from));
        match said {
            Said::Line(line) => lines::pointer(self.mode, line),
            Said::Goto(place) => format!("{}/goto/among/{place}", node()),
            Said::OnError => format!("{}/on_error", node()),
        }
    }

    /// Nodes that nothing leads to, and nodes that lead nowhere.
    fn ways(&self) -> Vec<Finding> {
        let reached = self.topology.reachable();
        let mut findings = Vec::new();
        for (node, name) in self.names.iter().enumerate() {
            let (vertex, at) = (self.topology.node(node), child("/nodes", name));
            if &**name == "START" || &**name == "END" {
                // A line cannot name such a node, and its name is a finding already.
            } else if !reached[vertex.index()] {
                let message = format!("no line from START leads to `{name}`");
                let fix = match self.mode {
                    Mode::Graph => format!("add a line with `to: {name}`, or remove the node"),
                    Mode::Linear => format!("add `{name}` to `order`, or remove the node"),
                };
                findings.push(self.document.error_at_key(
                    code::UNREACHABLE_NODE,
                    &at,
                    message,
                    fix,
                ));
            } else if self.mode == Mode::Graph && self.ends_by_itself(vertex) {
                let message = format!("no line leaves `{name}`: the run ends here");
                let fix = format!("say so with `{{ from: {name}, to: END }}`");
                let finding = self.document.error_at_key(code::NO_WAY_ON, &at, message, fix);
                findings.push(finding.warning());
            }
        }
        findings
    }

    /// Whether nothing follows a task of the vertex that does not fail.
    fn ends_by_itself(&self, vertex: Vertex) -> bool {
        self.topology.out(vertex).iter().all(|(_, arc)| arc.take == Take::Error)
    }

    fn conditions(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for vertex in self.topology.arcs.node_indices() {
            let count = |take| self.topology.count(vertex, take);
            let (always, when, otherwise) =
                (count(Take::Always), count(Take::When), count(Take::Otherwise));
            let first = |take| {
                let out = self.topology.out(vertex);
                out.iter().find(|(_, arc)| arc.take == take).map(|(_, arc)| arc.said)
            };
            let at = |take| first(take).map(|said| self.said(vertex, said)).unwrap_or_default();
            let name = self.name(vertex);
            if when > 0 && otherwise == 0 && always == 0 {
                let message = format!("if no `when` of `{name}` is true, the run has no way on");
                let fix = format!("add `{{ from: {name}, to: …, otherwise: true }}`");
                findings.push(self.document.error_at(
                    code::NO_OTHERWISE,
                    &at(Take::When),
                    message,
                    fix,
                ));
            }
            if otherwise > 0 && when == 0 {
                let message = format!("`{name}` has `otherwise` without any `when`");
                let fix = "remove `otherwise`, or give another line of the node a `when`";
                findings.push(self.document.error_at(
                    code::NO_WHEN,
                    &at(Take::Otherwise),
                    message,
                    fix,
                ));
            }
        }
        findings
    }

    /// Cycles that no choice can leave. A component is looked at after those it leads to, which
    /// by then count as mended: a cycle is not blamed for one behind it.
    fn endless(&self, components: &Components) -> Vec<Finding> {
        let mut ends = Ends::of(self.topology);
        let vertices = self.topology.arcs.node_indices();
        ends.settle(vertices.filter(|v| *v == end() || self.ends_by_itself(*v)).collect());
        let mut findings = Vec::new();
        let reached = self.topology.reachable();
        for (number, list) in components.lists.iter().enumerate() {
            let stuck = list.iter().any(|v| !ends.ended[v.index()]) && reached[list[0].index()];
            if !components.cyclic[number] || !stuck {
                continue;
            }
            if findings.len() > FINDINGS_LIMIT {
                break;
            }
            findings.push(self.endless_cycle(components, list));
            ends.settle(list.clone());
        }
        findings
    }

    fn endless_cycle(&self, components: &Components, list: &[Vertex]) -> Finding {
        let first = list.iter().copied().min().unwrap_or(start());
        let (path, at) = self.cycle(components, first);
        let names: Vec<&str> = path
            .iter()
            .filter(|v| matches!(self.topology.arcs[**v], Place::Node(_)))
            .map(|v| self.name(*v))
            .collect();
        let cycle = names.join(" → ");
        let message = format!("the cycle {cycle} → {} never ends", names.first().unwrap_or(&""));
        let fix = if path.iter().any(|vertex| self.topology.jumps(*vertex)) {
            "let a `goto` of these nodes leave the cycle too: add END or another node to its `among`"
        } else {
            "give one of these nodes a line that leaves the cycle, with `when`, and put \
             `otherwise` on the line that goes on"
        };
        self.document.error_at(code::ENDLESS_CYCLE, &at, message, fix)
    }

    /// The shortest cycle through `first` inside its component, and where the YAML says its
    /// first line.
    fn cycle(&self, components: &Components, first: Vertex) -> (Vec<Vertex>, String) {
        let mut came: HashMap<Vertex, Vertex> = HashMap::new();
        let mut queue = VecDeque::from([first]);
        let mut last = first;
        'search: while let Some(vertex) = queue.pop_front() {
            for (to, _) in self.topology.out(vertex) {
                if to == first {
                    last = vertex;
                    break 'search;
                }
                if components.on_cycle(to, first) && !came.contains_key(&to) {
                    came.insert(to, vertex);
                    queue.push_back(to);
                }
            }
        }
        let mut path = vec![last];
        while let Some(before) = path.last().and_then(|vertex| came.get(vertex)) {
            path.push(*before);
        }
        path.reverse();
        let second = path.get(1).copied().unwrap_or(first);
        let out = self.topology.out(first);
        let said = out.iter().find(|(to, _)| *to == second).map(|(_, arc)| arc.said);
        (path, said.map(|said| self.said(first, said)).unwrap_or_default())
    }

    /// By node: what it writes to channels without a reducer.
    pub(super) fn replaced(&self) -> Vec<Vec<&Access>> {
        let replaced = |write: &&Access| {
            let channel = self.channels.get(&write.channel);
            channel.is_some_and(|c| c.reduce == crate::state::Reducer::Replace)
        };
        self.writes.iter().map(|writes| writes.iter().filter(replaced).collect()).collect()
    }
}

/// From which vertices a run can come to its end: all of its unconditional lines end, and one of
/// its conditional ones; or its `goto` or `on_error` can leave. A node that has `goto` alone and
/// gives null ends too, but a cycle has to say so with END in `among`.
struct Ends<'a> {
    topology: &'a Topology,
    ended: Vec<bool>,
    /// By vertex: what is still to be found out of the arcs that leave it.
    open: Vec<Open>,
}

#[derive(Clone, Default)]
struct Open {
    lines: bool,
    /// Unconditional lines that are not known to end.
    always: usize,
    /// There are conditional lines, and none is known to end.
    choice: bool,
    /// A `goto` or `on_error` is known to end.
    way: bool,
}

impl<'a> Ends<'a> {
    fn of(topology: &'a Topology) -> Self {
        let vertices = topology.arcs.node_count();
        let mut open = vec![Open::default(); vertices];
        for arc in topology.arcs.edge_references() {
            let open = &mut open[arc.source().index()];
            let take = arc.weight().take;
            open.lines |= take.is_line();
            open.always += usize::from(take == Take::Always);
            open.choice |= take.is_line() && take != Take::Always;
        }
        Self { topology, ended: vec![false; vertices], open }
    }

    /// Marks these, and all that can end because of them.
    fn settle(&mut self, mut queue: Vec<Vertex>) {
        while let Some(vertex) = queue.pop() {
            if std::mem::replace(&mut self.ended[vertex.index()], true) {
                continue;
            }
            for arc in self.topology.arcs.edges_directed(vertex, Direction::Incoming) {
                let before = arc.source();
                let open = &mut self.open[before.index()];
                match arc.weight().take {
                    Take::Always => open.always -= 1,
                    take if take.is_line() => open.choice = false,
                    _ => open.way = true,
                }
                let ends = open.way || open.lines && open.always == 0 && !open.choice;
                if ends && !self.ended[before.index()] {
                    queue.push(before);
                }
            }
        }
    }
}
