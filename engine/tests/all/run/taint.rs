//! Text from elsewhere that may steer a model: from then on a person agrees to each `unsafe` call
//! of the log, however the call comes about, in whatever run, and whoever drives it.

use async_trait::async_trait;
use exile_engine::id::{LogId, RunId};
use exile_engine::message::ToolCall;
use exile_engine::node::{Node, NodeError, Outcome, Work};
use exile_engine::run::context::{Cx, Reached};
use exile_engine::run::engine::Stopped;
use exile_engine::run::record::{AskReason, Durability, EndStatus};
use exile_engine::state::{Reducer, State};
use exile_engine::tool::Effect;
use serde_json::{Map, json};

use super::complaints::House;
use crate::hand::{Bench, Each, Hand, leaf, writes};
use crate::scripted::{Counting, Line};

/// How a node makes its call.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// For the value itself, as a `tool` node does.
    Value,
    /// As a model asked for it.
    Asked,
}

/// Calls one tool, which the graph's author has not put under approval.
#[derive(Debug)]
struct Calls(&'static str, Way);

#[async_trait]
impl Node for Calls {
    async fn run(&self, cx: &Cx, _: &State) -> Result<Outcome, NodeError> {
        let Self(tool, way) = *self;
        let asked = match way {
            Way::Value => match cx.call_tool_value("c", tool, json!({ "n": 1 }), false).await {
                Reached::Asked(id) => Some(id),
                Reached::Done(_) => None,
            },
            Way::Asked => {
                let (id, arguments) = ("call_1".to_owned(), "{\"n\": 1}".to_owned());
                let call = ToolCall { id, name: tool.into(), arguments, opaque: None };
                match cx.call_tool(&call, false).await {
                    Reached::Asked(id) => Some(id),
                    Reached::Done(_) => None,
                }
            }
        };
        Ok(asked.map_or_else(Outcome::nothing, |id| Outcome::Suspend(vec![id])))
    }
}

/// A run that looks, and runs after it that pay.
fn hand(look: Work, pay: Way) -> Hand {
    Hand::default()
        .channel("turn", Reducer::Sum, json!(0))
        .channel("log", Reducer::Append, json!([]))
        .node("look", look)
        .node("looked", writes(&[("turn", json!(1))]))
        .node("pay", leaf(Calls("pay", pay)))
        .when("START", "turn == 0", "look")
        .otherwise("START", "pay")
        .edge("look", "looked")
}

async fn pays(bench: &Bench, log: &LogId, run: &str) -> Stopped {
    let run = RunId::from(run);
    bench.start(log, &run, Map::new()).await;
    bench.engine.wait(&run).await.unwrap()
}

#[tokio::test]
async fn a_person_agrees_to_unsafe_calls_once_something_was_looked_at() {
    let looks: [fn() -> Work; 3] = [
        || leaf(Calls("look", Way::Value)),
        || leaf(Calls("look", Way::Asked)),
        || Each::new(3, 2, leaf(Calls("look", Way::Value))).work(),
    ];
    let mut cases = Vec::new();
    for look in looks {
        for pay in [Way::Value, Way::Asked] {
            cases.push((look, pay, Durability::Sync, false));
            cases.push((look, pay, Durability::Exit, true));
        }
    }
    for (look, pay, durability, dies) in cases {
        let paid = Counting::new("pay", Effect::Unsafe);
        let house = House::new(vec![Line::Say("")], vec![Counting::tainting("look"), paid.clone()]);
        let graph = || {
            let mut hand = hand(look(), pay);
            hand.durability = durability;
            hand
        };
        let mut bench = house.engine(graph()).await;
        let log = LogId::from("log_1");
        bench.start(&log, &RunId::from("run_1"), Map::new()).await;
        assert_eq!(bench.ended(&RunId::from("run_1")).await.status, EndStatus::Finished);
        if dies {
            house.dies(bench);
            bench = house.engine(graph()).await;
        }
        let Stopped::Waiting(waiting) = pays(&bench, &log, "run_2").await else {
            panic!("{pay:?} was made, and nobody was asked");
        };
        let question = &waiting.asked[0].question;
        assert_eq!(
            (question.reason, question.tool.as_deref(), question.args.as_ref()),
            (AskReason::Approval, Some("pay"), Some(&json!({ "n": 1 })))
        );
        assert!(paid.keys.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn nobody_is_asked_where_nothing_was_looked_at() {
    for tool in ["plain", "fails"] {
        for pay in [Way::Value, Way::Asked] {
            let tools = vec![
                Counting::new("plain", Effect::Pure),
                Counting::failing("fails", Effect::Pure),
                Counting::new("pay", Effect::Unsafe),
            ];
            let house = House::new(vec![Line::Say("")], tools);
            let bench = house.engine(hand(leaf(Calls(tool, Way::Value)), pay)).await;
            let log = LogId::from("log_1");
            for run in ["run_1", "run_2"] {
                assert!(
                    matches!(pays(&bench, &log, run).await, Stopped::Ended(_)),
                    "{tool} {pay:?}"
                );
            }
        }
    }
}
