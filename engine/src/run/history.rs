//! A run's events as its records tell them, deltas included, in the order of their numbers.
//!
//! Invariants:
//! - What is held is bounded: a page of records, one record's events, and the texts of those calls
//!   that were open at the same time.
//! - Deltas stand in the record that closes their call, which comes later than they do; the numbers
//!   that no record has tell that there are some. Records ahead are read once more at most for that.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::id::{LogId, RunId};
use crate::journal::{History, Journal, JournalError};
use crate::run::deltas::Deltas;
use crate::run::event::{self, Event};
use crate::run::live::OpenCall;
use crate::run::pages::Pages;
use crate::run::record::{Fact, Number, Numbered};
use crate::run::shared::message_map;
use crate::state::MessageMap;

/// What of a run is told.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// The run.
    pub run: RunId,
    /// Its log.
    pub log: LogId,
    /// The record to begin at is the one that this is a number of.
    pub from: Number,
    /// Events up to this number are left out.
    pub after: Number,
    /// So are those above this one.
    pub upto: Number,
}

/// Tells a run's events from its records.
pub(crate) struct RunHistory {
    journal: Arc<dyn Journal>,
    extent: Extent,
    pages: Pages,
    /// Records of the page in hand that are yet to be told.
    records: VecDeque<Numbered>,
    messages: MessageMap,
    /// Events of the record in hand.
    events: VecDeque<Event>,
    /// The highest number of the page in hand.
    end: Number,
    /// `None`: deltas are left out.
    deltas: Option<Deltas>,
    /// How the run stood with the last record that was read.
    stood: Stood,
    /// There is no further page.
    whole: bool,
}

/// How a run stood with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stood {
    Going,
    Waiting,
    Ended,
}

impl RunHistory {
    /// With deltas; `open`: calls that have not ended.
    pub(crate) fn with_deltas(
        journal: Arc<dyn Journal>,
        extent: Extent,
        open: Vec<Arc<OpenCall>>,
    ) -> Self {
        let deltas = Deltas::new(&extent, open);
        Self { deltas: Some(deltas), ..Self::without_deltas(journal, extent) }
    }

    /// Without deltas.
    pub(crate) fn without_deltas(journal: Arc<dyn Journal>, extent: Extent) -> Self {
        Self {
            journal,
            pages: Pages::new(extent.log.clone(), extent.from),
            records: VecDeque::new(),
            messages: MessageMap::default(),
            events: VecDeque::new(),
            end: extent.after.max(extent.from.saturating_sub(1)),
            deltas: None,
            stood: Stood::Going,
            whole: false,
            extent,
        }
    }

    /// Why there are no further events, if the next record cannot be read.
    pub(crate) fn broken(&self) -> Option<JournalError> {
        self.pages.broken()
    }

    /// How the run stood with the last record that was read.
    pub(crate) fn stood(&self) -> Stood {
        self.stood
    }

    /// The next event; `None`: there is none up to the log's head, or the run has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, JournalError> {
        loop {
            if let Some(event) = self.events.front() {
                let delta = self.deltas.as_mut().and_then(|deltas| deltas.below(event.number));
                return Ok(delta.or_else(|| self.events.pop_front()));
            }
            if let Some(record) = self.records.pop_front() {
                self.tell(&record);
            } else if !self.turn_page().await? {
                let upto = self.extent.upto.saturating_add(1);
                return Ok(self.deltas.as_mut().and_then(|deltas| deltas.below(upto)));
            }
        }
    }

    fn tell(&mut self, record: &Numbered) {
        let Extent { run, after, .. } = &self.extent;
        if matches!(&record.record.fact, Fact::Ended(ended) if ended.run != *run) {
            // A run that never began was ended meanwhile.
            return;
        }
        let events = event::project(record, &self.messages);
        self.events.extend(events.into_iter().filter(|event| event.number > *after));
    }

    /// Reads the next page; `false`: there is none.
    async fn turn_page(&mut self) -> Result<bool, JournalError> {
        let page = if self.whole { None } else { self.pages.next(&self.journal).await? };
        let Some(History { mut records, messages, .. }) = page else { return Ok(false) };
        let own = records.iter().take_while(|record| self.goes_on_with(record)).count();
        self.whole = own < records.len() || self.stood == Stood::Ended;
        records.truncate(own);
        self.messages = message_map(messages);
        let from = self.end;
        self.end = records.last().map_or(from, |last| last_number(last).max(from));
        if let Some(deltas) = &mut self.deltas {
            deltas.add_page(&records, &self.messages);
            if !self.whole {
                let missing = gaps(from, &records).saturating_sub(deltas.count(from, self.end));
                let next = self.pages.position();
                deltas.look_ahead(&self.journal, next, (from, self.end), missing).await?;
            }
        }
        self.records = records.into();
        Ok(true)
    }

    /// Whether the run goes on with a record, or ends with it. Notes how the run stands then.
    fn goes_on_with(&mut self, record: &Numbered) -> bool {
        let Extent { run, upto, .. } = &self.extent;
        let ours = record.number <= *upto
            && self.stood != Stood::Ended
            && match &record.record.fact {
                Fact::Started(started) => started.run == *run,
                Fact::Forked(forked) => forked.run.as_ref() == Some(run),
                _ => true,
            };
        if ours {
            self.stood = match &record.record.fact {
                Fact::Ended(ended) if ended.run == *run => Stood::Ended,
                Fact::Ended(_) => self.stood,
                Fact::Waiting(_) => Stood::Waiting,
                _ => Stood::Going,
            };
        }
        ours
    }
}

fn last_number(record: &Numbered) -> Number {
    record.number + event::width(&record.record.fact) - 1
}

/// How many numbers above `from` no record has; those that were reserved by a process that died
/// are no deltas of any record.
fn gaps(from: Number, records: &[Numbered]) -> u64 {
    let (mut gaps, mut before) = (0, from);
    for record in records {
        if !matches!(record.record.fact, Fact::Resumed { .. }) {
            gaps += record.number.saturating_sub(before).saturating_sub(1);
        }
        before = before.max(last_number(record));
    }
    gaps
}
