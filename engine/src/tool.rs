//! Tools: what a model or a graph can call.
//!
//! Authors implement [`Tool`] with typed arguments and output; [`Typed`] is the one adapter to
//! the JSON shape ([`DynTool`]) that the [`ToolRegistry`] stores.
//!
//! Invariants:
//! - Arguments are checked against the schema before a tool sees them; a wrong one is a
//!   [`ToolError`] that the model reads, never a failed run.
//! - A result is bounded: text above [`Limits::tool_result`] bytes is cut at a character and says
//!   so, and JSON that nests deeper than [`Limits::json`] admits is an error.
//! - Names are unique, at most 64 characters of `[A-Za-z0-9_-]`, the same in YAML, API and model.

use std::sync::Arc;

use async_trait::async_trait;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::env::Env;
use crate::id::{RunId, UserId};
use crate::json;
use crate::limits::Limits;
use crate::validator;

/// What calling a tool does to the world, and so what may happen to an open call after a crash.
/// Later ones are stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Reads only: may be called again.
    Pure,
    /// Calling again under the same key does nothing more.
    Idempotent,
    /// Calling again may do it twice: an open call is left to a person.
    Unsafe,
}

/// A tool as models, the API and graphs see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToolSpec {
    /// Unique; see the module's invariants.
    pub name: String,
    /// For the model.
    pub description: String,
    /// JSON Schema 2020-12 of the arguments; its root is an object.
    pub parameters: Value,
    /// What calling it does.
    pub effect: Effect,
    /// Whether its answers hold text from elsewhere, which may try to steer a model.
    pub taints: bool,
    /// Whether a provider that can is to hold a model's arguments to the schema.
    #[serde(skip)]
    pub strict: bool,
    /// Where it comes from: `native`, later a plugin, an MCP server or an HTTP service.
    pub source: String,
    /// SHA-256, in hexadecimal, of name, description and parameters.
    pub hash: String,
}

impl ToolSpec {
    /// Fills in the hash. Its answers count as text from elsewhere.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        description: impl Into<String>,
        parameters: Value,
        effect: Effect,
        source: impl Into<String>,
    ) -> Self {
        let (name, description) = (name.into(), description.into());
        let text = json!([name, description, parameters]).to_string();
        let hash = crate::hex(&Sha256::digest(text.as_bytes()));
        let source = source.into();
        let (taints, strict) = (true, false);
        Self { name, description, parameters, effect, taints, strict, source, hash }
    }
}

/// Who calls, and under which key.
#[derive(Clone)]
pub struct ToolCx {
    /// The same for every attempt of one call; to be passed on as an idempotency key.
    pub key: String,
    /// Whose run it is.
    pub user: UserId,
    /// The run, if the call is of one (`POST /api/tools/{name}/call` is of none).
    pub run: Option<RunId>,
    /// Clock and randomness.
    pub env: Arc<dyn Env>,
    /// The answer to what this call asked before.
    pub resumed: Option<Resumed>,
    /// How long the answer may be, and how deep.
    pub limits: Arc<Limits>,
}

/// What a tool answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolAnswer {
    /// It worked; any JSON.
    Done(Value),
    /// It did not; the model reads why.
    Failed(ToolError),
    /// It needs an answer from a person first.
    Ask(ToolQuestion),
}

/// What a tool asks. The call goes on, under its key, with the answer in [`ToolCx::resumed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolQuestion {
    /// For the person.
    pub text: String,
    /// JSON Schema that an answer must meet.
    pub schema: Option<Value>,
    /// What the tool wants back together with the answer.
    pub resume: Value,
}

/// A question's answer, for the tool that asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Resumed {
    /// As in [`ToolQuestion::resume`].
    pub resume: Value,
    /// What the person answered.
    pub answer: Value,
}

impl ToolAnswer {
    /// What the model reads: text as it is, other JSON printed, an error as `{"error": …}`.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Done(Value::String(text)) => text.clone(),
            Self::Done(value) => value.to_string(),
            Self::Failed(error) => json!({ "error": error }).to_string(),
            Self::Ask(question) => question.text.clone(),
        }
    }

    /// Cuts what is longer than a tool's answer may be, and refuses what nests too deep to be
    /// stored.
    #[must_use]
    pub fn bounded(self, limits: &Limits) -> Self {
        let most = limits.tool_result;
        let text = match &self {
            Self::Done(value) if !json::is_within(value, limits.json.depth) => {
                let depth = limits.json.depth;
                let message = format!("the tool's answer nests deeper than {depth} levels");
                return Self::Failed(ToolError::new(ToolErrorKind::Internal, message));
            }
            Self::Done(Value::String(text)) => text.clone(),
            Self::Done(value) => value.to_string(),
            Self::Ask(_) => return self,
            Self::Failed(error) => {
                let message = cut(&error.message, most).unwrap_or_else(|| error.message.clone());
                return Self::Failed(ToolError { kind: error.kind, message });
            }
        };
        match cut(&text, most) {
            Some(short) => Self::Done(Value::String(short)),
            None => self,
        }
    }
}

fn cut(text: &str, most: usize) -> Option<String> {
    (text.len() > most).then(|| {
        let end = text.floor_char_boundary(most);
        format!("{}\n[cut: {} of {} bytes shown]", &text[..end], end, text.len())
    })
}

/// Why a tool did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct ToolError {
    /// Class, for the model and for metrics.
    pub kind: ToolErrorKind,
    /// What, why and what to do, for the model.
    pub message: String,
}

/// Classes of tool failures (`notes/tools.md` §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolErrorKind {
    /// Arguments do not meet the schema or make no sense.
    InvalidArgs,
    /// No tool of that name, or not one that this caller may use.
    NotFound,
    /// The guard, a grant or a person refused it.
    Denied,
    /// It took too long.
    Timeout,
    /// The other side limits the rate.
    RateLimited,
    /// The other side failed.
    Upstream,
    /// The tool itself failed.
    Internal,
    /// The run ended before the call was made.
    NotRun,
    /// The call may or may not have happened.
    OutcomeUnknown,
}

impl ToolErrorKind {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn transient(self) -> bool {
        match self {
            Self::Timeout | Self::RateLimited | Self::Upstream | Self::Internal => true,
            Self::InvalidArgs
            | Self::NotFound
            | Self::Denied
            | Self::NotRun
            | Self::OutcomeUnknown => false,
        }
    }

    /// Whether a call that failed so may have done its work all the same.
    #[must_use]
    pub fn may_have_happened(self) -> bool {
        match self {
            Self::Timeout | Self::Upstream | Self::Internal | Self::OutcomeUnknown => true,
            Self::InvalidArgs
            | Self::NotFound
            | Self::Denied
            | Self::RateLimited
            | Self::NotRun => false,
        }
    }
}

impl ToolError {
    /// An error of that kind.
    pub fn new(kind: ToolErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// A tool as an author writes it.
#[async_trait]
pub trait Tool: Send + Sync + 'static {
    /// Arguments; the schema is generated from the type.
    type Args: DeserializeOwned + JsonSchema + Send;
    /// Result.
    type Output: Serialize;
    /// See the module's invariants.
    const NAME: &'static str;
    /// For the model.
    const DESCRIPTION: &'static str;
    /// What calling it does.
    const EFFECT: Effect;
    /// Whether its answers hold text from elsewhere, which may try to steer a model.
    const TAINTS: bool = true;

    /// Does the work. Dropping the future stops it.
    async fn call(&self, cx: &ToolCx, args: Self::Args) -> Result<Self::Output, ToolError>;
}

/// A tool as the registry stores it.
#[async_trait]
pub trait DynTool: Send + Sync {
    /// Its description.
    fn spec(&self) -> &ToolSpec;

    /// Does the work with arguments that meet the schema.
    async fn call(&self, cx: &ToolCx, args: Value) -> ToolAnswer;
}

/// Lists tools, whoever provides them.
pub trait ToolSet: Send + Sync {
    /// Every tool, in a stable order.
    fn tools(&self) -> Vec<Arc<dyn DynTool>>;
}

/// The adapter from [`Tool`] to [`DynTool`].
pub struct Typed<T> {
    tool: T,
    spec: ToolSpec,
}

impl<T: Tool> Typed<T> {
    /// Wraps a native tool.
    pub fn native(tool: T) -> Arc<dyn DynTool> {
        let schema = schemars::schema_for!(T::Args).to_value();
        let spec = ToolSpec::new(T::NAME, T::DESCRIPTION, schema, T::EFFECT, "native");
        let spec = ToolSpec { taints: T::TAINTS, ..spec };
        Arc::new(Self { tool, spec })
    }
}

#[async_trait]
impl<T: Tool> DynTool for Typed<T> {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, cx: &ToolCx, args: Value) -> ToolAnswer {
        let invalid =
            |e: serde_json::Error| ToolError::new(ToolErrorKind::InvalidArgs, e.to_string());
        let internal =
            |e: serde_json::Error| ToolError::new(ToolErrorKind::Internal, e.to_string());
        let done = async {
            let args = serde_json::from_value(args).map_err(invalid)?;
            let output = self.tool.call(cx, args).await?;
            serde_json::to_value(output).map_err(internal)
        };
        match done.await {
            Ok(value) => ToolAnswer::Done(value),
            Err(error) => ToolAnswer::Failed(error),
        }
    }
}

/// Every tool of the installation.
#[derive(Clone, Default)]
pub struct ToolRegistry {
    tools: IndexMap<String, Entry>,
    limits: Arc<Limits>,
}

#[derive(Clone)]
struct Entry {
    tool: Arc<dyn DynTool>,
    arguments: Arc<jsonschema::Validator>,
}

/// Why a tool cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Two tools of one name.
    #[error("two tools are named `{0}`")]
    Duplicate(String),
    /// See the module's invariants.
    #[error("`{0}` is no tool name: 1 to 64 letters, digits, `_` or `-`")]
    Name(String),
    /// The schema of the arguments is none.
    #[error("the argument schema of `{name}` is invalid: {why}")]
    Schema {
        /// The tool.
        name: String,
        /// The validator's words.
        why: String,
    },
}

impl ToolRegistry {
    /// Collects the tools of all sets.
    pub fn new(sets: &[&dyn ToolSet]) -> Result<Self, RegisterError> {
        let mut tools = IndexMap::new();
        for tool in sets.iter().flat_map(|set| set.tools()) {
            let spec = tool.spec();
            let name = spec.name.clone();
            let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
                return Err(RegisterError::Name(name));
            }
            let arguments = validator::of_stranger(&spec.parameters).map_err(|why| {
                RegisterError::Schema { name: name.clone(), why: why.to_string() }
            })?;
            let entry = Entry { tool, arguments: Arc::new(arguments) };
            if tools.insert(name.clone(), entry).is_some() {
                return Err(RegisterError::Duplicate(name));
            }
        }
        Ok(Self { tools, limits: Arc::default() })
    }

    /// The same tools, whose arguments and answers may hold so much.
    #[must_use]
    pub fn with_limits(self, limits: Arc<Limits>) -> Self {
        Self { limits, ..self }
    }

    /// How much arguments and answers may hold.
    #[must_use]
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Every tool's description, in order of registration.
    pub fn specs(&self) -> impl Iterator<Item = &ToolSpec> {
        self.tools.values().map(|e| e.tool.spec())
    }

    /// The description of one tool.
    #[must_use]
    pub fn spec(&self, name: &str) -> Option<&ToolSpec> {
        self.tools.get(name).map(|e| e.tool.spec())
    }

    /// The tools that a list of names and patterns (`crm__*`) allows, in order of registration.
    #[must_use]
    pub fn matching(&self, patterns: &[String]) -> Vec<ToolSpec> {
        let allowed = |s: &&ToolSpec| patterns.iter().any(|p| matches(p, &s.name));
        self.specs().filter(allowed).cloned().collect()
    }

    /// Reads a model's argument text: empty stands for `{}` (wire fact 8).
    pub fn parse_arguments(&self, text: &str) -> Result<Value, ToolError> {
        if text.trim().is_empty() {
            return Ok(json!({}));
        }
        json::parse(text, self.limits.json)
            .map_err(|why| ToolError::new(ToolErrorKind::InvalidArgs, format!("arguments: {why}")))
    }

    /// Checks arguments against the tool's schema; the first violations are named.
    pub fn validate(&self, name: &str, args: &Value) -> Result<(), ToolError> {
        let entry = self.tools.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.tools.keys().map(String::as_str).collect();
            let message = format!("no tool is named `{name}`; there are: {}", known.join(", "));
            ToolError::new(ToolErrorKind::NotFound, message)
        })?;
        validator::violations(&entry.arguments, args)
            .map_err(|wrong| ToolError::new(ToolErrorKind::InvalidArgs, wrong))
    }

    /// Validates, calls and bounds.
    pub async fn call(&self, cx: &ToolCx, name: &str, args: Value) -> ToolAnswer {
        if let Err(error) = self.validate(name, &args) {
            return ToolAnswer::Failed(error);
        }
        self.tools[name].tool.call(cx, args).await.bounded(&self.limits)
    }
}

/// Whether `pattern` (a name, or a prefix before `*`) covers `name`.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}
