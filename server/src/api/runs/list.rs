//! `/api/runs`: listing runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use exile_engine::id::ConversationId;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::view::RunView;
use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::auth::reach::{self, Owners};
use crate::http::extract::Query;
use crate::http::pagination::{self, List};
use crate::http::problem::Problem;
use crate::store::{RunFilter, RunStatus};

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which runs.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RunsQuery {
    /// Those of this user, or everybody's (`*`), for administrators; the caller's own if nothing is
    /// said.
    owner: Option<String>,
    /// Turns of this conversation only.
    #[param(value_type = Option<String>)]
    conversation_id: Option<ConversationId>,
    /// Only those that are `queued`, `running`, `waiting`, …
    status: Option<String>,
    /// Only those of this graph.
    graph: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// Items, 1 to 200; 50 if nothing is said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// The caller's runs, newest first; with `owner`, others'.
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
    let page = pagination::page(query.after, query.limit);
    let listed = match reach::owners(&app, &caller, query.owner).await? {
        Owners::One(owner) => app.store.list_runs(&owner, filter, page).await?,
        Owners::All => app.store.list_all_runs(filter, page).await?,
    };
    Ok(Json(List { items: RunView::all(&app, listed.items).await?, next: listed.next }))
}
