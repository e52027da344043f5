//! `exile runs`: everybody's runs, for those who operate the server.

use std::collections::BTreeMap;

use clap::Subcommand;
use exile_engine::state::short;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::connection::{Connection, part, view, views};
use super::error::CliError;
use super::terminal::Terminal;
use crate::api::{RunView, UserView};

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
                let done = match &*view::<RunView>(&run)?.status {
                    "cancelled" => "it is cancelled",
                    "finished" | "failed" => "it had ended before, and stays as it is",
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
    let users: Vec<UserView> = views(&users)?;
    Ok(users.into_iter().map(|user| (user.id.to_string(), user.name)).collect())
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
    let row = |run: RunView| {
        let owner = run.owner.to_string();
        let owner = names.get(&owner).cloned().unwrap_or(owner);
        let why = run.error.map(|error| error.code).unwrap_or_default();
        let (id, status) = (run.id.to_string(), run.status.into_owned());
        vec![id, status, run.graph, owner, run.created_at.to_string(), why]
    };
    let rows = views(&items)?.into_iter().map(row).collect();
    let head = ["RUN", "STATUS", "GRAPH", "OWNER", "ASKED FOR", "ERROR"];
    terminal.table(&head, rows, &json!({ "items": items }))
}

async fn show(
    connection: &Connection,
    terminal: &mut Terminal,
    answer: &Value,
) -> Result<(), CliError> {
    let run: RunView = view(answer)?;
    let owner = run.owner.to_string();
    let owner = names(connection).await?.get(&owner).cloned().unwrap_or(owner);
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    let conversation = run.conversation_id.map(|id| id.to_string()).unwrap_or_default();
    let mut rows = vec![
        ["owner", &owner].map(str::to_owned),
        ["graph", &run.graph].map(str::to_owned),
        ["conversation id", &conversation].map(str::to_owned),
        ["status", &run.status].map(str::to_owned),
        ["created at", &time(Some(run.created_at))].map(str::to_owned),
        ["started at", &time(run.started_at)].map(str::to_owned),
        ["ended at", &time(run.ended_at)].map(str::to_owned),
    ];
    if let Some(error) = run.error {
        let known = [("code", Some(error.code)), ("message", Some(error.message))];
        let place = [("node", error.node), ("path", error.path)];
        let model = [("provider", error.provider), ("model", error.model)];
        for (name, value) in known.into_iter().chain(place).chain(model) {
            rows.push([format!("error {name}"), value.unwrap_or_default()]);
        }
    }
    for interrupt in run.interrupts {
        let asks = format!("{}: {}", interrupt.id, interrupt.text);
        rows.push(["waits for".to_owned(), asks]);
    }
    for call in run.open_calls {
        rows.push(["open call".to_owned(), json!(call).to_string()]);
    }
    for (name, value) in run.output.into_iter().flatten() {
        rows.push([format!("output {name}"), short(&value)]);
    }
    let tokens = format!("{} in, {} out", run.usage.input_tokens, run.usage.output_tokens);
    rows.push(["tokens".to_owned(), tokens]);
    rows.push(["trace".to_owned(), run.trace_id.unwrap_or_default()]);
    rows.retain(|row| row.iter().all(|cell| !cell.is_empty()));
    let rows = rows.into_iter().map(Vec::from).collect();
    terminal.table(&["RUN", run.id.as_str()], rows, answer)
}
