//! What the API streams: pure projections of records, and deltas.
//!
//! Invariants:
//! - A record projects to the same events whenever it is read; the first has the record's number,
//!   the others follow it.
//! - [`width`] is the number of events that [`project`] gives, at least 1.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use crate::id::RunId;
use crate::message::Message;
use crate::model::{Delta, Usage};
use crate::node::NodeError;
use crate::run::live::StreamedDelta;
use crate::run::record::{
    Activation, Asked, Attempt, Called, Callee, Edited, EndStatus, Ended, Fact, Intent, Number,
    Numbered, Reply, Started, Step, Waiting,
};
use crate::run::task::inside;
use crate::state::MessageMap;

/// One event of a run's stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Strictly rising within a stream; what `Last-Event-ID` names.
    pub number: Number,
    /// Milliseconds since 1970, UTC; 0 on deltas, which have no time of their own.
    pub at_ms: i64,
    /// E.g. `message.delta`.
    pub name: &'static str,
    /// Its content.
    pub data: Arc<Value>,
}

impl Event {
    /// Whether it is the last one of its run's stream: the run ended, or waits for somebody.
    #[must_use]
    pub fn ends_stream(&self) -> bool {
        matches!(self.name, "run.finished" | "run.failed" | "run.cancelled" | "run.waiting")
    }

    /// Whether its run has ended with it.
    #[must_use]
    pub fn ends_run(&self) -> bool {
        self.ends_stream() && self.name != "run.waiting"
    }

    /// Whether this run's stream begins with it. A run that was ended before it began has no other.
    #[must_use]
    pub fn begins(&self, run: &RunId) -> bool {
        (self.name == "run.started" || self.ends_run()) && self.data["run"] == run.as_str()
    }

    /// Whether it is not the end of another run.
    #[must_use]
    pub fn is_of(&self, run: &RunId) -> bool {
        !self.ends_run() || self.data["run"] == run.as_str()
    }
}

/// A kind of event, for who writes a client.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// [`Event::name`].
    pub name: &'static str,
    /// What it says.
    pub about: &'static str,
    /// Fields of [`Event::data`]; some are there only if there is something to say.
    pub fields: &'static [&'static str],
    /// A stream ends with it.
    pub last: bool,
}

/// Every kind, in the order in which a run has them.
pub const KINDS: &[Kind] = &[
    kind("run.started", "a run began", &["run", "graph", "conversation", "bundle", "from", "at"]),
    kind("step.started", "tasks of a step begin", &["step", "tasks"]),
    kind("node.started", "a node began", &["node", "task"]),
    kind("message.delta", "a piece of the answer", &["node", "task", "text"]),
    kind("reasoning.delta", "a piece of what is thought before it", &["node", "task", "text"]),
    kind("node.delta", "a piece of what is not shown", &["node", "task", "text", "reasoning"]),
    kind("message.reset", "what streamed of this message is void", &["node", "task"]),
    kind(
        "model.finished",
        "a model answered or failed",
        &["node", "task", "ms", "model", "usage", "first_ms", "finish", "attempts", "error"],
    ),
    kind("message.finished", "the answer as it is stored", &["node", "task", "ms", "message"]),
    kind(
        "tool.call",
        "a tool is called",
        &["node", "task", "tool", "call_id", "arguments", "effect"],
    ),
    kind(
        "tool.result",
        "a tool answered",
        &[
            "node",
            "task",
            "ms",
            "tool",
            "call_id",
            "message_id",
            "content",
            "edited_arguments",
            "asked",
            "error",
        ],
    ),
    kind(
        "node.retried",
        "a node failed and is tried again",
        &["node", "task", "attempt", "wait_ms", "error"],
    ),
    kind("node.finished", "a node ended", &["node", "task", "ms", "cached", "error"]),
    kind("state.update", "channels changed", &["path", "changes", "by"]),
    kind("stream.reset", "another process took the run over: deltas since are void", &["epoch"]),
    last(
        "run.waiting",
        "nothing goes on until somebody answers",
        &["run", "status", "interrupts", "attention", "open_calls"],
    ),
    last("run.finished", "the run ended", &["run", "status", "usage", "output", "set_aside"]),
    last("run.failed", "the run failed", &["run", "status", "usage", "error", "set_aside"]),
    last("run.cancelled", "the run was cancelled", &["run", "status", "usage", "set_aside"]),
];

const fn kind(name: &'static str, about: &'static str, fields: &'static [&'static str]) -> Kind {
    Kind { name, about, fields, last: false }
}

const fn last(name: &'static str, about: &'static str, fields: &'static [&'static str]) -> Kind {
    Kind { name, about, fields, last: true }
}

/// How many numbers a record takes.
#[must_use]
pub fn width(fact: &Fact) -> u64 {
    let events = match fact {
        Fact::Started(started) => 2 + started.activation.next.len(),
        Fact::Step(step) => {
            step.done.len() + usize::from(!step.delta.is_empty()) + begun_width(&step.activation)
        }
        Fact::Edited(edited) => {
            let changed = usize::from(!edited.delta.is_empty());
            changed + edited.activation.as_ref().map_or(0, begun_width)
        }
        Fact::Called(called) if called.model.is_some() => 1 + usize::from(called.shown),
        Fact::Ended(ended) => 1 + usize::from(!ended.delta.is_empty()),
        Fact::Intent(intent) => match intent.to {
            Callee::Tool { .. } => 1,
            Callee::Model(_) => usize::from(intent.again),
        },
        Fact::Snapshot { .. }
        | Fact::Forked(_)
        | Fact::Called(_)
        | Fact::Asked(_)
        | Fact::Answered(_)
        | Fact::Retried(_)
        | Fact::Done(_)
        | Fact::Waiting(_)
        | Fact::Resolved(_)
        | Fact::Migrated { .. }
        | Fact::Resumed { .. }
        | Fact::Lived {}
        | Fact::Handed {} => 1,
    };
    events.max(1) as u64
}

fn begun_width(activation: &Activation) -> usize {
    if activation.next.is_empty() { 0 } else { 1 + activation.next.len() }
}

/// The events of one record. `messages` holds every message that it names.
#[must_use]
pub fn project(numbered: &Numbered, messages: &MessageMap) -> Vec<Event> {
    let record = &numbered.record;
    let mut events = Vec::new();
    let mut emit = |name: &'static str, data: Value| {
        let number = numbered.number + events.len() as u64;
        events.push(Event { number, at_ms: record.at_ms, name, data: Arc::new(data) });
    };
    match &record.fact {
        Fact::Started(started) => project_started(started, &mut emit),
        Fact::Forked(forked) => {
            if let Some(run) = &forked.run {
                emit("run.started", json!({ "run": run, "from": forked.from, "at": forked.at }));
            }
        }
        Fact::Resumed { epoch, .. } => emit("stream.reset", json!({ "epoch": epoch })),
        // What a person does shows in what the run does next; questions show when it waits.
        Fact::Handed {}
        | Fact::Lived {}
        | Fact::Snapshot { .. }
        | Fact::Asked(_)
        | Fact::Answered(_)
        | Fact::Resolved(_)
        | Fact::Migrated { .. } => {}
        Fact::Retried(retried) => {
            let mut data = place(&retried.task);
            data["attempt"] = retried.attempt.into();
            data["wait_ms"] = retried.wait_ms.into();
            data["error"] = failure(&retried.error);
            emit("node.retried", data);
        }
        Fact::Edited(edited) => project_edited(edited, &mut emit),
        Fact::Waiting(waiting) => emit("run.waiting", waits(waiting)),
        Fact::Intent(intent) => project_intent(intent, &mut emit),
        Fact::Called(called) => project_called(called, messages, &mut emit),
        Fact::Done(done) => {
            let mut data = place(&done.task);
            data["ms"] = done.took_ms.into();
            if let Some(error) = &done.error {
                data["error"] = failure(error);
            }
            if done.cached {
                data["cached"] = true.into();
            }
            emit("node.finished", data);
        }
        Fact::Step(step) => project_step(step, &mut emit),
        Fact::Ended(ended) => project_ended(ended, &mut emit),
    }
    events
}

type Emit<'e> = &'e mut dyn FnMut(&'static str, Value);

fn project_started(started: &Started, emit: Emit<'_>) {
    emit(
        "run.started",
        json!({
            "run": started.run,
            "graph": started.graph,
            "conversation": started.conversation,
            "bundle": started.bundle,
        }),
    );
    begun("", 1, &started.activation.next, emit);
}

fn project_edited(edited: &Edited, emit: Emit<'_>) {
    if !edited.delta.is_empty() {
        let changes = json!({ "path": edited.path, "changes": edited.delta, "by": edited.by });
        emit("state.update", changes);
    }
    if let Some(activation) = edited.activation.as_ref().filter(|a| !a.next.is_empty()) {
        begun(&edited.path, 0, &activation.next, emit);
    }
}

/// What a run waits for, as its reader sees it.
#[must_use]
pub fn waits(waiting: &Waiting) -> Value {
    let attention = waiting.attention.as_ref();
    let asked = |asked: &Asked| {
        let mut data = place(&asked.task);
        let question = &asked.question;
        data["id"] = asked.id.as_str().into();
        data["reason"] = json!(question.reason);
        data["text"] = question.text.as_str().into();
        data["choices"] = json!(question.choices);
        data["schema"] = json!(question.schema);
        data["tool"] = json!(question.tool);
        data["arguments"] = json!(question.args);
        data["expires_at_ms"] = json!(asked.expires_ms);
        data
    };
    let open = |intent: &Intent| {
        let mut data = place(&intent.task);
        data["call"] = intent.name().into();
        if let Callee::Tool { name, args, .. } = &intent.to {
            data["tool"] = name.as_str().into();
            data["arguments"] = args.clone();
        }
        data
    };
    json!({
        "run": waiting.run,
        "status": if attention.is_some() { "needs_attention" } else { "waiting" },
        "interrupts": waiting.asked.iter().map(asked).collect::<Vec<_>>(),
        "attention": attention,
        "open_calls": waiting.open.iter().map(open).collect::<Vec<_>>(),
    })
}

fn failure(error: &NodeError) -> Value {
    json!({ "code": error.code(), "message": error.to_string() })
}

fn begun(path: &str, step: u32, next: &[Arc<str>], emit: Emit<'_>) {
    let tasks: Vec<Arc<str>> = next.iter().map(|id| inside(path, id)).collect();
    emit("step.started", json!({ "step": step, "tasks": tasks }));
    for task in &tasks {
        emit("node.started", place(task));
    }
}

fn project_step(step: &Step, emit: Emit<'_>) {
    for done in &step.done {
        let task = if step.path.is_empty() {
            done.task.to_string()
        } else {
            format!("{}/{}", step.path, done.task)
        };
        let mut data = place(&task);
        data["ms"] = done.took_ms.into();
        if done.cached {
            data["cached"] = true.into();
        }
        emit("node.finished", data);
    }
    if !step.delta.is_empty() {
        emit("state.update", json!({ "path": step.path, "changes": step.delta }));
    }
    if !step.activation.next.is_empty() {
        begun(&step.path, step.step, &step.activation.next, emit);
    }
}

fn project_intent(intent: &Intent, emit: Emit<'_>) {
    if let Callee::Tool { name, id, args, effect } = &intent.to {
        let mut data = place(&intent.task);
        data["tool"] = name.as_str().into();
        data["call_id"] = id.as_deref().unwrap_or(&intent.call).into();
        data["arguments"] = args.clone();
        data["effect"] = json!(effect);
        emit("tool.call", data);
    } else if intent.again {
        // What was streamed of this message is void: it is made again.
        emit("message.reset", place(&intent.task));
    }
}

fn project_called(called: &Called, messages: &MessageMap, emit: Emit<'_>) {
    let mut data = place(&called.task);
    data["ms"] = called.took_ms.into();
    if let Some(tool) = &called.tool {
        data["tool"] = (&**tool).into();
        data["call_id"] = (&*called.call).into();
        match &called.reply {
            Reply::Message { id, failed } => {
                data["message_id"] = id.as_str().into();
                data["content"] = messages.get(id).map(|m| m.content.as_str()).into();
                if let Some(args) = messages.get(id).and_then(|m| m.edited_arguments.as_ref()) {
                    data["edited_arguments"] = args.clone();
                }
                data["error"] = json!(failed);
            }
            Reply::Value(value) => data["content"] = value.clone(),
            Reply::ToolFailed(error) => data["error"] = json!(error),
            Reply::Asked { .. } => data["asked"] = true.into(),
            Reply::ModelFailed { .. } => {}
        }
        return emit("tool.result", data);
    }
    if let Reply::ModelFailed { error, .. } = &called.reply {
        data["attempts"] = attempts(&called.attempts);
        data["error"] = failure(error);
        return emit("model.finished", data);
    }
    let Some(facts) = &called.model else { return };
    let mut model = data.clone();
    if !called.attempts.is_empty() {
        model["attempts"] = attempts(&called.attempts);
    }
    model["model"] = facts.model.to_string().into();
    model["usage"] = facts.usage.as_ref().map_or(Value::Null, usage);
    model["first_ms"] = facts.first_ms.into();
    model["finish"] = json!(facts.finish);
    emit("model.finished", model);
    if called.shown
        && let Reply::Message { id, .. } = &called.reply
    {
        data["message"] = json!(messages.get(id));
        emit("message.finished", data);
    }
}

/// Attempts that failed.
fn attempts(attempts: &[Attempt]) -> Value {
    let told = |attempt: &Attempt| {
        let Attempt { model, took_ms, fault, streamed } = attempt;
        json!({
            "model": model.to_string(),
            "ms": took_ms,
            "error": { "code": fault.code(), "message": fault.to_string() },
            "streamed": streamed,
        })
    };
    attempts.iter().map(told).collect()
}

fn project_ended(ended: &Ended, emit: Emit<'_>) {
    if !ended.delta.is_empty() {
        emit("state.update", json!({ "path": "", "changes": ended.delta }));
    }
    let name = match ended.status {
        EndStatus::Finished => "run.finished",
        EndStatus::Failed => "run.failed",
        EndStatus::Cancelled => "run.cancelled",
    };
    let mut data =
        json!({ "run": ended.run, "status": ended.status, "usage": usage(&ended.usage) });
    if let Some(error) = &ended.error {
        data["error"] = json!(error);
    }
    if !ended.set_aside.is_empty() {
        data["set_aside"] = json!(ended.set_aside);
    }
    emit(name, data);
}

/// Tokens under the names that the API has for them; a record's are shorter.
fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input,
        "cached_tokens": usage.cached,
        "written_tokens": usage.written,
        "output_tokens": usage.output,
        "reasoning_tokens": usage.reasoning,
    })
}

/// The node as its author knows it, and the task's whole path.
fn place(task: &str) -> Value {
    let outer = task.split_once('/').map_or(task, |(outer, _)| outer);
    let node = outer.rsplit_once(':').map_or(outer, |(node, _)| node);
    json!({ "node": node, "task": task })
}

/// The event of one delta.
#[must_use]
pub fn delta(delta: &StreamedDelta) -> Event {
    let StreamedDelta { number, task, shown, delta, .. } = delta;
    let (reasoning, text) = match delta {
        Delta::Text(text) | Delta::Refusal(text) => (false, text),
        Delta::Reasoning(text) => (true, text),
    };
    let name = match (shown, reasoning) {
        (true, false) => "message.delta",
        (true, true) => "reasoning.delta",
        (false, _) => "node.delta",
    };
    let mut data = place(task);
    data["text"] = text.as_str().into();
    if !shown {
        data["reasoning"] = reasoning.into();
    }
    Event { number: *number, at_ms: 0, name, data: Arc::new(data) }
}

/// What was streamed of a call that ended, text and reasoning; `None`: nothing. `message`: the one
/// that its record names.
#[must_use]
pub fn streamed<'r>(called: &'r Called, message: Option<&'r Message>) -> Option<[&'r str; 2]> {
    match &called.reply {
        Reply::Message { .. } => {
            let message = message?;
            Some([message.content.as_str(), message.reasoning.as_deref().unwrap_or("")])
        }
        Reply::ModelFailed { text, reasoning, .. } => Some([text, reasoning]),
        Reply::Value(_) | Reply::ToolFailed(_) | Reply::Asked { .. } => None,
    }
}

/// What names a call within its log while it is open.
#[must_use]
pub fn call_key(task: &str, call: &str) -> Arc<str> {
    format!("{task}#{call}").into()
}
