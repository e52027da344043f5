//! Starts tasks that can run: leaves with their work, others with the graph inside them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::graph::GraphNode;
use crate::journal::JournalError;
use crate::node::{Done, NodeError, Work};
use crate::run::attempt::{self, Bounds, Time};
use crate::run::cache::Key;
use crate::run::context::{Command, Cx};
use crate::run::driver::{Driver, RunningTask, result};
use crate::run::end;
use crate::run::instance::GraphInstance;
use crate::run::task::{Failure, Task, inside, split, task_id};
use crate::span;

/// Items of a list that were handed out.
#[derive(Debug, Default)]
pub(super) struct HandedOut {
    /// Those that have not ended.
    working: usize,
    /// The place from which on others may be handed out.
    next: usize,
}

impl HandedOut {
    /// One of them has ended.
    pub(super) fn ended(&mut self) {
        self.working = self.working.saturating_sub(1);
    }
}

impl Driver {
    /// Whether the task at `path` may reach something once it is launched. What was written down
    /// is stored before that: what follows from a step that calls nobody may be computed first, and
    /// is computed again if the step is lost.
    pub(super) fn reaches_out(&self, path: &str) -> bool {
        let (outer, id) = split(path);
        let Some(instance) = self.instance(outer) else { return true };
        // An item that has not begun is one of the only node of its graph.
        let node = instance.tasks.get(id).map_or(0, |task| task.node);
        instance.graph.nodes.get(node).is_none_or(|node| matches!(node.work, Work::Leaf(_)))
    }

    /// Starts the task at `path`, unless it runs or has ended.
    pub(super) fn launch(&mut self, path: &Arc<str>) -> Result<(), JournalError> {
        if self.live.contains_key(path) {
            return Ok(());
        }
        let (outer, id) = split(path);
        if let Some(root) = self.root_mut()
            && let Ok(instance) = root.instance_mut(outer)
        {
            instance.open_item(id);
        }
        let Some(root) = self.root().filter(|root| end::goes_on(root, path)) else {
            return Ok(());
        };
        let Some((instance, task)) = root.task_in(path) else { return Ok(()) };
        let node = &instance.graph.nodes[task.node];
        let span = span::node(self.span(outer), &node.name, node.kind, path);
        if let Some(done) = self.cached(instance, task) {
            span::node_ended(&span, None);
            let mut kept = result(Ok(done), Duration::ZERO);
            kept.cached = true;
            self.note_result(path, kept);
            return Ok(());
        }
        let (time, pause) = (Time::of(node), self.pause_left(task));
        let begins = || self.shared.services.env.monotonic() + pause;
        match &node.work {
            Work::Pure(work) if pause.is_zero() => {
                let began = self.clock;
                let done = {
                    let _entered = span.enter();
                    attempt::compute(&**work, &task.state, &instance.scope_of(task))
                };
                let running = RunningTask::new(span, began, Some(node));
                self.clock = self.shared.services.env.monotonic();
                let took = self.clock.saturating_sub(began);
                let done = match done {
                    Ok(done) => self.admit(path, done),
                    Err(error) => Err(Arc::new(Failure { error, path: path.clone() })),
                };
                return self.conclude(path, Some(&running), took, done);
            }
            Work::Pure(work) => {
                let scope = instance.scope_of(task).into_owned();
                let read = (task.state.clone(), scope);
                let env = self.shared.services.env.clone();
                let later = attempt::compute_later(work.clone(), env, path.clone(), read, pause);
                let running = RunningTask::new(span, begins(), Some(node));
                self.live.insert(path.clone(), running);
                self.spawn(path, Arc::default(), later);
            }
            Work::Leaf(work) => {
                let (work, state) = (work.clone(), task.state.clone());
                let running = RunningTask::new(span, begins(), Some(node));
                let commands = self.commands.sender();
                let Some(cx) = self.context(path, commands, time, pause) else { return Ok(()) };
                self.live.insert(path.clone(), running);
                let pulse = Arc::new(Notify::new());
                let paused = (pause, pulse.clone());
                self.spawn(path, pulse, attempt::run(work, cx, state, time, paused));
            }
            Work::Sub(_) | Work::Each(_) => {
                let running = RunningTask::new(span, begins(), Some(node));
                self.live.insert(path.clone(), running);
                if time.limited() {
                    let pulse = Arc::new(Notify::new());
                    let watch = attempt::watch(path.clone(), time, (pause, pulse.clone()));
                    self.spawn(path, pulse, watch);
                }
                if let Err(error) = self.enter(path) {
                    let failure = Arc::new(Failure { error, path: path.clone() });
                    return self.end_task(path, Duration::ZERO, Err(failure));
                }
            }
        }
        Ok(())
    }

    /// Looks at the graph inside a task, so that its first step begins, or what of it can run.
    fn enter(&mut self, path: &Arc<str>) -> Result<(), NodeError> {
        let limit = self.shared.limits().map_items;
        let Some(root) = self.root_mut() else { return Ok(()) };
        let (outer, id) = split(path);
        let gone = |why: String| NodeError::Internal(why);
        let inner = root.instance_mut(outer).map_err(gone)?.open_inner(id)?;
        if inner.items.is_some() && inner.tasks.len() > limit {
            return Err(NodeError::Limit(format!(
                "the list has {} items, more than `limits.map_items: {limit}`; split it, or raise \
                 the limit in exile.yaml",
                inner.tasks.len()
            )));
        }
        let mut ready = Vec::new();
        if inner.items.is_none() {
            let unended = inner.tasks.iter().filter(|task| !task.has_ended());
            ready.extend(unended.map(|task| task.path.clone()));
        }
        self.ready.extend(ready);
        self.touch(path);
        Ok(())
    }

    /// Makes further items of a list ready, as many as may be worked on at the same time.
    pub(super) fn hand_out_items(&mut self, path: &Arc<str>) {
        let Some(run) = self.writer.log.run.as_ref() else { return };
        let instance = run.root.as_ref().and_then(|root| root.instance(path));
        let Some((instance, items)) = instance.and_then(|i| Some((i, i.items.as_ref()?))) else {
            return;
        };
        let handed_out = self.items.entry(path.clone()).or_default();
        while handed_out.working < items.concurrency && handed_out.next < instance.tasks.len() {
            let id = task_id("item", handed_out.next + 1);
            handed_out.next += 1;
            if !instance.tasks.get(&id).is_some_and(Task::has_ended) {
                handed_out.working += 1;
                self.ready.push_back(inside(path, &id));
            }
        }
    }

    /// A result of an earlier task that may be taken for this one's.
    fn cached(&self, instance: &GraphInstance, task: &Task) -> Option<Done> {
        let run = self.writer.log.run.as_ref()?;
        let cache = instance.graph.nodes[task.node].policy.cache.as_ref()?;
        let untouched = task.attempt == 1
            && task.replies.is_empty()
            && task.open.is_empty()
            && task.inner.is_none();
        let key = Key::new(cache, task, &instance.scope_of(task), run);
        let env = &*self.shared.services.env;
        untouched.then(|| self.shared.cache.get(&key, env)).flatten()
    }

    /// Keeps a result that may be taken again.
    pub(super) fn keep(&self, path: &str, done: &Done) {
        let Some(run) = &self.writer.log.run else { return };
        let Some((instance, task)) = run.root.as_ref().and_then(|root| root.task_in(path)) else {
            return;
        };
        if let Some(cache) = &instance.graph.nodes[task.node].policy.cache {
            let key = Key::new(cache, task, &instance.scope_of(task), run);
            self.shared.cache.put(key, done, cache.keep, &*self.shared.services.env);
        }
    }

    /// Until the attempt begins.
    fn pause_left(&self, task: &Task) -> Duration {
        if task.not_before_ms == 0 {
            return Duration::ZERO;
        }
        let left = task.not_before_ms - self.shared.services.env.now().as_millisecond();
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }

    fn context(
        &self,
        path: &str,
        commands: mpsc::Sender<Command>,
        time: Time,
        pause: Duration,
    ) -> Option<Cx> {
        let run = self.writer.log.run.as_ref()?;
        let (instance, task) = run.root.as_ref()?.task_in(path)?;
        let now = self.shared.services.env.monotonic();
        Some(Cx {
            services: self.shared.services.clone(),
            program: self.writer.program()?.clone(),
            started: run.started.clone(),
            scope: instance.scope_of(task).into_owned(),
            task: task.path.clone(),
            replies: task.replies.clone(),
            asks: task.asks.clone(),
            tainted: self.writer.log.tainted,
            unknown: run.unknown.clone(),
            bounds: self.bounds(&instance.path, now).within(time, now + pause),
            commands,
        })
    }

    /// The time that the run and the tasks around the instance at `path` have left.
    fn bounds(&self, path: &str, now: Duration) -> Bounds {
        let mut bounds = Bounds { until: self.limit_left().map(|left| now + left), silence: None };
        let Some(root) = self.root() else { return bounds };
        let mut around = path;
        while !around.is_empty() {
            if let (Some((instance, task)), Some(running)) =
                (root.task_in(around), self.live.get(around))
            {
                bounds = bounds.within(Time::of(&instance.graph.nodes[task.node]), running.at);
            }
            around = split(around).0;
        }
        bounds
    }
}

impl Time {
    /// What a node allows, and the graph inside it.
    pub(super) fn of(node: &GraphNode) -> Self {
        let inner = match &node.work {
            Work::Sub(sub) => sub.graph().limits.timeout,
            Work::Pure(_) | Work::Leaf(_) | Work::Each(_) => None,
        };
        let policy = &node.policy;
        let (timeout, key) = match (policy.timeout, inner) {
            (Some(own), Some(inner)) if inner < own => (Some(inner), "limits.timeout"),
            (None, Some(inner)) => (Some(inner), "limits.timeout"),
            (own, _) => (own, "timeout"),
        };
        Self { timeout, key, idle: policy.idle_timeout }
    }
}
