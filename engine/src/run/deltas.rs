//! Deltas of calls, in the order of their numbers, from the records that close the calls.
//!
//! A call's record stands behind its deltas, by as many records as there are. Whoever tells a run
//! page by page therefore looks ahead until every number that no record has is explained.

use std::cmp::Ordering;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;

use crate::id::LogId;
use crate::journal::{Journal, JournalError};
use crate::message::Message;
use crate::model::Delta;
use crate::run::event::{self, Event};
use crate::run::history::Extent;
use crate::run::live::{OpenCall, StreamedDelta};
use crate::run::marks::Place;
use crate::run::pages::Pages;
use crate::run::record::{Called, Fact, Number, Numbered, Record, Reply};
use crate::run::shared::message_map;
use crate::state::MessageMap;

/// Deltas that are yet to be told.
pub(super) struct Deltas {
    log: LogId,
    after: Number,
    upto: Number,
    /// Calls that have some, the one with the next delta first.
    calls: BinaryHeap<StreamedCall>,
    /// Records ahead whose calls are among them.
    taken: HashSet<Number>,
    /// Records ahead that were not looked at yet.
    ahead: Pages,
    /// What was found ahead that was not asked for yet.
    spans: Vec<Span>,
}

/// Where the deltas of a call stand.
struct Span {
    /// The record that closes the call.
    record: Number,
    first: Number,
    last: Number,
}

impl Deltas {
    pub(super) fn new(extent: &Extent, open: Vec<Arc<OpenCall>>) -> Self {
        let Extent { log, from, after, upto, .. } = extent;
        let mut deltas = Self {
            log: log.clone(),
            after: *after,
            upto: *upto,
            calls: BinaryHeap::new(),
            taken: HashSet::new(),
            ahead: Pages::new(log.clone(), *from),
            spans: Vec::new(),
        };
        let open = open.into_iter().map(Source::Open);
        deltas.calls.extend(open.filter_map(|open| StreamedCall::new(open, *after, *upto)));
        deltas
    }

    /// The event of the next delta, if its number is below this one.
    pub(super) fn below(&mut self, bound: Number) -> Option<Event> {
        let mut call = self.calls.peek_mut().filter(|call| call.next.number < bound)?;
        let event = call.next.event();
        if !call.advance(self.upto) {
            PeekMut::pop(call);
        }
        Some(event)
    }

    /// Adds the deltas of those calls that a page of records closes.
    pub(super) fn add_page(&mut self, records: &[Numbered], messages: &MessageMap) {
        let Some(last) = records.last() else { return };
        self.spans.retain(|span| span.record > last.number);
        for record in records {
            if !self.taken.remove(&record.number) {
                self.calls.extend(self.streamed(record, messages));
            }
        }
    }

    /// How many deltas there are above one number, up to another.
    pub(super) fn count(&self, from: Number, to: Number) -> u64 {
        self.calls.iter().map(|call| call.count(from, to)).sum()
    }

    /// Looks beyond `next` for calls that end there, and whose deltas have numbers above the first
    /// and up to the second, until so many deltas are found.
    pub(super) async fn look_ahead(
        &mut self,
        journal: &Arc<dyn Journal>,
        next: Option<Number>,
        (from, to): (Number, Number),
        mut missing: u64,
    ) -> Result<(), JournalError> {
        let is_here = |span: &Span| span.first <= to && span.last > from;
        let known: Vec<Span> = self.spans.extract_if(.., |span| is_here(span)).collect();
        for span in known {
            let page = journal.read(&self.log, span.record, 1).await?;
            let messages = message_map(page.messages);
            for record in page.records.iter().filter(|record| record.number == span.record) {
                missing = missing.saturating_sub(self.take(record, &messages, (from, to)));
            }
        }
        self.ahead.skip_to(next);
        while missing > 0 {
            let Some(page) = self.ahead.next(journal).await? else { return Ok(()) };
            let messages = message_map(page.messages);
            let upto = self.upto;
            for record in page.records.iter().filter(|record| record.number <= upto) {
                let Fact::Called(called) = &record.record.fact else { continue };
                let Some((first, last)) = called.marks.span() else { continue };
                let span = Span { record: record.number, first, last };
                if is_here(&span) {
                    missing = missing.saturating_sub(self.take(record, &messages, (from, to)));
                } else {
                    self.spans.push(span);
                }
            }
        }
        Ok(())
    }

    /// Takes the deltas of a call from a record ahead; gives how many of them are in between.
    fn take(
        &mut self,
        record: &Numbered,
        messages: &MessageMap,
        (from, to): (Number, Number),
    ) -> u64 {
        let Some(call) = self.streamed(record, messages) else { return 0 };
        let count = call.count(from, to);
        self.taken.insert(record.number);
        self.calls.push(call);
        count
    }

    fn streamed(&self, record: &Numbered, messages: &MessageMap) -> Option<StreamedCall> {
        let Fact::Called(called) = &record.record.fact else { return None };
        let message = match &called.reply {
            Reply::Message { id, .. } => Some(messages.get(id)?.clone()),
            _ => None,
        };
        let record = record.record.clone();
        StreamedCall::new(Source::Record { record, message }, self.after, self.upto)
    }
}

/// A call with deltas that are yet to be told.
struct StreamedCall {
    next: StreamedDelta,
    /// Where the delta after that one is.
    place: Place,
    source: Source,
}

/// Where the deltas of a call are.
enum Source {
    /// In the record that closes it, and in the message that this one names.
    Record { record: Arc<Record>, message: Option<Arc<Message>> },
    /// They are on their way.
    Open(Arc<OpenCall>),
}

impl StreamedCall {
    /// Those above one number, up to another; `None`: there are none.
    fn new(source: Source, after: Number, upto: Number) -> Option<Self> {
        let mut place = Place::default();
        let next = std::iter::from_fn(|| source.next(&mut place)).find(|d| d.number > after)?;
        (next.number <= upto).then_some(Self { next, place, source })
    }

    /// Goes on to the next one; `false`: there is none.
    fn advance(&mut self, upto: Number) -> bool {
        let next = self.source.next(&mut self.place).filter(|next| next.number <= upto);
        let Some(next) = next else { return false };
        self.next = next;
        true
    }

    fn count(&self, from: Number, to: Number) -> u64 {
        let further = match &self.source {
            Source::Record { record, .. } => match &record.fact {
                Fact::Called(called) => called.marks.count(self.place, from, to),
                _ => 0,
            },
            Source::Open(call) => call.count(self.place, from, to),
        };
        further + u64::from(self.next.number > from && self.next.number <= to)
    }
}

impl Source {
    fn next(&self, place: &mut Place) -> Option<StreamedDelta> {
        let (record, message) = match self {
            Self::Open(call) => return call.next(place),
            Self::Record { record, message } => (record, message.as_deref()),
        };
        let Fact::Called(called) = &record.fact else { return None };
        let Called { task, call, shown, marks, .. } = &**called;
        let (number, reasoning, piece) = marks.next(place, event::streamed(called, message)?)?;
        let (task, call, shown) = (task.clone(), call.clone(), *shown);
        Some(StreamedDelta { number, task, call, shown, delta: Delta::piece(reasoning, piece) })
    }
}

/// Calls are compared by what comes next: the heap gives the lowest number first.
impl Ord for StreamedCall {
    fn cmp(&self, other: &Self) -> Ordering {
        other.next.number.cmp(&self.next.number)
    }
}

impl PartialOrd for StreamedCall {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for StreamedCall {
    fn eq(&self, other: &Self) -> bool {
        self.next.number == other.next.number
    }
}

impl Eq for StreamedCall {}
