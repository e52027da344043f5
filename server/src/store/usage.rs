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
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::{Store, StoreError, column};

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
        .bind(column::json(&self.rows.iter().map(Columns).collect::<Vec<_>>())?)
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
const MOST: u64 = 1_000_000_000_000;

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

/// Which rows count; `None` admits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// Asked for this user.
    pub owner: Option<UserId>,
    /// With this key.
    pub key: Option<String>,
    /// Of this provider.
    pub provider: Option<String>,
    /// Of these models: `provider/model`, or the beginning of such names and a `*`.
    pub model: Option<String>,
    /// Of this business.
    pub business: Option<String>,
    /// Of runs of this graph.
    pub graph: Option<String>,
    /// Of this run.
    pub run: Option<String>,
    /// Asked at that time or later, in milliseconds.
    pub from_ms: i64,
    /// Asked before that time.
    pub to_ms: i64,
    /// Calls that go on do not count.
    pub closed: bool,
}

/// What rows are put together by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a column or is not")]
pub struct Grouping {
    /// The user.
    pub user: bool,
    /// The key.
    pub key: bool,
    /// The provider.
    pub provider: bool,
    /// `provider/model`.
    pub model: bool,
    /// The business.
    pub business: bool,
    /// The graph.
    pub graph: bool,
    /// The run.
    pub run: bool,
    /// Milliseconds of a slot of time; 0: all of it is one.
    pub slot_ms: i64,
}

/// Rows put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// When the slot begins, in milliseconds.
    pub from_ms: i64,
    /// Name of the user.
    pub user: Option<String>,
    /// Id of the key.
    pub key: Option<String>,
    /// The provider.
    pub provider: Option<String>,
    /// `provider/model`.
    pub model: Option<String>,
    /// The business.
    pub business: Option<String>,
    /// The graph.
    pub graph: Option<String>,
    /// The run.
    pub run: Option<String>,
    /// What costs are counted in.
    pub currency: String,
    /// The figures.
    pub spending: Spending,
}

/// What rows come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spending {
    /// Calls, each counted once, however many models it asked.
    pub requests: u64,
    /// Models that were asked: the rows.
    pub calls: u64,
    /// How often they were asked.
    pub attempts: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Calls that were left.
    pub cancelled: u64,
    /// Calls that ended with the process.
    pub lost: u64,
    /// Calls whose tokens nobody counted.
    pub estimated: u64,
    /// Calls of models without a price.
    pub unpriced: u64,
    /// Tokens.
    pub usage: Usage,
    /// What they cost.
    pub cost: Micros,
    /// All that calls took.
    pub took_ms: u64,
    /// Calls that had a first piece, and all that these took to it.
    pub first: (u64, u64),
}

impl std::ops::AddAssign for Spending {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.calls += other.calls;
        self.attempts += other.attempts;
        self.errors += other.errors;
        self.cancelled += other.cancelled;
        self.lost += other.lost;
        self.estimated += other.estimated;
        self.unpriced += other.unpriced;
        self.usage += other.usage;
        self.cost += other.cost;
        self.took_ms += other.took_ms;
        self.first.0 += other.first.0;
        self.first.1 += other.first.1;
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
        if self.shared.usage.is_empty() {
            return Ok(());
        }
        let mut write = self.write().await?;
        let usage = self.shared.usage.take();
        usage.put(write.connection()).await?;
        usage.written();
        Ok(())
    }

    /// Calls that were open when their process ended.
    pub(super) async fn lose_open_usage(&self) -> Result<(), StoreError> {
        sqlx::query("UPDATE exile_usage SET outcome = 'lost' WHERE outcome = 'open'")
            .execute(self.write().await?.connection())
            .await?;
        Ok(())
    }

    /// Removes rows of calls before that time; gives how many.
    pub async fn purge_usage(&self, before: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM exile_usage WHERE at < ?1")
            .bind(before.as_millisecond())
            .execute(self.write().await?.connection())
            .await?;
        Ok(done.rows_affected())
    }

    /// What was spent, of all rows that are written.
    pub async fn usage(&self, filter: &UsageFilter, by: Grouping) -> Result<Vec<Slot>, StoreError> {
        let UsageFilter { owner, key, provider, model, business, graph, run, .. } = filter;
        let rows = sqlx::query(
            "SELECT iif(?1 > 0, u.at / max(?1, 1) * ?1, ?17) AS slot,
                    iif(?2, coalesce((SELECT name FROM exile_user WHERE id = u.owner), u.owner),
                        NULL) AS user_name,
                    iif(?3, u.key, NULL) AS by_key, iif(?4 OR ?5, u.provider, NULL) AS by_provider,
                    iif(?5, u.provider || '/' || u.model, NULL) AS by_model,
                    iif(?6, u.business, NULL) AS by_business, iif(?7, u.graph, NULL) AS by_graph,
                    iif(?8, u.run, NULL) AS by_run, u.currency,
                    sum(u.last) AS requests, count(*) AS calls, sum(u.attempts) AS attempts,
                    sum(u.outcome NOT IN ('ok', 'cancelled', 'open', 'lost')) AS errors,
                    sum(u.outcome = 'cancelled') AS cancelled, sum(u.outcome = 'lost') AS lost,
                    sum(u.estimated) AS estimated, sum(u.cost IS NULL) AS unpriced,
                    sum(u.input_tokens) AS input_tokens, sum(u.cached_tokens) AS cached_tokens,
                    sum(u.written_tokens) AS written_tokens,
                    sum(u.output_tokens) AS output_tokens,
                    sum(u.reasoning_tokens) AS reasoning_tokens,
                    coalesce(sum(u.cost), 0) AS cost, sum(u.took_ms) AS took_ms,
                    count(u.first_ms) AS firsts, coalesce(sum(u.first_ms), 0) AS first_ms
             FROM exile_usage u
             WHERE u.at >= ?17 AND u.at < ?18 AND (NOT ?19 OR u.outcome <> 'open')
               AND (?9 IS NULL OR u.owner = ?9) AND (?10 IS NULL OR u.key = ?10)
               AND (?11 IS NULL OR u.provider = ?11)
               AND (?12 IS NULL OR u.provider || '/' || u.model = ?12)
               AND (?13 IS NULL OR substr(u.provider || '/' || u.model, 1, length(?13)) = ?13)
               AND (?14 IS NULL OR u.business = ?14) AND (?15 IS NULL OR u.graph = ?15)
               AND (?16 IS NULL OR u.run = ?16)
             GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
             ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9",
        )
        .bind(by.slot_ms)
        .bind(by.user)
        .bind(by.key)
        .bind(by.provider)
        .bind(by.model)
        .bind(by.business)
        .bind(by.graph)
        .bind(by.run)
        .bind(owner.as_ref().map(UserId::as_str))
        .bind(key)
        .bind(provider)
        .bind(model.as_ref().filter(|model| !model.ends_with('*')))
        .bind(model.as_ref().and_then(|model| model.strip_suffix('*')))
        .bind(business)
        .bind(graph)
        .bind(run)
        .bind(filter.from_ms)
        .bind(filter.to_ms)
        .bind(filter.closed)
        .fetch_all(self.readers())
        .await?;
        rows.iter().map(slot).collect()
    }
}

fn slot(row: &SqliteRow) -> Result<Slot, StoreError> {
    let number = |name| column::number(row, name);
    Ok(Slot {
        from_ms: row.try_get("slot")?,
        user: row.try_get("user_name")?,
        key: row.try_get("by_key")?,
        provider: row.try_get("by_provider")?,
        model: row.try_get("by_model")?,
        business: row.try_get("by_business")?,
        graph: row.try_get("by_graph")?,
        run: row.try_get("by_run")?,
        currency: row.try_get("currency")?,
        spending: Spending {
            requests: number("requests")?,
            calls: number("calls")?,
            attempts: number("attempts")?,
            errors: number("errors")?,
            cancelled: number("cancelled")?,
            lost: number("lost")?,
            estimated: number("estimated")?,
            unpriced: number("unpriced")?,
            usage: Usage {
                input: number("input_tokens")?,
                cached: number("cached_tokens")?,
                written: number("written_tokens")?,
                output: number("output_tokens")?,
                reasoning: number("reasoning_tokens")?,
            },
            cost: number("cost")?,
            took_ms: number("took_ms")?,
            first: (number("firsts")?, number("first_ms")?),
        },
    })
}
