//! Asking a chain of models: who is asked, who is asked next when that one fails, and when it is
//! over. Runs ask this way (`run/asking.rs`), and so does whoever asks without a run.
//!
//! Invariants:
//! - Only models that can do what the request needs are asked; what none can do is told before
//!   anything is sent.
//! - Another model is asked only until the first piece of an answer came. After it nothing is
//!   spliced: the call fails, or what was shown is void and the whole answer is asked for again.
//! - Every attempt is told, and each that was sent has a span of its own.
//! - A model is not asked again before the pause that its provider asks for is over.
//! - Every attempt has its reserve, and its answer no more tokens than that.
//! - No pause is longer than the time that the asker has left.
//! - Dropping the future closes the connection to whoever is being asked.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::meter::{Bill, Cap, Exceeded, Payer, Size};
use super::needs::{Lack, Needs};
use super::pause;
use super::{
    AfterFirstToken, Chain, Delta, Embeddings, Finish, ModelRef, ModelReply, ModelRequest, Models,
    ProviderError, ProviderFault, Retry, Usage,
};
use crate::env::Env;
use crate::span;

/// The pause before the first retry, doubled with each further one.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause of our own choice.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// The longest pause that a provider may ask for; a longer one ends the call.
const ASKED_MAX: Duration = Duration::from_mins(1);
/// Pieces of an answer that wait for who takes them.
const PIECES: usize = 64;

/// Whoever asks, told of what comes while it comes.
#[async_trait]
pub trait Asker: Send + Sync {
    /// The conversation that the call is of, for its spans.
    fn conversation(&self) -> Option<&str>;

    /// Who the call is made for.
    fn payer(&self) -> Payer;

    /// Whether there is time for a pause, at `now` on the monotonic clock.
    fn has_time(&self, now: Duration, pause: Duration) -> bool;

    /// What came before is void: `model` is asked for the whole answer again.
    async fn again(&self, model: &ModelRef);

    /// A piece of the answer.
    async fn piece(&self, delta: Delta);
}

/// An attempt to get an answer that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Whom it was made with.
    #[serde(rename = "m")]
    pub model: ModelRef,
    /// How long it took, in milliseconds.
    #[serde(rename = "took")]
    pub took_ms: u64,
    /// Why it failed.
    #[serde(rename = "f")]
    pub fault: ProviderFault,
    /// A part of an answer had been streamed.
    #[serde(rename = "s", default, skip_serializing_if = "std::ops::Not::not")]
    pub streamed: bool,
}

/// What asking a chain came to.
#[derive(Debug)]
pub struct Asked {
    /// The answer, or why there is none.
    pub outcome: Result<Answered, Failed>,
    /// Attempts that failed, in order; of a call that failed, the last one as well.
    pub attempts: Vec<Attempt>,
}

/// An answer.
#[derive(Debug)]
pub struct Answered {
    /// Who gave it.
    pub model: ModelRef,
    /// The whole of it.
    pub reply: ModelReply,
    /// Milliseconds to its first piece.
    pub first_ms: Option<u64>,
}

/// Why there is no answer, and what of one had been streamed.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: ProviderError,
    /// Text that was streamed.
    pub text: String,
    /// Reasoning that was streamed.
    pub reasoning: String,
}

impl Models {
    /// The models of a chain that can answer; a fallback without a key cannot.
    ///
    /// # Errors
    /// What they lack, in the name of the first.
    pub fn able(
        &self,
        chain: Vec<ModelRef>,
        request: &ModelRequest,
    ) -> Result<Vec<ModelRef>, ProviderError> {
        let keyed = |model: &ModelRef| {
            self.provider(&model.provider).is_some_and(|provider| provider.ready().is_ok())
        };
        let chain = chain.into_iter().enumerate().filter(|(n, model)| *n == 0 || keyed(model));
        let known = |(_, model): (usize, ModelRef)| {
            let card = self.catalogue().card(&model);
            (model, card)
        };
        let cards: Vec<_> = chain.map(known).collect();
        let rooms = cards.iter().filter_map(|(_, card)| card.context.as_ref());
        let room = rooms.map(|cell| cell.value).min();
        Needs::of(request, room).choose(cards).map_err(|lacking| incapable(&lacking))
    }

    /// Asks the models of a chain, one after the other, as [`able`](Self::able) gave them. The name
    /// in `request` is filled in here.
    pub async fn ask(
        &self,
        env: &dyn Env,
        asker: &dyn Asker,
        chain: Chain,
        request: ModelRequest,
    ) -> Asked {
        let began = env.monotonic();
        let candidate = |(place, model)| Candidate { place, model, tries: 0, not_before: began };
        let mut asking = Asking {
            models: self,
            env,
            asker,
            bill: self.bill(&asker.payer()),
            size: Size::of(&request),
            request,
            left: chain.models.into_iter().enumerate().map(candidate).collect(),
            after_first_token: chain.after_first_token,
            attempts: Vec::new(),
            void: false,
        };
        let outcome = asking.until_answered().await;
        let attempts = asking.attempts;
        let failed = |(error, Partial { text, reasoning, .. })| Failed { error, text, reasoning };
        Asked { outcome: outcome.map_err(failed), attempts }
    }
}

impl Models {
    /// Turns texts into vectors of `model`, once: vectors of different models do not mix. `further`:
    /// fields of OpenAI's embeddings, as a caller wrote them.
    ///
    /// # Errors
    /// A quota, or the provider.
    pub async fn embed(
        &self,
        payer: &Payer,
        model: &ModelRef,
        texts: &[String],
        further: &Map<String, Value>,
    ) -> Result<Embeddings, ProviderError> {
        let unknown = || error(model, ProviderFault::ProviderUnknown);
        let provider = self.provider(&model.provider).ok_or_else(unknown)?;
        let mut bill = self.bill(payer);
        if let Some(bill) = &mut bill {
            let size = Size::of_texts(texts);
            bill.reserve(model, size).await.map_err(|fault| error(model, fault))?;
        }
        let mut made = provider.embed(&model.model, texts, further).await;
        if let Ok(made) = &mut made {
            made.usage = made.usage.map(Usage::of_one_call);
        }
        if let Some(bill) = &mut bill {
            match &made {
                Ok(made) => bill.answered(made.usage, &[]),
                Err(error) => bill.failed(&error.fault),
            }
        }
        made
    }
}

/// One call on its way through a chain of models.
struct Asking<'a> {
    models: &'a Models,
    env: &'a dyn Env,
    asker: &'a dyn Asker,
    bill: Option<Box<dyn Bill>>,
    size: Size,
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

/// What had been streamed when an attempt ended.
#[derive(Default)]
struct Partial {
    text: String,
    reasoning: String,
    first_ms: Option<u64>,
}

type Broken = (ProviderError, Partial);

impl Asking<'_> {
    /// Asks one model after the other, and each again after its pause, as long as that may help.
    async fn until_answered(&mut self) -> Result<Answered, Broken> {
        let mut last = None;
        while let Some(next) = self.left.iter().map(|candidate| candidate.not_before).min() {
            let now = self.env.monotonic();
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
        Err(last.unwrap_or_else(nobody))
    }

    /// The model once more, after its pause; `None`: that cannot help.
    fn again(&self, candidate: &Candidate, fault: &ProviderFault) -> Option<Candidate> {
        let Candidate { place, model, tries, .. } = candidate;
        let provider = self.models.provider(&model.provider)?;
        // Whoever is left alone is left alone by this call, too.
        let open = matches!(fault, ProviderFault::CircuitOpen { .. });
        if *tries >= provider.retries() || open {
            return None;
        }
        let not_before = self.env.monotonic() + self.pause(*tries, fault)?;
        Some(Candidate { place: *place, model: model.clone(), tries: tries + 1, not_before })
    }

    /// `others`: more models follow at once, so that a refusal need not be the last word.
    async fn attempt(&mut self, candidate: &Candidate, others: bool) -> Result<Answered, Broken> {
        let model = &candidate.model;
        let breakers = self.models.breakers();
        let began = self.env.monotonic();
        if let Err(rest) = breakers.enter(model, began) {
            let fault = ProviderFault::CircuitOpen { retry_after_ms: millis(rest) };
            return Err(self.note(model, Duration::ZERO, fault, Partial::default()));
        }
        // The bill stays where it is: an early return must leave it to the attempts that follow.
        let mut cap = None;
        if let Some(bill) = &mut self.bill {
            match bill.reserve(model, self.size).await {
                Ok(granted) => {
                    let tokens = granted.as_ref().map(|cap| cap.tokens);
                    self.request.max_tokens = tokens.or(self.size.output);
                    cap = granted;
                }
                Err(fault) => {
                    breakers.left(model);
                    return Err(self.note(model, Duration::ZERO, fault, Partial::default()));
                }
            }
        }
        if std::mem::take(&mut self.void) {
            self.asker.again(model).await;
        }
        self.request.model = model.model.clone();
        let span = span::chat(model, &self.request, self.asker.conversation());
        let streaming = Streaming { models: self.models, env: self.env, asker: self.asker, others };
        let answer = streaming.answer(model, &self.request, self.bill.as_deref_mut());
        let outcome = answer.instrument(span.clone()).await;
        let now = self.env.monotonic();
        if let Some(bill) = &mut self.bill {
            match &outcome {
                Ok((reply, _)) => bill.answered(reply.usage, &reply.tool_calls),
                Err((fault, _)) => bill.failed(fault),
            }
        }
        let cut = outcome.as_ref().ok().and_then(|(reply, _)| cut_by(cap, reply, &self.request));
        if outcome.is_ok() {
            breakers.succeeded(model);
        }
        let (fault, partial) = match (outcome, cut) {
            (Ok((reply, partial)), _)
                if others && refused(&reply) && partial.first_ms.is_none() =>
            {
                (ProviderFault::Refused { detail: reply.content }, partial)
            }
            (Ok((_, partial)), Some(quota)) => (ProviderFault::QuotaExceeded(quota), partial),
            (Ok((reply, partial)), None) => {
                span::chat_ended(&span, Ok(&reply));
                let first_ms = partial.first_ms;
                return Ok(Answered { model: model.clone(), reply, first_ms });
            }
            (Err((fault, partial)), _) => {
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
    ) -> Broken {
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
        Some(pause::before_retry(self.env, (PAUSE, PAUSE_MAX), retries, asked))
    }

    fn has_time(&self, pause: Duration) -> bool {
        self.asker.has_time(self.env.monotonic(), pause)
    }
}

/// One attempt, apart from the chain, so that it can borrow the chain's bill.
struct Streaming<'a> {
    models: &'a Models,
    env: &'a dyn Env,
    asker: &'a dyn Asker,
    /// More models follow at once, so that a refusal need not be the last word.
    others: bool,
}

impl Streaming<'_> {
    /// Streams one answer, handing deltas on as they come; a refusal only if nobody else is asked.
    async fn answer(
        &self,
        model: &ModelRef,
        request: &ModelRequest,
        mut bill: Option<&mut (dyn Bill + 'static)>,
    ) -> Result<(ModelReply, Partial), (ProviderFault, Partial)> {
        let mut partial = Partial::default();
        let Some(provider) = self.models.provider(&model.provider) else {
            return Err((ProviderFault::ProviderUnknown, partial));
        };
        let began = self.env.monotonic();
        let (sender, mut deltas) = mpsc::channel(PIECES);
        let answer = async {
            let reply = provider.stream(request, &sender).await;
            drop(sender);
            reply
        };
        let pump = async {
            while let Some(delta) = deltas.recv().await {
                if let Some(bill) = &mut bill {
                    bill.piece(&delta);
                }
                if self.others && matches!(delta, Delta::Refusal(_)) && partial.first_ms.is_none() {
                    continue;
                }
                if partial.first_ms.is_none() {
                    let first = self.env.monotonic().saturating_sub(began);
                    span::first_chunk(first);
                    partial.first_ms = Some(millis(first));
                }
                match &delta {
                    Delta::Text(text) | Delta::Refusal(text) => partial.text.push_str(text),
                    Delta::Reasoning(text) => partial.reasoning.push_str(text),
                }
                self.asker.piece(delta).await;
            }
        };
        let (reply, ()) = futures_util::future::join(answer, pump).await;
        match reply {
            Ok(mut reply) => {
                reply.usage = reply.usage.map(Usage::of_one_call);
                Ok((reply, partial))
            }
            Err(error) => Err((error.fault, partial)),
        }
    }
}

/// The failure of a chain without models, which no name stands for.
fn nobody() -> Broken {
    let fault = ProviderFault::ProviderUnknown;
    let (provider, model) = Default::default();
    (ProviderError { provider, model, fault }, Partial::default())
}

/// The quota that cut an answer before there was anything to use in it: thinking may take all that
/// a quota has left, and JSON that is cut is none.
fn cut_by(cap: Option<Cap>, reply: &ModelReply, request: &ModelRequest) -> Option<Box<Exceeded>> {
    let Cap { tokens, quota } = cap?;
    let said = !reply.content.trim().is_empty() && request.output_schema.is_none();
    let useless = reply.finish == Finish::Length && reply.tool_calls.is_empty() && !said;
    let quota = quota.filter(|_| useless)?;
    Some(Box::new(Exceeded { cut_at: Some(tokens), ..*quota }))
}

/// Whether the model would not answer.
fn refused(reply: &ModelReply) -> bool {
    let silent = reply.tool_calls.is_empty();
    silent && matches!(reply.finish, Finish::Refused | Finish::Filtered)
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

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
