//! Runs that need a person: what becomes of a call that may or may not have happened.

use std::sync::Arc;

use async_trait::async_trait;
use exile_engine::id::{InputId, LogId, RunId, UserId};
use exile_engine::journal::{Input, Resolution, ResolveRun, ResumeRun};
use exile_engine::message::pending_tool_calls;
use exile_engine::node::{Node, NodeError, Outcome};
use exile_engine::run::context::{Cx, Reached};
use exile_engine::run::engine::Stopped;
use exile_engine::run::record::{EndStatus, Fact};
use exile_engine::state::State;
use exile_engine::tool::Effect;
use serde_json::json;
use tokio::sync::Notify;

use super::complaints::House;
use super::{Asks, talk, tool_loop, user};
use crate::hand::leaf;
use crate::scripted::{Counting, Line};

/// A run whose process dies in an `unsafe` call; then a person says what became of it. What the
/// model is told of the call, and the keys under which it was made.
async fn resolved(action: Resolution) -> (String, Vec<String>) {
    let hangs = Arc::new(Notify::new());
    let tool = Counting::hanging_once("pay", Effect::Unsafe, hangs.clone());
    let script = vec![Line::Call(vec![("c1", "pay", json!({ "n": 7 }))]), Line::Say("all done")];
    let house = House::new(script, vec![tool.clone()]);
    let bench = house.engine(tool_loop()).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, user("go")).await;
    hangs.notified().await;
    house.dies(bench);

    let bench = house.engine(tool_loop()).await;
    let Stopped::Waiting(waiting) = bench.engine.wait(&run).await.unwrap() else {
        panic!("it went on");
    };
    assert_eq!(waiting.attention.unwrap().code, "open_call");
    let call = format!("{}#{}", waiting.open[0].task, waiting.open[0].call);
    let by = UserId::from("user_1");
    let resolve = ResolveRun { run: run.clone(), call: Some(call), action, by };
    bench.engine.send(&log, &InputId::from("resolve"), &Input::Resolve(resolve)).await.unwrap();
    let ended = house
        .until(&log, |fact| match fact {
            Fact::Ended(ended) => Some(ended.clone()),
            _ => None,
        })
        .await;
    assert_eq!(ended.status, EndStatus::Finished, "{ended:?}");
    let state = bench.engine.state(&log).await.unwrap();
    let messages = state["messages"].as_array().unwrap();
    let told = messages.iter().find(|m| m["role"] == "tool").unwrap();
    let keys = tool.keys.lock().unwrap().clone();
    (told["content"].as_str().unwrap().to_owned(), keys)
}

#[tokio::test]
async fn an_open_call_is_done_made_again_or_failed_as_a_person_says() {
    let (told, keys) = resolved(Resolution::Done { output: json!({ "paid": 7 }) }).await;
    assert_eq!((told.as_str(), keys.len()), (r#"{"paid":7}"#, 1));

    let (told, keys) = resolved(Resolution::Retry).await;
    assert_eq!((told.as_str(), keys.len()), (r#"{"n":7}"#, 2));
    assert_eq!(keys[0], keys[1], "it is made again under its key");

    let (told, keys) = resolved(Resolution::Failed { message: "the bank refused it".into() }).await;
    assert!(told.contains("the bank refused it"), "{told}");
    assert_eq!(keys.len(), 1);
}

/// Makes the pending calls once a person agreed.
#[derive(Debug)]
struct AsksFirst;

#[async_trait]
impl Node for AsksFirst {
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError> {
        let calls = pending_tool_calls(state.messages("messages").iter());
        Ok(match cx.call_tool(&calls[0], true).await {
            Reached::Done(message) => Outcome::write(&"messages".into(), json!([message])),
            Reached::Asked(id) => Outcome::Suspend(vec![id]),
        })
    }
}

#[tokio::test]
async fn whatever_becomes_of_a_call_that_a_person_changed_its_answer_says_what_it_was_made_with() {
    let call = || vec![("c1", "pay", json!({ "n": 7 }))];
    for cancelled in [false, true] {
        let hangs = Arc::new(Notify::new());
        let tool = Counting::hanging("pay", Effect::Unsafe, hangs.clone());
        let house = House::new(vec![Line::Call(call()), Line::Say("done")], vec![tool]);
        let hand = || {
            let asks = talk().node("ask", leaf(Asks)).node("pay", leaf(AsksFirst));
            asks.edge("START", "ask").when("ask", "messages[-1].tool_calls is defined", "pay")
        };
        let bench = house.engine(hand()).await;
        let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
        bench.start(&log, &run, user("go")).await;
        let Stopped::Waiting(waiting) = bench.engine.wait(&run).await.unwrap() else {
            panic!("nobody was asked");
        };
        let by = || UserId::from("user_1");
        let answers = [(waiting.asked[0].id.clone(), json!({ "edit": { "n": 8 } }))].into();
        let resume = ResumeRun { run: run.clone(), answers, by: by(), message: None };
        let (id, resume) = (InputId::from("edit"), Input::Resume(Box::new(resume)));
        bench.engine.send(&log, &id, &resume).await.unwrap();
        hangs.notified().await;
        let bench = if cancelled {
            bench.engine.cancel(&log, &run).await.unwrap();
            bench
        } else {
            house.dies(bench);
            let bench = house.engine(hand()).await;
            let Stopped::Waiting(waiting) = bench.engine.wait(&run).await.unwrap() else {
                panic!("it went on");
            };
            let call = Some(format!("{}#{}", waiting.open[0].task, waiting.open[0].call));
            let action = Resolution::Done { output: json!("paid") };
            let resolve = ResolveRun { run: run.clone(), call, action, by: by() };
            let id = InputId::from("resolve");
            bench.engine.send(&log, &id, &Input::Resolve(resolve)).await.unwrap();
            bench
        };
        house.until(&log, |fact| matches!(fact, Fact::Ended(_)).then_some(())).await;
        let state = bench.engine.state(&log).await.unwrap();
        let messages = state["messages"].as_array().unwrap();
        let told = messages.iter().find(|m| m["role"] == "tool").unwrap();
        assert_eq!(told["edited_arguments"], json!({ "n": 8 }), "cancelled: {cancelled}: {told}");
    }
}
