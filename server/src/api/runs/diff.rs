//! `/api/runs/{id}/diff`: what changed between two checkpoints, at any depth of subgraphs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use exile_engine::id::RunId;
use exile_engine::run::record::Number;
use exile_engine::run::standing::GraphAt;
use exile_engine::run::writes::holds_messages;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::checkpoints::at;
use super::view::owned;
use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::extract::{Path, Query};
use crate::http::problem::Problem;
use crate::runs::diff::{self, Change};

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(compare))
}

/// Which two checkpoints.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DiffQuery {
    /// The number of a checkpoint of the run.
    #[param(required = true, value_type = Number)]
    from: Option<Number>,
    /// The number of another one.
    #[param(required = true, value_type = Number)]
    to: Option<Number>,
}

/// What differs between two checkpoints.
#[derive(Serialize, ToSchema)]
struct DiffView {
    /// The number of the first.
    from: Number,
    /// The number of the second.
    to: Number,
    /// Graphs that differ: the run's own first, then those inside it, by path.
    graphs: Vec<GraphDiff>,
}

/// What differs in one graph.
#[derive(Serialize, ToSchema)]
struct GraphDiff {
    /// Path of the task that it is inside; empty for the run's own.
    path: String,
    /// Its name.
    graph: String,
    /// `added` (it goes on at `to` alone), `removed` or `changed`.
    change: &'static str,
    /// Channels that differ.
    channels: Vec<ChannelDiff>,
}

/// What differs in one channel.
#[derive(Serialize, ToSchema)]
struct ChannelDiff {
    /// Which.
    channel: String,
    /// `added`, `removed` or `changed`.
    change: &'static str,
    /// Places that differ; of messages by id.
    changes: Vec<Change>,
}

/// What differs between two checkpoints of the run, at any depth of its subgraphs.
#[utoipa::path(
    get, path = "/api/runs/{id}/diff", tag = "checkpoints",
    params(("id" = String, Path), DiffQuery),
    responses((status = 200, body = DiffView)),
)]
async fn compare(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<RunId>,
    Query(query): Query<DiffQuery>,
) -> Result<Json<DiffView>, Problem> {
    let row = owned(&app, &caller, &id).await?;
    let (Some(from), Some(to)) = (query.from, query.to) else {
        return Err(Problem::Unreadable("`from` and `to` name the two checkpoints".into()));
    };
    let earlier = at(&app, &row.id, "from", from).await?;
    let later = at(&app, &row.id, "to", to).await?;
    let graphs = differing(earlier.graphs(), later.graphs());
    Ok(Json(DiffView { from, to, graphs }))
}

fn differing(from: Vec<GraphAt>, to: Vec<GraphAt>) -> Vec<GraphDiff> {
    type Pair = (Option<GraphAt>, Option<GraphAt>);
    let mut pairs: BTreeMap<Arc<str>, Pair> = BTreeMap::new();
    for graph in from {
        let path = graph.path.clone();
        pairs.entry(path).or_default().0 = Some(graph);
    }
    for graph in to {
        let path = graph.path.clone();
        pairs.entry(path).or_default().1 = Some(graph);
    }
    pairs.values().filter_map(|(from, to)| graph_diff(from.as_ref(), to.as_ref())).collect()
}

fn graph_diff(from: Option<&GraphAt>, to: Option<&GraphAt>) -> Option<GraphDiff> {
    let change = change(from.is_some(), to.is_some());
    let known = to.or(from)?;
    let (path, graph) = (known.path.to_string(), known.graph.name.to_string());
    let mut names: Vec<&String> = known.values.keys().collect();
    // After a migration the earlier graph may have had channels that are gone.
    let earlier = from.iter().flat_map(|graph| graph.values.keys());
    names.extend(earlier.filter(|name| !known.values.contains_key(*name)));
    let differs = |name: &String| {
        let talk = holds_messages(&known.graph, name);
        let [from, to] = [from, to].map(|graph| graph?.values.get(name));
        channel_diff(name, talk, from, to)
    };
    let channels: Vec<ChannelDiff> = names.into_iter().filter_map(differs).collect();
    let same = change == "changed" && channels.is_empty();
    (!same).then_some(GraphDiff { path, graph, change, channels })
}

fn channel_diff(
    name: &str,
    talk: bool,
    from: Option<&Value>,
    to: Option<&Value>,
) -> Option<ChannelDiff> {
    let change = change(from.is_some(), to.is_some());
    let changes = match (from, to) {
        (Some(from), Some(to)) if talk => diff::messages(from, to),
        (Some(from), Some(to)) => diff::values(from, to),
        _ => vec![Change::new("", from, to)],
    };
    let channel = name.to_owned();
    (!changes.is_empty()).then_some(ChannelDiff { channel, change, changes })
}

fn change(from: bool, to: bool) -> &'static str {
    match (from, to) {
        (false, _) => "added",
        (_, false) => "removed",
        _ => "changed",
    }
}
