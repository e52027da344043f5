//! Model providers. New one: a file with its [`Profile`], a line in [`PROFILES`].
//!
//! | file | what it does |
//! |---|---|
//! | `profile.rs` | what sets providers apart, as data; one file per provider beside it |
//! | `adapter.rs` | the one provider that all of them are |
//! | `turns.rs`, `schema.rs` | conversations and schemas as every protocol needs them |
//! | `chat/`, `anthropic/` | what a body and an event look like in each protocol |
//! | `reader.rs`, `sse.rs`, `answer.rs`, `calls.rs` | from bytes to an answer |
//! | `error.rs`, `secret.rs` | from a failure to a fault, without keys |
//! | `catalogue.yaml`, `probe.rs` | what is known of models; asking them whether it is so |
//! | `mock.rs` | a provider without a network |
//!
//! Absent on purpose: OpenAI's Responses and Gemini's and Ollama's own protocols; these providers
//! are spoken to through chat completions.

mod adapter;
mod answer;
pub mod anthropic;
pub mod azure;
mod calls;
mod chat;
pub mod compatible;
pub mod deepseek;
mod error;
pub mod gemini;
pub mod groq;
pub mod local;
pub mod mistral;
pub mod mock;
pub mod openai;
pub mod openrouter;
pub mod probe;
pub mod profile;
pub mod reader;
mod schema;
mod secret;
mod sse;
mod turns;
pub mod xai;

use std::sync::Arc;
use std::time::Duration;

use exile_engine::env::Env;
use exile_engine::http::HttpError;
use exile_engine::limits::AnswerLimits;
use exile_engine::model::card::Claims;
use exile_engine::model::{Provider, RETRIES};
use exile_engine::span::TraceLink;
use exile_engine::yaml;

use crate::http::{self, Client, Outbound};
use adapter::Adapter;
use profile::{Profile, Protocol};

pub use secret::Secret;

/// Providers whose rules are known. Those whose address is known too need a key alone.
pub const PROFILES: &[Profile] = &[
    deepseek::PROFILE,
    openai::PROFILE,
    gemini::PROFILE,
    anthropic::PROFILE,
    azure::PROFILE,
    openrouter::PROFILE,
    mistral::PROFILE,
    groq::PROFILE,
    xai::PROFILE,
    local::OLLAMA,
    local::VLLM,
    local::LLAMA_CPP,
];

/// How long a provider may take to begin its answer, and between two pieces of it. A server that
/// sends nothing but signs of life may take ten times as long.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// How long a whole call may take. The run's own limit may be shorter.
pub const TOTAL: Duration = Duration::from_hours(1);

/// Headers that can hold a key in place of `api_key`.
pub const KEY_HEADERS: &[&str] = &["authorization", "api-key", "x-api-key", "x-goog-api-key"];

/// One provider as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderConfig {
    /// The name before the slash.
    pub name: String,
    /// What is spoken; `None`: what the name stands for, else the chat protocol.
    pub protocol: Option<Protocol>,
    /// Needed unless the name is built in.
    pub base_url: Option<String>,
    /// Sent as a bearer token, or in the provider's own header.
    pub api_key: Option<Secret>,
    /// The variable that the key comes from, for error texts.
    pub key_variable: String,
    /// Sent with every request; an empty value is not sent.
    pub headers: Vec<(String, Secret)>,
    /// Added to every address; an empty value is not sent.
    pub query: Vec<(String, Secret)>,
    /// `http://` or `https://` proxy.
    pub proxy: Option<String>,
    /// Until the answer begins.
    pub first_byte_timeout: Duration,
    /// Between two pieces of the answer.
    pub idle_timeout: Duration,
    /// How often a call that failed before its answer began is made again.
    pub retries: u32,
    /// For the whole call.
    pub total_timeout: Duration,
    /// It needs no key.
    pub keyless: bool,
    /// How much an answer may hold.
    pub limits: AnswerLimits,
}

impl ProviderConfig {
    /// The provider of that name with nothing configured. A name that is not built in has its key
    /// in `NAME_API_KEY`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let known = PROFILES.iter().find(|p| p.name == name).map(|p| p.key_variable);
        let known = known.filter(|variable| !variable.is_empty()).map(str::to_owned);
        let derived = || {
            let letter =
                |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
            format!("{}_API_KEY", name.chars().map(letter).collect::<String>())
        };
        Self {
            name: name.to_owned(),
            protocol: None,
            base_url: None,
            api_key: None,
            key_variable: known.unwrap_or_else(derived),
            headers: Vec::new(),
            query: Vec::new(),
            proxy: None,
            first_byte_timeout: PATIENCE,
            idle_timeout: PATIENCE,
            retries: RETRIES,
            total_timeout: TOTAL,
            keyless: false,
            limits: AnswerLimits::default(),
        }
    }
}

/// What is known of models, as it ships.
///
/// # Errors
/// What is wrong with the file, which is a defect of exile.
pub fn catalogue() -> Result<Claims, String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        models: Claims,
    }
    let text = include_str!("catalogue.yaml");
    let document = yaml::parse("catalogue.yaml", text)
        .map_err(|findings| findings.iter().map(ToString::to_string).collect::<String>())?;
    if let Some(finding) = document.findings().first() {
        return Err(finding.to_string());
    }
    let file: File =
        serde_json::from_value(document.to_json()).map_err(|error| error.to_string())?;
    Ok(file.models)
}

impl ProviderConfig {
    /// Whether a call can be made.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.keyless || self.api_key.is_some()
    }
}

/// Why a provider cannot be made from its configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The name is not built in.
    #[error("provider `{0}` needs a base_url: only {list} have one built in", list = built_in_names())]
    BaseUrlMissing(String),
    /// Address or proxy cannot be used.
    #[error("provider `{name}`: {error}")]
    Address {
        /// The provider.
        name: String,
        /// Why.
        error: HttpError,
    },
}

/// The providers that need a key alone, in the order in which they are tried.
pub fn built_in() -> impl Iterator<Item = &'static Profile> {
    PROFILES.iter().filter(|profile| !profile.base_url.is_empty())
}

fn built_in_names() -> String {
    built_in().map(|p| p.name).collect::<Vec<_>>().join(", ")
}

/// The rules of a provider of that name: its own, those of the one whose name it goes on from
/// (`azure-eu`), else those of any server of the protocol.
fn profile(name: &str, protocol: Option<Protocol>) -> Profile {
    let family = |p: &&Profile| name.strip_prefix(p.name).is_some_and(|r| r.starts_with('-'));
    let known = PROFILES.iter().find(|p| p.name == name).or(PROFILES.iter().find(family));
    match (known, protocol) {
        (Some(known), None) => *known,
        (Some(known), Some(wanted)) if known.protocol == wanted => *known,
        (_, Some(Protocol::Anthropic)) => anthropic::PROFILE,
        (_, None | Some(Protocol::Chat)) => compatible::PROFILE,
    }
}

/// Makes a provider. The host of its address is the one private host that its client may reach.
pub fn provider(
    config: ProviderConfig,
    trace: Arc<dyn TraceLink>,
    env: Arc<dyn Env>,
) -> Result<Arc<dyn Provider>, ConfigError> {
    let profile = profile(&config.name, config.protocol);
    let base_url = config.base_url.as_deref().map(str::trim).filter(|u| !u.is_empty());
    let built_in = built_in().find(|p| p.name == config.name && p.protocol == profile.protocol);
    let Some(base_url) = base_url.or(built_in.map(|p| p.base_url)) else {
        return Err(ConfigError::BaseUrlMissing(config.name));
    };
    let wrong = |error| ConfigError::Address { name: config.name.clone(), error };
    let query: Vec<(String, String)> =
        given(&config.query).map(|(n, v)| (n.clone(), v.expose().to_owned())).collect();
    let path = match profile.protocol {
        Protocol::Chat => "chat/completions",
        Protocol::Anthropic => anthropic::path(base_url),
    };
    let url = http::endpoint(base_url, path, &query).map_err(wrong)?;
    let embeddings_url = http::endpoint(base_url, "embeddings", &query).map_err(wrong)?;
    let allow = vec![http::allow_for(&url).map_err(wrong)?];
    let proxy = config.proxy.clone().filter(|p| !p.is_empty());
    let http = Client::new(Outbound { allow, proxy }, trace).map_err(wrong)?;
    Ok(Arc::new(Adapter {
        profile,
        url,
        embeddings_url,
        headers: headers(&config, &profile),
        secrets: secrets(&config),
        name: config.name,
        key_variable: config.key_variable,
        http,
        env,
        first_byte_timeout: config.first_byte_timeout,
        idle_timeout: config.idle_timeout,
        retries: config.retries,
        total_timeout: config.total_timeout,
        limits: config.limits,
    }))
}

/// Pairs with a value: `${X:-}` of an unset variable is none.
fn given(pairs: &[(String, Secret)]) -> impl Iterator<Item = &(String, Secret)> {
    pairs.iter().filter(|(_, value)| !value.expose().trim().is_empty())
}

fn key(config: &ProviderConfig) -> Option<&str> {
    config.api_key.as_ref().map(|k| k.expose().trim()).filter(|k| !k.is_empty())
}

/// What is sent with every request; `None` if a key is needed and there is none.
fn headers(config: &ProviderConfig, profile: &Profile) -> Option<Vec<(String, Secret)>> {
    let mut headers: Vec<(String, Secret)> = given(&config.headers).cloned().collect();
    let names = |known: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(known));
    let keyed = KEY_HEADERS.iter().any(|known| names(known));
    match key(config) {
        Some(key) if !names(profile.key_header) && !names("authorization") => {
            let bearer = profile.key_header == "authorization";
            let value = if bearer { format!("Bearer {key}") } else { key.to_owned() };
            headers.push((profile.key_header.to_owned(), Secret::new(value)));
        }
        None if !keyed && !config.keyless => return None,
        _ => {}
    }
    let (version, revision) = anthropic::VERSION;
    let given = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(version));
    if profile.protocol == Protocol::Anthropic && !given {
        headers.push((version.to_owned(), Secret::new(revision)));
    }
    Some(headers)
}

/// What must never be seen: the key, every header's value, and parameters named like a secret.
fn secrets(config: &ProviderConfig) -> Vec<Secret> {
    let telling = |(name, _): &&(String, Secret)| {
        let name = name.to_ascii_lowercase();
        ["key", "token", "secret", "sig", "auth", "pass"].iter().any(|word| name.contains(word))
    };
    let pairs = config.headers.iter().chain(config.query.iter().filter(telling));
    // Of `Bearer KEY` the last word alone may be echoed.
    let values = pairs.flat_map(|(_, value)| {
        let value = value.expose().trim();
        [Some(value), value.split_whitespace().last()].into_iter().flatten()
    });
    let mut secrets: Vec<Secret> = key(config).into_iter().chain(values).map(Secret::new).collect();
    // The longest first: one may be part of another.
    secrets.sort_by_key(|s| std::cmp::Reverse(s.expose().len()));
    secrets
}

#[cfg(test)]
mod tests;
