//! What is promised of the engine as it grows, and how soon a run is cancelled. One JSON line for
//! each figure; the bench fails if one of them is beyond three times its promise.
//!
//! `cargo bench -p exile-engine --bench bounds`.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

#[path = "../tests/all/hand.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod hand;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::env::{Env, SystemEnv};
use exile_engine::graph::Graph;
use exile_engine::id::{LogId, MessageId, RunId};
use exile_engine::journal::{MemoryJournal, Verdict};
use exile_engine::message::{Message, Role};
use exile_engine::model::Models;
use exile_engine::node::{Node, NodeError, Outcome, Work};
use exile_engine::run::context::Cx;
use exile_engine::state::{ChannelValue, Reducer, State, Writes};
use serde_json::{Map, json};

use hand::{Bench, Does, Each, Hand, leaf, writes};

/// How much of a figure is put down to the machine.
const SLACK: f64 = 3.0;
/// Runs of each kind in a row; the median of all counts.
const TIMES: usize = 7;
/// How often sizes take turns.
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    let bounds = Bounds { runtime: tokio::runtime::Runtime::new().unwrap() };
    let held = [
        bounds.growth("map_16000_items_to_1000", (1_000, 16_000), list, 16.0 * 1.2),
        bounds.growth("fan_out_1600_to_100", (100, 1_600), fan, 16.0),
        bounds.message(),
        bounds.cancel("cancel_of_a_loop", endless),
        bounds.cancel("cancel_of_a_list", || list(10_000)),
        bounds.cancel("cancel_of_a_node_that_hangs", hangs),
    ];
    if held.iter().all(|held| *held) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A list of so many items, each of which writes a number.
fn list(items: usize) -> Graph {
    let each = Each::new(items, 16, writes(&[("result", json!(1))])).work();
    let hand = Hand::default().channel("log", Reducer::Append, json!([]));
    hand.node("each", each).edge("START", "each").graph()
}

/// So many nodes that run at the same time, and one that waits for all.
fn fan(nodes: usize) -> Graph {
    let mut hand = Hand::default().channel("n", Reducer::Sum, json!(0));
    let names: Vec<String> = (0..nodes).map(|i| format!("n{i}")).collect();
    for name in &names {
        hand = hand.node(name, writes(&[("n", json!(1))])).edge("START", name);
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    hand.node("join", writes(&[("n", json!(1))])).join(&all, "join").graph()
}

/// Steps of [`says`].
const SAID: u32 = 500;

/// A node that adds a message, over and over.
fn says() -> Graph {
    let said = AtomicU64::new(0);
    let say = move |_: &State| {
        let id = MessageId::from(format!("msg_said_{}", said.fetch_add(1, Ordering::Relaxed)));
        let message = ChannelValue::message(Arc::new(Message::text(id, Role::User, "and so on")));
        Ok(Writes::from_iter([("messages".into(), message)]))
    };
    let mut hand = Hand::default().channel("messages", Reducer::Messages, json!([])).channel(
        "n",
        Reducer::Sum,
        json!(0),
    );
    hand.limits.steps = Some(u32::MAX);
    hand.node("say", Work::Pure(Arc::new(Does(Box::new(say)))))
        .node("count", writes(&[("n", json!(1))]))
        .edge("START", "say")
        .edge("say", "count")
        .when("count", &format!("n % {SAID} > 0"), "say")
        .otherwise("count", "END")
        .graph()
}

/// A node that fires itself for ever.
fn endless() -> Graph {
    let mut hand = Hand::default().channel("n", Reducer::Sum, json!(0));
    hand.limits.steps = Some(u32::MAX);
    hand.node("again", writes(&[("n", json!(1))]))
        .edge("START", "again")
        .edge("again", "again")
        .graph()
}

#[derive(Debug)]
struct Hangs;

#[async_trait]
impl Node for Hangs {
    async fn run(&self, _: &Cx, _: &State) -> Result<Outcome, NodeError> {
        std::future::pending().await
    }
}

fn hangs() -> Graph {
    Hand::default().node("hangs", leaf(Hangs)).edge("START", "hangs").graph()
}

struct Bounds {
    runtime: tokio::runtime::Runtime,
}

impl Bounds {
    async fn bench(graph: Graph) -> (Bench, Arc<dyn Env>) {
        let env: Arc<dyn Env> = Arc::new(SystemEnv::new());
        let journal = Arc::new(MemoryJournal::new(env.clone()));
        (Bench::over(journal, env.clone(), graph, Models::default()).await, env)
    }

    /// How long a run of the graph takes.
    fn run(&self, graph: Graph) -> Duration {
        self.runtime.block_on(async {
            let (bench, env) = Self::bench(graph).await;
            let began = env.monotonic();
            bench.start(&LogId::from("log"), &RunId::from("run"), Map::new()).await;
            bench.ended(&RunId::from("run")).await;
            env.monotonic().saturating_sub(began)
        })
    }

    /// How much longer a large run takes than a small one, in turns. Whether that is within bounds.
    fn growth(
        &self,
        name: &str,
        (small, large): (usize, usize),
        graph: impl Fn(usize) -> Graph,
        promised: f64,
    ) -> bool {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (size, times) in [small, large].into_iter().zip(&mut times) {
                // The first one after the other size finds the processor's caches empty.
                self.run(graph(size));
                times.extend((0..TIMES).map(|_| self.run(graph(size))));
            }
        }
        let [small, large] = times.map(median);
        let ratio = large.as_secs_f64() / small.as_secs_f64();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let (small_ms, value) = (ms(small), ms(large));
        println!(
            "{}",
            json!({ "figure": name, "value": value, "small": small_ms, "ratio": ratio,
                    "promised": promised })
        );
        ratio <= SLACK * promised
    }

    /// How much longer a step that adds a message takes with 10,000 messages than with 10. Whether that
    /// is within bounds.
    fn message(&self) -> bool {
        const PROMISED: f64 = 1.5;
        let run = |messages: usize| {
            self.runtime.block_on(async {
                let (bench, env) = Self::bench(says()).await;
                let said = |n| json!({ "id": format!("msg_{n}"), "role": "user", "content": "so" });
                let messages: Vec<_> = (0..messages).map(said).collect();
                let input = Map::from_iter([("messages".to_owned(), messages.into())]);
                let (log, run) = (LogId::from("log"), RunId::from("run"));
                bench.start(&log, &run, input).await;
                bench.ended(&run).await;
                // Again, so that reading the first messages does not count.
                let began = env.monotonic();
                bench
                    .start(&log, &"again".into(), Map::from_iter([("n".to_owned(), 0.into())]))
                    .await;
                bench.ended(&"again".into()).await;
                env.monotonic().saturating_sub(began)
            })
        };
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (size, times) in [10, 10_000].into_iter().zip(&mut times) {
                times.push(run(size));
            }
        }
        let us = |times| median(times).as_secs_f64() * 1e6 / f64::from(2 * SAID);
        let [small, large] = times.map(us);
        let ratio = large / small;
        println!(
            "{}",
            json!({ "figure": "step_that_adds_a_message_to_10000", "unit": "us", "value": large,
                    "small": small, "ratio": ratio, "promised": PROMISED })
        );
        ratio <= SLACK * PROMISED
    }

    /// How soon a run that goes on has ended once it is cancelled. Whether that is within bounds.
    fn cancel(&self, name: &str, graph: impl Fn() -> Graph) -> bool {
        const PROMISED_MS: f64 = 100.0;
        let taken = self.median(async || {
            let (bench, env) = Self::bench(graph()).await;
            let (log, run) = (LogId::from("log"), RunId::from("run"));
            bench.start(&log, &run, Map::new()).await;
            while bench.journal.find(&run).await.unwrap().is_none_or(|place| place.first.is_none())
            {
                tokio::task::yield_now().await;
            }
            let began = env.monotonic();
            let verdict = bench.engine.submit_cancel(&log, &run).await.unwrap();
            let taken = env.monotonic().saturating_sub(began);
            assert_eq!(verdict, Some(Verdict::Taken), "{name}: it went on");
            taken
        });
        let value = taken.as_secs_f64() * 1000.0;
        println!("{}", json!({ "figure": name, "value": value, "promised": PROMISED_MS }));
        value <= SLACK * PROMISED_MS
    }

    fn median(&self, measure: impl AsyncFn() -> Duration) -> Duration {
        let measured = async {
            let mut times = Vec::new();
            for _ in 0..TIMES {
                times.push(measure().await);
            }
            times
        };
        median(self.runtime.block_on(measured))
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
