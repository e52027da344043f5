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
//! - The disk is held for a bounded number of rows at a time, and what may go is looked for without
//!   holding it. A pass that ends in between has removed the older part; the next one goes on.

use exile_engine::id::LogId;
use exile_engine::run::record::Number;
use jiff::{SignedDuration, Timestamp};
use sqlx::{Row as _, SqliteConnection};

use super::history::{Lineage, to_records};
use super::idempotency::KEPT;
use super::{Store, StoreError, column};

/// A blob that was put so recently may be about to be named.
const FRESH: SignedDuration = SignedDuration::from_hours(24);

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
        // Forks come after what they are forks of, and what they leave may go with them.
        let mut key = i64::MAX;
        loop {
            let logs: Vec<(i64, String)> = sqlx::query_as(
                "SELECT l.key, l.id FROM exile_log l WHERE l.key < ?2 AND EXISTS (
                     SELECT 1 FROM exile_run r
                     WHERE r.log = l.key AND r.ended_at < ?1 AND r.last > l.purged)
                 ORDER BY l.key DESC LIMIT ?3",
            )
            .bind(before_ms)
            .bind(key)
            .bind(PAGE)
            .fetch_all(self.readers())
            .await?;
            let Some((last, _)) = logs.last() else { break };
            key = *last;
            for (_, log) in logs {
                let log = LogId::from(log);
                let removed = purged.logs;
                while self.purge_part(&log, before_ms, &mut purged).await? {}
                purged.logs = purged.logs.min(removed + 1);
            }
        }
        self.purge_answers(before_ms).await?;
        self.purge_empty_logs().await?;
        self.purge_blobs(before_ms, &mut purged).await?;
        Ok(purged)
    }

    /// Removes a part of a log; `true`: there is more.
    async fn purge_part(
        &self,
        log: &LogId,
        before_ms: i64,
        purged: &mut Purged,
    ) -> Result<bool, StoreError> {
        let mut write = self.begin().await?;
        let connection = write.connection();
        let Some(lineage) = Lineage::of(connection, log).await? else {
            write.rollback().await?;
            return Ok(false);
        };
        let keep = keep_from(connection, &lineage, before_ms).await?;
        if keep <= lineage.purged_to() + 1 {
            write.rollback().await?;
            return Ok(false);
        }
        let key = lineage.keys[0];
        let end = end_of_part(connection, key, keep).await?;
        if end == keep {
            // Records that go later may name messages, too.
            purged.messages += remove_messages(connection, key, keep).await?;
        }
        purged.logs += 1;
        purged.records += remove_records(connection, key, end).await?;
        write.commit().await?;
        Ok(end < keep)
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

    /// Logs of conversations that were deleted, once no fork reads them any more.
    async fn purge_empty_logs(&self) -> Result<(), StoreError> {
        let mut key = 0;
        loop {
            let logs: Vec<i64> = sqlx::query_scalar(
                "SELECT l.key FROM exile_log l WHERE l.key > ?1 AND l.head > 0
                     AND NOT EXISTS (SELECT 1 FROM exile_run r WHERE r.log = l.key)
                     AND NOT EXISTS (SELECT 1 FROM exile_log c WHERE c.parent = l.key)
                     AND NOT EXISTS (SELECT 1 FROM exile_input i
                                     WHERE i.log = l.key AND i.body IS NOT NULL)
                 ORDER BY l.key LIMIT ?2",
            )
            .bind(key)
            .bind(PAGE)
            .fetch_all(self.readers())
            .await?;
            let Some(last) = logs.last() else { return Ok(()) };
            key = *last;
            for log in logs {
                // Somebody may have sent something to it since.
                sqlx::query(
                    "DELETE FROM exile_log WHERE key = ?1
                         AND NOT EXISTS (SELECT 1 FROM exile_run r WHERE r.log = exile_log.key)
                         AND NOT EXISTS (SELECT 1 FROM exile_log c WHERE c.parent = exile_log.key)
                         AND NOT EXISTS (SELECT 1 FROM exile_input i
                                         WHERE i.log = exile_log.key AND i.body IS NOT NULL)",
                )
                .bind(log)
                .execute(self.write().await?.connection())
                .await?;
            }
        }
    }

    /// Bundles and large values that nothing names any more. Whoever is about to name one has put it
    /// just before, which makes it young again.
    async fn purge_blobs(&self, before_ms: i64, purged: &mut Purged) -> Result<(), StoreError> {
        let fresh_ms = (self.now() - FRESH).as_millisecond();
        let before_ms = before_ms.min(fresh_ms);
        loop {
            let unnamed: Vec<String> = sqlx::query_scalar(
                "SELECT id FROM exile_blob WHERE put_at < ?1
                     AND id NOT IN (SELECT blob FROM exile_blob_use)
                     AND id NOT IN (SELECT r.bundle FROM exile_run r JOIN exile_log l ON l.key = r.log
                                    WHERE r.last IS NULL OR r.last > l.purged)
                     AND id NOT IN (SELECT body ->> '$.migrate.bundle' FROM exile_input
                                    WHERE body ->> '$.migrate.bundle' IS NOT NULL)
                 LIMIT ?2",
            )
            .bind(before_ms)
            .bind(PAGE)
            .fetch_all(self.readers())
            .await?;
            if unnamed.is_empty() {
                return Ok(());
            }
            let done = sqlx::query(
                "DELETE FROM exile_blob WHERE id IN (SELECT value FROM json_each(?1))
                     AND put_at < ?2
                     AND NOT EXISTS (SELECT 1 FROM exile_blob_use u WHERE u.blob = exile_blob.id)",
            )
            .bind(column::json(&unnamed)?)
            .bind(before_ms)
            .execute(self.write().await?.connection())
            .await?;
            purged.blobs += done.rows_affected();
            if done.rows_affected() == 0 {
                return Ok(());
            }
        }
    }
}

/// Where the part of a log ends that is removed first: at `keep`, or so many records before it.
async fn end_of_part(
    connection: &mut SqliteConnection,
    key: i64,
    keep: Number,
) -> Result<Number, StoreError> {
    let end: Option<i64> = sqlx::query_scalar(
        "SELECT number FROM exile_record WHERE log = ?1 AND number < ?2
         ORDER BY number LIMIT 1 OFFSET ?3",
    )
    .bind(key)
    .bind(column::integer(keep)?)
    .bind(BATCH)
    .fetch_optional(connection)
    .await?;
    Ok(end.and_then(|end| Number::try_from(end).ok()).unwrap_or(keep))
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
