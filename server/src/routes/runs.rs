//! `/api/runs`: running a graph, and listing runs. What can be asked of one run: `run.rs`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use exile_engine::id::{ConversationId, RunId};
use exile_engine::run::record::RunOptions;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::conversations::business;
use super::run::{RunView, accepted, owned};
use crate::access::Caller;
use crate::app::App;
use crate::body::JsonBody;
use crate::idempotency::Once;
use crate::page::{self, List};
use crate::problem::{Problem, RUN_HEADER};
use crate::sse;
use crate::start::{self, Wish};
use crate::store::{RunFilter, RunStatus};
use crate::trace::Trace;
use crate::url::Query;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(wait)).routes(routes!(stream))
}

/// What to run.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RunBody {
    /// The graph; may be left out with a conversation, whose graph it then is.
    graph: Option<String>,
    /// Channel → value; only channels that the graph lists under `input`.
    #[serde(default)]
    #[schema(value_type = Object)]
    input: Map<String, Value>,
    /// A conversation of the caller's, whose history the run goes on with.
    #[schema(value_type = Option<String>)]
    conversation_id: Option<ConversationId>,
    /// When steps are stored: `sync`.
    #[serde(default)]
    durability: Durability,
    /// For nodes without a skill of their own; the conversation's if nothing is said.
    skill: Option<String>,
    /// For nodes without a model of their own; the conversation's if nothing is said.
    model: Option<String>,
    /// Chooses among an alias's models; also the header `X-Exile-Business`.
    business: Option<String>,
    /// Goes before every other system text; the conversation's if nothing is said.
    system_prompt: Option<String>,
}

/// When a run's steps are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Durability {
    /// Before they are shown and before the next step.
    #[default]
    Sync,
    /// Not in this version.
    Async,
    /// Not in this version.
    Exit,
}

/// A run that ended well, and what it gave.
#[derive(Serialize, ToSchema)]
struct DoneView {
    /// The run.
    run: RunView,
    /// The graph's output channels.
    #[schema(value_type = Object)]
    output: Map<String, Value>,
}

/// Runs a graph: answers at once, the run goes on.
#[utoipa::path(
    post, path = "/api/runs", tag = "runs",
    request_body = RunBody,
    responses((status = 202, description = "It is stored and will run", body = RunView)),
)]
async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Extension(trace): Extension<Trace>,
    once: Once,
    headers: HeaderMap,
    JsonBody(body): JsonBody<RunBody>,
) -> Result<Response, Problem> {
    let run = begin(&app, &caller, (&trace, &once), &headers, body).await?;
    accepted(&app, &caller, &run).await
}

async fn begin(
    app: &App,
    caller: &Caller,
    request: (&Trace, &Once),
    headers: &HeaderMap,
    body: RunBody,
) -> Result<RunId, Problem> {
    if body.durability != Durability::Sync {
        return Err(Problem::NotSupported("durability other than `sync`".into()));
    }
    let business = business(body.business, headers)?;
    let (graph, options) = if let Some(id) = &body.conversation_id {
        let row = app.store.conversation(caller.id(), id).await?.ok_or(Problem::NotFound)?;
        let options = RunOptions {
            skill: body.skill.or(row.skill),
            model: body.model.or(row.model),
            business: business.or(row.business),
            system_prompt: body.system_prompt.or(row.system_prompt),
        };
        (body.graph.unwrap_or(row.graph), options)
    } else {
        let (skill, model, system_prompt) = (body.skill, body.model, body.system_prompt);
        let graph = body.graph.unwrap_or_else(|| app.settings.default_graph.clone());
        (graph, RunOptions { skill, model, business, system_prompt })
    };
    let wish = Wish { graph, conversation: body.conversation_id, options, input: body.input };
    start::start(app, caller.id(), request, wish).await
}

/// Runs a graph and waits until the run has ended.
#[utoipa::path(
    post, path = "/api/runs/wait", tag = "runs",
    request_body = RunBody,
    responses((status = 200, body = DoneView)),
)]
async fn wait(
    State(app): State<Arc<App>>,
    caller: Caller,
    Extension(trace): Extension<Trace>,
    once: Once,
    headers: HeaderMap,
    JsonBody(body): JsonBody<RunBody>,
) -> Result<Response, Problem> {
    let run = begin(&app, &caller, (&trace, &once), &headers, body).await?;
    let ended = start::finished(&app, &run).await?;
    let row = owned(&app, &caller, &run).await?;
    let mut values = app.engine.state_of(&run).await?;
    values.retain(|name, _| ended.output.iter().any(|output| **output == *name));
    let view = DoneView { run: row.into(), output: values };
    Ok(([(RUN_HEADER, run.to_string())], Json(view)).into_response())
}

/// Runs a graph and streams its events.
#[utoipa::path(
    post, path = "/api/runs/stream", tag = "runs",
    request_body = RunBody,
    responses((status = 200, body = String, content_type = "text/event-stream")),
)]
async fn stream(
    State(app): State<Arc<App>>,
    caller: Caller,
    Extension(trace): Extension<Trace>,
    once: Once,
    headers: HeaderMap,
    JsonBody(body): JsonBody<RunBody>,
) -> Result<Response, Problem> {
    let run = begin(&app, &caller, (&trace, &once), &headers, body).await?;
    Ok(sse::stream(&app, run, 0))
}

/// Which runs.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RunsQuery {
    /// Turns of this conversation only.
    #[param(value_type = Option<String>)]
    conversation_id: Option<ConversationId>,
    /// Only those that are `queued`, `running`, `finished`, …
    status: Option<String>,
    /// Only those of this graph.
    graph: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// Items, 1 to 200; 50 if nothing is said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// The caller's runs, newest first.
#[utoipa::path(
    get, path = "/api/runs", tag = "runs",
    params(RunsQuery),
    responses((status = 200, body = List<RunView>)),
)]
async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<RunsQuery>,
) -> Result<Json<List<RunView>>, Problem> {
    let status = |text: String| {
        RunStatus::parse(&text).ok_or_else(|| {
            let known = RunStatus::ALL.map(RunStatus::as_str).join(", ");
            Problem::Unreadable(format!("status `{text}` is none of {known}"))
        })
    };
    let filter = RunFilter {
        conversation: query.conversation_id,
        status: query.status.map(status).transpose()?,
        graph: query.graph,
    };
    let page = page::page(query.after, query.limit);
    Ok(Json(List::of(app.store.list_runs(caller.id(), filter, page).await?)))
}
