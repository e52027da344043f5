//! What was spent by whom: sums of usage rows, by user, key, business and model, and by stretch of
//! time. A quota's counter begins with them.
//!
//! Invariants:
//! - A sum is written in the transaction of the rows that it is of.
//! - A call is in the sums once it is over, once, however often its row is written.
//! - Stretches are as long as windows of every time zone are made of: a minute, or a quarter of an
//!   hour.

use std::collections::{BTreeMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use sqlx::SqliteConnection;

use super::usage::{OPEN, UsageRow};
use super::{Store, StoreError, codec};

/// Stretches of which windows of minutes are made.
pub const MINUTE_MS: i64 = 60_000;
/// Stretches of which days and months are made.
pub const QUARTER_MS: i64 = 15 * MINUTE_MS;

/// How long stretches are of use: longer than any window of theirs.
const KEPT: [(i64, SignedDuration); 2] =
    [(MINUTE_MS, SignedDuration::from_hours(2)), (QUARTER_MS, SignedDuration::from_hours(24 * 62))];

/// Where sums end, so that adding to them is always possible.
const MOST: u64 = 1_000_000_000_000_000_000;

/// Who spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spender<'s> {
    /// The user of that id.
    User(&'s str),
    /// The key of that id.
    Key(&'s str),
    /// The business of that name.
    Business(&'s str),
    /// The models of that name, or whose names begin so, before a `*`.
    Models(&'s str),
}

/// What was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Calls, each counted once, however many models it asked.
    pub requests: u64,
    /// Models that were asked.
    pub calls: u64,
    /// Tokens of requests and answers.
    pub tokens: u64,
    /// What they cost, in millionths.
    pub cost: u64,
}

impl Spent {
    fn of(row: &UsageRow) -> Self {
        Self {
            requests: u64::from(row.last),
            calls: 1,
            tokens: bounded(row.usage.input).saturating_add(bounded(row.usage.output)),
            cost: bounded(row.cost.unwrap_or(0)),
        }
    }

    fn add(&mut self, other: Self) {
        let add = |a: &mut u64, b: u64| *a = a.saturating_add(b).min(MOST);
        add(&mut self.requests, other.requests);
        add(&mut self.calls, other.calls);
        add(&mut self.tokens, other.tokens);
        add(&mut self.cost, other.cost);
    }
}

/// A count as its row holds it.
fn bounded(count: u64) -> u64 {
    count.min(super::usage::MOST)
}

/// Adds rows that are about to be written to the sums, in the same transaction, as far as they are
/// of calls that are over and were not before.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    rows: &[UsageRow],
) -> Result<(), StoreError> {
    let over: Vec<&UsageRow> = rows.iter().filter(|row| row.outcome != OPEN).collect();
    if over.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = over.iter().map(|row| row.id.as_str()).collect();
    let known: Vec<String> = sqlx::query_scalar(
        "SELECT u.id FROM json_each(?1) i CROSS JOIN exile_usage u ON u.id = i.value
         WHERE u.outcome <> 'open'",
    )
    .bind(codec::json(&ids)?)
    .fetch_all(&mut *connection)
    .await?;
    let mut seen: HashSet<&str> = known.iter().map(String::as_str).collect();
    let mut sums: BTreeMap<_, Spent> = BTreeMap::new();
    for row in over.into_iter().filter(|row| seen.insert(&row.id)) {
        let model = format!("{}/{}", row.provider, row.model);
        let subjects = [
            ("user", Some(row.owner.to_string())),
            ("key", row.key.clone()),
            ("business", row.business.clone()),
            ("model", Some(model)),
        ];
        for (kind, subject) in subjects {
            let Some(subject) = subject else { continue };
            for slot_ms in [MINUTE_MS, QUARTER_MS] {
                let from_ms = row.at_ms.div_euclid(slot_ms) * slot_ms;
                let key = (kind, subject.clone(), slot_ms, from_ms, row.currency.clone());
                sums.entry(key).or_default().add(Spent::of(row));
            }
        }
    }
    let sums: Vec<_> = sums
        .into_iter()
        .map(|(key, Spent { requests, calls, tokens, cost })| (key, requests, calls, tokens, cost))
        .collect();
    if sums.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO exile_spent
             (kind, subject, slot_ms, from_ms, currency, requests, calls, tokens, cost)
         SELECT s.value ->> '$[0][0]', s.value ->> '$[0][1]', s.value ->> '$[0][2]',
                s.value ->> '$[0][3]', s.value ->> '$[0][4]', s.value ->> 1, s.value ->> 2,
                s.value ->> 3, s.value ->> 4
         FROM jsonb_each(?1) s WHERE true
         ON CONFLICT DO UPDATE SET
             requests = min(requests + excluded.requests, ?2),
             calls = min(calls + excluded.calls, ?2), tokens = min(tokens + excluded.tokens, ?2),
             cost = min(cost + excluded.cost, ?2)",
    )
    .bind(codec::json(&sums)?)
    .bind(codec::integer(MOST)?)
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// What somebody spent from one time up to another one, both of which begin stretches of that
    /// length ([`MINUTE_MS`] or [`QUARTER_MS`]). `currency`: what costs are counted in; others do
    /// not count.
    pub async fn spent(
        &self,
        spender: Spender<'_>,
        (slot_ms, from_ms, to_ms): (i64, i64, i64),
        currency: &str,
    ) -> Result<Spent, StoreError> {
        let one = "SELECT coalesce(sum(requests), 0), coalesce(sum(calls), 0),
                coalesce(sum(tokens), 0), coalesce(sum(iif(currency = ?6, cost, 0)), 0)
             FROM exile_spent
             WHERE kind = ?1 AND subject = ?2 AND slot_ms = ?3 AND from_ms >= ?4 AND from_ms < ?5";
        // Each name that begins so is looked up by itself: what lies in between is passed over.
        let many = "WITH RECURSIVE named (subject) AS (
                 SELECT min(subject) FROM exile_spent
                 WHERE kind = ?1 AND subject >= ?2 AND subject < ?7
                 UNION ALL
                 SELECT (SELECT min(s.subject) FROM exile_spent s
                         WHERE s.kind = ?1 AND s.subject > named.subject AND s.subject < ?7)
                 FROM named WHERE named.subject IS NOT NULL
             )
             SELECT coalesce(sum(s.requests), 0), coalesce(sum(s.calls), 0),
                coalesce(sum(s.tokens), 0), coalesce(sum(iif(s.currency = ?6, s.cost, 0)), 0)
             FROM named CROSS JOIN exile_spent s
             WHERE s.kind = ?1 AND s.subject = named.subject AND s.slot_ms = ?3
               AND s.from_ms >= ?4 AND s.from_ms < ?5";
        let (kind, subject) = match spender {
            Spender::User(id) => ("user", id),
            Spender::Key(id) => ("key", id),
            Spender::Business(name) => ("business", name),
            Spender::Models(pattern) => ("model", pattern),
        };
        let beginning = subject.strip_suffix('*').filter(|_| kind == "model");
        let text = if beginning.is_some() { many } else { one };
        let (requests, calls, tokens, cost): (i64, i64, i64, i64) = sqlx::query_as(text)
            .bind(kind)
            .bind(beginning.unwrap_or(subject))
            .bind(slot_ms)
            .bind(from_ms)
            .bind(to_ms)
            .bind(currency)
            .bind(beginning.map(|beginning| format!("{beginning}{}", char::MAX)))
            .fetch_one(self.readers())
            .await?;
        let count = |sum: i64| u64::try_from(sum).unwrap_or(0);
        let (requests, calls) = (count(requests), count(calls));
        Ok(Spent { requests, calls, tokens: count(tokens), cost: count(cost) })
    }

    /// The latest time that any call has in the rows, in milliseconds; 0 if there is none.
    pub async fn latest_spent_ms(&self) -> Result<i64, StoreError> {
        let latest: Option<i64> = sqlx::query_scalar(
            "SELECT max(coalesce((SELECT max(at) FROM exile_usage), 0),
                        coalesce((SELECT max(from_ms) FROM exile_spent WHERE slot_ms = 60000), 0),
                        coalesce((SELECT max(from_ms) FROM exile_spent WHERE slot_ms = 900000), 0))",
        )
        .fetch_one(self.readers())
        .await?;
        Ok(latest.unwrap_or(0))
    }

    /// Calls that were open when their process ended count as what was reserved for them.
    pub(super) async fn lose_open_usage(&self) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        sqlx::query(
            "INSERT INTO exile_spent
                 (kind, subject, slot_ms, from_ms, currency, requests, calls, tokens, cost)
             SELECT k.column1,
                    CASE k.column1 WHEN 'user' THEN u.owner WHEN 'key' THEN u.key
                         WHEN 'business' THEN u.business ELSE u.provider || '/' || u.model END
                        AS name,
                    t.column1, u.at / t.column1 * t.column1, u.currency, sum(u.last), count(*),
                    sum(u.input_tokens + u.output_tokens), sum(coalesce(u.cost, 0))
             FROM exile_usage u
             CROSS JOIN (VALUES ('user'), ('key'), ('business'), ('model')) k
             CROSS JOIN (VALUES (60000), (900000)) t
             WHERE u.outcome = 'open' AND name IS NOT NULL
             GROUP BY 1, 2, 3, 4, 5
             ON CONFLICT DO UPDATE SET
                 requests = min(requests + excluded.requests, ?1),
                 calls = min(calls + excluded.calls, ?1),
                 tokens = min(tokens + excluded.tokens, ?1),
                 cost = min(cost + excluded.cost, ?1);
             UPDATE exile_usage SET outcome = 'lost' WHERE outcome = 'open'",
        )
        .bind(codec::integer(MOST)?)
        .execute(write.connection())
        .await?;
        write.commit().await
    }

    /// Removes at most so many stretches that are of no use to any window any more; `true`: there
    /// may be more.
    pub async fn purge_spent(&self, now: Timestamp, limit: u32) -> Result<bool, StoreError> {
        let mut removed = 0;
        for (slot_ms, kept) in KEPT {
            let done = sqlx::query(
                "DELETE FROM exile_spent WHERE (kind, subject, slot_ms, from_ms, currency) IN (
                     SELECT kind, subject, slot_ms, from_ms, currency FROM exile_spent
                     WHERE slot_ms = ?1 AND from_ms < ?2 LIMIT ?3)",
            )
            .bind(slot_ms)
            .bind((now - kept).as_millisecond())
            .bind(limit)
            .execute(self.write().await?.connection())
            .await?;
            removed += done.rows_affected();
        }
        Ok(removed >= u64::from(limit))
    }
}
