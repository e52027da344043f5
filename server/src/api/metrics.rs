//! `/metrics`: what Prometheus reads.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::problem::Problem;
use crate::telemetry::metrics::CONTENT_TYPE;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// Figures of this process, in the text format of Prometheus. For administrators and keys with the
/// scope `metrics`.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, body = String, content_type = "text/plain")),
)]
async fn metrics(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<impl IntoResponse, Problem> {
    if !caller.can_read_metrics() {
        return Err(Problem::Forbidden("the role admin, or a key with the scope metrics"));
    }
    // What the process itself knows is told all the same.
    let open = app.store.open_runs().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the runs that have not ended could not be counted");
        Vec::new()
    });
    let text = app
        .metrics
        .text(&open, app.env.now())
        .map_err(|error| Problem::Internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}
