//! Questions whose time runs out.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::id::{LogId, RunId};
use exile_engine::node::{Node, NodeError, Outcome};
use exile_engine::run::context::{Ask, Cx, Reached};
use exile_engine::run::record::{AskReason, EndStatus, Fact, Question};
use exile_engine::state::{Reducer, State};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::complaints::House;
use crate::hand::{Hand, leaf};
use crate::scripted::Line;

/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_millis(50);

/// Asks a person, and writes the answer.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) expires: Option<Duration>,
}

#[async_trait]
impl Node for Asking {
    async fn run(&self, cx: &Cx, _: &State) -> Result<Outcome, NodeError> {
        let question = Question {
            reason: AskReason::Human,
            text: "Well?".into(),
            choices: Vec::new(),
            schema: None,
            tool: None,
            args: None,
        };
        let otherwise = Some(json!("nobody came"));
        let ask = Ask { call: "ask".into(), question, expires: self.expires, otherwise };
        Ok(match cx.ask(ask).await? {
            Reached::Asked(id) => Outcome::Suspend(vec![id]),
            Reached::Done(given) => Outcome::write(&"answer".into(), given.value),
        })
    }
}

/// Ends when it is told to.
#[derive(Debug)]
struct Held(Arc<Notify>);

#[async_trait]
impl Node for Held {
    async fn run(&self, _: &Cx, _: &State) -> Result<Outcome, NodeError> {
        self.0.notified().await;
        Ok(Outcome::write(&"held".into(), json!(true)))
    }
}

#[tokio::test]
async fn a_question_expires_while_a_sibling_goes_on() {
    let free = Arc::new(Notify::new());
    let mut hand = Hand::default()
        .channel("answer", Reducer::Replace, Value::Null)
        .channel("held", Reducer::Replace, json!(false))
        .node("impatient", leaf(Asking { expires: Some(PATIENCE) }))
        .node("held", leaf(Held(free.clone())));
    for node in ["impatient", "held"] {
        hand = hand.edge("START", node).edge(node, "END");
    }
    let house = House::new(vec![Line::Say("")], Vec::new());
    let bench = house.engine(hand).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, Map::new()).await;
    house.until(&log, |fact| matches!(fact, Fact::Asked(_)).then_some(())).await;
    house.env.advance(PATIENCE);
    let done = |fact: &Fact| matches!(fact, Fact::Done(done) if done.error.is_none()).then_some(());
    house.until(&log, done).await;
    free.notify_one();
    let ended = bench.ended(&run).await;
    assert_eq!(ended.status, EndStatus::Finished, "{:?}", ended.error);
    let state = Value::Object(bench.engine.state(&log).await.unwrap());
    assert_eq!(state, json!({ "answer": "nobody came", "held": true }));
}
