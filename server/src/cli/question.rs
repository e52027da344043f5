//! A run's question to a person: how it is shown, and what a line of text answers.

use serde_json::{Value, json};

use super::error::CliError;
use super::terminal::Terminal;

/// What an approval may be answered with, besides `edit {…}` and `reject WHY`.
const APPROVAL: [&str; 2] = ["approve", "reject"];

/// A question.
pub(super) struct Question<'a>(&'a Value);

impl<'a> Question<'a> {
    /// From an interrupt as the API shows it.
    pub(super) fn of(interrupt: &'a Value) -> Self {
        Self(interrupt)
    }

    /// What an answer names.
    pub(super) fn id(&self) -> &'a str {
        self.0["id"].as_str().unwrap_or_default()
    }

    fn is_approval(&self) -> bool {
        self.0["reason"] == "approval"
    }

    fn choices(&self) -> Vec<&'a str> {
        if self.is_approval() {
            return APPROVAL.to_vec();
        }
        self.0["choices"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Whether an answer is JSON that a schema describes, and not just a text.
    fn wants_json(&self) -> bool {
        let schema = &self.0["schema"];
        self.choices().is_empty() && !schema.is_null() && schema["type"] != "string"
    }

    /// The question's lines: its text, what an approval is about, numbered choices.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.0["text"].as_str().unwrap_or_default().to_owned()];
        if let Some(tool) = self.0["tool"].as_str() {
            lines.push(format!("  {tool} {}", self.0["arguments"]));
        }
        let choices = self.choices();
        lines.extend(choices.iter().enumerate().map(|(i, c)| format!("  {}) {c}", i + 1)));
        if self.is_approval() {
            lines.push("  or: edit {…}, reject WHY".to_owned());
        } else if self.wants_json() {
            lines.push(format!("  as JSON that meets {}", self.0["schema"]));
        }
        lines
    }

    /// What a line of text answers: the number of a choice, its text, JSON where a schema asks
    /// for it, else the text as it is. The server judges it.
    pub(super) fn answer(&self, line: &str) -> Value {
        let text = line.trim();
        let choices = self.choices();
        let number = text.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
        if let Some(choice) = number.and_then(|n| choices.get(n)) {
            return json!(choice);
        }
        if self.is_approval() {
            if let Some(why) = text.strip_prefix("reject ") {
                return json!({ "reject": why.trim() });
            }
            let edit = text.strip_prefix("edit ").map(serde_json::from_str::<Value>);
            if let Some(Ok(arguments)) = edit {
                return json!({ "edit": arguments });
            }
        } else if self.wants_json() {
            return serde_json::from_str(text).unwrap_or_else(|_| json!(text));
        }
        json!(text)
    }
}

/// Shows what a run waits for and how to go on.
pub(super) fn show_open(terminal: &mut Terminal, run: &Value) -> Result<(), CliError> {
    let id = run["id"].as_str().unwrap_or_default();
    for interrupt in run["interrupts"].as_array().into_iter().flatten() {
        let question = Question::of(interrupt);
        for line in question.lines() {
            terminal.line(&line)?;
        }
        terminal.aside(&format!("answer with: exile resume {id} --answer {}=…", question.id()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_number_a_choice_json_or_a_text() {
        let choices = json!({ "id": "i", "text": "Which?", "choices": ["tea", "coffee"] });
        let choices = Question::of(&choices);
        assert_eq!(choices.lines(), ["Which?", "  1) tea", "  2) coffee"]);
        assert_eq!(choices.answer("2"), "coffee");
        assert_eq!(choices.answer(" tea "), "tea");
        assert_eq!(choices.answer("3"), "3", "which the server refuses");

        let text = json!({ "id": "i", "text": "Why?", "choices": [],
                           "schema": { "type": "string" } });
        assert_eq!(Question::of(&text).answer("1"), "1");
        let schema = json!({ "id": "i", "text": "How many?", "schema": { "type": "integer" } });
        assert_eq!(Question::of(&schema).answer("3"), 3);

        let approval = json!({ "id": "i", "text": "May I?", "reason": "approval",
                               "tool": "pay", "arguments": { "n": 1 } });
        let approval = Question::of(&approval);
        assert_eq!(approval.lines()[1], r#"  pay {"n":1}"#);
        assert_eq!(approval.answer("1"), "approve");
        assert_eq!(approval.answer("reject too much"), json!({ "reject": "too much" }));
        assert_eq!(approval.answer(r#"edit {"n": 2}"#), json!({ "edit": { "n": 2 } }));
    }
}
