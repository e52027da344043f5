//! What calls to models took, one row for each model that a call asked.
//!
//! Invariants:
//! - Rows wait in memory for whichever comes first: the next append, which takes them along, or
//!   [`Store::flush_usage`]. What could not be written waits on.
//! - A row is known by its id: written again, it replaces itself.
//! - A row that is `open` when the file is opened is of a call that ended with its process: it is
//!   `lost`, and counts as what was reserved for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use exile_engine::id::{RunId, UserId};
use exile_engine::model::Usage;
use exile_engine::model::price::Micros;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use sqlx::SqliteConnection;

use super::{Store, StoreError, codec, spent};

/// One model that a call asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Its id.
    pub id: String,
    /// When it was asked first, in milliseconds since 1970.
    pub at_ms: i64,
    /// Who it was asked for.
    pub owner: UserId,
    /// Id of the key that it was asked with.
    pub key: Option<String>,
    /// Before the slash.
    pub provider: String,
    /// After it.
    pub model: String,
    /// The business that it belongs to.
    pub business: Option<String>,
    /// The graph of its run.
    pub graph: Option<String>,
    /// Its run.
    pub run: Option<RunId>,
    /// Tokens of all attempts.
    pub usage: Usage,
    /// What they cost; `None`: no price is known.
    pub cost: Option<Micros>,
    /// What that is counted in.
    pub currency: String,
    /// How long its attempts took.
    pub took_ms: u64,
    /// To the first piece of the last attempt.
    pub first_ms: Option<u64>,
    /// How often it was asked.
    pub attempts: u32,
    /// [`OK`], [`CANCELLED`], [`OPEN`], `lost` or a fault's code.
    pub outcome: String,
    /// Nobody counted the tokens.
    pub estimated: bool,
    /// No other model was asked after it.
    pub last: bool,
}

/// It answered.
pub const OK: &str = "ok";
/// Whoever asked has left.
pub const CANCELLED: &str = "cancelled";
/// It goes on: the row counts what is reserved for it.
pub const OPEN: &str = "open";

/// Rows that are not written yet.
#[derive(Default)]
pub(super) struct Pending(Mutex<Vec<UsageRow>>);

impl Pending {
    /// The lock guards whole rows: nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, Vec<UsageRow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(super) fn take(&self) -> Taken<'_> {
        Taken { rows: std::mem::take(&mut *self.lock()), back: self }
    }
}

/// Rows that are being written; dropped before they are, they go back.
pub(super) struct Taken<'p> {
    rows: Vec<UsageRow>,
    back: &'p Pending,
}

impl Taken<'_> {
    /// Writes them inside the caller's transaction.
    pub(super) async fn put(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        spent::add(&mut *connection, &self.rows).await?;
        sqlx::query(
            "INSERT INTO exile_usage
                 (id, at, owner, key, provider, model, business, graph, run, input_tokens,
                  cached_tokens, written_tokens, output_tokens, reasoning_tokens, cost, currency,
                  took_ms, first_ms, attempts, outcome, estimated, last)
             SELECT r.value ->> '$[0][0]', r.value ->> '$[0][1]', r.value ->> '$[0][2]',
                    r.value ->> '$[0][3]', r.value ->> '$[0][4]', r.value ->> '$[0][5]',
                    r.value ->> '$[1][0]', r.value ->> '$[1][1]', r.value ->> '$[1][2]',
                    r.value ->> '$[2][0]', r.value ->> '$[2][1]', r.value ->> '$[2][2]',
                    r.value ->> '$[2][3]', r.value ->> '$[2][4]', r.value ->> '$[3][0]',
                    r.value ->> '$[3][1]', r.value ->> '$[3][2]', r.value ->> '$[3][3]',
                    r.value ->> '$[3][4]', r.value ->> '$[4][0]', r.value ->> '$[4][1]',
                    r.value ->> '$[4][2]'
             FROM jsonb_each(?1) r WHERE true
             ON CONFLICT (id) DO UPDATE SET
                 input_tokens = excluded.input_tokens, cached_tokens = excluded.cached_tokens,
                 written_tokens = excluded.written_tokens, output_tokens = excluded.output_tokens,
                 reasoning_tokens = excluded.reasoning_tokens, cost = excluded.cost,
                 took_ms = excluded.took_ms, first_ms = excluded.first_ms,
                 attempts = excluded.attempts, outcome = excluded.outcome,
                 estimated = excluded.estimated, last = excluded.last",
        )
        .bind(codec::json(&self.rows.iter().map(Columns).collect::<Vec<_>>())?)
        .execute(connection)
        .await?;
        Ok(())
    }

    /// They are durable.
    pub(super) fn written(mut self) {
        self.rows.clear();
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.rows.is_empty() {
            let mut pending = self.back.lock();
            // In front of what has come since, which may be newer rows of the same ids.
            self.rows.append(&mut pending);
            std::mem::swap(&mut *pending, &mut self.rows);
        }
    }
}

/// The most that a column holds: what a provider counts is not to be believed without end, and a
/// row that cannot be written would stand in the way of every other one.
pub(super) const MOST: u64 = Usage::CALL_MOST;

/// A row's columns as JSON, in the order in which they are inserted.
struct Columns<'r>(&'r UsageRow);

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = self.0;
        let Usage { input, cached, written, output, reasoning } = row.usage;
        let bounded = |count: u64| count.min(MOST);
        let maybe = |count: Option<u64>| count.map(bounded);
        let whose = (&row.id, row.at_ms, &row.owner, &row.key, &row.provider, &row.model);
        let of = (&row.business, &row.graph, &row.run);
        let tokens = [input, cached, written, output, reasoning].map(bounded);
        let cost = (
            maybe(row.cost),
            &row.currency,
            bounded(row.took_ms),
            maybe(row.first_ms),
            row.attempts,
        );
        let end = (&row.outcome, i32::from(row.estimated), i32::from(row.last));
        (whose, of, tokens, cost, end).serialize(serializer)
    }
}

impl Store {
    /// Writes a row soon: with the next append, or when it is flushed.
    pub fn note_usage(&self, row: UsageRow) {
        self.shared.usage.lock().push(row);
    }

    /// How many rows wait to be written.
    #[must_use]
    pub fn waiting_usage(&self) -> usize {
        self.shared.usage.lock().len()
    }

    /// Writes every row that waits.
    pub async fn flush_usage(&self) -> Result<(), StoreError> {
        // Rows that are being written just now are not seen here, and done once the lock is ours.
        let mut write = self.begin().await?;
        if self.shared.usage.is_empty() {
            return write.rollback().await;
        }
        let usage = self.shared.usage.take();
        usage.put(write.connection()).await?;
        write.commit().await?;
        usage.written();
        Ok(())
    }

    /// Removes at most so many rows of calls before that time; gives how many.
    pub async fn purge_usage(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM exile_usage WHERE seq IN (
                 SELECT seq FROM exile_usage WHERE at < ?1 ORDER BY at LIMIT ?2)",
        )
        .bind(before.as_millisecond())
        .bind(limit)
        .execute(self.write().await?.connection())
        .await?;
        Ok(done.rows_affected())
    }
}
