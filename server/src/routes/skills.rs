//! `/api/skills`: prompts, tools and models under one name. Read only: they come from files.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use exile_engine::library::LibrarySkill;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::graphs::FindingView;
use crate::app::App;
use crate::page::List;
use crate::problem::Problem;
use crate::url::Path;

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
    /// Goes before a node's own system text.
    system: String,
    /// Alias or `provider/model`.
    model: Option<String>,
    /// 0.0 to 2.0.
    temperature: Option<f64>,
    /// Names and patterns of tools.
    tools: Vec<String>,
    /// The file.
    source: String,
    /// Everything found in the newest file.
    findings: Vec<FindingView>,
}

impl From<&LibrarySkill> for SkillView {
    fn from(file: &LibrarySkill) -> Self {
        let skill = file.skill.as_deref();
        Self {
            name: file.name.clone(),
            serves: skill.is_some(),
            stale: file.is_stale(),
            description: skill.map(|s| s.description.clone()).unwrap_or_default(),
            system: skill.map(|s| s.system.clone()).unwrap_or_default(),
            model: skill.and_then(|s| s.model.as_ref()).map(ToString::to_string),
            temperature: skill.and_then(|s| s.temperature),
            tools: skill.map(|s| s.tools.clone()).unwrap_or_default(),
            source: file.source.path.clone(),
            findings: file.findings.iter().map(Into::into).collect(),
        }
    }
}

/// Every skill.
#[utoipa::path(
    get, path = "/api/skills", tag = "skills",
    responses((status = 200, body = List<SkillView>)),
)]
async fn list(State(app): State<Arc<App>>) -> Json<List<SkillView>> {
    Json(List::whole(app.library.now().skills().iter().map(Into::into).collect()))
}

/// One skill.
#[utoipa::path(
    get, path = "/api/skills/{name}", tag = "skills",
    params(("name" = String, Path)),
    responses((status = 200, body = SkillView)),
)]
async fn read(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<SkillView>, Problem> {
    Ok(Json(app.library.now().skill(&name).ok_or(Problem::NotFound)?.into()))
}
