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
mod input;
pub mod lineage;
pub mod memory;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::id::{InputId, LogId, RunId, UserId, WorkerId};
use crate::message::Message;
use crate::run::record::{Fact, Number, Numbered, RunError};

pub use input::{EditRun, ForkRun, IfActive, Input, Resolution, ResolveRun, ResumeRun, StartRun};
pub use memory::MemoryJournal;
pub use verdict::{Consumed, Refusal, Verdict};

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
    /// Who owns the log; `None`: that was never noted.
    pub owner: Option<UserId>,
    /// The number of the log's last record when it was claimed; 0: it had none.
    pub head: Number,
    /// Every number handed out by then is at most this.
    pub reserved: Number,
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
    /// Inputs that the writer has decided, each with what became of it.
    pub consumed: Vec<Consumed>,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Its log.
    pub log: LogId,
    /// The number of its [`Started`](crate::run::record::Started) record; `None` while it is queued.
    pub first: Option<Number>,
    /// The number of its [`Ended`](crate::run::record::Ended) record, or of the
    /// [`Waiting`](crate::run::record::Waiting) record that it stands at; else `None`.
    pub last: Option<Number>,
    /// While it is queued: the run before it, if that one waits and nothing was sent to their log
    /// that is yet to be looked at. It waits with it.
    pub behind: Option<RunId>,
    /// Its log cannot be read, and was [parked](Journal::park) with this.
    pub unreadable: Option<RunError>,
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
    /// oldest input. Those of `but`, who hold enough, are left alone unless a lease of theirs lapsed
    /// or a wake-up came. `None`: there is nothing to do.
    async fn claim(
        &self,
        worker: &WorkerId,
        lease: Duration,
        but: &[UserId],
    ) -> Result<Option<Lease>, JournalError>;

    /// Prolongs leases, each from now on; gives the logs of those that are void, because somebody
    /// else holds the log or because it was given back.
    async fn renew(&self, leases: &[Lease], by: Duration) -> Result<Vec<LogId>, JournalError>;

    /// Gives a log back: the lease is void. If its run goes on, any worker may claim it at once;
    /// if it waits, as `rest` says. Until it is given back, and if it never is, its wake-up is
    /// when the first question of its [`Waiting`](crate::run::record::Fact::Waiting) record
    /// expires, and every unread input is due. A lease that is void already is no error.
    async fn release(&self, lease: &Lease, rest: &ReleaseInfo) -> Result<(), JournalError>;

    /// Gives back a log that cannot be read, and leaves it to people: its runs that have not ended
    /// need attention, with `why`; what was sent to it is refused ([`Refusal::Unreadable`]), but a
    /// cancel ends its run. It is claimed again only when something is sent to it.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] for a stale epoch.
    async fn park(&self, lease: &Lease, why: &RunError) -> Result<(), JournalError>;

    /// Inputs that no append has consumed, oldest first.
    async fn inbox(&self, log: &LogId) -> Result<Vec<(InputId, Input)>, JournalError>;

    /// What became of an input; `None`: nothing yet, or there is no such input (any more).
    async fn verdict(&self, log: &LogId, id: &InputId) -> Result<Option<Verdict>, JournalError>;

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
    ///
    /// # Errors
    /// [`JournalError::Corrupt`]: one of them, or a message that they name, cannot be read.
    async fn read(&self, log: &LogId, from: Number, limit: usize) -> Result<History, JournalError>;

    /// Stores bytes under their own hash; storing them again changes nothing. What nothing names may
    /// be removed, a day after it was last put at the earliest.
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
