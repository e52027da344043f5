//! `exile runs`: everybody's runs, for those who operate the server.

use std::collections::BTreeMap;

use clap::Subcommand;
use exile_engine::state::short;
use serde_json::{Value, json};

use super::connection::{Connection, part};
use super::error::CliError;
use super::terminal::Terminal;

/// List, show and cancel runs.
#[derive(Subcommand)]
pub(super) enum Runs {
    /// Print runs, newest first
    List {
        /// Only those that are queued, running, waiting, finished, failed, cancelled or
        /// needs_attention
        #[arg(long)]
        #[allow(clippy::doc_markdown, reason = "`--help` prints these lines as they are")]
        status: Option<String>,
        /// Only those of this graph
        #[arg(long, value_name = "NAME")]
        graph: Option<String>,
        /// Only those of this user [default: everybody's]
        #[arg(long, value_name = "NAME", default_value = "*", hide_default_value = true)]
        owner: String,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Print how far a run has come, why it failed, and what it waits for
    Show {
        /// The run's id
        run: String,
    },
    /// Stop a run; one that has ended stays as it is
    Cancel {
        /// The run's id
        run: String,
    },
}

impl Runs {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        match self {
            Self::List { status, graph, owner, limit } => {
                let mut query = format!("owner={}", part(&owner));
                for (name, value) in [("status", status), ("graph", graph)] {
                    if let Some(value) = value {
                        query = format!("{query}&{name}={}", part(&value));
                    }
                }
                list(connection, terminal, &query, limit).await
            }
            Self::Show { run } => {
                let run = connection.get(&format!("/api/runs/{}", part(&run))).await?;
                show(connection, terminal, &run).await
            }
            Self::Cancel { run } => {
                let path = format!("/api/runs/{}/cancel", part(&run));
                let run = connection.post(&path, &json!({})).await?;
                if terminal.json() {
                    return terminal.value(&run);
                }
                let done = match run["status"].as_str() {
                    Some("cancelled") => "it is cancelled",
                    Some("finished" | "failed") => "it had ended before, and stays as it is",
                    _ if connection.is_remote() => "it is being cancelled",
                    _ => "it will be cancelled by the next process that drives runs",
                };
                terminal.line(done)
            }
        }
    }
}

/// Names of users, by id.
async fn names(connection: &Connection) -> Result<BTreeMap<String, String>, CliError> {
    let users = connection.all("/api/users", "").await?;
    Ok(users.iter().map(|user| (text(&user["id"]), text(&user["name"]))).collect())
}

async fn list(
    connection: &Connection,
    terminal: &mut Terminal,
    query: &str,
    limit: u32,
) -> Result<(), CliError> {
    let mut items: Vec<Value> = Vec::new();
    let mut next = String::new();
    loop {
        let left = usize::try_from(limit).unwrap_or(usize::MAX) - items.len();
        let path = format!("/api/runs?{query}{next}&limit={}", left.min(200));
        let page = connection.get(&path).await?;
        items.extend(page["items"].as_array().into_iter().flatten().cloned());
        match page["next"].as_str() {
            Some(after) if left > 200 => next = format!("&after={}", part(after)),
            _ => break,
        }
    }
    let names = names(connection).await?;
    let row = |run: &Value| {
        let owner = text(&run["owner"]);
        let owner = names.get(&owner).cloned().unwrap_or(owner);
        let why = text(&run["error"]["code"]);
        let [id, graph, status] = ["id", "graph", "status"].map(|key| text(&run[key]));
        vec![id, status, graph, owner, text(&run["created_at"]), why]
    };
    let rows = items.iter().map(row).collect();
    let head = ["RUN", "STATUS", "GRAPH", "OWNER", "ASKED FOR", "ERROR"];
    terminal.table(&head, rows, &json!({ "items": items }))
}

async fn show(
    connection: &Connection,
    terminal: &mut Terminal,
    run: &Value,
) -> Result<(), CliError> {
    let owner = text(&run["owner"]);
    let owner = names(connection).await?.get(&owner).cloned().unwrap_or(owner);
    let mut rows = vec![vec!["owner".to_owned(), owner]];
    for key in ["graph", "conversation_id", "status", "created_at", "started_at", "ended_at"] {
        rows.push(vec![key.replace('_', " "), text(&run[key])]);
    }
    for key in ["code", "message", "node", "path", "provider", "model"] {
        rows.push(vec![format!("error {key}"), text(&run["error"][key])]);
    }
    for interrupt in run["interrupts"].as_array().into_iter().flatten() {
        let asks = format!("{}: {}", text(&interrupt["id"]), text(&interrupt["text"]));
        rows.push(vec!["waits for".to_owned(), asks]);
    }
    for call in run["open_calls"].as_array().into_iter().flatten() {
        rows.push(vec!["open call".to_owned(), call.to_string()]);
    }
    for (name, value) in run["output"].as_object().into_iter().flatten() {
        rows.push(vec![format!("output {name}"), short(value)]);
    }
    let usage = &run["usage"];
    let tokens = format!("{} in, {} out", usage["input_tokens"], usage["output_tokens"]);
    rows.push(vec!["tokens".to_owned(), tokens]);
    rows.push(vec!["trace".to_owned(), text(&run["trace_id"])]);
    rows.retain(|row| row.iter().all(|cell| !cell.is_empty()));
    terminal.table(&["RUN", &text(&run["id"])], rows, run)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
