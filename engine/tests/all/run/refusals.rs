//! Messages that a provider refuses: the turn fails, and the turns after it are answered, over
//! snapshots and over the end of the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::env::{Env, StepEnv};
use exile_engine::graph::{OnError, Policy};
use exile_engine::id::{LogId, RunId};
use exile_engine::journal::{Journal, MemoryJournal};
use exile_engine::message::{Message, Role, ToolCall};
use exile_engine::model::{
    DeltaSender, Finish, ModelReply, ModelRequest, Models, Provider, ProviderError, ProviderFault,
};
use exile_engine::run::fold::{LogState, Programs, SNAPSHOT_EVERY};
use exile_engine::run::record::{EndStatus, Fact};
use exile_engine::state::Reducer;
use exile_engine::tool::{Effect, ToolRegistry};
use serde_json::{Map, Value, json};

use super::{Asks, talk, tool_loop};
use crate::hand::{Bench, Hand, leaf, writes};
use crate::scripted::{Counting, Tools};

/// Refuses whatever holds the word "forbidden", in its own way; calls `look` when it is told to.
struct Picky {
    refuses: Refuses,
    asked: Mutex<Vec<ModelRequest>>,
}

/// How it refuses.
#[derive(Clone)]
enum Refuses {
    With(ProviderFault),
    /// With an answer that its filter left nothing of.
    Silently,
}

#[async_trait]
impl Provider for Picky {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn retries(&self) -> u32 {
        0
    }

    fn ready(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn complete(&self, _: &ModelRequest) -> Result<ModelReply, ProviderError> {
        unreachable!("runs stream")
    }

    async fn stream(
        &self,
        request: &ModelRequest,
        _: &DeltaSender,
    ) -> Result<ModelReply, ProviderError> {
        self.asked.lock().unwrap().push(request.clone());
        let forbidden = request.messages.iter().any(|m| m.content.contains("forbidden"));
        let mut reply = ModelReply {
            content: "fine".into(),
            reasoning: None,
            tool_calls: Vec::new(),
            finish: Finish::Stop,
            usage: None,
            model: "one".into(),
            id: None,
            opaque: None,
        };
        match &self.refuses {
            Refuses::With(fault) if forbidden => {
                let (provider, model) = ("scripted".into(), request.model.to_string());
                return Err(ProviderError { provider, model, fault: fault.clone() });
            }
            Refuses::Silently if forbidden => {
                (reply.content, reply.finish) = (String::new(), Finish::Filtered);
            }
            _ if request.messages.last().is_some_and(|m| m.content == "look it up") => {
                let arguments = json!({ "word": "forbidden" }).to_string();
                let (id, name) = ("c1".into(), "look".into());
                reply.tool_calls = vec![ToolCall { id, name, arguments, opaque: None }];
            }
            _ => {}
        }
        Ok(reply)
    }
}

/// A store, and engines over it, one after another.
struct House {
    env: Arc<StepEnv>,
    store: Arc<MemoryJournal>,
    model: Arc<Picky>,
    log: LogId,
}

impl House {
    fn new(refuses: Refuses) -> Self {
        let env = Arc::new(StepEnv::new());
        let store = Arc::new(MemoryJournal::new(env.clone()));
        let model = Arc::new(Picky { refuses, asked: Mutex::default() });
        Self { env, store, model, log: LogId::from("conv_1") }
    }

    async fn engine(&self, hand: Hand) -> Bench {
        let env: Arc<dyn Env> = self.env.clone();
        let models = Models::new(vec![self.model.clone()], BTreeMap::new());
        let look = Counting::new("look", Effect::Pure);
        let registry = Arc::new(ToolRegistry::new(&[&Tools(vec![look])]).unwrap());
        Bench::with(self.store.clone(), env, hand.graph(), models, registry).await
    }

    /// A turn, to its end: how it ended, and its error's code.
    async fn turn(&self, bench: &Bench, id: &str, text: &str) -> (EndStatus, String) {
        let run = RunId::from(format!("run_{id}"));
        bench.start(&self.log, &run, said(id, text)).await;
        let ended = bench.ended(&run).await;
        (ended.status, ended.error.map(|error| error.code).unwrap_or_default())
    }

    /// What the model was sent last, a line each.
    fn sent(&self) -> Vec<String> {
        let asked = self.model.asked.lock().unwrap();
        let line = |m: &Arc<Message>| format!("{}: {}", m.role.as_str(), m.content);
        asked.last().unwrap().messages.iter().map(line).collect()
    }
}

fn said(id: &str, text: &str) -> Map<String, Value> {
    let message = Message::text(format!("msg_{id}").into(), Role::User, text);
    [("messages".to_owned(), json!([message]))].into_iter().collect()
}

fn asks() -> Hand {
    talk().node("ask", leaf(Asks)).edge("START", "ask").edge("ask", "END")
}

fn bad() -> ProviderFault {
    ProviderFault::BadRequest { status: 400, detail: "content_filter".into() }
}

#[tokio::test]
async fn a_message_that_a_provider_refuses_does_not_poison_its_conversation() {
    let detail = || String::from("no");
    let faults = [
        bad(),
        ProviderFault::ContextTooLong { detail: detail() },
        ProviderFault::Refused { detail: detail() },
        ProviderFault::Incapable { detail: detail() },
    ];
    for fault in faults {
        let house = House::new(Refuses::With(fault.clone()));
        let bench = house.engine(asks()).await;
        assert_eq!(house.turn(&bench, "1", "hello").await.0, EndStatus::Finished);
        let refused = house.turn(&bench, "2", "a forbidden word").await;
        assert_eq!(refused, (EndStatus::Failed, fault.code().to_owned()));
        let state = bench.engine.state(&house.log).await.unwrap();
        assert_eq!(state["messages"].as_array().unwrap().len(), 3, "it stands where it was said");
        for (id, text) in [("3", "and now?"), ("4", "and then?")] {
            assert_eq!(house.turn(&bench, id, text).await.0, EndStatus::Finished, "{fault:?}");
        }
        assert_eq!(
            house.sent(),
            [
                "user: hello",
                "assistant: fine",
                "user: and now?",
                "assistant: fine",
                "user: and then?"
            ]
        );
    }
}

#[tokio::test]
async fn what_passes_by_itself_sets_nothing_aside() {
    let detail = || String::from("later");
    let faults = [
        ProviderFault::RateLimited { retry_after_ms: None, detail: detail() },
        ProviderFault::Unavailable { status: 503, detail: detail() },
        ProviderFault::Timeout { phase: "total".into(), after_ms: 1 },
        ProviderFault::Unauthorized { variable: "KEY".into(), detail: detail() },
        ProviderFault::NoBalance { detail: detail() },
        ProviderFault::ModelUnknown { detail: detail() },
        ProviderFault::NotSent { detail: detail() },
    ];
    for fault in faults {
        let house = House::new(Refuses::With(fault.clone()));
        let bench = house.engine(asks()).await;
        assert_eq!(house.turn(&bench, "1", "a forbidden word").await.0, EndStatus::Failed);
        // The provider is left alone for a while after some of these.
        house.env.advance(Duration::from_hours(1));
        house.turn(&bench, "2", "and now?").await;
        assert_eq!(house.sent(), ["user: a forbidden word", "user: and now?"], "{fault:?}");
    }
}

#[tokio::test]
async fn a_turn_whose_tool_result_is_refused_is_left_out_with_its_call() {
    let house = House::new(Refuses::With(bad()));
    let bench = house.engine(tool_loop()).await;
    assert_eq!(house.turn(&bench, "1", "look it up").await.0, EndStatus::Failed);
    assert_eq!(house.sent().len(), 3, "the call and its result were sent");
    assert_eq!(house.turn(&bench, "2", "and now?").await.0, EndStatus::Finished);
    assert_eq!(house.sent(), ["user: and now?"]);
}

#[tokio::test]
async fn a_refusal_that_the_graph_handles_does_not_poison_its_conversation_either() {
    let silent = [Refuses::Silently, Refuses::With(bad())];
    for refuses in silent {
        let house = House::new(refuses);
        let hand = || {
            let sorry = Message::text("msg_sorry".into(), Role::Assistant, "sorry");
            let hand = asks().node("sorry", writes(&[("messages", json!([sorry]))]));
            let handler = OnError::Node(hand.place("sorry"));
            hand.policy("ask", Policy { on_error: handler, ..Policy::default() })
        };
        let bench = house.engine(hand()).await;
        assert_eq!(house.turn(&bench, "1", "a forbidden word").await.0, EndStatus::Finished);
        assert_eq!(house.turn(&bench, "2", "and now?").await.0, EndStatus::Finished);
        assert_eq!(house.sent(), ["user: and now?"]);
    }
}

#[tokio::test]
async fn a_call_beside_the_conversation_that_is_refused_and_handled_sets_nothing_aside() {
    let house = House::new(Refuses::With(bad()));
    let title = leaf(Title);
    let hand = asks()
        .node("title", title)
        .edge("ask", "title")
        .edge("title", "END")
        .policy("title", Policy { on_error: OnError::Continue, ..Policy::default() });
    let bench = house.engine(hand).await;
    assert_eq!(house.turn(&bench, "1", "hello").await.0, EndStatus::Finished);
    assert_eq!(house.turn(&bench, "2", "and now?").await.0, EndStatus::Finished);
    let asked = house.model.asked.lock().unwrap();
    let last = asked.iter().rfind(|r| r.messages.last().unwrap().content == "and now?").unwrap();
    assert_eq!(last.messages.len(), 3, "hello and its answer are there");
}

/// Asks for what is refused, for itself alone.
#[derive(Debug)]
struct Title;

#[async_trait]
impl exile_engine::node::Node for Title {
    async fn run(
        &self,
        cx: &exile_engine::run::context::Cx,
        state: &exile_engine::state::State,
    ) -> Result<exile_engine::node::Outcome, exile_engine::node::NodeError> {
        let mut question = super::question(state);
        let said = Message::text("msg_t".into(), Role::User, "forbidden");
        question.messages = vec![Arc::new(said)];
        question.shown = false;
        cx.call_model(question).await?;
        Ok(exile_engine::node::Outcome::nothing())
    }
}

#[tokio::test]
async fn what_was_set_aside_stays_so_over_a_snapshot_and_a_death() {
    for rounds in [1, SNAPSHOT_EVERY + 5] {
        let house = House::new(Refuses::With(bad()));
        let hand = || {
            let mut hand = talk()
                .channel("count", Reducer::Sum, json!(0))
                .node("round", writes(&[("count", json!(1))]))
                .node("ask", leaf(Asks))
                .edge("START", "round")
                .when("round", &format!("count < {rounds}"), "round")
                .otherwise("round", "ask");
            hand.limits.steps = Some(rounds + 10);
            hand
        };
        let bench = house.engine(hand()).await;
        assert_eq!(house.turn(&bench, "1", "a forbidden word").await.0, EndStatus::Failed);
        let records = house.store.read(&house.log, 0, usize::MAX).await.unwrap().records;
        let snapshot = matches!(records.last().unwrap().record.fact, Fact::Snapshot { .. });
        assert_eq!(snapshot, rounds > 1);
        drop(bench);
        house.env.advance(Duration::from_mins(1));
        let bench = house.engine(hand()).await;
        assert_eq!(house.turn(&bench, "2", "and now?").await.0, EndStatus::Finished);
        assert_eq!(house.sent(), ["user: and now?"]);
        // Whoever reads the run as it was still finds it there.
        let ended = records.iter().find(|r| matches!(r.record.fact, Fact::Ended(_))).unwrap();
        let history = house.store.load(&house.log, Some(ended.number)).await.unwrap();
        let then = LogState::replay(&history.records, history.messages, &Programs::default());
        let said = then.unwrap().values()["messages"].clone();
        assert_eq!(said[0]["content"], "a forbidden word");
    }
}

#[tokio::test]
async fn a_message_that_is_said_again_counts_again() {
    let house = House::new(Refuses::With(bad()));
    let bench = house.engine(asks()).await;
    assert_eq!(house.turn(&bench, "1", "a forbidden word").await.0, EndStatus::Failed);
    let mut again = said("1", "a mild word");
    let more = said("2", "and now?")["messages"][0].clone();
    again["messages"].as_array_mut().unwrap().push(more);
    let run = RunId::from("run_2");
    bench.start(&house.log, &run, again).await;
    assert_eq!(bench.ended(&run).await.status, EndStatus::Finished);
    assert_eq!(house.turn(&bench, "3", "and then?").await.0, EndStatus::Finished);
    let sent = house.sent();
    assert_eq!(sent, ["user: a mild word", "user: and now?", "assistant: fine", "user: and then?"]);
}
