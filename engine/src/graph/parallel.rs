//! What can happen in one step, and what can happen twice: advice about parallel lines.

use std::collections::{BTreeSet, HashMap};

use petgraph::graph::NodeIndex as Vertex;

use crate::diagnostic::{Finding, code};
use crate::document::child;
use crate::graph::Branch;
use crate::graph::check::Checked;
use crate::graph::topology::{Arc, Components, Place, Take};

/// Pairs of nodes that are looked at; more are found only in graphs that no person wrote.
const PAIR_LIMIT: usize = 1_000_000;

/// Nodes of the largest graph for which joins are suggested: that looks at every line from every
/// node, and is only advice.
const ADVICE_LIMIT: usize = 2_000;

pub(super) fn findings(checked: &Checked<'_>, components: &Components) -> Vec<Finding> {
    let mut findings = parallel_writes(checked);
    if checked.names.len() <= ADVICE_LIMIT {
        findings.extend(suggested_joins(checked, components));
    }
    findings
}

/// Whether one task can take both lines.
fn both(branch: Branch, a: Take, b: Take) -> bool {
    match (a, b) {
        (Take::Always, _) | (_, Take::Always) | (Take::Otherwise, Take::Otherwise) => true,
        (Take::When, Take::When) => branch == Branch::All,
        _ => false,
    }
}

fn parallel_writes(checked: &Checked<'_>) -> Vec<Finding> {
    let pairs = pairs(checked);
    let mut ordered: Vec<_> = pairs.into_iter().collect();
    // Certain ones first, so that they are the ones reported.
    ordered.sort_by_key(|((a, b), sure)| (!sure, *a, *b));
    let (mut findings, mut seen) = (Vec::new(), BTreeSet::new());
    for ((a, b), sure) in ordered {
        let (Place::Node(a), Place::Node(b)) = (checked.topology.arcs[a], checked.topology.arcs[b])
        else {
            continue;
        };
        for write in checked.shared(a, b) {
            if !seen.insert((write.channel.clone(), b)) {
                continue;
            }
            let (first, second) = (&checked.names[a], &checked.names[b]);
            let verb = if sure { "write" } else { "may write" };
            let message = format!(
                "`{first}` and `{second}` {verb} `{}` in the same step, and it keeps one value only",
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

/// Pairs of nodes that can run in the same step; whether they always do once their fork has run.
fn pairs(checked: &Checked<'_>) -> HashMap<(Vertex, Vertex), bool> {
    let mut pairs = HashMap::new();
    let mut fresh = Vec::new();
    let mut add = |a: (Vertex, &Arc), b: (Vertex, &Arc), sure: bool, fresh: &mut Vec<_>| {
        let node = |v: Vertex| matches!(checked.topology.arcs[v], Place::Node(_));
        if a.0 == b.0 || !node(a.0) || !node(b.0) || pairs.len() >= PAIR_LIMIT {
            return;
        }
        let pair = (a.0.min(b.0), a.0.max(b.0));
        let sure = sure && a.1.take == Take::Always && b.1.take == Take::Always;
        let known = pairs.insert(pair, sure || pairs.get(&pair) == Some(&true));
        if known.is_none() || (known == Some(false) && sure) {
            fresh.push((pair, sure));
        }
    };
    let reached = checked.topology.reachable();
    for fork in checked.topology.arcs.node_indices().filter(|v| reached[v.index()]) {
        let out = checked.topology.out(fork);
        for (i, a) in out.iter().enumerate() {
            for b in &out[i + 1..] {
                if both(checked.branch(fork), a.1.take, b.1.take) {
                    add(*a, *b, true, &mut fresh);
                }
            }
        }
    }
    while let Some(((a, b), sure)) = fresh.pop() {
        for from_a in checked.topology.out(a) {
            for from_b in checked.topology.out(b) {
                add(from_a, from_b, sure, &mut fresh);
            }
        }
    }
    pairs
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

/// Plain lines into a node that lie on no cycle: source and place in the YAML.
fn entering(
    checked: &Checked<'_>,
    components: &Components,
    target: Vertex,
) -> Vec<(Vertex, usize)> {
    use petgraph::visit::EdgeRef as _;
    let arcs = checked.topology.arcs.edges_directed(target, petgraph::Direction::Incoming);
    let mut lines: Vec<_> = arcs
        .filter(|arc| !matches!(checked.topology.arcs[arc.source()], Place::Join(_)))
        .filter(|arc| !components.on_cycle(arc.source(), target))
        .map(|arc| (arc.source(), arc.weight().line))
        .collect();
    lines.sort_by_key(|(_, line)| *line);
    lines
}

/// By vertex: steps until the source of `line` runs, over lines that lie on no cycle.
fn steps_to(
    checked: &Checked<'_>,
    components: &Components,
    order: &[Vertex],
    line: (Vertex, usize),
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
    lines: &[(Vertex, usize)],
    ways: &[HashMap<Vertex, Steps>],
) -> Option<(usize, usize)> {
    let reached = checked.topology.reachable();
    for fork in checked.topology.arcs.node_indices().filter(|v| reached[v.index()]) {
        let out = checked.topology.out(fork);
        let via: Vec<Vec<(usize, Steps)>> = out
            .iter()
            .map(|(to, arc)| {
                let direct = |i: usize| *to == target && lines[i] == (fork, arc.line);
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
                let apart = |x: Steps, y: Steps| x.0 != x.1 || y.0 != y.1 || x.0 != y.0;
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
