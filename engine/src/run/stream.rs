//! A run's events as a reader gets them: what happened, then what happens.
//!
//! Invariants:
//! - Numbers rise strictly; a reader that comes back with the last number it saw gets exactly the
//!   rest, deltas included.
//! - A reader holds a bounded number of events: one that falls behind reads on from the journal, and
//!   one that does not read holds nothing that grows.

use std::sync::Arc;

use futures_util::TryFutureExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use crate::id::RunId;
use crate::journal::{JournalError, Place};
use crate::run::event::{self, Event};
use crate::run::history::{Extent, RunHistory, Stood};
use crate::run::live::LiveEvents;
use crate::run::record::{Fact, Number, Numbered, Record, RunError, Waiting};
use crate::run::shared::Shared;
use crate::state::MessageMap;

/// See [`Engine::events`](super::engine::Engine::events).
pub(crate) fn events(
    shared: Arc<Shared>,
    run: RunId,
    after: Number,
) -> BoxStream<'static, Result<Event, JournalError>> {
    let reader = Reader { shared, run, after, reading: None, over: false };
    stream::unfold(reader, |mut reader| async move {
        match reader.next().await {
            Ok(Some(event)) => Some((Ok(event), reader)),
            Ok(None) => None,
            Err(error) => {
                reader.over = true;
                Some((Err(error), reader))
            }
        }
    })
    .boxed()
}

/// See [`Engine::history`](super::engine::Engine::history).
pub(crate) fn history(
    shared: Arc<Shared>,
    run: RunId,
    after: Number,
) -> BoxStream<'static, Result<Event, JournalError>> {
    let begin = async move {
        let Some(place) = shared.journal.find(&run).await? else { return Ok(None) };
        let extent = extent(run, place, after, Number::MAX);
        Ok(extent.map(|extent| RunHistory::without_deltas(shared.journal.clone(), extent)))
    };
    let told = begin.map_ok(|history| {
        stream::try_unfold(history, |history| async move {
            let Some(mut history) = history else { return Ok(None) };
            Ok(history.next().await?.map(|event| (event, Some(history))))
        })
    });
    told.try_flatten_stream().boxed()
}

/// What is told of a run that has begun.
fn extent(run: RunId, place: Place, after: Number, upto: Number) -> Option<Extent> {
    let Place { log, first, last, .. } = place;
    let from = after.max(first?).min(last.unwrap_or(Number::MAX));
    Some(Extent { run, log, from, after, upto })
}

/// Reads a run, again and again from where it stands.
struct Reader {
    shared: Arc<Shared>,
    run: RunId,
    /// The last number that was given.
    after: Number,
    reading: Option<Reading>,
    over: bool,
}

/// A run being read: what the journal has up to a number, and what was shown since.
struct Reading {
    live: Box<dyn LiveEvents>,
    /// The number of the run's first record, once it has begun.
    first: Option<Number>,
    /// `None` once it was told.
    history: Option<RunHistory>,
    /// Nobody drove the log: if somebody has begun to, what was read from the journal since may
    /// stand behind deltas that are still to come.
    idle: bool,
    /// It does not wait, or has been sent something that it has not taken in.
    goes_on: bool,
    /// Something of it was given.
    given: bool,
    /// What ends the stream, if the log cannot be read and was left to people.
    unreadable: Option<Event>,
}

/// What comes next.
enum Next {
    Event(Event),
    /// It ends the stream.
    Last(Event),
    /// It is read anew from where it stands.
    Again,
    /// The run ended, or waits.
    Over,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Event>, JournalError> {
        loop {
            if self.over {
                return Ok(None);
            }
            if self.reading.is_none() {
                self.reading = self.begin().await?;
            }
            let Some(reading) = &mut self.reading else { return Ok(None) };
            match reading.next(&self.run, self.after).await? {
                Next::Event(event) => {
                    (self.after, reading.given) = (event.number, true);
                    return Ok(Some(event));
                }
                Next::Last(event) => {
                    self.over = true;
                    return Ok(Some(event));
                }
                Next::Again => self.reading = None,
                Next::Over => self.over = true,
            }
        }
    }

    /// Subscribes, then looks into the journal. Whatever had been shown at that moment is told
    /// from there, all else as it comes. `None`: there is no such run.
    async fn begin(&mut self) -> Result<Option<Reading>, JournalError> {
        let journal = &self.shared.journal;
        let Some(place) = journal.find(&self.run).await? else { return Ok(None) };
        let live = self.shared.live.subscribe(&place.log).await;
        // A run that was answered and has not taken that in yet is about to go on. Asked before the
        // run's place is: an answer that was taken in before that stands there no more, and the
        // run does not wait then.
        let inbox = journal.inbox(&place.log).await?;
        // The run may have begun, or stopped, since it was first looked for.
        let place = journal.find(&self.run).await?.unwrap_or(place);
        let now_ms = self.shared.services.env.now().as_millisecond();
        let unreadable = place.unreadable.clone();
        let unreadable = unreadable.and_then(|why| needs_attention(&self.run, now_ms, why));
        let first = place.first;
        let goes_on =
            place.last.is_none() || inbox.iter().any(|(_, input)| *input.run() == self.run);
        let upto = live.shown.unwrap_or(Number::MAX);
        let extent = extent(self.run.clone(), place, self.after, upto);
        let history = extent.filter(|_| first.is_some_and(|first| first <= upto));
        let history =
            history.map(|extent| RunHistory::with_deltas(journal.clone(), extent, live.open));
        let idle = live.shown.is_none();
        let (live, given) = (live.events, false);
        Ok(Some(Reading { live, first, history, idle, goes_on, given, unreadable }))
    }
}

impl Reading {
    async fn next(&mut self, run: &RunId, after: Number) -> Result<Next, JournalError> {
        if let Some(history) = &mut self.history {
            let event = history.next().await?;
            if self.idle && !self.live.is_whole() {
                return Ok(Next::Again);
            }
            if let Some(event) = event {
                return Ok(Next::Event(event));
            }
            if let Some(error) = history.broken() {
                let last = self.unreadable.take().ok_or(error)?;
                return Ok(Next::Last(Event { number: after + 1, ..last }));
            }
            let stood = history.stood();
            self.history = None;
            // A reader that has seen the last event already gets nothing more.
            let over = stood == Stood::Waiting && (self.given || !self.goes_on);
            if over || stood == Stood::Ended {
                return Ok(Next::Over);
            }
        }
        loop {
            let Some(event) = self.live.next().await else { return Ok(Next::Again) };
            if self.first.is_none() && event.begins(run) {
                self.first = Some(event.number);
            }
            let ours = self.first.is_some_and(|first| event.number >= first);
            if ours && event.number > after && event.is_of(run) {
                let last = event.ends_stream();
                return Ok(if last { Next::Last(event) } else { Next::Event(event) });
            }
        }
    }
}

/// What ends the stream of a run whose log cannot be read: no record says it.
fn needs_attention(run: &RunId, at_ms: i64, why: RunError) -> Option<Event> {
    let (asked, open) = (Vec::new(), Vec::new());
    let waiting = Waiting { run: run.clone(), asked, attention: Some(why), open };
    let record = Arc::new(Record { at_ms, fact: Fact::Waiting(Box::new(waiting)) });
    event::project(&Numbered { number: 0, record }, &MessageMap::default()).pop()
}
