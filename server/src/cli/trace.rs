//! `exile trace`: what a run did, from its stored events, without any viewer.

use clap::Args;
use exile_engine::state::short;
use jiff::Timestamp;
use serde_json::Value;

use super::connection::{Connection, part};
use super::error::CliError;
use super::terminal::Terminal;

/// Show what a run did: nodes, calls, tokens and milliseconds.
#[derive(Args)]
pub(super) struct Trace {
    /// The run's id
    run: String,
}

impl Trace {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        let path = format!("/api/runs/{}/events", part(&self.run));
        let answer = connection.get(&path).await?;
        let events = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let start = events.first().and_then(at).unwrap_or_default();
        let rows = events.iter().filter_map(|event| row(event, start)).collect();
        terminal.table(&["AT", "WHAT", "MS", "TOKENS", "DETAIL"], rows, &answer)
    }
}

/// One line of the table; `None` for events that tell nothing of their own.
fn row(event: &Value, start: Timestamp) -> Option<Vec<String>> {
    let (name, data) = (event["name"].as_str()?, &event["data"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (what, detail) = match name {
        "run.started" => (format!("run {}", text(&data["graph"])), text(&data["run"])),
        "step.started" => (format!("step {}", data["step"]), String::new()),
        "node.finished" => (indented(data, "node"), failure(data)),
        "model.finished" => {
            (format!("{} {}", indented(data, "chat"), text(&data["model"])), failure(data))
        }
        "tool.call" => {
            let call = format!("{} {}", indented(data, "call"), text(&data["tool"]));
            (call, short(&data["arguments"]))
        }
        "tool.result" => {
            let detail =
                if data["error"].is_null() { short(&data["content"]) } else { failure(data) };
            (format!("{} {}", indented(data, "result"), text(&data["tool"])), detail)
        }
        "run.finished" | "run.failed" | "run.cancelled" => (name.to_owned(), failure(data)),
        _ => return None,
    };
    let after = at(event)?.duration_since(start).as_millis();
    let took = data["ms"].as_u64().map(|ms| ms.to_string()).unwrap_or_default();
    Some(vec![format!("{after} ms"), what, took, tokens(&data["usage"]), detail])
}

/// When it happened.
fn at(event: &Value) -> Option<Timestamp> {
    event["at"].as_str()?.parse().ok()
}

/// `what` and the task, further to the right the deeper the task lies.
fn indented(data: &Value, what: &str) -> String {
    let task = data["task"].as_str().unwrap_or_default();
    format!("{}{what} {task}", "  ".repeat(1 + task.matches('/').count()))
}

fn failure(data: &Value) -> String {
    let error = &data["error"];
    let kind = error["code"].as_str().or_else(|| error["kind"].as_str());
    let message = error["message"].as_str().unwrap_or_default();
    kind.map(|kind| format!("{kind}: {message}")).unwrap_or_default()
}

fn tokens(usage: &Value) -> String {
    match (usage["input_tokens"].as_u64(), usage["output_tokens"].as_u64()) {
        (Some(input), Some(output)) => format!("{input} in, {output} out"),
        _ => String::new(),
    }
}
