//! Model providers. New one of the chat protocol: a file with its [`Profile`], a line in
//! [`BUILT_IN`].

pub mod chat;
pub mod compatible;
pub mod deepseek;
pub mod gemini;
pub mod mock;
pub mod openai;
pub mod probe;
mod secret;

use std::sync::Arc;
use std::time::Duration;

use exile_engine::env::Env;
use exile_engine::http::HttpError;
use exile_engine::model::card::Claims;
use exile_engine::model::{Provider, RETRIES};
use exile_engine::span::TraceLink;
use exile_engine::yaml;

use crate::http::{self, Client, Outbound};
use chat::Chat;
use chat::profile::Profile;

pub use secret::Secret;

/// Providers whose address and rules are known.
pub const BUILT_IN: &[Profile] = &[deepseek::PROFILE, openai::PROFILE, gemini::PROFILE];

/// How long a provider may take to begin its answer, and between two pieces of it. There is no
/// total limit: that is the run's.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Headers that can hold a key in place of `api_key`.
const KEY_HEADERS: &[&str] = &["authorization", "api-key", "x-api-key", "x-goog-api-key"];

/// One provider as configured.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// The name before the slash.
    pub name: String,
    /// Needed unless the name is built in.
    pub base_url: Option<String>,
    /// Sent as a bearer token.
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
    /// It needs no key.
    pub keyless: bool,
}

impl ProviderConfig {
    /// The provider of that name with nothing configured. A name that is not built in has its key
    /// in `NAME_API_KEY`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let known = BUILT_IN.iter().find(|p| p.name == name).map(|p| p.key_variable.to_owned());
        let derived = || {
            let letter =
                |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
            format!("{}_API_KEY", name.chars().map(letter).collect::<String>())
        };
        Self {
            name: name.to_owned(),
            base_url: None,
            api_key: None,
            key_variable: known.unwrap_or_else(derived),
            headers: Vec::new(),
            query: Vec::new(),
            proxy: None,
            first_byte_timeout: PATIENCE,
            idle_timeout: PATIENCE,
            retries: RETRIES,
            keyless: false,
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

/// Why a provider cannot be made from its configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The name is not built in.
    #[error("provider `{0}` needs a base_url: only deepseek, openai and gemini have one built in")]
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

/// Makes a provider. The host of its address is the one private host that its client may reach.
pub fn provider(
    config: ProviderConfig,
    trace: Arc<dyn TraceLink>,
    env: Arc<dyn Env>,
) -> Result<Arc<dyn Provider>, ConfigError> {
    let known = BUILT_IN.iter().find(|p| p.name == config.name);
    let profile = *known.unwrap_or(&compatible::PROFILE);
    let base_url = config.base_url.as_deref().map(str::trim).filter(|u| !u.is_empty());
    let base_url = match (base_url, profile.base_url) {
        (None, "") => return Err(ConfigError::BaseUrlMissing(config.name)),
        (configured, built_in) => configured.unwrap_or(built_in),
    };
    let wrong = |error| ConfigError::Address { name: config.name.clone(), error };
    let query: Vec<(String, String)> =
        given(&config.query).map(|(n, v)| (n.clone(), v.expose().to_owned())).collect();
    let url = http::endpoint(base_url, "chat/completions", &query).map_err(wrong)?;
    let allow = vec![http::allow_for(&url).map_err(wrong)?];
    let proxy = config.proxy.clone().filter(|p| !p.is_empty());
    let http = Client::new(Outbound { allow, proxy }, trace).map_err(wrong)?;
    Ok(Arc::new(Chat {
        profile,
        url,
        headers: headers(&config),
        secrets: secrets(&config),
        name: config.name,
        key_variable: config.key_variable,
        http,
        env,
        first_byte_timeout: config.first_byte_timeout,
        idle_timeout: config.idle_timeout,
        retries: config.retries,
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
fn headers(config: &ProviderConfig) -> Option<Vec<(String, Secret)>> {
    let mut headers: Vec<(String, Secret)> = given(&config.headers).cloned().collect();
    let names = |known: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(known));
    let keyed = KEY_HEADERS.iter().any(|known| names(known));
    match key(config) {
        Some(key) if !names("authorization") => {
            headers.push(("authorization".into(), Secret::new(format!("Bearer {key}"))));
        }
        None if !keyed && !config.keyless => return None,
        _ => {}
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
