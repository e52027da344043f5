//! What calls took, put together: by whom and what for, over a stretch of time.
//!
//! Invariants:
//! - A list of groups is given in pages: it is as long as what was asked is manifold.
//! - Groups come in the order of what they are put together by, each once.

use exile_engine::id::UserId;
use exile_engine::model::Usage;
use exile_engine::model::price::Micros;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, codec};

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
}

/// What the rows of a group have in common, in the order in which groups come: the user's name, the
/// key's id, provider, `provider/model`, business, graph, run, and the currency of costs. Empty: it
/// is not put together by that, or the rows have none.
pub type GroupKey = [String; 8];

/// Rows put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// What they have in common.
    pub key: GroupKey,
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

/// The figures of a group.
macro_rules! figures {
    () => {
        "sum(u.last) AS requests, count(*) AS calls, sum(u.attempts) AS attempts,
         sum(u.outcome NOT IN ('ok', 'cancelled', 'open', 'lost')) AS errors,
         sum(u.outcome = 'cancelled') AS cancelled, sum(u.outcome = 'lost') AS lost,
         sum(u.estimated) AS estimated, sum(u.cost IS NULL) AS unpriced,
         sum(u.input_tokens) AS input_tokens, sum(u.cached_tokens) AS cached_tokens,
         sum(u.written_tokens) AS written_tokens, sum(u.output_tokens) AS output_tokens,
         sum(u.reasoning_tokens) AS reasoning_tokens, coalesce(sum(u.cost), 0) AS cost,
         sum(u.took_ms) AS took_ms, count(u.first_ms) AS firsts,
         coalesce(sum(u.first_ms), 0) AS first_ms"
    };
}

/// What groups are made by: flags from ?1 on say which of it.
macro_rules! groups {
    () => {
        "iif(?1, coalesce((SELECT name FROM exile_user WHERE id = u.owner), u.owner), '') AS k0,
         iif(?2, coalesce(u.key, ''), '') AS k1, iif(?3, u.provider, '') AS k2,
         iif(?4, u.provider || '/' || u.model, '') AS k3,
         iif(?5, coalesce(u.business, ''), '') AS k4, iif(?6, coalesce(u.graph, ''), '') AS k5,
         iif(?7, coalesce(u.run, ''), '') AS k6, u.currency AS k7, "
    };
}

/// What else is asked of rows within a stretch of time, which none of them need meet to be found.
macro_rules! wanted {
    () => {
        "(?11 IS NULL OR u.key = ?11) AND (?12 IS NULL OR u.provider = ?12)
         AND (?13 IS NULL OR u.provider || '/' || u.model = ?13)
         AND (?14 IS NULL OR substr(u.provider || '/' || u.model, 1, length(?14)) = ?14)
         AND (?15 IS NULL OR u.business = ?15) AND (?16 IS NULL OR u.graph = ?16)
         AND (?17 IS NULL OR u.run = ?17)"
    };
}

/// The groups beyond one, in their order.
macro_rules! beyond {
    () => {
        " AND (?18 IS NULL OR (k0, k1, k2, k3, k4, k5, k6, k7)
                              > (?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25))
         GROUP BY k0, k1, k2, k3, k4, k5, k6, k7
         ORDER BY k0, k1, k2, k3, k4, k5, k6, k7 LIMIT ?26"
    };
}

const OF_ALL: &str = concat!(
    "SELECT ",
    groups!(),
    figures!(),
    " FROM exile_usage u WHERE u.at >= ?8 AND u.at < ?9 AND ",
    wanted!(),
    beyond!()
);

const OF_OWNER: &str = concat!(
    "SELECT ",
    groups!(),
    figures!(),
    " FROM exile_usage u WHERE u.owner = ?10 AND u.at >= ?8 AND u.at < ?9 AND ",
    wanted!(),
    beyond!()
);

const FIRST_OF_ALL: &str = concat!(
    "SELECT u.at FROM exile_usage u WHERE u.at >= ?8 AND u.at < ?9 AND ",
    wanted!(),
    " ORDER BY u.at LIMIT 1"
);

const FIRST_OF_OWNER: &str = concat!(
    "SELECT u.at FROM exile_usage u WHERE u.owner = ?10 AND u.at >= ?8 AND u.at < ?9 AND ",
    wanted!(),
    " ORDER BY u.at LIMIT 1"
);

impl Store {
    /// What was spent, of all rows that are written: at most `limit` groups beyond `after`.
    pub async fn usage(
        &self,
        filter: &UsageFilter,
        by: Grouping,
        after: Option<&GroupKey>,
        limit: u32,
    ) -> Result<Vec<Group>, StoreError> {
        let text = if filter.owner.is_some() { OF_OWNER } else { OF_ALL };
        let mut query = filtered(text, filter, by);
        for n in 0..8 {
            query = query.bind(after.map(|key| key[n].clone()));
        }
        let rows = query.bind(limit).fetch_all(self.readers()).await?;
        rows.iter().map(group).collect()
    }

    /// When the first of those rows was asked, in milliseconds; `None`: there is none.
    pub async fn first_usage(&self, filter: &UsageFilter) -> Result<Option<i64>, StoreError> {
        let text = if filter.owner.is_some() { FIRST_OF_OWNER } else { FIRST_OF_ALL };
        let row =
            filtered(text, filter, Grouping::default()).fetch_optional(self.readers()).await?;
        Ok(row.map(|row| row.try_get("at")).transpose()?)
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// A query with its parameters up to ?17.
fn filtered(text: &'static str, filter: &UsageFilter, by: Grouping) -> Query<'static> {
    let UsageFilter { owner, key, provider, model, business, graph, run, from_ms, to_ms } =
        filter.clone();
    let beginning = model.as_ref().and_then(|model| model.strip_suffix('*')).map(str::to_owned);
    let model = model.filter(|_| beginning.is_none());
    sqlx::query(text)
        .bind(by.user)
        .bind(by.key)
        .bind(by.provider || by.model)
        .bind(by.model)
        .bind(by.business)
        .bind(by.graph)
        .bind(by.run)
        .bind(from_ms)
        .bind(to_ms)
        .bind(owner.map(|owner| owner.to_string()))
        .bind(key)
        .bind(provider)
        .bind(model)
        .bind(beginning)
        .bind(business)
        .bind(graph)
        .bind(run)
}

fn group(row: &SqliteRow) -> Result<Group, StoreError> {
    let number = |name| codec::number(row, name);
    let mut key = GroupKey::default();
    for (n, part) in key.iter_mut().enumerate() {
        *part = row.try_get(n)?;
    }
    Ok(Group {
        key,
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
