//! What a log holds: versioned records, each a fact that will not be taken back.
//!
//! Invariants:
//! - Records alone rebuild every channel's value; a graph is needed only for a run that is still
//!   going on.
//! - A record names nodes and channels, never indices, so that it can be read without its graph.
//! - Keys are short: a step of a small state is stored in under 200 bytes.
//!
//! The shape is version 1 of the format ([`VERSION`]); fields are only ever added.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{ConversationId, InterruptId, MessageId, RunId, UserId};
use crate::journal::BlobId;
use crate::model::{Finish, ModelRef, ProviderFault, Usage};
use crate::node::NodeError;
use crate::run::marks::Marks;
use crate::state::{Delta, Op};
use crate::tool::ToolError;

/// Version of the records' shape.
pub const VERSION: u32 = 1;

/// A place in a log. Rises, with gaps; never used twice.
pub type Number = u64;

/// A record in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered {
    /// The number of the first event that the record projects to.
    pub number: Number,
    /// The record.
    pub record: Arc<Record>,
}

/// One fact, and when it became one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Milliseconds since 1970, UTC.
    #[serde(rename = "ms")]
    pub at_ms: i64,
    /// The fact.
    #[serde(flatten)]
    pub fact: Fact,
}

impl Record {
    /// Ids of the messages that it names. A task's writes do not tell an id from other text, so
    /// every string that may be one is among them.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match &self.fact {
            Fact::Started(started) => named_by(&started.delta),
            Fact::Called(called) => match &called.reply {
                Reply::Message { id, .. } => vec![id.as_str()],
                Reply::Value(_)
                | Reply::ToolFailed(_)
                | Reply::ModelFailed { .. }
                | Reply::Asked { .. } => Vec::new(),
            },
            Fact::Answered(answered) => {
                answered.message.iter().map(crate::id::MessageId::as_str).collect()
            }
            Fact::Done(done) => done.writes.values().flat_map(texts).collect(),
            Fact::Step(step) => named_by(&step.delta),
            Fact::Edited(edited) => named_by(&edited.delta),
            Fact::Ended(ended) => named_by(&ended.delta),
            Fact::Snapshot { values, .. } => named_by(values),
            Fact::Forked(_)
            | Fact::Resumed { .. }
            | Fact::Handed {}
            | Fact::Intent(_)
            | Fact::Asked(_)
            | Fact::Retried(_)
            | Fact::Waiting(_)
            | Fact::Resolved(_)
            | Fact::Migrated { .. } => Vec::new(),
        }
    }
}

fn named_by(delta: &Delta) -> Vec<&str> {
    let mut named = Vec::new();
    for op in delta.values() {
        if let Op::Messages(ids) = op {
            named.extend(ids.iter().map(MessageId::as_str));
        }
    }
    named
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The kinds of facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// A run began.
    Started(Box<Started>),
    /// What follows goes on from an earlier number: of this log, whose records in between count
    /// no more, or of another log, of which this one is a fork.
    Forked(Box<Forked>),
    /// A process took over a run that another one left in the middle: live deltas since the last
    /// record are void.
    Resumed {
        /// Its epoch.
        epoch: u64,
    },
    /// An orderly shutdown gave the run back in the middle: taking it over is no sign of a crash.
    Handed {},
    /// A call is about to be made.
    Intent(Intent),
    /// A call ended.
    Called(Box<Called>),
    /// A task asked a person.
    Asked(Box<Asked>),
    /// A person answered, or nobody did in time.
    Answered(Answered),
    /// A task failed and is tried again.
    Retried(Retried),
    /// A task ended before its siblings did.
    Done(TaskDone),
    /// All tasks of a step ended; their writes are merged and the next tasks begin.
    Step(Step),
    /// Nothing goes on until somebody answers, resolves or cancels. Stands only while it is the
    /// last record.
    Waiting(Box<Waiting>),
    /// A person said that an open call may be made again, or that a poisoned run may go on.
    Resolved(Resolved),
    /// A person changed the state.
    Edited(Box<Edited>),
    /// A person moved the run to another bundle.
    Migrated {
        /// Which.
        bundle: BlobId,
    },
    /// The run ended.
    Ended(Box<Ended>),
    /// The log's channels as they stand between two runs: what stands before need not be read to
    /// go on.
    Snapshot {
        /// Channel → its whole value; messages by id.
        #[serde(rename = "d")]
        values: Delta,
        /// The run that ended last: the next one may take its place.
        #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
        last: Option<LastRun>,
    },
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// Its id.
    pub run: RunId,
    /// The log's head before it began; before the first of them, if several in a row made way for
    /// the same run.
    pub before: Number,
    /// The run that it made way for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<RunId>,
}

/// The beginning of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Its id.
    pub run: RunId,
    /// The graph's name.
    pub graph: Arc<str>,
    /// What it is pinned to.
    pub bundle: BlobId,
    /// Who owns it.
    pub owner: UserId,
    /// The conversation it is a turn of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<ConversationId>,
    /// What nodes without keys of their own use.
    #[serde(default)]
    pub options: RunOptions,
    /// What the input changed.
    #[serde(rename = "d")]
    pub delta: Delta,
    /// Channels that begin at this value, before the input: those of `scope: run`, those that
    /// the log has no value of, and those whose value their type no longer admits.
    #[serde(rename = "b", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub base: BTreeMap<Arc<str>, Arc<Value>>,
    /// What START fired.
    #[serde(flatten)]
    pub fired: Fired,
    /// W3C `traceparent` of the run's root span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// When its records are stored.
    #[serde(default, skip_serializing_if = "Durability::is_sync")]
    pub durability: Durability,
}

/// When the records of a run are stored. An intent to make an `unsafe` call first stores itself
/// and all before it, whatever this says.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Before they are shown, and before the next step begins.
    #[default]
    Sync,
    /// Before they are shown; the next step may begin first.
    Async,
    /// In one append, when the run ends or waits: a crash starts it over.
    Exit,
}

impl Durability {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_sync(&self) -> bool {
        *self == Self::Sync
    }
}

/// The beginning of a fork. If a run went on at that number, it goes on here under its new id;
/// calls that were open there count as never made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forked {
    /// The id of the run from here on; `None` if no run goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The run that it was forked from.
    pub from: RunId,
    /// The number, of the log that held it, that is gone on from.
    pub at: Number,
}

/// What a conversation or a caller sets for a whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOptions {
    /// For `llm` and `agent` nodes without `skill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// For nodes without `model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Chooses among an alias's models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub business: Option<String>,
    /// Goes before every other system text of nodes that talk to the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
}

/// A call about to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// The task's path, e.g. `answer:1/tools:2`.
    #[serde(rename = "t")]
    pub task: Arc<str>,
    /// Unique within the task.
    #[serde(rename = "c")]
    pub call: Arc<str>,
    /// To whom.
    #[serde(flatten)]
    pub to: Callee,
    /// What an earlier attempt streamed of this message is void.
    #[serde(rename = "a", default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// Whom a call is made to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Callee {
    /// A model. Its effect is `idempotent`.
    Model(ModelRef),
    /// A tool.
    Tool {
        /// Its name.
        name: String,
        /// The model's id of the call, if a model asked for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// As they will be sent.
        args: Value,
        /// What calling it does.
        effect: crate::tool::Effect,
    },
}

/// A call that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Called {
    /// The task's path.
    #[serde(rename = "t")]
    pub task: Arc<str>,
    /// As in the intent.
    #[serde(rename = "c")]
    pub call: Arc<str>,
    /// How long it took, in milliseconds.
    #[serde(rename = "took")]
    pub took_ms: u64,
    /// The tool, if it was one.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<Arc<str>>,
    /// What it gave.
    #[serde(rename = "r")]
    pub reply: Reply,
    /// What is known of a model's answer.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelFacts>,
    /// A model's attempts that failed, in order; of a call that failed, the last one as well.
    #[serde(rename = "tries", default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Where its deltas stood in the stream.
    #[serde(rename = "marks", default, skip_serializing_if = "Marks::is_empty")]
    pub marks: Marks,
    /// Whether its deltas are the conversation's answer (`message.delta`) or internal
    /// (`node.delta`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shown: bool,
    /// Its answer holds text that is not the user's, and that may try to steer a model.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    pub taints: bool,
}

/// An attempt to get an answer that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Whom it was made with.
    #[serde(rename = "m")]
    pub model: ModelRef,
    /// How long it took, in milliseconds.
    #[serde(rename = "took")]
    pub took_ms: u64,
    /// Why it failed.
    #[serde(rename = "f")]
    pub fault: ProviderFault,
    /// A part of an answer had been streamed.
    #[serde(rename = "s", default, skip_serializing_if = "std::ops::Not::not")]
    pub streamed: bool,
}

/// What is known of a model's answer besides its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// Whom it came from.
    pub model: ModelRef,
    /// Tokens, if the provider said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Milliseconds to the first delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_ms: Option<u64>,
    /// Why it stopped.
    pub finish: Finish,
}

/// What a call gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// A message, whose content is in the message rows; `failed` if it holds a tool's error.
    Message {
        /// Its id.
        id: MessageId,
        /// A tool that failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<ToolError>,
    },
    /// A tool's value, for a node that makes no message of it.
    Value(Value),
    /// A tool's error, for a node that makes no message of it.
    ToolFailed(ToolError),
    /// A model's error, and what had been streamed before it.
    ModelFailed {
        /// Why.
        error: NodeError,
        /// Text that was streamed.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        text: String,
        /// Reasoning that was streamed.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reasoning: String,
    },
    /// A tool's question to a person; the call goes on, under its key, with the answer.
    Asked {
        /// The call name of the question, [`Asked::call`].
        ask: Arc<str>,
        /// What the tool wants back together with the answer.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        resume: Value,
    },
}

/// A question of a task to a person: an interrupt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// What an answer names.
    pub id: InterruptId,
    /// The task's path.
    #[serde(rename = "t")]
    pub task: Arc<str>,
    /// Unique within the task, among calls and questions.
    #[serde(rename = "c")]
    pub call: Arc<str>,
    /// What is asked.
    #[serde(rename = "q")]
    pub question: Question,
    /// Milliseconds since 1970 at which nobody is waited for any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<i64>,
    /// The answer if it expires; without one the task fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Value>,
}

/// What a person is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Why.
    pub reason: AskReason,
    /// For the person.
    pub text: String,
    /// The answers there are; empty: any text, or what `schema` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// JSON Schema that an answer must meet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// On an approval: the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// On an approval: the arguments as they will be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Value>,
}

/// Why a person is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskReason {
    /// A node of kind `human`.
    Human,
    /// A tool call needs approval.
    Approval,
    /// A tool asks.
    Tool,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// Which question.
    #[serde(rename = "i")]
    pub interrupt: InterruptId,
    /// What was answered; null if it expired without a default.
    #[serde(rename = "v")]
    pub value: Value,
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// The message of the conversation that was the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageId>,
    /// Nobody answered in time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

/// A failed attempt of a task that is tried again: calls that failed, and models' answers, are
/// forgotten; what tools did stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retried {
    /// The task's path.
    #[serde(rename = "t")]
    pub task: Arc<str>,
    /// Which attempt follows; the second is 2.
    #[serde(rename = "n")]
    pub attempt: u32,
    /// Why the one before it failed.
    #[serde(rename = "e")]
    pub error: NodeError,
    /// Milliseconds before it begins.
    #[serde(rename = "wait", default, skip_serializing_if = "is_zero")]
    pub wait_ms: u64,
}

/// A run that goes on only when somebody does something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Which run.
    pub run: RunId,
    /// Questions without an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Asked>,
    /// Why it needs attention instead: `open_call`, `poison` or `needs_migration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<RunError>,
    /// Of `open_call`: the calls that may or may not have happened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<Intent>,
}

/// What a person allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The task's path; empty: the run as a whole may go on.
    #[serde(rename = "t", default, skip_serializing_if = "str::is_empty")]
    pub task: Arc<str>,
    /// The open call that may be made again.
    #[serde(rename = "c", default, skip_serializing_if = "str::is_empty")]
    pub call: Arc<str>,
    /// Who.
    pub by: UserId,
}

/// A change of the state by a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edited {
    /// Path of the task whose subgraph is changed; empty for the run's own graph.
    #[serde(rename = "p", default, skip_serializing_if = "str::is_empty")]
    pub path: Arc<str>,
    /// The node in whose name it was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_node: Option<String>,
    /// Who changed it.
    pub by: UserId,
    /// What changed.
    #[serde(rename = "d")]
    pub delta: Delta,
    /// With `as_node`: what is live instead of the tasks there were.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<Fired>,
}

/// What is live after a step: tasks that begin, and what joins hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// Tasks that begin: `node:visit`.
    #[serde(rename = "n", default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
    /// Join slots that are filled (all of them, not only the new ones).
    #[serde(rename = "f", default, skip_serializing_if = "Vec::is_empty")]
    pub filled: Vec<[usize; 2]>,
    /// Join slots that still owe an arrival, which will be absorbed.
    #[serde(rename = "w", default, skip_serializing_if = "Vec::is_empty")]
    pub owed: Vec<[usize; 2]>,
}

/// A task that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskDone {
    /// The task's path.
    #[serde(rename = "t")]
    pub task: Arc<str>,
    /// How long it took, in milliseconds.
    #[serde(rename = "took", default, skip_serializing_if = "is_zero")]
    pub took_ms: u64,
    /// What it writes; message values are ids.
    #[serde(rename = "w", default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub writes: serde_json::Map<String, Value>,
    /// Why it failed; it then writes nothing.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub error: Option<NodeError>,
    /// Nodes that it fires in place of its lines.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub goto: Option<Vec<Arc<str>>>,
    /// Its result was taken from the cache.
    #[serde(rename = "k", default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A step that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Path of the task whose subgraph this is; empty for the run's own graph.
    #[serde(rename = "p", default, skip_serializing_if = "str::is_empty")]
    pub path: Arc<str>,
    /// Which step of the run this begins, counted over all its graphs; the first is 1.
    #[serde(rename = "s")]
    pub step: u32,
    /// The tasks that ended it: those without a [`TaskDone`] of their own.
    #[serde(rename = "o", default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<StepDone>,
    /// Under the dataflow schedule: the ended tasks that have a [`TaskDone`] of their own.
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    pub recorded: Vec<Arc<str>>,
    /// What the step changed.
    #[serde(rename = "d", default, skip_serializing_if = "Delta::is_empty")]
    pub delta: Delta,
    /// What it fired.
    #[serde(flatten)]
    pub fired: Fired,
}

/// A task that ended together with its step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepDone {
    /// `node:visit`.
    #[serde(rename = "t")]
    pub task: Arc<str>,
    /// How long it took, in milliseconds.
    #[serde(rename = "took", default, skip_serializing_if = "is_zero")]
    pub took_ms: u64,
    /// Its result was taken from the cache.
    #[serde(rename = "k", default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Its id.
    pub run: RunId,
    /// How.
    pub status: EndStatus,
    /// Why, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// The run that it made way for: one that was sent to interrupt it or to take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<RunId>,
    /// Closing writes: messages of subgraphs that were cut short, and an answer to every tool
    /// call that has none, so that the next model call is valid.
    #[serde(rename = "d", default, skip_serializing_if = "Delta::is_empty")]
    pub delta: Delta,
    /// Tokens of all its model calls.
    #[serde(default)]
    pub usage: Usage,
    /// The graph's output channels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<Arc<str>>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndStatus {
    /// Nothing was left to do.
    Finished,
    /// A task, a limit or a call failed.
    Failed,
    /// Somebody stopped it.
    Cancelled,
}

/// Why a run failed, as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// Stable, e.g. `provider_rate_limited`.
    pub code: String,
    /// What, where, why and what to do.
    pub message: String,
    /// The node, if one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The provider, if a model call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The model, if a model call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}
