//! Model providers: what is asked of them, what they answer, how they fail; and which
//! `provider/model` a name in a graph stands for.
//!
//! | file | holds |
//! |---|---|
//! | `registry.rs` | every configured provider and alias; the chain a name stands for |
//! | `card.rs`, `price.rs` | the capability matrix |
//! | `needs.rs` | what a request needs, and which models of a chain can do it |
//! | `asking.rs`, `pause.rs` | one model after the other, until one answers; how long is waited in between |
//! | `meter.rs` | what calls cost whom |
//! | `breaker.rs` | who failed too often and is left alone for a while |
//!
//! Absent on purpose: the wire (`nodes/src/providers/`), and what runs make of an answer
//! (`run/asking.rs`).

pub mod asking;
pub mod breaker;
pub mod card;
pub mod meter;
pub mod needs;
pub(crate) mod pause;
pub mod price;
mod registry;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::message::{Message, ToolCall};
use crate::model::meter::Exceeded;
use crate::tool::ToolSpec;

pub use registry::{AfterFirstToken, Aliases, Chain, ModelAlias, Models};

/// `provider/model`, e.g. `deepseek/deepseek-flash`. The model part may itself hold slashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelRef {
    /// Name of the provider as configured.
    pub provider: Arc<str>,
    /// Name of the model as the provider knows it.
    pub model: Arc<str>,
}

impl ModelRef {
    /// Splits at the first slash; `None` if a part is empty or holds a control character.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (provider, model) = text.split_once('/')?;
        let good =
            |s: &str| !s.is_empty() && !s.chars().any(|c| c.is_control() || c.is_whitespace());
        (good(provider) && good(model))
            .then(|| Self { provider: provider.into(), model: model.into() })
    }
}

impl std::fmt::Display for ModelRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

impl Serialize for ModelRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ModelRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected provider/model"))
    }
}

/// What a model is asked.
#[derive(Clone, Debug)]
pub struct ModelRequest {
    /// Model name as the provider knows it.
    pub model: Arc<str>,
    /// System messages first; complete, in order.
    pub messages: Vec<Arc<Message>>,
    /// What the model may call.
    pub tools: Vec<ToolSpec>,
    /// Whether it must.
    pub tool_choice: ToolChoice,
    /// 0.0–2.0; dropped where the model refuses it (wire facts 10, 15).
    pub temperature: Option<f64>,
    /// Upper bound of the answer, in tokens.
    pub max_tokens: Option<u32>,
    /// JSON Schema that the answer must meet.
    pub output_schema: Option<Value>,
    /// How hard it thinks; `None`: as the provider does by itself.
    pub reasoning: Option<Effort>,
    /// Further fields of chat completions, as a caller wrote them: sent as they are by a provider
    /// that speaks them, refused by name by every other one. They stand above what the provider's
    /// rules would write.
    pub further: Map<String, Value>,
}

/// How hard a model thinks before it answers. A model that does not know the word is asked for the
/// nearest one that it knows (wire facts 10, 15); one that does not think is not asked at all.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// Not at all, where that can be had.
    None,
    /// As little as it can.
    Minimal,
    /// A little.
    Low,
    /// As much as most questions need.
    Medium,
    /// A lot.
    High,
    /// As hard as it can.
    Max,
}

/// Whether the model may, must or must not call a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// It must not.
    None,
    /// It must call some tool.
    Required,
    /// It must call this one.
    Named(String),
}

/// A piece of an answer on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// Visible text; never empty.
    Text(String),
    /// Thinking; never empty.
    Reasoning(String),
    /// Visible text of a refusal; never empty. Another model may be asked in its place.
    Refusal(String),
}

impl Delta {
    /// A piece of text, or of reasoning.
    #[must_use]
    pub fn piece(reasoning: bool, text: &str) -> Self {
        if reasoning { Self::Reasoning(text.to_owned()) } else { Self::Text(text.to_owned()) }
    }
}

/// Where deltas go. Bounded: a slow reader slows the reading of the socket, nothing is dropped.
pub type DeltaSender = mpsc::Sender<Delta>;

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelReply {
    /// Equal to the text deltas joined.
    pub content: String,
    /// Equal to the reasoning deltas joined; `Some("")` where the provider sent an empty one.
    pub reasoning: Option<String>,
    /// Complete calls only: a half call of a truncated answer is never here (wire fact 7).
    pub tool_calls: Vec<ToolCall>,
    /// Why the model stopped.
    pub finish: Finish,
    /// As counted by the provider; `None` if it never said.
    pub usage: Option<Usage>,
    /// The model that the provider says answered.
    pub model: String,
    /// The provider's id of the answer.
    pub id: Option<String>,
    /// Provider fields to be echoed with the message.
    pub opaque: Option<Value>,
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// Done; some providers say so of an answer that calls tools, too (wire fact 8): whether it
    /// does, [`ModelReply::tool_calls`] says.
    Stop,
    /// It calls tools.
    ToolCalls,
    /// The token limit cut it.
    Length,
    /// The provider's filter cut it.
    Filtered,
    /// The model refused; the refusal is the content (wire fact 9).
    Refused,
}

/// Tokens of one call, each counted once: `input` includes `cached` and `written`,
/// `output` includes `reasoning`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    #[serde(rename = "in")]
    pub input: u64,
    /// Of these, read from the provider's cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached: u64,
    /// Of these, written to the provider's cache at a price of its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub written: u64,
    /// Completion tokens, reasoning included.
    #[serde(rename = "out")]
    pub output: u64,
    /// Of these, spent on reasoning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reasoning: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Usage {
    /// The most tokens that one call is believed to have taken. What a provider counts is not to be
    /// believed without end: a count that no store holds would stand in the way of its run.
    pub const CALL_MOST: u64 = 1_000_000_000_000;

    /// Where sums of calls end: beyond what anybody can pay, and exact in every reader of JSON.
    pub const SUM_MOST: u64 = 1_000_000_000_000_000;

    /// As one call counts at most. Whatever comes from a provider passes here first.
    #[must_use]
    pub fn of_one_call(self) -> Self {
        self.map(|count| count.min(Self::CALL_MOST))
    }

    fn map(self, count: impl Fn(u64) -> u64) -> Self {
        let Self { input, cached, written, output, reasoning } = self;
        let [input, cached, written, output, reasoning] =
            [input, cached, written, output, reasoning].map(count);
        Self { input, cached, written, output, reasoning }
    }
}

/// Sums stop at [`Usage::SUM_MOST`].
impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input = self.input.saturating_add(other.input);
        self.cached = self.cached.saturating_add(other.cached);
        self.written = self.written.saturating_add(other.written);
        self.output = self.output.saturating_add(other.output);
        self.reasoning = self.reasoning.saturating_add(other.reasoning);
        *self = self.map(|count| count.min(Self::SUM_MOST));
    }
}

/// How often a call is made again where nothing else is said.
pub const RETRIES: u32 = 2;

/// Texts as vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// One for each text, in their order, all of one length.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of the texts; `None` if the provider never said.
    pub usage: Option<Usage>,
    /// The model that the provider says answered.
    pub model: String,
}

/// Serves models over some protocol.
///
/// New provider: one file in `nodes/src/providers/`, one line in its `mod.rs`.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The name before the slash.
    fn name(&self) -> &str;

    /// How often a call that failed before it was answered is made again.
    fn retries(&self) -> u32 {
        RETRIES
    }

    /// Whether a call could be made now: `Err` names the variable of a missing key.
    fn ready(&self) -> Result<(), ProviderError>;

    /// Answers in one piece.
    async fn complete(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError>;

    /// Answers piece by piece. Every delta is sent before the call returns; a closed `deltas` is
    /// no error. Dropping the future closes the upstream connection.
    async fn stream(
        &self,
        request: &ModelRequest,
        deltas: &DeltaSender,
    ) -> Result<ModelReply, ProviderError>;

    /// Turns texts into vectors of `model`. A provider without such models sends nothing. `further`:
    /// fields of OpenAI's embeddings, as a caller wrote them.
    async fn embed(
        &self,
        model: &str,
        texts: &[String],
        further: &Map<String, Value>,
    ) -> Result<Embeddings, ProviderError> {
        let _ = (texts, further);
        let detail = "this provider has no embeddings".to_owned();
        Err(ProviderError {
            provider: self.name().to_owned(),
            model: model.to_owned(),
            fault: ProviderFault::NotSent { detail },
        })
    }
}

/// A failed call to a model, naming whom it was made to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{provider}/{model}: {fault}")]
pub struct ProviderError {
    /// Provider as configured.
    pub provider: String,
    /// Model as asked for.
    pub model: String,
    /// What went wrong.
    pub fault: ProviderFault,
}

/// What went wrong with a call to a model. Texts never hold a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderFault {
    /// No key is configured.
    #[error("no API key: set {variable}")]
    KeyMissing {
        /// The environment variable that would hold it.
        variable: String,
    },
    /// 401 or 403.
    #[error("the provider refused the key ({detail}); check {variable}")]
    Unauthorized {
        /// The environment variable that holds it.
        variable: String,
        /// The provider's words.
        detail: String,
    },
    /// 402, or a 429 that says the balance or quota is used up (wire fact 13): never retried.
    #[error("the account has no balance left: {detail}")]
    NoBalance {
        /// The provider's words.
        detail: String,
    },
    /// 429 of any other kind.
    #[error("the provider limits the rate: {detail}")]
    RateLimited {
        /// How long the provider asks to wait.
        retry_after_ms: Option<u64>,
        /// The provider's words.
        detail: String,
    },
    /// Unknown model (400 or 404, wire facts 13, 18).
    #[error("the provider does not know this model: {detail}")]
    ModelUnknown {
        /// The provider's words.
        detail: String,
    },
    /// The input is longer than the model's context (wire fact 27).
    #[error("the input is too long for the model: {detail}")]
    ContextTooLong {
        /// The provider's words.
        detail: String,
    },
    /// Another 4xx: the request itself is at fault.
    #[error("the provider refused the request ({status}): {detail}")]
    BadRequest {
        /// HTTP status.
        status: u16,
        /// The provider's words.
        detail: String,
    },
    /// Something in it can be sent to no provider, or not to this one.
    #[error("the request was not sent: {detail}")]
    NotSent {
        /// What, and why.
        detail: String,
    },
    /// 5xx, an error inside a stream, or a lack of resources (wire facts 4, 9).
    #[error("the provider failed ({status}): {detail}")]
    Unavailable {
        /// HTTP status; 200 for an error inside a stream.
        status: u16,
        /// The provider's words.
        detail: String,
    },
    /// No connection: the request was not sent.
    #[error("cannot connect: {detail}")]
    Connect {
        /// The system's words.
        detail: String,
    },
    /// Nothing came for too long.
    #[error("{phase} timed out after {after_ms} ms")]
    Timeout {
        /// `first byte`, `idle` or `total`.
        phase: String,
        /// The limit that passed, in milliseconds.
        after_ms: u64,
    },
    /// The stream ended or broke without an end mark (wire fact 2).
    #[error("the answer broke off: {detail}")]
    Truncated {
        /// What was missing.
        detail: String,
    },
    /// The answer is not of the protocol.
    #[error("the answer cannot be read: {detail}")]
    Garbage {
        /// What was expected and where it failed.
        detail: String,
    },
    /// It failed too often and is left alone for a while: the request was not sent.
    #[error("it failed too often and is left alone for {retry_after_ms} ms")]
    CircuitOpen {
        /// Until it is asked again.
        retry_after_ms: u64,
    },
    /// It would not answer: a refusal, or a filter.
    #[error("it would not answer: {detail}")]
    Refused {
        /// The model's words.
        detail: String,
    },
    /// It is known to be unable to do what the request needs: the request was not sent.
    #[error("it cannot do this: it {detail}")]
    Incapable {
        /// What it lacks.
        detail: String,
    },
    /// A quota of this installation is used up: the request was not sent.
    #[error("{0}")]
    QuotaExceeded(Box<Exceeded>),
    /// The name is not of a configured provider.
    #[error("no provider of this name is configured")]
    ProviderUnknown,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same call fails again.
    Never,
    /// After a pause of the caller's choice.
    Backoff,
    /// Not before this has passed.
    After(Duration),
}

impl ProviderFault {
    /// The stable code that problems, records and logs carry.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyMissing { .. } => "provider_key_missing",
            Self::Unauthorized { .. } => "provider_unauthorized",
            Self::NoBalance { .. } => "provider_no_balance",
            Self::RateLimited { .. } => "provider_rate_limited",
            Self::ModelUnknown { .. } => "provider_model_unknown",
            Self::ContextTooLong { .. } => "context_too_long",
            Self::BadRequest { .. } => "provider_refused_request",
            Self::NotSent { .. } => "provider_request_invalid",
            Self::Unavailable { .. } => "provider_unavailable",
            Self::Connect { .. } => "provider_unreachable",
            Self::Timeout { .. } => "provider_timeout",
            Self::Truncated { .. } => "provider_truncated",
            Self::Garbage { .. } => "provider_garbage",
            Self::CircuitOpen { .. } => "provider_circuit_open",
            Self::Refused { .. } => "model_refused",
            Self::Incapable { .. } => "model_incapable",
            Self::QuotaExceeded(_) => "quota_exceeded",
            Self::ProviderUnknown => "provider_unknown",
        }
    }

    /// Whether another model may be asked in its place: the provider is at fault, not the request.
    /// A missing key and an empty account are the operator's to mend, and say so. No wildcard arm.
    #[must_use]
    pub fn falls_back(&self) -> bool {
        match self {
            Self::Unauthorized { .. }
            | Self::RateLimited { .. }
            | Self::Unavailable { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Truncated { .. }
            | Self::Garbage { .. }
            | Self::CircuitOpen { .. }
            | Self::Refused { .. }
            | Self::QuotaExceeded(_)
            | Self::Incapable { .. } => true,
            Self::KeyMissing { .. }
            | Self::NoBalance { .. }
            | Self::ModelUnknown { .. }
            | Self::ContextTooLong { .. }
            | Self::BadRequest { .. }
            | Self::NotSent { .. }
            | Self::ProviderUnknown => false,
        }
    }

    /// Whether it is what the conversation holds that is refused, so that whatever is said next is
    /// refused with it. What passes by itself, or is the operator's to mend, is none of these. No
    /// wildcard arm.
    #[must_use]
    pub fn refuses_conversation(&self) -> bool {
        match self {
            Self::ContextTooLong { .. }
            | Self::BadRequest { .. }
            | Self::Refused { .. }
            | Self::Incapable { .. } => true,
            // What is not sent names a model or a tool that nobody can be sent, or has no price.
            Self::NotSent { .. }
            | Self::KeyMissing { .. }
            | Self::Unauthorized { .. }
            | Self::NoBalance { .. }
            | Self::RateLimited { .. }
            | Self::ModelUnknown { .. }
            | Self::Unavailable { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Truncated { .. }
            | Self::Garbage { .. }
            | Self::CircuitOpen { .. }
            | Self::QuotaExceeded(_)
            | Self::ProviderUnknown => false,
        }
    }

    /// Whether trying again can help. No wildcard arm: a new fault must choose its class.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::KeyMissing { .. }
            | Self::Unauthorized { .. }
            | Self::NoBalance { .. }
            | Self::ModelUnknown { .. }
            | Self::ContextTooLong { .. }
            | Self::BadRequest { .. }
            | Self::Refused { .. }
            | Self::Incapable { .. }
            | Self::NotSent { .. }
            | Self::QuotaExceeded(_)
            | Self::ProviderUnknown => Retry::Never,
            Self::RateLimited { retry_after_ms: Some(ms), .. }
            | Self::CircuitOpen { retry_after_ms: ms } => Retry::After(Duration::from_millis(*ms)),
            Self::RateLimited { retry_after_ms: None, .. }
            | Self::Unavailable { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Truncated { .. }
            | Self::Garbage { .. } => Retry::Backoff,
        }
    }
}
