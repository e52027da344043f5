//! Steps, branches, joins, cycles, subgraphs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::id::{LogId, RunId};
use exile_engine::message::{Message, Role};
use exile_engine::node::{Node, NodeError, Outcome, Work};
use exile_engine::run::context::Cx;
use exile_engine::run::fold::SNAPSHOT_EVERY;
use exile_engine::run::record::{EndStatus, Ended};
use exile_engine::state::{Channel, ChannelType, Channels, Reducer, Scope, State};
use expect_test::{Expect, expect};
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};

use super::lines;
use crate::hand::{Bench, Does, Hand, Inner, leaf, writes};

/// Runs a graph once: how it ended, and its state.
async fn run(hand: Hand) -> (Ended, Map<String, Value>) {
    let bench = Bench::new(hand.graph()).await;
    let (log, id) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &id, Map::new()).await;
    let ended = bench.ended(&id).await;
    let state = bench.engine.state(&log).await.unwrap();
    (ended, state)
}

/// The channel `log` after a run: which node wrote in which order.
async fn check(hand: Hand, expected: &Expect) {
    let (ended, state) = run(hand).await;
    let trace: Vec<&str> =
        state["log"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let error = ended.error.map(|e| format!(" {}", e.message)).unwrap_or_default();
    expected.assert_eq(&format!("{} {:?}{error}", trace.join(" "), ended.status));
}

fn logging() -> Hand {
    Hand::default().channel("log", Reducer::Append, json!([]))
}

fn says(name: &str) -> Work {
    writes(&[("log", json!(name))])
}

#[tokio::test]
async fn a_chain_runs_in_order() {
    let hand = logging().node("a", says("a")).node("b", says("b"));
    let hand = hand.edge("START", "a").edge("a", "b").edge("b", "END");
    check(hand, &expect!["a b Finished"]).await;
}

#[tokio::test]
async fn a_run_is_told_as_events() {
    let hand = logging().node("a", says("a")).node("b", says("b"));
    let bench = Bench::new(hand.edge("START", "a").edge("a", "b").graph()).await;
    let (log, id) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &id, Map::new()).await;
    let events: Vec<_> = bench.engine.events(id, 0).map(Result::unwrap).collect().await;
    expect![[r#"
        1 run.started
        2 step.started ["a:1"]
        3 node.started a:1
        4 node.finished a:1
        5 state.update {"log":{"append":["a"]}}
        6 step.started ["b:1"]
        7 node.started b:1
        8 node.finished b:1
        9 state.update {"log":{"append":["b"]}}
        10 run.finished finished"#]]
    .assert_eq(&lines(&events));
}

#[tokio::test]
async fn branches_merge_in_the_order_of_the_yaml_and_a_join_fires_once() {
    let hand = logging().node("b", says("b")).node("a", says("a")).node("z", says("z"));
    let hand = hand.edge("START", "a").edge("START", "b").join(&["a", "b"], "z");
    check(hand, &expect!["b a z Finished"]).await;
}

#[tokio::test]
async fn a_join_waits_for_a_longer_branch() {
    let hand = logging()
        .node("short", says("short"))
        .node("long", says("long"))
        .node("longer", says("longer"))
        .node("z", says("z"))
        .edge("START", "short")
        .edge("START", "long")
        .edge("long", "longer")
        .join(&["short", "longer"], "z");
    check(hand, &expect!["short long longer z Finished"]).await;
}

#[tokio::test]
async fn a_join_does_not_wait_for_a_branch_that_was_not_taken() {
    let hand = logging()
        .node("a", says("a"))
        .node("yes", says("yes"))
        .node("no", says("no"))
        .node("z", says("z"))
        .edge("START", "a")
        .when("a", "log | length > 5", "yes")
        .otherwise("a", "no")
        .join(&["yes", "no"], "z");
    check(hand, &expect!["a no z Finished"]).await;
}

#[tokio::test]
async fn a_join_behind_a_join_waits_for_it() {
    let hand = logging()
        .node("a", says("a"))
        .node("b", says("b"))
        .node("skipped", says("skipped"))
        .node("first", says("first"))
        .node("second", says("second"))
        .edge("START", "a")
        .edge("START", "b")
        .when("a", "false", "skipped")
        .otherwise("a", "END")
        .join(&["b", "skipped"], "first")
        .join(&["b", "first"], "second");
    check(hand, &expect!["a b first second Finished"]).await;
}

#[tokio::test]
async fn joins_that_wait_only_for_each_other_do_not_wait_forever() {
    let mut hand = logging()
        .node("a", says("a"))
        .node("x", says("x"))
        .node("y", says("y"))
        .edge("START", "a")
        .join(&["a", "y"], "x")
        .join(&["a", "x"], "y");
    hand.limits.steps = Some(3);
    check(
        hand,
        &expect![
            "a x y Failed the graph `hand` reached its `limits.steps: 3`; raise it, or give the cycle an exit"
        ],
    )
    .await;
}

#[tokio::test]
async fn a_cycle_ends_by_its_condition() {
    let hand = logging()
        .node("a", says("a"))
        .node("b", says("b"))
        .edge("START", "a")
        .edge("a", "b")
        .when("b", "log | length < 6", "a")
        .otherwise("b", "END");
    check(hand, &expect!["a b a b a b Finished"]).await;
}

#[tokio::test]
async fn a_cycle_without_an_end_is_stopped_by_its_limit() {
    let mut hand = logging().node("a", says("a")).edge("START", "a").edge("a", "a");
    hand.limits.steps = Some(4);
    check(
        hand,
        &expect![
            "a a a a Failed the graph `hand` reached its `limits.steps: 4`; raise it, or give the cycle an exit"
        ],
    )
    .await;
}

#[tokio::test]
async fn two_writes_to_a_channel_without_a_reducer_fail_the_run() {
    let hand = logging()
        .channel("one", Reducer::Replace, json!(null))
        .node("a", writes(&[("one", json!(1))]))
        .node("b", writes(&[("one", json!(2))]))
        .edge("START", "a")
        .edge("START", "b");
    check(
        hand,
        &expect![" Failed channel `one` was written twice in one step; declare a reducer for it"],
    )
    .await;
}

#[tokio::test]
async fn a_failed_node_lets_its_siblings_finish_and_names_itself() {
    let fails = Does(Box::new(|_| Err(NodeError::Internal("broken on purpose".into()))));
    let hand = logging()
        .node("fails", leaf(fails))
        .node("sibling", says("sibling"))
        .edge("START", "fails")
        .edge("START", "sibling");
    let (ended, _) = run(hand).await;
    let error = ended.error.unwrap();
    assert_eq!(ended.status, EndStatus::Failed);
    assert_eq!(error.node.as_deref(), Some("fails"));
    assert_eq!(error.message, "node `fails`: internal error: broken on purpose");
}

#[tokio::test]
async fn a_panic_in_a_node_fails_the_run_and_nothing_else() {
    let panics = Does(Box::new(|_| panic!("dropped a plate")));
    let (ended, _) = run(logging().node("a", leaf(panics)).edge("START", "a")).await;
    assert_eq!(ended.error.unwrap().message, "node `a`: internal error: dropped a plate");
}

#[tokio::test]
async fn a_graph_inside_a_node_has_steps_of_its_own() {
    let inner = logging().node("x", says("x")).node("y", says("y"));
    let inner = Arc::new(inner.edge("START", "x").edge("x", "y").graph());
    let hand = Hand::default()
        .channel("log", Reducer::Replace, json!([]))
        .node("before", writes(&[("log", json!(["before"]))]))
        .node("inside", Work::Sub(Arc::new(Inner(inner))))
        .edge("START", "before")
        .edge("before", "inside");
    check(hand, &expect!["before x y Finished"]).await;
}

/// Waits on the (paused) clock.
#[derive(Debug)]
struct Waits(Duration);

#[async_trait]
impl Node for Waits {
    async fn run(&self, _: &Cx, _: &State) -> Result<Outcome, NodeError> {
        tokio::time::sleep(self.0).await;
        Ok(Outcome::nothing())
    }
}

#[tokio::test(start_paused = true)]
async fn two_branches_of_300_ms_take_300_ms() {
    let pause = Duration::from_millis(300);
    let hand = logging()
        .node("a", leaf(Waits(pause)))
        .node("b", leaf(Waits(pause)))
        .node("z", says("z"))
        .edge("START", "a")
        .edge("START", "b")
        .join(&["a", "b"], "z");
    #[allow(clippy::disallowed_methods, reason = "the runtime's own paused clock")]
    let began = tokio::time::Instant::now();
    check(hand, &expect!["z Finished"]).await;
    assert!(began.elapsed() < pause * 2, "the branches ran one after the other");
}

#[tokio::test(start_paused = true)]
async fn a_run_longer_than_its_limit_fails() {
    let mut hand = logging().node("a", leaf(Waits(Duration::from_hours(1)))).edge("START", "a");
    hand.limits.timeout = Some(Duration::from_secs(3));
    check(hand, &expect![" Failed the run took longer than `limits.timeout`"]).await;
}

#[tokio::test]
async fn channels_live_as_long_as_the_log() {
    let hand = logging().channel("count", Reducer::Sum, json!(10));
    let hand = hand.node("a", writes(&[("log", json!("turn")), ("count", json!(1))]));
    let bench = Bench::new(hand.edge("START", "a").graph()).await;
    let log = LogId::from("conv_1");
    for turn in ["run_1", "run_2", "run_3"] {
        bench.start(&log, &turn.into(), Map::new()).await;
        bench.engine.wait(&turn.into()).await.unwrap();
    }
    let state = bench.engine.state(&log).await.unwrap();
    assert_eq!(Value::Object(state), json!({ "log": ["turn", "turn", "turn"], "count": 13 }));
    for (n, turn) in ["run_1", "run_2", "run_3"].into_iter().enumerate() {
        let left = bench.engine.state_of(&turn.into()).await.unwrap();
        assert_eq!(left["count"], 11 + n, "as {turn} left it");
    }
}

/// A channel that holds a list.
fn list(initial: &Value) -> Arc<Channels> {
    Arc::new(Channels::new(vec![Channel {
        name: "x".into(),
        kind: ChannelType::Array,
        reduce: Reducer::Append,
        initial: Arc::new(initial.clone()),
        scope: Scope::Log,
    }]))
}

#[tokio::test]
async fn a_value_that_a_changed_type_no_longer_admits_gives_way_to_the_default() {
    let text = Hand::default().channel("x", Reducer::Replace, json!(null));
    let mut bench =
        Bench::new(text.node("a", writes(&[("x", json!("text"))])).edge("START", "a").graph())
            .await;
    let log = LogId::from("conv_1");
    bench.start(&log, &"run_1".into(), Map::new()).await;
    bench.engine.wait(&"run_1".into()).await.unwrap();
    let graph = Hand::default().channel("x", Reducer::Append, json!([]));
    let mut graph = graph.node("a", writes(&[("x", json!([2]))])).edge("START", "a").graph();
    graph.channels = list(&json!([1]));
    bench.use_graph(graph, b"changed").await;
    bench.start(&log, &"run_2".into(), Map::new()).await;
    assert_eq!(bench.ended(&"run_2".into()).await.status, EndStatus::Finished);
    assert_eq!(bench.engine.state(&log).await.unwrap()["x"], json!([1, 2]));
}

#[tokio::test]
async fn a_long_log_is_read_from_its_newest_snapshot_and_tells_the_same() {
    let hand = logging()
        .channel("count", Reducer::Sum, json!(0))
        .channel("messages", Reducer::Messages, json!([]))
        .channel("last", Reducer::Replace, json!(null))
        .node("a", writes(&[("log", json!("a")), ("count", json!(1)), ("last", json!({"n": 1}))]));
    let bench = Bench::new(hand.edge("START", "a").graph()).await;
    let log = LogId::from("conv_1");
    let turns = usize::try_from(SNAPSHOT_EVERY).unwrap();
    for turn in 0..turns {
        let run = RunId::from(format!("run_{turn}"));
        let message = Message::text(format!("msg_{turn}").as_str().into(), Role::User, "hi");
        let input = [("messages".to_owned(), json!([message]))].into_iter().collect();
        bench.start(&log, &run, input).await;
        bench.ended(&run).await;
    }
    let loaded = bench.journal.load(&log, None).await.unwrap().records.len();
    let all = bench.journal.read(&log, 0, usize::MAX).await.unwrap().records.len();
    assert!(all >= 3 * turns && loaded < turns * 2, "{loaded} of {all} records were read");
    let state = bench.engine.state(&log).await.unwrap();
    assert_eq!(state["count"], turns);
    assert_eq!(state["log"].as_array().unwrap().len(), turns);
    assert_eq!(state["last"], json!({ "n": 1 }));
    let said = state["messages"].as_array().unwrap();
    assert_eq!((said.len(), &said[0]["content"]), (turns, &json!("hi")));
    // A run from before the snapshot is still told as it ended.
    let early = bench.engine.state_of(&"run_2".into()).await.unwrap();
    assert_eq!((&early["count"], early["messages"].as_array().unwrap().len()), (&json!(3), 3));
}
