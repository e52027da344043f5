//! The dataflow schedule: each task is a step of its own.

use std::time::Duration;

use async_trait::async_trait;
use exile_engine::graph::Needs;
use exile_engine::id::{LogId, RunId};
use exile_engine::node::{Node, NodeError, Outcome, Work};
use exile_engine::run::context::Cx;
use exile_engine::run::event::Event;
use exile_engine::run::record::{EndStatus, Ended};
use exile_engine::state::{Reducer, State};
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};

use crate::hand::{Bench, Hand, leaf};

/// Notes itself after a while, with what it read at its start.
#[derive(Debug)]
struct Late {
    name: &'static str,
    secs: u64,
    fails: bool,
}

#[async_trait]
impl Node for Late {
    async fn run(&self, _: &Cx, state: &State) -> Result<Outcome, NodeError> {
        let read = state.get("log").map_or(0, |log| log.to_json().as_array().map_or(0, Vec::len));
        tokio::time::sleep(Duration::from_secs(self.secs)).await;
        if self.fails {
            return Err(NodeError::Limit(self.name.into()));
        }
        Ok(Outcome::write(&"log".into(), json!(format!("{}{read}", self.name))))
    }
}

fn late(name: &'static str, secs: u64) -> Work {
    leaf(Late { name, secs, fails: false })
}

fn flowing() -> Hand {
    Hand::default().channel("log", Reducer::Append, json!([])).flowing()
}

async fn run(hand: Hand) -> (Ended, Value, Duration) {
    let bench = Bench::new(hand.graph()).await;
    let (log, id) = (LogId::from("run_1"), RunId::from("run_1"));
    let began = tokio_now();
    bench.start(&log, &id, Map::new()).await;
    let ended = bench.ended(&id).await;
    let took = tokio_now().saturating_sub(began);
    (ended, bench.engine.state(&log).await.unwrap()["log"].clone(), took)
}

/// The test's clock, which passes only when nothing else can happen.
#[allow(clippy::disallowed_methods, reason = "the paused clock of a test")]
fn tokio_now() -> Duration {
    static BEGAN: std::sync::OnceLock<tokio::time::Instant> = std::sync::OnceLock::new();
    BEGAN.get_or_init(tokio::time::Instant::now).elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_slow_sibling_does_not_delay_a_fast_branch() {
    let hand = || {
        flowing()
            .node("slow", late("slow", 10))
            .node("fast", late("fast", 1))
            .node("then", late("then", 1))
            .node("last", late("last", 1))
            .edge("START", "slow")
            .edge("START", "fast")
            .edge("fast", "then")
            .edge("then", "last")
    };
    let (ended, log, took) = run(hand()).await;
    assert_eq!(ended.status, EndStatus::Finished, "{ended:?}");
    // Each reads what was written when it began: the slow one nothing.
    assert_eq!(log, json!(["fast0", "then1", "last2", "slow0"]));
    assert_eq!(took.as_secs(), 10);
    let mut stepwise = hand();
    stepwise.schedule = exile_engine::graph::Schedule::Superstep;
    let (_, log, took) = run(stepwise).await;
    assert_eq!(log, json!(["slow0", "fast0", "then2", "last3"]), "under supersteps it does");
    assert_eq!(took.as_secs(), 12);
}

#[tokio::test(start_paused = true)]
async fn joins_wait_for_all_or_count_and_absorb_what_comes_late() {
    for (needs, log) in [
        (Needs::All, json!(["a0", "b1", "c2", "end3"])),
        (Needs::Count(1), json!(["a0", "end1", "b1", "c3"])),
        (Needs::Count(2), json!(["a0", "b1", "end2", "c2"])),
    ] {
        // b and c begin one after another, so that each reads what came before it.
        let hand = flowing()
            .node("a", late("a", 1))
            .node("b", late("b", 2))
            .node("c", late("c", 2))
            .node("end", late("end", 0))
            .edge("START", "a")
            .edge("a", "b")
            .edge("b", "c")
            .join_of(&["a", "b", "c"], "end", needs);
        let (ended, got, _) = run(hand).await;
        assert_eq!(ended.status, EndStatus::Finished, "{needs:?}: {ended:?}");
        assert_eq!(got, log, "{needs:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_that_can_get_no_more_fails_the_run() {
    for hand in [flowing(), Hand::default().channel("log", Reducer::Append, json!([]))] {
        let hand = hand
            .node("a", late("a", 1))
            .node("b", late("b", 2))
            .node("end", late("end", 0))
            .edge("START", "a")
            .when("START", "log | length > 9", "b")
            .otherwise("START", "END")
            .join_of(&["a", "b"], "end", Needs::Count(2));
        let (ended, _, _) = run(hand).await;
        assert_eq!(ended.error.unwrap().code, "join_starved");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_lets_its_siblings_finish_and_begins_nothing_new() {
    let hand = flowing()
        .node("fails", leaf(Late { name: "fails", secs: 1, fails: true }))
        .node("slow", late("slow", 5))
        .node("after", late("after", 1))
        .edge("START", "fails")
        .edge("START", "slow")
        .edge("slow", "after");
    let bench = Bench::new(hand.graph()).await;
    let (log, id) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &id, Map::new()).await;
    let ended = bench.ended(&id).await;
    assert_eq!(
        (ended.status, ended.error.unwrap().node.as_deref()),
        (EndStatus::Failed, Some("fails"))
    );
    let events: Vec<Event> = bench.engine.history(id, 0).map(Result::unwrap).collect().await;
    let finished = |node: &str| {
        events.iter().filter(|e| e.name == "node.finished" && e.data["node"] == node).count()
    };
    assert_eq!((finished("slow"), finished("after")), (1, 0));
}
