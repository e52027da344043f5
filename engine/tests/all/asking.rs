//! A chain of models and who pays for it: whatever fails, is refused or is dropped, each attempt
//! that a provider sees was reserved before it and is settled after it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::env::{Env, StepEnv};
use exile_engine::id::UserId;
use exile_engine::message::{Message, Role, ToolCall};
use exile_engine::model::asking::Asker;
use exile_engine::model::meter::{Bill, Cap, Exceeded, Meter, Payer, Size};
use exile_engine::model::{
    AfterFirstToken, Aliases, Chain, Delta, DeltaSender, Embeddings, Finish, ModelRef, ModelReply,
    ModelRequest, Models, Provider, ProviderError, ProviderFault, ToolChoice, Usage,
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value};
use tokio::time::Instant;

/// What a provider does when it is asked once.
#[derive(Clone, Debug)]
enum Act {
    Answer,
    /// Nothing streamed, and a finish that says it would not answer.
    Refuse,
    /// Thinks until the tokens are used up, and counts more of them than there are.
    Think,
    Fail(ProviderFault),
    /// Streams a piece, then fails.
    Break,
}

/// What the meter says when it is asked for a reserve.
#[derive(Clone, Debug)]
enum Verdict {
    /// Granted, with this bound on the tokens of the answer.
    Grant(Option<u32>),
    Exceeded,
    /// The books cannot be read for the moment.
    Unavailable,
    /// The price of the model is not known.
    NotSent,
}

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Reserved(ModelRef, Option<u32>),
    Refused(ModelRef),
    Sent(ModelRef, Option<u32>),
    /// By an answer, a fault, or by dropping the bill.
    Settled(&'static str),
}

/// What happened at the meter and at the providers, in one order.
type Events = Arc<Mutex<Vec<Event>>>;

struct Scripted {
    name: String,
    acts: Mutex<VecDeque<Act>>,
    events: Events,
}

impl Scripted {
    fn model(&self, model: &str) -> ModelRef {
        ModelRef { provider: self.name.as_str().into(), model: model.into() }
    }

    fn act(&self) -> Act {
        self.acts.lock().unwrap().pop_front().unwrap_or(Act::Answer)
    }

    fn fails<T>(&self, fault: ProviderFault) -> Result<T, ProviderError> {
        Err(ProviderError { provider: self.name.clone(), model: "m".into(), fault })
    }
}

#[async_trait]
impl Provider for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    fn retries(&self) -> u32 {
        1
    }

    fn ready(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn complete(&self, _: &ModelRequest) -> Result<ModelReply, ProviderError> {
        unreachable!("everything is streamed")
    }

    async fn stream(
        &self,
        request: &ModelRequest,
        deltas: &DeltaSender,
    ) -> Result<ModelReply, ProviderError> {
        let sent = Event::Sent(self.model(&request.model), request.max_tokens);
        self.events.lock().unwrap().push(sent);
        tokio::task::yield_now().await;
        let (content, finish) = match self.act() {
            Act::Fail(fault) => return self.fails(fault),
            Act::Break => {
                let _ = deltas.send(Delta::Text("so f".into())).await;
                tokio::task::yield_now().await;
                return self.fails(ProviderFault::Truncated { detail: "no end mark".into() });
            }
            Act::Refuse => ("", Finish::Refused),
            Act::Think => {
                let _ = deltas.send(Delta::Reasoning("hm".into())).await;
                ("", Finish::Length)
            }
            Act::Answer => {
                let _ = deltas.send(Delta::Text("here".into())).await;
                tokio::task::yield_now().await;
                ("here", Finish::Stop)
            }
        };
        Ok(ModelReply {
            content: content.into(),
            reasoning: None,
            tool_calls: Vec::new(),
            finish,
            usage: Some(Usage { input: u64::MAX, output: u64::MAX, ..Usage::default() }),
            model: request.model.to_string(),
            id: None,
            opaque: None,
        })
    }

    async fn embed(
        &self,
        model: &str,
        texts: &[String],
        _: &Map<String, Value>,
    ) -> Result<Embeddings, ProviderError> {
        self.events.lock().unwrap().push(Event::Sent(self.model(model), None));
        tokio::task::yield_now().await;
        match self.act() {
            Act::Fail(fault) => self.fails(fault),
            _ => Ok(Embeddings {
                vectors: vec![vec![0.0]; texts.len()],
                usage: None,
                model: model.into(),
            }),
        }
    }
}

/// Grants and refuses as the script says.
struct Books {
    verdicts: Arc<Mutex<VecDeque<Verdict>>>,
    events: Events,
}

struct Page {
    verdicts: Arc<Mutex<VecDeque<Verdict>>>,
    events: Events,
    open: bool,
}

impl Meter for Books {
    fn open(&self, _: &Payer) -> Box<dyn Bill> {
        let (verdicts, events) = (self.verdicts.clone(), self.events.clone());
        Box::new(Page { verdicts, events, open: false })
    }
}

impl Page {
    fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn settle(&mut self, how: &'static str) {
        if std::mem::take(&mut self.open) {
            self.note(Event::Settled(how));
        }
    }
}

#[async_trait]
impl Bill for Page {
    async fn reserve(&mut self, model: &ModelRef, _: Size) -> Result<Option<Cap>, ProviderFault> {
        assert!(!self.open, "the attempt before is not settled");
        tokio::task::yield_now().await;
        let verdict = self.verdicts.lock().unwrap().pop_front();
        let fault = match verdict.unwrap_or(Verdict::Grant(None)) {
            Verdict::Grant(most) => {
                self.open = true;
                self.note(Event::Reserved(model.clone(), most));
                return Ok(most.map(|tokens| Cap { tokens, quota: Some(Box::new(exceeded())) }));
            }
            Verdict::Exceeded => ProviderFault::QuotaExceeded(Box::new(exceeded())),
            Verdict::Unavailable => down(),
            Verdict::NotSent => ProviderFault::NotSent { detail: "no price".into() },
        };
        self.note(Event::Refused(model.clone()));
        Err(fault)
    }

    fn piece(&mut self, _: &Delta) {
        assert!(self.open, "a piece belongs to an attempt");
    }

    fn answered(&mut self, usage: Option<Usage>, _: &[ToolCall]) {
        let most = usage.map_or(0, |usage| usage.input.max(usage.output));
        assert!(most <= Usage::CALL_MOST, "what nobody can have counted is bounded");
        self.settle("answered");
    }

    fn failed(&mut self, _: &ProviderFault) {
        self.settle("failed");
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.settle("dropped");
    }
}

struct Nobody;

#[async_trait]
impl Asker for Nobody {
    fn conversation(&self) -> Option<&str> {
        None
    }

    fn payer(&self) -> Payer {
        payer()
    }

    fn has_time(&self, _: Duration, _: Duration) -> bool {
        true
    }

    async fn again(&self, _: &ModelRef) {
        tokio::task::yield_now().await;
    }

    async fn piece(&self, _: Delta) {
        tokio::task::yield_now().await;
    }
}

fn payer() -> Payer {
    let (key, business, graph, run) = Default::default();
    Payer { owner: UserId::from("usr_1"), key, business, graph, run }
}

fn exceeded() -> Exceeded {
    Exceeded {
        of: "user alice".into(),
        unit: "tokens".into(),
        limit: "1/day".into(),
        amount: 1,
        window_s: 86_400,
        retry_after_ms: 1000,
        cut_at: None,
    }
}

fn down() -> ProviderFault {
    ProviderFault::Unavailable { status: 503, detail: "down".into() }
}

/// A clock that goes with the runtime's, which the test pauses.
#[derive(Debug)]
struct Clock(StepEnv, Instant);

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "the runtime's clock, which tests pause")]
    fn new() -> Self {
        Self(StepEnv::new(), Instant::now())
    }
}

impl Env for Clock {
    fn now(&self) -> Timestamp {
        self.0.now() + self.1.elapsed()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() + self.1.elapsed()
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

/// A future that is dropped after so many polls; it counts those that it needed.
struct Dropped<'p, F> {
    inner: Pin<Box<F>>,
    polls: &'p mut usize,
    most: usize,
}

impl<F: Future> Future for Dropped<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if *self.polls == self.most {
            return Poll::Ready(None);
        }
        *self.polls += 1;
        self.inner.as_mut().poll(cx).map(Some)
    }
}

/// A chain, how its models behave and what the meter says.
#[derive(Clone, Debug)]
struct Case {
    acts: Vec<Vec<Act>>,
    verdicts: Vec<Verdict>,
    restart: bool,
}

/// [`Case::ask`] or [`Case::embed`].
type Asks = fn(&Case, usize) -> Came;

/// What asking came to, if nobody left before, after how many polls, and what happened.
struct Came {
    answered: Option<Result<(), ProviderFault>>,
    polls: usize,
    events: Vec<Event>,
}

impl Case {
    fn models(&self) -> (Models, Vec<ModelRef>, Events) {
        let events = Events::default();
        let provider = |(n, acts): (usize, &Vec<Act>)| {
            let acts = Mutex::new(acts.clone().into());
            let scripted = Scripted { name: format!("p{n}"), acts, events: events.clone() };
            Arc::new(scripted) as Arc<dyn Provider>
        };
        let providers: Vec<_> = self.acts.iter().enumerate().map(provider).collect();
        let named = |p: &Arc<dyn Provider>| ModelRef::parse(&format!("{}/m", p.name())).unwrap();
        let chain = providers.iter().map(named).collect();
        let verdicts = Arc::new(Mutex::new(self.verdicts.clone().into()));
        let books = Books { verdicts, events: events.clone() };
        let models = Models::new(providers, Aliases::new()).with_meter(Arc::new(books));
        (models, chain, events)
    }

    /// Asks the chain; whoever asks leaves after so many polls.
    fn ask(&self, most: usize) -> Came {
        let after_first_token =
            if self.restart { AfterFirstToken::Restart } else { AfterFirstToken::Fail };
        self.leaving(most, async |models, chain| {
            let chain = Chain { models: chain, after_first_token };
            let asked = models.ask(&Clock::new(), &Nobody, chain, request()).await;
            asked.outcome.map(|_| ()).map_err(|failed| failed.error.fault)
        })
    }

    /// Asks the first model for vectors.
    fn embed(&self, most: usize) -> Came {
        self.leaving(most, async |models, chain| {
            let texts = ["hi".to_owned()];
            let made = models.embed(&payer(), &chain[0], &texts, &Map::new()).await;
            made.map(|_| ()).map_err(|error| error.fault)
        })
    }

    fn leaving(
        &self,
        most: usize,
        asks: impl AsyncFn(Models, Vec<ModelRef>) -> Result<(), ProviderFault>,
    ) -> Came {
        let (models, chain, events) = self.models();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let mut polls = 0;
        let answered = runtime.block_on(async {
            let inner = Box::pin(asks(models, chain));
            Dropped { inner, polls: &mut polls, most }.await
        });
        let events = events.lock().unwrap().clone();
        Came { answered, polls, events }
    }
}

fn request() -> ModelRequest {
    ModelRequest {
        model: "".into(),
        messages: vec![Arc::new(Message::text("msg_1".into(), Role::User, "hi"))],
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        temperature: None,
        max_tokens: Some(900),
        output_schema: None,
        reasoning: None,
        further: Map::new(),
    }
}

/// Checks that what providers saw is what the meter granted, attempt by attempt.
fn balanced(events: &[Event]) {
    let mut open: Option<(&ModelRef, Option<u32>, bool)> = None;
    for event in events {
        match (event, &mut open) {
            (Event::Reserved(model, most), None) => open = Some((model, *most, false)),
            (Event::Refused(_), None) => {}
            (Event::Sent(model, max_tokens), Some((reserved, most, sent @ false))) => {
                assert_eq!(model, *reserved, "{events:?}");
                assert!(max_tokens.is_none() || *max_tokens == most.or(Some(900)), "{events:?}");
                *sent = true;
            }
            (Event::Settled(_), Some(_)) => open = None,
            (event, _) => panic!("{event:?} out of place in {events:?}"),
        }
    }
    assert_eq!(open, None, "an attempt was never settled: {events:?}");
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let faults = prop_oneof![
        Just(down()),
        Just(ProviderFault::RateLimited { retry_after_ms: Some(700), detail: "slow".into() }),
        Just(ProviderFault::BadRequest { status: 400, detail: "no".into() }),
        Just(ProviderFault::NoBalance { detail: "empty".into() }),
    ];
    let act = prop_oneof![
        2 => Just(Act::Answer),
        1 => Just(Act::Refuse),
        1 => Just(Act::Think),
        1 => Just(Act::Break),
        4 => faults.prop_map(Act::Fail),
    ];
    prop::collection::vec(act, 0..4)
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        4 => prop::option::of(1..800_u32).prop_map(Verdict::Grant),
        3 => Just(Verdict::Exceeded),
        1 => Just(Verdict::Unavailable),
        1 => Just(Verdict::NotSent),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn each_attempt_of_a_chain_is_reserved_and_settled_or_refused(
        acts in prop::collection::vec(acts(), 1..4),
        verdicts in prop::collection::vec(verdict(), 0..6),
        restart in any::<bool>(),
    ) {
        let case = Case { acts, verdicts, restart };
        for asks in [Case::ask as Asks, Case::embed as Asks] {
            let whole = asks(&case, usize::MAX);
            balanced(&whole.events);
            for most in 0..whole.polls {
                let left = asks(&case, most);
                prop_assert!(left.answered.is_none());
                balanced(&left.events);
            }
        }
    }
}

/// The shortest of these cases: the first model's quota is used up, the second one answers.
#[test]
fn a_refused_reserve_leaves_the_next_model_reserved_and_settled() {
    let case = Case {
        acts: vec![vec![], vec![]],
        verdicts: vec![Verdict::Exceeded, Verdict::Grant(Some(50))],
        restart: false,
    };
    let came = case.ask(usize::MAX);
    assert_eq!(came.answered, Some(Ok(())));
    let model = |name| ModelRef::parse(name).unwrap();
    assert_eq!(
        came.events,
        [
            Event::Refused(model("p0/m")),
            Event::Reserved(model("p1/m"), Some(50)),
            Event::Sent(model("p1/m"), Some(50)),
            Event::Settled("answered"),
        ]
    );
}

#[test]
fn an_answer_that_a_quota_cut_before_it_said_anything_names_the_quota() {
    let case = |act: Act, most| Case {
        acts: vec![vec![act]],
        verdicts: vec![Verdict::Grant(most)],
        restart: false,
    };
    let cut = case(Act::Think, Some(50)).ask(usize::MAX).answered;
    let Some(Err(fault)) = cut else { panic!("{cut:?}") };
    assert_eq!(fault.code(), "quota_exceeded");
    let text = fault.to_string();
    assert!(text.contains("cut at 50 tokens") && text.contains("user alice"), "{text}");
    // What its own limit cut, or what said something, is passed on as it is.
    assert_eq!(case(Act::Think, None).ask(usize::MAX).answered, Some(Ok(())));
    assert_eq!(case(Act::Answer, Some(50)).ask(usize::MAX).answered, Some(Ok(())));
}

#[test]
fn sums_of_usage_end_where_every_reader_can_count() {
    let most = Usage { input: u64::MAX, cached: 1, ..Usage::default() }.of_one_call();
    assert_eq!((most.input, most.cached), (Usage::CALL_MOST, 1));
    let mut sum = Usage { input: u64::MAX, ..Usage::default() };
    sum += most;
    assert_eq!((sum.input, sum.cached), (Usage::SUM_MOST, 1));
}
