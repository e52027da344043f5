//! `/api/skills`: prompts, tools and models under one name. Read only: they come from files.
//!
//! Invariant: a prompt is its author's. Whoever is neither author nor administrator sees what a
//! skill is called, what it is for and what it uses, and neither its prompt nor anything of its
//! file.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use exile_engine::library::LibrarySkill;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::graphs::FindingView;
use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::extract::Path;
use crate::http::pagination::List;
use crate::http::problem::Problem;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read))
}

/// A skill. Where it does not serve, only the name and the findings say something.
#[derive(Serialize, ToSchema)]
struct SkillView {
    /// Its name.
    name: String,
    /// Whether it can be used.
    serves: bool,
    /// Whether what is used is older than the file: the newest does not load.
    stale: bool,
    /// What it is for.
    description: String,
    /// Goes before a node's own system text. For authors and administrators; null for others.
    system: Option<String>,
    /// Alias or `provider/model`.
    model: Option<String>,
    /// 0.0 to 2.0.
    temperature: Option<f64>,
    /// Names and patterns of tools.
    tools: Vec<String>,
    /// The file. For authors and administrators; null for others.
    source: Option<String>,
    /// Everything found in the newest file. For authors and administrators; empty for others.
    findings: Vec<FindingView>,
}

impl SkillView {
    fn new(file: &LibrarySkill, caller: &Caller) -> Self {
        let skill = file.skill.as_deref();
        let whole = caller.is_author();
        let findings = file.findings.iter().filter(|_| whole);
        Self {
            name: file.name.clone(),
            serves: skill.is_some(),
            stale: file.is_stale(),
            description: skill.map(|s| s.description.clone()).unwrap_or_default(),
            system: whole.then(|| skill.map(|s| s.system.clone()).unwrap_or_default()),
            model: skill.and_then(|s| s.model.as_ref()).map(ToString::to_string),
            temperature: skill.and_then(|s| s.temperature),
            tools: skill.map(|s| s.tools.clone()).unwrap_or_default(),
            source: whole.then(|| file.source.path.clone()),
            findings: findings.map(Into::into).collect(),
        }
    }
}

/// Every skill.
#[utoipa::path(
    get, path = "/api/skills", tag = "skills",
    responses((status = 200, body = List<SkillView>)),
)]
async fn list(State(app): State<Arc<App>>, caller: Caller) -> Json<List<SkillView>> {
    let library = app.library.now();
    let view = |skill| SkillView::new(skill, &caller);
    Json(List::whole(library.skills().iter().map(view).collect()))
}

/// One skill.
#[utoipa::path(
    get, path = "/api/skills/{name}", tag = "skills",
    params(("name" = String, Path)),
    responses((status = 200, body = SkillView)),
)]
async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<SkillView>, Problem> {
    let library = app.library.now();
    Ok(Json(SkillView::new(library.skill(&name).ok_or(Problem::NotFound)?, &caller)))
}
