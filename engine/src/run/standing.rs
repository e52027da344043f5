//! A run as it stood at a number of its log: values and tasks of its graph and of all inside it.
//!
//! Absent on purpose: how it is found out (`replay.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::bundle::Program;
use crate::graph::Graph;
use crate::id::ConversationId;
use crate::run::checkpoint::{CheckpointKind, Standing};
use crate::run::instance::GraphInstance;
use crate::run::migrate::{self, Problem};
use crate::run::record::{Answered, Asked, Number, RunOptions, Waiting};
use crate::run::task::Task;

/// A run as it stood at a number.
#[derive(Debug)]
pub struct RunAt {
    /// The last record up to there.
    pub number: Number,
    /// What it is, if it is a checkpoint.
    pub kind: Option<CheckpointKind>,
    /// How far it had come.
    pub status: Standing,
    /// Steps that had begun.
    pub steps: u32,
    /// What it was pinned to; `None` if that cannot be compiled here any more.
    pub program: Option<Arc<Program>>,
    /// Its graph; `None` once it has ended.
    pub root: Option<GraphInstance>,
    /// What the caller set for the whole run.
    pub options: RunOptions,
    /// The values of its log's channels.
    pub values: Map<String, Value>,
    /// Once it has ended: the channels that its caller receives, as its last record names them.
    pub given: Option<Vec<Arc<str>>>,
    /// The conversation that it is a turn of.
    pub conversation: Option<ConversationId>,
    /// Channels that are lists of messages.
    pub talk: BTreeSet<Arc<str>>,
    /// Answers so far, of this run.
    pub answered: Vec<Answered>,
    /// What it waited for, if it did.
    pub waiting: Option<Waiting>,
}

/// A graph at a number: the run's own, one inside a task, or the items of a map.
#[derive(Clone, Debug)]
pub struct GraphAt {
    /// Path of the task that it is inside; empty for the run's own.
    pub path: Arc<str>,
    /// Which.
    pub graph: Arc<Graph>,
    /// Channel → value; none of the items of a map, which have values of their own.
    pub values: Map<String, Value>,
    /// Its live tasks, in task-path order.
    pub tasks: Vec<TaskAt>,
}

/// A task at a number.
#[derive(Clone, Debug)]
pub struct TaskAt {
    /// Its whole path.
    pub path: Arc<str>,
    /// The node.
    pub node: Arc<str>,
    /// The node's kind.
    pub kind: &'static str,
    /// How far it had come.
    pub status: TaskStatus,
    /// Of an item of a map: channel → value.
    pub values: Option<Map<String, Value>>,
    /// Its questions without an answer.
    pub open: Vec<Asked>,
}

/// How far a task had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    /// It had not ended.
    Running,
    /// It, or all that went on inside it, waited for answers.
    Suspended,
    /// It had ended.
    Done,
    /// It had failed.
    Failed,
}

impl TaskStatus {
    /// As the API spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

impl RunAt {
    /// The run's graph and all that go on inside it, each after the one that it is inside. Of a
    /// run that has ended: its own, as it left it.
    #[must_use]
    pub fn graphs(&self) -> Vec<GraphAt> {
        let mut all = Vec::new();
        match (&self.root, &self.program) {
            (Some(root), _) => collect(root, &mut all),
            (None, Some(program)) => {
                let graph = program.graph.clone();
                let own = |(name, _): &(&String, &Value)| graph.channels.get(name).is_some();
                let kept = self.values.iter().filter(own);
                let values = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
                all.push(GraphAt { path: "".into(), graph, values, tasks: Vec::new() });
            }
            (None, None) => {}
        }
        all
    }

    /// The values of the channels that a caller receives, and of no others.
    #[must_use]
    pub fn output(&self) -> Map<String, Value> {
        let named = |names: &[Arc<str>]| {
            let value = |name: &Arc<str>| Some((name.to_string(), self.value(name)?));
            names.iter().filter_map(value).collect()
        };
        match (&self.given, &self.root) {
            (Some(given), _) => named(given),
            (None, Some(root)) => named(&root.graph.output),
            (None, None) => Map::new(),
        }
    }

    /// What the end of the run tells whoever watches it: its output. Of a turn of a conversation
    /// without lists of messages, which were told as they came and grow with the conversation.
    #[must_use]
    pub fn told(&self) -> Map<String, Value> {
        let mut output = self.output();
        if self.conversation.is_some() {
            output.retain(|name, _| !self.talk.contains(name.as_str()));
        }
        output
    }

    fn value(&self, channel: &str) -> Option<Value> {
        match &self.root {
            Some(root) => root.state.get(channel).map(|value| value.to_json().into_owned()),
            None => self.values.get(channel).cloned(),
        }
    }

    /// What of the run does not fit another version of its graph.
    #[must_use]
    pub fn misfits(&self, graph: &Graph) -> Vec<Problem> {
        let unreadable = || Problem {
            path: "".into(),
            node: None,
            channel: None,
            message: "the graph that the run stands on cannot be compiled here any more, so \
                      nothing is known of its tasks"
                .into(),
        };
        self.root.as_ref().map_or_else(|| vec![unreadable()], |root| migrate::check(root, graph))
    }

    /// Questions without an answer, in task-path order.
    #[must_use]
    pub fn open(&self) -> Vec<Asked> {
        let tasks = self.graphs().into_iter().flat_map(|graph| graph.tasks);
        tasks.flat_map(|task| task.open).collect()
    }
}

fn collect(instance: &GraphInstance, all: &mut Vec<GraphAt>) {
    let items = instance.items.is_some();
    all.push(GraphAt {
        path: instance.path.clone(),
        graph: instance.graph.clone(),
        values: if items { Map::new() } else { instance.state.to_json() },
        tasks: instance.tasks.iter().map(|task| task_at(instance, task, items)).collect(),
    });
    for inner in instance.tasks.iter().filter_map(|task| task.inner.as_deref()) {
        collect(inner, all);
    }
}

fn task_at(instance: &GraphInstance, task: &Task, item: bool) -> TaskAt {
    let node = &instance.graph.nodes[task.node];
    TaskAt {
        path: task.path.clone(),
        node: node.name.clone(),
        kind: node.kind,
        status: status(task),
        values: item.then(|| task.state.to_json()),
        open: unanswered(task).map(|asked| Asked::clone(asked)).collect(),
    }
}

/// What a task asked and got no answer to; none once it has ended.
fn unanswered(task: &Task) -> impl Iterator<Item = &Arc<Asked>> {
    task.open_questions().filter(|_| !task.has_ended())
}

fn status(task: &Task) -> TaskStatus {
    match task.result() {
        Some(result) if result.failure.is_some() => TaskStatus::Failed,
        Some(_) => TaskStatus::Done,
        None if unanswered(task).next().is_some() || waits_inside(task) => TaskStatus::Suspended,
        None => TaskStatus::Running,
    }
}

/// Whether something goes on inside a task and all of it waits.
fn waits_inside(task: &Task) -> bool {
    let inside = || task.inner.iter().flat_map(|instance| instance.tasks.iter());
    let live = || inside().filter(|task| !task.has_ended());
    live().next().is_some() && live().all(|task| status(task) == TaskStatus::Suspended)
}
