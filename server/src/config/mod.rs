//! Configuration: flags, then `EXILE_*`, then `.env`, then `exile.yaml`, then defaults.
//!
//! | file | holds |
//! |---|---|
//! | `file.rs` | the shape of `exile.yaml` |
//! | `variables.rs` | the environment, `.env` and `${…}` |
//! | `models.rs` | providers, aliases, and when the mock stands in |
//! | `limits.rs` | how much is admitted |
//! | `proxies.rs`, `public_url.rs` | which proxies are believed; where people reach the server |
//! | `unsupported.rs` | what the shape has and this version has not |
//! | `find.rs` | where `exile.yaml`, home and graphs are |
//! | `home.rs`, `local_key.rs` | the folder with the database, held by one process; its key |
//!
//! Invariants:
//! - The environment, the working folder and the flags come in as values ([`Surroundings`]).
//! - Everything wrong with `exile.yaml` is found at once, with place and fix.
//! - No `exile.yaml` at all is a complete configuration.

mod complaint;
mod file;
mod find;
pub mod home;
mod limits;
pub mod local_key;
mod models;
mod proxies;
mod public_url;
mod unsupported;
mod variables;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use exile_engine::diagnostic::{self, Finding, code};
use exile_engine::document::Document;
use exile_engine::model::Aliases;
use exile_engine::model::card::Claims;
use exile_engine::{shape, yaml};
use exile_nodes::providers::ProviderConfig;
pub use exile_nodes::providers::Secret;
use exile_nodes::providers::mock::Script;
use jiff::tz::TimeZone;

use crate::usage::{Currency, QuotaFile};
pub use complaint::Complaint;
pub use file::{ConfigFile, Environment};
pub use find::Places;
pub use limits::{Limits, TransportLimits};
pub use proxies::Proxies;
pub(crate) use public_url::split_url;
pub use variables::Variables;

/// Where exile listens unless told otherwise.
const BIND: &str = "127.0.0.1:8080";

/// The graph of a conversation that names none.
const DEFAULT_GRAPH: &str = "chat";

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--home`.
    pub home: Option<PathBuf>,
    /// `--graphs`.
    pub graphs: Option<PathBuf>,
    /// `--bind`.
    pub bind: Option<String>,
}

/// Everything that configuration is read from.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Of the command line.
    pub flags: Flags,
    /// Of the process.
    pub variables: Variables,
    /// Where the process was started.
    pub folder: PathBuf,
}

/// The whole configuration, chosen and checked.
#[derive(Debug)]
pub struct Config {
    /// Files and folders.
    pub places: Places,
    /// Where it runs.
    pub environment: Environment,
    /// Where it listens.
    pub bind: SocketAddr,
    /// Where people reach it, without a slash at its end; `None`: where it listens.
    pub public_url: Option<String>,
    /// Whose word is taken for where a request came from.
    pub trusted_proxies: Proxies,
    /// For days, peak hours and `current_time`.
    pub timezone: TimeZone,
    /// What money is counted in.
    pub currency: Currency,
    /// How much may be taken.
    pub quotas: QuotaFile,
    /// How much one request, run or connection may take of this machine.
    pub limits: Limits,
    /// The graph of a conversation that names none.
    pub default_graph: String,
    /// How long records stay after their run has ended; `None`: forever.
    pub keep_records: Option<Duration>,
    /// How long usage stays after its call; `None`: forever.
    pub keep_usage: Option<Duration>,
    /// Name → models.
    pub aliases: Aliases,
    /// Who serves models.
    pub providers: Vec<ProviderConfig>,
    /// What is known of models, above what ships.
    pub claims: Claims,
    /// The script of the mock, if it stands in; an empty one: the built-in behaviour.
    pub mock: Option<Script>,
    /// Hosts of the local network that tools may reach.
    pub outbound_allow: Vec<String>,
    /// Environment and `.env`.
    pub variables: Variables,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that is named cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `.env` cannot be read. Its content is not shown: it holds keys.
    #[error("{} is not of the form NAME=value: look at its quotes", path.display())]
    DotEnv {
        /// Which.
        path: PathBuf,
    },
    /// A flag or variable has a value that cannot be used.
    #[error("{name} is `{value}`: {why}")]
    Value {
        /// E.g. `--bind or EXILE_BIND`.
        name: &'static str,
        /// As given.
        value: String,
        /// What is wrong, and what to write.
        why: String,
    },
    /// The YAML is wrong.
    #[error("{} is wrong in {} place(s)", path.display(), findings.len())]
    Findings {
        /// Which file.
        path: PathBuf,
        /// Its text.
        text: String,
        /// What is wrong, in order.
        findings: Vec<Finding>,
    },
}

/// Reads everything and chooses.
pub fn load(surroundings: &Surroundings) -> Result<Config, ConfigError> {
    let flags = &surroundings.flags;
    let mut variables = surroundings.variables.clone();
    let file = find::config(surroundings)?;
    let base = file.as_deref().and_then(Path::parent).unwrap_or(&surroundings.folder);
    let dotenv = base.join(".env");
    variables.add_file(&dotenv).map_err(|_| ConfigError::DotEnv { path: dotenv })?;
    let places = find::places(flags, &variables, base, file.clone())?;
    let read = match &file {
        Some(path) => Read::of(path, &variables)?,
        None => Read::default(),
    };
    let environment = environment(&read.file, &variables)?;
    let chosen = models::choose(&read.file, &read.written, environment, &variables)
        .map_err(|complaints| read.refuse(complaints))?;
    let mock = if chosen.mock { Some(mock_script(&places, &variables)?) } else { None };
    let own = |name: &str, written: &Option<String>| {
        variables.get(name).map(str::to_owned).or_else(|| written.clone())
    };
    let bind = flags.bind.clone().or_else(|| own("EXILE_BIND", &read.file.bind));
    let public_url = own("EXILE_PUBLIC_URL", &read.file.public_url);
    let timezone = own("EXILE_TIMEZONE", &read.file.timezone);
    let default_graph = own("EXILE_DEFAULT_GRAPH", &read.file.default_graph);
    Ok(Config {
        places,
        environment,
        bind: address(bind.as_deref().unwrap_or(BIND))?,
        public_url: public_url.as_deref().filter(|url| !url.is_empty()).map(public).transpose()?,
        trusted_proxies: proxies(&read.file.trusted_proxies)?,
        timezone: zone(timezone.as_deref())?,
        currency: read.file.currency.unwrap_or_default(),
        quotas: read.file.quotas,
        limits: Limits::of(&read.file.limits),
        default_graph: default_graph.unwrap_or_else(|| DEFAULT_GRAPH.to_owned()),
        keep_records: read.file.retention.records.map(|period| period.0),
        keep_usage: read.file.retention.usage.map(|period| period.0),
        aliases: chosen.aliases,
        providers: chosen.providers,
        claims: read.file.catalogue.into_iter().map(|(name, claim)| (name, vec![claim])).collect(),
        mock,
        outbound_allow: read.file.outbound.allow,
        variables,
    })
}

/// An `exile.yaml` that was read.
#[derive(Default)]
struct Read {
    file: ConfigFile,
    /// Before `${…}` was filled in.
    written: serde_json::Value,
    document: Option<Document>,
}

impl Read {
    fn of(path: &Path, variables: &Variables) -> Result<Self, ConfigError> {
        let text = read_text(path)?;
        let wrong = |findings| findings_of(path, &text, findings);
        let name = path.to_string_lossy();
        let document = yaml::parse(&name, &text).map_err(wrong)?;
        let written = document.to_json();
        let mut value = written.clone();
        if value.is_null() {
            // A file of comments alone says nothing.
            value = serde_json::json!({});
        }
        let unset = variables.substitute(&mut value);
        if !unset.is_empty() {
            let mut findings = document.findings().to_vec();
            findings.extend(unset.into_iter().map(|c| c.in_document(&document)));
            return Err(findings_of(path, &text, findings));
        }
        let file: ConfigFile = shape::read(&document, value).map_err(wrong)?;
        let unsupported = unsupported::complaints(&file);
        let read = Self { file, written, document: Some(document) };
        if unsupported.is_empty() { Ok(read) } else { Err(read.refuse(unsupported)) }
    }

    /// Complaints as an error. Without a file there is nothing to complain about but defaults,
    /// which are right.
    fn refuse(&self, complaints: Vec<Complaint>) -> ConfigError {
        let (path, text, findings) = match &self.document {
            Some(document) => {
                let findings = complaints.into_iter().map(|c| c.in_document(document)).collect();
                (PathBuf::from(document.path()), document.text().to_owned(), findings)
            }
            None => (PathBuf::from("exile.yaml"), String::new(), Vec::new()),
        };
        findings_of(&path, &text, findings)
    }
}

fn findings_of(path: &Path, text: &str, mut findings: Vec<Finding>) -> ConfigError {
    diagnostic::sort(&mut findings);
    ConfigError::Findings { path: path.to_owned(), text: text.to_owned(), findings }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

fn environment(file: &ConfigFile, variables: &Variables) -> Result<Environment, ConfigError> {
    match variables.get("EXILE_ENV") {
        None => Ok(file.environment.unwrap_or_default()),
        Some("development") => Ok(Environment::Development),
        Some("production") => Ok(Environment::Production),
        Some(other) => Err(ConfigError::Value {
            name: "EXILE_ENV",
            value: other.to_owned(),
            why: "write `development` or `production`".to_owned(),
        }),
    }
}

/// The script of the mock: `EXILE_MOCK`, `mock.yaml` in the home, or an empty one.
fn mock_script(places: &Places, variables: &Variables) -> Result<Script, ConfigError> {
    let in_home = places.home.join("mock.yaml");
    let path = match variables.get("EXILE_MOCK") {
        Some(path) => PathBuf::from(path),
        None if in_home.is_file() => in_home,
        None => return Ok(Script::default()),
    };
    let text = read_text(&path)?;
    let wrong = |findings| findings_of(&path, &text, findings);
    let document = yaml::parse(&path.to_string_lossy(), &text).map_err(wrong)?;
    serde_json::from_value(document.to_json()).map_err(|error| {
        let fix = "write a list of rules like `- { match: hello, reply: hi }`";
        wrong(vec![document.error_at(code::INVALID_VALUE, "", error.to_string(), fix)])
    })
}

fn address(text: &str) -> Result<SocketAddr, ConfigError> {
    let numeric = text.replacen("localhost:", "127.0.0.1:", 1);
    numeric.parse().map_err(|_| ConfigError::Value {
        name: "the address (--bind, EXILE_BIND or `bind`)",
        value: text.to_owned(),
        why: "write an IP address and a port, e.g. 127.0.0.1:8080 or [::]:8080".to_owned(),
    })
}

fn public(text: &str) -> Result<String, ConfigError> {
    public_url::public_url(text).map_err(|why| ConfigError::Value {
        name: "the public address (EXILE_PUBLIC_URL or `public_url`)",
        value: text.to_owned(),
        why: why.to_owned(),
    })
}

fn proxies(names: &[String]) -> Result<Proxies, ConfigError> {
    Proxies::parse(names).map_err(|value| ConfigError::Value {
        name: "an entry of `trusted_proxies`",
        value,
        why: "write an address or a network, e.g. 10.0.0.7 or 172.16.0.0/12".to_owned(),
    })
}

fn zone(name: Option<&str>) -> Result<TimeZone, ConfigError> {
    let Some(name) = name else { return Ok(TimeZone::system()) };
    TimeZone::get(name).map_err(|_| ConfigError::Value {
        name: "the time zone (EXILE_TIMEZONE or `timezone`)",
        value: name.to_owned(),
        why: "write an IANA name, e.g. Asia/Shanghai".to_owned(),
    })
}

#[cfg(test)]
mod tests;
