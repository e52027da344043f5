//! Which providers there are, which of them can be called, and what each alias stands for.
//!
//! Invariants:
//! - Outside development an alias stands for what is written, key or not: a missing key is seen
//!   by `/readyz` and by the run, never papered over.
//! - The mock exists only in development, only when no key is set at all.
//! - The key of a built-in provider's own variable is never sent to another address: with a
//!   `base_url` of its own, a provider has only the key that its entry names.

use std::collections::{BTreeMap, BTreeSet};

use exile_engine::document::child;
use exile_engine::model::{Aliases, ModelAlias, ModelRef};
use exile_engine::period::Period;
use exile_nodes::providers::{KEY_HEADERS, ProviderConfig, built_in as built_in_profiles};

use super::Secret;
use super::complaint::Complaint;
use super::file::{Alias, AliasTable, ConfigFile, Environment, Provider};
use super::variables::{Variables, first_named};

/// The alias of nodes that name no model.
const DEFAULT: &str = "default";

/// Aliases without an entry in development, in the order in which keys are looked for.
const DEFAULTS: &[(&str, [&str; 4])] = &[
    (
        DEFAULT,
        [
            "deepseek/deepseek-flash",
            "openai/gpt-5.1",
            "gemini/gemini-3-flash",
            "anthropic/claude-sonnet-4-6",
        ],
    ),
    (
        "fast",
        [
            "deepseek/deepseek-flash",
            "openai/gpt-5-mini",
            "gemini/gemini-3-flash",
            "anthropic/claude-haiku-4-5",
        ],
    ),
];

/// `default` without an entry in production. Other aliases without one stand for what `default`
/// does: what nobody wrote must not ask for another key.
const PRODUCTION: &str = "openai/gpt-5.1";

/// What stands in when nothing can be called.
const MOCK: &str = "mock/mock";

/// What the sections `models` and `providers` come to.
#[derive(Debug)]
pub(super) struct Choice {
    /// Name → models, the environment chosen.
    pub aliases: Aliases,
    /// In the order of the built-in ones, then by name.
    pub providers: Vec<ProviderConfig>,
    /// Whether the mock stands in.
    pub mock: bool,
}

/// Chooses. `written` is the file before substitution: it tells which variable a key comes from.
pub(super) fn choose(
    file: &ConfigFile,
    written: &serde_json::Value,
    environment: Environment,
    variables: &Variables,
) -> Result<Choice, Vec<Complaint>> {
    let mut complaints = Vec::new();
    let providers = providers(file, written, variables, &mut complaints);
    let keyed = providers.iter().any(|p| p.api_key.is_some() || has_key_header(&p.headers));
    let mock = environment == Environment::Development && !keyed;
    let falls = Falls { providers: &providers, environment, mock };
    complaints.extend(file.catalogue.keys().filter_map(|name| pattern("/catalogue", name)));
    complaints.extend(file.quotas.model.keys().filter_map(|name| pattern("/quotas/model", name)));
    let aliases = aliases(file, &falls, &mut complaints);
    if complaints.is_empty() { Ok(Choice { aliases, providers, mock }) } else { Err(complaints) }
}

/// What is wrong with a name of models in that section.
fn pattern(section: &str, name: &str) -> Option<Complaint> {
    let whole = ModelRef::parse(name).is_some() && !name.contains('*');
    let beginning = name.strip_suffix('*').is_some_and(|beginning| !beginning.contains('*'));
    (!whole && !beginning).then(|| Complaint {
        place: child(section, name),
        code: "model_name",
        message: format!("`{name}` is neither provider/model nor the beginning of one and a `*`"),
        fix: "write e.g. lab/llava or lab/*".to_owned(),
    })
}

fn providers(
    file: &ConfigFile,
    written: &serde_json::Value,
    variables: &Variables,
    complaints: &mut Vec<Complaint>,
) -> Vec<ProviderConfig> {
    let built_in = built_in_profiles().map(|profile| profile.name);
    let own = file.providers.keys().map(String::as_str);
    let own = own.filter(|name| !is_built_in(name));
    let empty = Provider::default();
    let mut list = Vec::new();
    for name in built_in.chain(own) {
        let entry = file.providers.get(name).unwrap_or(&empty);
        let place = child("/providers", name);
        let variable = written.pointer(&format!("{place}/api_key"));
        let variable = variable.and_then(|v| first_named(v.as_str()?));
        complaints.extend(check_provider(name, entry, &place));
        list.push(settings(name, entry, variable, variables));
    }
    list
}

fn is_built_in(name: &str) -> bool {
    built_in_profiles().any(|profile| profile.name == name)
}

fn check_provider(name: &str, entry: &Provider, place: &str) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut complain = |place: String, code, message: String, fix: &str| {
        found.push(Complaint { place, code, message, fix: fix.to_owned() });
    };
    let forbidden = |c: char| c == '/' || c.is_control() || c.is_whitespace();
    if name == "mock" || name.contains(forbidden) || name.is_empty() {
        let message = format!("a provider cannot be named {name:?}");
        let fix = "choose another name, without `/`, spaces and line breaks";
        complain(place.to_owned(), "provider_name", message, fix);
    } else if !is_built_in(name) && entry.base_url.as_deref().unwrap_or_default().is_empty() {
        let message = format!("`{name}` is not built in and has no `base_url`");
        let fix = "add `base_url:`, the address before `/chat/completions` or `/messages`";
        complain(place.to_owned(), "base_url_missing", message, fix);
    }
    for (key, value) in [("base_url", &entry.base_url), ("proxy", &entry.proxy)] {
        let value = value.as_deref().unwrap_or_default();
        if !value.is_empty() && !value.starts_with("http://") && !value.starts_with("https://") {
            let message = format!("`{key}` is no address");
            complain(format!("{place}/{key}"), "address", message, "begin it with https://");
        }
    }
    for (header, value) in &entry.headers {
        let letter = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?={}".contains(c);
        if header.is_empty() || !header.chars().all(letter) || value.chars().any(is_forbidden) {
            // The value may be a key: it is not shown.
            let message = format!("the header {header:?} or its value cannot be sent");
            let fix = "write letters, digits and `-`, and a value of one line";
            complain(child(&format!("{place}/headers"), header), "header", message, fix);
        }
    }
    if entry.api_key.as_deref().is_some_and(|key| key.trim().chars().any(is_forbidden)) {
        let message = "the key cannot be sent: it holds a line break or a control character";
        let fix = "write it as one line";
        complain(format!("{place}/api_key"), "header", message.to_owned(), fix);
    }
    found
}

/// What would end a header's line, or is no text at all.
fn is_forbidden(c: char) -> bool {
    c.is_control() && c != '\t'
}

fn settings(
    name: &str,
    entry: &Provider,
    named: Option<&str>,
    variables: &Variables,
) -> ProviderConfig {
    let full = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let base_url = full(&entry.base_url);
    let usual = ProviderConfig::new(name);
    let key_variable = named.map_or_else(|| usual.key_variable.clone(), str::to_owned);
    let from_environment = match (&entry.api_key, &base_url) {
        (None, None) => variables.get(&key_variable).map(str::to_owned),
        _ => None,
    };
    let secrets = |pairs: &BTreeMap<String, String>| {
        pairs.iter().map(|(name, value)| (name.clone(), Secret::new(value))).collect::<Vec<_>>()
    };
    let headers = secrets(&entry.headers);
    let period = |given: Option<Period>| given.or(entry.timeout).map(|period| period.0);
    ProviderConfig {
        protocol: entry.protocol,
        api_key: full(&entry.api_key).or(from_environment).map(Secret::new),
        key_variable,
        keyless: (base_url.is_some() && entry.api_key.is_none()) || has_key_header(&headers),
        base_url,
        headers,
        query: secrets(&entry.query),
        proxy: full(&entry.proxy),
        first_byte_timeout: period(entry.first_byte_timeout).unwrap_or(usual.first_byte_timeout),
        idle_timeout: period(entry.idle_timeout).unwrap_or(usual.idle_timeout),
        total_timeout: entry.total_timeout.map_or(usual.total_timeout, |period| period.0),
        retries: entry.retries.unwrap_or(usual.retries),
        ..usual
    }
}

fn has_key_header(headers: &[(String, Secret)]) -> bool {
    let carries = |name: &str| KEY_HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known));
    headers.iter().any(|(name, value)| carries(name) && !value.expose().is_empty())
}

/// What an alias falls to when its provider cannot be called.
struct Falls<'a> {
    providers: &'a [ProviderConfig],
    environment: Environment,
    mock: bool,
}

impl Falls<'_> {
    fn production(&self) -> bool {
        self.environment == Environment::Production
    }

    fn ready(&self, model: &ModelRef) -> bool {
        self.providers.iter().any(|p| *p.name == *model.provider && p.ready())
    }

    /// The model to be called for `alias`, which is meant to stand for `meant`.
    fn fall(&self, alias: &str, meant: ModelRef) -> ModelRef {
        if self.production() || self.ready(&meant) {
            return meant;
        }
        let others = DEFAULTS.iter().find(|(name, _)| *name == alias);
        let others = others.into_iter().flat_map(|(_, models)| models);
        let other = others.filter_map(|m| ModelRef::parse(m)).find(|m| self.ready(m));
        match other {
            Some(other) => other,
            None if self.mock => ModelRef::parse(MOCK).unwrap_or(meant),
            None => meant,
        }
    }
}

fn aliases(file: &ConfigFile, falls: &Falls<'_>, complaints: &mut Vec<Complaint>) -> Aliases {
    let mut aliases = Aliases::new();
    let built_in = DEFAULTS.iter().map(|(name, _)| *name);
    let names: BTreeSet<&str> = file.models.keys().map(String::as_str).chain(built_in).collect();
    for name in names {
        let written = file.models.contains_key(name);
        let like = if falls.production() && !written { DEFAULT } else { name };
        match alias(like, file.models.get(like), falls) {
            Ok(alias) => _ = aliases.insert(name.to_owned(), alias),
            // What `default` stands for is complained about once.
            Err(found) if like == name => complaints.extend(found),
            Err(_) => {}
        }
    }
    aliases
}

fn alias(
    name: &str,
    written: Option<&Alias>,
    falls: &Falls<'_>,
) -> Result<ModelAlias, Vec<Complaint>> {
    let mut complaints = Vec::new();
    let place = child("/models", name);
    let table = AliasTable::default();
    let (meant, at, table) = match written {
        Some(Alias::One(model)) => (Some(model.as_str()), place.clone(), &table),
        Some(Alias::Table(table)) => {
            let key = falls.environment.as_str();
            (of_environment(table, falls.environment), format!("{place}/{key}"), table)
        }
        None => (None, place.clone(), &table),
    };
    let meant = meant.or_else(|| built_in(name, falls.environment));
    let model = if let Some(text) = meant {
        model(text, &at, falls, &mut complaints).map(|m| falls.fall(name, m))
    } else {
        complaints.push(empty(place.clone(), name, falls.environment));
        None
    };
    let mut business = BTreeMap::new();
    for (key, text) in &table.business {
        let at = child(&format!("{place}/business"), key);
        if let Some(model) = self::model(text, &at, falls, &mut complaints) {
            business.insert(key.clone(), falls.fall(name, model));
        }
    }
    let mut fallback = Vec::new();
    for (n, text) in table.fallback.iter().enumerate() {
        let at = format!("{place}/fallback/{n}");
        fallback.extend(self::model(text, &at, falls, &mut complaints));
    }
    let after_first_token = table.after_first_token;
    match model {
        Some(model) if complaints.is_empty() => {
            Ok(ModelAlias { model, business, fallback, after_first_token })
        }
        _ => Err(complaints),
    }
}

fn empty(place: String, name: &str, environment: Environment) -> Complaint {
    let environment = environment.as_str();
    Complaint {
        place,
        code: "alias_empty",
        message: format!("`{name}` stands for nothing in {environment}"),
        fix: format!("add `{environment}: provider/model`"),
    }
}

fn of_environment(table: &AliasTable, environment: Environment) -> Option<&str> {
    match environment {
        Environment::Development => table.development.as_deref(),
        Environment::Production => table.production.as_deref(),
    }
}

fn built_in(name: &str, environment: Environment) -> Option<&'static str> {
    match environment {
        Environment::Development => Some(DEFAULTS.iter().find(|(alias, _)| *alias == name)?.1[0]),
        Environment::Production => (name == DEFAULT).then_some(PRODUCTION),
    }
}

fn model(
    text: &str,
    place: &str,
    falls: &Falls<'_>,
    complaints: &mut Vec<Complaint>,
) -> Option<ModelRef> {
    let mut complain = |code, message, fix: String| {
        complaints.push(Complaint { place: place.to_owned(), code, message, fix });
    };
    let Some(model) = ModelRef::parse(text) else {
        let fix = "write e.g. deepseek/deepseek-flash".to_owned();
        complain("model_name", format!("{text:?} is not provider/model"), fix);
        return None;
    };
    let known = falls.providers.iter().any(|p| *p.name == *model.provider);
    let mocked = falls.mock && &*model.provider == "mock";
    if !known && !mocked {
        let names: Vec<&str> = falls.providers.iter().map(|p| p.name.as_str()).collect();
        let fix = format!("name one of {}, or add it under `providers`", names.join(", "));
        complain("provider_unknown", format!("no provider is named `{}`", model.provider), fix);
        return None;
    }
    Some(model)
}
