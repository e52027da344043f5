//! Cancelling, and what a run that was cut short leaves behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use exile_engine::env::{Env, StepEnv};
use exile_engine::id::{LogId, RunId};
use exile_engine::journal::{Journal, MemoryJournal};
use exile_engine::message::{Message, pending_tool_calls};
use exile_engine::model::Models;
use exile_engine::run::record::EndStatus;
use exile_engine::tool::{Effect, ToolRegistry};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Asks, talk, tool_loop, user};
use crate::hand::{Bench, Hand, leaf};
use crate::scripted::{Counting, Line, Scripted, Tools};

async fn bench(model: Arc<Scripted>, tools: Vec<Arc<Counting>>) -> Bench {
    bench_of(tool_loop(), model, tools).await
}

async fn bench_of(hand: Hand, model: Arc<Scripted>, tools: Vec<Arc<Counting>>) -> Bench {
    let env: Arc<dyn Env> = Arc::new(StepEnv::new());
    let store: Arc<dyn Journal> = Arc::new(MemoryJournal::new(env.clone()));
    let models = Models::new(vec![model], BTreeMap::new());
    let registry = Arc::new(ToolRegistry::new(&[&Tools(tools)]).unwrap());
    Bench::with(store, env, hand.graph(), models, registry).await
}

fn messages(state: &serde_json::Map<String, Value>) -> Vec<Message> {
    let items = state["messages"].as_array().unwrap();
    items.iter().map(|m| Message::deserialize(m).unwrap()).collect()
}

#[tokio::test]
async fn cancel_drops_a_model_call_and_calls_nothing_more() {
    let hangs = Arc::new(Notify::new());
    let model = Scripted::new(vec![Line::Hang("thinking ", hangs.clone())]);
    let bench = bench(model.clone(), Vec::new()).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, user("go")).await;
    hangs.notified().await;
    bench.engine.cancel(&log, &run).await.unwrap();
    let ended = bench.ended(&run).await;
    assert_eq!(ended.status, EndStatus::Cancelled);
    assert_eq!(model.calls(), 1);
}

#[tokio::test]
async fn every_unanswered_tool_call_gets_an_answer() {
    let hangs = Arc::new(Notify::new());
    let calls = vec![("c1", "quick", json!({})), ("c2", "slow", json!({}))];
    let model = Scripted::new(vec![Line::Call(calls), Line::Say("second turn")]);
    let quick = Counting::new("quick", Effect::Pure);
    let slow = Counting::hanging("slow", Effect::Idempotent, hangs.clone());
    let bench = bench(model.clone(), vec![quick, slow]).await;
    let log = LogId::from("conv_1");
    bench.start(&log, &"run_1".into(), user("go")).await;
    hangs.notified().await;
    bench.engine.cancel(&log, &"run_1".into()).await.unwrap();
    bench.engine.wait(&"run_1".into()).await.unwrap();

    let kept = messages(&bench.engine.state(&log).await.unwrap());
    let list: Vec<_> = kept.iter().cloned().map(Arc::new).collect();
    assert!(pending_tool_calls(list.iter()).is_empty(), "{kept:?}");
    let answer = |id: &str| {
        let answers = |m: &&Message| m.tool_call_id.as_deref() == Some(id);
        kept.iter().find(answers).unwrap().content.clone()
    };
    assert_eq!(answer("c1"), "{}");
    assert!(answer("c2").contains("outcome_unknown"), "{}", answer("c2"));

    let again = Message::text("msg_2".into(), exile_engine::message::Role::User, "and now?");
    let input = [("messages".to_owned(), json!([again]))].into_iter().collect();
    bench.start(&log, &"run_2".into(), input).await;
    let ended = bench.ended(&"run_2".into()).await;
    assert_eq!(ended.status, EndStatus::Finished);
    let sent = model.asked.lock().unwrap().last().unwrap().messages.clone();
    let roles: Vec<&str> = sent.iter().map(|m| m.role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "tool", "user"]);
}

#[tokio::test]
async fn a_run_that_finishes_without_making_a_call_answers_it_too() {
    let model = Scripted::new(vec![Line::Call(vec![("c1", "quick", json!({}))]), Line::Say("ok")]);
    let quick = Counting::new("quick", Effect::Pure);
    let hand = talk().node("ask", leaf(Asks)).edge("START", "ask").edge("ask", "END");
    let bench = bench_of(hand, model.clone(), vec![quick.clone()]).await;
    let log = LogId::from("conv_1");
    for run in ["run_1", "run_2"] {
        bench.start(&log, &run.into(), user("go")).await;
        let ended = bench.ended(&run.into()).await;
        assert_eq!(ended.status, EndStatus::Finished);
    }
    let sent = model.asked.lock().unwrap().last().unwrap().messages.clone();
    let answer = sent.iter().find(|m| m.tool_call_id.as_deref() == Some("c1")).unwrap();
    assert!(answer.content.contains("not_run"), "{}", answer.content);
    assert!(quick.keys.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_queued_run_can_be_cancelled_before_it_begins() {
    let hangs = Arc::new(Notify::new());
    let model = Scripted::new(vec![Line::Hang("", hangs.clone())]);
    let bench = bench(model.clone(), Vec::new()).await;
    let log = LogId::from("conv_1");
    bench.start(&log, &"run_1".into(), user("go")).await;
    hangs.notified().await;
    bench.start(&log, &"run_2".into(), serde_json::Map::new()).await;
    bench.engine.cancel(&log, &"run_2".into()).await.unwrap();
    bench.engine.cancel(&log, &"run_1".into()).await.unwrap();
    for run in ["run_1", "run_2"] {
        let ended = bench.ended(&run.into()).await;
        assert_eq!(ended.status, EndStatus::Cancelled, "{run}");
    }
    assert_eq!(model.calls(), 1, "the second run never asked");
}

#[tokio::test]
async fn a_run_that_has_ended_is_not_changed_by_a_late_cancel() {
    let bench = bench(Scripted::new(vec![Line::Say("done")]), Vec::new()).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, user("go")).await;
    assert_eq!(bench.ended(&run).await.status, EndStatus::Finished);
    bench.engine.cancel(&log, &run).await.unwrap();
    while !bench.journal.inbox(&log).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.ended(&run).await.status, EndStatus::Finished);
}

#[tokio::test]
async fn a_wrong_input_fails_the_run_and_keeps_the_log_usable() {
    let bench = bench(Scripted::new(vec![Line::Say("hello")]), Vec::new()).await;
    let log = LogId::from("conv_1");
    let wrong = [("nowhere".to_owned(), json!(1))].into_iter().collect();
    bench.start(&log, &"run_1".into(), wrong).await;
    let ended = bench.ended(&"run_1".into()).await;
    assert_eq!(ended.error.unwrap().message, "channel `nowhere` is not declared");
    bench.start(&log, &"run_2".into(), user("hi")).await;
    assert_eq!(bench.ended(&"run_2".into()).await.status, EndStatus::Finished);
}

/// A store that takes no renewal: its disk is full.
struct RenewsNothing {
    store: MemoryJournal,
    refused: Notify,
}

crate::hand::journal_over!(RenewsNothing, store, renew: |this, _lease, _by| {
    this.refused.notify_one();
    Err(JournalError::Full("no room".into()))
});

#[tokio::test(start_paused = true)]
async fn a_run_outlasts_a_store_that_has_no_room_for_its_renewals() {
    let env: Arc<dyn Env> = Arc::new(StepEnv::new());
    let refused = Notify::new();
    let store = Arc::new(RenewsNothing { store: MemoryJournal::new(env.clone()), refused });
    let model = Scripted::new(vec![Line::Hang("thinking ", Arc::new(Notify::new()))]);
    let models = Models::new(vec![model.clone()], BTreeMap::new());
    let tools = Arc::new(ToolRegistry::new(&[]).unwrap());
    let bench = Bench::with(store.clone(), env, tool_loop().graph(), models, tools).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, user("go")).await;
    for _ in 0..3 {
        let renewal =
            tokio::time::timeout(std::time::Duration::from_mins(1), store.refused.notified());
        assert!(renewal.await.is_ok(), "the run is no longer driven");
    }
    bench.engine.cancel(&log, &run).await.unwrap();
    let ended = bench.ended(&run).await;
    assert_eq!((ended.status, model.calls()), (EndStatus::Cancelled, 1));
}
