//! What can happen at the same time, and what can happen twice: advice about parallel lines.

use std::collections::{BTreeSet, HashSet};

use petgraph::graph::NodeIndex as Vertex;

use crate::diagnostic::{FINDINGS_LIMIT, Finding, code};
use crate::document::child;
use crate::graph::build::Access;
use crate::graph::check::Checked;
use crate::graph::meeting::{self, Meetings, both};
use crate::graph::topology::{Components, Place, Said, Take};
use crate::graph::{NodeIndex, Schedule};

/// Steps that looking up a name takes.
const LOOKED_UP: usize = 16;

pub(super) fn findings(checked: &Checked<'_>, components: &Components) -> Vec<Finding> {
    let meetings = meeting::meetings(checked);
    let mut findings = parallel_writes(checked, &meetings);
    if checked.schedule == Schedule::Dataflow {
        findings.extend(parallel_reads(checked, &meetings));
    }
    findings.extend(suggested_joins(checked, components));
    findings
}

/// Certain ones first, so that they are the ones reported.
fn ordered(meetings: &Meetings) -> Vec<(NodeIndex, NodeIndex, bool)> {
    let mut pairs: Vec<_> = meetings.iter().map(|((a, b), sure)| (*a, *b, *sure)).collect();
    pairs.sort_by_key(|(a, b, sure)| (!sure, *a, *b));
    pairs
}

fn parallel_writes(checked: &Checked<'_>, meetings: &Meetings) -> Vec<Finding> {
    let when = match checked.schedule {
        Schedule::Superstep => "in the same step",
        Schedule::Dataflow => "at the same time",
    };
    let (mut findings, mut seen) = (Vec::new(), BTreeSet::new());
    let writes = checked.replaced();
    for (a, b, sure) in ordered(meetings) {
        if writes[a].is_empty() || writes[b].is_empty() {
            continue;
        }
        let looked_up = LOOKED_UP * (writes[a].len() + writes[b].len());
        if findings.len() > FINDINGS_LIMIT || !checked.effort.spend(looked_up) {
            break;
        }
        let of_a: HashSet<&str> = writes[a].iter().map(|write| &*write.channel).collect();
        for write in writes[b].iter().filter(|write| of_a.contains(&*write.channel)) {
            if !seen.insert((write.channel.clone(), b)) {
                continue;
            }
            let (first, second) = (&checked.names[a], &checked.names[b]);
            let verb = if sure { "write" } else { "may write" };
            let message = format!(
                "`{first}` and `{second}` {verb} `{}` {when}, and it keeps one value only",
                write.channel
            );
            let fix = format!(
                "give `{}` a reducer under `state` (append, merge, sum, union), or run one after \
                 the other",
                write.channel
            );
            let code = code::PARALLEL_WRITE;
            let finding = checked.document.error_at(code, &write.pointer, message, fix);
            findings.push(if sure { finding } else { finding.warning() });
        }
    }
    findings
}

/// Under `dataflow` a node sees what others have written by the time it begins.
fn parallel_reads(checked: &Checked<'_>, meetings: &Meetings) -> Vec<Finding> {
    let (mut findings, mut seen) = (Vec::new(), BTreeSet::new());
    for (a, b, sure) in ordered(meetings) {
        for (reader, writer) in [(a, b), (b, a)] {
            let (reads, writes) = (checked.reads[reader].len(), checked.writes[writer].len());
            if reads == 0 || writes == 0 {
                continue;
            }
            let looked_up = LOOKED_UP.saturating_mul(reads + writes);
            if findings.len() > FINDINGS_LIMIT || !checked.effort.spend(looked_up) {
                return findings;
            }
            let names: HashSet<&str> =
                checked.writes[writer].iter().map(|write| &*write.channel).collect();
            let written = |read: &&Access| names.contains(&*read.channel);
            for read in checked.reads[reader].iter().filter(written) {
                if !seen.insert((reader, &read.channel)) {
                    continue;
                }
                let finding = parallel_read(checked, read, reader, writer);
                findings.push(if sure { finding } else { finding.warning() });
            }
        }
    }
    findings
}

fn parallel_read(
    checked: &Checked<'_>,
    read: &Access,
    reader: NodeIndex,
    writer: NodeIndex,
) -> Finding {
    let (reader, writer) = (&checked.names[reader], &checked.names[writer]);
    let message = format!(
        "`{reader}` reads `{}`, which `{writer}` can write at the same time: what it sees is a \
         matter of luck",
        read.channel
    );
    let fix = format!(
        "run `{reader}` after `{writer}`, by a line or a join, or write `schedule: superstep`"
    );
    let place = match read.at {
        Some(at) => checked.document.place_inside(&read.pointer, at),
        None => checked.document.place(&read.pointer),
    };
    Finding::error(code::PARALLEL_READ, checked.document.path(), place, message, fix)
}

/// Steps from a vertex to a node: the fewest and the most.
type Steps = (usize, usize);

/// A line into a node: its source, and where the YAML says it.
type LineInto = (Vertex, Said);

/// Nodes that two lines can fire in different steps of one run: a person mostly means a join.
fn suggested_joins(checked: &Checked<'_>, components: &Components) -> Vec<Finding> {
    let ways = Ways::of(checked, components);
    let mut findings = Vec::new();
    for (node, name) in checked.names.iter().enumerate() {
        let target = checked.topology.node(node);
        let lines = entering(checked, components, target);
        if lines.len() < 2 {
            continue;
        }
        if findings.len() > FINDINGS_LIMIT || checked.effort.is_spent() {
            break;
        }
        if let Some((a, b)) = ways.uneven(target, &lines) {
            let (a, b) = (checked.name(lines[a].0), checked.name(lines[b].0));
            let message = format!(
                "`{name}` can run twice: the lines from `{a}` and `{b}` reach it in different steps"
            );
            let fix = match (a, b) {
                ("START", _) | (_, "START") => "remove one of the lines".to_owned(),
                _ => format!("to wait for both, join them: `{{ from: [{a}, {b}], to: {name} }}`"),
            };
            let at = child("/nodes", name);
            let finding = checked.document.error_at_key(code::SUGGEST_JOIN, &at, message, fix);
            findings.push(finding.warning());
        }
    }
    findings
}

/// Plain lines into a node that lie on no cycle. A `goto` or an `on_error` cannot be joined.
fn entering(checked: &Checked<'_>, components: &Components, target: Vertex) -> Vec<LineInto> {
    use petgraph::visit::EdgeRef as _;
    let arcs = checked.topology.arcs.edges_directed(target, petgraph::Direction::Incoming);
    let mut lines: Vec<_> = arcs
        .filter(|arc| !matches!(checked.topology.arcs[arc.source()], Place::Join(_)))
        .filter(|arc| arc.weight().take.is_line())
        .filter(|arc| !components.on_cycle(arc.source(), target))
        .map(|arc| (arc.source(), arc.weight().said))
        .collect();
    lines.sort_by_key(|(_, said)| *said);
    lines
}

/// The arcs of a graph that lie on no cycle.
struct Ways<'a> {
    checked: &'a Checked<'a>,
    /// Every vertex after those that it leads to.
    order: Vec<Vertex>,
    /// By vertex: the place in `order`.
    place: Vec<usize>,
    /// By vertex: the arcs that leave it, in the order of the YAML.
    out: Vec<Vec<Way>>,
    arcs: usize,
    reached: Vec<bool>,
}

struct Way {
    to: Vertex,
    take: Take,
    said: Said,
    /// Steps that it takes: a slot of a join takes none, the join's own line does. `None` on a
    /// cycle, where it is only where something begins.
    steps: Option<usize>,
}

impl<'a> Ways<'a> {
    fn of(checked: &'a Checked<'_>, components: &Components) -> Self {
        let topology = checked.topology;
        let mut order: Vec<Vertex> = topology.arcs.node_indices().collect();
        order.sort_by_key(|v| components.number[v.index()]);
        let mut place = vec![0; order.len()];
        for (at, vertex) in order.iter().enumerate() {
            place[vertex.index()] = at;
        }
        let way = |from: Vertex, to: Vertex, take, said| {
            let cost = usize::from(!matches!(topology.arcs[to], Place::Join(_)));
            Way { to, take, said, steps: (!components.on_cycle(from, to)).then_some(cost) }
        };
        let out = |from: Vertex| {
            let arcs = topology.out(from).into_iter();
            arcs.map(|(to, arc)| way(from, to, arc.take, arc.said)).collect()
        };
        let out = topology.arcs.node_indices().map(out).collect();
        let (arcs, reached) = (topology.arcs.edge_count(), topology.reachable());
        Self { checked, order, place, out, arcs, reached }
    }

    /// By vertex: steps until the source of one of `lines` runs; `None` if there is nothing left to
    /// look with.
    fn steps_to(&self, lines: &[LineInto]) -> Option<Vec<Option<Steps>>> {
        if !self.checked.effort.spend(self.order.len() + self.arcs) {
            return None;
        }
        let mut steps: Vec<Option<Steps>> = vec![None; self.order.len()];
        let first = lines.iter().map(|(source, _)| self.place[source.index()]).min()?;
        for (source, _) in lines {
            steps[source.index()] = Some((0, 0));
        }
        // What lies behind a vertex is already known.
        for vertex in &self.order[first + 1..] {
            let behind = self.out[vertex.index()].iter().filter_map(|way| {
                let (min, max) = steps[way.to.index()]?;
                Some((min + way.steps?, max + way.steps?))
            });
            let own = steps[vertex.index()];
            steps[vertex.index()] = own.into_iter().chain(behind).reduce(both_of);
        }
        Some(steps)
    }

    /// Two of `lines` that one run can take in different steps.
    fn uneven(&self, target: Vertex, lines: &[LineInto]) -> Option<(usize, usize)> {
        let all = self.steps_to(lines)?;
        let direct =
            |fork: Vertex, way: &Way| way.to == target && lines.contains(&(fork, way.said));
        let way_to = |fork: Vertex, way: &Way| {
            if direct(fork, way) {
                return Some((0, 0));
            }
            all[way.to.index()].map(|(min, max)| (min + 1, max + 1))
        };
        // Most graphs are even: from every fork all ways are as long as each other.
        let uneven = |fork: &Vertex| {
            let ways = self.out[fork.index()].iter().filter_map(|way| way_to(*fork, way));
            self.reached[fork.index()]
                && ways.reduce(both_of).is_some_and(|(min, max)| {
                    min != max || self.checked.schedule == Schedule::Dataflow && max > 0
                })
        };
        if !self.checked.effort.spend(self.arcs.saturating_mul(lines.len())) {
            return None;
        }
        let forks: Vec<Vertex> = self.checked.topology.arcs.node_indices().filter(uneven).collect();
        if forks.is_empty() {
            return None;
        }
        let ways = lines.iter().map(|line| self.steps_to(&[*line]));
        let ways = ways.collect::<Option<Vec<_>>>()?;
        forks.into_iter().find_map(|fork| self.uneven_from(fork, target, lines, &ways))
    }

    /// The same for what one task fires.
    fn uneven_from(
        &self,
        fork: Vertex,
        target: Vertex,
        lines: &[LineInto],
        ways: &[Vec<Option<Steps>>],
    ) -> Option<(usize, usize)> {
        // A step of `dataflow` is one task: two lines fire a node once only if one task takes both.
        let dataflow = self.checked.schedule == Schedule::Dataflow;
        let apart =
            |x: Steps, y: Steps| x.0 != x.1 || y.0 != y.1 || x.0 != y.0 || dataflow && x.1 > 0;
        let out = &self.out[fork.index()];
        if !self.checked.effort.spend(out.len().saturating_mul(lines.len())) {
            return None;
        }
        let by_line = |way: &Way| -> Vec<(usize, Steps)> {
            let steps = |i: usize| {
                if way.to == target && lines[i] == (fork, way.said) {
                    Some((0, 0))
                } else {
                    ways[i][way.to.index()].map(|(a, b)| (a + 1, b + 1))
                }
            };
            (0..lines.len()).filter_map(|i| Some((i, steps(i)?))).collect()
        };
        let via: Vec<Vec<(usize, Steps)>> = out.iter().map(by_line).collect();
        for (i, a) in via.iter().enumerate() {
            for (j, b) in via.iter().enumerate().skip(i + 1) {
                if !self.checked.effort.spend(1 + a.len().saturating_mul(b.len())) {
                    return None;
                }
                if !both(self.checked.branch(fork), out[i].take, out[j].take) {
                    continue;
                }
                let found = a.iter().find_map(|(k, x)| {
                    b.iter().find(|(l, y)| k != l && apart(*x, *y)).map(|(l, _)| (*k, *l))
                });
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }
}

/// The fewest and the most of both.
fn both_of(a: Steps, b: Steps) -> Steps {
    (a.0.min(b.0), a.1.max(b.1))
}
