//! Brings a run as far as its tasks' results allow: merges complete steps, begins what follows,
//! and takes graphs inside tasks to their end.
//!
//! Only instances that something happened in are looked at, the innermost first, so that a task
//! costs the same however many there are beside it.
//!
//! Invariants:
//! - Under supersteps a step is committed once all its tasks have ended; writes merge in
//!   task-path order. Under dataflow each task is a step, in the order in which they began.
//! - Conditions read the merged state.
//! - A failed step still stands with what it did; only what would follow does not begin.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::expr::Scope;
use crate::graph::OnError;
use crate::journal::JournalError;
use crate::message::Message;
use crate::node::{Done, NodeError, Work};
use crate::run::driver::Driver;
use crate::run::end;
use crate::run::instance::GraphInstance;
use crate::run::record::{Fact, Step, StepDone, TaskDone};
use crate::run::schedule::{self, EndedNode, LiveNodes, Successors, Transition};
use crate::run::task::{Failure, Task, inside};
use crate::run::writes::{dehydrate, messages_in, too_heavy};
use crate::state::{Delta, State};

/// How deep a path lies, and the path: the deepest is the greatest, of several the first.
pub(super) type Depth = (usize, Reverse<Arc<str>>);

/// The place of an instance among those that something happened in.
pub(super) fn depth(path: &Arc<str>) -> Depth {
    (levels(path), Reverse(path.clone()))
}

fn levels(path: &str) -> usize {
    if path.is_empty() { 0 } else { 1 + path.matches('/').count() }
}

/// How a run comes to its end.
pub(super) enum RunEnd {
    /// Nothing is left to do.
    Finished,
    /// A task or a step failed.
    Failed(Arc<Failure>),
}

/// How far an instance came.
enum Settled {
    /// Tasks are still running.
    Waiting,
    /// A step was committed and others may follow at once.
    Moved,
    /// Nothing is left to do.
    Finished,
    /// A task or the step itself failed.
    Failed(Arc<Failure>),
}

impl Driver {
    /// Brings the instance at `path` as far as its tasks' results allow; gives how the run ends,
    /// once it does.
    pub(super) fn settle(&mut self, path: &Arc<str>) -> Result<Option<RunEnd>, JournalError> {
        if !self.goes_on_inside(path) {
            return Ok(None);
        }
        match self.settle_instance(path)? {
            Settled::Waiting => {}
            Settled::Moved => self.touch(path),
            Settled::Finished if path.is_empty() => return Ok(Some(RunEnd::Finished)),
            Settled::Failed(failure) if path.is_empty() => {
                return Ok(Some(RunEnd::Failed(failure)));
            }
            Settled::Finished => {
                let done = self.exit(path);
                self.end_inner(path, done)?;
            }
            Settled::Failed(failure) => self.end_inner(path, Err(failure))?,
        }
        Ok(None)
    }

    fn settle_instance(&mut self, path: &Arc<str>) -> Result<Settled, JournalError> {
        let Some(instance) = self.instance(path) else { return Ok(Settled::Waiting) };
        if !instance.begun {
            return self.begin_inner(path);
        }
        if instance.items.is_some() {
            if instance.tasks.have_ended() {
                return Ok(Settled::Finished);
            }
            self.hand_out_items(path);
            return Ok(Settled::Waiting);
        }
        if instance.tasks.is_empty() {
            return Ok(Settled::Finished);
        }
        let failed = instance.tasks.failed().find(|task| instance.is_unhandled(task));
        let failed = failed.and_then(|task| task.failure().cloned());
        let all = instance.tasks.have_ended();
        match failed {
            Some(failure) if all => Ok(Settled::Failed(failure)),
            None if instance.is_dataflow() => {
                let first = instance.tasks.ended().next().map(|task| task.id.clone());
                first.map_or(Ok(Settled::Waiting), |id| self.commit(path, Some(&id)))
            }
            None if all => self.commit(path, None),
            // Once one has failed for good, nothing new begins: its siblings finish.
            Some(_) | None => Ok(Settled::Waiting),
        }
    }

    /// Whether no task around the instance at `path` has ended.
    fn goes_on_inside(&self, path: &str) -> bool {
        let Some(root) = self.root() else { return false };
        path.is_empty() || end::goes_on(root, path)
    }

    /// The end of the graph inside a task is the task's result.
    fn end_inner(
        &mut self,
        path: &Arc<str>,
        done: Result<Done, Arc<Failure>>,
    ) -> Result<(), JournalError> {
        let began = self.live.get(path).map(|running| running.at);
        let now = self.shared.services.env.monotonic();
        let took = began.map_or(Duration::ZERO, |began| now.saturating_sub(began));
        self.end_task(path, took, done)
    }

    fn exit(&self, path: &Arc<str>) -> Result<Done, Arc<Failure>> {
        let fail = |error| Arc::new(Failure { error, path: path.clone() });
        let gone = || fail(NodeError::Internal(format!("no task `{path}`")));
        let (outer, task) = self.root().and_then(|root| root.task_in(path)).ok_or_else(gone)?;
        match (&outer.graph.nodes[task.node].work, &task.inner) {
            (Work::Sub(sub), Some(inner)) => sub.exit(&inner.before, &inner.state).map_err(fail),
            (Work::Each(each), Some(inner)) => {
                let result = |task: &Task| match (task.failure(), task.result()) {
                    (Some(failure), _) => Err(failure.error.clone()),
                    (None, Some(result)) => Ok(result.writes.clone()),
                    (None, None) => Err(NodeError::Internal(format!("no task `{}`", task.path))),
                };
                each.exit(inner.tasks.iter().map(result).collect()).map_err(|error| {
                    let same = inner.tasks.failed().find_map(Task::failure);
                    same.filter(|failure| failure.error == error).cloned().unwrap_or(fail(error))
                })
            }
            _ => Err(gone()),
        }
    }

    /// The first step of a graph inside a task.
    fn begin_inner(&mut self, path: &Arc<str>) -> Result<Settled, JournalError> {
        let Some(instance) = self.instance(path) else { return Ok(Settled::Waiting) };
        match schedule::start(&instance.graph, &instance.state, &instance.scope) {
            Ok(successors) => self.step(path, Ends::default(), Delta::new(), &successors),
            Err(error) => Ok(failed(path, error)),
        }
    }

    /// Merges the results of tasks that have ended, one or all of them, and begins what follows.
    fn commit(&mut self, path: &Arc<str>, one: Option<&Arc<str>>) -> Result<Settled, JournalError> {
        self.record_failures(path, one)?;
        let Some(instance) = self.instance(path) else { return Ok(Settled::Waiting) };
        let ending = ending(instance, one);
        let results = || ending.iter().filter_map(|task| task.result());
        let delta = match instance.state.merge(results().map(|result| &result.writes)) {
            Ok(delta) => delta,
            Err(error) => return Ok(failed(path, error.into())),
        };
        // Of several messages with one id the last in task-path order stands, whichever was stored
        // first.
        let messages = results().flat_map(|r| messages_in(&instance.graph, &r.writes));
        let last: IndexMap<_, _> = messages.map(|m| (m.id.clone(), m)).collect();
        let messages: Vec<Arc<Message>> = last.into_values().collect();
        let limit = self.shared.limits().state;
        if let Some(why) = too_heavy(limit, &instance.state, &delta, &messages) {
            return Ok(failed(path, NodeError::Limit(why)));
        }
        let shown = instance.graph.shown;
        for message in messages {
            self.writer.message(message, shown);
        }
        let Some(instance) = self.instance(path) else { return Ok(Settled::Waiting) };
        let ending = self::ending(instance, one);
        let reads = ending.iter().any(|task| instance.graph.nodes[task.node].reads_where_to_go());
        let mut merged = Cow::Borrowed(&*instance.state);
        if reads && let Err(error) = merged.to_mut().apply(&delta, &self.writer.log.messages) {
            return Ok(failed(path, error.into()));
        }
        let mut scope = Cow::Borrowed(&instance.scope);
        if reads {
            scope.to_mut().now = self.shared.services.env.now();
        }
        match successors(instance, &ending, &merged, &scope) {
            Ok(successors) => {
                let ends = Ends::of(instance, &ending);
                let more = ending.len() < instance.tasks.len();
                Ok(match self.step(path, ends, delta, &successors)? {
                    Settled::Finished if more => Settled::Moved,
                    settled => settled,
                })
            }
            Err(error) => Ok(failed(path, error)),
        }
    }

    /// Failures that are handled have records of their own.
    fn record_failures(&mut self, path: &str, one: Option<&Arc<str>>) -> Result<(), JournalError> {
        let Some(instance) = self.instance(path) else { return Ok(()) };
        let unrecorded = |t: &&Task| t.result().is_some_and(|result| !result.recorded);
        let failed = instance.tasks.failed().filter(|task| one.is_none_or(|id| *id == task.id));
        let failed: Vec<TaskDone> =
            failed.filter(unrecorded).filter_map(|task| task_done(instance, task)).collect();
        failed.into_iter().try_for_each(|done| self.writer.push(Fact::Done(done)))
    }

    fn step(
        &mut self,
        path: &Arc<str>,
        ends: Ends,
        delta: Delta,
        successors: &Successors,
    ) -> Result<Settled, JournalError> {
        let Some(run) = self.writer.log.run.as_ref() else { return Ok(Settled::Waiting) };
        let instance = run.root.as_ref().and_then(|root| root.instance(path));
        let Some(instance) = instance else { return Ok(Settled::Waiting) };
        let begins = !successors.next.is_empty();
        let over = end::over_limit(instance).filter(|_| begins);
        let (mut activation, mut step) =
            (instance.activation(successors), run.steps + u32::from(begins));
        if over.is_some() {
            // What the step did stands; only what would follow does not begin.
            (activation.next, step) = (Vec::new(), run.steps);
        }
        let Ends { done, recorded } = ends;
        let begun: Vec<Arc<str>> = activation.next.iter().map(|id| inside(path, id)).collect();
        let step = Step { path: path.clone(), step, done, recorded, delta, activation };
        self.writer.push(Fact::Step(step))?;
        if path.is_empty()
            && self.instance(path).is_some_and(|root| root.tasks.len() == begun.len())
        {
            // Whatever had ended so far has ended with this step.
            self.unrecorded.clear();
        }
        self.ready.extend(begun);
        Ok(match over {
            Some(over) => failed(path, over),
            None if begins => Settled::Moved,
            None => Settled::Finished,
        })
    }

    /// Stores the results of tasks whose siblings still run, so that a crash costs no re-run.
    pub(super) fn record_early(&mut self) -> Result<(), JournalError> {
        let mut paths = std::mem::take(&mut self.unrecorded);
        // The outer ones first: what is inside a task that has its result is of no use any more. Of
        // those that failed the outer ones last: a fork from there keeps what had succeeded inside.
        let failed = |path: &Arc<str>| {
            let task = self.root().and_then(|root| root.task_in(path));
            task.is_some_and(|(_, task)| task.failure().is_some())
        };
        paths.sort_by_cached_key(|path| match (failed(path), levels(path)) {
            (false, depth) => (false, depth),
            (true, depth) => (true, usize::MAX - depth),
        });
        for path in &paths {
            let task = self.root().and_then(|root| root.task_in(path));
            let unrecorded = task.and_then(|(instance, task)| {
                let result = task.result().filter(|result| !result.recorded)?;
                let messages = messages_in(&instance.graph, &result.writes);
                Some((task_done(instance, task)?, instance.graph.shown, messages))
            });
            let Some((done, shown, messages)) = unrecorded else { continue };
            for message in messages {
                self.writer.message(message, shown);
            }
            self.writer.push(Fact::Done(done))?;
        }
        Ok(())
    }
}

/// What begins after these tasks, over the merged state.
fn successors(
    instance: &GraphInstance,
    ending: &[&Task],
    state: &State,
    scope: &Scope,
) -> Result<Successors, NodeError> {
    let mut running = LiveNodes::default();
    if ending.len() < instance.tasks.len() {
        running = instance.tasks.nodes().clone();
        for task in ending {
            running.remove(task.node);
        }
    }
    let ended = ending.iter().map(|task| leads_to(instance, task));
    schedule::after(&instance.graph, state, scope, ended, &instance.joins, &running)
}

/// The tasks that end with a step: the one, or all.
fn ending<'i>(instance: &'i GraphInstance, one: Option<&Arc<str>>) -> Vec<&'i Task> {
    match one {
        Some(id) => instance.tasks.get(id).into_iter().collect(),
        None => instance.tasks.iter().collect(),
    }
}

fn failed(path: &Arc<str>, error: NodeError) -> Settled {
    Settled::Failed(Arc::new(Failure { error, path: path.clone() }))
}

/// The tasks that end with a step, as its record tells them.
#[derive(Default)]
struct Ends {
    done: Vec<StepDone>,
    recorded: Vec<Arc<str>>,
}

impl Ends {
    fn of(instance: &GraphInstance, ending: &[&Task]) -> Self {
        let mut ends = Self::default();
        for task in ending {
            let Some(result) = task.result() else { continue };
            if !result.recorded {
                let (task, took_ms, cached) = (task.id.clone(), result.took_ms, result.cached);
                ends.done.push(StepDone { task, took_ms, cached });
            } else if instance.is_dataflow() {
                ends.recorded.push(task.id.clone());
            }
        }
        ends
    }
}

/// Where a task that ended leads.
fn leads_to(instance: &GraphInstance, task: &Task) -> EndedNode {
    let node = task.node;
    let transition = match (task.failure(), instance.graph.nodes[node].policy.on_error) {
        (Some(_), OnError::Node(handler)) => Transition::OnError(handler),
        (Some(_), OnError::Continue | OnError::Fail) => Transition::Lines,
        (None, _) => match task.result().and_then(|r| r.goto.clone()) {
            Some(names) => Transition::Goto(names),
            None => Transition::Lines,
        },
    };
    EndedNode { node, transition }
}

/// The record of a task that ended before its siblings.
fn task_done(instance: &GraphInstance, task: &Task) -> Option<TaskDone> {
    let result = task.result()?;
    let failure = result.failure.as_ref();
    Some(TaskDone {
        task: task.path.clone(),
        took_ms: result.took_ms,
        writes: dehydrate(&instance.graph, &result.writes),
        error: failure.map(|failure| failure.error.clone()),
        failed_at: failure.map(|f| f.path.clone()).filter(|path| *path != task.path),
        goto: result.goto.clone(),
        cached: result.cached,
    })
}
