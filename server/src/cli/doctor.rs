//! `exile doctor`: what this installation has, what it lacks, and what to do about it.
//!
//! | file | looks at |
//! |---|---|
//! | `money.rs` | currency and prices |
//! | `place.rs` | addresses and room on the disk |
//! | `asking.rs` | whether providers answer |
//!
//! What was not looked at is said too.

mod asking;
mod money;
mod place;

use std::sync::Arc;

use clap::Args;
use exile_engine::bundle::Catalog;
use exile_engine::env::{Env, SystemEnv};
use exile_engine::model::ModelRef;
use exile_engine::span::TraceLink;
use serde_json::json;

use super::connection::Connection;
use super::error::CliError;
use super::terminal::Terminal;
use crate::config::Config;
use crate::process::compose::{self, Duty};

/// Check this installation and say what to do.
#[derive(Args)]
pub(super) struct Doctor {
    /// Ask no provider anything, which would cost a few tokens
    #[arg(long)]
    offline: bool,
}

/// One thing that was looked at.
struct Check {
    what: &'static str,
    state: State,
    detail: String,
}

/// How it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    /// It works, though not as one may want.
    Note,
    Bad,
    /// It was not looked at.
    Skipped,
}

impl Check {
    /// `detail`: what was not looked at, and how it can be.
    fn skipped(detail: String) -> Self {
        Self { what: "not checked", state: State::Skipped, detail }
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Bad => "FAIL",
            Self::Skipped => "-",
        }
    }
}

impl Doctor {
    pub(super) async fn run(
        &self,
        config: &Config,
        trace: Arc<dyn TraceLink>,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        let env: Arc<dyn Env> = Arc::new(SystemEnv::new());
        let catalog = compose::catalog(config, &trace, &env)?;
        let models = named(config);
        let mut checks = vec![configuration(config)];
        checks.extend(aliases(config));
        checks.extend(money::checks(config, catalog.models.catalogue(), &models));
        checks.extend(graphs(config, &catalog));
        checks.push(traces(config));
        checks.extend(self.server(config, trace, &catalog, &models).await);
        checks.push(place::space(&config.places.home));
        checks.extend(never_looked_at(config).map(Check::skipped));
        let json = checks
            .iter()
            .map(|c| json!({ "check": c.what, "state": c.state.word(), "detail": c.detail }));
        let json = json!({ "checks": json.collect::<Vec<_>>() });
        let row = |c: &Check| vec![c.state.word().to_owned(), c.what.to_owned(), c.detail.clone()];
        terminal.table(&["", "CHECK", "DETAIL"], checks.iter().map(row).collect(), &json)?;
        let bad = checks.iter().any(|c| c.state == State::Bad);
        if bad { Err(CliError::Shown) } else { Ok(()) }
    }

    /// Home, addresses and, through HTTP, everything behind `/readyz` and the providers.
    async fn server(
        &self,
        config: &Config,
        trace: Arc<dyn TraceLink>,
        catalog: &Catalog,
        models: &[ModelRef],
    ) -> Vec<Check> {
        let home = config.places.home.display();
        let connection = match Connection::open(config, trace, Duty::Answers).await {
            Ok(connection) => connection,
            Err(error) => {
                let detail = format!("{home}: {error}");
                let skipped = Check::skipped("providers, addresses and the database".to_owned());
                return vec![Check { what: "home", state: State::Bad, detail }, skipped];
            }
        };
        let holder = if connection.is_remote() {
            format!("held by the server at {}", connection.url())
        } else {
            "free".to_owned()
        };
        let mut checks =
            vec![Check { what: "home", state: State::Good, detail: format!("{home}, {holder}") }];
        checks.extend(place::addresses(config, connection.is_remote()));
        checks.push(match connection.get("/readyz").await {
            Ok(_) => Check { what: "ready", state: State::Good, detail: "yes".to_owned() },
            Err(error) => Check { what: "ready", state: State::Bad, detail: error.to_string() },
        });
        let ready = |model: &&ModelRef| {
            let provider = catalog.models.provider(&model.provider);
            provider.is_some_and(|provider| provider.ready().is_ok())
        };
        let ready: Vec<ModelRef> = models.iter().filter(ready).cloned().collect();
        if self.offline {
            let detail = "whether providers answer; leave --offline out".to_owned();
            checks.push(Check::skipped(detail));
        } else {
            checks.extend(asking::ask(&connection, catalog.models.catalogue(), &ready).await);
        }
        connection.close().await;
        checks
    }
}

/// Models that aliases lead to, each once.
fn named(config: &Config) -> Vec<ModelRef> {
    let mut all: Vec<ModelRef> = Vec::new();
    for alias in config.aliases.values() {
        let first = std::iter::once(&alias.model).chain(&alias.fallback);
        for model in first.chain(alias.business.values()) {
            if !all.contains(model) {
                all.push(model.clone());
            }
        }
    }
    all
}

/// What no run of this command looks at.
fn never_looked_at(config: &Config) -> impl Iterator<Item = String> {
    let public = config
        .public_url
        .as_ref()
        .map(|url| format!("whether {url} leads here from outside; open it in a browser"));
    let collector = config
        .variables
        .get("OTEL_EXPORTER_OTLP_ENDPOINT")
        .map(|endpoint| format!("whether {endpoint} takes spans; the log says if it does not"));
    let always = [
        "what models can do; `exile model probe` proves it".to_owned(),
        "whether backups are made and can be restored; `exile backup` makes one".to_owned(),
    ];
    public.into_iter().chain(collector).chain(always)
}

fn configuration(config: &Config) -> Check {
    let file = match &config.places.config {
        Some(path) => path.display().to_string(),
        None => "no exile.yaml, defaults apply".to_owned(),
    };
    let detail = format!("{} ({file})", config.environment.as_str());
    Check { what: "configuration", state: State::Good, detail }
}

fn aliases(config: &Config) -> Vec<Check> {
    let alias = |(name, alias): (&String, &exile_engine::model::ModelAlias)| {
        let provider = config.providers.iter().find(|p| *p.name == *alias.model.provider);
        let (state, hint) = match provider {
            Some(p) if p.ready() => (State::Good, String::new()),
            Some(p) => (State::Bad, format!(": no key; set {}", p.key_variable)),
            None => (State::Note, ": no key is set; e.g. set DEEPSEEK_API_KEY".to_owned()),
        };
        let (mut chain, mut state) = (format!("{}{hint}", alias.model), state);
        for model in &alias.fallback {
            let provider = config.providers.iter().find(|p| *p.name == *model.provider);
            let keyless = provider.filter(|p| !p.ready());
            let hint = keyless.map(|p| format!(" (passed over: no key; set {})", p.key_variable));
            if hint.is_some() && state == State::Good {
                state = State::Note;
            }
            chain = format!("{chain}, then {model}{}", hint.unwrap_or_default());
        }
        Check { what: "model", state, detail: format!("{name} = {chain}") }
    };
    config.aliases.iter().map(alias).collect()
}

fn graphs(config: &Config, catalog: &Catalog) -> Vec<Check> {
    let library = compose::library(config, catalog);
    let names: Vec<&str> = library.graphs().iter().map(|g| g.name.as_str()).collect();
    let from = match &config.places.graphs {
        Some(folder) => folder.display().to_string(),
        None => "inside the binary".to_owned(),
    };
    let detail = format!("{} ({from})", names.join(", "));
    let mut checks = vec![Check { what: "graphs", state: State::Good, detail }];
    checks.extend(library.findings().map(|finding| {
        let state = if finding.is_error() { State::Bad } else { State::Note };
        Check { what: "graphs", state, detail: finding.to_string() }
    }));
    if library.graph(&config.default_graph).is_none() {
        let detail = format!("no graph is named `{}` (default_graph)", config.default_graph);
        checks.push(Check { what: "graphs", state: State::Bad, detail });
    }
    checks
}

fn traces(config: &Config) -> Check {
    let detail = match config.variables.get("OTEL_EXPORTER_OTLP_ENDPOINT") {
        Some(endpoint) => format!("sent to {endpoint}"),
        None => "not exported; OTEL_EXPORTER_OTLP_ENDPOINT is not set".to_owned(),
    };
    Check { what: "traces", state: State::Good, detail }
}
