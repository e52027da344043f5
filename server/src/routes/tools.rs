//! `/api/tools`: what models and graphs can call, and calling it directly.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use exile_engine::tool::{Effect, ToolAnswer, ToolCx, ToolError, ToolErrorKind, ToolSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Caller;
use crate::app::App;
use crate::body::JsonBody;
use crate::page::List;
use crate::problem::Problem;
use crate::url::Path;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(call))
}

/// A tool.
#[derive(Serialize, ToSchema)]
struct ToolView {
    /// The same in YAML, API and model.
    name: String,
    /// What it does.
    description: String,
    /// JSON Schema of the arguments.
    #[schema(value_type = Object)]
    parameters: Value,
    /// `pure`, `idempotent` or `unsafe`.
    effect: &'static str,
    /// Where it comes from.
    source: String,
    /// SHA-256 of name, description and parameters.
    hash: String,
}

impl From<&ToolSpec> for ToolView {
    fn from(spec: &ToolSpec) -> Self {
        let effect = match spec.effect {
            Effect::Pure => "pure",
            Effect::Idempotent => "idempotent",
            Effect::Unsafe => "unsafe",
        };
        let ToolSpec { name, description, parameters, source, hash, .. } = spec.clone();
        Self { name, description, parameters, effect, source, hash }
    }
}

/// A call.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CallBody {
    /// As the tool's schema asks.
    #[serde(default)]
    #[schema(value_type = Object)]
    arguments: Map<String, Value>,
}

/// What a call gave.
#[derive(Serialize, ToSchema)]
struct ResultView {
    /// The tool.
    tool: String,
    /// Its answer, any JSON.
    #[schema(value_type = Value)]
    result: Value,
    /// How long it took, in milliseconds.
    took_ms: u64,
}

/// Every tool.
#[utoipa::path(
    get, path = "/api/tools", tag = "tools",
    responses((status = 200, body = List<ToolView>)),
)]
async fn list(State(app): State<Arc<App>>) -> Json<List<ToolView>> {
    Json(List::whole(app.catalog.tools.specs().map(Into::into).collect()))
}

/// Calls a tool outside any run. The arguments are checked against its schema.
#[utoipa::path(
    post, path = "/api/tools/{name}/call", tag = "tools",
    params(("name" = String, Path)),
    request_body = CallBody,
    responses((status = 200, body = ResultView)),
)]
async fn call(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<CallBody>,
) -> Result<Json<ResultView>, Problem> {
    if app.catalog.tools.spec(&name).is_none() {
        return Err(Problem::NotFound);
    }
    let cx = ToolCx {
        key: format!("call_{}", app.env.uuid().simple()),
        user: caller.user.id,
        run: None,
        env: app.env.clone(),
        resumed: None,
        limits: app.catalog.limits.clone(),
    };
    let began = app.env.monotonic();
    match app.catalog.tools.call(&cx, &name, Value::Object(body.arguments)).await {
        ToolAnswer::Failed(error) => Err(error.into()),
        ToolAnswer::Ask(question) => {
            let why = format!("outside a run nobody answers what it asks: {}", question.text);
            Err(ToolError::new(ToolErrorKind::Denied, why).into())
        }
        ToolAnswer::Done(result) => {
            let took = app.env.monotonic().saturating_sub(began).as_millis();
            let took_ms = u64::try_from(took).unwrap_or(u64::MAX);
            Ok(Json(ResultView { tool: name, result, took_ms }))
        }
    }
}
