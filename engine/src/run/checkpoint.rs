//! The places of a run's history that can be read, compared and forked from.
//!
//! Absent on purpose: what stood there (`standing.rs`), and comparing two of them, which is a
//! matter of presentation.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::id::RunId;
use crate::journal::{History, JournalError};
use crate::run::engine::Engine;
use crate::run::pages::Pages;
use crate::run::record::{Activation, EndStatus, Fact, Number, Numbered, Step};
use crate::run::standing::{RunAt, TaskAt, TaskStatus};
use crate::run::task::{inside, split};

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
    /// A task failed. A fork begins it again, and keeps what of it had succeeded.
    Failure,
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
            Self::Failure => "failure",
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

    /// From how the API spells it.
    fn parse(text: &str) -> Option<Self> {
        let ends = [EndStatus::Finished, EndStatus::Failed, EndStatus::Cancelled].map(Self::Ended);
        let all = [Self::Running, Self::Waiting, Self::NeedsAttention].into_iter().chain(ends);
        all.into_iter().find(|standing| standing.as_str() == text)
    }

    /// Whether nothing goes on any more.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

/// What a record is as a checkpoint; `None`: it is none. No wildcard arm: a new fact must choose.
#[must_use]
pub fn kind(fact: &Fact) -> Option<CheckpointKind> {
    Some(match fact {
        Fact::Started(_) => CheckpointKind::Start,
        Fact::Forked(_) => CheckpointKind::Fork,
        Fact::Step(_) => CheckpointKind::Step,
        Fact::Answered(_) => CheckpointKind::Answer,
        Fact::Edited(_) => CheckpointKind::Edit,
        Fact::Migrated { .. } => CheckpointKind::Migration,
        Fact::Waiting(_) => CheckpointKind::Waiting,
        Fact::Ended(_) => CheckpointKind::End,
        Fact::Done(done) if done.error.is_some() => CheckpointKind::Failure,
        Fact::Resumed { .. }
        | Fact::Handed {}
        | Fact::Lived {}
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

/// A page of a run's checkpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckpointPage {
    /// In order.
    pub items: Vec<Checkpoint>,
    /// Where the next page begins; `None`: this is the last one.
    pub next: Option<CheckpointCursor>,
}

/// A place between two checkpoints of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointCursor {
    /// The number of the checkpoint before it.
    after: Number,
    /// Where to read from: tasks that ended there end with a step that is yet to come.
    from: Number,
    /// The step that had begun there.
    step: u32,
    /// How far the run had come there.
    status: Standing,
}

impl fmt::Display for CheckpointCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, from, step, status } = self;
        write!(f, "{after}.{from}.{step}.{}", status.as_str())
    }
}

/// A text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no cursor of a list of checkpoints")]
pub struct NoCursor;

impl FromStr for CheckpointCursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let mut parts = text.split('.');
        let mut number =
            || parts.next().and_then(|part| part.parse::<Number>().ok()).ok_or(NoCursor);
        let (after, from, step) = (number()?, number()?, number()?);
        let step = u32::try_from(step).map_err(|_| NoCursor)?;
        let status = parts.next().and_then(Standing::parse).ok_or(NoCursor)?;
        if parts.next().is_some() {
            return Err(NoCursor);
        }
        Ok(Self { after, from, step, status })
    }
}

impl Engine {
    /// A page of the run's checkpoints, of at most `limit`, from a place on (`None`: from its
    /// beginning). An unknown run has none.
    pub async fn checkpoints(
        &self,
        run: &RunId,
        cursor: Option<CheckpointCursor>,
        limit: usize,
    ) -> Result<CheckpointPage, JournalError> {
        let mut page = CheckpointPage::default();
        let place = self.shared.journal.find(run).await?;
        let Some((log, first)) = place.and_then(|p| Some((p.log, p.first?))) else {
            return Ok(page);
        };
        let mut walk = Walk::new(run.clone(), cursor);
        let after = cursor.map_or(0, |cursor| cursor.after);
        let mut pages = Pages::new(log, cursor.map_or(first, |cursor| cursor.from.max(first)));
        let mut next = None;
        while let Some(History { records, .. }) = pages.next(&self.shared.journal).await? {
            for record in records {
                if matches!(record.record.fact, Fact::Forked(_)) && record.number == first {
                    let fork = self.run_at(run, Some(first)).await?;
                    if let Some(fork) = &fork {
                        walk.begin(fork);
                    }
                }
                if !walk.goes_on_with(&record) {
                    return Ok(page);
                }
                let found = walk.take(&record).filter(|checkpoint| checkpoint.number > after);
                let Some(checkpoint) = found else { continue };
                if page.items.len() == limit {
                    page.next = next;
                    return Ok(page);
                }
                if page.items.len() + 1 == limit {
                    next = Some(walk.cursor(checkpoint.number));
                }
                page.items.push(checkpoint);
            }
        }
        Ok(page)
    }
}

/// Picks the checkpoints out of a run's own records.
struct Walk {
    run: RunId,
    step: u32,
    status: Standing,
    /// Tasks that begin where a fork goes on.
    forked: Vec<Arc<str>>,
    /// Tasks that ended before their step did, by the path of the graph that they belong to.
    early: BTreeMap<Arc<str>, Vec<Early>>,
}

/// A task that ended before its step did.
struct Early {
    task: Arc<str>,
    /// Where that is recorded, and how far the run had come before.
    number: Number,
    step: u32,
    status: Standing,
}

impl Walk {
    fn new(run: RunId, cursor: Option<CheckpointCursor>) -> Self {
        let (step, status) = cursor.map_or((0, Standing::Running), |c| (c.step, c.status));
        Self { run, step, status, forked: Vec::new(), early: BTreeMap::new() }
    }

    fn begin(&mut self, fork: &RunAt) {
        self.step = fork.steps;
        let tasks = fork.graphs().into_iter().flat_map(|graph| graph.tasks);
        let live = |task: &TaskAt| !matches!(task.status, TaskStatus::Done | TaskStatus::Failed);
        self.forked = tasks.filter(live).map(|task| task.path).collect();
    }

    /// Whether a record belongs to the run: all from its beginning to its end do, and the changes
    /// that a person made after it.
    fn goes_on_with(&self, record: &Numbered) -> bool {
        match &record.record.fact {
            Fact::Started(started) => started.run == self.run,
            Fact::Forked(forked) => forked.run.as_ref() == Some(&self.run),
            Fact::Snapshot { .. } | Fact::Edited(_) => true,
            _ => !self.status.has_ended(),
        }
    }

    /// The place behind a checkpoint.
    fn cursor(&self, after: Number) -> CheckpointCursor {
        let first = self.early.values().flatten().min_by_key(|early| early.number);
        let (from, step, status) = match first {
            Some(early) => (early.number, early.step, early.status),
            None => (after + 1, self.step, self.status),
        };
        CheckpointCursor { after, from, step, status }
    }

    fn take(&mut self, Numbered { number, record }: &Numbered) -> Option<Checkpoint> {
        let mut path: Arc<str> = "".into();
        let (mut ended, mut next) = (Vec::new(), Vec::new());
        let before = (self.step, self.status);
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
                let (step, status) = before;
                path = split(&done.task).0.into();
                ended.push(done.task.clone());
                let early = Early { task: done.task.clone(), number: *number, step, status };
                self.early.entry(split(&done.task).0.into()).or_default().push(early);
            }
            Fact::Ended(ended) if ended.run != self.run => return None,
            _ => {}
        }
        self.status = standing(&record.fact, self.status);
        let kind = kind(&record.fact)?;
        let (number, at_ms, step, status) = (*number, record.at_ms, self.step, self.status);
        Some(Checkpoint { number, at_ms, kind, step, path, ended, next, status })
    }

    /// The tasks that a step ends: those that it names, and those that ended before it.
    fn ended(&mut self, step: &Step) -> Vec<Arc<str>> {
        let path = |id: &Arc<str>| inside(&step.path, id);
        let mut ended: Vec<_> = step.recorded.iter().map(path).collect();
        let early = self.early.remove(&step.path).unwrap_or_default();
        if ended.is_empty() {
            // A step of the superstep schedule ends all of them without naming them again.
            ended = early.into_iter().map(|early| early.task).collect();
        } else {
            let left = early.into_iter().filter(|early| !ended.contains(&early.task));
            let left: Vec<_> = left.collect();
            if !left.is_empty() {
                self.early.insert(step.path.clone(), left);
            }
        }
        ended.extend(step.done.iter().map(|done| path(&done.task)));
        // What ended inside of them ends with no step of its own.
        self.early.retain(|path, _| !ended.iter().any(|task| is_inside(path, task)));
        ended
    }
}

fn fired(path: &str, activation: &Activation) -> Vec<Arc<str>> {
    activation.next.iter().map(|id| inside(path, id)).collect()
}

/// Whether the graph at `path` goes on inside `task`, however deep.
fn is_inside(path: &str, task: &str) -> bool {
    path.strip_prefix(task).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
