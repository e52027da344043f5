//! A graph that is running: its state, its live tasks, and the graphs inside them.
//!
//! Invariants:
//! - Only facts change it (`advance.rs`), each checked against what is live.
//! - A task reads the state as it stood when the task began.
//! - A graph inside a task begins as its node's `enter` says, which is computed and never stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::expr::Scope;
use crate::graph::{Graph, NodeIndex, Schedule};
use crate::id::InterruptId;
use crate::message::Message;
use crate::node::{ForEach, NodeError, Subgraph, Work};
use crate::run::context::Recorded;
use crate::run::record::{Asked, Fired, Intent};
use crate::run::schedule::{Firing, Held};
use crate::state::{self, MessageMap, Op, Reducer, State, Writes};

/// A graph that is running: the run's own, one inside a task, or the items of a list.
#[derive(Debug)]
pub struct Frame {
    /// Path of the task it is inside; empty for the run's own.
    pub path: Arc<str>,
    /// What runs.
    pub graph: Arc<Graph>,
    /// The state as the frame began with it.
    pub before: Arc<State>,
    /// The state after the last step.
    pub state: Arc<State>,
    /// Live tasks, in the order in which they began; of one step in task-path order.
    pub tasks: Vec<Task>,
    /// What joins hold.
    pub held: Held,
    /// Whether its first step has begun.
    pub begun: bool,
    /// Of the items of a list: how many are worked on at the same time, at most.
    pub items: Option<usize>,
    /// What expressions read besides the state; `now` is when the last step began.
    pub scope: Scope,
    visits: Vec<u32>,
}

/// One firing of a node.
#[derive(Debug)]
pub struct Task {
    /// Which node.
    pub node: NodeIndex,
    /// `node:visit`; of an item `item:number`, counted from 1.
    pub id: Arc<str>,
    /// The ids from the run's own graph down to here, joined by `/`.
    pub path: Arc<str>,
    /// The state that it reads.
    pub state: Arc<State>,
    /// When it began.
    pub now: Timestamp,
    /// Calls that are under way, by name.
    pub open: BTreeMap<Arc<str>, Intent>,
    /// Calls that ended, by name.
    pub replies: Arc<BTreeMap<Arc<str>, Recorded>>,
    /// What it asked people, by call name.
    pub asks: Arc<BTreeMap<Arc<str>, Question>>,
    /// Calls of which something was streamed that is void now.
    pub void: BTreeSet<Arc<str>>,
    /// Which attempt this is; the first is 1.
    pub attempt: u32,
    /// When the attempt begins, in milliseconds since 1970; 0: at once.
    pub not_before_ms: i64,
    /// How it ended, once it has.
    pub result: Option<TaskResult>,
    /// The graph inside it.
    pub inner: Option<Box<Frame>>,
}

/// A question, and its answer once there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// As it was asked.
    pub asked: Arc<Asked>,
    /// As it was answered.
    pub answer: Option<Answer>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What was said; null if it expired without a default.
    pub value: Value,
    /// The message of the conversation that said it.
    pub message: Option<Arc<Message>>,
    /// Nobody answered in time.
    pub expired: bool,
}

/// How a task ended.
#[derive(Clone, Debug, Default)]
pub struct TaskResult {
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What it writes.
    pub writes: Writes,
    /// Nodes that it fires in place of its lines.
    pub goto: Option<Vec<Arc<str>>>,
    /// Why it failed.
    pub error: Option<NodeError>,
    /// Whether it was taken from the cache.
    pub cached: bool,
    /// Whether a record of its own says so.
    pub recorded: bool,
}

impl Task {
    /// Questions without an answer.
    pub fn open_questions(&self) -> impl Iterator<Item = &Arc<Asked>> {
        self.asks.values().filter(|q| q.answer.is_none()).map(|q| &q.asked)
    }
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
            held: Held::default(),
            begun: false,
            items: None,
            scope,
        }
    }

    /// Whether each task is a step of its own.
    #[must_use]
    pub fn flows(&self) -> bool {
        self.graph.schedule == Schedule::Dataflow && self.items.is_none()
    }

    /// The frame at `path`: itself, or one inside its tasks.
    #[must_use]
    pub fn frame(&self, path: &str) -> Option<&Self> {
        match self.below(path) {
            None => (*self.path == *path).then_some(self),
            Some(id) => self.tasks[self.place(id)?].inner.as_deref()?.frame(path),
        }
    }

    /// The frame at `path`: itself, or one inside its tasks.
    pub fn frame_mut(&mut self, path: &str) -> Option<&mut Self> {
        match self.below(path) {
            None => (*self.path == *path).then_some(self),
            Some(id) => {
                let place = self.place(id)?;
                self.tasks[place].inner.as_deref_mut()?.frame_mut(path)
            }
        }
    }

    /// The task at `path`, here or further in.
    #[must_use]
    pub fn task(&self, path: &str) -> Option<&Task> {
        let (outer, id) = split(path);
        let frame = self.frame(outer)?;
        Some(&frame.tasks[frame.place(id)?])
    }

    /// The task at `path`, here or further in.
    pub fn task_mut(&mut self, path: &str) -> Option<&mut Task> {
        let (outer, id) = split(path);
        let frame = self.frame_mut(outer)?;
        let place = frame.place(id)?;
        Some(&mut frame.tasks[place])
    }

    /// The id of the task of this frame on the way to `path`; `None` if `path` leads no further.
    fn below<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(&*self.path)?;
        let rest = if self.path.is_empty() { rest } else { rest.strip_prefix('/')? };
        rest.split('/').next().filter(|id| !id.is_empty())
    }

    /// Where the task of that id stands.
    fn place(&self, id: &str) -> Option<usize> {
        if self.items.is_some() {
            let number: usize = id.rsplit_once(':')?.1.parse().ok()?;
            return number.checked_sub(1).filter(|place| *place < self.tasks.len());
        }
        self.tasks.iter().position(|t| *t.id == *id)
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

    /// Questions without an answer, of every live task.
    #[must_use]
    pub fn open_questions(&self) -> Vec<Arc<Asked>> {
        let mut all = Vec::new();
        self.walk_live(&mut |_, task| all.extend(task.open_questions().cloned()));
        all
    }

    /// The path of the task that asked.
    #[must_use]
    pub fn who_asked(&self, interrupt: &InterruptId) -> Option<Arc<str>> {
        let mut found = None;
        self.walk_live(&mut |_, task| {
            if task.asks.values().any(|q| q.asked.id == *interrupt) {
                found = Some(task.path.clone());
            }
        });
        found
    }

    /// Makes the tasks that a step fired.
    pub(super) fn begin(&mut self, fired: &Fired, at_ms: i64) -> Result<(), String> {
        self.scope.now = Timestamp::from_millisecond(at_ms).unwrap_or_default();
        self.begun = true;
        self.held = Held { filled: fired.filled.clone(), owed: fired.owed.clone() };
        for id in &fired.next {
            let (name, visit) = id.rsplit_once(':').ok_or(format!("`{id}` is no task"))?;
            let node = self.graph.position(name).ok_or(format!("no node is named `{name}`"))?;
            self.visits[node] = visit.parse().map_err(|_| format!("`{id}` is no task"))?;
            let task = self.make(node, id.as_str().into(), self.state.clone());
            self.tasks.push(task);
        }
        Ok(())
    }

    /// A task and the graph inside it, if there is one. What keeps that graph from beginning is
    /// the task's failure.
    pub(super) fn make(&self, node: NodeIndex, id: Arc<str>, state: Arc<State>) -> Task {
        let path: Arc<str> =
            if self.path.is_empty() { id.clone() } else { format!("{}/{id}", self.path).into() };
        let inner = match &self.graph.nodes[node].work {
            Work::Leaf(_) => Ok(None),
            Work::Sub(sub) => self.enter(&**sub, &state, &path).map(Some),
            Work::Each(each) => self.enter_items(&**each, &state, &path).map(Some),
        };
        let (inner, result) = match inner {
            Ok(inner) => (inner.map(Box::new), None),
            Err(error) => (None, Some(TaskResult { error: Some(error), ..Default::default() })),
        };
        Task {
            node,
            id,
            path,
            state,
            now: self.scope.now,
            open: BTreeMap::new(),
            replies: Arc::default(),
            asks: Arc::default(),
            void: BTreeSet::new(),
            attempt: 1,
            not_before_ms: 0,
            result,
            inner,
        }
    }

    fn enter(&self, sub: &dyn Subgraph, outer: &State, path: &Arc<str>) -> Result<Self, NodeError> {
        let mut state = State::new(sub.graph().channels.clone());
        for (name, value) in sub.enter(outer, &self.scope)? {
            state.restore(&name, Arc::new(value));
        }
        Ok(Self::new(path.clone(), sub.graph().clone(), state, self.scope.clone()))
    }

    /// The items of a list, all of them live: which of them are worked on is the driver's choice.
    fn enter_items(
        &self,
        each: &dyn ForEach,
        outer: &State,
        path: &Arc<str>,
    ) -> Result<Self, NodeError> {
        let mut common = State::new(each.graph().channels.clone());
        for (name, value) in outer.iter() {
            common.restore(name, value.clone());
        }
        let items = each.enter(outer, &self.scope)?;
        let (graph, scope) = (each.graph().clone(), self.scope.clone());
        let mut frame = Self::new(path.clone(), graph, common, scope);
        frame.begun = true;
        frame.items = Some(each.concurrency().max(1));
        frame.tasks.reserve_exact(items.len());
        for (number, writes) in items.into_iter().enumerate() {
            let mut state = State::clone(&frame.state);
            for (name, value) in writes {
                state.restore(&name, Arc::new(value));
            }
            let task = frame.make(0, format!("item:{}", number + 1).into(), Arc::new(state));
            frame.tasks.push(task);
        }
        Ok(frame)
    }

    /// What stands here belongs to another run from now on: calls that were open were never made.
    pub(super) fn fork(&mut self, run: &crate::id::RunId) {
        self.scope.run = run.clone();
        for task in &mut self.tasks {
            task.open.clear();
            if let Some(inner) = &mut task.inner {
                inner.fork(run);
            }
        }
    }

    /// What a firing is in a record: tasks by name and visit.
    #[must_use]
    pub fn fired(&self, firing: &Firing) -> Fired {
        let id = |&n: &NodeIndex| format!("{}:{}", self.graph.nodes[n].name, self.visits[n] + 1);
        Fired {
            next: firing.next.iter().map(id).collect(),
            filled: firing.held.filled.clone(),
            owed: firing.held.owed.clone(),
        }
    }

    /// The frame over another version of its graph: tasks and channels stay where they are, by
    /// name. `Err` says what has no place there.
    pub(super) fn rebase(&mut self, graph: &Arc<Graph>) -> Result<(), String> {
        let place = |name: &str| graph.position(name).ok_or(format!("no node is named `{name}`"));
        let mut visits = vec![0; graph.nodes.len()];
        for (node, count) in self.graph.nodes.iter().zip(&self.visits) {
            if let Some(place) = graph.position(&node.name) {
                visits[place] = *count;
            }
        }
        let moved = |state: &State| {
            let mut moved = State::new(graph.channels.clone());
            for (name, value) in state.iter() {
                moved.restore(name, value.clone());
            }
            Arc::new(moved)
        };
        for task in &mut self.tasks {
            task.node = place(&self.graph.nodes[task.node].name)?;
            task.state = moved(&task.state);
            if let Some(inner) = &mut task.inner {
                match &graph.nodes[task.node].work {
                    Work::Sub(sub) => inner.rebase(sub.graph())?,
                    Work::Each(each) => inner.rebase(each.graph())?,
                    Work::Leaf(_) => return Err(format!("`{}` holds no graph any more", task.id)),
                }
            }
        }
        self.before = moved(&self.before);
        self.state = moved(&self.state);
        (self.visits, self.graph) = (visits, graph.clone());
        let fits = |pair: &[usize; 2]| {
            graph.joins.get(pair[0]).is_some_and(|join| pair[1] < join.slots.len())
        };
        self.held.filled.retain(fits);
        self.held.owed.retain(fits);
        Ok(())
    }
}

/// A task's path: that of the graph it belongs to, and its id.
#[must_use]
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
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

/// Writes as a task made them, from those that a record holds.
pub(super) fn hydrate(
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
