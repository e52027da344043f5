//! Nodes that can run at the same time: what loading says, and what a simulation of every run of
//! small graphs shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use exile_engine::diagnostic::Finding;
use proptest::prelude::*;

use crate::kinds;
use crate::mistakes::findings_in;

const NAMES: [&str; 6] = ["START", "a", "b", "c", "d", "END"];
const START: usize = 0;
const END: usize = 5;

/// Where a node goes.
#[derive(Clone, Debug, Default)]
struct Ways {
    always: Vec<usize>,
    /// `when` and `otherwise`.
    choice: Option<(usize, usize)>,
    goto: Vec<usize>,
    error: Option<usize>,
}

#[derive(Clone, Debug)]
struct Join {
    from: [usize; 2],
    /// `None`: all.
    count: Option<usize>,
    to: usize,
}

#[derive(Clone, Debug)]
struct Plan {
    dataflow: bool,
    /// START and the nodes.
    ways: Vec<Ways>,
    joins: Vec<Join>,
}

impl Plan {
    /// Every two nodes write a channel of their own, so that two that meet are a finding.
    fn yaml(&self) -> String {
        let schedule = if self.dataflow { "dataflow" } else { "superstep" };
        let mut text = format!("graph: g\nschedule: {schedule}\nstate:\n  n: {{ default: 0 }}\n");
        for (x, y) in pairs() {
            writeln!(text, "  {}{}: {{ default: 0 }}", NAMES[x], NAMES[y]).unwrap();
        }
        text += "nodes:\n";
        let mut edges = String::new();
        for (from, ways) in self.ways.iter().enumerate() {
            let mut line = |to: usize, more: &str| {
                let (from, to) = (NAMES[from], NAMES[to]);
                writeln!(edges, "  - {{ from: {from}, to: {to}{more} }}").unwrap();
            };
            ways.always.iter().for_each(|to| line(*to, ""));
            if let Some((when, otherwise)) = ways.choice {
                line(when, ", when: \"1 > 2\"");
                line(otherwise, ", otherwise: true");
            }
            if from != START {
                text += &node(from, ways);
            }
        }
        for Join { from: [x, y], count, to } in &self.joins {
            let count = count.map_or("all".to_owned(), |count| count.to_string());
            let (x, y, to) = (NAMES[*x], NAMES[*y], NAMES[*to]);
            writeln!(edges, "  - {{ from: [{x}, {y}], to: {to}, join: {count} }}").unwrap();
        }
        text + "edges:\n" + &edges
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (1..END).flat_map(|x| (x + 1..END).map(move |y| (x, y)))
}

fn node(node: usize, ways: &Ways) -> String {
    let own = pairs().filter(|(x, y)| [*x, *y].contains(&node));
    let set: Vec<_> = own.map(|(x, y)| format!("{}{}: 1", NAMES[x], NAMES[y])).collect();
    let mut text = format!("  {}: {{ kind: set, set: {{ {} }}", NAMES[node], set.join(", "));
    if !ways.goto.is_empty() {
        let among: Vec<_> = ways.goto.iter().map(|to| NAMES[*to]).collect();
        write!(text, ", goto: {{ to: n, among: [{}] }}", among.join(", ")).unwrap();
    }
    if let Some(to) = ways.error {
        write!(text, ", on_error: {}", NAMES[to]).unwrap();
    }
    text + " }\n"
}

/// The two nodes of each finding about a parallel write; `None` if anything else is wrong.
fn met(text: &str) -> Option<BTreeSet<(usize, usize)>> {
    let findings = findings_in(&kinds::catalog(), "g.yaml", text);
    let other = |f: &Finding| f.is_error() && f.code != "parallel_write";
    if findings.iter().any(other) {
        return None;
    }
    let place = |name: &str| NAMES.iter().position(|known| *known == name).unwrap();
    let pair = |f: &Finding| {
        let mut names = f.message.split('`').skip(1).step_by(2).map(place);
        (names.next().unwrap(), names.next().unwrap())
    };
    Some(findings.iter().filter(|f| f.code == "parallel_write").map(pair).collect())
}

/// Everything that goes on at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    /// Tasks by node.
    tasks: [usize; 6],
    /// By join and slot: an arrival is there; one is owed and will be absorbed.
    filled: Vec<[bool; 2]>,
    owed: Vec<[bool; 2]>,
}

struct Runs<'p> {
    plan: &'p Plan,
    /// By join and slot: nodes from which its source can be reached without the join.
    alive: Vec<[[bool; 6]; 2]>,
}

impl<'p> Runs<'p> {
    fn of(plan: &'p Plan) -> Self {
        let slot = |join: usize, from: usize| {
            let mut alive = [false; 6];
            alive[from] = true;
            for _ in NAMES {
                for (node, ways) in plan.ways.iter().enumerate() {
                    let choice = ways.choice.into_iter().flat_map(|(x, y)| [x, y]);
                    let joins = plan.joins.iter().enumerate();
                    let joined = joins
                        .filter(|(other, j)| *other != join && j.from.contains(&node))
                        .map(|(_, j)| j.to);
                    let ways = ways.always.iter().chain(&ways.goto).chain(&ways.error).copied();
                    alive[node] |= ways.chain(choice).chain(joined).any(|to| alive[to]);
                }
            }
            alive
        };
        let joins = plan.joins.iter().enumerate();
        Self { plan, alive: joins.map(|(i, join)| join.from.map(|from| slot(i, from))).collect() }
    }

    /// What one task can fire: nodes, and whether it reaches the joins that it is a source of.
    fn outcomes(&self, node: usize) -> Vec<(BTreeSet<usize>, bool)> {
        let ways = &self.plan.ways[node];
        let mut choices = vec![Vec::new()];
        if let Some((when, otherwise)) = ways.choice {
            choices = vec![vec![when], vec![otherwise]];
        }
        let with = |choice: Vec<usize>| (ways.always.iter().copied().chain(choice).collect(), true);
        let mut outcomes: Vec<_> = choices.into_iter().map(with).collect();
        for some in 1..1usize << ways.goto.len() {
            let picked = ways.goto.iter().enumerate().filter(|(i, _)| some >> i & 1 == 1);
            outcomes.push((picked.map(|(_, to)| *to).collect(), false));
        }
        outcomes.extend(ways.error.map(|to| (BTreeSet::from([to]), false)));
        outcomes
    }

    /// What follows when tasks of these nodes end together.
    fn commit(&self, before: &Moment, nodes: &[usize]) -> Vec<Moment> {
        let mut moment = before.clone();
        for node in nodes.iter().filter(|node| **node != START) {
            moment.tasks[*node] -= 1;
        }
        let mut fired = vec![(BTreeSet::new(), BTreeSet::new())];
        for node in nodes {
            let outcomes = self.outcomes(*node);
            let add = |(all, arrived): (BTreeSet<usize>, BTreeSet<usize>)| {
                outcomes.iter().map(move |(to, joins)| {
                    let arrived = arrived.iter().copied().chain(joins.then_some(*node));
                    (all.union(to).copied().collect(), arrived.collect())
                })
            };
            fired = fired.into_iter().flat_map(add).collect();
        }
        fired.into_iter().map(|(to, arrived)| self.fire(&moment, to, &arrived)).collect()
    }

    fn fire(&self, before: &Moment, mut to: BTreeSet<usize>, arrived: &BTreeSet<usize>) -> Moment {
        let mut moment = before.clone();
        for (i, join) in self.plan.joins.iter().enumerate() {
            for (slot, from) in join.from.iter().enumerate() {
                if arrived.contains(from) && !std::mem::take(&mut moment.owed[i][slot]) {
                    moment.filled[i][slot] = true;
                }
            }
        }
        to.remove(&END);
        loop {
            let live = |slot: &[bool; 6]| {
                (1..END).any(|n| slot[n] && (moment.tasks[n] > 0 || to.contains(&n)))
            };
            let live: Vec<_> = self.alive.iter().map(|slots| slots.each_ref().map(live)).collect();
            let ready = self.plan.joins.iter().enumerate().find(|(i, join)| {
                let (filled, live) = (moment.filled[*i], live[*i]);
                let count = filled.iter().filter(|filled| **filled).count();
                let all = (0..2).all(|slot| filled[slot] || !live[slot]);
                join.count.map_or(all && count > 0, |needs| count >= needs)
            });
            for (owed, live) in moment.owed.iter_mut().zip(&live) {
                (0..2).for_each(|slot| owed[slot] &= live[slot]);
            }
            let Some((i, join)) = ready else { break };
            for (slot, live) in live[i].into_iter().enumerate() {
                moment.owed[i][slot] |= live && !moment.filled[i][slot];
            }
            moment.filled[i] = [false; 2];
            to.insert(join.to);
        }
        for node in to {
            // More than two of one node show nothing new.
            moment.tasks[node] = (moment.tasks[node] + 1).min(2);
        }
        if !self.plan.dataflow {
            moment.tasks = moment.tasks.map(|count| count.min(1));
        }
        moment
    }

    /// Nodes that some moment of some run holds together.
    fn met(&self) -> BTreeSet<(usize, usize)> {
        let joins = self.plan.joins.len();
        let (filled, owed) = (vec![[false; 2]; joins], vec![[false; 2]; joins]);
        let first = Moment { tasks: [0; 6], filled, owed };
        let mut seen: BTreeSet<Moment> = BTreeSet::new();
        let mut fresh = self.commit(&first, &[START]);
        while let Some(moment) = fresh.pop() {
            if seen.len() > 1_000 || !seen.insert(moment.clone()) {
                continue;
            }
            let tasks: Vec<usize> = (1..END).filter(|node| moment.tasks[*node] > 0).collect();
            if self.plan.dataflow {
                fresh.extend(tasks.iter().flat_map(|task| self.commit(&moment, &[*task])));
            } else if !tasks.is_empty() {
                fresh.extend(self.commit(&moment, &tasks));
            }
        }
        let together =
            |moment: &Moment, (x, y): (usize, usize)| moment.tasks[x] > 0 && moment.tasks[y] > 0;
        pairs().filter(|pair| seen.iter().any(|moment| together(moment, *pair))).collect()
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let to = || 1..=END;
    let few = |most: usize| {
        prop::collection::btree_set(1..=END, 0..=most)
            .prop_map(|set| set.into_iter().collect::<Vec<_>>())
    };
    let node = (
        few(2),
        prop::option::weighted(0.4, (to(), to())),
        prop_oneof![4 => Just(Vec::new()), 1 => few(2)],
        prop::option::weighted(0.15, 1..END),
    )
        .prop_map(|(always, choice, goto, error)| Ways { always, choice, goto, error });
    let start = prop::collection::btree_set(1..END, 1..=3)
        .prop_map(|set| Ways { always: set.into_iter().collect(), ..Ways::default() });
    let count = prop_oneof![Just(None), Just(Some(1)), Just(Some(2))];
    let join = (1..END, 1..END, count, 1..END)
        .prop_filter("two sources", |(x, y, ..)| x != y)
        .prop_map(|(x, y, count, to)| Join { from: [x, y], count, to });
    let ways = (start, prop::collection::vec(node, 4));
    let ways = ways.prop_map(|(start, nodes)| std::iter::once(start).chain(nodes).collect());
    (any::<bool>(), ways, prop::collection::vec(join, 0..=2))
        .prop_map(|(dataflow, ways, joins)| Plan { dataflow, ways, joins })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256, failure_persistence: None, max_global_rejects: 100_000, ..ProptestConfig::default()
    })]

    #[test]
    fn nodes_that_run_together_in_any_run_are_found(plan in plan()) {
        let text = plan.yaml();
        let Some(found) = met(&text) else { return Ok(()) };
        let happens = Runs::of(&plan).met();
        prop_assert!(found.is_superset(&happens), "{happens:?} is more than {found:?}\n{text}");
        if plan.joins.is_empty() {
            prop_assert_eq!(found, happens, "{}", text);
        }
    }
}

/// Findings of a dataflow graph with these nodes and lines: `code line:column`, with a mark for
/// an error.
fn found(nodes: &str, edges: &[(&str, &str)]) -> Vec<String> {
    let state = "state: { x: { default: 0 }, y: { default: 0 }, list: { reduce: append } }";
    let mut text = format!("graph: g\nschedule: dataflow\n{state}\nnodes:\n{nodes}\nedges:\n");
    for (from, to) in edges {
        writeln!(text, "  - {{ from: {from}, to: {to} }}").unwrap();
    }
    let findings = findings_in(&kinds::catalog(), "g.yaml", &text);
    let mark = |f: &Finding| if f.is_error() { "!" } else { "" };
    findings.iter().map(|f| format!("{}{} {}:{}", f.code, mark(f), f.line, f.column)).collect()
}

#[test]
fn dataflow_reads_of_what_may_be_written_meanwhile_are_found_where_they_stand() {
    let nodes = "  a: { kind: set, set: { x: 1 } }\n  b: { kind: probe, text: \"{{ x }}\" }";
    let side = [("START", "a"), ("START", "b"), ("a", "END"), ("b", "END")];
    assert_eq!(found(nodes, &side), ["parallel_read! 6:31"]);
    let after = [("START", "a"), ("a", "b"), ("b", "END")];
    assert_eq!(found(nodes, &after), Vec::<String>::new());
    // What is read by a later task of the other flow is a matter of luck too.
    let nodes =
        "  a: { kind: set, set: { x: 1 } }\n  b: { kind: probe }\n  c: { kind: probe, reads: x }";
    let later = [("START", "a"), ("START", "b"), ("b", "c"), ("a", "END"), ("c", "END")];
    assert_eq!(found(nodes, &later), ["parallel_read! 7:28"]);
    let joined = [("START", "a"), ("START", "b"), ("[a, b]", "c"), ("c", "END")];
    assert_eq!(found(nodes, &joined), Vec::<String>::new());
}

#[test]
fn dataflow_counts_conditions_gotos_and_reduced_writes_as_reads_and_writes() {
    let nodes = "  a: { kind: set, set: { list: 1 } }\n  b: { kind: probe }";
    let side = [("START", "a"), ("START", "b"), ("a", "END")];
    let when = [&side[..], &[("b", "END, when: list"), ("b", "END, otherwise: true")]].concat();
    assert_eq!(found(nodes, &when), ["parallel_read! 11:31"]);
    let nodes = "  a: { kind: set, set: { list: 1 } }\n  b: { kind: probe, goto: { to: list, among: [END] } }";
    assert_eq!(found(nodes, &side), ["parallel_read! 6:33"]);
    // A condition of the whole makes it a warning.
    let nodes = "  a: { kind: set, set: { x: 1 } }\n  b: { kind: probe, goto: { to: y, among: [c] } }\n  c: { kind: probe, reads: x }";
    let ends = [&side[..], &[("c", "END")]].concat();
    assert_eq!(found(nodes, &ends), ["parallel_read 7:28"]);
}

#[test]
fn dataflow_writes_meet_wherever_two_flows_are_not_joined() {
    let nodes = "  a: { kind: set, set: { x: 1 } }\n  b: { kind: probe }\n  c: { kind: set, set: { x: 2 } }";
    let side = [("START", "a"), ("START", "b"), ("b", "c"), ("a", "END"), ("c", "END")];
    assert_eq!(found(nodes, &side), ["parallel_write! 7:29"], "in different steps, yet at once");
    let first = [("START", "a"), ("START", "b"), ("[a, b]", "c, join: any"), ("c", "END")];
    assert_eq!(found(nodes, &first), ["parallel_write! 7:29"], "a join of any waits for one");
    let both = [("START", "a"), ("START", "b"), ("[a, b]", "c, join: 2"), ("c", "END")];
    assert_eq!(found(nodes, &both), Vec::<String>::new());
}

#[test]
fn under_dataflow_two_lines_of_equal_length_fire_a_node_twice() {
    let nodes = "  a: { kind: probe }\n  b: { kind: probe }\n  c: { kind: probe }";
    let diamond = [("START", "a"), ("START", "b"), ("a", "c"), ("b", "c"), ("c", "END")];
    assert_eq!(found(nodes, &diamond), ["suggest_join 7:3"]);
}

#[test]
fn a_graph_of_many_nodes_is_looked_at_in_bounded_time() {
    let mut text =
        String::from("graph: g\nschedule: dataflow\nstate: { x: { reduce: sum } }\nnodes:\n");
    let mut edges = String::from("edges:\n");
    let mut last = BTreeMap::from([("l", "START".to_owned()), ("r", "START".to_owned())]);
    for i in 0..600 {
        for side in ["l", "r"] {
            writeln!(text, "  {side}{i}: {{ kind: set, set: {{ x: 1 }} }}").unwrap();
            let from = last.insert(side, format!("{side}{i}")).unwrap();
            writeln!(edges, "  - {{ from: {from}, to: {side}{i} }}").unwrap();
        }
    }
    for from in last.values() {
        writeln!(edges, "  - {{ from: {from}, to: END }}").unwrap();
    }
    assert_eq!(findings_in(&kinds::catalog(), "g.yaml", &(text + &edges)), []);
}
