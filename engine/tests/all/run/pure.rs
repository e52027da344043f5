//! Nodes that reach nothing: computed where the driver stands, several steps to an append.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::env::{Env, StepEnv};
use exile_engine::graph::{Policy, Retry};
use exile_engine::id::{LogId, RunId};
use exile_engine::journal::{Journal, MemoryJournal};
use exile_engine::model::Models;
use exile_engine::node::{Node, NodeError, Outcome, Work};
use exile_engine::run::context::Cx;
use exile_engine::run::record::{EndStatus, Fact};
use exile_engine::state::{Reducer, State, Writes};
use serde_json::{Map, json};

use crate::hand::{Bench, Does, Hand, leaf, writes};

/// Tells how many steps are stored when it begins.
#[derive(Debug)]
struct Counts(Arc<MemoryJournal>);

#[async_trait]
impl Node for Counts {
    async fn run(&self, _: &Cx, _: &State) -> Result<Outcome, NodeError> {
        let history = self.0.read(&LogId::from("log"), 0, usize::MAX).await.unwrap();
        let steps = history.records.iter().filter(|r| matches!(r.record.fact, Fact::Step(_)));
        Ok(Outcome::write(&"stored".into(), steps.count()))
    }
}

fn journal() -> (Arc<MemoryJournal>, Arc<dyn Env>) {
    let env: Arc<dyn Env> = Arc::new(StepEnv::new());
    (Arc::new(MemoryJournal::new(env.clone())), env)
}

fn numbers() -> Hand {
    let hand = Hand::default().channel("n", Reducer::Sum, json!(0));
    hand.channel("stored", Reducer::Replace, json!(null))
}

async fn ended(journal: Arc<MemoryJournal>, env: Arc<dyn Env>, hand: Hand) -> (EndStatus, Bench) {
    let bench = Bench::over(journal, env, hand.graph(), Models::default()).await;
    bench.start(&LogId::from("log"), &RunId::from("run"), Map::new()).await;
    (bench.ended(&RunId::from("run")).await.status, bench)
}

#[tokio::test(start_paused = true)]
async fn steps_that_reach_nothing_are_stored_before_anything_is_reached() {
    let (journal, env) = journal();
    let one = || writes(&[("n", json!(1))]);
    let hand = numbers()
        .node("a", one())
        .node("b", one())
        .node("c", one())
        .node("counts", leaf(Counts(journal.clone())))
        .edge("START", "a")
        .edge("a", "b")
        .edge("b", "c")
        .edge("c", "counts");
    let (status, bench) = ended(journal, env, hand).await;
    let state = bench.engine.state(&LogId::from("log")).await.unwrap();
    assert_eq!((status, &state["stored"]), (EndStatus::Finished, &json!(3)));
}

#[tokio::test(start_paused = true)]
async fn what_fails_and_is_tried_again_after_a_pause_reaches_nothing_either() {
    let (journal, env) = journal();
    let tries = Arc::new(AtomicU32::new(0));
    let counted = tries.clone();
    let third = move |_: &State| match counted.fetch_add(1, Ordering::SeqCst) {
        2 => Ok(Writes::from_iter([("n".into(), 1.into())])),
        _ => Err(NodeError::Output("not yet".into())),
    };
    let wait = Duration::from_mins(1);
    let retry = Retry { attempts: 3, wait, wait_max: wait };
    let hand = numbers()
        .node("again", Work::Pure(Arc::new(Does(Box::new(third)))))
        .policy("again", Policy { retry, ..Policy::default() })
        .edge("START", "again");
    let (status, bench) = ended(journal, env, hand).await;
    let state = bench.engine.state(&LogId::from("log")).await.unwrap();
    assert_eq!((status, &state["n"]), (EndStatus::Finished, &json!(1)));
    assert_eq!(tries.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_panic_fails_the_run_and_nothing_else() {
    let (journal, env) = journal();
    let panics = Does(Box::new(|_| panic!("dropped a plate")));
    let hand = numbers().node("a", Work::Pure(Arc::new(panics))).edge("START", "a");
    let bench = Bench::over(journal, env, hand.graph(), Models::default()).await;
    bench.start(&LogId::from("log"), &RunId::from("run"), Map::new()).await;
    let ended = bench.ended(&RunId::from("run")).await;
    assert_eq!(ended.error.unwrap().message, "node `a`: internal error: dropped a plate");
}
