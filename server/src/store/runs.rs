//! Run rows: written by the journal with the records they come from (`projection.rs`), read by
//! their owner.

use exile_engine::id::{ConversationId, LogId, RunId, UserId};
use exile_engine::journal::BlobId;
use exile_engine::model::Usage;
use exile_engine::run::record::{Fact, Number, RunError, Waiting};
use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::history::to_records;
use super::page::{Listed, Page};
use super::{Store, StoreError, codec};

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

    /// Those that have not ended.
    pub const OPEN: [Self; 4] = [Self::Queued, Self::Running, Self::Waiting, Self::NeedsAttention];

    /// Whether nothing of the run goes on: it has ended, or waits.
    #[must_use]
    pub fn stands(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

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

impl RunRow {
    /// Why nothing of its log can be done, if that cannot be read.
    #[must_use]
    pub fn unreadable(&self) -> Option<&RunError> {
        let unreadable = |error: &&RunError| error.code == RunError::UNREADABLE;
        self.error.as_ref().filter(unreadable)
    }
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

/// The columns of a run `r` and its log `l` as [`from_row`] reads them.
macro_rules! row {
    () => {
        "r.seq, r.id, r.owner, r.graph, (SELECT id FROM exile_bundle WHERE key = r.bundle) AS bundle,
         r.conversation, r.status, r.error,
         r.input_tokens, r.cached_tokens, r.written_tokens, r.output_tokens, r.reasoning_tokens,
         r.created_at, r.started_at, r.ended_at, r.first, r.last, r.trace_id, l.id AS log_id,
         max(l.head, coalesce((SELECT max(number) FROM exile_record WHERE log = l.key), 0)) AS head"
    };
}
pub(super) use row;

const ONE: &str = concat!(
    "SELECT ",
    row!(),
    " FROM exile_run r JOIN exile_log l ON l.key = r.log WHERE r.id = ?1 AND r.owner = ?2"
);

/// A conversation has one log, whose runs come after one another.
const WAITING: &str = concat!(
    "SELECT ",
    row!(),
    " FROM exile_llm_conversation c CROSS JOIN exile_run r ON r.conversation = c.id
     CROSS JOIN exile_log l ON l.key = r.log
     WHERE c.id = ?1 AND c.owner = ?2 AND r.status IN ('waiting', 'needs_attention')
     LIMIT 1"
);

// Lists of runs, one text for each way to ask, so that each has an index which gives its rows in
// their order. All take the owner, the cursor and the limit as ?1, ?2 and ?3, and of conversation,
// status and graph what they name as ?4, ?5 and ?6.

const OF_OWNER: &str = concat!(
    "SELECT ",
    row!(),
    " FROM exile_run r CROSS JOIN exile_log l ON l.key = r.log
     WHERE r.owner = ?1 AND r.seq < ?2 ORDER BY r.seq DESC LIMIT ?3"
);

const OF_STATUS: &str = concat!(
    "SELECT ",
    row!(),
    " FROM exile_run r CROSS JOIN exile_log l ON l.key = r.log
     WHERE r.owner = ?1 AND r.status = ?5 AND r.seq < ?2 ORDER BY r.seq DESC LIMIT ?3"
);

const OF_GRAPH_AND_STATUS: &str = concat!(
    "SELECT ",
    row!(),
    " FROM exile_run r CROSS JOIN exile_log l ON l.key = r.log
     WHERE r.owner = ?1 AND r.graph = ?6 AND r.status = ?5 AND r.seq < ?2
     ORDER BY r.seq DESC LIMIT ?3"
);

/// The newest of each status, and of those the newest.
const OF_GRAPH: &str = concat!(
    "WITH status (name) AS (VALUES ('queued'), ('running'), ('waiting'), ('finished'), ('failed'),
                                   ('cancelled'), ('needs_attention'))
     SELECT ",
    row!(),
    " FROM status CROSS JOIN exile_run r CROSS JOIN exile_log l ON l.key = r.log
     WHERE r.seq IN (SELECT n.seq FROM exile_run n
                     WHERE n.owner = ?1 AND n.graph = ?6 AND n.status = status.name AND n.seq < ?2
                     ORDER BY n.seq DESC LIMIT ?3)
     ORDER BY r.seq DESC LIMIT ?3"
);

const OF_CONVERSATION: &str = concat!(
    "SELECT ",
    row!(),
    " FROM exile_llm_conversation c CROSS JOIN exile_log l ON l.id = c.id
     CROSS JOIN exile_run r ON r.log = l.key
     WHERE c.id = ?4 AND c.owner = ?1 AND r.seq < ?2 ORDER BY r.seq DESC LIMIT ?3"
);

/// Runs of a conversation are of one graph, as good as all of them.
const OF_CONVERSATION_AND_GRAPH: &str = concat!(
    "SELECT ",
    row!(),
    " FROM exile_llm_conversation c CROSS JOIN exile_log l ON l.id = c.id
     CROSS JOIN exile_run r ON r.log = l.key
     WHERE c.id = ?4 AND c.owner = ?1 AND r.graph = ?6 AND r.seq < ?2
     ORDER BY r.seq DESC LIMIT ?3"
);

const OF_CONVERSATION_AND_STATUS: &str = concat!(
    "SELECT ",
    row!(),
    " FROM exile_llm_conversation c CROSS JOIN exile_run r ON r.conversation = c.id
     CROSS JOIN exile_log l ON l.key = r.log
     WHERE c.id = ?4 AND c.owner = ?1 AND r.status = ?5 AND r.seq < ?2
     ORDER BY r.seq DESC LIMIT ?3"
);

const OF_CONVERSATION_GRAPH_AND_STATUS: &str = concat!(
    "SELECT ",
    row!(),
    " FROM exile_llm_conversation c CROSS JOIN exile_run r ON r.conversation = c.id
     CROSS JOIN exile_log l ON l.key = r.log
     WHERE c.id = ?4 AND c.owner = ?1 AND r.status = ?5 AND r.graph = ?6 AND r.seq < ?2
     ORDER BY r.seq DESC LIMIT ?3"
);

impl RunFilter {
    fn list(&self) -> &'static str {
        let Self { conversation, status, graph } = self;
        match (conversation.is_some(), status.is_some(), graph.is_some()) {
            (false, false, false) => OF_OWNER,
            (false, true, false) => OF_STATUS,
            (false, false, true) => OF_GRAPH,
            (false, true, true) => OF_GRAPH_AND_STATUS,
            (true, false, false) => OF_CONVERSATION,
            (true, false, true) => OF_CONVERSATION_AND_GRAPH,
            (true, true, false) => OF_CONVERSATION_AND_STATUS,
            (true, true, true) => OF_CONVERSATION_GRAPH_AND_STATUS,
        }
    }
}

impl Store {
    /// The owner's run of that id.
    pub async fn run(&self, owner: &UserId, id: &RunId) -> Result<Option<RunRow>, StoreError> {
        let row = sqlx::query(ONE)
            .bind(id.as_str())
            .bind(owner.as_str())
            .fetch_optional(self.readers())
            .await?;
        row.as_ref().map(from_row).transpose()
    }

    /// The run of the owner's conversation that waits, or needs attention, if one does.
    pub async fn waiting_run(
        &self,
        owner: &UserId,
        conversation: &ConversationId,
    ) -> Result<Option<RunRow>, StoreError> {
        let row = sqlx::query(WAITING)
            .bind(conversation.as_str())
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
        let rows = sqlx::query(filter.list())
            .bind(owner.as_str())
            .bind(page.after()?.unwrap_or(i64::MAX))
            .bind(page.rows())
            .bind(filter.conversation.as_ref().map(ConversationId::as_str))
            .bind(filter.status.map(RunStatus::as_str))
            .bind(filter.graph)
            .fetch_all(self.readers())
            .await?;
        let item = |row: &SqliteRow| Ok((row.try_get("seq")?, from_row(row)?));
        Ok(page.list(rows.iter().map(item).collect::<Result<_, StoreError>>()?))
    }

    /// What runs wait for, each by its log and the number of its last record, in their order; `None`
    /// for one whose record there says nothing of the kind.
    pub async fn waits(
        &self,
        runs: &[(&LogId, Number)],
    ) -> Result<Vec<Option<Waiting>>, StoreError> {
        let mut waits = vec![None; runs.len()];
        if runs.is_empty() {
            return Ok(waits);
        }
        let mut read = self.readers().begin().await?;
        let rows = sqlx::query(
            "SELECT w.key AS place, r.number, r.version, r.body FROM json_each(?1) w
             CROSS JOIN exile_log l ON l.id = w.value ->> 0
             CROSS JOIN exile_record r ON r.log = l.key AND r.number = w.value ->> 1",
        )
        .bind(codec::json(&runs)?)
        .fetch_all(&mut *read)
        .await?;
        let records = to_records(&mut read, &rows).await?;
        read.rollback().await?;
        for (row, record) in rows.iter().zip(records) {
            let place = usize::try_from(codec::number(row, "place")?).ok();
            if let (Some(wait), Fact::Waiting(waiting)) =
                (place.and_then(|place| waits.get_mut(place)), &record.record.fact)
            {
                *wait = Some(Waiting::clone(waiting));
            }
        }
        Ok(waits)
    }
}

pub(super) fn from_row(row: &SqliteRow) -> Result<RunRow, StoreError> {
    let status: &str = row.try_get("status")?;
    let conversation: Option<&str> = row.try_get("conversation")?;
    let first = codec::maybe_number(row, "first")?;
    let last = match codec::maybe_number(row, "last")? {
        None if first.is_some() => codec::maybe_number(row, "head")?,
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
        error: codec::maybe_parsed(row, "error")?,
        usage: Usage {
            input: codec::number(row, "input_tokens")?,
            cached: codec::number(row, "cached_tokens")?,
            written: codec::number(row, "written_tokens")?,
            output: codec::number(row, "output_tokens")?,
            reasoning: codec::number(row, "reasoning_tokens")?,
        },
        created_at: codec::time(row, "created_at")?,
        started_at: codec::maybe_time(row, "started_at")?,
        ended_at: codec::maybe_time(row, "ended_at")?,
        first: first.unwrap_or(0),
        last: last.unwrap_or(0),
        trace_id: row.try_get("trace_id")?,
    })
}
