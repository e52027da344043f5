//! Removing what is old: records, hidden messages, inputs, answers kept for repetition, blobs.
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

use exile_engine::id::LogId;
use exile_engine::run::record::Number;
use jiff::{SignedDuration, Timestamp};
use sqlx::{Row as _, SqliteConnection};

use super::history::{Lineage, to_records};
use super::{Store, StoreError, column};

/// A blob that was put so recently may be about to be named.
const FRESH: SignedDuration = SignedDuration::from_hours(24);

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
    /// Removes what is of no use any more to anything that has not ended before `older_than`. One
    /// log at a time, so that nobody waits long for the disk.
    pub async fn purge(&self, older_than: Timestamp) -> Result<Purged, StoreError> {
        let before_ms = older_than.as_millisecond();
        // Forks come after what they are forks of, and what they leave may go with them.
        let logs: Vec<String> = sqlx::query_scalar(
            "SELECT l.id FROM exile_log l WHERE EXISTS (
                 SELECT 1 FROM exile_run r
                 WHERE r.log = l.key AND r.ended_at < ?1 AND r.last > l.purged)
             ORDER BY l.key DESC",
        )
        .bind(before_ms)
        .fetch_all(self.readers())
        .await?;
        let mut purged = Purged::default();
        for log in logs {
            self.purge_log(&LogId::from(log), before_ms, &mut purged).await?;
        }
        self.purge_rest(before_ms, &mut purged).await?;
        Ok(purged)
    }

    async fn purge_log(
        &self,
        log: &LogId,
        before_ms: i64,
        purged: &mut Purged,
    ) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let connection = write.connection();
        let Some(lineage) = Lineage::of(connection, log).await? else {
            return write.rollback().await;
        };
        let keep = keep_from(connection, &lineage, before_ms).await?;
        if keep <= lineage.purged_to() + 1 {
            return write.rollback().await;
        }
        purged.logs += 1;
        purged.messages += remove_messages(connection, lineage.keys[0], keep).await?;
        purged.records += remove_records(connection, lineage.keys[0], keep).await?;
        write.commit().await
    }

    /// What belongs to no log.
    async fn purge_rest(&self, before_ms: i64, purged: &mut Purged) -> Result<(), StoreError> {
        let fresh_ms = (self.now() - FRESH).as_millisecond();
        let mut write = self.begin().await?;
        sqlx::query(
            "DELETE FROM exile_idempotency WHERE begun_at < ?1 AND status IS NOT NULL;
             DELETE FROM exile_log WHERE head > 0
                 AND NOT EXISTS (SELECT 1 FROM exile_run r WHERE r.log = exile_log.key)
                 AND NOT EXISTS (SELECT 1 FROM exile_log c WHERE c.parent = exile_log.key)
                 AND NOT EXISTS (SELECT 1 FROM exile_input i
                                 WHERE i.log = exile_log.key AND i.body IS NOT NULL)",
        )
        .bind(before_ms)
        .execute(write.connection())
        .await?;
        let done = sqlx::query(
            "DELETE FROM exile_blob WHERE put_at < ?1
                 AND id NOT IN (SELECT blob FROM exile_blob_use)
                 AND id NOT IN (SELECT r.bundle FROM exile_run r JOIN exile_log l ON l.key = r.log
                                WHERE r.last IS NULL OR r.last > l.purged)
                 AND id NOT IN (SELECT body ->> '$.migrate.bundle' FROM exile_input
                                WHERE body ->> '$.migrate.bundle' IS NOT NULL)",
        )
        .bind(before_ms.min(fresh_ms))
        .execute(write.connection())
        .await?;
        purged.blobs += done.rows_affected();
        write.commit().await
    }
}

/// The first number of the log that must stay.
async fn keep_from(
    connection: &mut SqliteConnection,
    lineage: &Lineage,
    before_ms: i64,
) -> Result<Number, StoreError> {
    let key = lineage.keys[0];
    let row = sqlx::query(
        "SELECT max(head, coalesce((SELECT max(number) FROM exile_record WHERE log = ?1), 0))
                 AS head,
             EXISTS (SELECT 1 FROM exile_run WHERE log = ?1
                     AND (conversation IS NOT NULL OR ended_at IS NULL OR ended_at >= ?2))
             OR EXISTS (SELECT 1 FROM exile_input WHERE log = ?1 AND body IS NOT NULL)
             OR EXISTS (SELECT 1 FROM exile_log WHERE parent = ?1 AND purged = 0) AS used
         FROM exile_log WHERE key = ?1",
    )
    .bind(key)
    .bind(before_ms)
    .fetch_one(&mut *connection)
    .await?;
    if !row.try_get::<bool, _>("used")? {
        return Ok(column::number(&row, "head")? + 1);
    }
    // What may still be loaded: the head; where forks began; what a run that is to end, or ended
    // lately, began after (it may be rolled back); where one is to be forked.
    let mut numbers: Vec<i64> = sqlx::query_scalar(
        "SELECT parent_at FROM exile_log WHERE parent = ?1 AND purged = 0
         UNION SELECT first - 1 FROM exile_run
               WHERE log = ?1 AND first IS NOT NULL AND (ended_at IS NULL OR ended_at >= ?2)
         UNION SELECT body ->> '$.fork.at' FROM exile_input
               WHERE log = ?1 AND body ->> '$.fork.at' IS NOT NULL",
    )
    .bind(key)
    .bind(before_ms)
    .fetch_all(&mut *connection)
    .await?;
    numbers.push(row.try_get("head")?);
    let mut keep = Number::MAX;
    for number in numbers {
        let at = Number::try_from(number).unwrap_or(0);
        let spans = lineage.spans(connection, at).await?;
        // It begins at a snapshot of this log, or before the log.
        let own = spans.first().filter(|span| span.line == 0);
        keep = keep.min(own.map_or(0, |span| span.from));
    }
    Ok(keep)
}

/// Removes the messages before `keep` that no user sees and no record that stays names.
async fn remove_messages(
    connection: &mut SqliteConnection,
    key: i64,
    keep: Number,
) -> Result<u64, StoreError> {
    let rows = sqlx::query(
        "WITH RECURSIVE fork (key) AS (
             SELECT key FROM exile_log WHERE parent = ?1
             UNION SELECT l.key FROM fork JOIN exile_log l ON l.parent = fork.key
         )
         SELECT number, version, body FROM exile_record WHERE log = ?1 AND number >= ?2
         UNION ALL
         SELECT number, version, body FROM exile_record WHERE log IN fork",
    )
    .bind(key)
    .bind(column::integer(keep)?)
    .fetch_all(&mut *connection)
    .await?;
    let records = to_records(connection, &rows).await?;
    let named: Vec<&str> = records.iter().flat_map(|r| r.record.names()).collect();
    let done = sqlx::query(
        "DELETE FROM exile_llm_message WHERE log = ?1 AND number < ?2
             AND NOT (shown AND EXISTS (SELECT 1 FROM exile_run r WHERE r.id = run
                                        AND r.conversation IS NOT NULL))
             AND id NOT IN (SELECT value FROM json_each(?3))",
    )
    .bind(key)
    .bind(column::integer(keep)?)
    .bind(column::json(&named)?)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Removes the records before `keep` and what belongs to them, and notes that they are gone.
async fn remove_records(
    connection: &mut SqliteConnection,
    key: i64,
    keep: Number,
) -> Result<u64, StoreError> {
    sqlx::query(
        "DELETE FROM exile_input WHERE log = ?1 AND body IS NULL AND consumed < ?2;
         DELETE FROM exile_cut WHERE log = ?1 AND number < ?2;
         DELETE FROM exile_blob_use WHERE log = ?1 AND number < ?2;
         UPDATE exile_log SET purged = ?2 - 1, head = max(head, coalesce(
             (SELECT max(number) FROM exile_record WHERE log = ?1), 0)) WHERE key = ?1",
    )
    .bind(key)
    .bind(column::integer(keep)?)
    .execute(&mut *connection)
    .await?;
    let done = sqlx::query("DELETE FROM exile_record WHERE log = ?1 AND number < ?2")
        .bind(key)
        .bind(column::integer(keep)?)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
