//! Starts what can run, and what follows a failed attempt.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::journal::JournalError;
use crate::model::pause;
use crate::node::{Done, Node, NodeError, Work};
use crate::run::advance::retryable;
use crate::run::attempt::{self, Bounds, Time};
use crate::run::cache::Key;
use crate::run::context::Cx;
use crate::run::driver::{Driver, result};
use crate::run::end;
use crate::run::fold::RunState;
use crate::run::frame::{Frame, Task};
use crate::run::inbox;
use crate::run::record::{Fact, Intent, Retried};
use crate::span;
use crate::state::State;
use crate::tool::{ToolAnswer, ToolError, ToolErrorKind};

/// A task that can run and does not.
struct Ready {
    path: Arc<str>,
    outer: Arc<str>,
    name: Arc<str>,
    kind: &'static str,
    time: Time,
    pause: Duration,
    work: Option<(Arc<dyn Node>, Cx, Arc<State>)>,
    cached: Option<Done>,
}

impl Driver {
    /// Starts every task that can run and does not; `false` if one had its result in the cache,
    /// so that more may follow at once.
    pub(super) fn launch(&mut self) -> bool {
        let mut ready = Vec::new();
        if let Some(root) = self.frame() {
            let now = self.shared.services.env.monotonic();
            let bounds = Bounds { until: self.limit_left().map(|left| now + left), silence: None };
            self.find_ready(root, bounds, now, &mut ready);
        }
        let mut all_run = true;
        for task in ready {
            let span = span::node(&self.span(&task.outer), &task.name, task.kind, &task.path);
            let leaf = task.work.is_some();
            if let Some(done) = task.cached {
                all_run = false;
                span::node_ended(&span, None);
                let mut kept = result(Ok(done), Duration::ZERO);
                kept.cached = true;
                if let Some(task) = self.frame_mut().and_then(|f| f.task_mut(&task.path)) {
                    (task.result, task.inner) = (Some(kept), None);
                }
                continue;
            }
            self.begun(task.path.clone(), span, task.kind, leaf);
            let pulse = Arc::new(Notify::new());
            if let Some((node, cx, state)) = task.work {
                let paused = (task.pause, pulse.clone());
                self.spawn(&task.path, pulse, attempt::run(node, cx, state, task.time, paused));
            } else if task.time.limited() {
                let watch = attempt::watch(task.path.clone(), task.time, pulse.clone());
                self.spawn(&task.path, pulse, watch);
            }
        }
        all_run
    }

    /// Tasks of a frame, and of those inside, that can run and do not. `bounds`: the time that the
    /// run and the nodes around the frame have left.
    fn find_ready(&self, frame: &Frame, bounds: Bounds, now: Duration, ready: &mut Vec<Ready>) {
        let mut free = frame.items.unwrap_or(usize::MAX);
        for task in frame.tasks.iter().filter(|t| t.result.is_none()) {
            if free == 0 {
                return;
            }
            free -= 1;
            if !self.lives(&task.path) {
                ready.extend(self.ready(frame, task, bounds, now));
            }
            if let Some(inner) = &task.inner
                && inner.begun
            {
                let time = Time::of(&frame.graph.nodes[task.node].policy);
                let began = self.live.get(&task.path).map_or(now, |begun| begun.at);
                self.find_ready(inner, bounds.within(time, began), now, ready);
            }
        }
    }

    fn ready(&self, frame: &Frame, task: &Task, around: Bounds, now: Duration) -> Option<Ready> {
        let run = self.writer.log.run.as_ref()?;
        let node = &frame.graph.nodes[task.node];
        let (time, pause) = (Time::of(&node.policy), self.pause_left(task));
        let bounds = around.within(time, now + pause);
        let work = match &node.work {
            Work::Leaf(work) => {
                Some((work.clone(), self.cx(run, frame, task, bounds)?, task.state.clone()))
            }
            Work::Sub(_) | Work::Each(_) => None,
        };
        let untouched = task.attempt == 1 && task.replies.is_empty() && task.open.is_empty();
        let cached = node.policy.cache.as_ref().filter(|_| untouched).and_then(|cache| {
            let key = Key::new(cache, &task.state, run);
            self.shared.cache.get(&key, &frame.graph, &*self.shared.services.env)
        });
        Some(Ready {
            path: task.path.clone(),
            outer: frame.path.clone(),
            name: node.name.clone(),
            kind: node.kind,
            time,
            pause,
            work,
            cached,
        })
    }

    /// Until the attempt begins.
    fn pause_left(&self, task: &Task) -> Duration {
        if task.not_before_ms == 0 {
            return Duration::ZERO;
        }
        let left = task.not_before_ms - self.shared.services.env.now().as_millisecond();
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }

    fn cx(&self, run: &RunState, frame: &Frame, task: &Task, bounds: Bounds) -> Option<Cx> {
        let mut scope = frame.scope.clone();
        scope.now = task.now;
        Some(Cx {
            services: self.shared.services.clone(),
            program: self.writer.program()?.clone(),
            started: run.started.clone(),
            scope,
            task: task.path.clone(),
            replies: task.replies.clone(),
            asks: task.asks.clone(),
            tainted: run.tainted,
            unknown: run.unknown.clone(),
            bounds,
            commands: self.commands.0.clone(),
        })
    }

    /// Keeps a result that may be taken again.
    pub(super) fn keep(&self, path: &str, done: &Done) {
        let Some(run) = &self.writer.log.run else { return };
        let Some(root) = &run.root else { return };
        let frame = root.frame(super::frame::split(path).0);
        let Some((frame, task)) = frame.zip(root.task(path)) else { return };
        if let Some(cache) = &frame.graph.nodes[task.node].policy.cache {
            let key = Key::new(cache, &task.state, run);
            self.shared.cache.put(key, done, cache.keep, &*self.shared.services.env);
        }
    }

    /// Whether another attempt follows a failed one.
    pub(super) fn retry(
        &mut self,
        path: &Arc<str>,
        error: &NodeError,
    ) -> Result<bool, JournalError> {
        let Some(root) = self.frame() else { return Ok(false) };
        let frame = root.frame(super::frame::split(path).0);
        let Some((frame, task)) = frame.zip(root.task(path)) else { return Ok(false) };
        let policy = frame.graph.nodes[task.node].policy.retry;
        if task.attempt >= policy.attempts || !retryable(error) || Self::unsure(task) {
            return Ok(false);
        }
        let attempt = task.attempt + 1;
        let asked = match error {
            NodeError::Provider(error) => pause::asked_for(&error.fault),
            _ => None,
        };
        let (env, between) = (&*self.shared.services.env, (policy.wait, policy.wait_max));
        let wait = pause::before_retry(env, between, task.attempt - 1, asked);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let retried = Retried { task: path.clone(), attempt, error: error.clone(), wait_ms };
        self.writer.push(Fact::Retried(retried))?;
        Ok(true)
    }

    /// Whether an `unsafe` call of this attempt, here or inside, may or may not have happened.
    fn unsure(task: &Task) -> bool {
        let unknown = |task: &Task| {
            task.replies.values().any(|reply| match &reply.called.reply {
                crate::run::record::Reply::ToolFailed(error) => {
                    error.kind == ToolErrorKind::OutcomeUnknown
                }
                _ => false,
            })
        };
        let mut unsure = unknown(task);
        if let Some(inner) = &task.inner {
            inner.walk(&mut |_, task| unsure |= unknown(task));
        }
        unsure
    }

    /// Closes the calls that a task, or one inside it, left open when it was stopped.
    pub(super) fn close_calls(&mut self, path: &str) -> Result<(), JournalError> {
        let Some(task) = self.frame().and_then(|f| f.task(path)) else { return Ok(()) };
        let mut open: Vec<Intent> = task.open.values().cloned().collect();
        if let Some(inner) = &task.inner {
            inner.walk_live(&mut |_, task| open.extend(task.open.values().cloned()));
        }
        for intent in open {
            let kind = if end::is_unsafe(&intent) {
                ToolErrorKind::OutcomeUnknown
            } else {
                ToolErrorKind::Timeout
            };
            let error = ToolError::new(kind, "the node's time was over before this call ended");
            let answer = ToolAnswer::Failed(error);
            let called = inbox::settled(&self.shared, &mut self.writer, &intent, &answer, 0);
            self.writer.called(called)?;
        }
        Ok(())
    }
}
