//! The only way to standard output: every write can fail, and a reader that went away ends the
//! command quietly.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use exile_engine::diagnostic::{self, Finding};
use serde_json::{Value, json};

use super::error::CliError;
use crate::config::ConfigError;

/// Standard output and standard error.
pub(super) struct Terminal {
    out: io::Stdout,
    json: bool,
    color: bool,
}

impl Terminal {
    /// `json`: standard output is for machines.
    pub(super) fn new(json: bool) -> Self {
        let plain = json || std::env::var_os("NO_COLOR").is_some();
        let out = io::stdout();
        Self { json, color: !plain && out.is_terminal(), out }
    }

    /// Whether standard output is for machines.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// Whether a person types and reads.
    pub(super) fn interactive(&self) -> bool {
        !self.json && io::stdin().is_terminal() && self.out.is_terminal()
    }

    /// One line.
    pub(super) fn line(&mut self, text: &str) -> Result<(), CliError> {
        self.piece(&format!("{text}\n"))
    }

    /// A piece of a line, shown at once.
    pub(super) fn piece(&mut self, text: &str) -> Result<(), CliError> {
        let mut out = self.out.lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// One line in the background, if there is colour.
    pub(super) fn aside(&mut self, text: &str) -> Result<(), CliError> {
        if self.color { self.line(&format!("\u{1b}[2m{text}\u{1b}[0m")) } else { self.line(text) }
    }

    /// A value: one line of JSON for machines, indented for people.
    pub(super) fn value(&mut self, value: &Value) -> Result<(), CliError> {
        if self.json { self.line(&value.to_string()) } else { self.line(&format!("{value:#}")) }
    }

    /// Rows under a head; for machines the rows' own JSON.
    pub(super) fn table(
        &mut self,
        head: &[&str],
        rows: Vec<Vec<String>>,
        json: &Value,
    ) -> Result<(), CliError> {
        if self.json {
            return self.value(json);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(head.iter().copied()).add_rows(rows);
        self.line(&table.trim_fmt())
    }

    /// Findings, with their source lines for people.
    pub(super) fn findings(
        &mut self,
        findings: &[Finding],
        sources: &BTreeMap<String, String>,
    ) -> Result<(), CliError> {
        if self.json {
            return self.value(&json!({ "findings": findings }));
        }
        self.piece(&diagnostic::render(findings, sources, self.color))
    }

    /// What made the command fail, on standard error; with `--json` as JSON on standard output.
    pub(super) fn failed(&mut self, error: &CliError) {
        let text = match error {
            CliError::Shown => return,
            CliError::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => return,
            CliError::Config(ConfigError::Findings { path, text, findings }) => {
                let sources = BTreeMap::from([(path.display().to_string(), text.clone())]);
                diagnostic::render(findings, &sources, io::stderr().is_terminal())
            }
            other => format!("exile: {other}\n"),
        };
        // Nobody is left to tell if these fail.
        if self.json {
            let mut report = json!({ "code": error.code(), "detail": error.to_string() });
            if let CliError::Config(ConfigError::Findings { findings, .. }) = error {
                report["findings"] = json!(findings);
            }
            let _ = self.value(&json!({ "error": report }));
        } else {
            let _ = io::stderr().lock().write_all(text.as_bytes());
        }
    }
}
