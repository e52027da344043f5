//! Questions to models: who is asked, who is asked next when that one fails, and when it is over.
//!
//! Invariants:
//! - Only models that can do what the request needs are asked; what none can do is told before
//!   anything is sent.
//! - Another model is asked only until the first piece of an answer came. After it nothing is
//!   spliced: the call fails, or what was shown is void and the whole answer is asked for again.
//! - Every attempt stands in the call's record, and each that was sent has a span of its own.
//! - A model is not asked again before the pause that its provider asks for is over.
//! - No pause is longer than the time that the run and the nodes around the call have left.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::Instrument as _;

use crate::message::{Message, Role};
use crate::model::needs::{Lack, Needs};
use crate::model::{
    AfterFirstToken, Chain, Delta, Finish, ModelRef, ModelReply, ModelRequest, Models,
    ProviderError, ProviderFault, Retry,
};
use crate::node::NodeError;
use crate::run::context::{Command, Cx, ModelAnswer, ModelCall, Recorded, millis};
use crate::run::marks::Marks;
use crate::run::pause;
use crate::run::record::{Attempt, Called, Callee, ModelFacts, Reply};
use crate::span;

/// The pause before the first retry, doubled with each further one.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause of our own choice.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// The longest pause that a provider may ask for; a longer one ends the call.
const ASKED_MAX: Duration = Duration::from_mins(1);

impl Cx {
    /// Asks a model, streaming its answer to whoever watches the run.
    pub async fn call_model(&self, mut ask: ModelCall) -> Result<ModelAnswer, NodeError> {
        let call: Arc<str> = ask.call.as_str().into();
        if let Some(recorded) = self.replies.get(&call) {
            return replay(recorded);
        }
        let Chain { models, after_first_token } = self.chain(&ask.model)?;
        let request = request(&mut ask);
        let models = self.able(models, &request).map_err(NodeError::Provider)?;
        self.intent(&call, Callee::Model(models[0].clone())).await;
        let began = self.services.env.monotonic();
        let candidate = |(place, model)| Candidate { place, model, tries: 0, not_before: began };
        let mut asking = Asking {
            cx: self,
            call: &call,
            ask: &ask,
            request,
            left: models.into_iter().enumerate().map(candidate).collect(),
            after_first_token,
            attempts: Vec::new(),
            void: false,
        };
        let outcome = asking.until_answered().await;
        let took_ms = millis(self.services.env.monotonic().saturating_sub(began));
        let (answer, reply, model, message) = match outcome {
            Ok(Answered { model, reply, partial }) => {
                let message = self.assistant(&model, &reply);
                let (usage, finish, first_ms) = (reply.usage, reply.finish, partial.first_ms);
                let facts = ModelFacts { model, usage, first_ms, finish };
                let reply = Reply::Message { id: message.id.clone(), failed: None };
                let answer = ModelAnswer { message: message.clone(), finish };
                (Ok(answer), reply, Some(facts), Some(message))
            }
            Err((error, Partial { text, reasoning, .. })) => {
                let error = NodeError::Provider(error);
                (Err(error.clone()), Reply::ModelFailed { error, text, reasoning }, None, None)
            }
        };
        let called = Called {
            task: self.task.clone(),
            call: call.clone(),
            took_ms,
            tool: None,
            reply,
            model,
            attempts: asking.attempts,
            marks: Marks::default(),
            shown: ask.shown,
            taints: false,
        };
        self.called(called, message).await;
        answer
    }

    fn chain(&self, name: &str) -> Result<Chain, NodeError> {
        let business = self.options().business.as_deref();
        Models::chain(&self.program.aliases, name, business).ok_or_else(|| NodeError::Missing {
            what: "model".into(),
            name: name.into(),
            remedy: "name it under `models` in exile.yaml, or write provider/model".into(),
        })
    }

    /// The models of a chain that can answer; a fallback without a key cannot.
    ///
    /// # Errors
    /// What they lack, in the name of the first.
    fn able(
        &self,
        chain: Vec<ModelRef>,
        request: &ModelRequest,
    ) -> Result<Vec<ModelRef>, ProviderError> {
        let models = &self.services.models;
        let keyed = |model: &ModelRef| {
            models.provider(&model.provider).is_some_and(|provider| provider.ready().is_ok())
        };
        let chain = chain.into_iter().enumerate().filter(|(n, model)| *n == 0 || keyed(model));
        let known = |(_, model): (usize, ModelRef)| {
            let card = models.catalogue().card(&model);
            (model, card)
        };
        let cards: Vec<_> = chain.map(known).collect();
        let rooms = cards.iter().filter_map(|(_, card)| card.context.as_ref());
        let room = rooms.map(|cell| cell.value).min();
        Needs::of(request, room).choose(cards).map_err(|lacking| incapable(&lacking))
    }

    fn assistant(&self, model: &ModelRef, reply: &ModelReply) -> Message {
        Message {
            reasoning: reply.reasoning.clone(),
            tool_calls: reply.tool_calls.clone(),
            model: Some(model.to_string()),
            opaque: reply.opaque.clone(),
            ..Message::text(self.message_id(), Role::Assistant, reply.content.clone())
        }
    }

    /// Streams one answer, handing deltas on as they come; a refusal only if nobody else is asked.
    async fn stream(
        &self,
        call: &Arc<str>,
        model: &ModelRef,
        request: &ModelRequest,
        (shown, others): (bool, bool),
    ) -> Result<(ModelReply, Partial), (ProviderFault, Partial)> {
        let mut partial = Partial::default();
        let Some(provider) = self.services.models.provider(&model.provider) else {
            return Err((ProviderFault::ProviderUnknown, partial));
        };
        let began = self.services.env.monotonic();
        let (sender, mut deltas) = mpsc::channel(64);
        let answer = async {
            let reply = provider.stream(request, &sender).await;
            drop(sender);
            reply
        };
        let pump = async {
            while let Some(delta) = deltas.recv().await {
                if others && matches!(delta, Delta::Refusal(_)) && partial.first_ms.is_none() {
                    continue;
                }
                if partial.first_ms.is_none() {
                    let first = self.services.env.monotonic().saturating_sub(began);
                    span::first_chunk(first);
                    partial.first_ms = Some(millis(first));
                }
                match &delta {
                    Delta::Text(text) | Delta::Refusal(text) => partial.text.push_str(text),
                    Delta::Reasoning(text) => partial.reasoning.push_str(text),
                }
                let (task, call) = (self.task.clone(), call.clone());
                self.tell(Command::Delta { task, call, shown, delta }).await;
            }
        };
        let (reply, ()) = futures_util::future::join(answer, pump).await;
        match reply {
            Ok(reply) => Ok((reply, partial)),
            Err(error) => Err((error.fault, partial)),
        }
    }
}

/// One call on its way through a chain of models.
struct Asking<'a> {
    cx: &'a Cx,
    call: &'a Arc<str>,
    ask: &'a ModelCall,
    request: ModelRequest,
    /// Who may still be asked, in the order of the chain.
    left: Vec<Candidate>,
    after_first_token: AfterFirstToken,
    attempts: Vec<Attempt>,
    /// What was streamed is void: the next attempt says so first.
    void: bool,
}

/// A model that may be asked.
struct Candidate {
    /// In the chain.
    place: usize,
    model: ModelRef,
    /// How often it was asked.
    tries: u32,
    /// On the monotonic clock.
    not_before: Duration,
}

struct Answered {
    model: ModelRef,
    reply: ModelReply,
    partial: Partial,
}

/// What had been streamed when an attempt ended.
#[derive(Default)]
struct Partial {
    text: String,
    reasoning: String,
    first_ms: Option<u64>,
}

type Failed = (ProviderError, Partial);

impl Asking<'_> {
    /// Asks one model after the other, and each again after its pause, as long as that may help.
    async fn until_answered(&mut self) -> Result<Answered, Failed> {
        let mut last = None;
        while let Some(next) = self.left.iter().map(|candidate| candidate.not_before).min() {
            let now = self.cx.services.env.monotonic();
            let pause = next.saturating_sub(now);
            if !pause.is_zero() {
                if !self.has_time(pause) {
                    break;
                }
                tokio::time::sleep(pause).await;
                continue;
            }
            let due: Vec<Candidate> = self.left.extract_if(.., |c| c.not_before <= now).collect();
            for (n, candidate) in due.iter().enumerate() {
                let others = n + 1 < due.len();
                let failed = match self.attempt(candidate, others).await {
                    Ok(answered) => return Ok(answered),
                    Err(failed) => failed,
                };
                let (error, partial) = &failed;
                let seen = partial.first_ms.is_some();
                if (seen && self.after_first_token == AfterFirstToken::Fail)
                    || !error.fault.falls_back()
                {
                    return Err(failed);
                }
                self.left.extend(self.again(candidate, &error.fault));
                last = Some(failed);
            }
            self.left.sort_by_key(|candidate| candidate.place);
        }
        Err(last.unwrap_or_else(|| self.nobody()))
    }

    /// The model once more, after its pause; `None`: that cannot help.
    fn again(&self, candidate: &Candidate, fault: &ProviderFault) -> Option<Candidate> {
        let Candidate { place, model, tries, .. } = candidate;
        let provider = self.cx.services.models.provider(&model.provider)?;
        // Whoever is left alone is left alone by this call, too.
        let open = matches!(fault, ProviderFault::CircuitOpen { .. });
        if *tries >= provider.retries() || open {
            return None;
        }
        let not_before = self.cx.services.env.monotonic() + self.pause(*tries, fault)?;
        Some(Candidate { place: *place, model: model.clone(), tries: tries + 1, not_before })
    }

    /// The failure of a chain without models.
    fn nobody(&self) -> Failed {
        let (provider, model) = (String::new(), self.ask.model.clone());
        let fault = ProviderFault::ProviderUnknown;
        (ProviderError { provider, model, fault }, Partial::default())
    }

    /// `others`: more models follow at once, so that a refusal need not be the last word.
    async fn attempt(&mut self, candidate: &Candidate, others: bool) -> Result<Answered, Failed> {
        let model = &candidate.model;
        let env = &self.cx.services.env;
        let breakers = self.cx.services.models.breakers();
        let began = env.monotonic();
        if let Err(rest) = breakers.enter(model, began) {
            let fault = ProviderFault::CircuitOpen { retry_after_ms: millis(rest) };
            return Err(self.note(model, Duration::ZERO, fault, Partial::default()));
        }
        if std::mem::take(&mut self.void) {
            self.cx.intent(self.call, Callee::Model(model.clone())).await;
        }
        self.request.model = model.model.clone();
        let span = span::chat(model, self.ask, &self.cx.started);
        let outcome = self
            .cx
            .stream(self.call, model, &self.request, (self.ask.shown, others))
            .instrument(span.clone())
            .await;
        let now = env.monotonic();
        let (fault, partial) = match outcome {
            Ok((reply, partial)) if others && refused(&reply) && partial.first_ms.is_none() => {
                breakers.succeeded(model);
                (ProviderFault::Refused { detail: reply.content }, partial)
            }
            Ok((reply, partial)) => {
                breakers.succeeded(model);
                span::chat_ended(&span, Ok(&reply));
                return Ok(Answered { model: model.clone(), reply, partial });
            }
            Err((fault, partial)) => {
                // A call counts once, however often it is made again.
                if candidate.tries > 0 {
                    breakers.left(model);
                } else if breakers.failed(model, &fault, now) {
                    tracing::warn!(%model, %fault, "it is left alone for a while");
                }
                (fault, partial)
            }
        };
        self.void = partial.first_ms.is_some();
        let failed = self.note(model, now.saturating_sub(began), fault, partial);
        span::chat_ended(&span, Err(&failed.0));
        Err(failed)
    }

    /// Notes an attempt that failed.
    fn note(
        &mut self,
        model: &ModelRef,
        took: Duration,
        fault: ProviderFault,
        partial: Partial,
    ) -> Failed {
        let streamed = partial.first_ms.is_some();
        let (model_ref, took_ms) = (model.clone(), millis(took));
        self.attempts.push(Attempt { model: model_ref, took_ms, fault: fault.clone(), streamed });
        (error(model, fault), partial)
    }

    /// The pause before the next try, after so many retries; `None`: trying again cannot help.
    fn pause(&self, retries: u32, fault: &ProviderFault) -> Option<Duration> {
        let asked = pause::asked_for(fault);
        if fault.retry() == Retry::Never || asked.is_some_and(|asked| asked > ASKED_MAX) {
            return None;
        }
        let env = &*self.cx.services.env;
        Some(pause::before_retry(env, (PAUSE, PAUSE_MAX), retries, asked))
    }

    fn has_time(&self, pause: Duration) -> bool {
        self.cx.bounds.admit(self.cx.services.env.monotonic(), pause)
    }
}

/// Whether the model would not answer.
fn refused(reply: &ModelReply) -> bool {
    let silent = reply.tool_calls.is_empty();
    silent && matches!(reply.finish, Finish::Refused | Finish::Filtered)
}

/// The request of a call, which keeps what its span tells. A long history is not copied.
fn request(ask: &mut ModelCall) -> ModelRequest {
    ModelRequest {
        model: "".into(),
        messages: std::mem::take(&mut ask.messages),
        tools: std::mem::take(&mut ask.tools),
        tool_choice: ask.tool_choice.clone(),
        temperature: ask.temperature,
        max_tokens: ask.max_tokens,
        output_schema: ask.output_schema.clone(),
        reasoning: ask.reasoning,
    }
}

/// No model of a chain can answer: what the first lacks, or all of them.
fn incapable(lacking: &[(ModelRef, Vec<Lack>)]) -> ProviderError {
    let told = |(model, lacks): &(ModelRef, Vec<Lack>)| {
        let lacks = lacks.iter().filter(|lack| !lack.bearable());
        let lacks: Vec<String> = lacks.map(ToString::to_string).collect();
        (model.clone(), lacks.join(", "))
    };
    let too_long = |(_, lacks): &(ModelRef, Vec<Lack>)| {
        lacks.iter().filter(|l| !l.bearable()).all(|l| matches!(l, Lack::Context { .. }))
    };
    let all: Vec<(ModelRef, String)> = lacking.iter().map(told).collect();
    let mut detail = all.first().map(|(_, lacks)| lacks.clone()).unwrap_or_default();
    for (model, lacks) in all.iter().skip(1) {
        detail = format!("{detail}; {model} {lacks}");
    }
    let fault = if lacking.iter().all(too_long) {
        ProviderFault::ContextTooLong { detail }
    } else {
        ProviderFault::Incapable { detail }
    };
    let (provider, model) = all.first().map_or_else(Default::default, |(model, _)| {
        (model.provider.to_string(), model.model.to_string())
    });
    ProviderError { provider, model, fault }
}

fn error(model: &ModelRef, fault: ProviderFault) -> ProviderError {
    ProviderError { provider: model.provider.to_string(), model: model.model.to_string(), fault }
}

fn replay(recorded: &Recorded) -> Result<ModelAnswer, NodeError> {
    match (&recorded.called.reply, &recorded.message) {
        (Reply::Message { .. }, Some(message)) => Ok(ModelAnswer {
            message: Message::clone(message),
            finish: recorded.called.model.as_ref().map_or(Finish::Stop, |m| m.finish),
        }),
        (Reply::ModelFailed { error, .. }, _) => Err(error.clone()),
        _ => Err(NodeError::Internal("a model's record holds no answer".into())),
    }
}
