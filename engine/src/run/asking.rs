//! Questions to models: who is asked, who is asked next when that one fails, and when it is over.
//!
//! Invariants:
//! - Only models that can do what the request needs are asked; what none can do is told before
//!   anything is sent.
//! - Another model is asked only until the first piece of an answer came. After it nothing is
//!   spliced: the call fails, or what was shown is void and the whole answer is asked for again.
//! - Every attempt stands in the call's record and has a span of its own.
//! - No pause is longer than the time that the run and the node have left.

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
    pub async fn call_model(&self, ask: ModelCall) -> Result<ModelAnswer, NodeError> {
        let call: Arc<str> = ask.call.as_str().into();
        if let Some(recorded) = self.replies.get(&call) {
            return replay(recorded);
        }
        let chain = self.chain(&ask.model)?;
        let request = request(&ask);
        let models = self.able(chain.models, &request).map_err(NodeError::Provider)?;
        let chain = Chain { models, ..chain };
        self.intent(&call, Callee::Model(chain.models[0].clone())).await;
        let began = self.services.env.monotonic();
        let mut asking = Asking {
            cx: self,
            call: &call,
            ask: &ask,
            request,
            left: chain.models.iter().map(|model| (model.clone(), 0)).collect(),
            after_first_token: chain.after_first_token,
            attempts: Vec::new(),
            void: false,
        };
        let outcome = asking.until_answered().await;
        let took_ms = millis(self.services.env.monotonic().saturating_sub(began));
        let (reply, model, message) = match &outcome {
            Ok(answered) => {
                let message = self.assistant(&answered.model, &answered.reply);
                let facts = ModelFacts {
                    model: answered.model.clone(),
                    usage: answered.reply.usage,
                    first_ms: answered.partial.first_ms,
                    finish: answered.reply.finish,
                };
                let reply = Reply::Message { id: message.id.clone(), failed: None };
                (reply, Some(facts), Some(message))
            }
            Err((error, partial)) => {
                let error = NodeError::Provider(error.clone());
                let (text, reasoning) = (partial.text.clone(), partial.reasoning.clone());
                (Reply::ModelFailed { error, text, reasoning }, None, None)
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
        self.called(called, message.clone()).await;
        match (outcome, message) {
            (Ok(Answered { reply, .. }), Some(message)) => {
                Ok(ModelAnswer { message, finish: reply.finish })
            }
            (Err((error, _)), _) => Err(NodeError::Provider(error)),
            (Ok(_), None) => Err(NodeError::Internal("an answer without a message".into())),
        }
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
        let cards: Vec<_> = chain.map(|(_, model)| (model.clone(), models.card(&model))).collect();
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
    /// Who may still be asked, and how often each was.
    left: Vec<(ModelRef, u32)>,
    after_first_token: AfterFirstToken,
    attempts: Vec<Attempt>,
    /// What was streamed is void: the next attempt says so first.
    void: bool,
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
    /// Asks one model after the other, and after a pause those again for whom that may help.
    async fn until_answered(&mut self) -> Result<Answered, Failed> {
        let mut last = None;
        for round in 0.. {
            let mut wait = None::<Duration>;
            let asked = std::mem::take(&mut self.left);
            for (place, (model, tries)) in asked.iter().enumerate() {
                let others = place + 1 < asked.len();
                let failed = match self.attempt(model, *tries, others).await {
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
                if *tries < self.retries(model)
                    && let Some(pause) = self.pause(round, &error.fault)
                {
                    wait = Some(wait.map_or(pause, |wait| wait.min(pause)));
                    self.left.push((model.clone(), tries + 1));
                }
                last = Some(failed);
            }
            match wait.filter(|wait| self.has_time(*wait)) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => break,
            }
        }
        Err(last.unwrap_or_else(|| self.nobody()))
    }

    /// The failure of a chain without models.
    fn nobody(&self) -> Failed {
        let (provider, model) = (String::new(), self.ask.model.clone());
        let fault = ProviderFault::ProviderUnknown;
        (ProviderError { provider, model, fault }, Partial::default())
    }

    /// `tries`: how often the model was asked before; `others`: more models follow in this round, so
    /// that a refusal need not be the last word.
    async fn attempt(
        &mut self,
        model: &ModelRef,
        tries: u32,
        others: bool,
    ) -> Result<Answered, Failed> {
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
                if tries > 0 {
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

    fn retries(&self, model: &ModelRef) -> u32 {
        let provider = self.cx.services.models.provider(&model.provider);
        provider.map_or(0, |provider| provider.retries())
    }

    /// Until the model may be asked again; `None`: that cannot help.
    fn pause(&self, round: u32, fault: &ProviderFault) -> Option<Duration> {
        let asked = match fault.retry() {
            Retry::Never => return None,
            Retry::Backoff => Duration::ZERO,
            Retry::After(asked) if asked > ASKED_MAX => return None,
            Retry::After(asked) => asked,
        };
        let doubled = PAUSE.saturating_mul(1 << round.min(16)).min(PAUSE_MAX);
        let mut random = [0; 2];
        self.cx.services.env.fill(&mut random);
        // Spread by half, so that many runs do not come back at once.
        let spread = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
        Some(doubled.mul_f64(0.5 + spread / 2.0).max(asked))
    }

    fn has_time(&self, pause: Duration) -> bool {
        let now = self.cx.services.env.monotonic();
        self.cx.deadline.is_none_or(|deadline| now + pause < deadline)
    }
}

/// Whether the model would not answer.
fn refused(reply: &ModelReply) -> bool {
    let silent = reply.tool_calls.is_empty();
    silent && matches!(reply.finish, Finish::Refused | Finish::Filtered)
}

fn request(ask: &ModelCall) -> ModelRequest {
    ModelRequest {
        model: "".into(),
        messages: ask.messages.clone(),
        tools: ask.tools.clone(),
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
