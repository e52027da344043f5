//! The places of a run's history that can be read, compared and forked from.
//!
//! Absent on purpose: what stood there (`standing.rs`), and comparing two of them, which is a
//! matter of presentation.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::RunId;
use crate::journal::JournalError;
use crate::run::engine::Engine;
use crate::run::record::{Activation, EndStatus, Fact, Number, Numbered, Step};
use crate::run::standing::{RunAt, TaskAt, TaskStatus};
use crate::run::task::split;

/// A number of a run's log that the run can be read at and forked from.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The number.
    pub number: Number,
    /// Milliseconds since 1970, UTC.
    pub at_ms: i64,
    /// What stands there.
    pub kind: CheckpointKind,
    /// How many steps of the run, of all its graphs, have begun.
    pub step: u32,
    /// Path of the task whose subgraph changed; empty for the run's own graph.
    pub path: Arc<str>,
    /// Paths of the tasks that ended with it.
    pub ended: Vec<Arc<str>>,
    /// Paths of the tasks that begin with it.
    pub next: Vec<Arc<str>>,
    /// How far the run had come.
    pub status: Standing,
}

/// What stands at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointKind {
    /// The run began.
    Start,
    /// The run went on from another one.
    Fork,
    /// A step ended.
    Step,
    /// A question was answered.
    Answer,
    /// A person changed the state.
    Edit,
    /// A person moved the run to another bundle.
    Migration,
    /// Nothing goes on until somebody does something.
    Waiting,
    /// The run ended.
    End,
}

impl CheckpointKind {
    /// As the API spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Fork => "fork",
            Self::Step => "step",
            Self::Answer => "answer",
            Self::Edit => "edit",
            Self::Migration => "migration",
            Self::Waiting => "waiting",
            Self::End => "end",
        }
    }
}

/// How far a run had come at a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It went on.
    Running,
    /// It waited for answers.
    Waiting,
    /// It waited for a person to say what becomes of it.
    NeedsAttention,
    /// It ended.
    Ended(EndStatus),
}

impl Standing {
    /// As the API spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::NeedsAttention => "needs_attention",
            Self::Ended(EndStatus::Finished) => "finished",
            Self::Ended(EndStatus::Failed) => "failed",
            Self::Ended(EndStatus::Cancelled) => "cancelled",
        }
    }

    /// Whether nothing goes on any more.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

/// What a record is as a checkpoint; no wildcard arm: a new fact must choose.
pub(super) fn kind(fact: &Fact) -> Option<CheckpointKind> {
    Some(match fact {
        Fact::Started(_) => CheckpointKind::Start,
        Fact::Forked(_) => CheckpointKind::Fork,
        Fact::Step(_) => CheckpointKind::Step,
        Fact::Answered(_) => CheckpointKind::Answer,
        Fact::Edited(_) => CheckpointKind::Edit,
        Fact::Migrated { .. } => CheckpointKind::Migration,
        Fact::Waiting(_) => CheckpointKind::Waiting,
        Fact::Ended(_) => CheckpointKind::End,
        Fact::Resumed { .. }
        | Fact::Handed {}
        | Fact::Intent(_)
        | Fact::Called(_)
        | Fact::Asked(_)
        | Fact::Retried(_)
        | Fact::Done(_)
        | Fact::Resolved(_)
        | Fact::Snapshot { .. } => return None,
    })
}

/// How far a run had come with a record.
pub(super) fn standing(fact: &Fact, before: Standing) -> Standing {
    match fact {
        Fact::Edited(_) if before.has_ended() => before,
        Fact::Waiting(waiting) if waiting.attention.is_some() => Standing::NeedsAttention,
        Fact::Waiting(_) => Standing::Waiting,
        Fact::Ended(ended) => Standing::Ended(ended.status),
        _ => Standing::Running,
    }
}

impl Engine {
    /// At most `limit` of the run's checkpoints above a number, in order. An unknown run has none.
    pub async fn checkpoints(
        &self,
        run: &RunId,
        after: Number,
        limit: usize,
    ) -> Result<Vec<Checkpoint>, JournalError> {
        let Some(records) = self.own_records(run).await? else { return Ok(Vec::new()) };
        let mut walk = Walk::new();
        if let Some(first) = records.first().filter(|r| matches!(r.record.fact, Fact::Forked(_)))
            && let Some(fork) = self.run_at(run, Some(first.number)).await?
        {
            walk.begin(&fork);
        }
        let all = records.iter().filter_map(|record| walk.take(record));
        Ok(all.filter(|checkpoint| checkpoint.number > after).take(limit).collect())
    }
}

/// Picks the checkpoints out of a run's own records.
struct Walk {
    step: u32,
    status: Standing,
    /// Tasks that begin where a fork goes on.
    forked: Vec<Arc<str>>,
    /// Tasks that ended before their step did, by the path of the graph that they belong to.
    early: BTreeMap<Arc<str>, Vec<Arc<str>>>,
}

impl Walk {
    fn new() -> Self {
        let (forked, early) = (Vec::new(), BTreeMap::new());
        Self { step: 0, status: Standing::Running, forked, early }
    }

    fn begin(&mut self, fork: &RunAt) {
        self.step = fork.steps;
        let tasks = fork.graphs().into_iter().flat_map(|graph| graph.tasks);
        let live = |task: &TaskAt| !matches!(task.status, TaskStatus::Done | TaskStatus::Failed);
        self.forked = tasks.filter(live).map(|task| task.path).collect();
    }

    fn take(&mut self, Numbered { number, record }: &Numbered) -> Option<Checkpoint> {
        let mut path: Arc<str> = "".into();
        let (mut ended, mut next) = (Vec::new(), Vec::new());
        match &record.fact {
            Fact::Started(started) => {
                self.step = 1;
                next = fired("", &started.activation);
            }
            Fact::Forked(_) => next = std::mem::take(&mut self.forked),
            Fact::Step(step) => {
                self.step = step.step;
                path = step.path.clone();
                ended = self.ended(step);
                next = fired(&path, &step.activation);
            }
            Fact::Edited(edited) => {
                path = edited.path.clone();
                next = edited.activation.as_ref().map_or_else(Vec::new, |f| fired(&path, f));
            }
            Fact::Done(done) => {
                let outer = split(&done.task).0;
                self.early.entry(outer.into()).or_default().push(done.task.clone());
            }
            _ => {}
        }
        self.status = standing(&record.fact, self.status);
        let kind = kind(&record.fact)?;
        let (number, at_ms, step, status) = (*number, record.at_ms, self.step, self.status);
        Some(Checkpoint { number, at_ms, kind, step, path, ended, next, status })
    }

    /// The tasks that a step ends: those that it names, and those that ended before it.
    fn ended(&mut self, step: &Step) -> Vec<Arc<str>> {
        let path = |id: &Arc<str>| join(&step.path, id);
        let mut ended: Vec<_> = step.recorded.iter().map(path).collect();
        if let Some(early) = self.early.get_mut(&step.path) {
            if ended.is_empty() {
                // A step of the superstep schedule ends all of them without naming them again.
                ended.append(early);
            } else {
                early.retain(|task| !ended.contains(task));
            }
        }
        ended.extend(step.done.iter().map(|done| path(&done.task)));
        ended
    }
}

fn fired(path: &str, activation: &Activation) -> Vec<Arc<str>> {
    activation.next.iter().map(|id| join(path, id)).collect()
}

fn join(path: &str, id: &str) -> Arc<str> {
    if path.is_empty() { id.into() } else { format!("{path}/{id}").into() }
}
