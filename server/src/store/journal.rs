//! The engine's journal on SQLite.
//!
//! Invariants:
//! - `append` is one transaction; it checks epoch and head with the statement that moves the head.
//! - Leases use SQLite's clock, epochs rise with every claim, and a released lease is void.
//! - A log is in the queue (`due`) while it has unread inputs or a run that has not ended; its
//!   place is that of the input that brought it there.

use std::time::Duration;

use async_trait::async_trait;
use exile_engine::id::{InputId, LogId, RunId, WorkerId};
use exile_engine::journal::{
    Batch, BlobId, History, Input, Journal, JournalError, Lease, Place, Sent,
};
use exile_engine::run::record::{Number, Numbered, VERSION};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::{Store, StoreError, column, messages, project};

#[async_trait]
impl Journal for Store {
    async fn find(&self, run: &RunId) -> Result<Option<Place>, JournalError> {
        Ok(self.place_of(run).await?)
    }

    async fn send(&self, log: &LogId, id: &InputId, input: &Input) -> Result<Sent, JournalError> {
        Ok(self.send_input(log, id, input).await?)
    }

    async fn claim(
        &self,
        worker: &WorkerId,
        lease: Duration,
    ) -> Result<Option<Lease>, JournalError> {
        Ok(self.claim_due(worker, lease).await?)
    }

    async fn renew(&self, lease: &Lease, by: Duration) -> Result<(), JournalError> {
        let held = self
            .set_lease(
                lease,
                "UPDATE exile_log
                 SET lease_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?3
                 WHERE id = ?1 AND epoch = ?2 AND lease_until IS NOT NULL",
                Some(by),
            )
            .await?;
        if held { Ok(()) } else { Err(JournalError::Fenced(lease.log.clone())) }
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        // Somebody else's by now: nothing is left to give back.
        self.set_lease(
            lease,
            "UPDATE exile_log SET lease_until = ?3, worker = NULL WHERE id = ?1 AND epoch = ?2",
            None,
        )
        .await?;
        Ok(())
    }

    async fn inbox(&self, log: &LogId) -> Result<Vec<(InputId, Input)>, JournalError> {
        Ok(self.unread(log).await?)
    }

    async fn append(&self, lease: &Lease, batch: &Batch) -> Result<(), JournalError> {
        let head = batch.head(&lease.log)?;
        let mut write = self.write().await?;
        let Some(key) = move_head(write.transaction(), lease, batch, head).await? else {
            let refused = refusal(write.connection(), lease, batch.after).await?;
            write.rollback().await?;
            return Err(refused);
        };
        let now_ms = self.now().as_millisecond();
        put(write.connection(), key, batch, now_ms).await?;
        Ok(write.commit().await?)
    }

    async fn load(&self, log: &LogId) -> Result<History, JournalError> {
        Ok(self.history(log, None).await?)
    }

    async fn read(&self, log: &LogId, from: Number, limit: usize) -> Result<History, JournalError> {
        Ok(self.history(log, Some((from, limit))).await?)
    }

    async fn put_blob(&self, bytes: &[u8]) -> Result<BlobId, JournalError> {
        let id = BlobId::of(bytes);
        self.insert_blob(&id, bytes).await?;
        Ok(id)
    }

    async fn get_blob(&self, id: &BlobId) -> Result<Option<Vec<u8>>, JournalError> {
        Ok(self.blob(id).await?)
    }
}

impl Store {
    /// Frees the leases of a dead process.
    pub(super) async fn clear_leases(&self) -> Result<(), StoreError> {
        sqlx::query("UPDATE exile_log SET lease_until = NULL, worker = NULL WHERE worker NOT NULL")
            .execute(self.write().await?.connection())
            .await?;
        Ok(())
    }

    async fn place_of(&self, run: &RunId) -> Result<Option<Place>, StoreError> {
        let row = sqlx::query(
            "SELECT l.id, r.first, r.last FROM exile_run r JOIN exile_log l ON l.key = r.log
             WHERE r.id = ?1",
        )
        .bind(run.as_str())
        .fetch_optional(self.readers())
        .await?;
        let place = |row: SqliteRow| {
            let log = LogId::from(row.try_get::<&str, _>("id")?);
            let first = column::maybe_number(&row, "first")?;
            Ok(Place { log, first, last: column::maybe_number(&row, "last")? })
        };
        row.map(place).transpose()
    }

    async fn send_input(
        &self,
        log: &LogId,
        id: &InputId,
        input: &Input,
    ) -> Result<Sent, StoreError> {
        let mut write = self.begin().await?;
        let key: i64 = sqlx::query_scalar(
            "INSERT INTO exile_log (id) VALUES (?1)
             ON CONFLICT (id) DO UPDATE SET id = excluded.id RETURNING key",
        )
        .bind(log.as_str())
        .fetch_one(write.connection())
        .await?;
        let seq: Option<i64> = sqlx::query_scalar(
            "INSERT INTO exile_input (log, id, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (log, id) DO NOTHING RETURNING seq",
        )
        .bind(key)
        .bind(id.as_str())
        .bind(column::json(input)?)
        .fetch_optional(write.connection())
        .await?;
        let known = match (seq, input) {
            (None, _) => true,
            (Some(_), Input::Start(start)) => {
                let now_ms = self.now().as_millisecond();
                !project::queued(write.connection(), key, now_ms, start).await?
            }
            (Some(_), Input::Cancel { .. }) => false,
        };
        if known {
            write.rollback().await?;
            return Ok(Sent::Known);
        }
        sqlx::query("UPDATE exile_log SET due = coalesce(due, ?2) WHERE key = ?1")
            .bind(key)
            .bind(seq)
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(Sent::New)
    }

    async fn claim_due(
        &self,
        worker: &WorkerId,
        lease: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let row = sqlx::query(
            "UPDATE exile_log SET epoch = epoch + 1, worker = ?1,
                 lease_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?2
             WHERE key = (
                 SELECT key FROM exile_log
                 WHERE due IS NOT NULL
                   AND (lease_until IS NULL
                        OR lease_until <= CAST(unixepoch('subsec') * 1000 AS INTEGER))
                 ORDER BY due LIMIT 1)
             RETURNING id, epoch",
        )
        .bind(worker.as_str())
        .bind(millis(lease))
        .fetch_optional(self.write().await?.connection())
        .await?;
        let claimed = |row: SqliteRow| {
            let log = LogId::from(row.try_get::<&str, _>("id")?);
            Ok(Lease { log, epoch: column::number(&row, "epoch")? })
        };
        row.map(claimed).transpose()
    }

    /// Runs one update of a lease; `false` if it is no longer this one.
    async fn set_lease(
        &self,
        lease: &Lease,
        update: &'static str,
        by: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(update)
            .bind(lease.log.as_str())
            .bind(column::integer(lease.epoch)?)
            .bind(by.map(millis))
            .execute(self.write().await?.connection())
            .await?;
        Ok(done.rows_affected() > 0)
    }

    async fn unread(&self, log: &LogId) -> Result<Vec<(InputId, Input)>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, body FROM exile_input
             WHERE log = (SELECT key FROM exile_log WHERE id = ?1) AND body IS NOT NULL
             ORDER BY seq",
        )
        .bind(log.as_str())
        .fetch_all(self.readers())
        .await?;
        let input = |row: &SqliteRow| {
            Ok((InputId::from(row.try_get::<&str, _>("id")?), column::parsed(row, "body")?))
        };
        rows.iter().map(input).collect()
    }

    /// The whole history, or a part (`from`, `limit`) of it, as of one moment.
    async fn history(
        &self,
        log: &LogId,
        part: Option<(Number, usize)>,
    ) -> Result<History, StoreError> {
        let mut read = self.readers().begin().await?;
        let row = sqlx::query("SELECT key, reserved, snapshot FROM exile_log WHERE id = ?1")
            .bind(log.as_str())
            .fetch_optional(&mut *read)
            .await?;
        let Some(row) = row else { return Ok(History::default()) };
        let key: i64 = row.try_get("key")?;
        let snapshot = column::number(&row, "snapshot")?;
        let (from, limit) = part.unwrap_or((snapshot, usize::MAX));
        let rows = sqlx::query(
            "SELECT number, version, body FROM exile_record
             WHERE log = ?1 AND number >= ?2 ORDER BY number LIMIT ?3",
        )
        .bind(key)
        .bind(i64::try_from(from).unwrap_or(i64::MAX))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *read)
        .await?;
        let records: Vec<Numbered> = rows.iter().map(to_record).collect::<Result<_, _>>()?;
        let messages = if part.is_none() && snapshot == 0 {
            messages::of_log(&mut read, key).await?
        } else {
            let ids: Vec<&str> = records.iter().flat_map(|r| r.record.names()).collect();
            messages::named(&mut read, key, &ids).await?
        };
        read.rollback().await?;
        Ok(History { reserved: column::number(&row, "reserved")?, records, messages })
    }

    async fn insert_blob(&self, id: &BlobId, bytes: &[u8]) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO exile_blob (id, body) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
            .bind(&*id.0)
            .bind(bytes)
            .execute(self.write().await?.connection())
            .await?;
        Ok(())
    }

    async fn blob(&self, id: &BlobId) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query_scalar("SELECT body FROM exile_blob WHERE id = ?1").bind(&*id.0);
        Ok(query.fetch_optional(self.readers()).await?)
    }
}

/// Begins the transaction (in one trip to the connection's thread, of which a step makes few) and
/// moves the log's head if the lease holds and the writer knows the head; gives the log's key.
async fn move_head(
    connection: &mut SqliteConnection,
    lease: &Lease,
    batch: &Batch,
    head: Number,
) -> Result<Option<i64>, StoreError> {
    let key = sqlx::query_scalar(
        "BEGIN IMMEDIATE;
         UPDATE exile_log SET head = ?4, reserved = max(reserved, ?4, ?5)
         WHERE id = ?1 AND epoch = ?2 AND lease_until IS NOT NULL AND head = ?3
         RETURNING key",
    )
    .bind(lease.log.as_str())
    .bind(column::integer(lease.epoch)?)
    .bind(column::integer(batch.after)?)
    .bind(column::integer(head)?)
    .bind(column::integer(batch.reserve)?)
    .fetch_optional(connection)
    .await?;
    Ok(key)
}

/// Why the head was not moved.
async fn refusal(
    connection: &mut SqliteConnection,
    lease: &Lease,
    expected: Number,
) -> Result<JournalError, StoreError> {
    let row = sqlx::query(
        "SELECT head FROM exile_log WHERE id = ?1 AND epoch = ?2 AND lease_until IS NOT NULL",
    )
    .bind(lease.log.as_str())
    .bind(column::integer(lease.epoch)?)
    .fetch_optional(connection)
    .await?;
    let log = lease.log.clone();
    Ok(match row {
        None => JournalError::Fenced(log),
        Some(row) => JournalError::Conflict { log, expected, found: column::number(&row, "head")? },
    })
}

/// Writes what a batch holds into the log `key`, whose head has been moved.
async fn put(
    connection: &mut SqliteConnection,
    key: i64,
    batch: &Batch,
    now_ms: i64,
) -> Result<(), StoreError> {
    let mut turned = false;
    for record in &batch.records {
        sqlx::query(
            "INSERT INTO exile_record (log, number, version, body) VALUES (?1, ?2, ?3, ?4)",
        )
        .bind(key)
        .bind(column::integer(record.number)?)
        .bind(VERSION)
        .bind(column::json(&record.record)?)
        .execute(&mut *connection)
        .await?;
        turned |= project::recorded(&mut *connection, key, record).await?;
    }
    let last = batch.records.last();
    let number = last.map_or(batch.after, |r| r.number);
    let at_ms = last.map_or(now_ms, |r| r.record.at_ms);
    for message in &batch.messages {
        messages::put(&mut *connection, key, number, at_ms, message).await?;
    }
    for id in &batch.consumed {
        sqlx::query("UPDATE exile_input SET body = NULL WHERE log = ?1 AND id = ?2")
            .bind(key)
            .bind(id.as_str())
            .execute(&mut *connection)
            .await?;
    }
    if turned || !batch.consumed.is_empty() {
        requeue(connection, key).await?;
    }
    Ok(())
}

/// Keeps the log's place in the queue while its run goes on; else that of its oldest input.
async fn requeue(connection: &mut SqliteConnection, key: i64) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE exile_log SET due = CASE
             WHEN active IS NOT NULL THEN coalesce(due, 0)
             ELSE (SELECT min(seq) FROM exile_input WHERE log = ?1 AND body IS NOT NULL)
         END WHERE key = ?1",
    )
    .bind(key)
    .execute(connection)
    .await?;
    Ok(())
}

fn to_record(row: &SqliteRow) -> Result<Numbered, StoreError> {
    let version: u32 = row.try_get("version")?;
    if version > VERSION {
        let why = format!("version {version} was written by a newer exile");
        return Err(StoreError::unreadable("record", why));
    }
    Ok(Numbered { number: column::number(row, "number")?, record: column::parsed(row, "body")? })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}
