//! How a run ends or comes to wait: why it failed, what its conversation keeps, and which calls
//! get an answer although they were never made.

use std::sync::Arc;

use serde_json::Value;

use crate::id::{LogId, MessageId, RunId};
use crate::journal::JournalError;
use crate::message::{Message, ToolCall, pending_tool_calls};
use crate::model::Usage;
use crate::node::{NodeError, Work};
use crate::run::aside;
use crate::run::instance::GraphInstance;
use crate::run::record::{Callee, EndStatus, Ended, Fact, Intent, RunError};
use crate::run::shared::Shared;
use crate::run::task::{Failure, Task, item_of, split};
use crate::run::writer::Writer;
use crate::run::writes::{holds_messages, messages_in, parse_messages};
use crate::state::{ChannelValue, Delta, MessageList, State, Writes};
use crate::tool::{Effect, ToolAnswer, ToolError, ToolErrorKind};

/// A failure as people see it: which node, which item, and why.
pub(crate) fn explain(failure: &Failure) -> RunError {
    let Failure { error, path } = failure;
    let (provider, model) = match error {
        NodeError::Provider(error) => (Some(error.provider.clone()), Some(error.model.clone())),
        _ => (None, None),
    };
    let place = Place::of(path);
    let message = match &place.words {
        Some(words) => format!("{words}: {error}"),
        None => error.to_string(),
    };
    RunError {
        code: error.code().to_owned(),
        message,
        node: place.node,
        path: (!path.is_empty()).then(|| path.to_string()),
        item: place.item,
        provider,
        model,
    }
}

/// The place of a task as people name it.
pub(crate) struct Place {
    /// E.g. ``node `lookup`, item 14``; `None`: the run itself.
    pub(crate) words: Option<String>,
    /// The outermost node.
    pub(crate) node: Option<String>,
    /// The innermost item of a list.
    pub(crate) item: Option<usize>,
}

impl Place {
    /// Of a task's path, e.g. `lookup:1/item:14`.
    pub(crate) fn of(path: &str) -> Self {
        let mut place = Self { words: None, node: None, item: None };
        for id in path.split('/').filter(|id| !id.is_empty()) {
            let name = id.rsplit_once(':').map_or(id, |(name, _)| name);
            let word = if let Some(number) =
                item_of(id).filter(|_| name == "item" && place.node.is_some())
            {
                place.item = Some(number);
                format!("item {number}")
            } else {
                place.node.get_or_insert_with(|| name.to_owned());
                format!("node `{name}`")
            };
            place.words = Some(match place.words {
                Some(outer) => format!("{outer}, {word}"),
                None => word,
            });
        }
        place
    }
}

/// Whether no task on the way to `path`, itself included, has ended.
pub(crate) fn goes_on(root: &GraphInstance, path: &str) -> bool {
    let mut around = path;
    while !around.is_empty() {
        if root.task(around).is_none_or(Task::has_ended) {
            return false;
        }
        around = split(around).0;
    }
    true
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
pub(crate) fn open_unsafe_calls(root: &GraphInstance) -> Vec<Intent> {
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

/// Why nothing goes on in a log that cannot be read.
pub(crate) fn unreadable(log: &LogId, why: &str) -> RunError {
    let text = format!(
        "the log {log} cannot be read: {why}. What stands before that can: its events, checkpoints \
         and messages. `resolve` with `retry` has it tried again, a backup from before has it \
         whole, and its conversation can be deleted"
    );
    attention(RunError::UNREADABLE, text)
}

fn attention(code: &str, message: String) -> RunError {
    RunError::new(code, message)
}

/// Which limit of its graph forbids another step of an instance, if one does. A graph inside
/// another counts its own steps and tokens.
pub(crate) fn over_limit(instance: &GraphInstance) -> Option<NodeError> {
    let limits = &instance.graph.limits;
    let graph = &instance.graph.name;
    if instance.steps >= limits.steps() {
        let text = format!(
            "the graph `{graph}` reached its `limits.steps: {}`; raise it, or give the cycle an exit",
            limits.steps()
        );
        return Some(NodeError::Limit(text));
    }
    let used = instance.tokens;
    let limit = limits.tokens.filter(|&limit| used >= limit)?;
    let text = format!("the graph `{graph}` used {used} tokens of its `limits.tokens: {limit}`");
    Some(NodeError::Limit(text))
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
        for message in messages_in(&root.graph, &writes) {
            writer.message(message, shown);
        }
        match state.merge([&writes]) {
            Ok(closing) => delta = closing,
            // They are messages for channels of messages. Were one refused all the same, the run
            // would still have ended.
            Err(error) => tracing::error!(run = %id, %error, "closing writes were refused"),
        }
    }
    let set_aside = aside::refused(&writer.log, &delta);
    let ended = Ended { run: id, status, error, by, delta, usage, output, set_aside };
    writer.push(Fact::Ended(Box::new(ended)))?;
    match writer.log.snapshot() {
        Some(snapshot) => writer.push(snapshot),
        None => Ok(()),
    }
}

/// Pushes the end of a run that was cancelled before it began. It leaves nothing, and what goes on
/// beside it goes on.
pub(crate) fn unbegun(writer: &mut Writer, run: RunId) -> Result<(), JournalError> {
    writer.push(Fact::Ended(Box::new(Ended {
        run,
        status: EndStatus::Cancelled,
        error: None,
        by: None,
        delta: Delta::new(),
        usage: Usage::default(),
        output: Vec::new(),
        set_aside: Vec::new(),
    })))
}

/// What the run's own state keeps: messages of graphs that were cut short, results of tasks
/// whose step never ended, and an answer for every tool call without one.
fn closing_writes(root: &GraphInstance, new_id: &dyn Fn() -> MessageId) -> Writes {
    let mut kept = abandoned(root);
    kept.retain(|name, _| holds_messages(&root.graph, name));
    for channel in root.graph.channels.iter() {
        if !holds_messages(&root.graph, &channel.name) {
            continue;
        }
        let mut messages = root.state.messages(&channel.name);
        let more = kept.get(&channel.name).and_then(ChannelValue::as_messages);
        messages.extend(more.into_iter().flat_map(MessageList::iter).cloned());
        let calls = pending_tool_calls(messages.iter());
        let answers: Vec<_> =
            calls.iter().map(|call| Arc::new(answer(root, call, new_id))).collect();
        if !answers.is_empty() {
            keep(&mut kept, &channel.name, answers);
        }
    }
    kept
}

/// What the graphs inside live tasks leave to the state around them, innermost first.
fn abandoned(instance: &GraphInstance) -> Writes {
    let mut kept = Writes::new();
    for task in instance.tasks.iter() {
        let finished = task.result().filter(|result| result.failure.is_none());
        let writes = match (finished, &instance.graph.nodes[task.node].work, &task.inner) {
            (Some(result), ..) => result.writes.clone(),
            (None, Work::Sub(sub), Some(inner)) => {
                let mut state = State::clone(&inner.state);
                for (name, more) in abandoned(inner) {
                    let mut list = state.messages(&name);
                    list.extend(parse_messages(&more));
                    state.restore(&name, list.into());
                }
                sub.abandon(&inner.before, &state)
            }
            // Of a list too: what items wrote is theirs until all of them have ended.
            (None, ..) => Writes::new(),
        };
        for (name, value) in &writes {
            if holds_messages(&instance.graph, name) {
                keep(&mut kept, name, parse_messages(value));
            }
        }
    }
    kept
}

/// Adds messages to those that are kept for a channel.
fn keep(kept: &mut Writes, channel: &Arc<str>, messages: Vec<Arc<Message>>) {
    let slot = kept.entry(channel.clone()).or_insert_with(|| MessageList::default().into());
    if let ChannelValue::Messages(list) = slot {
        list.extend(messages);
    }
}

/// The answer to a call: the recorded one if the call was made, else that it was not, or that
/// nobody knows.
fn answer(root: &GraphInstance, call: &ToolCall, new_id: &dyn Fn() -> MessageId) -> Message {
    let mut recorded = None;
    let mut open = None;
    root.walk(&mut |_, task| {
        open = open.take().or_else(|| task.open.values().find_map(|i| called_with(i, call)));
        let answers = |m: &&Arc<Message>| m.tool_call_id.as_deref() == Some(&call.id);
        let mut messages = task.replies.values().filter_map(|r| r.message.as_ref());
        if let Some(message) = messages.find(answers) {
            recorded = Some(Message::clone(message));
        }
    });
    recorded.unwrap_or_else(|| {
        let error = if open.is_some() {
            ToolError::new(
                ToolErrorKind::OutcomeUnknown,
                "the run ended during this call; it may have happened",
            )
        } else {
            ToolError::new(ToolErrorKind::NotRun, "the run ended before this call was made")
        };
        let wrote = serde_json::from_str::<Value>(&call.arguments).ok();
        let edited_arguments = open.filter(|args| wrote.is_some_and(|wrote| wrote != *args));
        let message = Message::tool(new_id(), call, ToolAnswer::Failed(error).to_text());
        Message { edited_arguments, ..message }
    })
}

/// The arguments that a call was begun with, if it may have had an effect.
fn called_with(intent: &Intent, call: &ToolCall) -> Option<Value> {
    match &intent.to {
        Callee::Tool { id: Some(id), effect, args, .. }
            if *id == call.id && *effect != Effect::Pure =>
        {
            Some(args.clone())
        }
        Callee::Tool { .. } | Callee::Model(_) => None,
    }
}
