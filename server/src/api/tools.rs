//! `/api/tools`: what models and graphs can call, and calling it directly.
//!
//! Invariants:
//! - A tool that may do harm (`unsafe`), and one that any graph or skill lets nobody call before a
//!   person agreed, is called directly by authors and administrators alone: they are the person who
//!   agrees.
//! - Every direct call is in the log, without its arguments.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use exile_engine::tool::{self, Effect, ToolAnswer, ToolCx, ToolError, ToolErrorKind, ToolSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::body::JsonBody;
use crate::http::extract::Path;
use crate::http::pagination::List;
use crate::http::problem::Problem;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(call))
}

/// A tool.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ToolView {
    /// The same in YAML, API and model.
    pub(crate) name: String,
    /// What it does.
    pub(crate) description: String,
    /// JSON Schema of the arguments.
    #[schema(value_type = Object)]
    pub(crate) parameters: Value,
    /// `pure`, `idempotent` or `unsafe`.
    #[schema(value_type = String)]
    pub(crate) effect: Cow<'static, str>,
    /// Where it comes from.
    pub(crate) source: String,
    /// SHA-256 of name, description and parameters.
    pub(crate) hash: String,
}

impl From<&ToolSpec> for ToolView {
    fn from(spec: &ToolSpec) -> Self {
        let effect = effect(spec).into();
        let ToolSpec { name, description, parameters, source, hash, .. } = spec.clone();
        Self { name, description, parameters, effect, source, hash }
    }
}

fn effect(spec: &ToolSpec) -> &'static str {
    match spec.effect {
        Effect::Pure => "pure",
        Effect::Idempotent => "idempotent",
        Effect::Unsafe => "unsafe",
    }
}

/// Whether not everybody may call it.
fn needs_care(app: &App, spec: &ToolSpec) -> bool {
    let library = app.library.now();
    let approved = library.approvals().iter().any(|pattern| tool::matches(pattern, &spec.name));
    spec.effect == Effect::Unsafe || approved
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
///
/// A tool whose effect is `unsafe`, or that some graph or skill lists under `approve`, is for authors
/// and administrators to call. Keys with scopes call none.
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
    let spec = app.catalog.tools.spec(&name).ok_or(Problem::NotFound)?;
    if !caller.is_author() && needs_care(&app, spec) {
        return Err(Problem::Forbidden(
            "the role author or admin: the tool is unsafe, or asks for approval in a graph or skill",
        ));
    }
    let (user, key) = (&caller.user.name, caller.key.as_ref().map(|key| key.id.as_str()));
    tracing::info!(tool = name, effect = effect(spec), user, key, "a tool is called directly");
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
