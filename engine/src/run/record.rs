//! What a log holds: versioned records, each a fact that will not be taken back.
//!
//! Invariants:
//! - Records alone rebuild every channel's value; a graph is needed only for a run that is still
//!   going on.
//! - A record names nodes and channels, never indices, so that it can be read without its graph.
//! - Keys are short: a step of a small state is stored in under 200 bytes.
//!
//! Fields are only ever added; [`VERSION`] rises when a reader that does not know one would
//! misread the record.

mod calls;
mod people;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{ConversationId, MessageId, RunId, UserId};
use crate::journal::BlobId;
use crate::model::Usage;
use crate::node::NodeError;
use crate::run::joins::{JoinChange, SlotIndex};
use crate::state::{Delta, Op};

pub use crate::model::asking::Attempt;
pub use calls::{Called, Callee, Intent, ModelFacts, Reply};
pub use people::{Answered, AskReason, Asked, Edited, Question, Resolved, Waiting};

/// Version of the records' shape. 2: what joins hold may be told as a change ([`Activation`]).
pub const VERSION: u32 = 2;

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
            | Fact::Lived {}
            | Fact::Intent(_)
            | Fact::Asked(_)
            | Fact::Retried(_)
            | Fact::Waiting(_)
            | Fact::Resolved(_)
            | Fact::Migrated { .. } => Vec::new(),
        }
    }

    /// Ids of the messages that are needed to tell its events: those that it names, but none of a
    /// snapshot's, which has no events.
    #[must_use]
    pub fn names_in_events(&self) -> Vec<&str> {
        if matches!(self.fact, Fact::Snapshot { .. }) { Vec::new() } else { self.names() }
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
        /// It is tried apart from all others, in a group of so many: an earlier process may have
        /// died of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trial: Option<u32>,
        /// Its epoch.
        epoch: u64,
    },
    /// An orderly shutdown gave the run back in the middle: taking it over is no sign of a crash.
    Handed {},
    /// The run lived through its trial: what its process dies of next may be another one.
    Lived {},
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
        /// Whether texts that are not the user's came into the log; version 1 does not say.
        #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
        tainted: Option<bool>,
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
    /// What START began.
    #[serde(flatten)]
    pub activation: Activation,
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
    /// A task had failed there: it begins again, and keeps what of it had succeeded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
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
    /// Id of the key that the run was asked for with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Goes before every other system text of nodes that talk to the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
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

/// What is live after a step: tasks that begin, and what joins hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// Tasks that begin: `node:visit`.
    #[serde(rename = "n", default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<Arc<str>>,
    /// Join slots that are filled: all of them, not only the new ones.
    #[serde(rename = "f", default, skip_serializing_if = "Vec::is_empty")]
    pub filled: Vec<SlotIndex>,
    /// Join slots that still owe an arrival, which will be absorbed.
    #[serde(rename = "w", default, skip_serializing_if = "Vec::is_empty")]
    pub owed: Vec<SlotIndex>,
    /// Instead of `filled` and `owed`, where joins hold much: how that differs from what they held
    /// before.
    #[serde(rename = "j", default, skip_serializing_if = "Option::is_none")]
    pub toggled: Option<JoinChange>,
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
    /// Path of the task inside of it that failed, if it was not itself.
    #[serde(rename = "at", default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Arc<str>>,
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
    /// What begins next.
    #[serde(flatten)]
    pub activation: Activation,
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
    /// Messages of the run that a provider refused to be sent: later runs of the log begin without
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<MessageId>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// Stable, e.g. `provider_rate_limited`.
    pub code: String,
    /// What, where, why and what to do.
    pub message: String,
    /// The node, if one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Path of the innermost task that failed, e.g. `lookup:1/item:14`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The item of a list, counted from 1, if one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<usize>,
    /// The provider, if a model call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The model, if a model call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

impl RunError {
    /// The code of a run whose log cannot be read.
    pub const UNREADABLE: &str = "log_unreadable";

    /// A failure that no node brought about.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), ..Self::default() }
    }
}
