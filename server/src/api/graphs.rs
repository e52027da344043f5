//! `/api/graphs`: what can be run, what is wrong with it, and its picture.
//!
//! Invariant: how a graph is made is its author's. Whoever is neither author nor administrator sees
//! what it is called, what it is for, its channels and the names of its nodes, which the events of a
//! run name too; neither its YAML, nor findings, nor the picture, whose lines hold conditions.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use exile_engine::diagnostic::{Finding, Severity};
use exile_engine::graph::{Graph, picture};
use exile_engine::library::{Library, LibraryGraph};
use exile_engine::state::Channel;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::extract::Path;
use crate::http::pagination::List;
use crate::http::problem::Problem;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read))
}

/// A graph in a list.
#[derive(Serialize, ToSchema)]
struct GraphView {
    /// Its name.
    name: String,
    /// What it is for.
    description: String,
    /// Whether it can be run.
    serves: bool,
    /// Whether what runs is older than the files, its own or a skill's: the newest does not load.
    stale: bool,
    /// The content hash that a new run is pinned to; null if it does not serve.
    bundle: Option<String>,
    /// What is wrong with the newest files.
    errors: usize,
    /// What is probably not meant.
    warnings: usize,
}

/// A graph.
#[derive(Serialize, ToSchema)]
struct WholeGraphView {
    #[serde(flatten)]
    graph: GraphView,
    /// The YAML of its newest file, which the findings are about. For authors and administrators;
    /// null for others.
    source: Option<String>,
    /// Everything found in the newest file, and in that of a skill which is older as it serves. For
    /// authors and administrators; empty for others.
    findings: Vec<FindingView>,
    /// What its state holds, as it serves; empty if it does not.
    channels: Vec<ChannelView>,
    /// Channels that a caller may set.
    input: Vec<String>,
    /// Channels that a caller receives.
    output: Vec<String>,
    /// The names and kinds of its nodes.
    nodes: Vec<NodeView>,
    /// A Mermaid flowchart of what serves; null if nothing does. For authors and administrators;
    /// null for others.
    mermaid: Option<String>,
}

/// Something found in a file.
#[derive(Serialize, ToSchema)]
pub(super) struct FindingView {
    /// Stable, e.g. `unknown_channel`.
    code: &'static str,
    /// `error` or `warning`.
    severity: &'static str,
    /// The file.
    path: String,
    /// From 1.
    line: u32,
    /// From 1, in characters.
    column: u32,
    /// What is wrong.
    message: String,
    /// What to do about it.
    fix: String,
}

/// A channel.
#[derive(Serialize, ToSchema)]
struct ChannelView {
    /// Its name.
    name: String,
    /// What it may hold.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    kind: Value,
    /// How several writes merge.
    #[schema(value_type = String)]
    reduce: Value,
    /// How long its value lives.
    #[schema(value_type = String)]
    scope: Value,
}

/// A node.
#[derive(Serialize, ToSchema)]
struct NodeView {
    /// Its name.
    name: String,
    /// Its kind, e.g. `llm`.
    kind: &'static str,
}

impl GraphView {
    fn of(library: &Library, graph: &LibraryGraph) -> Self {
        let found = findings(library, graph);
        let count = |severity| found.iter().filter(|f| f.severity == severity).count();
        Self {
            name: graph.name.clone(),
            description: graph.description.clone(),
            serves: graph.program.is_some(),
            stale: graph.is_stale() || library.stale_skills(graph).next().is_some(),
            bundle: graph.program.as_ref().map(|program| program.id.0.to_string()),
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
        }
    }
}

/// What is wrong with a graph's file, and what keeps an older version of its skills serving.
fn findings<'l>(library: &'l Library, graph: &'l LibraryGraph) -> Vec<&'l Finding> {
    let skills = library.stale_skills(graph).flat_map(|skill| &skill.findings);
    graph.findings.iter().chain(skills).collect()
}

impl From<&Finding> for FindingView {
    fn from(finding: &Finding) -> Self {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Finding { code, path, line, column, message, fix, .. } = finding.clone();
        Self { code, severity, path, line, column, message, fix }
    }
}

impl From<&Channel> for ChannelView {
    fn from(channel: &Channel) -> Self {
        // Unit variants print as their YAML names.
        Self {
            name: channel.name.to_string(),
            kind: serde_json::to_value(channel.kind).unwrap_or_default(),
            reduce: serde_json::to_value(channel.reduce).unwrap_or_default(),
            scope: serde_json::to_value(channel.scope).unwrap_or_default(),
        }
    }
}

/// Every graph, those that do not serve included.
#[utoipa::path(
    get, path = "/api/graphs", tag = "graphs",
    responses((status = 200, body = List<GraphView>)),
)]
async fn list(State(app): State<Arc<App>>) -> Json<List<GraphView>> {
    let library = app.library.now();
    let view = |graph| GraphView::of(&library, graph);
    Json(List::whole(library.graphs().iter().map(view).collect()))
}

/// One graph: its file, findings, channels and picture.
#[utoipa::path(
    get, path = "/api/graphs/{name}", tag = "graphs",
    params(("name" = String, Path)),
    responses((status = 200, body = WholeGraphView)),
)]
async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<WholeGraphView>, Problem> {
    let whole = caller.is_author();
    let library = app.library.now();
    let graph = library.graph(&name).ok_or(Problem::NotFound)?;
    let compiled: Option<&Graph> = graph.program.as_deref().map(|program| &*program.graph);
    let names = |list: &[Arc<str>]| list.iter().map(ToString::to_string).collect();
    let node =
        |n: &exile_engine::graph::GraphNode| NodeView { name: n.name.to_string(), kind: n.kind };
    let found = findings(&library, graph).into_iter().filter(|_| whole);
    Ok(Json(WholeGraphView {
        graph: GraphView::of(&library, graph),
        source: whole.then(|| graph.source.text.clone()),
        findings: found.map(Into::into).collect(),
        channels: compiled.map(|g| g.channels.iter().map(Into::into).collect()).unwrap_or_default(),
        input: compiled.map(|g| names(&g.input)).unwrap_or_default(),
        output: compiled.map(|g| names(&g.output)).unwrap_or_default(),
        nodes: compiled.map(|g| g.nodes.iter().map(node).collect()).unwrap_or_default(),
        mermaid: compiled.filter(|_| whole).map(picture::mermaid),
    }))
}
