//! Lines between nodes: graphs that are as they should be, and random ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use exile_engine::diagnostic::Finding;
use exile_engine::graph::build::{Known, Names};
use exile_engine::graph::nesting::Graphs;
use exile_engine::graph::{Graph, Target, compile};
use exile_engine::yaml;
use proptest::prelude::*;

use crate::kinds;

fn compiled(text: &str) -> (Option<Arc<Graph>>, Vec<Finding>) {
    let catalog = kinds::catalog();
    let skills = BTreeMap::new();
    let known =
        Known { catalog: &catalog, skills: &skills, graphs: Graphs::none(), names: Names::Checked };
    let compiled = compile::compile(&yaml::parse("g.yaml", text).unwrap(), known);
    (compiled.graph, compiled.findings)
}

/// `a -> b`, `a ? n > 1 -> b`, `a ! -> b` (otherwise), `a, b -> c` (a join); every name but START
/// and END is a node that writes `n` if it begins with `w`.
fn graph(lines: &[&str]) -> String {
    let mut nodes = std::collections::BTreeSet::new();
    let mut edges = String::new();
    for line in lines {
        let (left, to) = line.split_once(" -> ").unwrap();
        let (from, guard) = match left.split_once(" ? ") {
            Some((from, when)) => (from, format!(", when: \"{when}\"")),
            None => match left.strip_suffix(" !") {
                Some(from) => (from, ", otherwise: true".to_owned()),
                None => (left, String::new()),
            },
        };
        nodes.extend(from.split(", ").chain([to]).filter(|name| !["START", "END"].contains(name)));
        let from = if from.contains(',') { format!("[{from}]") } else { from.to_owned() };
        writeln!(edges, "  - {{ from: {from}, to: {to}{guard} }}").unwrap();
    }
    let mut text = String::from("graph: g\nstate: { n: { type: integer, default: 0 } }\nnodes:\n");
    for node in nodes {
        let own = if node.starts_with('w') { "kind: set, set: { n: 1 }" } else { "kind: probe" };
        writeln!(text, "  {node}: {{ {own} }}").unwrap();
    }
    text + "edges:\n" + &edges
}

/// Codes of what is found in a graph of these lines.
fn check(lines: &[&str]) -> Vec<&'static str> {
    compiled(&graph(lines)).1.into_iter().map(|finding| finding.code).collect()
}

#[test]
fn graphs_as_they_should_be_have_no_findings() {
    let good: [&[&str]; 9] = [
        &["START -> a", "a -> END"],
        // A loop that a condition leaves.
        &["START -> a", "a ? n > 1 -> END", "a ! -> a"],
        // Alternatives that meet again.
        &["START -> a", "a ? n > 1 -> b", "a ! -> c", "b -> c", "c -> END"],
        // Two alternatives may write the same channel.
        &["START -> a", "a ? n > 1 -> w1", "a ! -> w2", "w1 -> END", "w2 -> END"],
        // Branches of equal length meet in one step.
        &["START -> a", "a -> b", "a -> c", "b -> d", "c -> d", "d -> END"],
        // Branches of different lengths meet in a join.
        &["START -> a", "a -> b", "a -> c", "b -> d", "c, d -> e", "e -> END"],
        // A fan-out and a join inside a loop.
        &["START -> p", "p -> a", "p -> b", "a, b -> c", "c ? n > 1 -> p", "c ! -> END"],
        // One after the other, a channel can be written again.
        &["START -> w1", "w1 -> w2", "w2 -> END"],
        // The refund desk of the design.
        &[
            "START -> classify",
            "classify -> search",
            "classify ? n == 1 -> lookup",
            "lookup -> total",
            "total ? n > 500 -> approve",
            "total ! -> refund",
            "approve ? n == 2 -> refund",
            "approve ! -> declined",
            "search, refund, declined -> answer",
            "answer -> END",
        ],
    ];
    for lines in good {
        assert_eq!(check(lines), Vec::<&str>::new(), "{lines:?}");
    }
}

#[test]
fn a_cycle_is_blamed_for_itself_alone() {
    // The first loop can be left, into one that cannot.
    let lines = ["START -> a", "a ? n > 1 -> a", "a ! -> b", "b -> c", "c -> b"];
    assert_eq!(check(&lines), ["endless_cycle"]);
    let two = ["START -> a", "a -> b", "b -> a", "START -> c", "c -> c"];
    assert_eq!(check(&two), ["endless_cycle", "endless_cycle"]);
}

#[test]
fn writes_clash_only_where_they_can_meet() {
    let sure = ["START -> w1", "START -> w2", "w1, w2 -> END"];
    assert_eq!(check(&sure), ["parallel_write"]);
    let after_a_join = ["START -> a", "START -> b", "a, b -> w1", "w1 -> w2", "w2 -> END"];
    assert_eq!(check(&after_a_join), Vec::<&str>::new());
    let different_steps = ["START -> a", "START -> w1", "a -> w2", "w1 -> END", "w2 -> END"];
    assert_eq!(check(&different_steps), Vec::<&str>::new());
}

#[test]
fn a_node_that_can_run_twice_is_pointed_out() {
    let direct = ["START -> a", "a -> c", "a -> b", "b -> c", "c -> END"];
    assert_eq!(check(&direct), ["suggest_join"]);
    let from_start = ["START -> b", "START -> a", "a -> b", "b -> END"];
    assert_eq!(check(&from_start), ["suggest_join"]);
    let conditional =
        ["START -> a", "a -> c", "a ? n > 1 -> b", "a ! -> END", "b -> c", "c -> END"];
    assert_eq!(check(&conditional), ["suggest_join"]);
}

/// Lines between START, four nodes and END, as numbers.
fn random_lines() -> impl Strategy<Value = Vec<String>> {
    let name = |i: usize| ["START", "a", "b", "c", "w", "END"][i];
    let plain = (0..5usize, 1..6usize, 0..3usize).prop_map(move |(from, to, guard)| {
        let guard = ["", " ? n > 1", " !"][guard];
        format!("{}{guard} -> {}", name(from), name(to))
    });
    let join = (1..5usize, 1..5usize, 1..6usize)
        .prop_map(move |(one, two, to)| format!("{}, {} -> {}", name(one), name(two), name(to)));
    prop::collection::vec(prop_oneof![4 => plain, 1 => join], 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_graph_that_loads_holds_together(lines in random_lines()) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (graph, findings) = compiled(&graph(&lines));
        prop_assert_eq!(graph.is_none(), findings.iter().any(Finding::is_error));
        let Some(graph) = graph else { return Ok(()) };
        let all = graph.nodes.iter().flat_map(|node| &node.lines).chain(&graph.start);
        for line in all {
            match line.to {
                Target::Node(node) => prop_assert!(node < graph.nodes.len()),
                Target::Slot { join, slot } => prop_assert!(slot < graph.joins[join].slots.len()),
                Target::End => {}
            }
        }
        for (j, join) in graph.joins.iter().enumerate() {
            for slot in &join.slots {
                prop_assert_eq!(&slot.alive, &alive(&graph, slot.from, j));
            }
        }
    }
}

/// The slow way: a node lives if one of its lines, but not those of this join, leads to one that
/// lives.
fn alive(graph: &Graph, from: usize, join: usize) -> Vec<bool> {
    let mut alive = vec![false; graph.nodes.len()];
    alive[from] = true;
    loop {
        let lives = |target: &Target| match target {
            Target::Node(node) => alive[*node],
            Target::Slot { join: other, .. } => *other != join && alive[graph.joins[*other].target],
            Target::End => false,
        };
        let more = graph
            .nodes
            .iter()
            .enumerate()
            .find(|(i, node)| !alive[*i] && node.lines.iter().any(|line| lives(&line.to)));
        let Some((more, _)) = more else { return alive };
        alive[more] = true;
    }
}
