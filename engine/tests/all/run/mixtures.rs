//! Random mixtures of everything that a graph can hold: loops, lists, graphs inside graphs, slow
//! nodes beside instant ones, nodes that fail and are tried again, under both schedules and every
//! durability. A run of one always comes to an end; what its log says is what it did, also when it
//! is read back; and a process that dies at any append leaves it to the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::bundle::Program;
use exile_engine::env::{Env, StepEnv};
use exile_engine::graph::{Graph, OnError, Policy, Retry};
use exile_engine::id::{LogId, RunId};
use exile_engine::journal::{Journal, MemoryJournal};
use exile_engine::model::Models;
use exile_engine::node::{Node, NodeError, Outcome, Work};
use exile_engine::run::context::Cx;
use exile_engine::run::engine::Stopped;
use exile_engine::run::fold::{LogState, Programs};
use exile_engine::run::record::{Durability, EndStatus, Fact};
use exile_engine::state::{Reducer, State};
use exile_engine::tool::ToolRegistry;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::hand::{Bench, Each, Hand, Inner, journal_over, leaf};

/// Steps after which a graph with a cycle is cut off.
const STEPS: u32 = 12;

/// What a node does.
#[derive(Clone, Debug)]
enum Deed {
    /// Writes at once.
    Now,
    /// Writes after so many milliseconds.
    Late(u64),
    /// Fails: can be mended by another attempt, or cannot.
    Fails { mends: bool },
    /// A node for each item.
    Map { items: usize, concurrency: usize, inside: Box<Deed> },
    /// A graph.
    Graph(Box<Sketch>),
}

/// What follows a failure.
#[derive(Clone, Copy, Debug)]
enum After {
    Fail,
    Continue,
    Goto(usize),
}

/// A node of a sketch.
#[derive(Clone, Debug)]
struct Drawn {
    deed: Deed,
    after: After,
    attempts: u32,
}

/// From, condition (the number of tasks so far, divided by the first, leaves the second), to.
type DrawnLine = (usize, Option<(usize, usize)>, usize);

/// A random graph.
#[derive(Clone, Debug)]
struct Sketch {
    nodes: Vec<Drawn>,
    start: Vec<usize>,
    lines: Vec<DrawnLine>,
    joins: Vec<(Vec<usize>, usize)>,
    dataflow: bool,
}

fn deeds(depth: u32) -> BoxedStrategy<Deed> {
    let simple = prop_oneof![
        4 => Just(Deed::Now),
        2 => (1..40_u64).prop_map(Deed::Late),
        1 => any::<bool>().prop_map(|mends| Deed::Fails { mends }),
    ];
    if depth == 0 {
        return simple.boxed();
    }
    let map =
        (0..6_usize, 1..4_usize, deeds(depth - 1)).prop_map(|(items, concurrency, inside)| {
            Deed::Map { items, concurrency, inside: Box::new(inside) }
        });
    let graph = sketches(depth - 1).prop_map(|sketch| Deed::Graph(Box::new(sketch)));
    prop_oneof![3 => simple, 1 => map, 1 => graph].boxed()
}

fn sketches(depth: u32) -> BoxedStrategy<Sketch> {
    (1..5_usize)
        .prop_flat_map(move |count| {
            let after = prop_oneof![
                2 => Just(After::Fail),
                1 => Just(After::Continue),
                1 => (0..count).prop_map(After::Goto),
            ];
            let node = (deeds(depth), after, 1..3_u32).prop_map(|(deed, after, attempts)| Drawn {
                deed,
                after,
                attempts,
            });
            let when = prop::option::weighted(0.4, (1..4_usize, 0..3_usize));
            let line = (0..count, when, 0..count);
            let join = (prop::collection::btree_set(0..count, 1..=count.min(3)), 0..count);
            let join = join.prop_map(|(from, to)| (from.into_iter().collect::<Vec<_>>(), to));
            (
                prop::collection::vec(node, count),
                prop::collection::btree_set(0..count, 1..=count.min(2)),
                prop::collection::vec(line, 0..5),
                prop::collection::vec(join, 0..2),
                any::<bool>(),
            )
        })
        .prop_map(|(nodes, start, lines, joins, dataflow)| Sketch {
            nodes,
            start: start.into_iter().collect(),
            lines,
            joins,
            dataflow,
        })
        .boxed()
}

/// Writes, now or later.
#[derive(Debug)]
struct Writes(u64);

#[async_trait]
impl Node for Writes {
    async fn run(&self, _: &Cx, state: &State) -> Result<Outcome, NodeError> {
        if self.0 > 0 {
            tokio::time::sleep(Duration::from_millis(self.0)).await;
        }
        let item = state.get("item").map_or(Value::Null, |item| item.to_json().into_owned());
        let pairs = [("n", json!(1)), ("log", json!([1])), ("result", item)];
        let here = pairs.into_iter().filter(|(name, _)| state.get(name).is_some());
        Ok(Outcome::writes(here.map(|(name, value)| (name.into(), value.into())).collect()))
    }
}

/// Fails, always in the same way.
#[derive(Debug)]
struct Fails {
    mends: bool,
}

#[async_trait]
impl Node for Fails {
    async fn run(&self, _: &Cx, _: &State) -> Result<Outcome, NodeError> {
        Err(if self.mends {
            NodeError::Output("not yet".into())
        } else {
            NodeError::Limit("never".into())
        })
    }
}

impl Deed {
    fn work(&self) -> Work {
        match self {
            Self::Now => leaf(Writes(0)),
            Self::Late(millis) => leaf(Writes(*millis)),
            Self::Fails { mends } => leaf(Fails { mends: *mends }),
            Self::Map { items, concurrency, inside } => {
                Each::new(*items, *concurrency, inside.work()).work()
            }
            Self::Graph(sketch) => Work::Sub(Arc::new(Inner(Arc::new(sketch.graph())))),
        }
    }
}

impl Sketch {
    fn graph(&self) -> Graph {
        let name = |n: usize| format!("n{n}");
        let mut hand = Hand::default().channel("n", Reducer::Sum, json!(0)).channel(
            "log",
            Reducer::Append,
            json!([]),
        );
        hand.limits.steps = Some(STEPS);
        for (n, drawn) in self.nodes.iter().enumerate() {
            hand = hand.node(&name(n), drawn.deed.work());
        }
        for (n, drawn) in self.nodes.iter().enumerate() {
            let on_error = match drawn.after {
                After::Fail => OnError::Fail,
                After::Continue => OnError::Continue,
                After::Goto(to) => OnError::Node(hand.place(&name(to))),
            };
            let wait = Duration::from_millis(10);
            let retry = Retry { attempts: drawn.attempts, wait, wait_max: wait };
            hand = hand.policy(&name(n), Policy { on_error, retry, ..Policy::default() });
        }
        for &to in &self.start {
            hand = hand.edge("START", &name(to));
        }
        for (from, when, to) in &self.lines {
            hand = match when {
                None => hand.edge(&name(*from), &name(*to)),
                Some((by, rest)) => {
                    let condition = format!("n % {by} == {}", rest % by);
                    hand.when(&name(*from), &condition, &name(*to))
                }
            };
        }
        for (from, to) in &self.joins {
            let from: Vec<String> = from.iter().map(|&n| name(n)).collect();
            hand = hand.join(&from.iter().map(String::as_str).collect::<Vec<_>>(), &name(*to));
        }
        if self.dataflow { hand.flowing().graph() } else { hand.graph() }
    }
}

/// A store whose process is gone after some appends: it takes nothing more.
struct Dies {
    store: Arc<MemoryJournal>,
    appends_left: AtomicUsize,
    dead: tokio::sync::Notify,
}

journal_over!(Dies, store, append: |this, lease, batch| {
    let take = |n: usize| n.checked_sub(1);
    if this.appends_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
        this.dead.notify_one();
        std::future::pending::<()>().await;
    }
    this.store.append(lease, batch).await
});

/// Runs a future with the clock of a test: time passes when nothing else can happen.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(future)
}

/// Longer than any run here takes.
const LONG: Duration = Duration::from_hours(1);

async fn end_of(bench: &Bench, run: &RunId) -> Option<EndStatus> {
    match tokio::time::timeout(LONG, bench.engine.wait(run)).await {
        Ok(Ok(Stopped::Ended(ended))) => Some(ended.status),
        Ok(Ok(Stopped::Waiting(_) | Stopped::Behind(_)) | Err(_)) | Err(_) => None,
    }
}

/// What a log's records say, read back with its graph and without it.
async fn read_back(bench: &Bench, journal: &MemoryJournal, log: &LogId) -> (Value, Value) {
    let history = journal.load(log, None).await.unwrap();
    let values = |programs: &Programs| {
        let state = LogState::replay(&history.records, history.messages.clone(), programs);
        Value::Object(state.unwrap().values())
    };
    let program = Program {
        id: bench.bundle.clone(),
        graph: bench.graph.clone(),
        skills: std::collections::BTreeMap::new(),
        aliases: std::collections::BTreeMap::new(),
    };
    (values(&Programs::from(Arc::new(program))), values(&Programs::default()))
}

async fn check(
    sketch: &Sketch,
    durability: Durability,
    appends: usize,
) -> Result<(), TestCaseError> {
    let env = Arc::new(StepEnv::new());
    let store = Arc::new(MemoryJournal::new(env.clone()));
    let mut graph = sketch.graph();
    graph.durability = durability;
    let graph = Arc::new(graph);
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    let start = |journal: Arc<dyn Journal>| {
        let tools = Arc::new(ToolRegistry::default());
        Bench::with(journal, env.clone() as Arc<dyn Env>, graph.clone(), Models::default(), tools)
    };
    let (appends_left, dead) = (AtomicUsize::new(appends), tokio::sync::Notify::new());
    let dies = Arc::new(Dies { store: store.clone(), appends_left, dead });
    let first = start(dies.clone()).await;
    first.start(&log, &run, Map::new()).await;
    let (bench, ended) = tokio::select! {
        ended = end_of(&first, &run) => (first, ended),
        () = dies.dead.notified() => {
            drop(first);
            env.advance(Duration::from_mins(1));
            let second = start(store.clone()).await;
            let ended = end_of(&second, &run).await;
            (second, ended)
        }
    };
    prop_assert!(ended.is_some(), "the run came to no end");
    let (with, without) = read_back(&bench, &store, &log).await;
    prop_assert_eq!(&with, &without);
    let state = bench.engine.state(&log).await.unwrap();
    prop_assert_eq!(&with, &Value::Object(state));
    let records = store.read(&log, 0, usize::MAX).await.unwrap().records;
    let ends = records.iter().filter(|r| matches!(r.record.fact, Fact::Ended(_))).count();
    prop_assert_eq!(ends, 1);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mixture_of_everything_comes_to_an_end_that_its_log_tells(
        sketch in sketches(2), durability in 0..3_usize,
    ) {
        let durability = [Durability::Sync, Durability::Async, Durability::Exit][durability];
        block_on(check(&sketch, durability, usize::MAX))?;
    }

    #[test]
    fn a_mixture_of_everything_goes_on_after_a_death_at_any_append(
        sketch in sketches(2), durability in 0..2_usize, appends in 1..24_usize,
    ) {
        let durability = [Durability::Sync, Durability::Async][durability];
        block_on(check(&sketch, durability, appends))?;
    }
}
