//! `/healthz` and `/readyz`: for those who watch the process. Open, so they tell little.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{App, Environment};
use crate::problem::Problem;

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
/// provider has its key. Else 503 with `reasons`.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses((status = 200, body = HealthView)),
)]
async fn ready(State(app): State<Arc<App>>) -> Result<Json<HealthView>, Problem> {
    let mut reasons = Vec::new();
    if let Err(error) = app.store.ping().await {
        reasons.push(error.to_string());
    } else if let Some(fault) = app.engine.store_fault() {
        reasons.push(fault);
    }
    if app.settings.environment == Environment::Production {
        reasons.extend(unready_providers(&app));
    }
    if reasons.is_empty() { Ok(OK) } else { Err(Problem::NotReady(reasons)) }
}

/// Why the providers that aliases stand for cannot be called, if they cannot.
fn unready_providers(app: &App) -> BTreeSet<String> {
    let models = &app.catalog.models;
    let aliases = models.aliases().values();
    let named = aliases.flat_map(|a| std::iter::once(&a.model).chain(a.business.values()));
    let faults = named.filter_map(|model| match models.provider(&model.provider) {
        Some(provider) => provider.ready().err().map(|e| format!("{}: {}", e.provider, e.fault)),
        None => Some(format!("{}: no provider of this name is configured", model.provider)),
    });
    faults.collect()
}
