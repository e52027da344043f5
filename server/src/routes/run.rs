//! `/api/runs/{id}`: reading one run, watching it, stopping it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use exile_engine::id::{ConversationId, RunId};
use exile_engine::model::Usage;
use exile_engine::run::event::Event;
use exile_engine::run::record::{Number, RunError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Caller;
use crate::app::App;
use crate::page::List;
use crate::problem::{Accepted, Problem, RUN_HEADER};
use crate::sse;
use crate::store::RunRow;
use crate::url::{Path, Query};

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(read))
        .routes(routes!(state))
        .routes(routes!(events))
        .routes(routes!(watch))
        .routes(routes!(cancel))
}

/// A run.
#[derive(Serialize, ToSchema)]
pub(super) struct RunView {
    /// Its id.
    #[schema(value_type = String)]
    id: RunId,
    /// What it runs.
    graph: String,
    /// The hash of everything that it is pinned to.
    bundle: String,
    /// The conversation it is a turn of.
    #[schema(value_type = Option<String>)]
    conversation_id: Option<ConversationId>,
    /// `queued`, `running`, `waiting`, `finished`, `failed`, `cancelled` or `needs_attention`.
    status: &'static str,
    /// Why it failed.
    error: Option<ErrorView>,
    /// Tokens of all its model calls.
    usage: UsageView,
    /// Its place in the log: the first number and the last one so far.
    numbers: [Number; 2],
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it began.
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
    /// Its trace.
    trace_id: Option<String>,
}

/// Why a run failed.
#[derive(Serialize, ToSchema)]
struct ErrorView {
    /// Stable, e.g. `provider_rate_limited`.
    code: String,
    /// What, where, why and what to do.
    message: String,
    /// The node, if one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// The provider, if a model call failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    /// The model, if a model call failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
}

/// Tokens, each counted once.
#[derive(Serialize, ToSchema)]
#[allow(clippy::struct_field_names, reason = "units stand last in the JSON")]
struct UsageView {
    /// Prompt tokens, cached ones included.
    input_tokens: u64,
    /// Of these, read from the provider's cache.
    cached_tokens: u64,
    /// Completion tokens, reasoning included.
    output_tokens: u64,
    /// Of these, spent on reasoning.
    reasoning_tokens: u64,
}

impl From<RunError> for ErrorView {
    fn from(error: RunError) -> Self {
        let RunError { code, message, node, provider, model } = error;
        Self { code, message, node, provider, model }
    }
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input,
            cached_tokens: usage.cached,
            output_tokens: usage.output,
            reasoning_tokens: usage.reasoning,
        }
    }
}

impl From<RunRow> for RunView {
    fn from(row: RunRow) -> Self {
        Self {
            id: row.id,
            graph: row.graph,
            bundle: row.bundle.0.to_string(),
            conversation_id: row.conversation,
            status: row.status.as_str(),
            error: row.error.map(Into::into),
            usage: row.usage.into(),
            numbers: [row.first, row.last],
            created_at: row.created_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
            trace_id: row.trace_id,
        }
    }
}

/// The values of a run's channels.
#[derive(Serialize, ToSchema)]
struct StateView {
    /// Channel → value, after the run's last record.
    #[schema(value_type = Object)]
    values: Map<String, Value>,
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

/// The run, if it is the caller's.
pub(super) async fn owned(app: &App, caller: &Caller, id: &RunId) -> Result<RunRow, Problem> {
    app.store.run(caller.id(), id).await?.ok_or(Problem::NotFound)
}

/// What a run that was asked for, or asked to stop, is answered with.
pub(super) async fn accepted(app: &App, caller: &Caller, run: &RunId) -> Result<Response, Problem> {
    let body: RunView = owned(app, caller, run).await?.into();
    let accepted = Accepted { location: format!("/api/runs/{run}"), body };
    Ok(([(RUN_HEADER, run.to_string())], accepted).into_response())
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
    Ok(Json(owned(&app, &caller, &id).await?.into()))
}

/// The values of the channels as the run left them; as they stand now if it has not ended.
#[utoipa::path(
    get, path = "/api/runs/{id}/state", tag = "runs",
    params(("id" = String, Path)),
    responses((status = 200, body = StateView)),
)]
async fn state(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<RunId>,
) -> Result<Json<StateView>, Problem> {
    let row = owned(&app, &caller, &id).await?;
    Ok(Json(StateView { values: app.engine.state_of(&row.id).await? }))
}

/// What happened so far: nodes, calls, tokens, milliseconds.
#[utoipa::path(
    get, path = "/api/runs/{id}/events", tag = "runs",
    params(("id" = String, Path)),
    responses((status = 200, body = List<EventView>)),
)]
async fn events(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<RunId>,
) -> Result<Json<List<EventView>>, Problem> {
    let row = owned(&app, &caller, &id).await?;
    let events = app.engine.history(&row.id).await?;
    let view = |event: Event| EventView {
        number: event.number,
        at: Timestamp::from_millisecond(event.at_ms).unwrap_or_default(),
        name: event.name,
        data: event.data,
    };
    Ok(Json(List::whole(events.into_iter().map(view).collect())))
}

/// Where to go on watching.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WatchQuery {
    /// The last number seen; the header `Last-Event-ID` goes before it.
    after: Option<Number>,
}

/// The run's events, those that happened and those that happen, until it ends.
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
    Ok(sse::stream(&app, row.id, sse::position(&headers, query.after)?))
}

/// Stops a run, whether it has begun or not; a run that has ended stays as it is.
#[utoipa::path(
    post, path = "/api/runs/{id}/cancel", tag = "runs",
    params(("id" = String, Path)),
    responses((status = 202, description = "It will stop", body = RunView)),
)]
async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<RunId>,
) -> Result<Response, Problem> {
    let row = owned(&app, &caller, &id).await?;
    app.engine.cancel(&row.log, &row.id).await?;
    accepted(&app, &caller, &row.id).await
}
