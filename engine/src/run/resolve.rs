//! What a person says of a run that needs attention, done: its open calls end, or it goes on or fails
//! as a whole.

use serde_json::Value;

use crate::journal::{JournalError, Refusal, Resolution, ResolveRun, Verdict};
use crate::message::{Message, ToolCall};
use crate::run::approval;
use crate::run::end;
use crate::run::inbox::shown_at;
use crate::run::marks::Marks;
use crate::run::record::{
    Called, Callee, EndStatus, Fact, Intent, Reply, Resolved, RunError, Waiting,
};
use crate::run::shared::Shared;
use crate::run::start;
use crate::run::writer::Writer;
use crate::tool::{ToolAnswer, ToolError, ToolErrorKind};

/// Does what a person says of a run that needs attention.
pub(crate) fn resolve(
    shared: &Shared,
    writer: &mut Writer,
    resolve: ResolveRun,
) -> Result<Verdict, JournalError> {
    let run = writer.log.run.as_ref();
    let waiting = run.and_then(|run| run.waiting.clone()).filter(|w| w.attention.is_some());
    let Some(waiting) = waiting else {
        return Ok(Verdict::Refused(Refusal::NoAttention));
    };
    let named = |intent: &&Intent| resolve.call.as_ref().is_none_or(|call| *call == intent.name());
    let calls: Vec<Intent> = waiting.open.iter().filter(named).cloned().collect();
    match resolve.call {
        Some(call) if calls.is_empty() => {
            return Ok(Verdict::Refused(Refusal::CallClosed { call }));
        }
        _ if waiting.open.is_empty() => resolve_run(shared, writer, &waiting, resolve)?,
        _ => {
            for intent in calls {
                resolve_call(shared, writer, &intent, &resolve)?;
            }
            start::attention(writer)?;
        }
    }
    Ok(Verdict::Taken)
}

/// A run without open calls: it goes on, or it fails.
fn resolve_run(
    shared: &Shared,
    writer: &mut Writer,
    waiting: &Waiting,
    resolve: ResolveRun,
) -> Result<(), JournalError> {
    if let Resolution::Failed { message } = resolve.action {
        let code = waiting.attention.as_ref().map_or("poison", |why| why.code.as_str()).to_owned();
        let error = RunError::new(code, message);
        return end::close(shared, writer, EndStatus::Failed, Some(error), None);
    }
    let (task, call) = ("".into(), "".into());
    writer.push(Fact::Resolved(Resolved { task, call, by: resolve.by }))
}

fn resolve_call(
    shared: &Shared,
    writer: &mut Writer,
    intent: &Intent,
    resolve: &ResolveRun,
) -> Result<(), JournalError> {
    let answer = match &resolve.action {
        Resolution::Retry => {
            let (task, call) = (intent.task.clone(), intent.call.clone());
            return writer.push(Fact::Resolved(Resolved { task, call, by: resolve.by.clone() }));
        }
        Resolution::Done { output } => ToolAnswer::Done(output.clone()),
        Resolution::Failed { message } => {
            ToolAnswer::Failed(ToolError::new(ToolErrorKind::NotRun, message.clone()))
        }
    };
    let called = settled(shared, writer, intent, &answer, 0);
    writer.called(called)
}

/// The arguments of a call that is open, if a person changed them before it was made.
fn edited(writer: &Writer, intent: &Intent, args: &Value) -> Option<Value> {
    let root = writer.log.run.as_ref()?.root.as_ref()?;
    let question = root.task(&intent.task)?.asks.get(approval::call(&intent.call).as_str())?;
    let asked = question.asked.question.args.as_ref()?;
    (asked != args).then(|| args.clone())
}

/// The end of a call that was not brought about by the call itself: its record, and the message
/// that answers a model.
pub(crate) fn settled(
    shared: &Shared,
    writer: &mut Writer,
    intent: &Intent,
    answer: &ToolAnswer,
    took_ms: u64,
) -> Called {
    let error = match answer {
        ToolAnswer::Failed(error) => Some(error.clone()),
        ToolAnswer::Done(_) | ToolAnswer::Ask(_) => None,
    };
    let (tool, reply) = match &intent.to {
        Callee::Tool { name, id: Some(id), args, .. } => {
            let call = ToolCall {
                id: id.clone(),
                name: name.clone(),
                arguments: args.to_string(),
                opaque: None,
            };
            let id = crate::id::MessageId::new(&*shared.services.env);
            let message = Message::tool(id.clone(), &call, answer.to_text());
            let edited_arguments = edited(writer, intent, args);
            let message = Message { edited_arguments, ..message };
            let shown = shown_at(writer, &intent.task);
            writer.message(std::sync::Arc::new(message), shown);
            (Some(name), Reply::Message { id, failed: error })
        }
        Callee::Tool { name, .. } => {
            let reply = match (answer, error) {
                (_, Some(error)) => Reply::ToolFailed(error),
                (ToolAnswer::Done(value), None) => Reply::Value(value.clone()),
                (_, None) => Reply::Value(Value::Null),
            };
            (Some(name), reply)
        }
        Callee::Model(_) => {
            let text = error.map(|e| e.message).unwrap_or_default();
            let error = crate::node::NodeError::Limit(text);
            (None, Reply::ModelFailed { error, text: String::new(), reasoning: String::new() })
        }
    };
    Called {
        task: intent.task.clone(),
        call: intent.call.clone(),
        took_ms,
        tool: tool.map(|name| name.as_str().into()),
        reply,
        model: None,
        attempts: Vec::new(),
        marks: Marks::default(),
        shown: false,
        taints: false,
    }
}
