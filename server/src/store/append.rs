//! Appends, committed together: what many logs write at the same time becomes durable in one
//! transaction, at the price of one.
//!
//! An append is written down by its caller and joins the queue; one task per store takes what has
//! gathered while the disk was busy, and tells each caller what became of its own.
//!
//! Invariants:
//! - An append that is refused (stale epoch, wrong head) leaves the others of its group alone.
//! - If a group fails as a whole (no room, a row that cannot be), each is tried by itself, so that
//!   each fails or succeeds for its own reasons.
//! - A caller that leaves takes nothing back: its append is whole or absent.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use exile_engine::journal::{Batch, BlobId, Consumed, JournalError, Lease, StoredMessage};
use exile_engine::run::record::{Fact, Number, Numbered, VERSION};
use sqlx::{Row as _, SqliteConnection};
use tokio::sync::oneshot;

use super::failpoints::{self, Point};
use super::projection::{self, LogRow};
use super::{Store, StoreError, blobs, codec, messages};

/// Most appends that one transaction holds.
const TOGETHER: usize = 256;

/// Stores the records of the appends whose lease and head are right, and moves those heads; gives
/// their logs as they were.
const MOVE: &str = "
    BEGIN IMMEDIATE;
    UPDATE exile_log AS l
    SET head = (SELECT max(number) FROM exile_record WHERE log = l.key)
    FROM jsonb_each(?1) m
    WHERE l.id = m.value ->> 0
      AND l.head < (SELECT max(number) FROM exile_record WHERE log = l.key);
    INSERT INTO exile_record (log, number, version, snapshot, body)
    SELECT l.key, r.value ->> 4, r.value ->> 5, r.value ->> 6, r.value ->> 7
    FROM jsonb_each(?2) r CROSS JOIN exile_log l
    WHERE l.id = r.value ->> 0 AND l.epoch = r.value ->> 1 AND l.head = r.value ->> 2
      AND l.lease_until IS NOT NULL;
    UPDATE exile_log AS l
    SET head = m.value ->> 3, reserved = max(l.reserved, m.value ->> 4)
    FROM jsonb_each(?1) m
    WHERE l.id = m.value ->> 0 AND l.epoch = m.value ->> 1 AND l.head = m.value ->> 2
      AND l.lease_until IS NOT NULL
    RETURNING id, key, active, parked, wake";

/// The short way, for appends from which nothing follows but their records: one statement, which
/// is a transaction by itself, so one trip to the connection's thread and one changed page to a
/// log. It stores all of them or, if one is not right, none. The row of a log stays as it is: its
/// head is that of its records.
const STORE: &str = "
    WITH good (log, number, version, snapshot, body) AS MATERIALIZED (
        SELECT l.key, r.value ->> 4, r.value ->> 5, r.value ->> 6, r.value ->> 7
        FROM jsonb_each(?1) r CROSS JOIN exile_log l
        WHERE l.id = r.value ->> 0 AND l.epoch = r.value ->> 1 AND l.reserved >= r.value ->> 3
          AND l.lease_until IS NOT NULL AND NOT l.parked
          AND r.value ->> 2 = max(l.head, coalesce(
              (SELECT max(number) FROM exile_record WHERE log = l.key), 0))
    )
    INSERT INTO exile_record (log, number, version, snapshot, body)
    SELECT * FROM good WHERE (SELECT count(*) FROM good) = ?2";

/// Appends that wait for the disk.
#[derive(Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    entries: Vec<Entry>,
    /// A task takes them.
    served: bool,
}

struct Entry {
    append: Append,
    tell: oneshot::Sender<Result<(), JournalError>>,
}

impl Queue {
    /// The lock guards whole entries: nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an append; `true` if nobody takes appends.
    fn add(&self, entry: Entry) -> bool {
        let mut waiting = self.lock();
        waiting.entries.push(entry);
        !std::mem::replace(&mut waiting.served, true)
    }

    /// Takes those that came first, at most one of each log; if there are none, nobody takes
    /// appends from now on.
    fn take(&self) -> Vec<Entry> {
        let mut waiting = self.lock();
        let mut logs = HashSet::new();
        let first = |entry: &mut Entry| {
            logs.len() < TOGETHER && logs.insert(entry.append.lease.log.clone())
        };
        let taken: Vec<Entry> = waiting.entries.extract_if(.., first).collect();
        waiting.served = !taken.is_empty();
        taken
    }
}

/// Serves a queue until it is done. Dropped before that, with its runtime, it tells callers that
/// wait by dropping what they wait for.
struct Service<'q> {
    queue: &'q Queue,
    done: bool,
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        if !self.done {
            *self.queue.lock() = Waiting::default();
        }
    }
}

/// A batch, written down.
struct Append {
    lease: Lease,
    after: Number,
    head: Number,
    /// The log's part of `MOVE`'s first parameter, as JSON.
    moves: String,
    /// Its part of the second.
    rows: Vec<String>,
    records: Vec<Numbered>,
    blobs: Vec<(Number, BlobId, Vec<u8>)>,
    messages: Vec<(Number, StoredMessage)>,
    consumed: Vec<Consumed>,
    at_ms: i64,
    /// [`STORE`] may be all that it needs.
    plain: bool,
}

impl Append {
    fn new(lease: &Lease, batch: &Batch, now_ms: i64) -> Result<Self, JournalError> {
        let head = batch.head(&lease.log)?;
        for number in [lease.epoch, head, batch.reserve] {
            codec::integer(number)?;
        }
        let (log, epoch, after) = (&lease.log, lease.epoch, batch.after);
        let reserve = batch.reserve.max(head);
        let (mut rows, mut blobs) = (Vec::with_capacity(batch.records.len()), Vec::new());
        for Numbered { number, record } in &batch.records {
            let packed = blobs::pack(record)?;
            let snapshot = matches!(record.fact, Fact::Snapshot { .. }).then_some(1);
            let row = (log, epoch, after, reserve, number, VERSION, snapshot, packed.body);
            rows.push(codec::json(&row)?);
            blobs.extend(packed.blobs.into_iter().map(|(id, bytes)| (*number, id, bytes)));
        }
        let plain = !batch.records.is_empty()
            && blobs.is_empty()
            && batch.messages.is_empty()
            && batch.consumed.is_empty()
            && !batch.records.iter().any(|r| projection::turns(&r.record.fact));
        Ok(Self {
            lease: lease.clone(),
            after,
            head,
            moves: codec::json(&(log, epoch, after, head, reserve))?,
            rows,
            records: batch.records.clone(),
            blobs,
            messages: numbered(batch, head),
            consumed: batch.consumed.clone(),
            at_ms: batch.records.last().map_or(now_ms, |last| last.record.at_ms),
            plain,
        })
    }
}

/// The messages of a batch, each with the number of the first record that names it, else the last.
fn numbered(batch: &Batch, head: Number) -> Vec<(Number, StoredMessage)> {
    let number = |id: &str| {
        let names = |r: &&Numbered| r.record.names().contains(&id);
        batch.records.iter().find(names).map_or(head, |record| record.number)
    };
    batch.messages.iter().map(|m| (number(m.message.id.as_str()), m.clone())).collect()
}

impl Store {
    /// Appends together with what else is appended just now.
    pub(super) async fn append_batch(
        &self,
        lease: &Lease,
        batch: &Batch,
    ) -> Result<(), JournalError> {
        let append = Append::new(lease, batch, self.now().as_millisecond())?;
        let (tell, told) = oneshot::channel();
        if self.shared.queue.add(Entry { append, tell }) {
            tokio::spawn(self.clone().serve_appends());
        }
        let gone = || JournalError::Unavailable("the process ends".to_owned());
        let outcome = told.await.unwrap_or_else(|_| Err(gone()));
        failpoints::hit(Point::Acknowledged);
        outcome
    }

    async fn serve_appends(self) {
        let mut service = Service { queue: &self.shared.queue, done: false };
        loop {
            let group = service.queue.take();
            if group.is_empty() {
                // From here on somebody else may serve.
                service.done = true;
                return;
            }
            self.commit_group(group).await;
        }
    }

    /// Commits a group and tells each caller what became of its append.
    async fn commit_group(&self, group: Vec<Entry>) {
        let appends: Vec<&Append> = group.iter().map(|entry| &entry.append).collect();
        let short = !failpoints::inside_appends()
            && self.shared.usage.is_empty()
            && appends.iter().all(|append| append.plain);
        let stored = if short { self.store_appends(&appends).await } else { Ok(false) };
        let outcome = match stored {
            Ok(true) => return tell(group, std::iter::repeat_with(|| Ok(()))),
            // Who has waited for another program once need not do so twice.
            Err(error @ StoreError::Held(_)) => Err(error),
            // What stands in the way of the short way, the long one says.
            Ok(false) | Err(_) => self.commit_appends(&appends).await,
        };
        match outcome {
            Ok(outcomes) => tell(group, outcomes),
            Err(error @ (StoreError::Unavailable(_) | StoreError::Held(_))) => {
                let why = match error {
                    StoreError::Unavailable(why) => why,
                    error => error.to_string(),
                };
                let unavailable = || Err(JournalError::Unavailable(why.clone()));
                tell(group, std::iter::repeat_with(unavailable));
            }
            Err(error) if group.len() == 1 => tell(group, [Err(error.into())]),
            Err(_) => {
                for entry in group {
                    Box::pin(self.commit_group(vec![entry])).await;
                }
            }
        }
    }

    /// Stores plain appends of different logs; `false` if one of them is not right.
    async fn store_appends(&self, appends: &[&Append]) -> Result<bool, StoreError> {
        failpoints::hit(Point::AppendBegin);
        let records: usize = appends.iter().map(|append| append.rows.len()).sum();
        let done = sqlx::query(STORE)
            .bind(list(appends.iter().flat_map(|append| &append.rows)))
            .bind(i64::try_from(records).unwrap_or(i64::MAX))
            .execute(self.write().await?.connection())
            .await?;
        let stored = done.rows_affected() > 0;
        if stored {
            failpoints::hit(Point::CommitAfter);
        }
        Ok(stored)
    }

    /// Commits appends of different logs in one transaction.
    async fn commit_appends(
        &self,
        appends: &[&Append],
    ) -> Result<Vec<Result<(), JournalError>>, StoreError> {
        failpoints::hit(Point::AppendBegin);
        let mut write = self.write().await?;
        let rows = sqlx::query(MOVE)
            .bind(list(appends.iter().map(|a| &a.moves)))
            .bind(list(appends.iter().flat_map(|a| &a.rows)))
            .fetch_all(write.transaction())
            .await?;
        failpoints::hit(Point::AppendHead);
        let mut moved = HashMap::with_capacity(rows.len());
        for row in &rows {
            moved.insert(row.try_get::<&str, _>("id")?, LogRow::of(row)?);
        }
        let mut outcomes = Vec::with_capacity(appends.len());
        for append in appends {
            outcomes.push(match moved.remove(append.lease.log.as_str()) {
                Some(log) => Ok(put(write.connection(), log, append).await?),
                None => Err(refusal(write.connection(), &append.lease, append.after).await?),
            });
        }
        failpoints::hit(Point::AppendRecords);
        if rows.is_empty() {
            write.rollback().await?;
            return Ok(outcomes);
        }
        let usage = self.shared.usage.take();
        usage.put(write.connection()).await?;
        failpoints::hit(Point::CommitBefore);
        write.commit().await?;
        usage.written();
        failpoints::hit(Point::CommitAfter);
        Ok(outcomes)
    }
}

/// Tells each caller what became of its append; one that left does not want to know.
fn tell(group: Vec<Entry>, outcomes: impl IntoIterator<Item = Result<(), JournalError>>) {
    for (entry, outcome) in group.into_iter().zip(outcomes) {
        let _ = entry.tell.send(outcome);
    }
}

/// JSON texts as one list.
fn list<'t>(items: impl Iterator<Item = &'t String>) -> String {
    let mut list = String::from("[");
    for item in items {
        if list.len() > 1 {
            list.push(',');
        }
        list.push_str(item);
    }
    list.push(']');
    list
}

/// Writes what an append holds besides records.
async fn put(
    connection: &mut SqliteConnection,
    mut log: LogRow,
    append: &Append,
) -> Result<(), StoreError> {
    for (number, id, bytes) in &append.blobs {
        put_blob(connection, id, bytes).await?;
        use_blob(connection, log.key, *number, id).await?;
    }
    let mut turned = false;
    for record in &append.records {
        turned |= projection::recorded(&mut *connection, &mut log, record).await?;
    }
    for (number, message) in &append.messages {
        messages::put(&mut *connection, log.key, *number, append.at_ms, message).await?;
    }
    if turned || !append.consumed.is_empty() {
        // What ends in it has ended at the time of its record.
        let at_ms = append.records.first().map_or(append.at_ms, |first| first.record.at_ms);
        log.requeue(connection, &append.consumed, append.head, at_ms).await?;
    }
    Ok(())
}

/// Notes that a record needs a blob.
async fn use_blob(
    connection: &mut SqliteConnection,
    key: i64,
    number: Number,
    id: &BlobId,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO exile_blob_use (log, number, blob) VALUES (?1, ?2, ?3)
         ON CONFLICT DO NOTHING",
    )
    .bind(key)
    .bind(codec::integer(number)?)
    .bind(&*id.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores a blob, unless it is there already.
pub(super) async fn put_blob(
    connection: &mut SqliteConnection,
    id: &BlobId,
    bytes: &[u8],
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO exile_blob (id, body) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
        .bind(&*id.0)
        .bind(bytes)
        .execute(connection)
        .await?;
    Ok(())
}

/// Why a head was not moved.
async fn refusal(
    connection: &mut SqliteConnection,
    lease: &Lease,
    expected: Number,
) -> Result<JournalError, StoreError> {
    let row = sqlx::query(
        "SELECT max(head, coalesce((SELECT max(number) FROM exile_record WHERE log = key), 0))
             AS head
         FROM exile_log WHERE id = ?1 AND epoch = ?2 AND lease_until IS NOT NULL",
    )
    .bind(lease.log.as_str())
    .bind(codec::integer(lease.epoch)?)
    .fetch_optional(connection)
    .await?;
    let log = lease.log.clone();
    Ok(match row {
        None => JournalError::Fenced(log),
        Some(row) => JournalError::Conflict { log, expected, found: codec::number(&row, "head")? },
    })
}
