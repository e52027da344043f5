//! A run as it stood at a number of its log: values and tasks of its graph and of all inside it.
//!
//! Invariants:
//! - What stands at a number is replayed from the records up to it: it is exact, whatever came
//!   later, and however deep its subgraphs lie.
//! - Reading changes nothing and needs no lease.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use serde_json::{Map, Value};

use crate::bundle::Program;
use crate::graph::Graph;
use crate::id::{InterruptId, LogId, RunId};
use crate::journal::{BlobId, History, Input, JournalError};
use crate::run::checkpoint::{CheckpointKind, Standing, kind, standing};
use crate::run::engine::{Engine, Stopped};
use crate::run::fold::{LogState, Programs};
use crate::run::frame::{Frame, Task};
use crate::run::migrate::{self, Problem};
use crate::run::record::{Answered, Asked, Fact, Number, Numbered, RunOptions, Waiting};

/// A run as it stood at a number.
#[derive(Debug)]
pub struct RunAt {
    /// The last record up to there.
    pub number: Number,
    /// What it is, if it is a checkpoint.
    pub kind: Option<CheckpointKind>,
    /// How far it had come.
    pub status: Standing,
    /// Steps that had begun.
    pub steps: u32,
    /// What it was pinned to; `None` if that cannot be compiled here any more.
    pub program: Option<Arc<Program>>,
    /// Its graph; `None` once it has ended.
    pub root: Option<Frame>,
    /// What the caller set for the whole run.
    pub options: RunOptions,
    /// The values of its log's channels.
    pub values: Map<String, Value>,
    /// Answers so far, of this run.
    pub answered: Vec<Answered>,
    /// What it waited for, if it did.
    pub waiting: Option<Waiting>,
}

/// A graph at a number: the run's own, one inside a task, or the items of a map.
#[derive(Clone, Debug)]
pub struct GraphAt {
    /// Path of the task that it is inside; empty for the run's own.
    pub path: Arc<str>,
    /// Which.
    pub graph: Arc<Graph>,
    /// Channel → value; none of the items of a map, which have values of their own.
    pub values: Map<String, Value>,
    /// Its live tasks, in task-path order.
    pub tasks: Vec<TaskAt>,
}

/// A task at a number.
#[derive(Clone, Debug)]
pub struct TaskAt {
    /// Its whole path.
    pub path: Arc<str>,
    /// The node.
    pub node: Arc<str>,
    /// The node's kind.
    pub kind: &'static str,
    /// How far it had come.
    pub status: TaskStatus,
    /// Of an item of a map: channel → value.
    pub values: Option<Map<String, Value>>,
    /// Its questions without an answer.
    pub open: Vec<Asked>,
}

/// How far a task had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    /// It had not ended.
    Running,
    /// It, or all that went on inside it, waited for answers.
    Suspended,
    /// It had ended.
    Done,
    /// It had failed.
    Failed,
}

impl TaskStatus {
    /// As the API spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

impl RunAt {
    /// The run's graph and all that go on inside it, each after the one that it is inside. Of a
    /// run that has ended: its own, as it left it.
    #[must_use]
    pub fn graphs(&self) -> Vec<GraphAt> {
        let mut all = Vec::new();
        match (&self.root, &self.program) {
            (Some(root), _) => collect(root, &mut all),
            (None, Some(program)) => {
                let graph = program.graph.clone();
                let own = |(name, _): &(&String, &Value)| graph.channels.get(name).is_some();
                let kept = self.values.iter().filter(own);
                let values = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
                all.push(GraphAt { path: "".into(), graph, values, tasks: Vec::new() });
            }
            (None, None) => {}
        }
        all
    }

    /// The values of the channels that a caller receives.
    #[must_use]
    pub fn output(&self) -> Map<String, Value> {
        let Some(own) = self.graphs().into_iter().next() else { return Map::new() };
        let GraphAt { graph, mut values, .. } = own;
        values.retain(|name, _| graph.output.iter().any(|output| **output == *name));
        values
    }

    /// What of the run does not fit another version of its graph.
    #[must_use]
    pub fn misfits(&self, graph: &Graph) -> Vec<Problem> {
        let unreadable = || Problem {
            path: "".into(),
            node: None,
            channel: None,
            message: "the graph that the run stands on cannot be compiled here any more, so \
                      nothing is known of its tasks"
                .into(),
        };
        self.root.as_ref().map_or_else(|| vec![unreadable()], |root| migrate::check(root, graph))
    }

    /// Questions without an answer, in task-path order.
    #[must_use]
    pub fn open(&self) -> Vec<Asked> {
        let tasks = self.graphs().into_iter().flat_map(|graph| graph.tasks);
        tasks.flat_map(|task| task.open).collect()
    }
}

fn collect(frame: &Frame, all: &mut Vec<GraphAt>) {
    let items = frame.items.is_some();
    all.push(GraphAt {
        path: frame.path.clone(),
        graph: frame.graph.clone(),
        values: if items { Map::new() } else { frame.state.to_json() },
        tasks: frame.tasks.iter().map(|task| task_at(frame, task, items)).collect(),
    });
    for inner in frame.tasks.iter().filter_map(|task| task.inner.as_deref()) {
        collect(inner, all);
    }
}

fn task_at(frame: &Frame, task: &Task, item: bool) -> TaskAt {
    let node = &frame.graph.nodes[task.node];
    TaskAt {
        path: task.path.clone(),
        node: node.name.clone(),
        kind: node.kind,
        status: status(task),
        values: item.then(|| task.state.to_json()),
        open: unanswered(task).map(|asked| Asked::clone(asked)).collect(),
    }
}

/// What a task asked and got no answer to; none once it has ended.
fn unanswered(task: &Task) -> impl Iterator<Item = &Arc<Asked>> {
    task.open_questions().filter(|_| task.result.is_none())
}

fn status(task: &Task) -> TaskStatus {
    match &task.result {
        Some(result) if result.error.is_some() => TaskStatus::Failed,
        Some(_) => TaskStatus::Done,
        None if unanswered(task).next().is_some() || waits_inside(task) => TaskStatus::Suspended,
        None => TaskStatus::Running,
    }
}

/// Whether something goes on inside a task and all of it waits.
fn waits_inside(task: &Task) -> bool {
    let inside = || task.inner.iter().flat_map(|frame| &frame.tasks);
    let live = || inside().filter(|task| task.result.is_none());
    live().next().is_some() && live().all(|task| status(task) == TaskStatus::Suspended)
}

impl Engine {
    /// The run as it stood at a number, or as it stands (`None`). `None` as the answer: there is
    /// no such run, it has not begun, or the number is none of its own.
    pub async fn run_at(
        &self,
        run: &RunId,
        at: Option<Number>,
    ) -> Result<Option<RunAt>, JournalError> {
        let Some(records) = self.own_records(run).await? else { return Ok(None) };
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(None) };
        let number = at.unwrap_or(last.number);
        if number < first.number {
            return Ok(None);
        }
        let Some(place) = self.shared.journal.find(run).await? else { return Ok(None) };
        // A change after the run's end stands between runs, maybe after a snapshot.
        let end = place.last.filter(|end| *end < number && number <= last.number);
        let found = self.replay(&place.log, run, end.unwrap_or(number)).await?;
        let mut found = match found {
            Some(found) if end.is_some() => found,
            found => return Ok(found),
        };
        let history = self.shared.journal.load(&place.log, Some(number)).await?;
        found.number = history.records.last().map_or(number, |record| record.number);
        found.kind = history.records.last().and_then(|record| kind(&record.record.fact));
        found.values = fold(&place.log, history, &Programs::default())?.values();
        Ok(Some(found))
    }

    /// The run as it stood at one of its checkpoints; `None` if the number is none.
    pub async fn checkpoint(
        &self,
        run: &RunId,
        number: Number,
    ) -> Result<Option<RunAt>, JournalError> {
        let at = self.run_at(run, Some(number)).await?;
        Ok(at.filter(|at| at.number == number && at.kind.is_some()))
    }

    /// What the record at a number of a log says that its run waits for.
    pub async fn waiting_at(
        &self,
        log: &LogId,
        number: Number,
    ) -> Result<Option<Waiting>, JournalError> {
        let history = self.shared.journal.read(log, number, 1).await?;
        let at = history.records.into_iter().find(|record| record.number == number);
        Ok(at.and_then(|record| match &record.record.fact {
            Fact::Waiting(waiting) => Some(Waiting::clone(waiting)),
            _ => None,
        }))
    }

    /// Answers to questions of a run that were sent and that its driver has not read yet.
    pub async fn answers_sent(
        &self,
        log: &LogId,
        run: &RunId,
    ) -> Result<BTreeMap<InterruptId, Value>, JournalError> {
        let inbox = self.shared.journal.inbox(log).await?;
        let answers = |(_, input)| match input {
            Input::Resume(resume) if resume.run == *run => Some(resume.answers),
            _ => None,
        };
        Ok(inbox.into_iter().filter_map(answers).flatten().collect())
    }

    /// Waits until the run has ended or waits for somebody, beyond a number: what it waited for
    /// there, and was answered since, does not count.
    pub async fn wait_beyond(
        &self,
        run: &RunId,
        number: Number,
    ) -> Result<Stopped, JournalError> {
        if number > 0 {
            // Whatever happens next shows that the answers were taken in.
            self.events(run.clone(), number).next().await.transpose()?;
        }
        self.wait(run).await
    }

    /// The run's own records: from its beginning to its end, and the changes that a person made
    /// after it. `None`: it is unknown or has not begun.
    pub(super) async fn own_records(
        &self,
        run: &RunId,
    ) -> Result<Option<Vec<Numbered>>, JournalError> {
        let place = self.shared.journal.find(run).await?;
        let Some((log, first)) = place.and_then(|p| Some((p.log, p.first?))) else {
            return Ok(None);
        };
        let mut own = Own::default();
        let mut from = first;
        loop {
            let page = self.shared.journal.read(&log, from, PAGE).await?.records;
            let whole = page.len() < PAGE;
            for record in page {
                from = record.number + 1;
                if !own.take(record) {
                    return Ok(Some(own.records));
                }
            }
            if whole {
                return Ok(Some(own.records));
            }
        }
    }

    /// The run as it stood at a number of its log; `None` if the number belongs to another run.
    async fn replay(
        &self,
        log: &LogId,
        run: &RunId,
        at: Number,
    ) -> Result<Option<RunAt>, JournalError> {
        let history = self.shared.journal.load(log, Some(at)).await?;
        let mut facts = Facts::default();
        for record in &history.records {
            facts.take(record);
        }
        let programs = self.programs(&facts.bundles).await?;
        let program = facts.bundles.last().and_then(|id| programs.get(id)).cloned();
        let state = fold(log, history, &programs)?;
        let values = state.values();
        let (id, steps, options, root) = match (state.run, state.last) {
            (Some(going), _) => {
                (going.started.run.clone(), going.steps, going.options().clone(), going.root)
            }
            (None, Some(last)) => (last.run, facts.steps, RunOptions::default(), None),
            (None, None) => return Ok(None),
        };
        let Facts { number, kind, status, answered, waiting, .. } = facts;
        let at =
            RunAt { number, kind, status, steps, program, root, options, values, answered, waiting };
        Ok((id == *run).then_some(at))
    }

    /// The bundles that can be compiled here.
    async fn programs(&self, bundles: &[BlobId]) -> Result<Programs, JournalError> {
        let mut programs = Programs::default();
        for bundle in bundles {
            if let Ok(program) = self.shared.program(bundle).await? {
                programs.add(program);
            }
        }
        Ok(programs)
    }
}

/// Records read at once.
const PAGE: usize = 500;

fn fold(log: &LogId, history: History, programs: &Programs) -> Result<LogState, JournalError> {
    LogState::replay(&history.records, history.messages, programs)
        .map_err(|illegal| JournalError::Corrupt(format!("log {log}: {illegal}")))
}

/// Picks a run's own records out of those from its first on.
#[derive(Default)]
struct Own {
    records: Vec<Numbered>,
    ended: bool,
}

impl Own {
    /// Whether the run may have more.
    fn take(&mut self, record: Numbered) -> bool {
        let fact = &record.record.fact;
        let more = match fact {
            Fact::Started(_) | Fact::Forked(_) => self.records.is_empty(),
            Fact::Snapshot { .. } | Fact::Edited(_) => true,
            _ => !self.ended,
        };
        if more && !matches!(fact, Fact::Snapshot { .. }) {
            self.ended |= matches!(fact, Fact::Ended(_));
            self.records.push(record);
        }
        more
    }
}

/// What the records of the last run of a log say besides its state.
struct Facts {
    number: Number,
    kind: Option<CheckpointKind>,
    status: Standing,
    steps: u32,
    /// What the run is or was pinned to, the last one last.
    bundles: Vec<BlobId>,
    answered: Vec<Answered>,
    waiting: Option<Waiting>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            number: 0,
            kind: None,
            status: Standing::Running,
            steps: 0,
            bundles: Vec::new(),
            answered: Vec::new(),
            waiting: None,
        }
    }
}

impl Facts {
    fn take(&mut self, Numbered { number, record }: &Numbered) {
        self.number = *number;
        self.kind = kind(&record.fact);
        self.status = standing(&record.fact, self.status);
        self.waiting = None;
        match &record.fact {
            Fact::Started(started) => {
                self.bundles = vec![started.bundle.clone()];
                self.steps = 1;
                self.answered.clear();
            }
            Fact::Migrated { bundle } => self.bundles.push(bundle.clone()),
            Fact::Step(step) => self.steps = step.step,
            Fact::Answered(answered) => self.answered.push(answered.clone()),
            Fact::Waiting(waiting) => self.waiting = Some(Waiting::clone(waiting)),
            _ => {}
        }
    }
}
