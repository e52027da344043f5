//! `/api/runs/{id}/checkpoints`, `state`: where a run stands, and where it stood.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use exile_engine::id::RunId;
use exile_engine::run::checkpoint;
use exile_engine::run::record::Number;
use exile_engine::run::standing::{GraphAt, RunAt, TaskAt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::view::owned;
use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::extract::{Path, Query};
use crate::http::pagination::{List, PageQuery};
use crate::http::problem::Problem;
use crate::runs::interrupts::InterruptView;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read)).routes(routes!(state))
}

/// A place of a run's history that can be read, compared and forked from.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct CheckpointView {
    /// Its number in the log.
    pub(crate) number: Number,
    /// When it became true.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) at: Timestamp,
    /// What stands there: `start`, `fork`, `step`, `failure`, `answer`, `edit`, `migration`,
    /// `waiting` or `end`.
    #[schema(value_type = String)]
    pub(crate) kind: Cow<'static, str>,
    /// How many steps of the run, of all its graphs, have begun.
    pub(crate) step: u32,
    /// Path of the task whose subgraph changed; empty for the run's own graph.
    pub(crate) path: String,
    /// Paths of the tasks that ended with it.
    pub(crate) ended: Vec<String>,
    /// Paths of the tasks that begin with it.
    pub(crate) next: Vec<String>,
    /// How far the run had come: `running`, `waiting`, `needs_attention`, `finished`, `failed` or
    /// `cancelled`.
    #[schema(value_type = String)]
    pub(crate) status: Cow<'static, str>,
}

impl From<checkpoint::Checkpoint> for CheckpointView {
    fn from(checkpoint: checkpoint::Checkpoint) -> Self {
        let texts = |paths: Vec<Arc<str>>| paths.iter().map(ToString::to_string).collect();
        Self {
            number: checkpoint.number,
            at: Timestamp::from_millisecond(checkpoint.at_ms).unwrap_or_default(),
            kind: checkpoint.kind.as_str().into(),
            step: checkpoint.step,
            path: checkpoint.path.to_string(),
            ended: texts(checkpoint.ended),
            next: texts(checkpoint.next),
            status: checkpoint.status.as_str().into(),
        }
    }
}

/// A run as it stood at a number.
#[derive(Serialize, ToSchema)]
struct StateView {
    /// The number; 0 before the run began.
    number: Number,
    /// How far the run had come.
    status: &'static str,
    /// How many steps of the run, of all its graphs, had begun.
    step: u32,
    /// Channel → value, of the run's own graph.
    #[schema(value_type = Object)]
    values: Map<String, Value>,
    /// Its live tasks; none once the run has ended.
    tasks: Vec<TaskView>,
    /// The graphs that go on inside tasks, at any depth, and the items of maps; each after the
    /// one that it is inside.
    subgraphs: Vec<SubgraphView>,
}

/// A graph that goes on inside a task.
#[derive(Serialize, ToSchema)]
struct SubgraphView {
    /// Path of the task that it is inside.
    path: String,
    /// Its name.
    graph: String,
    /// Channel → value; empty of a map, whose items have values of their own.
    #[schema(value_type = Object)]
    values: Map<String, Value>,
    /// Its live tasks; of a map its items.
    tasks: Vec<TaskView>,
}

/// One firing of a node.
#[derive(Serialize, ToSchema)]
struct TaskView {
    /// Its path: `node:visit`, those of outer graphs before it.
    task: String,
    /// The node.
    node: String,
    /// The node's kind.
    kind: &'static str,
    /// `running`, `suspended` (it waits for answers), `done` or `failed`.
    status: &'static str,
    /// Of an item of a map: channel → value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    values: Option<Map<String, Value>>,
    /// Its questions without an answer.
    interrupts: Vec<InterruptView>,
}

impl From<TaskAt> for TaskView {
    fn from(task: TaskAt) -> Self {
        Self {
            task: task.path.to_string(),
            node: task.node.to_string(),
            kind: task.kind,
            status: task.status.as_str(),
            values: task.values,
            interrupts: task.open.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<GraphAt> for SubgraphView {
    fn from(graph: GraphAt) -> Self {
        Self {
            path: graph.path.to_string(),
            graph: graph.graph.name.to_string(),
            values: graph.values,
            tasks: graph.tasks.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<RunAt> for StateView {
    fn from(at: RunAt) -> Self {
        let mut graphs = at.graphs().into_iter();
        // Of a run whose graph cannot be compiled any more the values are known all the same.
        let (values, tasks) =
            graphs.next().map_or((at.values, Vec::new()), |g| (g.values, g.tasks));
        Self {
            number: at.number,
            status: at.status.as_str(),
            step: at.steps,
            values,
            tasks: tasks.into_iter().map(Into::into).collect(),
            subgraphs: graphs.map(Into::into).collect(),
        }
    }
}

/// The run's checkpoints, oldest first.
#[utoipa::path(
    get, path = "/api/runs/{id}/checkpoints", tag = "checkpoints",
    params(("id" = String, Path), PageQuery),
    responses((status = 200, body = List<CheckpointView>)),
)]
async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<RunId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<List<CheckpointView>>, Problem> {
    let row = owned(&app, &caller, &id).await?;
    let page = query.page();
    let cursor = page.after.as_deref().map(str::parse).transpose();
    let cursor =
        cursor.map_err(|_| Problem::Unreadable("`after` is no cursor of this list".into()))?;
    let page = app.engine.checkpoints(&row.id, cursor, page.limit as usize).await?;
    let items = page.items.into_iter().map(Into::into).collect();
    Ok(Json(List { items, next: page.next.map(|next| next.to_string()) }))
}

/// The run as it stood at a checkpoint: values and tasks of its graph and of all inside it.
#[utoipa::path(
    get, path = "/api/runs/{id}/checkpoints/{number}", tag = "checkpoints",
    params(("id" = String, Path), ("number" = Number, Path)),
    responses((status = 200, body = StateView)),
)]
async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((id, number)): Path<(RunId, String)>,
) -> Result<Json<StateView>, Problem> {
    let row = owned(&app, &caller, &id).await?;
    let number = number.parse().map_err(|_| Problem::NotFound)?;
    let at = app.engine.checkpoint(&row.id, number).await?.ok_or(Problem::NotFound)?;
    Ok(Json(at.into()))
}

/// The run as it stands, or as it ended.
#[utoipa::path(
    get, path = "/api/runs/{id}/state", tag = "checkpoints",
    params(("id" = String, Path)),
    responses((status = 200, body = StateView)),
)]
async fn state(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<RunId>,
) -> Result<Json<StateView>, Problem> {
    let row = owned(&app, &caller, &id).await?;
    let view = match app.engine.run_as_far(&row.id, None).await? {
        Some(at) => at.into(),
        None => StateView {
            number: 0,
            status: row.status.as_str(),
            step: 0,
            values: Map::new(),
            tasks: Vec::new(),
            subgraphs: Vec::new(),
        },
    };
    Ok(Json(view))
}

/// The run at a checkpoint that a request names in `field`.
pub(super) async fn at(
    app: &App,
    run: &RunId,
    field: &str,
    number: Number,
) -> Result<RunAt, Problem> {
    app.engine.checkpoint(run, number).await?.ok_or_else(|| {
        let list = format!("GET /api/runs/{run}/checkpoints lists them");
        let what = format!("{field}: {number} is no checkpoint of this run; {list}");
        Problem::Field { field: field.to_owned(), what }
    })
}
