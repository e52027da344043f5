//! `exile run`: one run of a graph, and its output.

use clap::Args;
use serde_json::{Map, Value, json};

use super::connection::Connection;
use super::error::CliError;
use super::terminal::Terminal;

/// Run a graph once and print its output.
#[derive(Args)]
pub(super) struct Run {
    /// The graph
    graph: String,
    /// Channels to set, as a JSON object; `-` reads it from standard input
    #[arg(long, default_value = "{}", value_name = "JSON")]
    input: String,
    /// Print every event as a line of JSON as it comes, in place of the output
    #[arg(long)]
    events: bool,
}

impl Run {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        let body = json!({ "graph": self.graph, "input": input(&self.input)? });
        if self.events {
            return events(connection, terminal, &body).await;
        }
        let done = connection.wait("/api/runs/wait", &body).await?;
        terminal.value(if terminal.json() { &done } else { &done["output"] })
    }
}

async fn events(
    connection: &Connection,
    terminal: &mut Terminal,
    body: &Value,
) -> Result<(), CliError> {
    let mut events = connection.stream("/api/runs/stream", body).await?;
    while let Some(event) = events.next().await? {
        terminal.line(&event.to_json().to_string())?;
        if let Some(end) = event.end() {
            return end;
        }
    }
    Err(CliError::Answer("the stream ended before the run did".into()))
}

/// The input as an object.
fn input(text: &str) -> Result<Map<String, Value>, CliError> {
    let text = match text {
        "-" => std::io::read_to_string(std::io::stdin())?,
        text => text.to_owned(),
    };
    serde_json::from_str(&text).map_err(|error| {
        let example = r#"--input '{"messages": [{"role": "user", "content": "hello"}]}'"#;
        CliError::Usage(format!("--input is no JSON object ({error}); write e.g. {example}"))
    })
}
