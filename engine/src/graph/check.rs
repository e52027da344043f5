//! What all nodes and lines together say: reachability, conditions, cycles, parallel writes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::NodeIndex as Vertex;

use crate::diagnostic::{Finding, code};
use crate::document::{Document, child};
use crate::graph::build::Write;
use crate::graph::spec::Mode;
use crate::graph::topology::{Components, Place, Take, Topology, end, start};
use crate::graph::{Branch, lines, parallel};
use crate::state::Channels;

/// What is checked.
pub(super) struct Checked<'a> {
    pub(super) document: &'a Document,
    pub(super) mode: Mode,
    pub(super) names: &'a [Arc<str>],
    pub(super) branches: &'a [Branch],
    pub(super) writes: &'a [Vec<Write>],
    pub(super) channels: &'a Channels,
    pub(super) topology: &'a Topology,
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

    pub(super) fn line(&self, line: usize) -> String {
        lines::pointer(self.mode, line)
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
            } else if self.topology.out(vertex).is_empty() {
                let message = format!("no line leaves `{name}`: the run ends here");
                let fix = format!("say so with `{{ from: {name}, to: END }}`");
                let finding = self.document.error_at_key(code::NO_WAY_ON, &at, message, fix);
                findings.push(finding.warning());
            }
        }
        findings
    }

    fn conditions(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for vertex in self.topology.arcs.node_indices() {
            let count = |take| self.topology.count(vertex, take);
            let (always, when, otherwise) =
                (count(Take::Always), count(Take::When), count(Take::Otherwise));
            let first = |take| {
                let out = self.topology.out(vertex);
                out.iter().find(|(_, arc)| arc.take == take).map(|(_, arc)| arc.line)
            };
            let name = self.name(vertex);
            if when > 0 && otherwise == 0 && always == 0 {
                let at = first(Take::When).map(|line| self.line(line)).unwrap_or_default();
                let message = format!("if no `when` of `{name}` is true, the run has no way on");
                let fix = format!("add `{{ from: {name}, to: …, otherwise: true }}`");
                findings.push(self.document.error_at(code::NO_OTHERWISE, &at, message, fix));
            }
            if otherwise > 0 && when == 0 {
                let at = first(Take::Otherwise).map(|line| self.line(line)).unwrap_or_default();
                let message = format!("`{name}` has `otherwise` without any `when`");
                let fix = "remove `otherwise`, or give another line of the node a `when`";
                findings.push(self.document.error_at(code::NO_WHEN, &at, message, fix));
            }
        }
        findings
    }

    /// Cycles that no choice can leave. A component is looked at after those it leads to, which
    /// by then count as mended: a cycle is not blamed for one behind it.
    fn endless(&self, components: &Components) -> Vec<Finding> {
        let mut ends = vec![false; self.topology.arcs.node_count()];
        self.settle(&mut ends, vec![end()]);
        let mut findings = Vec::new();
        let reached = self.topology.reachable();
        for (number, list) in components.lists.iter().enumerate() {
            let stuck = list.iter().any(|v| !ends[v.index()]) && reached[list[0].index()];
            if !components.cyclic[number] || !stuck {
                continue;
            }
            findings.push(self.endless_cycle(components, list));
            self.settle(&mut ends, list.clone());
        }
        findings
    }

    /// Marks `given` and every vertex from which a run can come to its end: all of its
    /// unconditional lines end, and one of its conditional ones.
    fn settle(&self, ends: &mut [bool], given: Vec<Vertex>) {
        let sinks = self.topology.arcs.externals(Direction::Outgoing);
        let mut queue: VecDeque<Vertex> = given.into_iter().chain(sinks).collect();
        while let Some(vertex) = queue.pop_front() {
            if std::mem::replace(&mut ends[vertex.index()], true) {
                continue;
            }
            for before in self.topology.arcs.neighbors_directed(vertex, Direction::Incoming) {
                if !ends[before.index()] && self.can_end(before, ends) {
                    queue.push_back(before);
                }
            }
        }
    }

    fn can_end(&self, vertex: Vertex, ends: &[bool]) -> bool {
        let out = self.topology.out(vertex);
        let (always, choices): (Vec<_>, Vec<_>) =
            out.iter().partition(|(_, arc)| arc.take == Take::Always);
        let ended = |(to, _): &(Vertex, &super::topology::Arc)| ends[to.index()];
        always.iter().all(ended) && (choices.is_empty() || choices.iter().any(ended))
    }

    fn endless_cycle(&self, components: &Components, list: &[Vertex]) -> Finding {
        let first = list.iter().copied().min().unwrap_or(start());
        let (path, line) = self.cycle(components, first);
        let names: Vec<&str> = path
            .iter()
            .filter(|v| matches!(self.topology.arcs[**v], Place::Node(_)))
            .map(|v| self.name(*v))
            .collect();
        let cycle = names.join(" → ");
        let message = format!("the cycle {cycle} → {} never ends", names.first().unwrap_or(&""));
        let fix = "give one of these nodes a line that leaves the cycle, with `when`, and put \
                   `otherwise` on the line that goes on";
        self.document.error_at(code::ENDLESS_CYCLE, &self.line(line), message, fix)
    }

    /// The shortest cycle through `first` inside its component, and its first line.
    fn cycle(&self, components: &Components, first: Vertex) -> (Vec<Vertex>, usize) {
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
        let line = out.iter().find(|(to, _)| *to == second).map_or(0, |(_, arc)| arc.line);
        (path, line)
    }

    /// Channels without a reducer that both nodes write.
    pub(super) fn shared(&self, a: usize, b: usize) -> Vec<&Write> {
        let replaced = |write: &&Write| {
            let channel = self.channels.get(&write.channel);
            channel.is_some_and(|c| c.reduce == crate::state::Reducer::Replace)
        };
        let of_a: BTreeSet<&str> = self.writes[a].iter().map(|w| &*w.channel).collect();
        self.writes[b].iter().filter(replaced).filter(|w| of_a.contains(&*w.channel)).collect()
    }
}
