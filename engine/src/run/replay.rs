//! Runs read back from their records: as they stand, and as they stood.
//!
//! Invariants:
//! - What stands at a number is replayed from the records up to it: it is exact, whatever came
//!   later, and however deep its subgraphs lie.
//! - Reading changes nothing and needs no lease.

use std::sync::Arc;

use futures_util::StreamExt as _;
use serde_json::{Map, Value};

use crate::id::{ConversationId, LogId, RunId};
use crate::journal::{BlobId, History, JournalError, Place};
use crate::run::checkpoint::{CheckpointKind, Standing, kind, standing};
use crate::run::engine::{Engine, Stopped};
use crate::run::fold::{LogState, Programs};
use crate::run::pages::Pages;
use crate::run::record::{Answered, Fact, Number, Numbered, RunOptions, Waiting};
use crate::run::standing::RunAt;
use crate::state::Reducer;

impl Engine {
    /// The run as it stood at a number, or as it stands (`None`). `None` as the answer: there is
    /// no such run, it has not begun, or the number is none of its own.
    pub async fn run_at(
        &self,
        run: &RunId,
        at: Option<Number>,
    ) -> Result<Option<RunAt>, JournalError> {
        let Some(place) = self.shared.journal.find(run).await? else { return Ok(None) };
        let Some(first) = place.first else { return Ok(None) };
        if at.is_some_and(|at| at < first) {
            return Ok(None);
        }
        let Some((end, last)) = self.end_of(run, &place).await? else {
            return self.replay(&place.log, run, at).await;
        };
        let number = at.unwrap_or(last);
        if number <= end || number > last {
            return self.replay(&place.log, run, Some(number)).await;
        }
        // A change after the run's end stands between runs, maybe after a snapshot.
        let Some(mut found) = self.replay(&place.log, run, Some(end)).await? else {
            return Ok(None);
        };
        let history = self.shared.journal.load(&place.log, Some(number)).await?;
        found.number = history.records.last().map_or(number, |record| record.number);
        found.kind = history.records.last().and_then(|record| kind(&record.record.fact));
        found.values = fold(&place.log, history, &Programs::default())?.values();
        Ok(Some(found))
    }

    /// The run as it stood at a number, or as it stands (`None`); of a log that cannot be read, as it
    /// stood at the last number up to which it can, if there is one.
    pub async fn run_as_far(
        &self,
        run: &RunId,
        at: Option<Number>,
    ) -> Result<Option<RunAt>, JournalError> {
        match self.run_at(run, at).await {
            Err(JournalError::Corrupt(_)) => {
                let place = self.shared.journal.find(run).await?;
                let place = place.and_then(|place| Some((place.log, place.first?)));
                let Some((log, first)) = place else { return Ok(None) };
                self.readable(&log, run, first).await
            }
            found => found,
        }
    }

    /// What the end of a run, whose record has that number, tells whoever watches it
    /// ([`RunAt::told`]); `None`: there is no such record. A turn that gives nothing but its
    /// conversation costs the same however long that is.
    pub async fn told(
        &self,
        run: &RunId,
        number: Number,
    ) -> Result<Option<Map<String, Value>>, JournalError> {
        let Some(place) = self.shared.journal.find(run).await? else { return Ok(None) };
        let read = async |number| self.shared.journal.read(&place.log, number, 1).await;
        let (last, first) = (read(number).await?, read(place.first.unwrap_or(number)).await?);
        let fact = |history: &History| history.records.first().map(|r| r.record.fact.clone());
        if let (Some(Fact::Ended(ended)), Some(Fact::Started(started))) =
            (fact(&last), fact(&first))
            && started.conversation.is_some()
            && let Ok(program) = self.shared.program(&started.bundle).await?
        {
            let talk = |name: &Arc<str>| {
                program.graph.channels.get(name).is_some_and(|c| c.reduce == Reducer::Messages)
            };
            if ended.output.iter().all(talk) {
                return Ok(Some(Map::new()));
            }
        }
        Ok(self.run_at(run, Some(number)).await?.map(|at| at.told()))
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

    /// Waits until the run has ended or waits for somebody, beyond a number: what it waited for
    /// there, and was answered since, does not count.
    pub async fn wait_beyond(&self, run: &RunId, number: Number) -> Result<Stopped, JournalError> {
        if number > 0 {
            // Whatever happens next shows that the answers were taken in.
            self.events(run.clone(), number).next().await.transpose()?;
        }
        self.wait(run).await
    }

    /// The run as it stood at the last number up to which its log can be read.
    async fn readable(
        &self,
        log: &LogId,
        run: &RunId,
        first: Number,
    ) -> Result<Option<RunAt>, JournalError> {
        let mut numbers = Vec::new();
        let mut pages = Pages::new(log.clone(), first);
        while let Some(page) = pages.next(&self.shared.journal).await? {
            numbers.extend(page.records.iter().map(|record| record.number));
        }
        // What cannot be read at one number cannot at any later one.
        let (mut found, mut low, mut high) = (None, 0, numbers.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.replay(log, run, Some(numbers[middle])).await {
                Ok(at) => (found, low) = (at, middle + 1),
                Err(JournalError::Corrupt(_)) => high = middle,
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The number of the record that ended the run, and that of the last change that a person made
    /// to it since; `None`: it has not ended.
    async fn end_of(
        &self,
        run: &RunId,
        place: &Place,
    ) -> Result<Option<(Number, Number)>, JournalError> {
        let Some(end) = place.last else { return Ok(None) };
        let mut pages = Pages::new(place.log.clone(), end);
        let (mut ended, mut last) = (false, end);
        while let Some(page) = pages.next(&self.shared.journal).await? {
            for record in page.records {
                match &record.record.fact {
                    Fact::Ended(is) if is.run == *run => ended = true,
                    Fact::Edited(_) if ended => last = record.number,
                    Fact::Snapshot { .. } if ended => {}
                    _ => return Ok(ended.then_some((end, last))),
                }
            }
        }
        Ok(ended.then_some((end, last)))
    }

    /// The run as it stood at a number of its log; `None` if the number belongs to another run.
    async fn replay(
        &self,
        log: &LogId,
        run: &RunId,
        at: Option<Number>,
    ) -> Result<Option<RunAt>, JournalError> {
        let history = self.shared.journal.load(log, at).await?;
        let mut facts = Facts::default();
        for record in &history.records {
            facts.take(record);
        }
        let programs = self.programs(&facts.bundles).await?;
        let program = facts.bundles.last().and_then(|id| programs.get(id)).cloned();
        let state = fold(log, history, &programs)?;
        let (values, talk) = (state.values(), state.talk());
        let (id, steps, options, root) = match (state.run, state.last) {
            (Some(going), _) => {
                (going.started.run.clone(), going.steps, going.options().clone(), going.root)
            }
            (None, Some(last)) => (last.run, facts.steps, RunOptions::default(), None),
            (None, None) => return Ok(None),
        };
        let Facts { number, kind, status, answered, waiting, given, conversation, .. } = facts;
        let at = RunAt {
            number,
            kind,
            status,
            steps,
            program,
            root,
            options,
            values,
            given,
            conversation,
            talk,
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

/// What the records of the last run of a log say besides its state.
struct Facts {
    /// Which run that is.
    run: Option<RunId>,
    number: Number,
    kind: Option<CheckpointKind>,
    status: Standing,
    steps: u32,
    /// What the run is or was pinned to, the last one last.
    bundles: Vec<BlobId>,
    answered: Vec<Answered>,
    waiting: Option<Waiting>,
    /// The channels that its caller receives, once it has ended.
    given: Option<Vec<Arc<str>>>,
    conversation: Option<ConversationId>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            run: None,
            number: 0,
            kind: None,
            status: Standing::Running,
            steps: 0,
            bundles: Vec::new(),
            answered: Vec::new(),
            waiting: None,
            given: None,
            conversation: None,
        }
    }
}

impl Facts {
    fn take(&mut self, Numbered { number, record }: &Numbered) {
        self.number = *number;
        match &record.fact {
            Fact::Started(started) => self.run = Some(started.run.clone()),
            Fact::Forked(forked) => self.run.clone_from(&forked.run),
            // One that was cancelled before it began ends beside this one.
            Fact::Ended(ended) if self.run.as_ref() != Some(&ended.run) => return,
            _ => {}
        }
        self.kind = kind(&record.fact);
        self.status = standing(&record.fact, self.status);
        self.waiting = None;
        match &record.fact {
            Fact::Started(started) => {
                self.bundles = vec![started.bundle.clone()];
                self.steps = 1;
                self.answered.clear();
                self.conversation.clone_from(&started.conversation);
                self.given = None;
            }
            Fact::Ended(ended) => self.given = Some(ended.output.clone()),
            Fact::Migrated { bundle } => self.bundles.push(bundle.clone()),
            Fact::Step(step) => self.steps = step.step,
            Fact::Answered(answered) => self.answered.push(answered.clone()),
            Fact::Waiting(waiting) => self.waiting = Some(Waiting::clone(waiting)),
            _ => {}
        }
    }
}
