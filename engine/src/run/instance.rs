//! A graph that is running: its state, its live tasks, and the graphs inside them.
//!
//! Invariants:
//! - Only records change it (`apply.rs`), each checked against what is live; the driver alone
//!   notes results that have no record yet.
//! - A task reads the state as it stood when the task began.
//! - A graph inside a task begins as its node's `enter` says, which is computed when something of
//!   that graph is first looked at, and never stored.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;

use crate::expr::{NodeFailure, Scope};
use crate::graph::{Graph, NodeIndex, OnError, Schedule};
use crate::id::{InterruptId, RunId};
use crate::node::{ForEach, NodeError, Subgraph, Work};
use crate::run::joins::JoinState;
use crate::run::record::{Activation, Asked};
use crate::run::schedule::Successors;
use crate::run::task::{Failure, Task, TaskResult, Tasks, inside, item_of, split, task_id};
use crate::state::{State, Writes};

/// A graph that is running: the run's own, one inside a task, or the items of a list.
#[derive(Debug)]
pub struct GraphInstance {
    /// Path of the task it is inside; empty for the run's own.
    pub path: Arc<str>,
    /// What runs.
    pub graph: Arc<Graph>,
    /// The state as the instance began with it.
    pub before: Arc<State>,
    /// The state after the last step.
    pub state: Arc<State>,
    /// Tasks that the last step has not ended.
    pub tasks: Tasks,
    /// What joins hold.
    pub joins: JoinState,
    /// Whether its first step has begun.
    pub begun: bool,
    /// Of the items of a list.
    pub items: Option<Items>,
    /// What expressions read besides the state; `now` is when the last step began.
    pub scope: Scope,
    /// Its own steps so far.
    pub steps: u32,
    /// Tokens of the model calls in it and further in.
    pub tokens: u64,
    /// How often each node has begun.
    visits: Vec<u32>,
}

/// What is known of the items of a list before they begin.
#[derive(Debug)]
pub struct Items {
    /// How many are worked on at the same time, at most.
    pub concurrency: usize,
    /// Per item, what its state begins with; empty once it has begun.
    beginnings: Vec<Writes>,
}

impl GraphInstance {
    /// One whose first step has not begun.
    pub(super) fn new(path: Arc<str>, graph: Arc<Graph>, state: State, scope: Scope) -> Self {
        let state = Arc::new(state);
        Self {
            path,
            visits: vec![0; graph.nodes.len()],
            graph,
            before: state.clone(),
            state,
            tasks: Tasks::default(),
            joins: JoinState::default(),
            begun: false,
            items: None,
            scope,
            steps: 0,
            tokens: 0,
        }
    }

    /// Whether each task is a step of its own.
    #[must_use]
    pub fn is_dataflow(&self) -> bool {
        self.graph.schedule == Schedule::Dataflow && self.items.is_none()
    }

    /// The instance at `path`, a path from the run's own graph down; `None` also if nothing of it
    /// was looked at yet.
    #[must_use]
    pub fn instance(&self, path: &str) -> Option<&Self> {
        if path.is_empty() {
            return Some(self);
        }
        path.split('/').try_fold(self, |here, id| here.tasks.get(id)?.inner.as_deref())
    }

    /// The instance at `path`, entered if it was not yet.
    ///
    /// # Errors
    /// There is no such graph, or it cannot be entered.
    pub(super) fn instance_mut(&mut self, path: &str) -> Result<&mut Self, String> {
        if path.is_empty() {
            return Ok(self);
        }
        let (id, rest) = path.split_once('/').unwrap_or((path, ""));
        self.open_inner(id).map_err(|error| error.to_string())?.instance_mut(rest)
    }

    /// The instance inside a task of this one, entered if it was not yet.
    ///
    /// # Errors
    /// There is no such graph, or what keeps it from beginning.
    pub(super) fn open_inner(&mut self, id: &str) -> Result<&mut Self, NodeError> {
        let gone = || NodeError::Internal(format!("no graph runs inside task `{id}`"));
        self.open_item(id);
        let task = self.tasks.get(id).ok_or_else(gone)?;
        let inner = if task.inner.is_none() { self.enter(task)? } else { None };
        let task = self.tasks.get_mut(id).ok_or_else(gone)?;
        if let Some(inner) = inner {
            task.inner = Some(Box::new(inner));
        }
        task.inner.as_deref_mut().ok_or_else(gone)
    }

    /// Notes tokens of a call of the task at `path`, here and in every instance on the way.
    pub(super) fn count_tokens(&mut self, path: &str, tokens: u64) {
        self.tokens = self.tokens.saturating_add(tokens);
        if let Some((id, rest)) = path.split_once('/')
            && let Some(inner) = self.tasks.get_mut(id).and_then(|task| task.inner.as_deref_mut())
        {
            inner.count_tokens(rest, tokens);
        }
    }

    /// The task at `path`.
    #[must_use]
    pub fn task(&self, path: &str) -> Option<&Task> {
        let (outer, id) = split(path);
        self.instance(outer)?.tasks.get(id)
    }

    /// The task at `path`, and the instance that it is a task of.
    #[must_use]
    pub fn task_in(&self, path: &str) -> Option<(&Self, &Task)> {
        let (outer, id) = split(path);
        let instance = self.instance(outer)?;
        Some((instance, instance.tasks.get(id)?))
    }

    /// The task at `path`; an item begins with this.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn task_mut(&mut self, path: &str) -> Result<&mut Task, String> {
        let (outer, id) = split(path);
        let instance = self.instance_mut(outer)?;
        instance.open_item(id);
        instance.tasks.get_mut(id).ok_or(format!("no task `{path}` is live"))
    }

    /// All tasks, those of inner instances after the task they are inside.
    pub fn walk<'f>(&'f self, visit: &mut dyn FnMut(&'f Self, &'f Task)) {
        for task in self.tasks.iter() {
            visit(self, task);
            if let Some(inner) = &task.inner {
                inner.walk(visit);
            }
        }
    }

    /// Tasks that have not ended, here and inside tasks that have not.
    pub fn walk_live<'f>(&'f self, visit: &mut dyn FnMut(&'f Self, &'f Task)) {
        for task in self.tasks.iter().filter(|task| !task.has_ended()) {
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

    /// Makes the tasks that a step fired. `handled`: failures by the node that handles them.
    pub(super) fn begin(
        &mut self,
        activation: &Activation,
        at_ms: i64,
        handled: &[(NodeIndex, Arc<Failure>)],
    ) -> Result<(), String> {
        self.scope.now = Timestamp::from_millisecond(at_ms).unwrap_or_default();
        self.begun = true;
        self.steps += u32::from(!activation.next.is_empty());
        if let Some(change) = &activation.toggled {
            self.joins.toggle(&self.graph, change)?;
        } else {
            let Activation { filled, owed, .. } = activation;
            self.joins = JoinState::new(&self.graph, filled, owed)?;
        }
        for id in &activation.next {
            let (name, visit) = id.rsplit_once(':').ok_or(format!("`{id}` is no task"))?;
            let node = self.graph.position(name).ok_or(format!("no node is named `{name}`"))?;
            self.visits[node] = visit.parse().map_err(|_| format!("`{id}` is no task"))?;
            let mut task = self.make(node, id.clone(), self.state.clone());
            task.handles =
                handled.iter().find(|(handler, _)| *handler == node).map(|(_, f)| f.clone());
            self.tasks.push(task);
        }
        Ok(())
    }

    fn make(&self, node: NodeIndex, id: Arc<str>, state: Arc<State>) -> Task {
        let path = inside(&self.path, &id);
        Task::new(node, id, path, state, self.scope.now)
    }

    /// Failures of ended tasks that a node handles, by that node. Of several with one handler the
    /// first in task-path order is told.
    pub(super) fn handled<'t>(
        &self,
        ended: impl Iterator<Item = &'t Task>,
    ) -> Vec<(NodeIndex, Arc<Failure>)> {
        let mut handled: Vec<(NodeIndex, Arc<Failure>)> = Vec::new();
        for task in ended {
            let policy = &self.graph.nodes[task.node].policy;
            if let (Some(failure), OnError::Node(handler)) = (task.failure(), policy.on_error)
                && handled.iter().all(|(known, _)| *known != handler)
            {
                handled.push((handler, failure.clone()));
            }
        }
        handled
    }

    /// The scope of a task's expressions.
    #[must_use]
    pub(super) fn scope_of(&self, task: &Task) -> Cow<'_, Scope> {
        if task.now == self.scope.now && task.handles.is_none() {
            return Cow::Borrowed(&self.scope);
        }
        let mut scope = self.scope.clone();
        scope.now = task.now;
        if let Some(failure) = &task.handles {
            scope.error = Some(Arc::new(self.node_failure(failure)));
        }
        Cow::Owned(scope)
    }

    /// A failure as the node that handles it reads it.
    fn node_failure(&self, failure: &Failure) -> NodeFailure {
        let here = failure.path.strip_prefix(&*self.path).unwrap_or(&failure.path);
        let mut ids = here.trim_start_matches('/').split('/');
        let node = ids.next().and_then(|id| Some(id.rsplit_once(':')?.0)).unwrap_or_default();
        let place = self.graph.position(node);
        let is_map = place.is_some_and(|n| matches!(self.graph.nodes[n].work, Work::Each(_)));
        NodeFailure {
            code: failure.error.code().into(),
            message: failure.error.to_string().into(),
            node: node.into(),
            item: ids.next().filter(|_| is_map).and_then(item_of),
        }
    }

    /// The instance inside a task as it begins; `None` if the task's node holds no graph.
    ///
    /// # Errors
    /// What keeps it from beginning, which is the task's failure.
    pub(super) fn enter(&self, task: &Task) -> Result<Option<Self>, NodeError> {
        let scope = self.scope_of(task);
        match &self.graph.nodes[task.node].work {
            Work::Pure(_) | Work::Leaf(_) => Ok(None),
            Work::Sub(sub) => Self::inside(&**sub, task, scope.into_owned()).map(Some),
            Work::Each(each) => Self::items(&**each, task, scope.into_owned()).map(Some),
        }
    }

    fn inside(sub: &dyn Subgraph, task: &Task, scope: Scope) -> Result<Self, NodeError> {
        let mut state = State::new(sub.graph().channels.clone());
        for (name, value) in sub.enter(&task.state, &scope, &task.path)? {
            state.restore(&name, value);
        }
        Ok(Self::new(task.path.clone(), sub.graph().clone(), state, scope))
    }

    /// The items of a list, none of which has begun: which of them are worked on is the driver's
    /// choice.
    fn items(each: &dyn ForEach, task: &Task, scope: Scope) -> Result<Self, NodeError> {
        let mut shared = State::new(each.graph().channels.clone());
        for (name, value) in task.state.iter() {
            shared.restore(name, value.clone());
        }
        let beginnings = each.enter(&task.state, &scope)?;
        let mut instance = Self::new(task.path.clone(), each.graph().clone(), shared, scope);
        instance.begun = true;
        instance.tasks = Tasks::of_items(beginnings.len());
        let concurrency = each.concurrency().max(1);
        instance.items = Some(Items { concurrency, beginnings });
        Ok(instance)
    }

    /// Begins an item that has not begun, if `id` names one.
    pub(super) fn open_item(&mut self, id: &str) {
        let Some(items) = &mut self.items else { return };
        let Some(place) = item_of(id).and_then(|number| number.checked_sub(1)) else { return };
        if !self.tasks.awaits(place) {
            return;
        }
        let beginning = items.beginnings.get_mut(place).map(std::mem::take);
        let mut state = State::clone(&self.state);
        for (name, value) in beginning.into_iter().flatten() {
            state.restore(&name, value);
        }
        let task = self.make(0, format!("item:{}", place + 1).into(), Arc::new(state));
        self.tasks.push(task);
    }

    /// Ends a task; `None`: there is none of that id.
    pub(super) fn end_task(&mut self, id: &str, result: TaskResult) -> Option<()> {
        let failed = result.failure.is_some();
        self.tasks.end(id, result)?;
        if failed {
            // What a graph that failed inside leaves behind is decided when the run ends.
            return Some(());
        }
        let task = self.tasks.get_mut(id)?;
        task.inner = None;
        if self.items.is_some() {
            // Nobody reads what an item began with once it has its result, and there may be many.
            task.state = self.state.clone();
        }
        Some(())
    }

    /// What stands here belongs to another run from now on: calls that were open were never made.
    pub(super) fn fork(&mut self, run: &RunId) {
        self.scope.run = run.clone();
        for task in self.tasks.iter_mut() {
            task.open.clear();
            if let Some(inner) = &mut task.inner {
                inner.fork(run);
            }
        }
    }

    /// What begins next, as a record says it: tasks by name and visit, and joins in the shorter of
    /// the two forms.
    #[must_use]
    pub fn activation(&self, successors: &Successors) -> Activation {
        let id = |&n: &NodeIndex| task_id(&self.graph.nodes[n].name, self.visits[n] + 1);
        let next = successors.next.iter().map(id).collect();
        let (filled, owed) =
            (successors.joins.filled(&self.graph), successors.joins.owed(&self.graph));
        let change = self.joins.change_to(&self.graph, &successors.joins);
        if filled.len() + owed.len() <= change.filled.len() + change.owed.len() + WHOLE {
            return Activation { next, filled, owed, toggled: None };
        }
        let (filled, owed) = (Vec::new(), Vec::new());
        Activation { next, filled, owed, toggled: Some(change) }
    }

    /// The instance over another version of its graph: tasks and channels stay where they are, by
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
        let old = self.graph.clone();
        self.tasks.move_nodes(|node| place(&old.nodes[node].name))?;
        for task in self.tasks.iter_mut() {
            task.state = moved(&task.state);
            if let Some(inner) = &mut task.inner {
                match &graph.nodes[task.node].work {
                    Work::Sub(sub) => inner.rebase(sub.graph())?,
                    Work::Each(each) => inner.rebase(each.graph())?,
                    Work::Pure(_) | Work::Leaf(_) => {
                        return Err(format!("`{}` holds no graph any more", task.id));
                    }
                }
            }
        }
        self.before = moved(&self.before);
        self.state = moved(&self.state);
        self.joins = self.joins.moved(&self.graph, graph);
        (self.visits, self.graph) = (visits, graph.clone());
        Ok(())
    }
}

/// How many slots more than a change would name the whole of what joins hold may name, and still
/// be written down instead: it can be read by itself.
const WHOLE: usize = 8;
