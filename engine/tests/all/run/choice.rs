//! Which model answers: fallback, retries, breakers, and what is never done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::env::{Env, StepEnv};
use exile_engine::graph::Policy;
use exile_engine::id::{LogId, RunId};
use exile_engine::journal::{Journal, MemoryJournal};
use exile_engine::model::breaker::{FAILURES, OUTAGE, REST};
use exile_engine::model::card::Catalogue;
use exile_engine::model::{
    AfterFirstToken, Delta, DeltaSender, Finish, ModelAlias, ModelRef, ModelReply, ModelRequest,
    Models, Provider, ProviderError, ProviderFault, ToolChoice,
};
use exile_engine::node::{Node, NodeError, Outcome, Work};
use exile_engine::run::context::{Cx, ModelCall};
use exile_engine::run::event::Event;
use exile_engine::run::record::{Called, EndStatus, Ended, Fact, RunError};
use exile_engine::state::{Reducer, State};
use exile_engine::tool::{Effect, ToolRegistry, ToolSpec};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::hand::{Bench, Hand, Inner, leaf};

/// What a model does when it is asked.
#[derive(Clone)]
enum Does {
    Says(&'static str),
    /// Finishes in this way, with nothing streamed.
    Ends(Finish),
    /// Streams these words, which are a refusal.
    Refuses(&'static str),
    Fails(ProviderFault),
    /// Streams this, then breaks off.
    Breaks(&'static str),
}

/// A provider whose model does one thing after the other; the last one it repeats.
struct Doer {
    name: &'static str,
    does: Mutex<VecDeque<Does>>,
    asked: Mutex<usize>,
    retries: u32,
    keyless: bool,
}

#[async_trait]
impl Provider for Doer {
    fn name(&self) -> &str {
        self.name
    }

    fn retries(&self) -> u32 {
        self.retries
    }

    fn ready(&self) -> Result<(), ProviderError> {
        let (provider, model) = (self.name.to_owned(), String::new());
        let fault = ProviderFault::KeyMissing { variable: "KEY".into() };
        if self.keyless { Err(ProviderError { provider, model, fault }) } else { Ok(()) }
    }

    async fn complete(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        let (sender, _) = tokio::sync::mpsc::channel(64);
        self.stream(request, &sender).await
    }

    async fn stream(
        &self,
        request: &ModelRequest,
        deltas: &DeltaSender,
    ) -> Result<ModelReply, ProviderError> {
        *self.asked.lock().unwrap() += 1;
        let does = {
            let mut all = self.does.lock().unwrap();
            if all.len() > 1 { all.pop_front().unwrap() } else { all[0].clone() }
        };
        let (provider, model) = (self.name.to_owned(), request.model.to_string());
        let fails = |fault| Err(ProviderError { provider, model, fault });
        let (content, finish) = match does {
            Does::Fails(fault) => return fails(fault),
            Does::Breaks(text) => {
                let _ = deltas.send(Delta::Text(text.into())).await;
                return fails(ProviderFault::Truncated { detail: "no end mark".into() });
            }
            Does::Ends(finish) => ("", finish),
            Does::Refuses(text) => {
                let _ = deltas.send(Delta::Refusal(text.into())).await;
                (text, Finish::Refused)
            }
            Does::Says(text) => {
                let _ = deltas.send(Delta::Text(text.into())).await;
                (text, Finish::Stop)
            }
        };
        Ok(ModelReply {
            content: content.into(),
            reasoning: None,
            tool_calls: Vec::new(),
            finish,
            usage: None,
            model: request.model.to_string(),
            id: None,
            opaque: None,
        })
    }
}

/// Asks the alias `default`, and writes down what was said.
#[derive(Debug)]
struct Wants {
    tools: usize,
    said: &'static str,
}

#[async_trait]
impl Node for Wants {
    async fn run(&self, cx: &Cx, _: &State) -> Result<Outcome, NodeError> {
        let tool = |n| ToolSpec::new(format!("t{n}"), "", json!({}), Effect::Pure, "native");
        let said = exile_engine::message::Message::text(
            cx.message_id(),
            exile_engine::message::Role::User,
            self.said,
        );
        let call = ModelCall {
            call: "model".into(),
            model: "default".into(),
            messages: vec![Arc::new(said)],
            tools: (0..self.tools).map(tool).collect(),
            tool_choice: ToolChoice::Auto,
            temperature: None,
            max_tokens: None,
            output_schema: None,
            reasoning: None,
            shown: true,
        };
        let answer = cx.call_model(call).await?;
        Ok(Outcome::write(&"said".into(), json!(answer.message.content)))
    }
}

/// A stepping clock that also goes with the runtime's, so that pauses are seen.
#[derive(Debug)]
struct Clock {
    steps: StepEnv,
    began: Instant,
}

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "the runtime's clock, which tests pause")]
    fn new() -> Self {
        Self { steps: StepEnv::new(), began: Instant::now() }
    }
}

impl Env for Clock {
    fn now(&self) -> Timestamp {
        self.steps.now() + self.began.elapsed()
    }

    fn monotonic(&self) -> Duration {
        self.steps.monotonic() + self.began.elapsed()
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.steps.fill(bytes);
    }
}

/// Models `a/m`, `b/m`, … in one chain, and what came of asking it.
struct Chain {
    env: Arc<Clock>,
    journal: Arc<MemoryJournal>,
    models: Vec<Arc<Doer>>,
    known: Value,
    after_first_token: AfterFirstToken,
    wants: (usize, &'static str),
    retries: u32,
    timeout: Option<Duration>,
    /// `timeout` and `idle_timeout` of the node that asks, or of the one around it.
    node: (Option<Duration>, Option<Duration>),
    nested: bool,
    bench: Option<Bench>,
    runs: usize,
}

/// What came of one run.
struct Came {
    ended: Ended,
    said: Value,
    called: Vec<Called>,
    events: Vec<Event>,
}

impl Came {
    fn error(&self) -> &RunError {
        self.ended.error.as_ref().unwrap()
    }

    /// Who failed and why, of the one call.
    fn attempts(&self) -> Vec<(String, &'static str)> {
        let told = |a: &exile_engine::run::record::Attempt| (a.model.to_string(), a.fault.code());
        self.called[0].attempts.iter().map(told).collect()
    }
}

impl Chain {
    fn of(models: Vec<Vec<Does>>) -> Self {
        let env = Arc::new(Clock::new());
        let names = ["a", "b", "c"];
        let doer = |(name, does): (&'static str, Vec<Does>)| {
            let (does, asked) = (Mutex::new(does.into()), Mutex::default());
            Arc::new(Doer { name, does, asked, retries: 0, keyless: false })
        };
        Self {
            journal: Arc::new(MemoryJournal::new(env.clone())),
            env,
            models: names.into_iter().zip(models).map(doer).collect(),
            known: json!({}),
            after_first_token: AfterFirstToken::Fail,
            wants: (0, "hello"),
            retries: 0,
            timeout: None,
            node: (None, None),
            nested: false,
            bench: None,
            runs: 0,
        }
    }

    fn asked(&self) -> Vec<usize> {
        self.models.iter().map(|doer| *doer.asked.lock().unwrap()).collect()
    }

    async fn open(&mut self) {
        let retries = self.retries;
        for doer in &mut self.models {
            Arc::get_mut(doer).unwrap().retries = retries;
        }
        let name = |doer: &Arc<Doer>| ModelRef::parse(&format!("{}/m", doer.name)).unwrap();
        let mut chain = self.models.iter().map(name);
        let alias = ModelAlias {
            after_first_token: self.after_first_token,
            ..ModelAlias::from(chain.next().unwrap())
        };
        let alias = ModelAlias { fallback: chain.collect(), ..alias };
        let known = serde_json::from_value(self.known.clone()).unwrap();
        let providers = self.models.iter().map(|m| m.clone() as Arc<dyn Provider>).collect();
        let models = Models::new(providers, [("default".to_owned(), alias)].into())
            .with_catalogue(Catalogue::empty().with(known, "test"));
        let (tools, said) = self.wants;
        let around = |work| {
            Hand::default()
                .channel("said", Reducer::Replace, Value::Null)
                .node("wants", work)
                .edge("START", "wants")
                .edge("wants", "END")
        };
        let mut asks = leaf(Wants { tools, said });
        if self.nested {
            asks = Work::Sub(Arc::new(Inner(Arc::new(around(asks).graph()))));
        }
        let (timeout, idle_timeout) = self.node;
        let policy = Policy { timeout, idle_timeout, ..Policy::default() };
        let mut hand = around(asks).policy("wants", policy);
        hand.limits.timeout = self.timeout;
        let env: Arc<dyn Env> = self.env.clone();
        let tools = Arc::new(ToolRegistry::default());
        let journal = self.journal.clone();
        self.bench = Some(Bench::with(journal, env, hand.graph(), models, tools).await);
    }

    async fn ask(&mut self) -> Came {
        if self.bench.is_none() {
            self.open().await;
        }
        self.runs += 1;
        let id = format!("run_{}", self.runs);
        let (log, run) = (LogId::from(&*id), RunId::from(&*id));
        let bench = self.bench.as_ref().unwrap();
        bench.start(&log, &run, Map::new()).await;
        let ended = bench.ended(&run).await;
        let records = self.journal.read(&log, 0, usize::MAX).await.unwrap().records;
        let called = records.iter().filter_map(|r| match &r.record.fact {
            Fact::Called(called) => Some(Called::clone(called)),
            _ => None,
        });
        Came {
            ended,
            said: bench.engine.state(&log).await.unwrap()["said"].clone(),
            called: called.collect(),
            events: bench.engine.history(run, 0).map(Result::unwrap).collect().await,
        }
    }
}

fn down() -> ProviderFault {
    ProviderFault::Unavailable { status: 503, detail: "down".into() }
}

fn limited(retry_after_ms: u64) -> ProviderFault {
    ProviderFault::RateLimited { retry_after_ms: Some(retry_after_ms), detail: "slow".into() }
}

fn timeout() -> ProviderFault {
    ProviderFault::Timeout { phase: "first byte".into(), after_ms: 10 }
}

#[tokio::test]
async fn another_model_answers_when_the_first_fails_before_its_first_token() {
    let unauthorized = ProviderFault::Unauthorized { variable: "KEY".into(), detail: "no".into() };
    for does in [
        Does::Fails(down()),
        Does::Fails(limited(1000)),
        Does::Fails(timeout()),
        Does::Fails(ProviderFault::Connect { detail: "refused".into() }),
        Does::Fails(ProviderFault::Truncated { detail: "cut".into() }),
        Does::Fails(unauthorized),
        Does::Refuses("I would rather not"),
        Does::Ends(Finish::Refused),
        Does::Ends(Finish::Filtered),
    ] {
        let mut chain = Chain::of(vec![vec![does], vec![Does::Says("here")]]);
        let came = chain.ask().await;
        assert_eq!((came.said.as_str(), chain.asked()), (Some("here"), vec![1, 1]));
        assert_eq!(came.attempts().len(), 1, "the attempt that failed is in the record");
        assert_eq!(came.called[0].model.as_ref().unwrap().model.to_string(), "b/m");
        let finished = came.events.iter().find(|e| e.name == "model.finished").unwrap();
        assert_eq!(finished.data["attempts"][0]["model"], "a/m", "{}", finished.data);
    }
}

#[tokio::test]
async fn what_the_request_or_the_account_is_at_fault_for_is_asked_of_nobody_else() {
    let text = || "so".to_owned();
    for fault in [
        ProviderFault::NoBalance { detail: text() },
        ProviderFault::BadRequest { status: 400, detail: text() },
        ProviderFault::ContextTooLong { detail: text() },
        ProviderFault::ModelUnknown { detail: text() },
    ] {
        let code = fault.code();
        let mut chain = Chain::of(vec![vec![Does::Fails(fault)], vec![Does::Says("here")]]);
        chain.retries = 2;
        let came = chain.ask().await;
        assert_eq!((came.error().code.as_str(), chain.asked()), (code, vec![1, 0]));
        assert_eq!(came.attempts(), [("a/m".to_owned(), code)]);
    }
}

#[tokio::test]
async fn a_model_that_cannot_do_what_is_needed_is_never_asked() {
    let models = || {
        let says = |text| vec![Does::Says(text)];
        Chain::of(vec![vec![Does::Fails(down())], says("deaf"), says("able")])
    };
    let mut chain = models();
    chain.wants = (1, "hello");
    chain.known = json!({ "b/m": [{ "tools": false }] });
    let came = chain.ask().await;
    assert_eq!((came.said.as_str(), chain.asked()), (Some("able"), vec![1, 0, 1]));

    let mut chain = models();
    chain.wants = (0, "退款流程是什么");
    chain.known = json!({ "b/m": [{ "languages": ["en"] }] });
    assert_eq!(chain.ask().await.said, "able");

    let mut chain = models();
    chain.wants = (0, "a b c d e f g h");
    chain.known = json!({ "b/m": [{ "context": 7 }] });
    assert_eq!(chain.ask().await.said, "able");
}

#[tokio::test]
async fn a_fallback_without_a_key_is_passed_over_and_a_missing_key_of_the_first_is_told() {
    let says = |text| vec![Does::Says(text)];
    let mut chain = Chain::of(vec![vec![Does::Fails(down())], says("b"), says("c")]);
    Arc::get_mut(&mut chain.models[1]).unwrap().keyless = true;
    assert_eq!((chain.ask().await.said.as_str(), chain.asked()), (Some("c"), vec![1, 0, 1]));

    let missing = ProviderFault::KeyMissing { variable: "KEY".into() };
    let mut chain = Chain::of(vec![vec![Does::Fails(missing)], says("b")]);
    let came = chain.ask().await;
    assert_eq!((came.error().code.as_str(), chain.asked()), ("provider_key_missing", vec![1, 0]));
}

#[tokio::test]
async fn what_no_model_of_the_chain_can_do_is_told_before_anything_is_sent() {
    let mut chain = Chain::of(vec![vec![Does::Says("a")], vec![Does::Says("b")]]);
    chain.wants = (1, "hello");
    chain.known = json!({ "*": [{ "tools": false }] });
    let came = chain.ask().await;
    assert_eq!((came.error().code.as_str(), chain.asked()), ("model_incapable", vec![0, 0]));
    assert!(came.error().message.contains("calls no tools"), "{}", came.error().message);

    let mut chain = Chain::of(vec![vec![Does::Says("a")]]);
    chain.wants = (0, "a b c d e f g h");
    chain.known = json!({ "a/m": [{ "context": 7 }] });
    let came = chain.ask().await;
    assert_eq!((came.error().code.as_str(), chain.asked()), ("context_too_long", vec![0]));
}

#[tokio::test(start_paused = true)]
async fn a_call_is_made_again_after_the_pause_that_the_provider_asks_for() {
    let mut chain =
        Chain::of(vec![vec![Does::Fails(down()), Does::Fails(limited(7000)), Does::Says("here")]]);
    chain.retries = 2;
    let came = chain.ask().await;
    assert_eq!((came.said.as_str(), chain.asked()), (Some("here"), vec![3]));
    let took = chain.env.began.elapsed().as_secs();
    assert!((7..20).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn no_pause_is_longer_than_the_time_that_is_left() {
    let mut chain = Chain::of(vec![vec![Does::Fails(limited(50_000))]]);
    (chain.retries, chain.timeout) = (2, Some(Duration::from_secs(20)));
    let came = chain.ask().await;
    assert_eq!(came.error().code, "provider_rate_limited");
    assert_eq!(chain.asked(), [1]);
    assert!(chain.env.began.elapsed() < Duration::from_secs(2), "it does not wait in vain");
}

#[tokio::test(start_paused = true)]
async fn no_pause_is_longer_than_the_nodes_around_the_call_may_take_or_be_silent() {
    let ten = Some(Duration::from_secs(10));
    for (node, nested) in
        [((ten, None), false), ((ten, None), true), ((None, ten), false), ((None, ten), true)]
    {
        let mut chain = Chain::of(vec![vec![Does::Fails(limited(20_000))]]);
        (chain.retries, chain.nested, chain.node) = (2, nested, node);
        let came = chain.ask().await;
        assert_eq!((came.error().code.as_str(), chain.asked()), ("provider_rate_limited", vec![1]));
        assert!(chain.env.began.elapsed() < Duration::from_secs(2), "it does not wait in vain");
    }
}

#[tokio::test(start_paused = true)]
async fn each_model_is_left_its_own_pause() {
    let (slow, down) =
        (vec![Does::Fails(limited(7000)), Does::Says("late")], vec![Does::Fails(down())]);
    let mut chain = Chain::of(vec![slow, down]);
    chain.retries = 1;
    let came = chain.ask().await;
    assert_eq!((came.said.as_str(), chain.asked()), (Some("late"), vec![2, 2]));
    let order: Vec<String> = came.attempts().into_iter().map(|(model, _)| model).collect();
    assert_eq!(order, ["a/m", "b/m", "b/m"]);
    assert!(chain.env.began.elapsed() >= Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn who_is_left_alone_is_not_waited_for() {
    let mut chain = Chain::of(vec![vec![Does::Fails(down())]]);
    chain.retries = 1;
    for _ in 0..FAILURES {
        chain.ask().await;
    }
    let before = chain.env.began.elapsed();
    let came = chain.ask().await;
    assert_eq!(came.error().code, "provider_circuit_open");
    assert!(chain.env.began.elapsed() < before + Duration::from_millis(100));
}

#[tokio::test]
async fn an_answer_that_breaks_off_fails_the_call_and_nobody_else_is_asked() {
    let mut chain = Chain::of(vec![vec![Does::Breaks("so f")], vec![Does::Says("whole")]]);
    chain.retries = 2;
    let came = chain.ask().await;
    assert_eq!((came.error().code.as_str(), chain.asked()), ("provider_truncated", vec![1, 0]));
    assert_eq!(came.ended.status, EndStatus::Failed);
}

#[tokio::test]
async fn with_restart_what_broke_off_is_void_and_the_whole_answer_comes_from_another() {
    let mut chain = Chain::of(vec![vec![Does::Breaks("so f")], vec![Does::Says("whole")]]);
    chain.after_first_token = AfterFirstToken::Restart;
    let came = chain.ask().await;
    assert_eq!((came.said.as_str(), chain.asked()), (Some("whole"), vec![1, 1]));
    let resets = came.events.iter().filter(|e| e.name == "message.reset").count();
    assert_eq!(resets, 1, "{:?}", came.events);
    let intents = came.called[0].attempts.iter().filter(|attempt| attempt.streamed).count();
    assert_eq!(intents, 1, "the record says that something had been streamed");
    let text = came.called[0].marks.split("whole", "").map(|(_, _, piece)| piece);
    assert_eq!(text.collect::<String>(), "whole", "nothing of the first is left");
}

#[tokio::test]
async fn who_fails_again_and_again_is_left_alone_and_then_tried_once() {
    let failures = usize::try_from(FAILURES).unwrap();
    let mut does = vec![Does::Fails(down()); failures];
    does.push(Does::Says("a again"));
    let mut chain = Chain::of(vec![does, vec![Does::Says("b")]]);
    for _ in 0..failures + 3 {
        assert_eq!(chain.ask().await.said, "b");
        chain.env.steps.advance(OUTAGE / 2);
    }
    assert_eq!(chain.asked(), [failures, failures + 3]);
    let came = chain.ask().await;
    assert_eq!(came.attempts(), [("a/m".to_owned(), "provider_circuit_open")]);
    chain.env.steps.advance(REST);
    assert_eq!(chain.ask().await.said, "a again");
    assert_eq!(chain.ask().await.said, "a again");
}

#[tokio::test]
async fn a_refusal_of_the_last_model_is_its_answer() {
    let no = || vec![Does::Refuses("no")];
    let mut chain = Chain::of(vec![no(), no()]);
    let came = chain.ask().await;
    assert_eq!((came.ended.status, came.said), (EndStatus::Finished, json!("no")));
    let called = &came.called[0];
    assert_eq!(called.model.as_ref().unwrap().finish, Finish::Refused);
    assert_eq!(called.marks.split("no", "").count(), 1, "it is streamed as any answer is");
}
