//! `exile doctor`: what this installation has, what it lacks, and what to do about it.

use std::sync::Arc;

use exile_engine::env::{Env, SystemEnv};
use exile_engine::span::TraceLink;
use serde_json::json;

use super::connection::Connection;
use super::error::CliError;
use super::terminal::Terminal;
use crate::compose::{self, Duty};
use crate::config::Config;

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
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Bad => "FAIL",
        }
    }
}

pub(super) async fn run(
    config: &Config,
    trace: Arc<dyn TraceLink>,
    terminal: &mut Terminal,
) -> Result<(), CliError> {
    let mut checks = vec![configuration(config)];
    checks.extend(models(config));
    checks.extend(graphs(config, &trace)?);
    checks.push(traces(config));
    checks.extend(server(config, trace).await);
    let json = checks
        .iter()
        .map(|c| json!({ "check": c.what, "state": c.state.word(), "detail": c.detail }));
    let json = json!({ "checks": json.collect::<Vec<_>>() });
    let row = |c: &Check| vec![c.state.word().to_owned(), c.what.to_owned(), c.detail.clone()];
    terminal.table(&["", "CHECK", "DETAIL"], checks.iter().map(row).collect(), &json)?;
    let bad = checks.iter().any(|c| c.state == State::Bad);
    if bad { Err(CliError::Shown) } else { Ok(()) }
}

fn configuration(config: &Config) -> Check {
    let file = match &config.places.config {
        Some(path) => path.display().to_string(),
        None => "no exile.yaml, defaults apply".to_owned(),
    };
    let detail = format!("{} ({file})", config.environment.as_str());
    Check { what: "configuration", state: State::Good, detail }
}

fn models(config: &Config) -> Vec<Check> {
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

fn graphs(config: &Config, trace: &Arc<dyn TraceLink>) -> Result<Vec<Check>, CliError> {
    let env: Arc<dyn Env> = Arc::new(SystemEnv::new());
    let library = compose::library(config, &compose::catalog(config, trace, &env)?);
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
    Ok(checks)
}

fn traces(config: &Config) -> Check {
    let detail = match config.variables.get("OTEL_EXPORTER_OTLP_ENDPOINT") {
        Some(endpoint) => format!("sent to {endpoint}"),
        None => "not exported; OTEL_EXPORTER_OTLP_ENDPOINT is not set".to_owned(),
    };
    Check { what: "traces", state: State::Good, detail }
}

/// Home, database and, through HTTP, everything behind `/readyz`.
async fn server(config: &Config, trace: Arc<dyn TraceLink>) -> Vec<Check> {
    let home = config.places.home.display();
    let connection = match Connection::open(config, trace, Duty::Answers).await {
        Ok(connection) => connection,
        Err(error) => {
            let detail = format!("{home}: {error}");
            return vec![Check { what: "home", state: State::Bad, detail }];
        }
    };
    let holder = if connection.is_remote() {
        format!("held by the server at {}", connection.url())
    } else {
        "free".to_owned()
    };
    let mut checks =
        vec![Check { what: "home", state: State::Good, detail: format!("{home}, {holder}") }];
    checks.push(match connection.get("/readyz").await {
        Ok(_) => Check { what: "ready", state: State::Good, detail: "yes".to_owned() },
        Err(error) => Check { what: "ready", state: State::Bad, detail: error.to_string() },
    });
    connection.close().await;
    checks
}
