//! `/api/runs/{id}`: reading one run, watching it, stopping it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use exile_engine::id::RunId;
use exile_engine::run::event::Event;
use exile_engine::run::record::Number;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::view::{RunView, accepted, owned};
use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::extract::{Path, Query};
use crate::http::pagination::List;
use crate::http::problem::Problem;
use crate::http::sse;
use crate::runs::disconnect::CancelOnDisconnect;
use crate::runs::events;
use crate::runs::verdict;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(read))
        .routes(routes!(events))
        .routes(routes!(watch))
        .routes(routes!(cancel))
}

/// One event of a run.
#[derive(Serialize, ToSchema)]
struct EventView {
    /// Rises, with gaps.
    number: Number,
    /// When it became true.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// E.g. `node.finished`.
    name: &'static str,
    /// Its content.
    #[schema(value_type = Object)]
    data: Arc<Value>,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            number: event.number,
            at: Timestamp::from_millisecond(event.at_ms).unwrap_or_default(),
            name: event.name,
            data: event.data,
        }
    }
}

/// One run.
#[utoipa::path(
    get, path = "/api/runs/{id}", tag = "runs",
    params(("id" = String, Path)),
    responses((status = 200, body = RunView)),
)]
async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<RunId>,
) -> Result<Json<RunView>, Problem> {
    Ok(Json(RunView::whole(&app, owned(&app, &caller, &id).await?).await?))
}

/// Which part of what happened.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// `next` of the page before, or the last number seen.
    after: Option<Number>,
    /// Items, 1 to 1000; 500 if nothing is said. A page ends earlier when it gets long
    /// (`limits.page` in exile.yaml).
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// What happened so far: nodes, calls, tokens, milliseconds. In pages, oldest first.
#[utoipa::path(
    get, path = "/api/runs/{id}/events", tag = "runs",
    params(("id" = String, Path), EventsQuery),
    responses((status = 200, body = List<EventView>)),
)]
async fn events(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<RunId>,
    Query(query): Query<EventsQuery>,
) -> Result<Json<List<EventView>>, Problem> {
    let row = owned(&app, &caller, &id).await?;
    let limit = query.limit.unwrap_or(500).clamp(1, 1000) as usize;
    let page = events::page(app.runs(), row.id, query.after.unwrap_or(0), limit).await?;
    Ok(Json(List {
        items: page.events.into_iter().map(Into::into).collect(),
        next: page.next.map(|number| number.to_string()),
    }))
}

/// Where to go on watching.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WatchQuery {
    /// The last number seen; the header `Last-Event-ID` goes before it.
    after: Option<Number>,
}

/// The run's events, those that happened and those that happen, until it ends or waits.
///
/// `run.started`, `step.started`, `node.started`, `node.retried`, `node.finished`, `tool.call`,
/// `tool.result`, `model.finished`, `state.update`; text as it is written in `message.delta`,
/// `reasoning.delta` and, where it goes to no user, `node.delta`; `message.finished`.
/// `message.reset`: what was written of this message is void, it is written again.
/// `stream.reset`: so is all that was written since the last other event.
/// The last one is `run.finished`, `run.failed`, `run.cancelled` or `run.waiting`, whose
/// `interrupts` (or `attention` and `open_calls`) say what is waited for; after an answer the
/// stream goes on beyond that event's number.
#[utoipa::path(
    get, path = "/api/runs/{id}/stream", tag = "runs",
    params(
        ("id" = String, Path),
        WatchQuery,
        ("Last-Event-ID" = Option<Number>, Header, description = "The last number seen"),
    ),
    responses((status = 200, body = String, content_type = "text/event-stream")),
)]
async fn watch(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Path(id): Path<RunId>,
    Query(query): Query<WatchQuery>,
) -> Result<Response, Problem> {
    let row = owned(&app, &caller, &id).await?;
    Ok(sse::stream(&app, row.id, sse::position(&headers, query.after)?, CancelOnDisconnect::free()))
}

/// Stops a run, whether it has begun or not; a run that has ended stays as it is. Refused if the run
/// comes to its end by something else in that very moment.
#[utoipa::path(
    post, path = "/api/runs/{id}/cancel", tag = "runs",
    params(("id" = String, Path)),
    responses((status = 202, description = "It has stopped, or had ended before", body = RunView)),
)]
async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<RunId>,
) -> Result<Response, Problem> {
    let row = owned(&app, &caller, &id).await?;
    if row.ended_at.is_none() {
        verdict::cancel(app.runs(), &row).await?;
    }
    accepted(&app, &caller, &row.id).await
}
