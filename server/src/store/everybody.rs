//! What administrators ask: whose something is, and lists of everybody's.
//!
//! Absent on purpose: whether who asks may know. That is for those to say who ask (`http/auth/reach.rs`).

use exile_engine::id::{ConversationId, RunId, UserId};
use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::conversations::{self, Conversation};
use super::page::{Listed, Page};
use super::runs::{self, RunFilter, RunRow, RunStatus, row};
use super::{Store, StoreError, codec};

// As in `runs.rs`, one text for each way to ask. All take the cursor and the limit as ?1 and ?2, and of
// status and graph what they name as ?3 and ?4.

const OF_ALL: &str = concat!(
    "SELECT ",
    row!(),
    " FROM exile_run r CROSS JOIN exile_log l ON l.key = r.log
     WHERE r.seq < ?1 ORDER BY r.seq DESC LIMIT ?2"
);

const OF_STATUS: &str = concat!(
    "SELECT ",
    row!(),
    " FROM exile_run r CROSS JOIN exile_log l ON l.key = r.log
     WHERE r.status = ?3 AND r.seq < ?1 ORDER BY r.seq DESC LIMIT ?2"
);

const OF_GRAPH_AND_STATUS: &str = concat!(
    "SELECT ",
    row!(),
    " FROM exile_run r CROSS JOIN exile_log l ON l.key = r.log
     WHERE r.graph = ?4 AND r.status = ?3 AND r.seq < ?1 ORDER BY r.seq DESC LIMIT ?2"
);

/// The newest of each status, and of those the newest.
const OF_GRAPH: &str = concat!(
    "WITH status (name) AS (VALUES ('queued'), ('running'), ('waiting'), ('finished'), ('failed'),
                                   ('cancelled'), ('needs_attention'))
     SELECT ",
    row!(),
    " FROM status CROSS JOIN exile_run r CROSS JOIN exile_log l ON l.key = r.log
     WHERE r.seq IN (SELECT n.seq FROM exile_run n
                     WHERE n.graph = ?4 AND n.status = status.name AND n.seq < ?1
                     ORDER BY n.seq DESC LIMIT ?2)
     ORDER BY r.seq DESC LIMIT ?2"
);

/// Runs that have not ended, of one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRuns {
    /// Which.
    pub status: RunStatus,
    /// How many there are.
    pub count: u64,
    /// When the oldest of them was asked for; `None` if there is none.
    pub oldest: Option<Timestamp>,
}

/// Both from the index by status, which is in the order in which runs were asked for. All at one
/// moment, since a run that begins in between would count twice.
const OPEN: &str = "SELECT s.value AS status,
                           (SELECT count(*) FROM exile_run WHERE status = s.value) AS count,
                           (SELECT created_at FROM exile_run WHERE status = s.value
                            ORDER BY seq LIMIT 1) AS oldest
                    FROM json_each(?1) s";

impl Store {
    /// How many runs of everybody are queued, running, waiting and in need of attention.
    pub async fn open_runs(&self) -> Result<Vec<OpenRuns>, StoreError> {
        let statuses = codec::json(&RunStatus::OPEN.map(RunStatus::as_str))?;
        let rows = sqlx::query(OPEN).bind(statuses).fetch_all(self.readers()).await?;
        let open = |row: &SqliteRow| {
            let status: &str = row.try_get("status")?;
            let unknown = || StoreError::unreadable("status of a run", status);
            let status = RunStatus::parse(status).ok_or_else(unknown)?;
            let (count, oldest) = (codec::number(row, "count")?, codec::maybe_time(row, "oldest")?);
            Ok(OpenRuns { status, count, oldest })
        };
        rows.iter().map(open).collect()
    }

    /// Whose run that is; `None` if there is none of that id.
    pub async fn owner_of_run(&self, id: &RunId) -> Result<Option<UserId>, StoreError> {
        let query = sqlx::query_scalar("SELECT owner FROM exile_run WHERE id = ?1");
        let owner: Option<String> = query.bind(id.as_str()).fetch_optional(self.readers()).await?;
        Ok(owner.map(UserId::from))
    }

    /// Whose conversation that is; `None` if there is none of that id.
    pub async fn owner_of_conversation(
        &self,
        id: &ConversationId,
    ) -> Result<Option<UserId>, StoreError> {
        let query = sqlx::query_scalar("SELECT owner FROM exile_llm_conversation WHERE id = ?1");
        let owner: Option<String> = query.bind(id.as_str()).fetch_optional(self.readers()).await?;
        Ok(owner.map(UserId::from))
    }

    /// Everybody's runs, newest first.
    pub async fn list_all_runs(
        &self,
        filter: RunFilter,
        page: Page,
    ) -> Result<Listed<RunRow>, StoreError> {
        if let Some(conversation) = &filter.conversation {
            return match self.owner_of_conversation(conversation).await? {
                Some(owner) => self.list_runs(&owner, filter, page).await,
                None => Ok(page.list(Vec::new())),
            };
        }
        let list = match (filter.status, &filter.graph) {
            (None, None) => OF_ALL,
            (Some(_), None) => OF_STATUS,
            (None, Some(_)) => OF_GRAPH,
            (Some(_), Some(_)) => OF_GRAPH_AND_STATUS,
        };
        let rows = sqlx::query(list)
            .bind(page.after()?.unwrap_or(i64::MAX))
            .bind(page.rows())
            .bind(filter.status.map(RunStatus::as_str))
            .bind(filter.graph)
            .fetch_all(self.readers())
            .await?;
        let item = |row: &SqliteRow| Ok((row.try_get("seq")?, runs::from_row(row)?));
        Ok(page.list(rows.iter().map(item).collect::<Result<_, StoreError>>()?))
    }

    /// Everybody's conversations, newest first, at most so many bytes of them.
    pub async fn list_all_conversations(
        &self,
        page: Page,
        bytes: usize,
    ) -> Result<Listed<Conversation>, StoreError> {
        let after = page.after()?.unwrap_or(i64::MAX);
        let mut read = self.readers().begin().await?;
        let sizes: Vec<i64> = sqlx::query_scalar(
            "SELECT coalesce(octet_length(title), 0) + coalesce(octet_length(system_prompt), 0)
             FROM exile_llm_conversation WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
        )
        .bind(after)
        .bind(page.rows())
        .fetch_all(&mut *read)
        .await?;
        let page = page.within(bytes, &sizes);
        let rows = sqlx::query(
            "SELECT * FROM exile_llm_conversation WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
        )
        .bind(after)
        .bind(page.rows())
        .fetch_all(&mut *read)
        .await?;
        read.rollback().await?;
        let item = |row: &SqliteRow| Ok((row.try_get("seq")?, conversations::from_row(row)?));
        Ok(page.list(rows.iter().map(item).collect::<Result<_, StoreError>>()?))
    }
}
