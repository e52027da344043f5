//! Taking a user away, with everything that is theirs but what their calls cost.
//!
//! Invariants:
//! - It can stop anywhere: a user whose removal was cut off is disabled, and removing them again
//!   goes on where it stopped.
//! - No transaction grows with what the user has: others write in between.

use exile_engine::id::UserId;

use super::conversations::Deletion;
use super::page::Page;
use super::users::{self, Changed, UserChange};
use super::{Store, StoreError, codec, retention};

/// Logs that one transaction removes at most.
const BATCH: u32 = 100;

/// What became of a user who was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// They are gone, with their keys, sessions, conversations and runs.
    Removed,
    /// A run of theirs has not ended. They are disabled, and what has ended is gone.
    Active,
    /// They are the last administrator who is not disabled: nothing was changed.
    LastAdmin,
    /// There is none of that id.
    Unknown,
}

impl Store {
    /// Removes a user: disables them first, so that nothing new of theirs begins.
    pub async fn remove_user(&self, id: &UserId) -> Result<Removal, StoreError> {
        let disable = UserChange { disabled: Some(true), ..UserChange::default() };
        match self.change_user(id, disable).await? {
            Changed::Done(_) => {}
            Changed::LastAdmin => return Ok(Removal::LastAdmin),
            Changed::Unknown => return Ok(Removal::Unknown),
        }
        self.remove_runs(id).await?;
        if !self.remove_conversations(id).await? {
            return Ok(Removal::Active);
        }
        self.remove_row(id).await
    }

    /// `false`: a run of one has not ended.
    async fn remove_conversations(&self, owner: &UserId) -> Result<bool, StoreError> {
        loop {
            let page = Page { after: None, limit: BATCH };
            let some = self.list_conversations(owner, page, usize::MAX).await?.items;
            if some.is_empty() {
                return Ok(true);
            }
            for conversation in some {
                if self.delete_conversation(owner, &conversation.id).await? == Deletion::Active {
                    return Ok(false);
                }
            }
        }
    }

    /// Removes the logs of runs outside of conversations that have ended; forks go before what they
    /// are forks of.
    async fn remove_runs(&self, owner: &UserId) -> Result<(), StoreError> {
        loop {
            let mut write = self.begin().await?;
            let logs: Vec<i64> = sqlx::query_scalar(
                "SELECT r.log FROM exile_run r
                 WHERE r.owner = ?1 AND r.conversation IS NULL AND r.ended_at IS NOT NULL
                   AND NOT EXISTS (SELECT 1 FROM exile_log l WHERE l.parent = r.log)
                 LIMIT ?2",
            )
            .bind(owner.as_str())
            .bind(BATCH)
            .fetch_all(write.connection())
            .await?;
            if logs.is_empty() {
                return write.rollback().await;
            }
            retention::given_up(write.connection(), &logs).await?;
            sqlx::query("DELETE FROM exile_log WHERE key IN (SELECT value FROM json_each(?1))")
                .bind(codec::json(&logs)?)
                .execute(write.connection())
                .await?;
            write.commit().await?;
        }
    }

    async fn remove_row(&self, id: &UserId) -> Result<Removal, StoreError> {
        let (store, id) = (self.clone(), id.clone());
        Self::to_its_end(async move {
            let mut write = store.begin().await?;
            let Some(user) = users::read(write.connection(), &id).await? else {
                write.rollback().await?;
                return Ok(Removal::Unknown);
            };
            let active: bool =
                sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM exile_run WHERE owner = ?1)")
                    .bind(id.as_str())
                    .fetch_one(write.connection())
                    .await?;
            // Somebody may have enabled them while their rows were removed.
            let last = users::is_last_admin(write.connection(), &user).await?;
            if active || last {
                write.rollback().await?;
                return Ok(if last { Removal::LastAdmin } else { Removal::Active });
            }
            // Kept answers hold what was said.
            for statement in [
                "DELETE FROM exile_idempotency WHERE owner = ?1",
                "DELETE FROM exile_user WHERE id = ?1",
            ] {
                sqlx::query(statement).bind(id.as_str()).execute(write.connection()).await?;
            }
            write.commit().await?;
            store.shared.keys.forget();
            Ok(Removal::Removed)
        })
        .await
    }
}
