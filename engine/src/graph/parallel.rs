//! What can happen at the same time, and what can happen twice: advice about parallel lines.

use std::collections::{BTreeSet, HashMap};

use petgraph::graph::NodeIndex as Vertex;

use crate::diagnostic::{Finding, code};
use crate::document::child;
use crate::graph::build::Access;
use crate::graph::check::Checked;
use crate::graph::meeting::{self, Meetings, both};
use crate::graph::topology::{Components, Place, Said};
use crate::graph::{NodeIndex, Schedule};

/// Nodes of the largest graph for which joins are suggested: that looks at every line from every
/// node, and is only advice.
const ADVICE_LIMIT: usize = 2_000;

pub(super) fn findings(checked: &Checked<'_>, components: &Components) -> Vec<Finding> {
    let meetings = meeting::meetings(checked);
    let mut findings = parallel_writes(checked, &meetings);
    if checked.schedule == Schedule::Dataflow {
        findings.extend(parallel_reads(checked, &meetings));
    }
    if checked.names.len() <= ADVICE_LIMIT {
        findings.extend(suggested_joins(checked, components));
    }
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
    for (a, b, sure) in ordered(meetings) {
        for write in checked.shared(a, b) {
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
            let written = |read: &&Access| {
                checked.writes[writer].iter().any(|write| write.channel == read.channel)
            };
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

/// Nodes that two lines can fire in different steps of one run: a person mostly means a join.
fn suggested_joins(checked: &Checked<'_>, components: &Components) -> Vec<Finding> {
    let mut order: Vec<Vertex> = checked.topology.arcs.node_indices().collect();
    order.sort_by_key(|v| components.number[v.index()]);
    let mut findings = Vec::new();
    for (node, name) in checked.names.iter().enumerate() {
        let target = checked.topology.node(node);
        let lines = entering(checked, components, target);
        if lines.len() < 2 {
            continue;
        }
        let ways: Vec<_> =
            lines.iter().map(|line| steps_to(checked, components, &order, *line)).collect();
        if let Some((a, b)) = uneven(checked, target, &lines, &ways) {
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

/// Plain lines into a node that lie on no cycle: source and place in the YAML. A `goto` or an
/// `on_error` cannot be joined.
fn entering(checked: &Checked<'_>, components: &Components, target: Vertex) -> Vec<(Vertex, Said)> {
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

/// By vertex: steps until the source of `line` runs, over lines that lie on no cycle.
fn steps_to(
    checked: &Checked<'_>,
    components: &Components,
    order: &[Vertex],
    line: (Vertex, Said),
) -> HashMap<Vertex, Steps> {
    let mut steps = HashMap::from([(line.0, (0, 0))]);
    let from = order.iter().position(|v| *v == line.0).unwrap_or_default();
    // An arc leads to a smaller component number: what lies behind is already known.
    for vertex in &order[from + 1..] {
        let mut all: Option<Steps> = None;
        for (to, _) in checked.topology.out(*vertex) {
            if components.on_cycle(*vertex, to) {
                continue;
            }
            // A slot costs nothing: the join's own line does.
            let cost = usize::from(!matches!(checked.topology.arcs[to], Place::Join(_)));
            if let Some((min, max)) = steps.get(&to) {
                let (min, max) = (min + cost, max + cost);
                all = Some(all.map_or((min, max), |(a, b)| (a.min(min), b.max(max))));
            }
        }
        if let Some(all) = all {
            steps.insert(*vertex, all);
        }
    }
    steps
}

/// Two of `lines` that one run can take in different steps.
fn uneven(
    checked: &Checked<'_>,
    target: Vertex,
    lines: &[(Vertex, Said)],
    ways: &[HashMap<Vertex, Steps>],
) -> Option<(usize, usize)> {
    let reached = checked.topology.reachable();
    // A step of `dataflow` is one task: two lines fire a node once only if one task takes both.
    let dataflow = checked.schedule == Schedule::Dataflow;
    let apart = |x: Steps, y: Steps| x.0 != x.1 || y.0 != y.1 || x.0 != y.0 || dataflow && x.1 > 0;
    for fork in checked.topology.arcs.node_indices().filter(|v| reached[v.index()]) {
        let out = checked.topology.out(fork);
        let via: Vec<Vec<(usize, Steps)>> = out
            .iter()
            .map(|(to, arc)| {
                let direct = |i: usize| *to == target && lines[i] == (fork, arc.said);
                let way = |i: usize| {
                    if direct(i) {
                        Some((0, 0))
                    } else {
                        ways[i].get(to).map(|(a, b)| (a + 1, b + 1))
                    }
                };
                (0..lines.len()).filter_map(|i| Some((i, way(i)?))).collect()
            })
            .collect();
        for (i, a) in via.iter().enumerate() {
            for (j, b) in via.iter().enumerate().skip(i + 1) {
                if !both(checked.branch(fork), out[i].1.take, out[j].1.take) {
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
    }
    None
}
