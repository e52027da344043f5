//! What administrators ask: whose something is, and lists of everybody's.
//!
//! Absent on purpose: whether who asks may know. That is for those to say who ask (`access/reach.rs`).

use exile_engine::id::{ConversationId, RunId, UserId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::conversations::{self, Conversation};
use super::page::{Listed, Page};
use super::runs::{self, RunFilter, RunRow, RunStatus};
use super::{Store, StoreError};

/// The columns of a run and its log.
macro_rules! runs {
    () => {
        "SELECT r.*, l.id AS log_id, max(l.head, coalesce(
             (SELECT max(number) FROM exile_record WHERE log = l.key), 0)) AS head
         FROM exile_run r CROSS JOIN exile_log l ON l.key = r.log
         WHERE r.seq < ?1 AND (?3 IS NULL OR r.graph = ?3) AND (?4 IS NULL OR r.conversation = ?4)"
    };
}

const OF_ALL: &str = concat!(runs!(), " ORDER BY r.seq DESC LIMIT ?2");

/// Those of one status are found by its index.
const OF_STATUS: &str = concat!(runs!(), " AND r.status = ?5 ORDER BY r.seq DESC LIMIT ?2");

impl Store {
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
        let query = if filter.status.is_some() { OF_STATUS } else { OF_ALL };
        let rows = sqlx::query(query)
            .bind(page.after()?.unwrap_or(i64::MAX))
            .bind(page.rows())
            .bind(filter.graph)
            .bind(filter.conversation.as_ref().map(ConversationId::as_str))
            .bind(filter.status.map(RunStatus::as_str))
            .fetch_all(self.readers())
            .await?;
        let item = |row: &SqliteRow| Ok((row.try_get("seq")?, runs::from_row(row)?));
        Ok(page.list(rows.iter().map(item).collect::<Result<_, StoreError>>()?))
    }

    /// Everybody's conversations, newest first.
    pub async fn list_all_conversations(
        &self,
        page: Page,
    ) -> Result<Listed<Conversation>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM exile_llm_conversation WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
        )
        .bind(page.after()?.unwrap_or(i64::MAX))
        .bind(page.rows())
        .fetch_all(self.readers())
        .await?;
        let item = |row: &SqliteRow| Ok((row.try_get("seq")?, conversations::from_row(row)?));
        Ok(page.list(rows.iter().map(item).collect::<Result<_, StoreError>>()?))
    }
}
