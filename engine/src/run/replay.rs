//! Runs read back from their records: as they stand, and as they stood.
//!
//! Invariants:
//! - What stands at a number is replayed from the records up to it: it is exact, whatever came
//!   later, and however deep its subgraphs lie.
//! - Reading changes nothing and needs no lease.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use serde_json::Value;

use crate::id::{InterruptId, LogId, RunId};
use crate::journal::{BlobId, History, Input, JournalError};
use crate::run::checkpoint::{CheckpointKind, Standing, kind, standing};
use crate::run::engine::{Engine, Stopped};
use crate::run::fold::{LogState, Programs};
use crate::run::record::{Answered, Fact, Number, Numbered, RunOptions, Waiting};
use crate::run::standing::RunAt;

/// Records read at once.
const PAGE: usize = 500;

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
    pub async fn wait_beyond(&self, run: &RunId, number: Number) -> Result<Stopped, JournalError> {
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
        let at = RunAt {
            number,
            kind,
            status,
            steps,
            program,
            root,
            options,
            values,
            answered,
            waiting,
        };
        Ok((id == *run).then_some(at))
    }

    /// The bundles, compiled; none if one of them cannot be compiled here any more: values are
    /// known without them.
    async fn programs(&self, bundles: &[BlobId]) -> Result<Programs, JournalError> {
        let mut programs = Programs::default();
        for bundle in bundles {
            match self.shared.program(bundle).await? {
                Ok(program) => programs.add(program),
                Err(_) => return Ok(Programs::default()),
            }
        }
        Ok(programs)
    }
}

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
