//! `exile chat`: a conversation, line by line.

use crate::runs::speakers::{Chunk, Speakers};
use clap::Args;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::connection::{Connection, part};
use super::error::CliError;
use super::events::{Event, Events};
use super::question::Question;
use super::terminal::Terminal;

/// Talk to a graph in the terminal; one line is one message, Ctrl-C stops an answer or, at the prompt, the chat.
#[derive(Args)]
#[allow(clippy::doc_markdown, reason = "`--help` prints these lines as they are")]
pub(super) struct Chat {
    /// The graph [default: default_graph of exile.yaml]
    graph: Option<String>,
    /// Go on with this conversation
    #[arg(long, value_name = "ID", conflicts_with_all = ["graph", "skill", "model", "business"])]
    conversation: Option<String>,
    /// For nodes that name no skill
    #[arg(long)]
    skill: Option<String>,
    /// For nodes that name no model: an alias or provider/model
    #[arg(long)]
    model: Option<String>,
    /// Chooses among an alias's models
    #[arg(long)]
    business: Option<String>,
}

impl Chat {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        let id = self.conversation(connection).await?;
        if terminal.interactive() {
            let about = format!("conversation {id}; Ctrl-C stops an answer, Ctrl-D ends the chat");
            terminal.aside(&about)?;
        }
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        // One listener for all: what comes between two waits is not lost.
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut said = Said::new(&id);
        let mut last = Ok(());
        loop {
            said.ask(terminal)?;
            let line = tokio::select! {
                line = lines.next_line() => line?,
                _ = interrupts.recv() => None,
            };
            let Some(line) = line else { return end(terminal, last) };
            if line.trim().is_empty() {
                continue;
            }
            let Some((path, body)) = said.request(&line) else { continue };
            let events = match connection.stream(&path, &body).await {
                Ok(events) => events,
                // A person may answer again, or say something else.
                Err(CliError::Refused { detail, .. }) if terminal.interactive() => {
                    terminal.aside(&detail)?;
                    said.again();
                    continue;
                }
                Err(error) => return Err(error),
            };
            let turn = Turn {
                connection,
                terminal: &mut *terminal,
                open: false,
                speakers: Speakers::default(),
            };
            last = match turn.show(events, &mut interrupts).await {
                Ok(waits) => {
                    said.waits(waits);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            match &last {
                // A failed run ends its turn; the conversation goes on.
                Err(CliError::Run(why)) if terminal.interactive() => terminal.aside(why)?,
                Err(CliError::Run(_)) | Ok(()) => {}
                Err(_) => return last,
            }
        }
    }

    async fn conversation(&self, connection: &Connection) -> Result<String, CliError> {
        if let Some(id) = &self.conversation {
            connection.get(&format!("/api/conversations/{}", part(id))).await?;
            return Ok(id.clone());
        }
        let mut body = json!({});
        let options = [
            ("graph", &self.graph),
            ("skill", &self.skill),
            ("model", &self.model),
            ("business", &self.business),
        ];
        for (key, value) in options {
            if let Some(value) = value {
                body[key] = json!(value);
            }
        }
        let made = connection.post("/api/conversations", &body).await?;
        let id = made["id"].as_str().ok_or_else(|| CliError::Answer("no `id`".into()))?;
        Ok(id.to_owned())
    }
}

/// Leaves the prompt's line. A person has seen how the last turn ended; a script is told.
fn end(terminal: &mut Terminal, last: Result<(), CliError>) -> Result<(), CliError> {
    if terminal.interactive() { terminal.line("") } else { last }
}

/// Where the next line goes: to the conversation, or to a question of the run that waits.
struct Said {
    messages: String,
    run: String,
    /// Questions of the run that waits.
    open: Vec<Value>,
    /// Answers so far, to the first ones of them.
    answers: Map<String, Value>,
}

impl Said {
    fn new(conversation: &str) -> Self {
        let messages = format!("/api/conversations/{}/messages", part(conversation));
        Self { messages, run: String::new(), open: Vec::new(), answers: Map::new() }
    }

    /// Shows what the next line is for.
    fn ask(&self, terminal: &mut Terminal) -> Result<(), CliError> {
        if let Some(interrupt) = self.open.get(self.answers.len()).filter(|_| !terminal.json()) {
            for line in Question::of(interrupt).lines() {
                terminal.line(&line)?;
            }
        }
        if terminal.interactive() { terminal.piece("> ") } else { Ok(()) }
    }

    /// What a line sends; `None` while questions are left.
    fn request(&mut self, line: &str) -> Option<(String, Value)> {
        let Some(interrupt) = self.open.get(self.answers.len()) else {
            return Some((self.messages.clone(), json!({ "content": line, "stream": true })));
        };
        let question = Question::of(interrupt);
        self.answers.insert(question.id().to_owned(), question.answer(line));
        if self.answers.len() < self.open.len() {
            return None;
        }
        let path = format!("/api/runs/{}/resume", part(&self.run));
        Some((path, json!({ "answers": self.answers, "stream": true })))
    }

    /// The answers were refused: the questions are asked again.
    fn again(&mut self) {
        self.answers.clear();
    }

    /// What the run waits for now, if it does.
    fn waits(&mut self, waiting: Option<Value>) {
        self.answers.clear();
        let waiting = waiting.unwrap_or_default();
        waiting["run"].as_str().unwrap_or_default().clone_into(&mut self.run);
        self.open = waiting["interrupts"].as_array().cloned().unwrap_or_default();
    }
}

/// One answer on its way.
struct Turn<'a> {
    connection: &'a Connection,
    terminal: &'a mut Terminal,
    /// Whether the last piece of text did not end its line.
    open: bool,
    speakers: Speakers,
}

impl Turn<'_> {
    /// Shows events until the run ends or waits, and gives what it waits for; Ctrl-C cancels it.
    async fn show(
        mut self,
        mut events: Events,
        interrupts: &mut Signal,
    ) -> Result<Option<Value>, CliError> {
        loop {
            let event = tokio::select! {
                event = events.next() => event?,
                _ = interrupts.recv() => {
                    self.cancel(events.run()).await?;
                    continue;
                }
            };
            let Some(event) = event else {
                return Err(CliError::Answer("the stream ended before the run did".into()));
            };
            if self.terminal.json() {
                self.terminal.value(&event.to_json())?;
            } else {
                for chunk in self.speakers.take(&event.name, &event.data) {
                    self.say(chunk)?;
                }
                self.show_event(&event)?;
            }
            if let Some(end) = event.end() {
                return end.map(|()| (event.name == "run.waiting").then_some(event.data));
            }
        }
    }

    async fn cancel(&self, run: Option<&str>) -> Result<(), CliError> {
        let Some(run) = run else { return Ok(()) };
        self.connection.post(&format!("/api/runs/{}/cancel", part(run)), &json!({})).await?;
        Ok(())
    }

    fn show_event(&mut self, event: &Event) -> Result<(), CliError> {
        match event.name.as_str() {
            "tool.call" => {
                let arguments = event.data["arguments"].to_string();
                self.beside(&format!("→ {} {arguments}", event.text("tool")))
            }
            "tool.result" => {
                let result = match &event.data["error"] {
                    Value::Null => exile_engine::state::short(&event.data["content"]),
                    error => error["message"].to_string(),
                };
                self.beside(&format!("← {} {result}", event.text("tool")))
            }
            "run.finished" | "run.failed" | "run.cancelled" | "run.waiting" => self.end_line(),
            _ => Ok(()),
        }
    }

    fn say(&mut self, chunk: Chunk) -> Result<(), CliError> {
        match chunk {
            Chunk::Text(text) => {
                self.open = true;
                self.terminal.piece(&text)
            }
            Chunk::Begins | Chunk::Ends(_) | Chunk::Void => self.end_line(),
            Chunk::Reasoning(_) => Ok(()),
        }
    }

    fn beside(&mut self, text: &str) -> Result<(), CliError> {
        self.end_line()?;
        self.terminal.aside(text)
    }

    fn end_line(&mut self) -> Result<(), CliError> {
        if std::mem::take(&mut self.open) { self.terminal.line("") } else { Ok(()) }
    }
}
