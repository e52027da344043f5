//! `/healthz` and `/readyz`: for those who watch the process. Open, so they tell strangers little.
//!
//! `/healthz` touches nothing but the process itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::app::App;
use crate::http::auth;
use crate::http::problem::Problem;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(alive)).routes(routes!(ready))
}

/// How the server is.
#[derive(Serialize, ToSchema)]
struct HealthView {
    /// `ok`.
    status: &'static str,
    /// exile's version.
    version: &'static str,
}

const OK: Json<HealthView> = Json(HealthView { status: "ok", version: env!("CARGO_PKG_VERSION") });

/// The process answers.
#[utoipa::path(
    get, path = "/healthz", tag = "health",
    responses((status = 200, body = HealthView)),
)]
async fn alive() -> Json<HealthView> {
    OK
}

/// The server can do its work: the store can be written and, in production, every alias's
/// provider has its key. Else 503 with `reasons`, which are general unless an administrator asks.
/// What is said is at most a second old.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses((status = 200, body = HealthView)),
)]
async fn ready(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Json<HealthView>, Problem> {
    let faults = app.transport.readiness.faults(&app).await;
    if faults.is_empty() {
        return Ok(OK);
    }
    let reasons: BTreeSet<String> = if is_administrator(&app, &headers).await {
        faults.iter().map(ToString::to_string).collect()
    } else {
        faults.iter().map(|fault| fault.told().to_owned()).collect()
    };
    Err(Problem::NotReady(reasons.into_iter().collect()))
}

/// Whether an administrator asks. Nobody is one while the database cannot say so.
async fn is_administrator(app: &App, headers: &HeaderMap) -> bool {
    let patience = app.settings.limits.transport.ready_wait;
    let identifying = auth::identify(app, (&Method::GET, "/readyz"), headers);
    let caller = tokio::time::timeout(patience, identifying).await;
    caller.is_ok_and(|caller| caller.is_ok_and(|caller| caller.is_admin()))
}
