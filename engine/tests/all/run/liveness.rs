//! Whatever nodes do, whoever asks something of a run is heard: nodes that finish at once, over and
//! over, leave room for cancels, limits, second messages, other runs and the end of the process.
//!
//! All of it on one thread, so that a run that never lets go of it would end the test.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::env::SystemEnv;
use exile_engine::id::{InputId, LogId, RunId, UserId};
use exile_engine::journal::{IfActive, MemoryJournal, StartRun};
use exile_engine::limits::Limits;
use exile_engine::model::Models;
use exile_engine::node::{Node, NodeError, Outcome};
use exile_engine::run::context::Cx;
use exile_engine::run::record::{Durability, EndStatus};
use exile_engine::state::{Reducer, State};
use futures_util::StreamExt as _;
use serde_json::{Map, json};

use crate::hand::{Bench, Each, Hand, leaf, writes};

/// Two nodes that fire each other for ever.
fn endless() -> Hand {
    let mut hand = Hand::default()
        .channel("n", Reducer::Sum, json!(0))
        .node("ping", writes(&[("n", json!(1))]))
        .node("pong", writes(&[("n", json!(1))]))
        .edge("START", "ping")
        .edge("ping", "pong")
        .edge("pong", "ping");
    hand.limits.steps = Some(u32::MAX);
    hand
}

/// Ends at once, but not before it was asked twice.
#[derive(Debug)]
struct Yields;

#[async_trait]
impl Node for Yields {
    async fn run(&self, _: &Cx, _: &State) -> Result<Outcome, NodeError> {
        tokio::task::yield_now().await;
        Ok(Outcome::write(&"n".into(), json!(1)))
    }
}

/// An engine with real clocks, whose log never makes anybody wait.
async fn bench(hand: Hand) -> Bench {
    let env = Arc::new(SystemEnv::new());
    let journal = Arc::new(MemoryJournal::new(env.clone()));
    Bench::over(journal, env, hand.graph(), Models::default()).await
}

/// Starts a run and waits until it has begun.
async fn moving(bench: &Bench, run: &str) -> (LogId, RunId) {
    let (log, run) = (LogId::from(run), RunId::from(run));
    bench.start(&log, &run, Map::new()).await;
    let begun = bench.engine.events(run.clone(), 0).next().await;
    assert!(begun.is_some());
    (log, run)
}

async fn is_cancelled(hand: Hand) {
    let bench = bench(hand).await;
    let (log, run) = moving(&bench, "run_1").await;
    bench.engine.cancel(&log, &run).await.unwrap();
    assert_eq!(bench.ended(&run).await.status, EndStatus::Cancelled);
}

#[tokio::test]
async fn a_run_of_nodes_that_finish_at_once_is_cancelled() {
    for durability in [Durability::Sync, Durability::Async, Durability::Exit] {
        let mut hand = endless();
        hand.durability = durability;
        is_cancelled(hand).await;
        let mut hand = endless().flowing();
        hand.durability = durability;
        is_cancelled(hand).await;
    }
}

#[tokio::test]
async fn a_run_is_cancelled_while_a_slow_sibling_waits_beside_a_loop() {
    #[derive(Debug)]
    struct Hangs;
    #[async_trait]
    impl Node for Hangs {
        async fn run(&self, _: &Cx, _: &State) -> Result<Outcome, NodeError> {
            std::future::pending().await
        }
    }
    is_cancelled(endless().node("hangs", leaf(Hangs)).edge("START", "hangs").flowing()).await;
}

#[tokio::test]
async fn a_run_over_a_long_list_is_cancelled() {
    let hand = Hand::default()
        .channel("n", Reducer::Sum, json!(0))
        .node("each", Each::new(20_000, 1000, leaf(Yields)).work())
        .edge("START", "each");
    is_cancelled(hand).await;
}

#[tokio::test]
async fn limits_end_a_run_of_nodes_that_finish_at_once() {
    let mut hand = endless();
    hand.limits.timeout = Some(Duration::from_millis(20));
    let bench = bench(hand).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, Map::new()).await;
    let ended = bench.ended(&run).await;
    assert_eq!(ended.status, EndStatus::Failed);
    assert_eq!(ended.error.unwrap().message, "the run took longer than `limits.timeout`");
}

#[tokio::test]
async fn a_second_message_displaces_a_run_of_nodes_that_finish_at_once() {
    let bench = bench(endless()).await;
    let (log, first) = moving(&bench, "run_1").await;
    let second = RunId::from("run_2");
    bench.start_as(&log, &second, Map::new(), IfActive::Interrupt).await;
    let ended = bench.ended(&first).await;
    assert_eq!((ended.status, ended.by), (EndStatus::Cancelled, Some(second.clone())));
    bench.engine.cancel(&log, &second).await.unwrap();
    assert_eq!(bench.ended(&second).await.status, EndStatus::Cancelled);
}

#[tokio::test]
async fn other_runs_move_beside_runs_that_never_wait() {
    let mut endless = bench(endless()).await;
    for n in 0..8 {
        moving(&endless, &format!("run_{n}")).await;
    }
    let short = Hand::default().node("one", writes(&[])).edge("START", "one");
    endless.use_graph(short.graph(), b"short").await;
    let (log, run) = (LogId::from("run_short"), RunId::from("run_short"));
    endless.start(&log, &run, Map::new()).await;
    assert_eq!(endless.ended(&run).await.status, EndStatus::Finished);
}

#[tokio::test]
async fn a_run_that_never_waits_is_given_back_when_the_process_ends() {
    let mut bench = bench(endless()).await;
    let (_, run) = moving(&bench, "run_1").await;
    bench.stop().await;
    assert_eq!(bench.engine.stopped(&run).await.unwrap(), None, "it goes on elsewhere");
}

#[tokio::test]
async fn a_lease_is_kept_by_a_run_that_never_waits() {
    let env = Arc::new(SystemEnv::new());
    let journal = Arc::new(MemoryJournal::new(env.clone()));
    let lease = Duration::from_millis(60);
    let graph = Arc::new(endless().graph());
    let (first, second) = (
        Bench::leasing(journal.clone(), env.clone(), graph.clone(), lease).await,
        Bench::leasing(journal, env, graph, lease).await,
    );
    let (log, run) = moving(&first, "run_1").await;
    let resets = first.engine.events(run.clone(), 0).filter(|event| {
        std::future::ready(event.as_ref().is_ok_and(|event| event.name == "stream.reset"))
    });
    tokio::pin!(resets);
    // Four leases long: whoever does not renew is taken over.
    let taken_over = tokio::time::timeout(lease * 4, resets.next()).await;
    assert!(taken_over.is_err(), "the other worker took the log over");
    first.engine.cancel(&log, &run).await.unwrap();
    drop(second);
    assert_eq!(first.ended(&run).await.status, EndStatus::Cancelled);
}

/// Says that it began, then hangs if its run is one of the many.
#[derive(Debug)]
struct OneOfMany;

#[async_trait]
impl Node for OneOfMany {
    async fn run(&self, _: &Cx, state: &State) -> Result<Outcome, NodeError> {
        if state.get("many").is_some_and(|many| *many == json!(true)) {
            std::future::pending::<()>().await;
        }
        Ok(Outcome::write(&"n".into(), json!(1)))
    }
}

#[tokio::test]
async fn an_owner_of_many_runs_leaves_places_to_others() {
    let hand = Hand::default()
        .channel("n", Reducer::Sum, json!(0))
        .channel("many", Reducer::Replace, json!(false))
        .node("work", leaf(OneOfMany))
        .edge("START", "work");
    let limits = Limits { runs: 16, ..Limits::default() };
    let bench = Bench::limited(hand.graph(), limits).await;
    for n in 0..40 {
        let (log, run) = (LogId::from(format!("log_{n}")), RunId::from(format!("run_{n}")));
        bench.start(&log, &run, [("many".to_owned(), json!(true))].into_iter().collect()).await;
    }
    for n in 0..5 {
        let run = RunId::from(format!("other_{n}"));
        let owner = UserId::from("user_2");
        let start = StartRun { owner, ..bench.run(&run, Map::new()) };
        let (log, id) = (LogId::from(run.as_str()), InputId::from(format!("start_{run}")));
        bench.engine.start(&log, &id, start).await.unwrap();
        assert_eq!(bench.ended(&run).await.status, EndStatus::Finished, "{n}");
    }
}
