//! `exile resume` and `exile resolve`: what a person says to a run that waits.

use clap::Args;
use serde_json::{Map, Value, json};

use super::connection::{Connection, part};
use super::error::CliError;
use super::question::{self, Question};
use super::terminal::Terminal;

/// Answer questions of a run that waits, and go on with it.
#[derive(Args)]
pub(super) struct Resume {
    /// The run's id
    run: String,
    /// The answer to one question; a choice may be given by its number. Without ID= it answers
    /// the only one
    #[arg(long = "answer", value_name = "ID=VALUE", required = true)]
    answers: Vec<String>,
}

impl Resume {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        let path = format!("/api/runs/{}", part(&self.run));
        let run = connection.get(&path).await?;
        let open = run["interrupts"].as_array().map(Vec::as_slice).unwrap_or_default();
        let body = json!({ "answers": answers(open, &self.answers)? });
        let mut events = connection.stream(&format!("{path}/resume"), &body).await?;
        let end = loop {
            let Some(event) = events.next().await? else {
                return Err(CliError::Answer("the stream ended before the run did".into()));
            };
            if let Some(end) = event.end() {
                break end;
            }
        };
        let run = connection.get(&path).await?;
        if terminal.json() {
            terminal.value(&run)?;
        } else if run["status"] == "waiting" {
            question::show_open(terminal, &run)?;
        } else if end.is_ok() {
            terminal.value(&connection.get(&format!("{path}/state")).await?["values"])?;
        }
        end
    }
}

/// Interrupt → answer, of `ID=VALUE` or, if one question is open, `VALUE`.
fn answers(open: &[Value], given: &[String]) -> Result<Map<String, Value>, CliError> {
    let mut answers = Map::new();
    for text in given {
        let named = text.split_once('=').and_then(|(id, value)| {
            let interrupt = open.iter().find(|interrupt| interrupt["id"] == id)?;
            Some((interrupt, value))
        });
        let (interrupt, value) = match (named, open) {
            (Some(named), _) => named,
            (None, [only]) if given.len() == 1 => (only, text.as_str()),
            _ => {
                let ids: Vec<&str> = open.iter().map(|i| Question::of(i).id()).collect();
                let ids = if ids.is_empty() { "none".into() } else { ids.join(", ") };
                let what = format!("--answer {text}: write ID=VALUE; open questions: {ids}");
                return Err(CliError::Usage(what));
            }
        };
        let question = Question::of(interrupt);
        answers.insert(question.id().to_owned(), question.answer(value));
    }
    Ok(answers)
}

/// Say what became of calls whose outcome is unknown, or whether a run may go on.
#[derive(Args)]
pub(super) struct Resolve {
    /// The run's id
    run: String,
    /// What becomes of it: it happened, it is made again, or it failed
    #[arg(value_parser = ["done", "retry", "failed"])]
    action: String,
    /// The open call, as `exile trace` shows it [default: all]
    #[arg(long, value_name = "TASK#CALL")]
    call: Option<String>,
    /// With done: what the tool would have answered, as JSON
    #[arg(long, value_name = "JSON")]
    output: Option<String>,
    /// With failed: why
    #[arg(long)]
    message: Option<String>,
}

impl Resolve {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        let mut body = json!({ "action": self.action });
        if let Some(output) = &self.output {
            let wrong = |e| CliError::Usage(format!("--output is no JSON: {e}"));
            body["output"] = serde_json::from_str(output).map_err(wrong)?;
        }
        for (key, value) in [("call", self.call), ("message", self.message)] {
            if let Some(value) = value {
                body[key] = value.into();
            }
        }
        let path = format!("/api/runs/{}/resolve", part(&self.run));
        let run = connection.post(&path, &body).await?;
        if terminal.json() {
            return terminal.value(&run);
        }
        terminal.line(&format!("it goes on; exile trace {} shows how", self.run))
    }
}
