//! Answers to a run's questions, checked before anything is stored.
//!
//! Invariant: what passes is what the question admits: one of its choices, a value that its
//! schema takes, a text; on an approval one of the four forms below.

use std::collections::BTreeMap;

use exile_engine::answer::AnswerSchema;
use exile_engine::id::{InterruptId, RunId};
use exile_engine::journal::{Input, JournalError, Refusal, ResumeRun};
use exile_engine::message::Message;
use exile_engine::run::record::{AskReason, Asked, Number};
use exile_engine::run::standing::RunAt;
use exile_engine::tool::ToolRegistry;
use serde_json::{Value, json};

use super::verdict;
use super::{IdempotencyKey, RunConflict, Runs, RunsError};
use crate::store::RunRow;

/// Answers by question.
pub type Answers = BTreeMap<InterruptId, Value>;

/// How a run stands, and the answers that it has; `None` if it has not begun.
pub async fn standing(runs: Runs<'_>, row: &RunRow) -> Result<Option<(RunAt, Answers)>, RunsError> {
    let at = match runs.engine.run_at(&row.id, None).await {
        Err(JournalError::Corrupt(why)) => return Err(verdict::unreadable(runs, row, why).await?),
        at => at?,
    };
    let Some(at) = at else { return Ok(None) };
    let given = at.answered.iter().map(|a| (a.interrupt.clone(), a.value.clone())).collect();
    Ok(Some((at, given)))
}

/// The questions that have no answer.
#[must_use]
pub fn open(given: &Answers, at: &RunAt) -> Vec<Asked> {
    at.open().into_iter().filter(|asked| !given.contains_key(&asked.id)).collect()
}

/// Sends a message to a run of its conversation that waits, as the answer to its question; gives
/// the number beyond which the run goes on with it. `None`: the run waits no longer.
///
/// # Errors
/// [`RunConflict`]: what the run waits for is no text.
pub async fn by_message(
    runs: Runs<'_>,
    key: &IdempotencyKey,
    row: &RunRow,
    message: &Message,
) -> Result<Option<Number>, RunsError> {
    let Some((at, given)) = standing(runs, row).await? else { return Ok(None) };
    let open = waits_for(runs, key, row, (&at, &given))?;
    let asked = match open.as_slice() {
        [] => return Ok(None),
        [asked] if takes_text(asked) => asked,
        _ => return Err(waiting(row, open)),
    };
    let resume = ResumeRun {
        run: row.id.clone(),
        answers: Answers::from([(asked.id.clone(), message.content.clone().into())]),
        by: row.owner.clone(),
        message: Some(Box::new(message.clone())),
    };
    let input = Input::Resume(Box::new(resume));
    match verdict::decision(runs, key, row, &input).await? {
        None => Ok(Some(at.number)),
        // Somebody else answered first, or ended the run.
        Some(Refusal::Answered { .. } | Refusal::Ended) => Ok(None),
        Some(why) => Err(RunsError::Internal(format!("an answer was refused: {why}"))),
    }
}

/// Refuses a run that would be queued behind one that waits.
pub async fn refuse_behind(
    runs: Runs<'_>,
    key: &IdempotencyKey,
    row: &RunRow,
) -> Result<(), RunsError> {
    let Some((at, given)) = standing(runs, row).await? else { return Ok(()) };
    let open = waits_for(runs, key, row, (&at, &given))?;
    if open.is_empty() { Ok(()) } else { Err(waiting(row, open)) }
}

/// That a run is queued behind one that waits.
pub async fn behind(runs: Runs<'_>, queued: &RunId, ahead: RunId) -> Result<RunsError, RunsError> {
    let at = runs.engine.run_at(&ahead, None).await?;
    let open = at.map(|at| at.open()).unwrap_or_default();
    let interrupts = open.into_iter().map(Into::into).collect();
    Ok(RunConflict::Behind { run: queued.clone(), ahead, interrupts }.into())
}

/// The questions that a run waits for answers to; a run that needs attention is refused.
fn waits_for(
    runs: Runs<'_>,
    key: &IdempotencyKey,
    row: &RunRow,
    (at, given): (&RunAt, &Answers),
) -> Result<Vec<Asked>, RunsError> {
    if row.id == key.run_id(runs.env) {
        // The request began this very run; it was cut off, and is sent again.
        return Ok(Vec::new());
    }
    if let Some(why) = at.waiting.as_ref().and_then(|waiting| waiting.attention.clone()) {
        let (run, why) = (row.id.clone(), Box::new(why));
        return Err(RunConflict::NeedsAttention { run, why }.into());
    }
    Ok(open(given, at))
}

fn waiting(row: &RunRow, open: Vec<Asked>) -> RunsError {
    let interrupts = open.into_iter().map(Into::into).collect();
    RunConflict::Waiting { run: row.id.clone(), interrupts }.into()
}

/// Checks answers to open questions; one that names none of them is refused.
pub fn check(open: &[Asked], answers: &Answers, tools: &ToolRegistry) -> Result<(), RunsError> {
    for (id, value) in answers {
        let asked = open.iter().find(|asked| asked.id == *id).ok_or_else(|| {
            let known = open.iter().map(|asked| asked.id.to_string()).collect();
            RunsError::UnknownName { what: "interrupt", name: id.to_string(), known }
        })?;
        admits(asked, value, tools).map_err(|why| {
            let field = format!("answers.{id}");
            RunsError::Field { what: format!("{field}: {why}"), field }
        })?;
    }
    Ok(())
}

/// Whether the text of a message may answer the question.
#[must_use]
pub fn takes_text(asked: &Asked) -> bool {
    let question = &asked.question;
    let free = question.schema.as_ref().is_none_or(|schema| *schema == json!({ "type": "string" }));
    question.reason == AskReason::Human && question.choices.is_empty() && free
}

fn admits(asked: &Asked, value: &Value, tools: &ToolRegistry) -> Result<(), String> {
    let question = &asked.question;
    if question.reason == AskReason::Approval {
        return approval(value, question.tool.as_deref(), tools);
    }
    if !question.choices.is_empty() {
        let chosen = value.as_str().is_some_and(|v| question.choices.iter().any(|c| c == v));
        return if chosen { Ok(()) } else { Err(one_of(&question.choices)) };
    }
    match &question.schema {
        Some(schema) => AnswerSchema::new(schema.clone(), tools.limits().json)?.check(value),
        None if value.is_string() => Ok(()),
        None => Err("expected a text".into()),
    }
}

fn one_of(choices: &[String]) -> String {
    format!("expected one of: {}", choices.join(", "))
}

/// `"approve"`, `"reject"`, `{"edit": {arguments}}` or `{"reject": "why"}`.
fn approval(value: &Value, tool: Option<&str>, tools: &ToolRegistry) -> Result<(), String> {
    let only = |object: &serde_json::Map<String, Value>| match object.iter().next() {
        Some((key, value)) if object.len() == 1 => Some((key.clone(), value.clone())),
        _ => None,
    };
    match (value.as_str(), value.as_object().and_then(only)) {
        (Some("approve" | "reject"), _) => Ok(()),
        (_, Some((key, Value::String(_)))) if key == "reject" => Ok(()),
        (_, Some((key, arguments @ Value::Object(_)))) if key == "edit" => match tool {
            Some(tool) => tools.validate(tool, &arguments).map_err(|e| format!("edit: {e}")),
            None => Ok(()),
        },
        _ => Err(r#"expected "approve", "reject", {"edit": {…}} or {"reject": "why"}"#.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exile_engine::run::record::Question;

    fn asked(reason: AskReason, choices: &[&str], schema: Option<Value>) -> Asked {
        let choices = choices.iter().map(|c| (*c).to_owned()).collect();
        let question =
            Question { reason, text: "?".into(), choices, schema, tool: None, args: None };
        Asked {
            id: "int_1".into(),
            task: "a:1".into(),
            call: "ask".into(),
            question,
            expires_ms: None,
            otherwise: None,
        }
    }

    #[test]
    fn a_question_admits_what_it_says_and_nothing_else() {
        let number = json!({ "type": "object", "required": ["n"] });
        let cases = [
            (asked(AskReason::Human, &[], None), json!("any"), json!(1)),
            (asked(AskReason::Human, &["yes", "no"], None), json!("no"), json!("No")),
            (asked(AskReason::Tool, &[], Some(number)), json!({ "n": 1 }), json!({})),
            (asked(AskReason::Approval, &[], None), json!("approve"), json!("approved")),
            (asked(AskReason::Approval, &[], None), json!("reject"), json!(true)),
            (asked(AskReason::Approval, &[], None), json!({ "reject": "no" }), json!({})),
            (
                asked(AskReason::Approval, &[], None),
                json!({ "edit": { "n": 1 } }),
                json!({ "edit": 1, "reject": "both" }),
            ),
        ];
        let tools = ToolRegistry::default();
        for (question, good, bad) in cases {
            let answer = |value: Value| BTreeMap::from([(question.id.clone(), value)]);
            let open = [question.clone()];
            check(&open, &answer(good), &tools).unwrap();
            let refused = check(&open, &answer(bad), &tools).unwrap_err();
            assert!(matches!(&refused, RunsError::Field { field, .. } if field == "answers.int_1"));
        }
    }

    #[test]
    fn a_message_answers_free_text_alone() {
        assert!(takes_text(&asked(AskReason::Human, &[], None)));
        assert!(takes_text(&asked(AskReason::Human, &[], Some(json!({ "type": "string" })))));
        assert!(!takes_text(&asked(AskReason::Human, &["yes"], None)));
        assert!(!takes_text(&asked(AskReason::Human, &[], Some(json!({})))));
        assert!(!takes_text(&asked(AskReason::Approval, &[], None)));
        assert!(!takes_text(&asked(AskReason::Tool, &[], None)));
    }
}
