//! `exile model`: what models there are, what they can do, and whether that is true.

use clap::Subcommand;
use serde_json::{Value, json};

use super::connection::Connection;
use super::error::CliError;
use super::terminal::Terminal;

/// Cells of the table, each with its heading.
const CELLS: [(&str, &str); 6] = [
    ("tools", "TOOLS"),
    ("parallel_tools", "PARALLEL"),
    ("json_schema", "SCHEMA"),
    ("vision", "VISION"),
    ("reasoning", "REASONING"),
    ("context", "CONTEXT"),
];

/// List models and prove what is said of them.
#[derive(Subcommand)]
pub(super) enum Model {
    /// Print every model and what it can do; --json shows sources, days and prices too
    List,
    /// Ask a model small questions and compare with what is known; exit code 1 if it differs, or if
    /// the model cannot be reached
    Probe {
        /// provider/model, or an alias
        model: String,
    },
}

impl Model {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        match self {
            Self::List => list(connection, terminal).await,
            Self::Probe { model } => probe(connection, terminal, &model).await,
        }
    }
}

async fn list(connection: &Connection, terminal: &mut Terminal) -> Result<(), CliError> {
    let answer = connection.get("/api/models").await?;
    let rows = items(&answer["items"]).iter().map(|model| row(model, &answer["aliases"]));
    let mut headings = vec!["MODEL", "ALIASES", "READY"];
    headings.extend(CELLS.iter().map(|(_, heading)| *heading));
    terminal.table(&headings, rows.collect(), &answer)
}

fn row(model: &Value, aliases: &Value) -> Vec<String> {
    let name = model["name"].as_str().unwrap_or_default();
    let leads = |alias: &&Value| {
        alias["model"] == name || items(&alias["fallback"]).iter().any(|other| other == name)
    };
    let aliases = items(aliases).iter().filter(leads);
    let aliases: Vec<&str> = aliases.filter_map(|alias| alias["name"].as_str()).collect();
    let ready = if model["ready"] == true { "yes" } else { "no" };
    let mut row = vec![name.to_owned(), aliases.join(", "), ready.to_owned()];
    row.extend(CELLS.iter().map(|(cell, _)| short(&model["capabilities"][cell]["value"])));
    row
}

fn short(value: &Value) -> String {
    match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null => "?".to_owned(),
        other => other.to_string(),
    }
}

async fn probe(
    connection: &Connection,
    terminal: &mut Terminal,
    model: &str,
) -> Result<(), CliError> {
    let answer = connection.post("/api/models/probe", &json!({ "model": model })).await?;
    let row = |proof: &Value| {
        let text = |key: &str| proof[key].as_str().unwrap_or_default().to_owned();
        let verdict = match (proof["drift"] == true, proof["seen"].is_null()) {
            (true, _) => "DRIFT",
            (false, true) => "unknown",
            (false, false) => "ok",
        };
        let (claimed, seen) = (short(&proof["claimed"]), short(&proof["seen"]));
        vec![verdict.to_owned(), text("cell"), claimed, seen, text("detail")]
    };
    let rows = items(&answer["proofs"]).iter().map(row).collect();
    terminal.table(&["", "CELL", "CLAIMED", "SEEN", "DETAIL"], rows, &answer)?;
    let proved = items(&answer["proofs"]).iter().any(|proof| !proof["seen"].is_null());
    if answer["drift"] == 0 && proved { Ok(()) } else { Err(CliError::Shown) }
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}
