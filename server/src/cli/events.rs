//! A run's events, read from a stream of server-sent events.
//!
//! Absent on purpose: `retry:` and reconnecting; a command ends with its connection.

use std::collections::VecDeque;

use exile_engine::http::HttpResponse;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::error::CliError;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    /// Its number, as text.
    pub(super) id: String,
    /// E.g. `message.delta`.
    pub(super) name: String,
    /// Its content.
    pub(super) data: Value,
}

impl Event {
    /// As one line of JSON for machines.
    pub(super) fn to_json(&self) -> Value {
        json!({ "id": self.id, "event": self.name, "data": self.data })
    }

    /// A text of its content; empty if it has none.
    pub(super) fn text(&self, key: &str) -> &str {
        self.data[key].as_str().unwrap_or_default()
    }

    /// How the stream ended, if this is its end: `Err` says why the run neither finished nor waits
    /// for answers.
    pub(super) fn end(&self) -> Option<Result<(), CliError>> {
        match self.name.as_str() {
            "run.finished" => Some(Ok(())),
            "run.waiting" if self.data["attention"].is_null() => Some(Ok(())),
            "run.waiting" => {
                let (run, why) = (self.text("run"), &self.data["attention"]);
                let text = |key: &str| why[key].as_str().unwrap_or_default();
                let (code, message) = (text("code"), text("message"));
                let remedy = format!("`exile resolve {run} retry` goes on");
                Some(Err(CliError::Run(format!("the run waits ({code}): {message}; {remedy}"))))
            }
            "run.cancelled" => Some(Err(CliError::Run("the run was cancelled".into()))),
            "run.failed" => {
                let error = &self.data["error"];
                let text = |key: &str| error[key].as_str().unwrap_or_default();
                let why = format!("the run failed ({}): {}", text("code"), text("message"));
                Some(Err(CliError::Run(why)))
            }
            _ => None,
        }
    }
}

/// Events as they come.
pub(super) struct Events {
    run: Option<String>,
    response: HttpResponse,
    parser: Parser,
}

impl Events {
    pub(super) fn of(response: HttpResponse) -> Self {
        let run = response.header("x-exile-run").map(str::to_owned);
        Self { run, response, parser: Parser::default() }
    }

    /// The run's id, as soon as the answer began.
    pub(super) fn run(&self) -> Option<&str> {
        self.run.as_deref()
    }

    /// The next event; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, CliError> {
        loop {
            if let Some(event) = self.parser.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.response.body.next().await {
                Some(piece) => self.parser.take(&piece?)?,
                None => return Ok(None),
            }
        }
    }
}

/// Cuts bytes into lines and lines into events.
#[derive(Default)]
struct Parser {
    line: Vec<u8>,
    id: String,
    name: String,
    data: String,
    ready: VecDeque<Event>,
}

impl Parser {
    fn take(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.end_line(String::from_utf8_lossy(&line).trim_end_matches('\r'))?;
            } else {
                self.line.push(*byte);
            }
        }
        Ok(())
    }

    fn end_line(&mut self, line: &str) -> Result<(), CliError> {
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.id),
            "event" => value.clone_into(&mut self.name),
            "data" => self.data.push_str(value),
            // Comments, and fields of no use here.
            _ => {}
        }
        Ok(())
    }

    fn end_event(&mut self) -> Result<(), CliError> {
        let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if data.is_empty() {
            return Ok(());
        }
        let data =
            serde_json::from_str(&data).map_err(|error| CliError::Answer(error.to_string()))?;
        self.ready.push_back(Event { id: self.id.clone(), name, data });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_the_bytes_are_cut() {
        let text = ": alive\n\nid: 7\nevent: message.delta\ndata: {\"text\":\"你好\"}\n\n\
                    id: 9\r\nevent: run.finished\r\ndata: {}\r\n\r\n";
        let event =
            |id: &str, name: &str, data: Value| Event { id: id.into(), name: name.into(), data };
        let expected = [
            event("7", "message.delta", json!({ "text": "你好" })),
            event("9", "run.finished", json!({})),
        ];
        for size in 1..=text.len() {
            let mut parser = Parser::default();
            for piece in text.as_bytes().chunks(size) {
                parser.take(piece).unwrap();
            }
            assert_eq!(parser.ready, expected, "in pieces of {size} bytes");
        }
    }

    #[test]
    fn only_a_run_that_finished_or_asks_is_a_success() {
        let event = |name: &str| Event { id: "1".into(), name: name.into(), data: json!({}) };
        assert!(matches!(event("run.waiting").end(), Some(Ok(()))));
        let data = json!({ "attention": { "code": "open_call" } });
        let attention = Event { data, ..event("run.waiting") };
        assert!(matches!(attention.end(), Some(Err(_))));
        assert!(matches!(event("run.finished").end(), Some(Ok(()))));
        assert!(matches!(event("run.failed").end(), Some(Err(_))));
        assert!(matches!(event("run.cancelled").end(), Some(Err(_))));
        assert!(event("message.delta").end().is_none());
    }
}
