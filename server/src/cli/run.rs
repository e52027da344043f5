//! `exile run`: one run of a graph, and its output.

use clap::Args;
use serde_json::{Map, Value, json};

use super::connection::Connection;
use super::error::CliError;
use super::question;
use super::terminal::Terminal;

/// Run a graph once and print its output.
#[derive(Args)]
pub(super) struct Run {
    /// The graph
    graph: String,
    /// Channels to set, as a JSON object; `-` reads it from standard input
    #[arg(long, default_value = "{}", value_name = "JSON")]
    input: String,
    /// When its records are stored: sync, async or exit [default: as the graph says]
    #[arg(long, value_name = "WHEN", value_parser = ["sync", "async", "exit"])]
    durability: Option<String>,
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
        let mut body = json!({ "graph": self.graph, "input": input(&self.input)? });
        if let Some(durability) = self.durability {
            body["durability"] = durability.into();
        }
        if self.events {
            return events(connection, terminal, &body).await;
        }
        let done = connection.wait("/api/runs/wait", &body).await?;
        let asks = done["interrupts"].as_array().is_some_and(|open| !open.is_empty());
        match (terminal.json(), asks) {
            (true, _) => terminal.value(&done),
            (false, true) => question::show_open(terminal, &done["run"]),
            (false, false) => terminal.value(&done["output"]),
        }
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
