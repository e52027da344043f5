//! `/api/protocol`: the words of messages and streams, for who writes a client.

use std::sync::Arc;

use axum::Json;
use exile_engine::run::event::KINDS;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{PartialSchema as _, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::messages::MessageView;
use crate::http::app::App;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(read))
}

/// How messages and streams are written.
#[derive(Serialize, ToSchema)]
struct ProtocolView {
    /// Rises when something is taken away or changes its meaning; what is new is only added.
    version: u32,
    /// Who speaks.
    roles: [&'static str; 4],
    /// JSON Schema of a message, as `GET /api/conversations/{id}/messages` lists it.
    #[schema(value_type = Object)]
    message: Value,
    /// Why a model stopped.
    finish: [&'static str; 5],
    /// Where a run may be.
    statuses: [&'static str; 7],
    /// How an answer streams.
    stream: StreamView,
}

/// How an answer streams.
#[derive(Serialize, ToSchema)]
struct StreamView {
    /// The media type of a stream.
    media_type: &'static str,
    /// The header that a reader who comes back sends: the `id` of the last event that it has.
    resume: &'static str,
    /// A comment comes after that many seconds of silence.
    heartbeat_seconds: u64,
    /// Every event, by name.
    events: Vec<EventView>,
}

/// A kind of event.
#[derive(Serialize, ToSchema)]
struct EventView {
    /// The SSE field `event`.
    name: &'static str,
    /// What it says.
    about: &'static str,
    /// Fields of its JSON.
    fields: &'static [&'static str],
    /// The stream ends with it.
    last: bool,
}

/// The message protocol.
#[utoipa::path(
    get, path = "/api/protocol", tag = "models",
    responses((status = 200, body = ProtocolView)),
)]
async fn read() -> Json<ProtocolView> {
    let event = |kind: &exile_engine::run::event::Kind| EventView {
        name: kind.name,
        about: kind.about,
        fields: kind.fields,
        last: kind.last,
    };
    Json(ProtocolView {
        version: 1,
        roles: ["system", "user", "assistant", "tool"],
        message: json!(MessageView::schema()),
        finish: ["stop", "tool_calls", "length", "filtered", "refused"],
        statuses: [
            "queued",
            "running",
            "waiting",
            "finished",
            "failed",
            "cancelled",
            "needs_attention",
        ],
        stream: StreamView {
            media_type: "text/event-stream",
            resume: "Last-Event-ID",
            heartbeat_seconds: crate::http::sse::HEARTBEAT.as_secs(),
            events: KINDS.iter().map(event).collect(),
        },
    })
}
