//! What of one log may go.

use std::collections::HashSet;

use exile_engine::id::LogId;
use exile_engine::run::record::Number;
use sqlx::{Row as _, SqliteConnection};

use super::orphans::unnamed;
use super::{BATCH, Purged, given_up, look_again};
use crate::store::history::{Lineage, to_records};
use crate::store::{Store, StoreError, codec};

impl Store {
    /// Removes a part of a log; `true`: there is more. After the last part nothing of it is looked at
    /// again until it changes, or one of its runs has ended long enough ago.
    pub(super) async fn purge_part(
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
        let key = lineage.keys[0];
        let keep = keep_from(connection, &lineage, before_ms).await?;
        let end = end_of_part(connection, key, keep).await?;
        let (mut messages, mut records) = (0, 0);
        if end == keep {
            // Records that go later may name messages, too.
            messages = remove_messages(connection, key, keep).await?;
        }
        if keep > lineage.purged_to() + 1 {
            records = remove_records(connection, &lineage, end).await?;
        }
        if end == keep {
            looked_at(connection, log, before_ms).await?;
            remove_empty(connection, key).await?;
        }
        write.commit().await?;
        purged.logs += u64::from(messages + records > 0);
        purged.records += records;
        purged.messages += messages;
        Ok(end < keep)
    }
}

/// Notes that a log was looked at.
pub(super) async fn looked_at(
    connection: &mut SqliteConnection,
    log: &LogId,
    before_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE exile_log SET changed = (
             SELECT min(ended_at) FROM exile_run
             WHERE log = exile_log.key AND kept = 1 AND ended_at >= ?2)
         WHERE id = ?1",
    )
    .bind(log.as_str())
    .bind(before_ms)
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes the log of a conversation that was deleted, once no fork reads it any more.
async fn remove_empty(connection: &mut SqliteConnection, key: i64) -> Result<(), StoreError> {
    let empty: bool = sqlx::query_scalar(
        "SELECT head > 0
             AND NOT EXISTS (SELECT 1 FROM exile_run r WHERE r.log = exile_log.key)
             AND NOT EXISTS (SELECT 1 FROM exile_log c WHERE c.parent = exile_log.key)
             AND NOT EXISTS (SELECT 1 FROM exile_input i
                             WHERE i.log = exile_log.key AND i.body IS NOT NULL)
         FROM exile_log WHERE key = ?1",
    )
    .bind(key)
    .fetch_one(&mut *connection)
    .await?;
    if empty {
        given_up(&mut *connection, &[key]).await?;
        sqlx::query("DELETE FROM exile_log WHERE key = ?1").bind(key).execute(connection).await?;
    }
    Ok(())
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
    .bind(codec::integer(keep)?)
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
             EXISTS (SELECT 1 FROM exile_run WHERE log = ?1 AND conversation IS NOT NULL)
             OR EXISTS (SELECT 1 FROM exile_run WHERE log = ?1 AND kept = 1
                        AND (ended_at IS NULL OR ended_at >= ?2))
             OR EXISTS (SELECT 1 FROM exile_input WHERE log = ?1 AND body IS NOT NULL)
             OR EXISTS (SELECT 1 FROM exile_log WHERE parent = ?1 AND purged = 0) AS used
         FROM exile_log WHERE key = ?1",
    )
    .bind(key)
    .bind(before_ms)
    .fetch_one(&mut *connection)
    .await?;
    if !row.try_get::<bool, _>("used")? {
        return Ok(codec::number(&row, "head")? + 1);
    }
    // What may still be loaded: the head; where forks began; what a run that is to end, or ended
    // lately, began after (it may be rolled back); where one is to be forked.
    let mut numbers: Vec<i64> = sqlx::query_scalar(
        "SELECT parent_at FROM exile_log WHERE parent = ?1 AND purged = 0
         UNION SELECT first - 1 FROM exile_run
               WHERE log = ?1 AND kept = 1 AND first IS NOT NULL
                   AND (ended_at IS NULL OR ended_at >= ?2)
         UNION SELECT body ->> '$.fork.at' FROM exile_input
               WHERE log = ?1 AND iif(json_valid(body), body ->> '$.fork.at', NULL) IS NOT NULL",
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
    let hidden: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM exile_llm_message WHERE log = ?1 AND number < ?2 AND shown = 0
         UNION ALL
         SELECT id FROM exile_llm_message
         WHERE NOT EXISTS (SELECT 1 FROM exile_run WHERE log = ?1 AND conversation IS NOT NULL)
             AND log = ?1 AND number < ?2 AND shown = 1",
    )
    .bind(key)
    .bind(codec::integer(keep)?)
    .fetch_all(&mut *connection)
    .await?;
    if hidden.is_empty() {
        return Ok(0);
    }
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
    .bind(codec::integer(keep)?)
    .fetch_all(&mut *connection)
    .await?;
    let records = to_records(connection, &rows).await?;
    let named: HashSet<&str> = records.iter().flat_map(|r| r.record.names()).collect();
    let unnamed: Vec<&String> = hidden.iter().filter(|id| !named.contains(id.as_str())).collect();
    let done = sqlx::query(
        "DELETE FROM exile_llm_message
         WHERE log = ?1 AND id IN (SELECT value FROM json_each(?2))",
    )
    .bind(key)
    .bind(codec::json(&unnamed)?)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Removes the records before `keep` and what belongs to them, and notes that they are gone.
async fn remove_records(
    connection: &mut SqliteConnection,
    lineage: &Lineage,
    keep: Number,
) -> Result<u64, StoreError> {
    let key = lineage.keys[0];
    unnamed(connection, &[key], codec::integer(keep)?).await?;
    sqlx::query(
        "UPDATE exile_run SET kept = NULL WHERE log = ?1 AND kept = 1 AND last < ?2;
         DELETE FROM exile_input WHERE log = ?1 AND body IS NULL AND consumed < ?2;
         DELETE FROM exile_cut WHERE log = ?1 AND number < ?2;
         DELETE FROM exile_blob_use WHERE log = ?1 AND number < ?2;
         UPDATE exile_log SET purged = ?2 - 1, head = max(head, coalesce(
             (SELECT max(number) FROM exile_record WHERE log = ?1), 0)) WHERE key = ?1",
    )
    .bind(key)
    .bind(codec::integer(keep)?)
    .execute(&mut *connection)
    .await?;
    // What it is a fork of may have been kept for what is gone now.
    look_again(connection, &lineage.keys[1..]).await?;
    let done = sqlx::query("DELETE FROM exile_record WHERE log = ?1 AND number < ?2")
        .bind(key)
        .bind(codec::integer(keep)?)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
