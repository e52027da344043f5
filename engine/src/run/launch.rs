//! Starts what can run, and what follows a failed attempt.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::graph::{Policy, Retry};
use crate::journal::JournalError;
use crate::node::{Done, Node, NodeError, Work};
use crate::run::advance::retryable;
use crate::run::attempt::{self, Time};
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
            self.find_ready(root, &mut ready);
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
            self.begun(task.path.clone(), span, leaf);
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

    /// Tasks of a frame, and of those inside, that can run and do not.
    fn find_ready(&self, frame: &Frame, ready: &mut Vec<Ready>) {
        let mut free = frame.items.unwrap_or(usize::MAX);
        for task in frame.tasks.iter().filter(|t| t.result.is_none()) {
            if free == 0 {
                return;
            }
            free -= 1;
            if !self.lives(&task.path) {
                ready.extend(self.ready(frame, task));
            }
            if let Some(inner) = &task.inner
                && inner.begun
            {
                self.find_ready(inner, ready);
            }
        }
    }

    fn ready(&self, frame: &Frame, task: &Task) -> Option<Ready> {
        let run = self.writer.log.run.as_ref()?;
        let node = &frame.graph.nodes[task.node];
        let work = match &node.work {
            Work::Leaf(work) => {
                Some((work.clone(), self.cx(run, frame, task)?, task.state.clone()))
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
            time: Time::of(&node.policy),
            pause: self.pause_left(task),
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

    fn cx(&self, run: &RunState, frame: &Frame, task: &Task) -> Option<Cx> {
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
            deadline: self.deadline(&frame.graph.nodes[task.node].policy),
            commands: self.commands.0.clone(),
        })
    }

    /// When the run's time or the attempt's is over.
    fn deadline(&self, policy: &Policy) -> Option<Duration> {
        let left = policy.timeout.into_iter().chain(self.limit_left()).min()?;
        Some(self.shared.services.env.monotonic() + left)
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
        let wait = self.pause(&policy, task.attempt, error);
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

    /// The pause before attempt `attempt + 1`: what the provider asks for, else doubled each time
    /// and spread by half at random, so that many runs do not come back at once.
    fn pause(&self, policy: &Retry, attempt: u32, error: &NodeError) -> Duration {
        let asked = match error {
            NodeError::Provider(error) => match error.fault.retry() {
                crate::model::Retry::After(asked) => Some(asked),
                crate::model::Retry::Never | crate::model::Retry::Backoff => None,
            },
            _ => None,
        };
        let doubled = policy.wait.saturating_mul(1 << (attempt - 1).min(16)).min(policy.wait_max);
        let mut random = [0; 2];
        self.shared.services.env.fill(&mut random);
        let spread = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
        doubled.mul_f64(0.5 + spread / 2.0).max(asked.unwrap_or_default())
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
