//! `/api/runs/{id}/fork`, `state`, `migrate`: a run that goes on from elsewhere, with another
//! state, or as another graph.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use exile_engine::id::{LogId, RunId};
use exile_engine::journal::{EditRun, ForkRun, Input, JournalError};
use exile_engine::run::checkpoint::{self, CheckpointKind};
use exile_engine::run::migrate;
use exile_engine::run::record::{Fact, Number};
use exile_engine::run::standing::RunAt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::checkpoints::at;
use super::view::{RunView, accepted, owned};
use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::body::JsonBody;
use crate::http::extract::Path;
use crate::http::problem::{Accepted, Problem};
use crate::http::trace::Trace;
use crate::runs::IdempotencyKey;
use crate::runs::RunConflict;
use crate::runs::create;
use crate::runs::input;
use crate::runs::verdict;
use crate::store::{Page, RunFilter, RunRow, RunStatus};

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(fork)).routes(routes!(edit)).routes(routes!(migrate))
}

/// From where another run goes on, and with what.
// The keys of `EditBody` stand here once more: serde takes unknown keys in silence where a part is
// flattened.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ForkBody {
    /// The number of a checkpoint; nothing: the last one before the run's end. Where a task failed
    /// is one (`failure`): it begins again, and keeps what of it had succeeded, such as items of a
    /// `map`. With `values` nothing stands for the last one that is none of these.
    at: Option<Number>,
    /// Channel → value to write first, merged as a node's writes are.
    #[serde(default)]
    #[schema(value_type = Object)]
    values: Map<String, Value>,
    /// The node in whose name they are written: what follows it goes on. Nothing: what went on
    /// goes on.
    as_node: Option<String>,
    /// Path of the task whose subgraph they are written to; nothing: the run's own graph.
    #[serde(default)]
    path: String,
}

/// Goes on from a checkpoint of a run as another run.
///
/// A run of a conversation forks inside the conversation, which then goes on from there; any
/// other into a history of its own. The run that is forked from stays as it is.
#[utoipa::path(
    post, path = "/api/runs/{id}/fork", tag = "checkpoints",
    params(("id" = String, Path)),
    request_body = ForkBody,
    responses((status = 202, description = "The new run is stored and will go on", body = RunView)),
)]
async fn fork(
    State(app): State<Arc<App>>,
    caller: Caller,
    Extension(trace): Extension<Trace>,
    key: IdempotencyKey,
    Path(id): Path<RunId>,
    JsonBody(body): JsonBody<ForkBody>,
) -> Result<Response, Problem> {
    let row = owned(&app, &caller, &id).await?;
    let from = match body.at {
        Some(number) => at(&app, &id, "at", number).await?,
        None => latest(&app, &row, body.values.is_empty() && body.as_node.is_none()).await?,
    };
    if from.status.has_ended() {
        let what = "at: the run has ended there; name an earlier checkpoint".into();
        return Err(Problem::Field { field: "at".into(), what });
    }
    may_go_on(&app, &caller, &from)?;
    let run = key.run_id(&*app.env);
    let change = EditBody { values: body.values, as_node: body.as_node, path: body.path };
    let edit = change.check(&app, &caller, &run, &from)?;
    let edit = (!edit.writes.is_empty() || edit.as_node.is_some()).then(|| Box::new(edit));
    let log = row.conversation.as_ref().map_or_else(|| LogId::from(&run), LogId::from);
    let fork = ForkRun {
        run: run.clone(),
        from: id,
        log: row.log,
        at: from.number,
        graph: row.graph.into(),
        bundle: from.program.map_or(row.bundle, |program| program.id.clone()),
        owner: row.owner,
        conversation: row.conversation,
        edit,
        traceparent: trace.traceparent.clone(),
    };
    let input = Input::Fork(Box::new(fork));
    app.engine.send(&log, &key.input_id(&*app.env), &input).await?;
    accepted(&app, &caller, &run).await
}

/// Refuses a fork of a run that belongs to a business which is not the caller's.
fn may_go_on(app: &App, caller: &Caller, from: &RunAt) -> Result<(), Problem> {
    let business = from.options.business.clone();
    if caller.business(app, business.clone())? == business {
        return Ok(());
    }
    let what = "at: the run belongs to no business, and you are bound to one: begin a new run";
    Err(Problem::Field { field: "at".into(), what: what.into() })
}
/// Records that are looked through at once for a checkpoint.
const BACK: u32 = 16;

/// The run at its last checkpoint but its end. `failed`: where a task failed is one, too, as long as
/// nothing is changed there: what had succeeded inside of it would not read the change.
async fn latest(app: &App, row: &RunRow, failed: bool) -> Result<RunAt, Problem> {
    let mut last = row.last;
    while row.first > 0 && last >= row.first {
        let records = app.store.records_back(&row.log, (row.first, last), BACK).await?;
        let Some(oldest) = records.last().map(|record| record.number) else { break };
        for record in records.iter().filter(|record| is_checkpoint(&record.record.fact, failed)) {
            // Another run of the log may have been cancelled in between, while it was queued.
            if let Some(at) = app.engine.checkpoint(&row.id, record.number).await? {
                return Ok(at);
            }
        }
        last = oldest.saturating_sub(1);
    }
    let (run, status) = (row.id.clone(), row.status.as_str());
    Err(RunConflict::GoesOn { run, status }.into())
}

/// Whether a run may be forked where this record stands: at every checkpoint but its end.
fn is_checkpoint(fact: &Fact, failed: bool) -> bool {
    checkpoint::kind(fact).is_some_and(|kind| match kind {
        CheckpointKind::End => false,
        CheckpointKind::Failure => failed,
        _ => true,
    })
}

/// A change of a run's state.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EditBody {
    /// Channel → value, merged as a node's writes are.
    #[serde(default)]
    #[schema(value_type = Object)]
    values: Map<String, Value>,
    /// The node in whose name they are written: what follows it goes on. Nothing: what waits
    /// goes on waiting.
    as_node: Option<String>,
    /// Path of the task whose subgraph they are written to; nothing: the run's own graph.
    #[serde(default)]
    path: String,
}

/// Changes the state of a run that waits or has ended.
///
/// Of a run that has ended: what the next run of its conversation begins with.
#[utoipa::path(
    post, path = "/api/runs/{id}/state", tag = "checkpoints",
    params(("id" = String, Path)),
    request_body = EditBody,
    responses((status = 202, description = "It is done", body = RunView)),
)]
async fn edit(
    State(app): State<Arc<App>>,
    caller: Caller,
    key: IdempotencyKey,
    Path(id): Path<RunId>,
    JsonBody(body): JsonBody<EditBody>,
) -> Result<Response, Problem> {
    let row = owned(&app, &caller, &id).await?;
    let at = resting(&app, &row).await?;
    if at.status.has_ended() {
        last_of_log(&app, &row).await?;
        if body.as_node.is_some() {
            let what = "as_node: the run has ended, so that nothing goes on; fork it".into();
            return Err(Problem::Field { field: "as_node".into(), what });
        }
    }
    let edit = body.check(&app, &caller, &id, &at)?;
    verdict::submit(app.runs(), &key, &row, &Input::Edit(edit)).await?;
    accepted(&app, &caller, &id).await
}

/// The run as it stands, if nothing of it goes on.
async fn resting(app: &App, row: &RunRow) -> Result<RunAt, Problem> {
    let goes_on = || RunConflict::GoesOn { run: row.id.clone(), status: row.status.as_str() };
    if matches!(row.status, RunStatus::Queued | RunStatus::Running) {
        return Err(goes_on().into());
    }
    match app.engine.run_at(&row.id, None).await {
        Err(JournalError::Corrupt(why)) => {
            Err(verdict::unreadable(app.runs(), row, why).await?.into())
        }
        at => at?.ok_or_else(|| goes_on().into()),
    }
}

/// Refuses if another run of the conversation came after this one: its state is the present one.
async fn last_of_log(app: &App, row: &RunRow) -> Result<(), Problem> {
    let Some(conversation) = &row.conversation else { return Ok(()) };
    let filter = RunFilter { conversation: Some(conversation.clone()), ..RunFilter::default() };
    let newest = Page { after: None, limit: 1 };
    let newest = app.store.list_runs(&row.owner, filter, newest).await?.items;
    if newest.first().is_some_and(|newest| newest.id != row.id) {
        return Err(RunConflict::Over { run: row.id.clone(), status: row.status.as_str() }.into());
    }
    Ok(())
}

impl EditBody {
    /// What is sent, if graph, node and channels are there and the values fit.
    fn check(
        self,
        app: &App,
        caller: &Caller,
        run: &RunId,
        at: &RunAt,
    ) -> Result<EditRun, Problem> {
        let graphs = at.graphs();
        let Some(target) = graphs.iter().find(|graph| *graph.path == *self.path) else {
            let known = graphs.iter().map(|g| g.path.to_string()).filter(|p| !p.is_empty());
            return Err(Problem::UnknownName {
                what: "path",
                name: self.path,
                known: known.collect(),
            });
        };
        if let Some(node) = &self.as_node
            && target.graph.position(node).is_none()
        {
            let known = target.graph.nodes.iter().map(|node| node.name.to_string()).collect();
            return Err(Problem::UnknownName { what: "node", name: node.clone(), known });
        }
        let writes = input::check_edit(&target.graph, self.values, &*app.env)?;
        let (run, by) = (run.clone(), caller.id().clone());
        let edit = EditRun { run, path: self.path, as_node: self.as_node, writes, by };
        at.admits(&edit, app.catalog.limits.state).map_err(|why| {
            let field = "values".to_owned();
            Problem::Field { what: format!("{field}: {why}"), field }
        })?;
        Ok(edit)
    }
}

/// Whether to move the run, or only to try.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MigrateBody {
    /// Only say what would stand in the way.
    #[serde(default)]
    dry_run: bool,
}

/// Whether a run fits its graph as it is now.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct MigrationView {
    /// Whether nothing stands in the way.
    pub(crate) ok: bool,
    /// The hash of the graph as it is now, with all that a run of it would be pinned to.
    pub(crate) bundle: String,
    /// What stands in the way.
    pub(crate) problems: Vec<MisfitView>,
}

/// Something of a run that does not fit the graph as it is now.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct MisfitView {
    /// Path of the task whose subgraph it is in; empty for the run's own graph.
    pub(crate) path: String,
    /// The node, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// The channel, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<String>,
    /// What does not fit, and what to do.
    pub(crate) message: String,
}

impl From<migrate::Problem> for MisfitView {
    fn from(problem: migrate::Problem) -> Self {
        let text = |name: Option<Arc<str>>| name.map(|name| name.to_string());
        Self {
            path: problem.path.to_string(),
            node: text(problem.node),
            channel: text(problem.channel),
            message: problem.message,
        }
    }
}

/// Moves a run that waits to its graph as it is now, or says what stands in the way.
#[utoipa::path(
    post, path = "/api/runs/{id}/migrate", tag = "checkpoints",
    params(("id" = String, Path)),
    request_body = MigrateBody,
    responses(
        (status = 200, description = "What a try has shown", body = MigrationView),
        (status = 202, description = "It is done", body = MigrationView),
    ),
)]
async fn migrate(
    State(app): State<Arc<App>>,
    caller: Caller,
    key: IdempotencyKey,
    Path(id): Path<RunId>,
    JsonBody(body): JsonBody<MigrateBody>,
) -> Result<Response, Problem> {
    let row = owned(&app, &caller, &id).await?;
    let at = resting(&app, &row).await?;
    if at.status.has_ended() {
        return Err(RunConflict::Over { run: id, status: row.status.as_str() }.into());
    }
    let skill = at.options.skill.as_deref();
    let (program, bundle) =
        create::pinned(app.runs(), &app.library.now(), &row.graph, skill).await?;
    let problems = at.misfits(&program.graph);
    let problems: Vec<MisfitView> = problems.into_iter().map(Into::into).collect();
    let view = MigrationView { ok: problems.is_empty(), bundle: bundle.0.to_string(), problems };
    if body.dry_run {
        return Ok(Json(view).into_response());
    }
    if !view.ok {
        let problems = view.problems.iter().map(|problem| json!(problem)).collect();
        return Err(RunConflict::Migration { run: id, problems }.into());
    }
    let input = Input::Migrate { run: id.clone(), bundle };
    verdict::submit(app.runs(), &key, &row, &input).await?;
    Ok(Accepted { location: format!("/api/runs/{id}"), body: view }.into_response())
}
