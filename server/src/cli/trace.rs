//! `exile trace`: what a run did, from its stored events, without any viewer.

use clap::Args;
use exile_engine::state::short;
use jiff::Timestamp;
use serde_json::{Value, json};

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
        let answer = json!({ "items": connection.all(&path, "").await?, "next": null });
        let events = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let start = events.first().and_then(at).unwrap_or_default();
        let lines = |event| attempts(event, start).into_iter().chain(row(event, start));
        let rows = events.iter().flat_map(lines).collect();
        terminal.table(&["AT", "WHAT", "MS", "TOKENS", "DETAIL"], rows, &answer)
    }
}

/// One line of the table; `None` for events that tell nothing of their own.
fn row(event: &Value, start: Timestamp) -> Option<Vec<String>> {
    let (name, data) = (event["name"].as_str()?, &event["data"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (what, detail) = match name {
        "run.started" if data["from"].is_string() => {
            (format!("fork of {} at {}", text(&data["from"]), data["at"]), text(&data["run"]))
        }
        "run.started" => (format!("run {}", text(&data["graph"])), text(&data["run"])),
        "step.started" => (format!("step {}", data["step"]), String::new()),
        "node.finished" if data["cached"] == true => (indented(data, "node"), "cached".into()),
        "node.finished" => (indented(data, "node"), failure(data)),
        "node.retried" => {
            let detail = format!("attempt {} after {}", data["attempt"], failure(data));
            (indented(data, "retry"), detail)
        }
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
        "run.waiting" => (name.to_owned(), waits(data)),
        "run.finished" => (name.to_owned(), output(data)),
        "run.failed" | "run.cancelled" => (name.to_owned(), failure(data)),
        _ => return None,
    };
    let after = at(event)?.duration_since(start).as_millis();
    let took = data["ms"].as_u64().map(|ms| ms.to_string()).unwrap_or_default();
    Some(vec![format!("{after} ms"), what, took, tokens(&data["usage"]), detail])
}

/// Attempts of a model call that failed, a line each.
fn attempts(event: &Value, start: Timestamp) -> Vec<Vec<String>> {
    let data = &event["data"];
    let list = data["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let after = at(event).map_or(0, |at| at.duration_since(start).as_millis());
    let line = |attempt: &Value| {
        let model = attempt["model"].as_str().unwrap_or_default();
        let took = attempt["ms"].as_u64().map(|ms| ms.to_string()).unwrap_or_default();
        let what = format!("{} {model}", indented(data, "attempt"));
        vec![format!("{after} ms"), what, took, String::new(), failure(attempt)]
    };
    list.iter().map(line).collect()
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

/// Questions by their ids, and calls by what resolving them names.
fn waits(data: &Value) -> String {
    let list = |key: &str| data[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    let mut parts = Vec::new();
    if !data["attention"].is_null() {
        parts.push(format!(
            "{}: {}",
            text(&data["attention"], "code"),
            text(&data["attention"], "message")
        ));
    }
    let asked = list("interrupts").iter();
    parts.extend(asked.map(|i| format!("{}: {}", text(i, "id"), text(i, "text"))));
    let open = list("open_calls").iter();
    parts.extend(open.map(|c| format!("{} ({})", text(c, "call"), text(c, "tool"))));
    parts.join("; ")
}

/// What the run gave, a part of each value.
fn output(data: &Value) -> String {
    let given = data["output"].as_object().into_iter().flatten();
    given.map(|(name, value)| format!("{name}: {}", short(value))).collect::<Vec<_>>().join("; ")
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
