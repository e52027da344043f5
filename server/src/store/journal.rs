//! The engine's journal on SQLite: what is sent, leases, and blobs.
//!
//! | file | holds |
//! |---|---|
//! | `append.rs` | appends, many logs to a transaction |
//! | `projection.rs` | run rows and log rows made from inputs and records |
//! | `history.rs` | reading records and the messages they name |
//! | `park.rs` | setting a log aside that cannot be read |
//! | `blobs.rs` | large values of records, kept apart |
//! | `failpoints.rs` | places at which a test may end the process |
//!
//! Invariants:
//! - `append` is one transaction; it checks epoch and head with the statement that stores.
//! - A log's head is the number of its last record, or the `head` of its row if that is higher:
//!   the row is brought up to date only with what changes it besides (`append.rs`).
//! - Leases use SQLite's clock, epochs rise with every claim, and a released lease is void.
//! - A log is in the queue (`due`) while it has unread inputs or a run that goes on; its place is
//!   that of the input that brought it there. A log that waits may have a wake-up (`wake`), which
//!   stands until it is given back or goes on.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::id::{InputId, LogId, RunId, UserId, WorkerId};
use exile_engine::journal::{
    Batch, BlobId, ForkRun, History, IfActive, Input, Journal, JournalError, Lease, Place,
    ReleaseInfo, Sent, Verdict,
};
use exile_engine::run::record::{Number, RunError};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::failpoints::{self, Point};
use super::history::Lineage;
use super::projection::Queued;
use super::{Store, StoreError, append, codec, retention};

#[async_trait]
impl Journal for Store {
    async fn find(&self, run: &RunId) -> Result<Option<Place>, JournalError> {
        Ok(self.place_of(run).await?)
    }

    async fn send(&self, log: &LogId, id: &InputId, input: &Input) -> Result<Sent, JournalError> {
        failpoints::hit(Point::SendBefore);
        let sent = self.send_input(log, id, input).await?;
        failpoints::hit(Point::SendAfter);
        failpoints::between().await;
        Ok(sent)
    }

    async fn claim(
        &self,
        worker: &WorkerId,
        lease: Duration,
        but: &[UserId],
    ) -> Result<Option<Lease>, JournalError> {
        let claimed = self.claim_due(worker, lease, but).await?;
        failpoints::hit(Point::ClaimAfter);
        Ok(claimed)
    }

    async fn renew(&self, leases: &[Lease], by: Duration) -> Result<Vec<LogId>, JournalError> {
        Ok(self.prolong(leases, by).await?)
    }

    async fn release(&self, lease: &Lease, rest: &ReleaseInfo) -> Result<(), JournalError> {
        Ok(self.give_back(lease, rest).await?)
    }

    async fn park(&self, lease: &Lease, why: &RunError) -> Result<(), JournalError> {
        let parked = self.park_log(lease, why).await?;
        if parked { Ok(()) } else { Err(JournalError::Fenced(lease.log.clone())) }
    }

    async fn inbox(&self, log: &LogId) -> Result<Vec<(InputId, Input)>, JournalError> {
        Ok(self.unread(log).await?)
    }

    async fn verdict(&self, log: &LogId, id: &InputId) -> Result<Option<Verdict>, JournalError> {
        Ok(self.verdict_on(log, id).await?)
    }

    async fn append(&self, lease: &Lease, batch: &Batch) -> Result<(), JournalError> {
        self.append_batch(lease, batch).await
    }

    async fn load(&self, log: &LogId, at: Option<Number>) -> Result<History, JournalError> {
        Ok(self.load_history(log, at).await?)
    }

    async fn read(&self, log: &LogId, from: Number, limit: usize) -> Result<History, JournalError> {
        Ok(self.read_history(log, from, limit).await?)
    }

    async fn put_blob(&self, bytes: &[u8]) -> Result<BlobId, JournalError> {
        let id = BlobId::of(bytes);
        let now_ms = self.now().as_millisecond();
        // Mostly both are there. Doubt without a blob does no harm, so that no transaction is needed.
        let mut write = self.write().await?;
        retention::doubted(write.connection(), &id, now_ms).await?;
        append::put_blob(write.connection(), &id, bytes).await?;
        failpoints::hit(Point::BlobAfter);
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
            "SELECT l.id, r.first, r.last,
                 iif(r.first IS NULL AND l.parked AND l.due IS NULL, l.active, NULL) AS behind,
                 iif(r.last IS NULL AND r.status IN ('needs_attention', 'cancelled'), r.error, NULL)
                     AS unreadable
             FROM exile_run r JOIN exile_log l ON l.key = r.log
             WHERE r.id = ?1",
        )
        .bind(run.as_str())
        .fetch_optional(self.readers())
        .await?;
        let place = |row: SqliteRow| {
            let log = LogId::from(row.try_get::<&str, _>("id")?);
            let first = codec::maybe_number(&row, "first")?;
            let behind: Option<&str> = row.try_get("behind")?;
            let (last, behind) = (codec::maybe_number(&row, "last")?, behind.map(RunId::from));
            let unreadable = codec::maybe_parsed(&row, "unreadable")?;
            Ok(Place { log, first, last, behind, unreadable })
        };
        row.map(place).transpose()
    }

    async fn send_input(
        &self,
        log: &LogId,
        id: &InputId,
        input: &Input,
    ) -> Result<Sent, JournalError> {
        let mut write = self.write().await?;
        let found = look(write.transaction(), log, id, input).await?;
        let refused = match (&found, input) {
            (Found { known: true, .. }, _) => Some(Ok(Sent::Known)),
            (Found { busy: true, .. }, _) => Some(Ok(Sent::Busy)),
            (Found { purged: true, .. }, _) => Some(Err(JournalError::Purged(log.clone()))),
            (Found { log: Some((_, head)), .. }, Input::Fork(fork)) if fork.log != *log => {
                Some(Err(JournalError::Conflict { log: log.clone(), expected: 0, found: *head }))
            }
            (Found { log: Some(_), .. }, _) | (_, Input::Start(_)) => None,
            (_, Input::Fork(fork)) if fork.log != *log => None,
            _ => Some(Err(JournalError::Gone(format!("log {log}")))),
        };
        if let Some(refused) = refused {
            write.rollback().await?;
            return refused;
        }
        let connection = write.connection();
        let key = match (found.log, input) {
            (Some((key, _)), _) => key,
            (None, Input::Fork(fork)) if fork.log != *log => {
                begin_fork(connection, log, fork).await?
            }
            (None, _) => {
                let owner = input.owner().map(UserId::as_str).unwrap_or_default();
                begin_log(connection, log, owner).await?
            }
        };
        let now_ms = self.now().as_millisecond();
        match input {
            Input::Start(start) => Queued::start(start)?.insert(connection, key, now_ms).await?,
            Input::Fork(fork) => Queued::fork(fork).insert(connection, key, now_ms).await?,
            Input::Cancel { .. }
            | Input::Resume(_)
            | Input::Resolve(_)
            | Input::Edit(_)
            | Input::Migrate { .. } => {}
        }
        enqueue(connection, key, id, input).await?;
        write.commit().await?;
        Ok(Sent::New)
    }

    async fn claim_due(
        &self,
        worker: &WorkerId,
        lease: Duration,
        but: &[UserId],
    ) -> Result<Option<Lease>, StoreError> {
        let mut turn = self.shared.turn.lock().await;
        let row = sqlx::query(
            "WITH RECURSIVE clock (now) AS (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)),
             enough (owner) AS (SELECT value FROM json_each(?4)),
             -- Owners with something to do, up to the first one who does not hold enough.
             later (owner) AS (
                 SELECT min(owner) FROM exile_log
                 WHERE due IS NOT NULL AND lease_until IS NULL AND owner > ?3
                 UNION ALL
                 SELECT (SELECT min(l.owner) FROM exile_log l
                         WHERE l.due IS NOT NULL AND l.lease_until IS NULL
                           AND l.owner > later.owner)
                 FROM later WHERE owner IN enough),
             first (owner) AS (
                 SELECT min(owner) FROM exile_log
                 WHERE due IS NOT NULL AND lease_until IS NULL AND owner >= ''
                 UNION ALL
                 SELECT (SELECT min(l.owner) FROM exile_log l
                         WHERE l.due IS NOT NULL AND l.lease_until IS NULL
                           AND l.owner > first.owner)
                 FROM first WHERE owner IN enough)
             UPDATE exile_log SET epoch = epoch + 1, worker = ?1,
                 lease_until = (SELECT now FROM clock) + ?2
             WHERE key = coalesce(
                 (SELECT key FROM exile_log
                  WHERE due IS NOT NULL AND lease_until <= (SELECT now FROM clock)
                  ORDER BY lease_until LIMIT 1),
                 (SELECT key FROM exile_log
                  WHERE due IS NOT NULL AND lease_until IS NULL
                    AND owner = (SELECT owner FROM later WHERE owner NOT IN enough)
                  ORDER BY due LIMIT 1),
                 (SELECT key FROM exile_log
                  WHERE due IS NOT NULL AND lease_until IS NULL
                    AND owner = (SELECT owner FROM first WHERE owner NOT IN enough)
                  ORDER BY due LIMIT 1),
                 (SELECT key FROM exile_log
                  WHERE wake <= (SELECT now FROM clock)
                    AND (lease_until IS NULL OR lease_until <= (SELECT now FROM clock))
                  ORDER BY wake LIMIT 1))
             RETURNING id, epoch, owner, head, reserved",
        )
        .bind(worker.as_str())
        .bind(millis(lease))
        .bind(turn.as_str())
        .bind(codec::json(&but)?)
        .fetch_optional(self.write().await?.connection())
        .await?;
        let claimed = |row: SqliteRow| {
            row.try_get::<&str, _>("owner")?.clone_into(&mut turn);
            let log = LogId::from(row.try_get::<&str, _>("id")?);
            let owner = Some(turn.as_str()).filter(|owner| !owner.is_empty()).map(UserId::from);
            let number = |name| codec::number(&row, name);
            let (epoch, head, reserved) = (number("epoch")?, number("head")?, number("reserved")?);
            Ok(Lease { log, epoch, owner, head, reserved })
        };
        row.map(claimed).transpose()
    }

    /// Sets when leases lapse, from now on; gives the logs of those that are void.
    async fn prolong(&self, leases: &[Lease], by: Duration) -> Result<Vec<LogId>, StoreError> {
        let named: Vec<(&LogId, u64)> = leases.iter().map(|l| (&l.log, l.epoch)).collect();
        let held: Vec<String> = sqlx::query_scalar(
            "UPDATE exile_log
             SET lease_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?2
             FROM json_each(?1) AS named
             WHERE exile_log.id = named.value ->> 0 AND exile_log.epoch = named.value ->> 1
               AND exile_log.lease_until IS NOT NULL
             RETURNING exile_log.id",
        )
        .bind(codec::json(&named)?)
        .bind(millis(by))
        .fetch_all(self.write().await?.connection())
        .await?;
        let held: HashSet<&str> = held.iter().map(String::as_str).collect();
        let lost = leases.iter().filter(|lease| !held.contains(lease.log.as_str()));
        Ok(lost.map(|lease| lease.log.clone()).collect())
    }

    /// Voids a lease. One that is somebody else's by now is left alone.
    async fn give_back(&self, lease: &Lease, rest: &ReleaseInfo) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE exile_log
             SET lease_until = NULL, worker = NULL, wake = iif(parked, ?3, NULL),
                 due = iif(parked, (
                     SELECT min(i.seq) FROM exile_input i
                     WHERE i.log = exile_log.key AND i.body IS NOT NULL AND i.seq > coalesce(
                         (SELECT s.seq FROM exile_input s
                          WHERE s.log = exile_log.key AND s.id = ?4), 0)), due)
             WHERE id = ?1 AND epoch = ?2 AND lease_until IS NOT NULL",
        )
        .bind(lease.log.as_str())
        .bind(codec::integer(lease.epoch)?)
        .bind(rest.wake_ms)
        .bind(rest.seen.as_ref().map(InputId::as_str))
        .execute(self.write().await?.connection())
        .await?;
        Ok(())
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
            Ok((InputId::from(row.try_get::<&str, _>("id")?), codec::parsed(row, "body")?))
        };
        rows.iter().map(input).collect()
    }

    async fn verdict_on(&self, log: &LogId, id: &InputId) -> Result<Option<Verdict>, StoreError> {
        let row = sqlx::query(
            "SELECT refused FROM exile_input
             WHERE log = (SELECT key FROM exile_log WHERE id = ?1) AND id = ?2 AND body IS NULL",
        )
        .bind(log.as_str())
        .bind(id.as_str())
        .fetch_optional(self.readers())
        .await?;
        let verdict = |row: SqliteRow| {
            let why = codec::maybe_parsed(&row, "refused")?;
            Ok(why.map_or(Verdict::Taken, Verdict::Refused))
        };
        row.map(verdict).transpose()
    }

    async fn blob(&self, id: &BlobId) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query_scalar("SELECT body FROM exile_blob WHERE id = ?1").bind(&*id.0);
        Ok(query.fetch_optional(self.readers()).await?)
    }
}

/// What decides whether an input is taken.
struct Found {
    /// The log's key and head.
    log: Option<(i64, Number)>,
    known: bool,
    busy: bool,
    /// All its records were removed: nothing can go on there.
    purged: bool,
}

/// Begins the transaction and looks at what an input meets.
async fn look(
    connection: &mut SqliteConnection,
    log: &LogId,
    id: &InputId,
    input: &Input,
) -> Result<Found, StoreError> {
    let begins = matches!(input, Input::Start(_) | Input::Fork(_)).then(|| input.run().as_str());
    let rejects = matches!(input, Input::Start(start) if start.if_active == IfActive::Reject);
    let rows = sqlx::query(
        "BEGIN IMMEDIATE;
         SELECT l.key, l.head, l.purged > 0 AND NOT EXISTS (
                 SELECT 1 FROM exile_record WHERE log = l.key) AS purged,
             EXISTS (SELECT 1 FROM exile_input WHERE log = l.key AND id = ?2)
                 OR EXISTS (SELECT 1 FROM exile_run WHERE id = ?3) AS known,
             ?4 AND EXISTS (SELECT 1 FROM exile_run
                            WHERE log = l.key AND ended_at IS NULL) AS busy
         FROM (SELECT 1) LEFT JOIN exile_log l ON l.id = ?1",
    )
    .bind(log.as_str())
    .bind(id.as_str())
    .bind(begins)
    .bind(rejects)
    .fetch_all(connection)
    .await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let key: Option<i64> = row.try_get("key")?;
    let head = codec::maybe_number(row, "head")?;
    let purged: Option<bool> = row.try_get("purged")?;
    Ok(Found {
        log: key.zip(head),
        known: row.try_get("known")?,
        busy: row.try_get("busy")?,
        purged: purged.unwrap_or(false),
    })
}

async fn begin_log(
    connection: &mut SqliteConnection,
    log: &LogId,
    owner: &str,
) -> Result<i64, StoreError> {
    let query =
        sqlx::query_scalar("INSERT INTO exile_log (id, owner) VALUES (?1, ?2) RETURNING key");
    Ok(query.bind(log.as_str()).bind(owner).fetch_one(connection).await?)
}

/// Makes a log that begins with the history of another one; its head is the last record of that.
async fn begin_fork(
    connection: &mut SqliteConnection,
    log: &LogId,
    fork: &ForkRun,
) -> Result<i64, StoreError> {
    let parent = Lineage::of(connection, &fork.log)
        .await?
        .ok_or_else(|| StoreError::Gone(format!("log {} for {log} to be a fork of", fork.log)))?;
    let (records, _) = parent.records(connection, fork.at).await?;
    let head = records.last().map_or(0, |record| record.number);
    let key = sqlx::query_scalar(
        "INSERT INTO exile_log (id, parent, parent_at, head, reserved, owner)
         SELECT ?1, key, ?3, ?3, reserved, ?4 FROM exile_log WHERE key = ?2
         RETURNING key",
    )
    .bind(log.as_str())
    .bind(parent.keys[0])
    .bind(codec::integer(head)?)
    .bind(fork.owner.as_str())
    .fetch_one(connection)
    .await?;
    Ok(key)
}

/// Adds an input, and its log to the queue.
async fn enqueue(
    connection: &mut SqliteConnection,
    key: i64,
    id: &InputId,
    input: &Input,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO exile_input (log, id, body) VALUES (?1, ?2, ?3);
         UPDATE exile_log SET due = coalesce(due, last_insert_rowid()) WHERE key = ?1",
    )
    .bind(key)
    .bind(id.as_str())
    .bind(codec::json(input)?)
    .execute(connection)
    .await?;
    Ok(())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}
