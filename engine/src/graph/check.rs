//! What all nodes and lines together say: reachability, conditions, cycles, parallel writes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::NodeIndex as Vertex;

use crate::diagnostic::{Finding, code};
use crate::document::{Document, child};
use crate::graph::build::Access;
use crate::graph::spec::Mode;
use crate::graph::topology::{Components, Place, Said, Take, Topology, end, start};
use crate::graph::{Branch, Needs, Schedule, lines, parallel};
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
    /// By join.
    pub(super) needs: Vec<Needs>,
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
    /// unconditional lines end, and one of its conditional ones; or its `goto` or `on_error` can
    /// leave. A node that has `goto` alone and gives null ends too, but a cycle has to say so with
    /// END in `among`.
    fn settle(&self, ends: &mut [bool], given: Vec<Vertex>) {
        let vertices = self.topology.arcs.node_indices();
        let sinks: Vec<Vertex> = vertices.filter(|v| self.ends_by_itself(*v)).collect();
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
        let (lines, ways): (Vec<_>, Vec<_>) = out.iter().partition(|(_, arc)| arc.take.is_line());
        let (always, choices): (Vec<_>, Vec<_>) =
            lines.iter().partition(|(_, arc)| arc.take == Take::Always);
        let ended = |(to, _): &(Vertex, &super::topology::Arc)| ends[to.index()];
        let by_lines =
            always.iter().all(ended) && (choices.is_empty() || choices.iter().any(ended));
        ways.iter().any(ended) || !lines.is_empty() && by_lines
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

    /// Channels without a reducer that both nodes write.
    pub(super) fn shared(&self, a: usize, b: usize) -> Vec<&'_ Access> {
        let replaced = |write: &&Access| {
            let channel = self.channels.get(&write.channel);
            channel.is_some_and(|c| c.reduce == crate::state::Reducer::Replace)
        };
        let of_a: BTreeSet<&str> = self.writes[a].iter().map(|w| &*w.channel).collect();
        self.writes[b].iter().filter(replaced).filter(|w| of_a.contains(&*w.channel)).collect()
    }
}
