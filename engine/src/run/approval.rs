//! Questions around tool calls: whether a call may be made, and what a tool itself asks.
//!
//! A person sees the arguments as they will be sent, hidden characters visible. They answer
//! `"approve"`, `"reject"`, `{"reject": "why"}` or `{"edit": {arguments}}`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::run::context::Ask;
use crate::run::record::{AskReason, Question};
use crate::run::task;
use crate::tool::{ToolError, ToolErrorKind, ToolQuestion};

/// The answers that need nothing else said.
const CHOICES: [&str; 2] = ["approve", "reject"];

/// The name of the question whether a call may be made.
pub(super) fn call(call: &str) -> String {
    format!("{call}?")
}

/// The question whether a call may be made.
pub(super) fn ask(call: String, tool: &str, args: &Value) -> Ask {
    let text = format!("May `{tool}` be called with {}?", visible(&args.to_string()));
    let question = Question {
        reason: AskReason::Approval,
        text,
        choices: CHOICES.map(str::to_owned).to_vec(),
        schema: Some(schema()),
        tool: Some(tool.to_owned()),
        args: Some(args.clone()),
    };
    Ask { call, question, expires: None, otherwise: None }
}

/// JSON Schema of an answer.
fn schema() -> Value {
    json!({
        "anyOf": [
            { "enum": CHOICES },
            {
                "type": "object",
                "required": ["reject"],
                "properties": { "reject": { "type": "string" } },
                "additionalProperties": false,
            },
            {
                "type": "object",
                "required": ["edit"],
                "properties": { "edit": { "type": "object" } },
                "additionalProperties": false,
            },
        ],
    })
}

/// The arguments that may be sent.
///
/// # Errors
/// What the model is told of a refusal.
pub(super) fn decide(answer: &Value, args: Value) -> Result<Value, ToolError> {
    if answer == "approve" {
        return Ok(args);
    }
    if let Some(edited) = answer.get("edit") {
        return Ok(edited.clone());
    }
    let why = answer.get("reject").and_then(Value::as_str).map(|why| format!(": {why}"));
    let text = format!("a person refused this call{}", why.unwrap_or_default());
    Err(ToolError::new(ToolErrorKind::Denied, text))
}

/// A question that a tool asks in the middle of a call, and its name. A call may ask several.
pub(super) fn of_tool(
    call: &str,
    asked: &BTreeMap<Arc<str>, task::Question>,
    tool: &str,
    question: ToolQuestion,
) -> (Ask, Arc<str>) {
    let number = asked.keys().filter(|name| name.starts_with(&format!("{call}#"))).count() + 1;
    let name = format!("{call}#{number}");
    let question = Question {
        reason: AskReason::Tool,
        text: question.text,
        choices: Vec::new(),
        schema: question.schema,
        tool: Some(tool.to_owned()),
        args: None,
    };
    let ask = Ask { call: name.clone(), question, expires: None, otherwise: None };
    (ask, name.into())
}

/// The text with every character written out that is not seen: controls, and those that change
/// direction or have no width.
fn visible(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}')
            || matches!(c, '\u{e0000}'..='\u{e0fff}')
    };
    let shown = |c: char| if hidden(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_written_out() {
        let question = ask("c?".into(), "pay", &json!({ "to": "a\u{202e}b\u{e0041}" }));
        assert!(question.question.text.contains(r"a\u{202e}b\u{e0041}"), "{question:?}");
    }

    #[test]
    fn an_answer_approves_edits_or_refuses_and_silence_refuses() {
        let args = json!({ "n": 1 });
        assert_eq!(decide(&json!("approve"), args.clone()), Ok(args.clone()));
        assert_eq!(decide(&json!({ "edit": { "n": 2 } }), args.clone()), Ok(json!({ "n": 2 })));
        for (answer, says) in [
            (json!("reject"), "a person refused this call"),
            (json!({ "reject": "too much" }), "a person refused this call: too much"),
            (json!("APPROVE"), "a person refused this call"),
            (Value::Null, "a person refused this call"),
        ] {
            assert_eq!(decide(&answer, args.clone()).unwrap_err().message, says, "{answer}");
        }
    }
}
