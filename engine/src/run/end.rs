//! How a run ends or comes to wait: why it failed, what its conversation keeps, and which calls
//! get an answer although they were never made.

use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::Value;

use crate::graph::Limits;
use crate::id::{MessageId, RunId};
use crate::journal::JournalError;
use crate::message::{Message, ToolCall, pending_tool_calls};
use crate::node::{NodeError, Work};
use crate::run::fold::RunState;
use crate::run::frame::{Frame, holds_messages};
use crate::run::record::{Callee, EndStatus, Ended, Fact, Intent, RunError};
use crate::run::shared::Shared;
use crate::run::writer::Writer;
use crate::state::{Delta, State, Writes};
use crate::tool::{Effect, ToolAnswer, ToolError, ToolErrorKind};

/// A node's failure as people see it. `task` is the path of the task that failed.
pub(crate) fn explain(task: Option<&str>, error: &NodeError) -> RunError {
    let node = task.map(|path| {
        let outer = path.split_once('/').map_or(path, |(outer, _)| outer);
        outer.rsplit_once(':').map_or(outer, |(node, _)| node).to_owned()
    });
    let (provider, model) = match error {
        NodeError::Provider(error) => (Some(error.provider.clone()), Some(error.model.clone())),
        _ => (None, None),
    };
    let message = match &node {
        Some(node) => format!("node `{node}`: {error}"),
        None => error.to_string(),
    };
    RunError { code: error.code().to_owned(), message, node, provider, model }
}

/// A run that took its process down again and again.
pub(crate) fn poison(crashes: u32) -> RunError {
    attention(
        "poison",
        format!("the process died {crashes} times in a row while it drove this run"),
    )
}

/// `unsafe` calls that were begun by a process that is gone: whether they happened, only a person
/// can say.
pub(crate) fn open_unsafe_calls(root: &Frame) -> Vec<Intent> {
    let mut open = Vec::new();
    root.walk_live(&mut |_, task| {
        open.extend(task.open.values().filter(|intent| is_unsafe(intent)).cloned());
    });
    open
}

/// Whether a call must not be made twice.
pub(crate) fn is_unsafe(intent: &Intent) -> bool {
    matches!(&intent.to, Callee::Tool { effect: Effect::Unsafe, .. })
}

/// Why a run with such calls waits for a person.
pub(crate) fn open_calls(open: &[Intent]) -> RunError {
    let name = |intent: &Intent| match &intent.to {
        Callee::Tool { name, .. } => format!("`{name}`"),
        Callee::Model(model) => format!("`{model}`"),
    };
    let mut names: Vec<String> = open.iter().map(name).collect();
    names.dedup();
    attention(
        "open_call",
        format!(
            "the process ended during a call of {}; whether it happened is not known. Say what \
             became of it with `resolve`: done, retry or failed",
            names.join(", ")
        ),
    )
}

/// Why a pinned bundle cannot be run.
pub(crate) fn unusable(bundle: &str, why: &str) -> RunError {
    attention("needs_migration", format!("the run's bundle {bundle} cannot be compiled: {why}"))
}

fn attention(code: &str, message: String) -> RunError {
    RunError { code: code.to_owned(), message, node: None, provider: None, model: None }
}

/// Which limit forbids another step, if one does.
pub(crate) fn over_limit(run: &RunState, limits: &Limits) -> Option<NodeError> {
    if run.steps >= limits.steps {
        let text = format!(
            "the run reached `limits.steps: {}`; raise it, or give the cycle an exit",
            limits.steps
        );
        return Some(NodeError::Limit(text));
    }
    let used = run.usage.input + run.usage.output;
    let limit = limits.tokens.filter(|&limit| used >= limit)?;
    Some(NodeError::Limit(format!("the run used {used} tokens of `limits.tokens: {limit}`")))
}

/// Pushes the last record, with closing writes, and a snapshot if one is due.
pub(crate) fn close(
    shared: &Shared,
    writer: &mut Writer,
    status: EndStatus,
    error: Option<RunError>,
    by: Option<RunId>,
) -> Result<(), JournalError> {
    let Some(run) = writer.log.run.as_ref() else { return Ok(()) };
    let (id, usage) = (run.started.run.clone(), run.usage);
    let output = run.root.as_ref().map(|f| f.graph.output.clone()).unwrap_or_default();
    let new_id = || MessageId::new(&*shared.services.env);
    let closing = |root| closing_writes(root, &new_id);
    let writes = run.root.as_ref().map(closing).unwrap_or_default();
    let mut delta = Delta::new();
    if let Some(root) = run.root.as_ref().filter(|_| !writes.is_empty()) {
        let (state, shown) = (root.state.clone(), root.graph.shown);
        let of_messages = writes.iter().filter(|(name, _)| holds_messages(&root.graph, name));
        for message in parse_messages(of_messages) {
            writer.message(message, shown);
        }
        match state.merge([&writes]) {
            Ok(closing) => delta = closing,
            // They are messages for channels of messages. Were one refused all the same, the run
            // would still have ended.
            Err(error) => tracing::error!(run = %id, %error, "closing writes were refused"),
        }
    }
    let ended = Ended { run: id, status, error, by, delta, usage, output };
    writer.push(Fact::Ended(Box::new(ended)))?;
    match writer.log.snapshot() {
        Some(snapshot) => writer.push(snapshot),
        None => Ok(()),
    }
}

/// What the run's own state keeps: messages of graphs that were cut short, results of tasks
/// whose step never ended, and an answer for every tool call without one.
fn closing_writes(root: &Frame, new_id: &dyn Fn() -> MessageId) -> Writes {
    let mut kept = abandoned(root);
    kept.retain(|name, _| holds_messages(&root.graph, name));
    for channel in root.graph.channels.iter() {
        if !holds_messages(&root.graph, &channel.name) {
            continue;
        }
        let mut messages = root.state.messages(&channel.name);
        messages.extend(kept.get(&channel.name).map(parse).unwrap_or_default());
        let answers: Vec<Value> = pending_tool_calls(&messages)
            .iter()
            .map(|call| answer(root, call, new_id))
            .filter_map(|message| serde_json::to_value(message).ok())
            .collect();
        if answers.is_empty() {
            continue;
        }
        let slot = kept.entry(channel.name.clone()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(items) = slot {
            items.extend(answers);
        }
    }
    kept
}

/// What the graphs inside live tasks leave to the state around them, innermost first.
fn abandoned(frame: &Frame) -> Writes {
    let mut kept = Writes::new();
    for task in &frame.tasks {
        let finished = task.result.as_ref().filter(|r| r.error.is_none());
        let writes = match (finished, &frame.graph.nodes[task.node].work, &task.inner) {
            (Some(result), ..) => result.writes.clone(),
            (None, Work::Sub(sub), Some(inner)) => {
                let mut state = State::clone(&inner.state);
                for (name, value) in abandoned(inner) {
                    let mut list = state.get(&name).map(|v| Value::clone(v)).unwrap_or_default();
                    if let (Value::Array(list), Value::Array(more)) = (&mut list, value) {
                        list.extend(more);
                    }
                    state.restore(&name, Arc::new(list));
                }
                sub.abandon(&inner.before, &state)
            }
            // Of a list too: what items wrote is theirs until all of them have ended.
            (None, ..) => Writes::new(),
        };
        for (name, value) in writes {
            if !holds_messages(&frame.graph, &name) {
                continue;
            }
            let slot = kept.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(items) = slot {
                match value {
                    Value::Array(more) => items.extend(more),
                    one => items.push(one),
                }
            }
        }
    }
    kept
}

/// The answer to a call: the recorded one if the call was made, else that it was not, or that
/// nobody knows.
fn answer(root: &Frame, call: &ToolCall, new_id: &dyn Fn() -> MessageId) -> Message {
    let mut recorded = None;
    let mut open = false;
    root.walk(&mut |_, task| {
        open |= task.open.values().any(
            |i| matches!(&i.to, Callee::Tool { id: Some(id), effect, .. } if *id == call.id && *effect != Effect::Pure),
        );
        let answers = |m: &&Arc<Message>| m.tool_call_id.as_deref() == Some(&call.id);
        let mut messages = task.replies.values().filter_map(|r| r.message.as_ref());
        if let Some(message) = messages.find(answers) {
            recorded = Some(Message::clone(message));
        }
    });
    recorded.unwrap_or_else(|| {
        let error = if open {
            ToolError::new(
                ToolErrorKind::OutcomeUnknown,
                "the run ended during this call; it may have happened",
            )
        } else {
            ToolError::new(ToolErrorKind::NotRun, "the run ended before this call was made")
        };
        Message::tool(new_id(), call, ToolAnswer::Failed(error).to_text())
    })
}

/// Every message in these channel values.
pub(crate) fn parse_messages<'w>(
    writes: impl Iterator<Item = (&'w Arc<str>, &'w Value)>,
) -> Vec<Message> {
    writes.flat_map(|(_, value)| parse(value)).collect()
}

fn parse(value: &Value) -> Vec<Message> {
    match value {
        Value::Array(items) => items.iter().filter_map(|v| Message::deserialize(v).ok()).collect(),
        one => Message::deserialize(one).ok().into_iter().collect(),
    }
}
