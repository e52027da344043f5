//! Brings a run as far as its tasks' results allow: merges complete steps, fires what follows,
//! and takes graphs inside tasks to their end.
//!
//! Invariants:
//! - A step is committed once all its tasks have ended; writes merge in task-path order.
//! - Conditions read the merged state.
//! - A failed step still stands with what it did; only what would follow does not begin.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::journal::JournalError;
use crate::message::Message;
use crate::node::{NodeError, Outcome, Work};
use crate::run::driver::{Driver, result};
use crate::run::end;
use crate::run::frame::{Frame, Task, dehydrate, holds_messages};
use crate::run::record::{Fact, Step, StepDone, TaskDone};
use crate::run::schedule;
use crate::span;
use crate::state::{Delta, State, Writes};

/// How far a graph came.
pub(super) enum Settled {
    /// Tasks are still running.
    Waiting,
    /// A step was committed and others may follow at once.
    Moved,
    /// Nothing is left to do.
    Finished,
    /// A task or the step itself failed.
    Failed(Option<String>, NodeError),
}

impl Driver {
    /// Brings the graph at `path` as far as its tasks' results allow.
    pub(super) fn settle(&mut self, path: &str) -> Result<Settled, JournalError> {
        let Some(frame) = self.frame_mut().and_then(|f| f.frame_mut(path)) else {
            return Ok(Settled::Waiting);
        };
        if !frame.begun {
            return self.begin_inner(path);
        }
        let inner: Vec<Arc<str>> = frame
            .tasks
            .iter()
            .filter(|t| t.inner.is_some() && t.result.is_none())
            .map(|t| t.path.clone())
            .collect();
        let mut moved = false;
        for path in inner {
            moved |= self.settle_inner(&path)?;
        }
        let Some(frame) = self.frame_mut().and_then(|f| f.frame_mut(path)) else {
            return Ok(Settled::Waiting);
        };
        if frame.tasks.iter().all(|t| t.result.is_some()) {
            return self.commit(path);
        }
        Ok(if moved { Settled::Moved } else { Settled::Waiting })
    }

    /// Settles the graph inside a task; its end is the task's result.
    fn settle_inner(&mut self, path: &Arc<str>) -> Result<bool, JournalError> {
        let settled = self.settle(path)?;
        let outcome = match settled {
            Settled::Waiting => return Ok(false),
            Settled::Moved => return Ok(true),
            Settled::Finished => self.exit(path),
            Settled::Failed(_, error) => Err(error),
        };
        let mut took = Duration::ZERO;
        if let Some(begun) = self.live.remove(path) {
            span::node_ended(&begun.span, outcome.as_ref().err());
            took = self.shared.services.env.monotonic().saturating_sub(begun.at);
        }
        if let Some(task) = self.frame_mut().and_then(|f| f.task_mut(path)) {
            task.result = Some(result(outcome, took));
        }
        Ok(true)
    }

    fn exit(&mut self, path: &str) -> Result<Outcome, NodeError> {
        let outer = path.rsplit_once('/').map_or("", |(outer, _)| outer);
        let gone = || NodeError::Internal(format!("no task `{path}`"));
        let frame = self.frame_mut().and_then(|f| f.frame_mut(outer)).ok_or_else(gone)?;
        let task = frame.tasks.iter().find(|t| *t.path == *path).ok_or_else(gone)?;
        match (&frame.graph.nodes[task.node].work, &task.inner) {
            (Work::Sub(sub), Some(inner)) => sub.exit(&inner.before, &inner.state),
            _ => Err(gone()),
        }
    }

    /// The first step of a graph inside a task.
    fn begin_inner(&mut self, path: &str) -> Result<Settled, JournalError> {
        let Some(frame) = self.frame_mut().and_then(|f| f.frame_mut(path)) else {
            return Ok(Settled::Waiting);
        };
        match schedule::start(&frame.graph, &frame.state, &frame.scope) {
            Ok(fired) => self.step(path, Vec::new(), Delta::new(), &fired),
            Err(error) => Ok(Settled::Failed(Some(path.into()), error)),
        }
    }

    /// All tasks of the graph at `path` have results: merge them and fire what follows.
    fn commit(&mut self, path: &str) -> Result<Settled, JournalError> {
        let Some(frame) = self.frame_mut().and_then(|f| f.frame_mut(path)) else {
            return Ok(Settled::Waiting);
        };
        if frame.tasks.is_empty() {
            return Ok(Settled::Finished);
        }
        let failed = |t: &&Task| t.result.as_ref().is_some_and(|r| r.error.is_some());
        if let Some(task) = frame.tasks.iter().find(failed) {
            let error = task.result.as_ref().and_then(|r| r.error.clone());
            let place = Some(task.path.to_string());
            return Ok(error.map_or(Settled::Waiting, |e| Settled::Failed(place, e)));
        }
        let messages = last_messages(frame);
        let writes = frame.tasks.iter().filter_map(|t| t.result.as_ref()).map(|r| &r.writes);
        let (delta, shown) = (frame.state.merge(writes), frame.graph.shown);
        let delta = match delta {
            Ok(delta) => delta,
            Err(error) => return Ok(Settled::Failed(None, error.into())),
        };
        for message in messages {
            self.writer.message(message, shown);
        }
        // Conditions read the merged state.
        let Some(run) = self.writer.log.run.as_ref() else { return Ok(Settled::Waiting) };
        let Some(frame) = run.root.as_ref().and_then(|f| find(f, path)) else {
            return Ok(Settled::Waiting);
        };
        let mut state = State::clone(&frame.state);
        if let Err(error) = state.apply(&delta, &self.writer.log.messages) {
            return Ok(Settled::Failed(None, error.into()));
        }
        let mut scope = frame.scope.clone();
        scope.now = self.shared.services.env.now();
        let ended = frame.tasks.iter().map(|t| t.node);
        let fired = match schedule::after(&frame.graph, &state, &scope, ended, &frame.filled) {
            Ok(fired) => fired,
            Err(error) => return Ok(Settled::Failed(None, error)),
        };
        let unrecorded = |t: &&Task| t.result.as_ref().is_some_and(|r| !r.recorded);
        let done = frame
            .tasks
            .iter()
            .filter(unrecorded)
            .map(|t| StepDone {
                task: t.id.clone(),
                took_ms: t.result.as_ref().map_or(0, |r| r.took_ms),
            })
            .collect();
        self.step(path, done, delta, &fired)
    }

    fn step(
        &mut self,
        path: &str,
        done: Vec<StepDone>,
        delta: Delta,
        fired: &schedule::Fired,
    ) -> Result<Settled, JournalError> {
        let Some(run) = self.writer.log.run.as_ref() else { return Ok(Settled::Waiting) };
        let limits = run.root.as_ref().map(|f| f.graph.limits).unwrap_or_default();
        let begins = !fired.next.is_empty();
        let over = end::over_limit(run, &limits).filter(|_| begins);
        let Some(frame) = run.root.as_ref().and_then(|f| find(f, path)) else {
            return Ok(Settled::Waiting);
        };
        let filled = fired.filled.clone();
        if let Some(over) = over {
            // What the step did stands; only what would follow does not begin.
            let (step, next) = (run.steps, Vec::new());
            let step = Step { path: path.into(), step, done, delta, next, filled };
            self.writer.push(Fact::Step(step))?;
            return Ok(Settled::Failed(None, over));
        }
        let next = frame.task_ids(&fired.next);
        let step = run.steps + u32::from(begins);
        self.writer.push(Fact::Step(Step {
            path: path.into(),
            step,
            done,
            delta,
            next,
            filled,
        }))?;
        Ok(if begins { Settled::Moved } else { Settled::Finished })
    }

    /// Stores the results of tasks whose siblings still run, so that a crash costs no re-run.
    pub(super) fn store_early(&mut self) -> Result<(), JournalError> {
        let Some(root) = self.frame() else { return Ok(()) };
        let mut early = Vec::new();
        root.walk(&mut |frame, task| {
            if let Some(result) = task.result.as_ref().filter(|r| !r.recorded) {
                let done = TaskDone {
                    task: task.path.clone(),
                    took_ms: result.took_ms,
                    writes: dehydrate(&frame.graph, &result.writes),
                    error: result.error.clone(),
                };
                early.push((done, frame.graph.shown, messages_of(frame, &result.writes)));
            }
        });
        for (done, shown, messages) in early {
            for message in messages {
                self.writer.message(message, shown);
            }
            self.writer.push(Fact::Done(done))?;
        }
        Ok(())
    }
}

fn find<'f>(frame: &'f Frame, path: &str) -> Option<&'f Frame> {
    if *frame.path == *path {
        return Some(frame);
    }
    let mut found = None;
    frame.walk(&mut |_, task| {
        if let Some(inner) = task.inner.as_deref().filter(|i| *i.path == *path) {
            found = Some(inner);
        }
    });
    found
}

/// Messages that the results of a frame's tasks write. Of several with one id the last in
/// task-path order stands, whichever was stored first.
fn last_messages(frame: &Frame) -> impl Iterator<Item = Message> + use<> {
    let results = frame.tasks.iter().filter_map(|t| t.result.as_ref());
    let written = results.flat_map(|r| messages_of(frame, &r.writes));
    let last: IndexMap<_, _> = written.map(|m| (m.id.clone(), m)).collect();
    last.into_values()
}

fn messages_of(frame: &Frame, writes: &Writes) -> Vec<Message> {
    end::parse_messages(writes.iter().filter(|(name, _)| holds_messages(&frame.graph, name)))
}
