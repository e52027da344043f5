//! Conversations: what a user sees as one thread of talk.

use exile_engine::id::{ConversationId, LogId, UserId};
use exile_engine::run::record::RunError;
use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::page::{Listed, Page};
use super::{Store, StoreError, codec, retention};

/// A conversation and what its runs use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Its id, which is also its log's.
    pub id: ConversationId,
    /// Whose it is.
    pub owner: UserId,
    /// What people call it.
    pub title: Option<String>,
    /// The graph that answers.
    pub graph: String,
    /// For nodes without a skill of their own.
    pub skill: Option<String>,
    /// For nodes without a model of their own.
    pub model: Option<String>,
    /// The provider of `model`, where it names one.
    pub provider: Option<String>,
    /// Chooses among an alias's models.
    pub business: Option<String>,
    /// Goes before every other system text of nodes that talk to the user.
    pub system_prompt: Option<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// When a message was last sent.
    pub updated_at: Timestamp,
}

/// What a new conversation is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewConversation {
    /// Whose it is.
    pub owner: UserId,
    /// What people call it.
    pub title: Option<String>,
    /// The graph that answers.
    pub graph: String,
    /// For nodes without a skill of their own.
    pub skill: Option<String>,
    /// For nodes without a model of their own.
    pub model: Option<String>,
    /// The provider of `model`, where it names one.
    pub provider: Option<String>,
    /// Chooses among an alias's models.
    pub business: Option<String>,
    /// Goes before every other system text of nodes that talk to the user.
    pub system_prompt: Option<String>,
}

/// What became of a conversation that was to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone, with its log, messages and runs.
    Deleted,
    /// A run of it has not ended: nothing was deleted.
    Active,
    /// The owner has none of that id.
    Unknown,
}

impl Store {
    /// Begins a conversation.
    pub async fn create_conversation(
        &self,
        new: NewConversation,
    ) -> Result<Conversation, StoreError> {
        let now = self.now();
        let conversation = Conversation {
            id: ConversationId::new(self.env()),
            owner: new.owner,
            title: new.title,
            graph: new.graph,
            skill: new.skill,
            model: new.model,
            provider: new.provider,
            business: new.business,
            system_prompt: new.system_prompt,
            created_at: now,
            updated_at: now,
        };
        sqlx::query(
            "INSERT INTO exile_llm_conversation
                 (id, owner, title, graph, skill_name, provider, model, business, system_prompt,
                  created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
        )
        .bind(conversation.id.as_str())
        .bind(conversation.owner.as_str())
        .bind(&conversation.title)
        .bind(&conversation.graph)
        .bind(&conversation.skill)
        .bind(&conversation.provider)
        .bind(&conversation.model)
        .bind(&conversation.business)
        .bind(&conversation.system_prompt)
        .bind(now.as_millisecond())
        .execute(self.write().await?.connection())
        .await?;
        Ok(conversation)
    }

    /// The owner's conversation of that id.
    pub async fn conversation(
        &self,
        owner: &UserId,
        id: &ConversationId,
    ) -> Result<Option<Conversation>, StoreError> {
        let row = sqlx::query("SELECT * FROM exile_llm_conversation WHERE id = ?1 AND owner = ?2")
            .bind(id.as_str())
            .bind(owner.as_str())
            .fetch_optional(self.readers())
            .await?;
        row.as_ref().map(from_row).transpose()
    }

    /// The owner's conversations, newest first, at most so many bytes of them.
    pub async fn list_conversations(
        &self,
        owner: &UserId,
        page: Page,
        bytes: usize,
    ) -> Result<Listed<Conversation>, StoreError> {
        let after = page.after()?.unwrap_or(i64::MAX);
        let mut read = self.readers().begin().await?;
        let sizes: Vec<i64> = sqlx::query_scalar(
            "SELECT coalesce(octet_length(title), 0) + coalesce(octet_length(system_prompt), 0)
             FROM exile_llm_conversation WHERE owner = ?1 AND seq < ?2
             ORDER BY seq DESC LIMIT ?3",
        )
        .bind(owner.as_str())
        .bind(after)
        .bind(page.rows())
        .fetch_all(&mut *read)
        .await?;
        let page = page.within(bytes, &sizes);
        let rows = sqlx::query(
            "SELECT * FROM exile_llm_conversation WHERE owner = ?1 AND seq < ?2
             ORDER BY seq DESC LIMIT ?3",
        )
        .bind(owner.as_str())
        .bind(after)
        .bind(page.rows())
        .fetch_all(&mut *read)
        .await?;
        read.rollback().await?;
        let item = |row: &SqliteRow| Ok((row.try_get("seq")?, from_row(row)?));
        Ok(page.list(rows.iter().map(item).collect::<Result<_, StoreError>>()?))
    }

    /// Gives the owner's conversation another title.
    pub async fn rename_conversation(
        &self,
        owner: &UserId,
        id: &ConversationId,
        title: Option<&str>,
    ) -> Result<Option<Conversation>, StoreError> {
        let row = sqlx::query(
            "UPDATE exile_llm_conversation SET title = ?3, updated_at = ?4
             WHERE id = ?1 AND owner = ?2 RETURNING *",
        )
        .bind(id.as_str())
        .bind(owner.as_str())
        .bind(title)
        .bind(self.now().as_millisecond())
        .fetch_optional(self.write().await?.connection())
        .await?;
        row.as_ref().map(from_row).transpose()
    }

    /// Deletes the owner's conversation with its log, records, messages and runs, unless a run of
    /// it is still to end.
    pub async fn delete_conversation(
        &self,
        owner: &UserId,
        id: &ConversationId,
    ) -> Result<Deletion, StoreError> {
        let mut write = self.begin().await?;
        let active: Option<bool> = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM exile_run r WHERE r.conversation = c.id
                            AND r.status IN ('queued', 'running', 'waiting', 'needs_attention')
                            AND r.error ->> '$.code' IS NOT ?3)
             FROM exile_llm_conversation c WHERE c.id = ?1 AND c.owner = ?2",
        )
        .bind(id.as_str())
        .bind(owner.as_str())
        .bind(RunError::UNREADABLE)
        .fetch_optional(write.connection())
        .await?;
        let refused = match active {
            None => Some(Deletion::Unknown),
            Some(true) => Some(Deletion::Active),
            Some(false) => None,
        };
        if let Some(refused) = refused {
            write.rollback().await?;
            return Ok(refused);
        }
        // Records, inputs, messages and runs go with their log, which stays (and belongs to nobody)
        // as long as a fork outside the conversation reads it.
        let gone: Vec<i64> = sqlx::query_scalar(
            "SELECT key FROM exile_log WHERE id = ?1
             UNION SELECT log FROM exile_run WHERE conversation = ?2",
        )
        .bind(LogId::from(id).as_str())
        .bind(id.as_str())
        .fetch_all(write.connection())
        .await?;
        retention::given_up(write.connection(), &gone).await?;
        sqlx::query(
            "WITH RECURSIVE gone (key) AS (
                 SELECT value FROM json_each(?1)
             ), needed (key) AS (
                 SELECT c.parent FROM gone CROSS JOIN exile_log c ON c.parent = gone.key
                 WHERE c.key NOT IN gone
                 UNION SELECT l.parent FROM needed CROSS JOIN exile_log l ON l.key = needed.key
                 WHERE l.parent IS NOT NULL
             )
             DELETE FROM exile_log WHERE key IN gone AND key NOT IN needed",
        )
        .bind(codec::json(&gone)?)
        .execute(write.connection())
        .await?;
        sqlx::query("DELETE FROM exile_llm_conversation WHERE id = ?1")
            .bind(id.as_str())
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(Deletion::Deleted)
    }
}

pub(super) fn from_row(row: &SqliteRow) -> Result<Conversation, StoreError> {
    Ok(Conversation {
        id: ConversationId::from(row.try_get::<&str, _>("id")?),
        owner: UserId::from(row.try_get::<&str, _>("owner")?),
        title: row.try_get("title")?,
        graph: row.try_get("graph")?,
        skill: row.try_get("skill_name")?,
        model: row.try_get("model")?,
        provider: row.try_get("provider")?,
        business: row.try_get("business")?,
        system_prompt: row.try_get("system_prompt")?,
        created_at: codec::time(row, "created_at")?,
        updated_at: codec::time(row, "updated_at")?,
    })
}
