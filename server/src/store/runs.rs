//! Run rows: written by the journal with the records they come from (`project.rs`), read by
//! their owner.

use exile_engine::id::{ConversationId, LogId, RunId, UserId};
use exile_engine::journal::BlobId;
use exile_engine::model::Usage;
use exile_engine::run::record::{Number, RunError};
use jiff::Timestamp;
use serde_json::{Map, Value};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::page::{Listed, Page};
use super::{Store, StoreError, column};

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// Sent, not begun.
    Queued,
    /// Begun, not ended.
    Running,
    /// Waits for a person.
    Waiting,
    /// Nothing was left to do.
    Finished,
    /// A task, a limit or a call failed.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// A person must say what an open call did.
    NeedsAttention,
}

impl RunStatus {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Waiting,
        Self::Finished,
        Self::Failed,
        Self::Cancelled,
        Self::NeedsAttention,
    ];

    /// As rows and the API spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::NeedsAttention => "needs_attention",
        }
    }

    /// The status of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// A run as its owner sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// Its id.
    pub id: RunId,
    /// Whose it is.
    pub owner: UserId,
    /// Where its records are.
    pub log: LogId,
    /// The graph's name.
    pub graph: String,
    /// What it is pinned to.
    pub bundle: BlobId,
    /// The conversation it is a turn of.
    pub conversation: Option<ConversationId>,
    /// How far it has come.
    pub status: RunStatus,
    /// Why, if it failed.
    pub error: Option<RunError>,
    /// Tokens of all its model calls, once it has ended.
    pub usage: Usage,
    /// As sent; messages by their ids.
    pub input: Map<String, Value>,
    /// When it was sent.
    pub created_at: Timestamp,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Number of its first record; 0 while it is queued.
    pub first: Number,
    /// Number of its last record so far; 0 while it is queued.
    pub last: Number,
    /// The trace that its caller belongs to, in hexadecimal.
    pub trace_id: Option<String>,
}

/// Which runs a list holds; `None` admits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Turns of this conversation.
    pub conversation: Option<ConversationId>,
    /// Runs that have come so far.
    pub status: Option<RunStatus>,
    /// Runs of this graph.
    pub graph: Option<String>,
}

impl Store {
    /// The owner's run of that id.
    pub async fn run(&self, owner: &UserId, id: &RunId) -> Result<Option<RunRow>, StoreError> {
        let row = sqlx::query(
            "SELECT r.*, l.id AS log_id, max(l.head, coalesce(
                 (SELECT max(number) FROM exile_record WHERE log = l.key), 0)) AS head
             FROM exile_run r JOIN exile_log l ON l.key = r.log
             WHERE r.id = ?1 AND r.owner = ?2",
        )
        .bind(id.as_str())
        .bind(owner.as_str())
        .fetch_optional(self.readers())
        .await?;
        row.as_ref().map(from_row).transpose()
    }

    /// The owner's runs, newest first.
    pub async fn list_runs(
        &self,
        owner: &UserId,
        filter: RunFilter,
        page: Page,
    ) -> Result<Listed<RunRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT r.*, l.id AS log_id, max(l.head, coalesce(
                 (SELECT max(number) FROM exile_record WHERE log = l.key), 0)) AS head
             FROM exile_run r JOIN exile_log l ON l.key = r.log
             WHERE r.owner = ?1 AND r.seq < ?2
               AND (?3 IS NULL OR r.conversation = ?3)
               AND (?4 IS NULL OR r.status = ?4)
               AND (?5 IS NULL OR r.graph = ?5)
             ORDER BY r.seq DESC LIMIT ?6",
        )
        .bind(owner.as_str())
        .bind(page.after()?.unwrap_or(i64::MAX))
        .bind(filter.conversation.as_ref().map(ConversationId::as_str))
        .bind(filter.status.map(RunStatus::as_str))
        .bind(filter.graph)
        .bind(page.rows())
        .fetch_all(self.readers())
        .await?;
        let item = |row: &SqliteRow| Ok((row.try_get("seq")?, from_row(row)?));
        Ok(page.list(rows.iter().map(item).collect::<Result<_, StoreError>>()?))
    }
}

pub(super) fn from_row(row: &SqliteRow) -> Result<RunRow, StoreError> {
    let status: &str = row.try_get("status")?;
    let conversation: Option<&str> = row.try_get("conversation")?;
    let first = column::maybe_number(row, "first")?;
    let last = match column::maybe_number(row, "last")? {
        None if first.is_some() => column::maybe_number(row, "head")?,
        last => last,
    };
    Ok(RunRow {
        id: RunId::from(row.try_get::<&str, _>("id")?),
        owner: UserId::from(row.try_get::<&str, _>("owner")?),
        log: LogId::from(row.try_get::<&str, _>("log_id")?),
        graph: row.try_get("graph")?,
        bundle: BlobId(row.try_get::<&str, _>("bundle")?.into()),
        conversation: conversation.map(ConversationId::from),
        status: RunStatus::parse(status)
            .ok_or_else(|| StoreError::unreadable("status of a run", status))?,
        error: column::maybe_parsed(row, "error")?,
        usage: Usage {
            input: column::number(row, "input_tokens")?,
            cached: column::number(row, "cached_tokens")?,
            written: column::number(row, "written_tokens")?,
            output: column::number(row, "output_tokens")?,
            reasoning: column::number(row, "reasoning_tokens")?,
        },
        input: column::parsed(row, "input")?,
        created_at: column::time(row, "created_at")?,
        started_at: column::maybe_time(row, "started_at")?,
        ended_at: column::maybe_time(row, "ended_at")?,
        first: first.unwrap_or(0),
        last: last.unwrap_or(0),
        trace_id: row.try_get("trace_id")?,
    })
}
