//! Runs of one log that displace one another, and what is known of the last one once a log is read
//! from its snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use exile_engine::env::{Env, StepEnv};
use exile_engine::id::{InputId, LogId, RunId, UserId};
use exile_engine::journal::{EditRun, IfActive, Input, Journal, MemoryJournal};
use exile_engine::message::{Message, Role};
use exile_engine::model::Models;
use exile_engine::run::fold::{LogState, Programs, SNAPSHOT_EVERY};
use exile_engine::run::record::{EndStatus, Fact, LastRun};
use exile_engine::state::Reducer;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::{Asks, talk, user};
use crate::hand::{Bench, leaf, writes};
use crate::scripted::{Line, Scripted};

/// Goes round so often, then asks a model that hangs until somebody has answered before it.
async fn bench(rounds: u32) -> (Bench, Arc<Notify>, Arc<Scripted>) {
    let hangs = Arc::new(Notify::new());
    let script = vec![Line::Hang("", hangs.clone()), Line::Say("done")];
    let model = Scripted::new(script);
    let mut hand = talk()
        .channel("count", Reducer::Sum, json!(0))
        .node("round", writes(&[("count", json!(1))]))
        .node("ask", leaf(Asks))
        .edge("START", "round")
        .when("round", &format!("count < {rounds}"), "round")
        .otherwise("round", "ask");
    let env: Arc<dyn Env> = Arc::new(StepEnv::new());
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(env.clone()));
    let models = Models::new(vec![model.clone()], BTreeMap::new());
    hand.limits.steps = Some(rounds + 10);
    (Bench::over(journal, env, hand.graph(), models).await, hangs, model)
}

/// Words before which somebody has answered.
fn answered() -> Map<String, Value> {
    let answer = Message::text("msg_a".into(), Role::Assistant, "fine");
    let message = Message::text("msg_v".into(), Role::User, "again");
    [("messages".to_owned(), json!([answer, message]))].into_iter().collect()
}

fn ids<const N: usize>(names: [&str; N]) -> [RunId; N] {
    names.map(RunId::from)
}

#[tokio::test]
async fn a_rollback_leaves_nothing_of_any_run_that_it_displaced() {
    let (bench, hangs, model) = bench(3).await;
    let log = LogId::from("conv_1");
    let [first, queued, last] = ids(["run_1", "run_2", "run_3"]);
    bench.start(&log, &first, user("one")).await;
    hangs.notified().await;
    bench.start(&log, &queued, user("two")).await;
    bench.start_as(&log, &last, answered(), IfActive::Rollback).await;
    for (run, status) in [
        (&first, EndStatus::Cancelled),
        (&queued, EndStatus::Cancelled),
        (&last, EndStatus::Finished),
    ] {
        assert_eq!(bench.ended(run).await.status, status, "{run}");
    }
    assert_eq!(bench.ended(&queued).await.by, Some(last));
    let state = bench.engine.state(&log).await.unwrap();
    let said: Vec<_> = state["messages"].as_array().unwrap().iter().collect();
    assert_eq!((&state["count"], said.len()), (&json!(3), 3), "{said:?}");
    assert_eq!(model.calls(), 2, "the run in between did not begin to ask");
}

#[tokio::test]
async fn a_log_that_is_read_from_its_snapshot_knows_which_run_ended_last() {
    let (bench, hangs, _) = bench(SNAPSHOT_EVERY + 5).await;
    let log = LogId::from("conv_1");
    let [first, last] = ids(["run_1", "run_2"]);
    bench.start(&log, &first, user("one")).await;
    hangs.notified().await;
    bench.start_as(&log, &last, answered(), IfActive::Rollback).await;
    bench.ended(&last).await;
    let all = bench.journal.read(&log, 0, usize::MAX).await.unwrap().records;
    let snapshot = all.iter().find(|r| matches!(r.record.fact, Fact::Snapshot { .. })).unwrap();
    // What a process sees that takes the log over there.
    let history = bench.journal.load(&log, Some(snapshot.number)).await.unwrap();
    assert_eq!(history.records.len(), 1);
    let messages = history.messages;
    let state = LogState::replay(&history.records, messages, &Programs::default()).unwrap();
    assert_eq!(state.last, Some(LastRun { run: first, before: 0, by: Some(last) }));
}

#[tokio::test]
async fn what_a_log_that_is_read_from_its_snapshot_holds_is_changed_by_hand() {
    let (bench, hangs, _) = bench(SNAPSHOT_EVERY + 5).await;
    let log = LogId::from("conv_1");
    let [run, next] = ids(["run_1", "run_2"]);
    bench.start(&log, &run, user("one")).await;
    hangs.notified().await;
    bench.engine.cancel(&log, &run).await.unwrap();
    bench.ended(&run).await;
    let message = Message::text("msg_by_hand".into(), Role::User, "by hand");
    let writes = [("messages".to_owned(), json!([message]))].into_iter().collect();
    let by = UserId::from("user_1");
    let edit = EditRun { run, path: String::new(), as_node: None, writes, by };
    bench.engine.send(&log, &InputId::from("edit"), &Input::Edit(edit)).await.unwrap();
    bench.start(&log, &next, answered()).await;
    bench.ended(&next).await;
    let state = bench.engine.state(&log).await.unwrap();
    let said = state["messages"].as_array().unwrap();
    assert!(said.iter().any(|message| message["content"] == "by hand"), "{said:?}");
}
