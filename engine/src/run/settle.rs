//! Brings a run as far as its tasks' results allow: merges complete steps, fires what follows,
//! and takes graphs inside tasks to their end.
//!
//! Invariants:
//! - Under supersteps a step is committed once all its tasks have ended; writes merge in
//!   task-path order. Under dataflow each task is a step, in the order in which they end.
//! - Conditions read the merged state.
//! - A failed step still stands with what it did; only what would follow does not begin.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::graph::OnError;
use crate::journal::JournalError;
use crate::message::Message;
use crate::node::{Done, NodeError, Work};
use crate::run::driver::Driver;
use crate::run::end;
use crate::run::frame::{Frame, Task, TaskResult, dehydrate, holds_messages, split};
use crate::run::record::{Fact, Step, StepDone, TaskDone};
use crate::run::schedule::{self, Ended, Firing, Way};
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
        let Some(frame) = self.frame().and_then(|f| f.frame(path)) else {
            return Ok(Settled::Waiting);
        };
        if !frame.begun {
            return self.begin_inner(path);
        }
        let inner = |t: &&Task| t.inner.is_some() && t.result.is_none();
        let inner: Vec<Arc<str>> =
            frame.tasks.iter().filter(inner).map(|t| t.path.clone()).collect();
        let mut moved = false;
        for path in inner {
            moved |= self.settle_inner(&path)?;
        }
        let Some(frame) = self.frame().and_then(|f| f.frame(path)) else {
            return Ok(Settled::Waiting);
        };
        let all = frame.tasks.iter().all(|t| t.result.is_some());
        if frame.items.is_some() {
            return Ok(if all { Settled::Finished } else { waiting(moved) });
        }
        if all {
            return self.commit(path);
        }
        // Once one has failed for good, nothing new begins: its siblings finish.
        if frame.flows() && !frame.tasks.iter().any(|t| fails(frame, t)) {
            let ended = |t: &&Task| t.result.is_some();
            if let Some(task) = frame.tasks.iter().find(ended) {
                let task = task.id.clone();
                return self.commit_tasks(path, &[task]);
            }
        }
        Ok(waiting(moved))
    }

    /// Settles the graph inside a task; its end is the task's result.
    fn settle_inner(&mut self, path: &Arc<str>) -> Result<bool, JournalError> {
        let done = match self.settle(path)? {
            Settled::Waiting => return Ok(false),
            Settled::Moved => return Ok(true),
            Settled::Finished => self.exit(path),
            Settled::Failed(_, error) => Err(error),
        };
        let began = self.live.get(path).map(|begun| begun.at);
        let now = self.shared.services.env.monotonic();
        let took = began.map_or(Duration::ZERO, |began| now.saturating_sub(began));
        self.end_task(path, took, done)?;
        Ok(true)
    }

    fn exit(&self, path: &str) -> Result<Done, NodeError> {
        let gone = || NodeError::Internal(format!("no task `{path}`"));
        let root = self.frame().ok_or_else(gone)?;
        let outer = root.frame(split(path).0).ok_or_else(gone)?;
        let task = root.task(path).ok_or_else(gone)?;
        match (&outer.graph.nodes[task.node].work, &task.inner) {
            (Work::Sub(sub), Some(inner)) => sub.exit(&inner.before, &inner.state),
            (Work::Each(each), Some(inner)) => {
                let result = |task: &Task| match &task.result {
                    Some(TaskResult { error: Some(error), .. }) => Err(error.clone()),
                    Some(TaskResult { writes, .. }) => Ok(writes.clone()),
                    None => Err(gone()),
                };
                each.exit(inner.tasks.iter().map(result).collect())
            }
            _ => Err(gone()),
        }
    }

    /// The first step of a graph inside a task.
    fn begin_inner(&mut self, path: &str) -> Result<Settled, JournalError> {
        let Some(frame) = self.frame().and_then(|f| f.frame(path)) else {
            return Ok(Settled::Waiting);
        };
        match schedule::start(&frame.graph, &frame.state, &frame.scope) {
            Ok(firing) => self.step(path, Ends::default(), Delta::new(), &firing),
            Err(error) => Ok(Settled::Failed(Some(path.into()), error)),
        }
    }

    /// All tasks of the graph at `path` have results: merge them and fire what follows.
    fn commit(&mut self, path: &str) -> Result<Settled, JournalError> {
        let Some(frame) = self.frame().and_then(|f| f.frame(path)) else {
            return Ok(Settled::Waiting);
        };
        if frame.tasks.is_empty() {
            return Ok(Settled::Finished);
        }
        if let Some(task) = frame.tasks.iter().find(|t| fails(frame, t)) {
            let error = task.result.as_ref().and_then(|r| r.error.clone());
            let place = Some(task.path.to_string());
            return Ok(error.map_or(Settled::Waiting, |e| Settled::Failed(place, e)));
        }
        if frame.flows() {
            let first = frame.tasks[0].id.clone();
            return self.commit_tasks(path, &[first]);
        }
        let all: Vec<Arc<str>> = frame.tasks.iter().map(|t| t.id.clone()).collect();
        self.commit_tasks(path, &all)
    }

    /// Merges the results of these tasks and fires what follows.
    fn commit_tasks(&mut self, path: &str, tasks: &[Arc<str>]) -> Result<Settled, JournalError> {
        self.record_failures(path, tasks)?;
        let Some(frame) = self.frame().and_then(|f| f.frame(path)) else {
            return Ok(Settled::Waiting);
        };
        let ending: Vec<&Task> = frame.tasks.iter().filter(|t| tasks.contains(&t.id)).collect();
        let writes = ending.iter().filter_map(|t| t.result.as_ref()).map(|r| &r.writes);
        let delta = match frame.state.merge(writes) {
            Ok(delta) => delta,
            Err(error) => return Ok(Settled::Failed(None, error.into())),
        };
        let (messages, shown) = (last_messages(frame, &ending), frame.graph.shown);
        for message in messages {
            self.writer.message(message, shown);
        }
        // Conditions read the merged state.
        let Some(frame) = self.frame().and_then(|f| f.frame(path)) else {
            return Ok(Settled::Waiting);
        };
        let mut state = State::clone(&frame.state);
        if let Err(error) = state.apply(&delta, &self.writer.log.messages) {
            return Ok(Settled::Failed(None, error.into()));
        }
        let mut scope = frame.scope.clone();
        scope.now = self.shared.services.env.now();
        let (ending, running): (Vec<&Task>, Vec<&Task>) =
            frame.tasks.iter().partition(|t| tasks.contains(&t.id));
        let ways = ending.iter().map(|task| way(frame, task));
        let running: Vec<_> = running.iter().map(|t| t.node).collect();
        let (graph, held) = (&frame.graph, &frame.held);
        let firing = match schedule::after(graph, &state, &scope, ways, held, &running) {
            Ok(firing) => firing,
            Err(error) => return Ok(Settled::Failed(None, error)),
        };
        let ends = Ends::of(frame, &ending);
        let more = !running.is_empty();
        Ok(match self.step(path, ends, delta, &firing)? {
            Settled::Finished if more => Settled::Moved,
            settled => settled,
        })
    }

    /// Failures that are handled have records of their own.
    fn record_failures(&mut self, path: &str, tasks: &[Arc<str>]) -> Result<(), JournalError> {
        let Some(frame) = self.frame().and_then(|f| f.frame(path)) else { return Ok(()) };
        let failed = |t: &&Task| {
            let result = t.result.as_ref();
            tasks.contains(&t.id) && result.is_some_and(|r| r.error.is_some() && !r.recorded)
        };
        let failed: Vec<TaskDone> =
            frame.tasks.iter().filter(failed).filter_map(|t| task_done(frame, t)).collect();
        failed.into_iter().try_for_each(|done| self.writer.push(Fact::Done(done)))
    }

    fn step(
        &mut self,
        path: &str,
        ends: Ends,
        delta: Delta,
        firing: &Firing,
    ) -> Result<Settled, JournalError> {
        let Some(run) = self.writer.log.run.as_ref() else { return Ok(Settled::Waiting) };
        let limits = run.root.as_ref().map(|f| f.graph.limits).unwrap_or_default();
        let begins = !firing.next.is_empty();
        let over = end::over_limit(run, &limits).filter(|_| begins);
        let Some(frame) = run.root.as_ref().and_then(|f| f.frame(path)) else {
            return Ok(Settled::Waiting);
        };
        let (mut fired, mut step) = (frame.fired(firing), run.steps + u32::from(begins));
        if over.is_some() {
            // What the step did stands; only what would follow does not begin.
            (fired.next, step) = (Vec::new(), run.steps);
        }
        let Ends { done, recorded } = ends;
        let path = path.into();
        self.writer.push(Fact::Step(Step { path, step, done, recorded, delta, fired }))?;
        Ok(match over {
            Some(over) => Settled::Failed(None, over),
            None if begins => Settled::Moved,
            None => Settled::Finished,
        })
    }

    /// Stores the results of tasks whose siblings still run, so that a crash costs no re-run.
    pub(super) fn store_early(&mut self) -> Result<(), JournalError> {
        let Some(root) = self.frame() else { return Ok(()) };
        let mut early = Vec::new();
        root.walk(&mut |frame, task| {
            let unrecorded = task.result.as_ref().filter(|r| !r.recorded);
            if let (Some(result), Some(done)) = (unrecorded, task_done(frame, task)) {
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

/// The tasks that end with a step, as its record tells them.
#[derive(Default)]
struct Ends {
    done: Vec<StepDone>,
    recorded: Vec<Arc<str>>,
}

impl Ends {
    fn of(frame: &Frame, ending: &[&Task]) -> Self {
        let mut ends = Self::default();
        for task in ending {
            let Some(result) = &task.result else { continue };
            if !result.recorded {
                let (task, took_ms, cached) = (task.id.clone(), result.took_ms, result.cached);
                ends.done.push(StepDone { task, took_ms, cached });
            } else if frame.flows() {
                ends.recorded.push(task.id.clone());
            }
        }
        ends
    }
}

fn waiting(moved: bool) -> Settled {
    if moved { Settled::Moved } else { Settled::Waiting }
}

/// Whether a task failed, and nothing handles that.
fn fails(frame: &Frame, task: &Task) -> bool {
    let failed = task.result.as_ref().is_some_and(|r| r.error.is_some());
    failed && frame.graph.nodes[task.node].policy.on_error == OnError::Fail
}

/// Where a task that ended leads.
fn way(frame: &Frame, task: &Task) -> Ended {
    let node = task.node;
    let result = task.result.as_ref();
    let failed = result.is_some_and(|r| r.error.is_some());
    let way = match (failed, frame.graph.nodes[node].policy.on_error) {
        (true, OnError::Node(handler)) => Way::OnError(handler),
        (true, OnError::Continue | OnError::Fail) => Way::Lines,
        (false, _) => match result.and_then(|r| r.goto.clone()) {
            Some(names) => Way::Goto(names),
            None => Way::Lines,
        },
    };
    Ended { node, way }
}

/// The record of a task that ended before its siblings.
fn task_done(frame: &Frame, task: &Task) -> Option<TaskDone> {
    let result = task.result.as_ref()?;
    Some(TaskDone {
        task: task.path.clone(),
        took_ms: result.took_ms,
        writes: dehydrate(&frame.graph, &result.writes),
        error: result.error.clone(),
        goto: result.goto.clone(),
        cached: result.cached,
    })
}

/// Messages that the results of tasks write. Of several with one id the last in task-path order
/// stands, whichever was stored first.
fn last_messages(frame: &Frame, tasks: &[&Task]) -> Vec<Message> {
    let results = tasks.iter().filter_map(|t| t.result.as_ref());
    let written = results.flat_map(|r| messages_of(frame, &r.writes));
    let last: IndexMap<_, _> = written.map(|m| (m.id.clone(), m)).collect();
    last.into_values().collect()
}

fn messages_of(frame: &Frame, writes: &Writes) -> Vec<Message> {
    end::parse_messages(writes.iter().filter(|(name, _)| holds_messages(&frame.graph, name)))
}
