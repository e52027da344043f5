//! A graph that is running: its state, the tasks of its step, and the graphs inside them.
//!
//! Invariants:
//! - Only facts change it, each checked against what is live.
//! - A graph inside a task begins as its node's `enter` says, which is computed and never stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::expr::Scope;
use crate::graph::{Graph, NodeIndex};
use crate::node::{NodeError, Subgraph, Work};
use crate::run::context::Recorded;
use crate::run::record::{Called, Fact, Intent, Reply, Step, TaskDone};
use crate::state::{self, MessageMap, Op, Reducer, State, Writes};

/// A graph that is running: the run's own, or one inside a task.
#[derive(Debug)]
pub struct Frame {
    /// Path of the task it is inside; empty for the run's own.
    pub path: Arc<str>,
    /// What runs.
    pub graph: Arc<Graph>,
    /// The state as the frame began with it.
    pub before: Arc<State>,
    /// The state that the next step reads.
    pub state: Arc<State>,
    /// The tasks of this step, in task-path order.
    pub tasks: Vec<Task>,
    /// Join slots that hold an arrival.
    pub filled: Vec<[usize; 2]>,
    /// Whether its first step has begun.
    pub begun: bool,
    /// What expressions read besides the state; `now` is when the step began.
    pub scope: Scope,
    visits: Vec<u32>,
}

/// One firing of a node.
#[derive(Debug)]
pub struct Task {
    /// Which node.
    pub node: NodeIndex,
    /// `node:visit`.
    pub id: Arc<str>,
    /// The ids from the run's own graph down to here, joined by `/`.
    pub path: Arc<str>,
    /// Calls that are under way, by name.
    pub open: BTreeMap<Arc<str>, Intent>,
    /// Calls that ended, by name.
    pub replies: Arc<BTreeMap<Arc<str>, Recorded>>,
    /// How it ended, once it has.
    pub result: Option<TaskResult>,
    /// The graph inside it.
    pub inner: Option<Box<Frame>>,
}

/// How a task ended.
#[derive(Clone, Debug, Default)]
pub struct TaskResult {
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What it writes.
    pub writes: Writes,
    /// Why it failed.
    pub error: Option<NodeError>,
    /// Whether a record of its own says so.
    pub recorded: bool,
}

impl Frame {
    /// A frame whose first step has not begun.
    pub(super) fn new(path: Arc<str>, graph: Arc<Graph>, state: State, scope: Scope) -> Self {
        let state = Arc::new(state);
        Self {
            path,
            visits: vec![0; graph.nodes.len()],
            graph,
            before: state.clone(),
            state,
            tasks: Vec::new(),
            filled: Vec::new(),
            begun: false,
            scope,
        }
    }

    /// The frame inside the task at `path` below this one; itself for its own path.
    pub fn frame_mut(&mut self, path: &str) -> Option<&mut Self> {
        if *self.path == *path {
            return Some(self);
        }
        let holds = |t: &&mut Task| {
            path.strip_prefix(&*t.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.tasks.iter_mut().find(holds)?.inner.as_mut()?.frame_mut(path)
    }

    /// The task at `path`, here or further in.
    pub fn task_mut(&mut self, path: &str) -> Option<&mut Task> {
        let outer = path.rsplit_once('/').map_or("", |(outer, _)| outer);
        self.frame_mut(outer)?.tasks.iter_mut().find(|t| *t.path == *path)
    }

    /// All tasks, those of inner frames after the task they are inside.
    pub fn walk<'f>(&'f self, visit: &mut dyn FnMut(&'f Self, &'f Task)) {
        for task in &self.tasks {
            visit(self, task);
            if let Some(inner) = &task.inner {
                inner.walk(visit);
            }
        }
    }

    /// Tasks that have not ended, here and inside tasks that have not.
    pub fn walk_live<'f>(&'f self, visit: &mut dyn FnMut(&'f Self, &'f Task)) {
        for task in self.tasks.iter().filter(|t| t.result.is_none()) {
            visit(self, task);
            if let Some(inner) = &task.inner {
                inner.walk_live(visit);
            }
        }
    }

    pub(super) fn advance(
        &mut self,
        fact: &Fact,
        at_ms: i64,
        messages: &MessageMap,
    ) -> Result<(), String> {
        match fact {
            Fact::Intent(intent) => {
                let task = self.live_task(&intent.task)?;
                task.open.insert(intent.call.clone(), intent.clone());
                Ok(())
            }
            Fact::Called(called) => self.called(called, messages),
            Fact::Done(done) => self.done(done, messages),
            Fact::Step(step) => {
                let frame = self
                    .frame_mut(&step.path)
                    .ok_or(format!("no graph runs at `{}`", step.path))?;
                frame.step(step, at_ms, messages)
            }
            Fact::Handed {} => Ok(()),
            Fact::Started(_) | Fact::Resumed { .. } | Fact::Ended(_) | Fact::Snapshot { .. } => {
                Err("not a fact of a task".to_owned())
            }
        }
    }

    fn live_task(&mut self, path: &str) -> Result<&mut Task, String> {
        let task = self.task_mut(path).ok_or(format!("no task `{path}` is live"))?;
        if task.result.is_some() {
            return Err(format!("task `{path}` has ended"));
        }
        Ok(task)
    }

    fn called(&mut self, called: &Called, messages: &MessageMap) -> Result<(), String> {
        let task = self.live_task(&called.task)?;
        let (path, call) = (&called.task, &called.call);
        task.open.remove(call).ok_or(format!("call `{call}` of `{path}` was not begun"))?;
        let message = match &called.reply {
            Reply::Message { id, .. } => {
                Some(messages.get(id).cloned().ok_or(format!("message {id} is missing"))?)
            }
            _ => None,
        };
        let recorded = Recorded { called: Arc::new(called.clone()), message };
        Arc::make_mut(&mut task.replies).insert(call.clone(), recorded);
        Ok(())
    }

    fn done(&mut self, done: &TaskDone, messages: &MessageMap) -> Result<(), String> {
        let outer = done.task.rsplit_once('/').map_or("", |(outer, _)| outer);
        let frame = self.frame_mut(outer).ok_or(format!("no graph runs at `{outer}`"))?;
        let writes = hydrate(&frame.graph, &done.writes, messages)?;
        let task = frame
            .tasks
            .iter_mut()
            .find(|t| t.path == done.task)
            .ok_or(format!("no task `{}` is live", done.task))?;
        if task.result.as_ref().is_some_and(|r| r.recorded) {
            return Err(format!("task `{}` has ended", done.task));
        }
        let error = done.error.clone();
        if error.is_none() {
            // What a graph that failed inside leaves behind is decided when the run ends.
            task.inner = None;
        }
        task.result = Some(TaskResult { took_ms: done.took_ms, writes, error, recorded: true });
        Ok(())
    }

    fn step(&mut self, step: &Step, at_ms: i64, messages: &MessageMap) -> Result<(), String> {
        for task in &self.tasks {
            let listed = step.done.iter().any(|d| d.task == task.id);
            if !listed && !task.result.as_ref().is_some_and(|r| r.recorded) {
                return Err(format!("task `{}` has not ended", task.path));
            }
        }
        Arc::make_mut(&mut self.state).apply(&step.delta, messages).map_err(|e| e.to_string())?;
        self.begin(&step.next, &step.filled, at_ms)
    }

    /// Makes the tasks of the next step.
    pub(super) fn begin(
        &mut self,
        next: &[String],
        filled: &[[usize; 2]],
        at_ms: i64,
    ) -> Result<(), String> {
        self.scope.now = Timestamp::from_millisecond(at_ms).unwrap_or_default();
        self.begun = true;
        self.filled = filled.to_vec();
        self.tasks.clear();
        for id in next {
            let task = self.task(id)?;
            self.tasks.push(task);
        }
        Ok(())
    }

    fn task(&mut self, id: &str) -> Result<Task, String> {
        let (name, visit) = id.rsplit_once(':').ok_or(format!("`{id}` is no task"))?;
        let node = self.graph.position(name).ok_or(format!("no node is named `{name}`"))?;
        self.visits[node] = visit.parse().map_err(|_| format!("`{id}` is no task"))?;
        let id: Arc<str> = id.into();
        let path =
            if self.path.is_empty() { id.clone() } else { format!("{}/{id}", self.path).into() };
        let (inner, result) = match &self.graph.nodes[node].work {
            Work::Leaf(_) => (None, None),
            Work::Sub(sub) => match enter(&**sub, self, &path) {
                Ok(frame) => (Some(Box::new(frame)), None),
                Err(error) => (None, Some(TaskResult { error: Some(error), ..Default::default() })),
            },
        };
        let (open, replies) = (BTreeMap::new(), Arc::default());
        Ok(Task { node, id, path, open, replies, result, inner })
    }

    /// The ids of tasks that would fire these nodes now.
    #[must_use]
    pub fn task_ids(&self, nodes: &[NodeIndex]) -> Vec<String> {
        let id = |&n: &NodeIndex| format!("{}:{}", self.graph.nodes[n].name, self.visits[n] + 1);
        nodes.iter().map(id).collect()
    }
}

fn enter(sub: &dyn Subgraph, outer: &Frame, path: &Arc<str>) -> Result<Frame, NodeError> {
    let writes = sub.enter(&outer.state, &outer.scope)?;
    let mut state = State::new(sub.graph().channels.clone());
    for (name, value) in writes {
        state.restore(&name, Arc::new(value));
    }
    Ok(Frame::new(path.clone(), sub.graph().clone(), state, outer.scope.clone()))
}

/// Writes as a record holds them: messages by id.
#[must_use]
pub fn dehydrate(graph: &Graph, writes: &Writes) -> Map<String, Value> {
    let id = |message: &Value| message.get("id").cloned().unwrap_or(Value::Null);
    let short = |(name, value): (&Arc<str>, &Value)| {
        let value = match (holds_messages(graph, name), value) {
            (true, Value::Array(items)) => items.iter().map(id).collect(),
            (true, message) => Value::Array(vec![id(message)]),
            (false, value) => value.clone(),
        };
        (name.to_string(), value)
    };
    writes.iter().map(short).collect()
}

fn hydrate(
    graph: &Graph,
    writes: &Map<String, Value>,
    messages: &MessageMap,
) -> Result<Writes, String> {
    let mut full = Writes::new();
    for (name, value) in writes {
        let value = if holds_messages(graph, name) {
            let mut slot = Arc::new(Value::Array(Vec::new()));
            let ids = value.as_array().into_iter().flatten().filter_map(Value::as_str);
            let op = Op::Messages(ids.map(Into::into).collect());
            state::apply(&mut slot, &op, messages).map_err(|e| e.to_string())?;
            Arc::unwrap_or_clone(slot)
        } else {
            value.clone()
        };
        full.insert(name.as_str().into(), value);
    }
    Ok(full)
}

/// Whether a channel of the graph is a list of messages.
#[must_use]
pub fn holds_messages(graph: &Graph, channel: &str) -> bool {
    graph.channels.get(channel).is_some_and(|c| c.reduce == Reducer::Messages)
}
