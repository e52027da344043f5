//! `/api/usage`: what was asked of models, by whom, and what it cost.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use exile_engine::model::price::Micros;
use jiff::civil::Date;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::extract::Query;
use crate::http::problem::Problem;
use crate::store::{Group, GroupKey, Grouping, Spending, UsageFilter};
use crate::usage::Every;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(usage))
}

/// What usage is put together by.
const BY: [&str; 7] = ["user", "key", "provider", "model", "business", "graph", "run"];

/// Which usage, and put together by what.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UsageQuery {
    /// Any of `user`, `key`, `provider`, `model`, `business`, `graph` and `run`, with commas in
    /// between; all of it together if nothing is said.
    by: Option<String>,
    /// `minute`, `hour`, `day` or `month`, in the configured time zone; all of the time together if
    /// nothing is said.
    every: Option<String>,
    /// A day or a time: from then on. The first of this month if nothing is said.
    from: Option<String>,
    /// A day or a time: before then. Until now if nothing is said.
    to: Option<String>,
    /// A user's name, for administrators; theirs is everybody's if nothing is said.
    user: Option<String>,
    /// A key's id.
    key: Option<String>,
    /// A provider.
    provider: Option<String>,
    /// `provider/model`, or the beginning of such names and a `*`.
    model: Option<String>,
    /// A business.
    business: Option<String>,
    /// A graph.
    graph: Option<String>,
    /// A run.
    run: Option<String>,
    /// `next` of the page before, with all other parameters as they were.
    after: Option<String>,
    /// Items, 1 to 1000; 500 if nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Usage.
#[derive(Serialize, ToSchema)]
struct UsageReport {
    /// From then on.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// Before then.
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// By time, then by what it was put together by.
    items: Vec<UsageItem>,
    /// The cursor of the next page; null on the last one.
    next: Option<String>,
}

/// Calls put together.
#[derive(Serialize, ToSchema)]
struct UsageItem {
    /// When its minute, hour, day or month begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// A user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// A key's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// A provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    /// `provider/model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// A business.
    #[serde(skip_serializing_if = "Option::is_none")]
    business: Option<String>,
    /// A graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    graph: Option<String>,
    /// A run.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    #[serde(flatten)]
    figures: Figures,
}

/// What calls come to.
#[derive(Serialize, ToSchema)]
struct Figures {
    /// Calls, each counted once, however many models it asked. Of a call that fell back, only the
    /// last model's row counts here.
    requests: u64,
    /// Models that were asked.
    calls: u64,
    /// How often they were asked, retries included.
    attempts: u64,
    /// Calls that failed.
    errors: u64,
    /// `errors` of `calls`, from 0 to 1.
    error_rate: f64,
    /// Calls whose caller left.
    cancelled: u64,
    /// Calls that ended with the process; they count as what was reserved for them.
    lost: u64,
    /// Calls whose tokens are estimated, because nobody counted them.
    estimated: u64,
    /// Calls of models whose price is not known; they are not in `cost`.
    unpriced: u64,
    /// Tokens of requests, cached ones included.
    input_tokens: u64,
    /// Of these, read from the provider's cache.
    cached_tokens: u64,
    /// Of these, written to the provider's cache.
    written_tokens: u64,
    /// Tokens of answers, reasoning included.
    output_tokens: u64,
    /// Of these, spent on reasoning.
    reasoning_tokens: u64,
    /// What they cost, exact to a millionth.
    cost: f64,
    /// What that is counted in.
    currency: String,
    /// Milliseconds that a call took, on average, all its attempts together.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<u64>,
    /// Milliseconds to the first piece of an answer, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_token_ms: Option<u64>,
}

impl Figures {
    #[allow(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
    fn of(spending: Spending, currency: String) -> Self {
        let Spending { requests, calls, attempts, errors, cancelled, lost, .. } = spending;
        let usage = spending.usage;
        let (firsts, first_ms) = spending.first;
        Self {
            requests,
            calls,
            attempts,
            errors,
            error_rate: if calls == 0 { 0.0 } else { errors as f64 / calls as f64 },
            cancelled,
            lost,
            estimated: spending.estimated,
            unpriced: spending.unpriced,
            input_tokens: usage.input,
            cached_tokens: usage.cached,
            written_tokens: usage.written,
            output_tokens: usage.output,
            reasoning_tokens: usage.reasoning,
            cost: money(spending.cost),
            currency,
            latency_ms: spending.took_ms.checked_div(calls),
            first_token_ms: first_ms.checked_div(firsts),
        }
    }
}

/// Millionths as a number that is printed with the same digits, up to nine billion units.
#[allow(clippy::cast_precision_loss, reason = "see above")]
fn money(micros: Micros) -> f64 {
    micros as f64 / 1e6
}

/// What calls to models took: tokens, money, time, failures. Administrators see everybody's,
/// others their own.
#[utoipa::path(
    get, path = "/api/usage", tag = "usage",
    params(UsageQuery),
    responses((status = 200, body = UsageReport)),
)]
async fn usage(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<UsageQuery>,
) -> Result<Json<UsageReport>, Problem> {
    let every = every(query.every.as_deref())?;
    let by = grouping(query.by.as_deref())?;
    let now = app.usage.now().to_zoned(app.usage.zone().clone());
    let from = match &query.from {
        Some(text) => time("from", text, &now)?,
        None => Every::Month.begin(now.timestamp(), app.usage.zone()),
    };
    let to = match &query.to {
        Some(text) => time("to", text, &now)?,
        None => now.timestamp(),
    };
    let owner = match query.user {
        Some(name) if name == caller.user.name => Some(caller.id().clone()),
        Some(name) => {
            caller.require_admin()?;
            let unknown =
                || Problem::UnknownName { what: "user", name: name.clone(), known: Vec::new() };
            Some(app.store.user_by_name(&name).await?.ok_or_else(unknown)?.id)
        }
        None if caller.is_admin() => None,
        None => Some(caller.id().clone()),
    };
    let filter = UsageFilter {
        owner,
        key: query.key,
        provider: query.provider,
        model: query.model,
        business: query.business,
        graph: query.graph,
        run: query.run,
        from_ms: from.as_millisecond(),
        // What is asked for until now includes what is of this very millisecond.
        to_ms: to.as_millisecond() + i64::from(query.to.is_none()),
    };
    app.store.flush_usage().await?;
    let after = query.after.as_deref().map(Cursor::read).transpose()?;
    let limit = query.limit.unwrap_or(500).clamp(1, 1000);
    let asked = Asked { app: &app, filter, by, every };
    let (items, next) = asked.page(after, limit).await?;
    Ok(Json(UsageReport { from, to, items, next: next.map(|cursor| cursor.written()) }))
}

/// What is asked for.
struct Asked<'a> {
    app: &'a App,
    filter: UsageFilter,
    by: Grouping,
    every: Every,
}

/// The last item of a page: its stretch of time, and what its calls have in common.
#[derive(Serialize, Deserialize)]
struct Cursor(i64, GroupKey);

impl Cursor {
    fn read(text: &str) -> Result<Self, Problem> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        read.ok_or_else(|| Problem::Unreadable("`after` is no cursor of this list".into()))
    }

    fn written(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }
}

impl Asked<'_> {
    /// One stretch of time after the other, those without calls passed over.
    async fn page(
        &self,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<(Vec<UsageItem>, Option<Cursor>), Problem> {
        let (mut items, mut last) = (Vec::new(), None);
        let (mut from_ms, mut key) = match after {
            Some(Cursor(from_ms, key)) => (from_ms.max(self.filter.from_ms), Some(key)),
            None => (self.filter.from_ms, None),
        };
        while from_ms < self.filter.to_ms {
            if key.is_none() && self.every != Every::Time {
                let rest = UsageFilter { from_ms, ..self.filter.clone() };
                let Some(first) = self.app.store.first_usage(&rest).await? else { break };
                from_ms = first;
            }
            let (begins_ms, ends_ms) = self.stretch(from_ms)?;
            let stretch = UsageFilter {
                from_ms: begins_ms.max(self.filter.from_ms),
                to_ms: ends_ms.min(self.filter.to_ms),
                ..self.filter.clone()
            };
            let left = limit + 1 - u32::try_from(items.len()).unwrap_or(limit);
            for group in self.app.store.usage(&stretch, self.by, key.as_ref(), left).await? {
                if items.len() == limit as usize {
                    return Ok((items, last));
                }
                last = Some(Cursor(begins_ms, group.key.clone()));
                items.push(self.item(begins_ms, group)?);
            }
            (from_ms, key) = (ends_ms, None);
        }
        Ok((items, None))
    }

    /// From when to when the stretch is that a time is in.
    fn stretch(&self, at_ms: i64) -> Result<(i64, i64), Problem> {
        if self.every == Every::Time {
            return Ok((self.filter.from_ms, self.filter.to_ms));
        }
        let (from, to) = self.every.stretch(instant(at_ms)?, self.app.usage.zone());
        Ok((from.as_millisecond(), to.as_millisecond()))
    }

    fn item(&self, from_ms: i64, group: Group) -> Result<UsageItem, Problem> {
        let from = if self.every == Every::Time { None } else { Some(instant(from_ms)?) };
        let [user, key, provider, model, business, graph, run, currency] = group.key;
        let [user, key, provider, model, business, graph, run] =
            [user, key, provider, model, business, graph, run]
                .map(|part| if part.is_empty() { None } else { Some(part) });
        let figures = Figures::of(group.spending, currency);
        Ok(UsageItem { from, user, key, provider, model, business, graph, run, figures })
    }
}

fn instant(ms: i64) -> Result<Timestamp, Problem> {
    Timestamp::from_millisecond(ms).map_err(|error| Problem::Internal(error.to_string()))
}

fn every(text: Option<&str>) -> Result<Every, Problem> {
    match text {
        None => Ok(Every::Time),
        Some("minute") => Ok(Every::Minute),
        Some("hour") => Ok(Every::Hour),
        Some("day") => Ok(Every::Day),
        Some("month") => Ok(Every::Month),
        Some(other) => {
            let what = format!("every: `{other}` is none of minute, hour, day and month");
            Err(Problem::Unreadable(what))
        }
    }
}

fn grouping(by: Option<&str>) -> Result<Grouping, Problem> {
    let names: Vec<&str> = by.into_iter().flat_map(|by| by.split(',')).map(str::trim).collect();
    if let Some(unknown) = names.iter().find(|name| !BY.contains(name)) {
        let what = format!("by: `{unknown}` is none of {}", BY.join(", "));
        return Err(Problem::Unreadable(what));
    }
    let has = |name| names.contains(&name);
    Ok(Grouping {
        user: has("user"),
        key: has("key"),
        provider: has("provider"),
        model: has("model"),
        business: has("business"),
        graph: has("graph"),
        run: has("run"),
    })
}

/// A time, or the beginning of a day in the zone of `now`.
fn time(name: &str, text: &str, now: &Zoned) -> Result<Timestamp, Problem> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let day = text.parse::<Date>().ok().and_then(|d| d.to_zoned(now.time_zone().clone()).ok());
    let wrong = || {
        let what = "is neither a day nor a time; write 2026-11-01 or 2026-11-01T08:00:00Z";
        Problem::Unreadable(format!("{name}: `{text}` {what}"))
    };
    day.map(|day| day.timestamp()).ok_or_else(wrong)
}
