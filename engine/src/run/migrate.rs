//! Whether a run that waits can go on under another version of its graph.
//!
//! Every live task needs its node, with the same kind, at every depth; every channel must admit
//! the value it holds; and what joins hold must still have its slot.

use std::sync::Arc;

use serde::Serialize;

use crate::graph::{Graph, GraphNode};
use crate::node::Work;
use crate::run::instance::GraphInstance;
use crate::state::{ChannelValue, short};

/// What stands against a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Path of the task inside whose graph it is; empty for the run's own.
    pub path: Arc<str>,
    /// The node, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Arc<str>>,
    /// The channel, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<Arc<str>>,
    /// What is wrong and what to do.
    pub message: String,
}

/// Everything that stands against going on with `graph`; nothing is changed.
#[must_use]
pub fn check(instance: &GraphInstance, graph: &Graph) -> Vec<Problem> {
    let mut problems = channels(instance, graph);
    problems.extend(joins(instance, graph));
    for task in instance.tasks.iter() {
        let old = &instance.graph.nodes[task.node];
        let problem = |message: String| {
            let (path, node) = (instance.path.clone(), Some(old.name.clone()));
            Problem { path, node, channel: None, message }
        };
        let Some(new) = graph.position(&old.name).map(|place| &graph.nodes[place]) else {
            problems.push(problem(format!("`{}` is live, and the new graph lacks it", old.name)));
            continue;
        };
        if new.kind != old.kind {
            let (name, old, new) = (&old.name, old.kind, new.kind);
            problems.push(problem(format!("`{name}` is live as `{old}` and is now `{new}`")));
        } else if let Some(inner) = &task.inner {
            match inside(new) {
                Some(graph) => problems.extend(check(inner, graph)),
                None => problems.push(problem(format!("`{}` holds no graph any more", old.name))),
            }
        }
    }
    problems
}

/// The graph inside a node, if it holds one.
#[must_use]
pub fn inside(node: &GraphNode) -> Option<&Arc<Graph>> {
    match &node.work {
        Work::Pure(_) | Work::Leaf(_) => None,
        Work::Sub(sub) => Some(sub.graph()),
        Work::Each(each) => Some(each.graph()),
    }
}

fn channels(instance: &GraphInstance, graph: &Graph) -> Vec<Problem> {
    let mut problems = Vec::new();
    for old in instance.graph.channels.iter() {
        let Some(value) = instance.state.get(&old.name) else { continue };
        let message = match graph.channels.get(&old.name) {
            None if *value == *old.initial => continue,
            None => format!("`{}` holds {}, and the new graph lacks it", old.name, shown(value)),
            Some(new) if new.admitted(value.clone()).is_some() => continue,
            Some(new) => {
                let kind = format!("{:?}", new.kind).to_lowercase();
                format!("`{}` holds {}, which is no {kind}", old.name, shown(value))
            }
        };
        let (path, channel) = (instance.path.clone(), Some(old.name.clone()));
        problems.push(Problem { path, node: None, channel, message });
    }
    problems
}

fn shown(value: &ChannelValue) -> String {
    short(&value.to_json())
}

/// A join holds arrivals by place: the one at that place must lead to the same node, from the
/// same source.
fn joins(instance: &GraphInstance, graph: &Graph) -> Vec<Problem> {
    let name = |graph: &Graph, join: usize, slot: usize| {
        let join = graph.joins.get(join)?;
        let (from, to) = (join.slots.get(slot)?.from, join.target);
        Some((graph.nodes[from].name.clone(), graph.nodes[to].name.clone()))
    };
    let filled = instance.joins.filled(&instance.graph);
    let held = filled.into_iter().chain(instance.joins.owed(&instance.graph));
    held.filter(|[join, slot]| name(&instance.graph, *join, *slot) != name(graph, *join, *slot))
        .map(|[join, slot]| {
            let (from, to) = name(&instance.graph, join, slot).unwrap_or_default();
            let message =
                format!("the join of `{to}` holds the arrival of `{from}`, and has moved");
            Problem { path: instance.path.clone(), node: Some(to), channel: None, message }
        })
        .collect()
}
