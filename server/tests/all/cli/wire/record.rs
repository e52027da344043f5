//! Recorded exchanges with real providers, from the folder that `EXILE_DATA` names.

use std::path::Path;

use exile_nodes::providers::profile::Protocol;
use serde_json::Value;

/// One exchange.
#[derive(Clone)]
pub(super) struct Record {
    /// Who answered.
    pub provider: String,
    /// What the exchange is a turn of.
    pub name: String,
    /// Where it was asked.
    pub path: String,
    /// What was asked; null if that was no JSON.
    pub request: Value,
    pub status: u16,
    /// The exact text of the answer, streams included.
    pub body: String,
}

/// What an exchange is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// A protocol of answers that exile speaks.
    Answers(Protocol),
    /// Embeddings.
    Embeddings,
    /// Anything else: another protocol, or no model at all.
    Other,
}

impl Record {
    pub(super) fn of(&self) -> Of {
        match self.path.split('?').next().unwrap_or_default() {
            path if path.ends_with("/chat/completions") => Of::Answers(Protocol::Chat),
            path if path.ends_with("/v1/messages") => Of::Answers(Protocol::Anthropic),
            path if path.ends_with("/embeddings") => Of::Embeddings,
            _ => Of::Other,
        }
    }

    /// The model that was asked.
    pub(super) fn model(&self) -> &str {
        self.request["model"].as_str().unwrap_or("m")
    }
}

/// Every exchange there is, by provider; `None` without the folder.
pub(super) fn all() -> Option<Vec<Record>> {
    let folder = std::env::var("EXILE_DATA").ok()?;
    let folder = Path::new(&folder).join("wire");
    let mut files: Vec<_> = std::fs::read_dir(folder).ok()?.map(|f| f.unwrap().path()).collect();
    files.sort();
    let read = |path| std::fs::read_to_string(path).unwrap();
    Some(files.into_iter().map(read).flat_map(|text| lines(&text)).collect())
}

fn lines(text: &str) -> Vec<Record> {
    let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    text.lines().map(parse).map(|line| record(&line)).collect()
}

fn record(line: &Value) -> Record {
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    Record {
        provider: text("provider"),
        name: format!("{} turn {}", text("name"), line["turn"]),
        path: text("path"),
        request: serde_json::from_str(&text("request")).unwrap_or_default(),
        status: line["status"].as_u64().and_then(|s| u16::try_from(s).ok()).unwrap(),
        body: text("body"),
    }
}
