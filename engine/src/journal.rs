//! Where logs are kept: the one trait between the engine and storage.
//!
//! A log has one writer at a time: whoever holds its lease, proven by an epoch that every append
//! carries. What reaches a log from outside is an [`Input`], sent without a lease and read by the
//! writer.
//!
//! New backend: implement [`Journal`], then run `conformance.rs` over it.
//!
//! Invariants:
//! - [`append`](Journal::append) is one transaction: records, message rows, run rows and consumed
//!   inputs appear together or not at all, durable before it returns.
//! - A stale epoch appends nothing.
//! - A number is never used twice: an append reserves what may be handed out before the next.

pub mod conformance;
pub mod lineage;
pub mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::id::{ConversationId, InputId, InterruptId, LogId, RunId, UserId, WorkerId};
use crate::message::Message;
use crate::run::record::{Durability, Fact, Number, Numbered, RunOptions};

pub use memory::MemoryJournal;

/// Address of a blob: `sha256:` and 64 hexadecimal digits of its content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlobId(pub Arc<str>);

impl BlobId {
    /// The address of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(format!("sha256:{}", crate::hex(&sha2::Sha256::digest(bytes))).into())
    }
}

/// What is sent to a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Start a run.
    Start(Box<StartRun>),
    /// Go on from an earlier number of a run, as another run.
    Fork(Box<ForkRun>),
    /// End a run, whether it has begun or not.
    Cancel {
        /// Which.
        run: RunId,
    },
    /// Answer questions of a run.
    Resume(Box<ResumeRun>),
    /// Say what becomes of a run that needs attention.
    Resolve(ResolveRun),
    /// Change the state of a run that waits, or that a fork leaves to be changed.
    Edit(EditRun),
    /// Move a run to another bundle, whose blob is stored before the input is sent.
    Migrate {
        /// Which run.
        run: RunId,
        /// To what.
        bundle: BlobId,
    },
}

impl Input {
    /// The run that it is for.
    #[must_use]
    pub fn run(&self) -> &RunId {
        match self {
            Self::Start(start) => &start.run,
            Self::Fork(fork) => &fork.run,
            Self::Resume(resume) => &resume.run,
            Self::Resolve(resolve) => &resolve.run,
            Self::Edit(edit) => &edit.run,
            Self::Cancel { run } | Self::Migrate { run, .. } => run,
        }
    }

    /// Who owns the run that it begins; `None`: it begins none.
    #[must_use]
    pub fn owner(&self) -> Option<&UserId> {
        match self {
            Self::Start(start) => Some(&start.owner),
            Self::Fork(fork) => Some(&fork.owner),
            Self::Cancel { .. }
            | Self::Resume(_)
            | Self::Resolve(_)
            | Self::Edit(_)
            | Self::Migrate { .. } => None,
        }
    }
}

/// What becomes of a run that is sent to a log whose run goes on or waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IfActive {
    /// It is not taken ([`Sent::Busy`]).
    Reject,
    /// It begins when those before it have ended.
    #[default]
    Enqueue,
    /// The run that goes on is cancelled and keeps what it did; those that are queued before this
    /// one are cancelled as they begin.
    Interrupt,
    /// The run that goes on is cancelled, with those that are queued before this one, and this one
    /// begins where that one began.
    Rollback,
}

/// Answers to questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResumeRun {
    /// Which run.
    pub run: RunId,
    /// By question.
    pub answers: BTreeMap<InterruptId, serde_json::Value>,
    /// Who answers.
    pub by: UserId,
    /// The message of the conversation that is the (one) answer; it joins the conversation.
    pub message: Option<Box<Message>>,
}

/// What a person says of a run that needs attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResolveRun {
    /// Which run.
    pub run: RunId,
    /// The open call, as `task#call`; `None`: every open call, or the run as a whole.
    pub call: Option<String>,
    /// What becomes of it.
    pub action: Resolution,
    /// Who says so.
    pub by: UserId,
}

/// What becomes of an open call, or of a run that cannot go on by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Resolution {
    /// The call happened, and gave this.
    Done {
        /// What the tool would have answered.
        output: serde_json::Value,
    },
    /// The call is made again under its key; the run goes on.
    Retry,
    /// The call failed; a run without an open call fails.
    Failed {
        /// Why, for the model and the reader of the run.
        message: String,
    },
}

/// A change of state by a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EditRun {
    /// Which run.
    pub run: RunId,
    /// Path of the task whose subgraph is changed; empty for the run's own graph.
    #[serde(default)]
    pub path: String,
    /// The node in whose name: what follows it is live then. `None`: what is live stays.
    pub as_node: Option<String>,
    /// Channel → value; merged by the channels' reducers, as a node's writes are.
    pub writes: serde_json::Map<String, serde_json::Value>,
    /// Who changes it.
    pub by: UserId,
}

/// All that a fork needs to begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForkRun {
    /// Its id.
    pub run: RunId,
    /// The run that it is forked from.
    pub from: RunId,
    /// The log that holds that run: of another log than the one that the input is sent to, that
    /// one begins as a fork of it.
    pub log: LogId,
    /// The number that it goes on from.
    pub at: Number,
    /// As of the run it is forked from.
    pub graph: Arc<str>,
    /// As of the run it is forked from.
    pub bundle: BlobId,
    /// Who owns it.
    pub owner: UserId,
    /// As of the run it is forked from.
    pub conversation: Option<ConversationId>,
    /// A change of the state before it goes on.
    pub edit: Option<Box<EditRun>>,
    /// W3C `traceparent` of the caller.
    pub traceparent: Option<String>,
}

/// All that a run needs to begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartRun {
    /// Its id.
    pub run: RunId,
    /// The graph's name.
    pub graph: Arc<str>,
    /// What it is pinned to; the blob is stored before the input is sent.
    pub bundle: BlobId,
    /// Who owns it.
    pub owner: UserId,
    /// The conversation it is a turn of.
    pub conversation: Option<ConversationId>,
    /// What nodes without keys of their own use.
    pub options: RunOptions,
    /// Channel → value; message values are whole messages.
    pub input: serde_json::Map<String, serde_json::Value>,
    /// W3C `traceparent` of the caller.
    pub traceparent: Option<String>,
    /// What becomes of it while another run of the log goes on.
    #[serde(default)]
    pub if_active: IfActive,
    /// When its records are stored; else as its graph says.
    #[serde(default)]
    pub durability: Option<Durability>,
}

/// What [`Journal::send`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is stored now.
    New,
    /// It was stored before, under the same id; nothing changed.
    Known,
    /// It is a start with [`IfActive::Reject`], and the log has a run that is queued, goes on or
    /// waits; nothing changed.
    Busy,
}

/// The right to write one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which log.
    pub log: LogId,
    /// Rises with every claim.
    pub epoch: u64,
}

/// Until when a log that waits has nothing to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReleaseInfo {
    /// Its wake-up, in milliseconds since 1970 by the store's clock; `None`: never by itself.
    pub wake_ms: Option<i64>,
    /// The newest input that was looked at. Of it and those before it, what was not consumed comes
    /// after the run that waits: only a newer input is something to do.
    pub seen: Option<InputId>,
}

/// What is appended in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The number of the last record that the writer knows of (0: none). Another one in the
    /// store refuses the batch.
    pub after: Number,
    /// In order; their numbers rise and lie above every number used so far.
    pub records: Vec<Numbered>,
    /// Numbers up to this one may be handed out before the next append. At least the last number
    /// that the records' events use.
    pub reserve: Number,
    /// Messages that the records name, new or changed.
    pub messages: Vec<StoredMessage>,
    /// Inputs that the records answer.
    pub consumed: Vec<InputId>,
}

impl Batch {
    /// The log's head once the batch is appended.
    ///
    /// # Errors
    /// [`JournalError::Conflict`]: a number does not lie above those before it.
    pub fn head(&self, log: &LogId) -> Result<Number, JournalError> {
        self.records.iter().map(|r| r.number).try_fold(self.after, |head, number| {
            if number > head {
                return Ok(number);
            }
            Err(JournalError::Conflict { log: log.clone(), expected: number, found: head })
        })
    }
}

/// A message as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredMessage {
    /// The message.
    pub message: Arc<Message>,
    /// The run that made it.
    pub run: RunId,
    /// Part of the conversation as its user sees it.
    pub shown: bool,
}

/// Where a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its log.
    pub log: LogId,
    /// The number of its [`Started`](crate::run::record::Started) record; `None` while it is queued.
    pub first: Option<Number>,
    /// The number of its [`Ended`](crate::run::record::Ended) record, or of the
    /// [`Waiting`](crate::run::record::Waiting) record that it stands at; else `None`.
    pub last: Option<Number>,
}

/// A log's history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Every number handed out so far is at most this.
    pub reserved: Number,
    /// Of [`load`](Journal::load): all records from the newest snapshot on, in order.
    pub records: Vec<Numbered>,
    /// Every message that the records name; of [`read`](Journal::read), in their events.
    pub messages: Vec<Arc<Message>>,
    /// Of [`read`](Journal::read): where the next page begins; `None` at the log's head.
    pub next: Option<Number>,
}

/// When a log that waits, and whose last record states this fact, has something to do by itself:
/// when the first of its questions expires. For the journal's own use, between the append of that
/// record and the [`release`](Journal::release).
#[must_use]
pub fn wake_ms(fact: &Fact) -> Option<i64> {
    match fact {
        Fact::Waiting(waiting) => waiting.asked.iter().filter_map(|asked| asked.expires_ms).min(),
        _ => None,
    }
}

/// Stores logs.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Where a run is; `None` if no run of that id was ever sent.
    async fn find(&self, run: &RunId) -> Result<Option<Place>, JournalError>;

    /// Adds an input to a log, which begins to exist with its first. Durable, idempotent by `id`
    /// (within the log), needs no lease; a run is started once, under whatever id. For
    /// [`Input::Start`] and [`Input::Fork`] the run's row appears in the same transaction, as
    /// `queued`. A fork that is sent to another log than [`ForkRun::log`] makes that log: its
    /// history begins with that of the other one up to [`ForkRun::at`], its numbers above all
    /// that the other one has handed out.
    async fn send(&self, log: &LogId, id: &InputId, input: &Input) -> Result<Sent, JournalError>;

    /// Takes a log that has unread input, whose run goes on (its last record is no
    /// [`Waiting`](crate::run::record::Fact::Waiting)), or whose wake-up is due, under a lapsed
    /// lease or none. Owners of logs are served in turn, the logs of one in the order of their
    /// oldest input. `None`: there is nothing to do.
    async fn claim(
        &self,
        worker: &WorkerId,
        lease: Duration,
    ) -> Result<Option<Lease>, JournalError>;

    /// Prolongs leases, each from now on; gives the logs of those that are void, because somebody
    /// else holds the log or because it was given back.
    async fn renew(&self, leases: &[Lease], by: Duration) -> Result<Vec<LogId>, JournalError>;

    /// Gives a log back: the lease is void. If its run goes on, any worker may claim it at once;
    /// if it waits, as `rest` says. Until it is given back, and if it never is, its wake-up is
    /// when the first question of its [`Waiting`](crate::run::record::Fact::Waiting) record
    /// expires, and every unread input is due. A lease that is void already is no error.
    async fn release(&self, lease: &Lease, rest: &ReleaseInfo) -> Result<(), JournalError>;

    /// Inputs that no append has consumed, oldest first.
    async fn inbox(&self, log: &LogId) -> Result<Vec<(InputId, Input)>, JournalError>;

    /// Appends in one transaction; see the invariants.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] for a stale epoch, [`JournalError::Conflict`] for a wrong `after`.
    async fn append(&self, lease: &Lease, batch: &Batch) -> Result<(), JournalError>;

    /// All that is needed to go on from number `at` (`None`: the log's head): the newest
    /// [`Snapshot`](crate::run::record::Fact::Snapshot) up to there, if there is one, and what
    /// stands after it. What a [`Forked`](crate::run::record::Fact::Forked) record went back
    /// over is left out; what a fork took from another log is there. An unknown log has an empty
    /// history.
    async fn load(&self, log: &LogId, at: Option<Number>) -> Result<History, JournalError>;

    /// A page of the log's own records, whatever was gone back over included, and the messages they
    /// name: from the record on that `from` is a number of, which is the last one that begins with
    /// it or before it. At most `limit` records, and fewer where they are large.
    async fn read(&self, log: &LogId, from: Number, limit: usize) -> Result<History, JournalError>;

    /// Stores bytes under their own hash; storing them again changes nothing.
    async fn put_blob(&self, bytes: &[u8]) -> Result<BlobId, JournalError>;

    /// The bytes of a blob; `None` if there is no such one.
    async fn get_blob(&self, id: &BlobId) -> Result<Option<Vec<u8>>, JournalError>;
}

/// Why the store did not do what was asked. Nothing is half done.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Somebody else holds the log: stop driving it.
    #[error("log {0} is held under a newer epoch")]
    Fenced(LogId),
    /// The writer's idea of the log's head is wrong.
    #[error("log {log} stands at {found}, not at {expected}")]
    Conflict {
        /// Which log.
        log: LogId,
        /// What the batch said.
        expected: Number,
        /// What the store holds.
        found: Number,
    },
    /// No room to write: disk, quota or read-only file.
    #[error("the store cannot write: {0}")]
    Full(String),
    /// The store cannot be reached or did not answer.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What is stored cannot be read.
    #[error("the store holds what cannot be read: {0}")]
    Corrupt(String),
    /// The store itself is damaged, not one log in it.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Records that the answer needs were removed, as the retention says.
    #[error("records of log {0} that this needs were removed, because they were old")]
    Purged(LogId),
    /// What this is about was deleted, perhaps between the look that found it and this call.
    #[error("there is no {0} any more")]
    Gone(String),
}

impl JournalError {
    /// Whether the same call can succeed later. No wildcard arm.
    #[must_use]
    pub fn retry(&self) -> crate::model::Retry {
        match self {
            Self::Full(_) | Self::Unavailable(_) => crate::model::Retry::Backoff,
            Self::Fenced(_)
            | Self::Conflict { .. }
            | Self::Corrupt(_)
            | Self::Damaged(_)
            | Self::Purged(_)
            | Self::Gone(_) => crate::model::Retry::Never,
        }
    }
}
