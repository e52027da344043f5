//! `/api/runs`, `wait`, `stream`: running a graph.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use exile_engine::id::{ConversationId, LogId, RunId};
use exile_engine::journal::IfActive;
use exile_engine::run::record::{Durability, RunOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::view::{RunView, accepted, output};
use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::auth::business::named;
use crate::http::auth::reach;
use crate::http::body::JsonBody;
use crate::http::openapi::{durability, if_active, on_disconnect};
use crate::http::problem::{Problem, RUN_HEADER};
use crate::http::sse;
use crate::http::trace::Trace;
use crate::runs::IdempotencyKey;
use crate::runs::create::{self, NewRun};
use crate::runs::disconnect::{CancelOnDisconnect, OnDisconnect};
use crate::runs::interrupts::InterruptView;
use crate::runs::resume;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(wait)).routes(routes!(stream))
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
    /// When the run's records are stored: before they are shown and before the next step
    /// (`sync`), before they are shown (`async`), or at its end (`exit`); nothing: as the graph
    /// says.
    #[schema(schema_with = durability, required = false)]
    durability: Option<Durability>,
    /// In a conversation: what becomes of the run while another one goes on; see
    /// `POST /api/conversations/{id}/messages`.
    #[serde(default)]
    #[schema(schema_with = if_active)]
    if_active: IfActive,
    /// For nodes without a skill of their own; the conversation's if nothing is said.
    skill: Option<String>,
    /// For nodes without a model of their own; the conversation's if nothing is said.
    model: Option<String>,
    /// Chooses among an alias's models; also the header `X-Exile-Business`.
    business: Option<String>,
    /// Goes before every other system text; the conversation's if nothing is said.
    system_prompt: Option<String>,
    /// What becomes of the run if the caller of `wait` or `stream` leaves before it has ended: it
    /// goes on (`continue`) or is cancelled (`cancel`).
    #[serde(default)]
    #[schema(schema_with = on_disconnect)]
    on_disconnect: OnDisconnect,
}

impl RunBody {
    /// What the run does if its caller leaves, by its id.
    fn on_leave(&self) -> impl Fn(&App, &RunId) -> CancelOnDisconnect + use<> {
        let (conversation, wanted) = (self.conversation_id.clone(), self.on_disconnect);
        move |app, run| {
            let log = conversation.as_ref().map_or_else(|| LogId::from(run), LogId::from);
            app.on_disconnect(log, run, wanted)
        }
    }
}

/// A run that ended well or waits, and what it gave.
#[derive(Serialize, ToSchema)]
struct DoneView {
    /// The run.
    run: RunView,
    /// The graph's output channels; as they stand if the run waits.
    #[schema(value_type = Object)]
    output: Map<String, Value>,
    /// Questions that the run waits for answers to.
    interrupts: Vec<InterruptView>,
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
    key: IdempotencyKey,
    headers: HeaderMap,
    JsonBody(body): JsonBody<RunBody>,
) -> Result<Response, Problem> {
    let run = begin(&app, &caller, (&trace, &key), &headers, body).await?;
    accepted(&app, &caller, &run).await
}

async fn begin(
    app: &App,
    mut caller: &Caller,
    request: (&Trace, &IdempotencyKey),
    headers: &HeaderMap,
    body: RunBody,
) -> Result<RunId, Problem> {
    let turn_of;
    let business = named(body.business, headers)?;
    let (graph, options) = if let Some(id) = &body.conversation_id {
        let row = reach::conversation(app, caller, id).await?;
        turn_of = caller.in_place_of(app, &row.owner).await?;
        caller = &turn_of;
        if body.if_active == IfActive::Enqueue
            && let Some(waits) = create::waiting_in(app.runs(), caller.id(), id).await?
        {
            resume::refuse_behind(app.runs(), request.1, &waits).await?;
        }
        let options = RunOptions {
            skill: body.skill.or(row.skill),
            model: body.model.or(row.model),
            business: business.or(row.business),
            key: None,
            system_prompt: body.system_prompt.or(row.system_prompt),
        };
        (body.graph.unwrap_or(row.graph), options)
    } else {
        let (skill, model, system_prompt) = (body.skill, body.model, body.system_prompt);
        let graph = body.graph.unwrap_or_else(|| app.settings.default_graph.clone());
        (graph, RunOptions { skill, model, business, system_prompt, key: None })
    };
    let new = NewRun {
        graph,
        conversation: body.conversation_id,
        options,
        input: body.input,
        if_active: body.if_active,
        durability: body.durability,
        traceparent: request.0.traceparent.clone(),
    };
    Ok(create::start(app.runs(), &caller.requester(), request.1, new).await?)
}

/// Runs a graph and waits until the run has ended or waits for answers.
#[utoipa::path(
    post, path = "/api/runs/wait", tag = "runs",
    request_body = RunBody,
    responses((status = 200, body = DoneView)),
)]
async fn wait(
    State(app): State<Arc<App>>,
    caller: Caller,
    Extension(trace): Extension<Trace>,
    key: IdempotencyKey,
    headers: HeaderMap,
    JsonBody(body): JsonBody<RunBody>,
) -> Result<Response, Problem> {
    let on_leave = body.on_leave();
    let run = begin(&app, &caller, (&trace, &key), &headers, body).await?;
    let mut on_leave = on_leave(&app, &run);
    let stopped = create::wait_until_stopped(app.runs(), &run, 0).await;
    on_leave.over();
    stopped?;
    let row = reach::run_again(&app, &caller, &run).await?;
    let output = output(&app, &row).await?.unwrap_or_default();
    let view = RunView::of(&app, row).await?;
    let interrupts = view.interrupts().to_vec();
    let view = DoneView { run: view, output, interrupts };
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
    key: IdempotencyKey,
    headers: HeaderMap,
    JsonBody(body): JsonBody<RunBody>,
) -> Result<Response, Problem> {
    let on_leave = body.on_leave();
    let run = begin(&app, &caller, (&trace, &key), &headers, body).await?;
    let on_leave = on_leave(&app, &run);
    Ok(sse::stream(&app, run, 0, on_leave))
}
