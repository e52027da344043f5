//! Removing what is old: records, hidden messages, inputs, answers kept for repetition, blobs.
//!
//! | file | holds |
//! |---|---|
//! | `log.rs` | what of one log may go, in parts |
//! | `orphans.rs` | what nothing names any more |
//!
//! A pass looks at what may have become removable since the last one: logs that changed
//! (`exile_log.changed`) and blobs in doubt (`exile_blob_doubt`). Whoever changes a log, puts a blob
//! that nothing names yet, or takes the last name of one away notes that in the same transaction;
//! the pass takes the note away with what it removes.
//!
//! Of a log whose runs are no turns of a conversation everything goes, once all of them ended
//! before the time given. Of a conversation goes what stands before its newest snapshot, as far as
//! the runs of it ended before then; messages that its user sees stay.
//!
//! Invariants:
//! - What a run reads that is queued, goes on, waits or ended later stays, and so does what a fork
//!   reads: for each number that may still be loaded, everything from its snapshot on.
//! - A run row stays; what reads removed records is refused ([`StoreError::Purged`]).
//! - A blob goes when no record, no run whose records are there and no unread input names it, and
//!   nobody put it lately.
//! - The disk is held for a bounded number of rows at a time. A pass that ends in between has removed
//!   a part; the next one goes on.
//! - A log that cannot be read keeps what it has, and keeps nothing else from going.

mod log;
mod orphans;

use exile_engine::id::LogId;
use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::idempotency::KEPT;
use super::{Store, StoreError, codec};

pub(super) use orphans::doubted;

/// Rows, and places in a log, that are removed in one transaction.
const BATCH: u32 = 2000;

/// Logs and blobs that are looked for at once.
const PAGE: u32 = 256;

/// What a purge removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Logs that something was removed from.
    pub logs: u64,
    /// Records.
    pub records: u64,
    /// Messages that no user sees.
    pub messages: u64,
    /// Bundles and large values.
    pub blobs: u64,
}

impl Store {
    /// Removes what is of no use any more to anything that has not ended before `older_than`. A part
    /// of one log at a time, so that nobody waits long for the disk.
    pub async fn purge(&self, older_than: Timestamp) -> Result<Purged, StoreError> {
        let before_ms = older_than.as_millisecond();
        let mut purged = Purged::default();
        loop {
            // Each that is looked at is noted no more. What a fork has left to its parent comes
            // first: nothing in here is older.
            let logs: Vec<String> = sqlx::query_scalar(
                "SELECT id FROM exile_log WHERE changed < ?1 ORDER BY changed LIMIT ?2",
            )
            .bind(before_ms)
            .bind(PAGE)
            .fetch_all(self.readers())
            .await?;
            if logs.is_empty() {
                break;
            }
            for log in logs {
                self.purge_log(&LogId::from(log), before_ms, &mut purged).await?;
            }
        }
        self.purge_answers(before_ms).await?;
        purged.blobs = self.purge_blobs().await?;
        Ok(purged)
    }

    /// Removes what of a log may go; of one that cannot be read, nothing.
    async fn purge_log(
        &self,
        log: &LogId,
        before_ms: i64,
        purged: &mut Purged,
    ) -> Result<(), StoreError> {
        let removed = purged.logs;
        loop {
            match self.purge_part(log, before_ms, purged).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(StoreError::Corrupt(why)) => {
                    tracing::warn!(%log, why, "cannot tell what of this log is old; nothing of it goes");
                    log::looked_at(self.write().await?.connection(), log, before_ms).await?;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        purged.logs = purged.logs.min(removed + 1);
        Ok(())
    }

    /// Answers that were kept for those who ask again, each for as long as was promised.
    async fn purge_answers(&self, before_ms: i64) -> Result<(), StoreError> {
        let before_ms = before_ms.min((self.now() - KEPT).as_millisecond());
        loop {
            let done = sqlx::query(
                "DELETE FROM exile_idempotency WHERE rowid IN (
                     SELECT rowid FROM exile_idempotency
                     WHERE begun_at < ?1 AND status IS NOT NULL LIMIT ?2)",
            )
            .bind(before_ms)
            .bind(BATCH)
            .execute(self.write().await?.connection())
            .await?;
            if done.rows_affected() < u64::from(BATCH) {
                return Ok(());
            }
        }
    }
}

/// Notes that logs are about to be deleted, or to lose their runs: what they name may lose its last
/// name, and what they are forks of may have been kept for them alone.
pub(super) async fn given_up(
    connection: &mut SqliteConnection,
    keys: &[i64],
) -> Result<(), StoreError> {
    orphans::unnamed(&mut *connection, keys, i64::MAX).await?;
    let line: Vec<i64> = sqlx::query_scalar(
        "WITH RECURSIVE line (key) AS (
             SELECT value FROM json_each(?1)
             UNION ALL
             SELECT l.parent FROM line CROSS JOIN exile_log l ON l.key = line.key
             WHERE l.parent IS NOT NULL
         )
         SELECT key FROM line",
    )
    .bind(codec::json(keys)?)
    .fetch_all(&mut *connection)
    .await?;
    look_again(connection, &line).await
}

/// Lets the next look of a pass, or of this one, find logs.
async fn look_again(connection: &mut SqliteConnection, keys: &[i64]) -> Result<(), StoreError> {
    sqlx::query("UPDATE exile_log SET changed = 0 WHERE key IN (SELECT value FROM json_each(?1))")
        .bind(codec::json(keys)?)
        .execute(connection)
        .await?;
    Ok(())
}
