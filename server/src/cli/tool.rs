//! `exile tool`: what there is to call, and calling it.

use clap::Subcommand;
use serde_json::{Value, json};

use super::connection::{Connection, part, views};
use super::error::CliError;
use super::terminal::Terminal;
use crate::api::ToolView;

/// List and call tools.
#[derive(Subcommand)]
pub(super) enum Tool {
    /// Print every tool, by the name that graphs and models use
    List,
    /// Call one tool
    Call {
        /// The tool's name
        name: String,
        /// Its arguments, as a JSON object
        #[arg(default_value = "{}")]
        arguments: String,
    },
}

impl Tool {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        match self {
            Self::List => list(connection, terminal).await,
            Self::Call { name, arguments } => call(connection, terminal, &name, &arguments).await,
        }
    }
}

async fn list(connection: &Connection, terminal: &mut Terminal) -> Result<(), CliError> {
    let answer = connection.get("/api/tools").await?;
    let tools = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |tool: ToolView| {
        let about = tool.description.lines().next().unwrap_or_default().to_owned();
        vec![tool.name, tool.effect.into_owned(), tool.source, about]
    };
    let rows = views(tools)?.into_iter().map(row).collect();
    terminal.table(&["NAME", "EFFECT", "SOURCE", "DESCRIPTION"], rows, &answer)
}

async fn call(
    connection: &Connection,
    terminal: &mut Terminal,
    name: &str,
    arguments: &str,
) -> Result<(), CliError> {
    let arguments: Value = serde_json::from_str(arguments).map_err(|error| {
        CliError::Usage(format!("the arguments are no JSON ({error}); write e.g. '{{\"a\": 1}}'"))
    })?;
    let path = format!("/api/tools/{}/call", part(name));
    let answer = connection.post(&path, &json!({ "arguments": arguments })).await?;
    let result = &answer["result"];
    match result.as_str().filter(|_| !terminal.json()) {
        Some(text) => terminal.line(text),
        None => terminal.value(if terminal.json() { &answer } else { result }),
    }
}
