//! Laws of the superstep schedule, over random graphs with cycles: joins never fire twice for one
//! set and never vanish, whether they wait for all or count, and timing never shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::graph::Needs;
use exile_engine::id::{LogId, RunId};
use exile_engine::node::{Node, NodeError, Outcome};
use exile_engine::run::context::Cx;
use exile_engine::run::event::Event;
use exile_engine::run::record::{EndStatus, Fact};
use exile_engine::state::{Reducer, State, Writes};
use futures_util::StreamExt as _;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::hand::{Bench, Hand, leaf, writes};

/// Steps after which a graph with a cycle is cut off.
const STEPS: usize = 12;

fn name(node: usize) -> String {
    format!("n{node}")
}

/// A node that notes itself in `log`, whose length counts the tasks so far.
fn noting(nodes: usize) -> Hand {
    let hand = Hand::default().channel("log", Reducer::Append, json!([]));
    (0..nodes).fold(hand, |hand, n| hand.node(&name(n), writes(&[("log", json!(name(n)))])))
}

/// Runs a future with the clock of a test: time passes when nothing else can happen.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(future)
}

/// How a run went.
struct Told {
    status: EndStatus,
    /// The tasks of each step, as `node:visit`.
    steps: Vec<Vec<String>>,
    events: Vec<Event>,
    /// Join slots that the last step left filled.
    held: usize,
    state: Map<String, Value>,
}

async fn run(hand: Hand) -> Told {
    let bench = Bench::new(hand.graph()).await;
    let (log, id) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &id, Map::new()).await;
    let events: Vec<Event> = bench.engine.events(id.clone(), 0).map(Result::unwrap).collect().await;
    let tasks = |e: &Event| serde_json::from_value(e.data["tasks"].clone()).unwrap();
    let steps = events.iter().filter(|e| e.name == "step.started").map(tasks).collect();
    let records = bench.journal.load(&log, None).await.unwrap().records;
    let held = records.iter().rev().find_map(|r| match &r.record.fact {
        Fact::Step(step) => Some(step.activation.filled.len()),
        Fact::Started(started) => Some(started.activation.filled.len()),
        _ => None,
    });
    Told {
        status: bench.ended(&id).await.status,
        steps,
        events,
        held: held.unwrap(),
        state: bench.engine.state(&log).await.unwrap(),
    }
}

/// When a line is taken: the number of tasks so far, divided by `.0`, leaves `.1`.
type Counted = (usize, usize);

#[derive(Clone, Debug)]
enum Way {
    Always,
    When(Counted),
    Otherwise,
}

/// A random graph: lines between nodes (`None`: END), joins, and where START leads.
#[derive(Clone, Debug)]
struct Sketch {
    nodes: usize,
    start: Vec<usize>,
    lines: Vec<(usize, Way, Option<usize>)>,
    /// Sources, target, and how many arrivals it needs (`None`: all that come).
    joins: Vec<(Vec<usize>, usize, Option<usize>)>,
}

fn sketches() -> impl Strategy<Value = Sketch> {
    (2..7usize).prop_flat_map(|nodes| {
        let way = prop_oneof![
            3 => Just(Way::Always),
            2 => (1..4usize, 0..3usize).prop_map(|(by, rest)| Way::When((by, rest % by))),
            1 => Just(Way::Otherwise),
        ];
        let line = (0..nodes, way, prop::option::weighted(0.8, 0..nodes));
        let needs = prop::option::weighted(0.4, 1..=2usize);
        let join = (prop::collection::btree_set(0..nodes, 2..=nodes.min(3)), 0..nodes, needs);
        let join =
            join.prop_map(|(from, to, needs)| (from.into_iter().collect::<Vec<_>>(), to, needs));
        (
            prop::collection::btree_set(0..nodes, 1..=2),
            prop::collection::vec(line, 0..8),
            prop::collection::vec(join, 1..4),
        )
            .prop_map(move |(start, lines, joins)| Sketch {
                nodes,
                start: start.into_iter().collect(),
                lines,
                joins,
            })
    })
}

impl Sketch {
    fn hand(&self) -> Hand {
        let mut hand = noting(self.nodes);
        hand.limits.steps = Some(u32::try_from(STEPS).unwrap());
        for &to in &self.start {
            hand = hand.edge("START", &name(to));
        }
        for (from, way, to) in &self.lines {
            let (from, to) = (name(*from), to.map_or("END".into(), name));
            hand = match way {
                Way::Always => hand.edge(&from, &to),
                Way::When((by, rest)) => {
                    hand.when(&from, &format!("log | length % {by} == {rest}"), &to)
                }
                Way::Otherwise => hand.otherwise(&from, &to),
            };
        }
        for (from, to, needs) in &self.joins {
            let from: Vec<String> = from.iter().map(|&n| name(n)).collect();
            let from: Vec<&str> = from.iter().map(String::as_str).collect();
            hand = hand.join_of(&from, &name(*to), needs.map_or(Needs::All, Needs::Count));
        }
        hand
    }

    /// Whether a task of `from` may come to `to` without `join`, by walking forward.
    fn leads(&self, from: usize, to: usize, join: usize) -> bool {
        let (mut seen, mut todo) = (BTreeSet::from([from]), vec![from]);
        while let Some(node) = todo.pop() {
            let lines = self.lines.iter().filter(|l| l.0 == node).filter_map(|l| l.2);
            let others = self.joins.iter().enumerate().filter(|(j, _)| *j != join);
            let joins = others.filter(|(_, (from, ..))| from.contains(&node)).map(|(_, j)| j.1);
            todo.extend(lines.chain(joins).filter(|next| seen.insert(*next)));
        }
        seen.contains(&to)
    }

    /// Nodes that a node's own lines fire.
    fn taken(&self, node: usize, tasks: usize) -> Vec<usize> {
        let holds = |(by, rest): Counted| tasks % by == rest;
        let own: Vec<_> = self.lines.iter().filter(|l| l.0 == node).collect();
        let first = own.iter().position(|l| matches!(l.1, Way::When(when) if holds(when)));
        let taken = |(i, line): (usize, &&(usize, Way, Option<usize>))| {
            let taken = match line.1 {
                Way::Always => true,
                Way::When(_) => first == Some(i),
                Way::Otherwise => first.is_none(),
            };
            line.2.filter(|_| taken)
        };
        own.iter().enumerate().filter_map(taken).collect()
    }

    /// The steps as the page on graphs has them, worked out the slow way; `most` and one more at
    /// most. Whether a join starved after them.
    fn steps(&self, most: usize) -> (Vec<BTreeSet<usize>>, bool) {
        let mut joins = Joins::default();
        let mut steps: Vec<BTreeSet<usize>> = vec![self.start.iter().copied().collect()];
        let mut tasks = 0;
        while let Some(step) = steps.last().filter(|step| !step.is_empty()).cloned() {
            if steps.len() > most {
                return (steps, false);
            }
            tasks += step.len();
            let mut next = BTreeSet::new();
            for node in step {
                next.extend(self.taken(node, tasks));
                for (join, (from, ..)) in self.joins.iter().enumerate() {
                    if from.contains(&node) && !joins.owed.remove(&(join, node)) {
                        joins.held.entry(join).or_default().insert(node);
                    }
                }
            }
            self.fire(&mut joins, &mut next);
            if self.starved(&joins, &next) {
                return (steps, true);
            }
            steps.push(next);
        }
        steps.pop();
        (steps, false)
    }

    /// Fires every join that can be.
    fn fire(&self, joins: &mut Joins, next: &mut BTreeSet<usize>) {
        loop {
            let all = |join: &usize| self.joins[*join].2.is_none();
            // The last one first: which of two ready joins goes first must not matter.
            let ready =
                joins.held.keys().rev().copied().find(|&j| self.ready(j, &joins.held, next));
            let stuck = joins.held.keys().copied().find(all).filter(|_| next.is_empty());
            let Some(join) = ready.or(stuck) else { break };
            let arrived = joins.held[&join].clone();
            if self.joins[join].2.is_some() {
                let live = self.live(join, &joins.held, next);
                for source in self.joins[join].0.iter().filter(|s| !arrived.contains(s)) {
                    if live.iter().any(|&n| self.leads(n, *source, join)) {
                        joins.owed.insert((join, *source));
                    }
                }
            }
            joins.held.remove(&join);
            next.insert(self.joins[join].1);
        }
        joins.owed.retain(|(join, source)| next.iter().any(|&n| self.leads(n, *source, *join)));
    }

    /// Where something goes on, or will: a join that holds an arrival counts at its target.
    fn live(&self, join: usize, held: &Held, next: &BTreeSet<usize>) -> Vec<usize> {
        let others = held.keys().filter(|&&j| j != join).map(|&j| self.joins[j].1);
        next.iter().copied().chain(others).collect()
    }

    fn ready(&self, join: usize, held: &Held, next: &BTreeSet<usize>) -> bool {
        let (from, _, needs) = &self.joins[join];
        if let Some(needs) = needs {
            return held[&join].len() >= *needs;
        }
        let live = self.live(join, held, next);
        from.iter().all(|source| {
            held[&join].contains(source) || !live.iter().any(|&n| self.leads(n, *source, join))
        })
    }

    /// Whether a join that counts can no longer get what it needs.
    fn starved(&self, joins: &Joins, next: &BTreeSet<usize>) -> bool {
        joins.held.iter().any(|(&join, arrived)| {
            let (from, _, Some(needs)) = &self.joins[join] else { return false };
            let live = self.live(join, &joins.held, next);
            let can = from.iter().filter(|s| !arrived.contains(s));
            let can = can.filter(|s| live.iter().any(|&n| self.leads(n, **s, join))).count();
            next.is_empty() || arrived.len() + can < *needs
        })
    }
}

/// Arrivals by join.
type Held = BTreeMap<usize, BTreeSet<usize>>;

/// What joins hold, and the arrivals, as join and source, that they owe.
#[derive(Default)]
struct Joins {
    held: Held,
    owed: BTreeSet<(usize, usize)>,
}

/// Like [`Sketch::steps`], as tasks and cut off where the run is; whether it fails, because it was
/// cut off or a join starved.
fn expected(sketch: &Sketch) -> (bool, Vec<Vec<String>>) {
    let mut visits: BTreeMap<usize, u32> = BTreeMap::new();
    let mut task = |node: usize| {
        let visit = visits.entry(node).or_default();
        *visit += 1;
        format!("{}:{visit}", name(node))
    };
    let mut steps = Vec::new();
    let (model, starved) = sketch.steps(STEPS);
    for step in model {
        steps.push(step.into_iter().map(&mut task).collect::<Vec<_>>());
    }
    let over = steps.len() > STEPS;
    steps.truncate(STEPS);
    (over || starved, steps)
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_random_graph_moves_as_the_slow_model_says(sketch in sketches()) {
        let told = block_on(run(sketch.hand()));
        let (fails, steps) = expected(&sketch);
        prop_assert_eq!(&told.steps, &steps);
        let status = if fails { EndStatus::Failed } else { EndStatus::Finished };
        prop_assert_eq!(told.status, status);
        if !fails {
            prop_assert_eq!(told.held, 0, "a join vanished with an arrival in it");
        }
    }
}

/// A graph without cycles, in which every node is reached in one way: over a line that is taken
/// or not, or by a join of nodes before it.
#[derive(Clone, Debug)]
enum Reached {
    Line { from: Option<usize>, taken: bool },
    Join(Vec<usize>),
}

fn tree() -> impl Strategy<Value = Vec<Reached>> {
    (3..9usize).prop_flat_map(|nodes| {
        let reached = |node: usize| {
            let line = (prop::option::of(0..node.max(1)), prop::bool::weighted(0.7));
            let line = line.prop_map(move |(from, taken)| Reached::Line {
                from: from.filter(|_| node > 0),
                taken,
            });
            if node < 2 {
                return line.boxed();
            }
            let join = prop::collection::btree_set(0..node, 2..=node.min(3));
            let join = join.prop_map(|from| Reached::Join(from.into_iter().collect()));
            prop_oneof![line, join].boxed()
        };
        (0..nodes).map(reached).collect::<Vec<_>>()
    })
}

fn tree_hand(tree: &[Reached]) -> Hand {
    let mut hand = noting(tree.len());
    for (node, reached) in tree.iter().enumerate() {
        let to = name(node);
        hand = match reached {
            Reached::Line { from, taken } => {
                let from = from.map_or("START".into(), name);
                if *taken { hand.edge(&from, &to) } else { hand.when(&from, "false", &to) }
            }
            Reached::Join(from) => {
                let from: Vec<String> = from.iter().map(|&n| name(n)).collect();
                hand.join(&from.iter().map(String::as_str).collect::<Vec<_>>(), &to)
            }
        };
    }
    hand
}

proptest! {
    #![proptest_config(cases(192))]

    #[test]
    fn without_cycles_a_join_fires_once_after_all_that_came(tree in tree()) {
        let told = block_on(run(tree_hand(&tree)));
        prop_assert_eq!(told.status, EndStatus::Finished);
        let at = |node: usize| {
            told.steps.iter().position(|step| step.contains(&format!("{}:1", name(node))))
        };
        let tasks: usize = told.steps.iter().map(Vec::len).sum();
        let fired = (0..tree.len()).filter(|&n| at(n).is_some()).count();
        prop_assert_eq!(tasks, fired, "a node fired twice: {:?}", &told.steps);
        for (node, reached) in tree.iter().enumerate() {
            match reached {
                Reached::Line { from, taken } => {
                    let before = from.map_or(Some(0), |from| at(from).map(|step| step + 1));
                    prop_assert_eq!(at(node), before.filter(|_| *taken));
                }
                Reached::Join(from) => {
                    let last = from.iter().filter_map(|&from| at(from)).max();
                    prop_assert_eq!(at(node).is_some(), last.is_some());
                    prop_assert!(at(node) > last || last.is_none());
                }
            }
        }
    }
}

/// Writes after a while.
#[derive(Debug)]
struct Late(u64, Writes);

#[async_trait]
impl Node for Late {
    async fn run(&self, _: &Cx, _: &State) -> Result<Outcome, NodeError> {
        tokio::time::sleep(Duration::from_millis(self.0)).await;
        Ok(Outcome::writes(self.1.clone()))
    }
}

/// Two rounds of branches that write to a channel of each reducer, each as late as said.
fn racing(delays: &[u64]) -> Hand {
    let half = delays.len() / 2;
    let mut hand = Hand::default()
        .channel("list", Reducer::Append, json!([]))
        .channel("set", Reducer::Union, json!([]))
        .channel("map", Reducer::Merge, json!({}))
        .channel("total", Reducer::Sum, json!(0))
        .channel("messages", Reducer::Messages, json!([]))
        .node("half", writes(&[]));
    for (n, delay) in delays.iter().enumerate() {
        let message =
            |id: usize| json!({ "id": format!("msg_{id}"), "role": "user", "content": name(n) });
        let values = [
            ("list", json!([name(n), n])),
            ("set", json!([n % 3, n % 2])),
            ("map", json!({ "last": n, name(n): n % 4 })),
            ("total", json!(n * n)),
            ("messages", json!([message(n), message(n % 3)])),
        ];
        let values = values.into_iter().map(|(k, v)| (Arc::from(k), v.into())).collect();
        hand = hand.node(&name(n), leaf(Late(*delay, values)));
        hand = hand.edge(if n < half { "START" } else { "half" }, &name(n));
    }
    let first: Vec<String> = (0..half).map(name).collect();
    hand.join(&first.iter().map(String::as_str).collect::<Vec<_>>(), "half")
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn timing_never_shows(delays in prop::collection::vec(0..50u64, 10)) {
        let (late, plain) = (block_on(run(racing(&delays))), block_on(run(racing(&[0; 10]))));
        prop_assert_eq!(late.status, EndStatus::Finished);
        prop_assert_eq!(&late.state, &plain.state);
        let updates = |told: &Told| {
            let updates = told.events.iter().filter(|e| e.name == "state.update");
            updates.map(|e| Value::clone(&e.data)).collect::<Vec<_>>()
        };
        prop_assert_eq!(updates(&late), updates(&plain));
        prop_assert_eq!(late.steps, plain.steps);
    }
}
