//! What is streamed but not stored: deltas on their way, and events as they become true.
//!
//! Invariants:
//! - Numbers rise within a log's stream.
//! - A reader that falls behind is cut off, and slows nobody: it reads on from the journal. What is
//!   kept for readers is bounded for each log, in number and in bytes.
//! - Of a call that is open only its text is kept, and where its deltas stood in it, until the
//!   record that closes the call takes its place; a reader that is in the middle of it keeps it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use foldhash::HashMap;
use tokio::sync::Notify;

use crate::id::LogId;
use crate::journal::Lease;
use crate::json;
use crate::model::Delta;
use crate::run::event::{self, Event, call_key};
use crate::run::marks::{Marks, Place};
use crate::run::record::Number;

/// Carries what becomes true in a log from whoever drives it to its readers.
///
/// Whoever drives it says under which lease: what comes under an older one than the last is passed
/// over. Every method may be dropped before it is done: then all of it happened, or nothing.
#[async_trait]
pub trait Live: Send + Sync {
    /// The log is driven under this lease from now on: whatever has a number up to `last` was
    /// shown, or is void. Who reads the log already reads on from the journal.
    async fn begin(&self, lease: &Lease, last: Number);

    /// Shows what became true: who subscribes meanwhile sees all of it or nothing.
    async fn publish(&self, lease: &Lease, news: News);

    /// The log is not driven under this lease any more: deltas of calls that are open are void.
    async fn end(&self, lease: &Lease);

    /// Whether anybody reads the log now, so that events for nobody need not be made.
    fn watched(&self, log: &LogId) -> bool;

    /// Begins to read.
    async fn subscribe(&self, log: &LogId) -> Subscription;
}

/// What became true.
#[derive(Clone, Debug, Default)]
pub struct News {
    /// In the order of its numbers.
    pub shown: Vec<Shown>,
    /// Events were left out, because nobody read: who has begun to since must read the journal.
    pub partial: bool,
    /// The highest number so far.
    pub last: Number,
}

/// One thing that readers see.
#[derive(Clone, Debug)]
pub enum Shown {
    /// An event, which the journal has.
    Event(Event),
    /// A piece of an answer, which it has not.
    Delta(StreamedDelta),
    /// The deltas of a call are void, or the journal has them now; its [`call_key`].
    Closed(Arc<str>),
}

/// A piece of a call's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamedDelta {
    /// Its number.
    pub number: Number,
    /// Path of the task.
    pub task: Arc<str>,
    /// The call, within the task.
    pub call: Arc<str>,
    /// Whether it is the conversation's answer.
    pub shown: bool,
    /// The piece.
    pub delta: Delta,
}

impl StreamedDelta {
    /// What readers see of it.
    #[must_use]
    pub fn event(&self) -> Event {
        event::delta(self)
    }
}

/// What a reader sees of a log.
pub struct Subscription {
    /// Whatever has a number up to this was shown before; all else comes in `events`. `None`:
    /// nobody drives the log.
    pub shown: Option<Number>,
    /// Calls that were open then.
    pub open: Vec<Arc<OpenCall>>,
    /// What comes from now on.
    pub events: Box<dyn LiveEvents>,
}

/// What becomes true in a log from a moment on.
#[async_trait]
pub trait LiveEvents: Send {
    /// The next event, once there is one; `None`: some were missed, and the journal has them.
    /// Dropping the future loses nothing.
    async fn next(&mut self) -> Option<Event>;

    /// Whether nothing was missed so far.
    fn is_whole(&self) -> bool;
}

/// The deltas of a call that has not ended.
#[derive(Debug)]
pub struct OpenCall {
    /// Path of the task.
    pub task: Arc<str>,
    /// The call, within the task.
    pub call: Arc<str>,
    /// Whether they are the conversation's answer.
    pub shown: bool,
    streamed: Mutex<Streamed>,
}

#[derive(Debug, Default)]
struct Streamed {
    marks: Marks,
    last: Number,
    text: String,
    reasoning: String,
}

impl OpenCall {
    fn new(delta: &StreamedDelta) -> Self {
        let StreamedDelta { task, call, shown, .. } = delta;
        Self { task: task.clone(), call: call.clone(), shown: *shown, streamed: Mutex::default() }
    }

    fn push(&self, number: Number, delta: &Delta) {
        let mut streamed = locked(&self.streamed);
        let Streamed { marks, last, text, reasoning } = &mut *streamed;
        let (kept, piece, is_reasoning) = match delta {
            Delta::Text(piece) | Delta::Refusal(piece) => (text, piece, false),
            Delta::Reasoning(piece) => (reasoning, piece, true),
        };
        marks.push(number - *last, piece.len(), is_reasoning);
        kept.push_str(piece);
        *last = number;
    }

    /// The delta at a place, which moves on to the next one; `None`: there is none so far.
    #[must_use]
    pub fn next(&self, place: &mut Place) -> Option<StreamedDelta> {
        let streamed = locked(&self.streamed);
        let (number, reasoning, piece) =
            streamed.marks.next(place, [&streamed.text, &streamed.reasoning])?;
        let (task, call) = (self.task.clone(), self.call.clone());
        let delta = Delta::piece(reasoning, piece);
        Some(StreamedDelta { number, task, call, shown: self.shown, delta })
    }

    /// How many deltas from a place on have a number above one, up to another.
    #[must_use]
    pub fn count(&self, place: Place, from: Number, to: Number) -> u64 {
        locked(&self.streamed).marks.count(place, from, to)
    }
}

/// Events that wait for a log's readers at most; who is further behind reads the journal.
const WAITING: usize = 512;
/// Bytes of events that wait for a log's readers at most, about.
const WAITING_BYTES: usize = 128 * 1024;

/// [`Live`] within one process.
#[derive(Clone, Default)]
pub struct MemoryLive {
    logs: Arc<Mutex<HashMap<LogId, Feed>>>,
    /// How many readers there have been.
    readers: Arc<AtomicU64>,
}

/// What is shown of one log.
#[derive(Default)]
struct Feed {
    /// The lease's epoch and the highest number that was shown, while somebody drives the log.
    driven: Option<(u64, Number)>,
    open: BTreeMap<Arc<str>, Arc<OpenCall>>,
    waiting: VecDeque<Waiting>,
    /// Bytes of what waits.
    bytes: usize,
    /// How many events came before the first that waits.
    taken: u64,
    /// Per reader, how many events it has had.
    readers: HashMap<u64, u64>,
    wake: Arc<Notify>,
}

/// An event that waits for readers.
struct Waiting {
    event: Event,
    bytes: usize,
    /// How many readers have not had it.
    readers: usize,
}

impl Feed {
    fn is_needed(&self) -> bool {
        self.driven.is_some() || !self.readers.is_empty()
    }

    fn show(&mut self, shown: Shown) {
        let event = match shown {
            Shown::Event(event) if self.readers.is_empty() => return drop(event),
            Shown::Event(event) => event,
            Shown::Closed(call) => {
                self.open.remove(&call);
                return;
            }
            Shown::Delta(delta) => {
                let key = call_key(&delta.task, &delta.call);
                let call = self.open.entry(key).or_insert_with(|| Arc::new(OpenCall::new(&delta)));
                call.push(delta.number, &delta.delta);
                if self.readers.is_empty() {
                    return;
                }
                delta.event()
            }
        };
        let bytes = size_of::<Waiting>() + json::weigh(&event.data);
        self.bytes += bytes;
        self.waiting.push_back(Waiting { event, bytes, readers: self.readers.len() });
        while self.waiting.len() > WAITING || self.bytes > WAITING_BYTES {
            self.cut_off_the_last();
        }
    }

    /// Cuts off those readers who have not had the first event that waits.
    fn cut_off_the_last(&mut self) {
        let taken = self.taken;
        let behind = self.readers.extract_if(|_, had| *had == taken);
        for (_, had) in behind.collect::<Vec<_>>() {
            self.forget(had);
        }
    }

    /// Nothing waits any more for a reader who has had so many events.
    fn forget(&mut self, had: u64) {
        let place = usize::try_from(had - self.taken).unwrap_or(usize::MAX);
        for waiting in self.waiting.iter_mut().skip(place) {
            waiting.readers -= 1;
        }
        self.drop_what_everybody_had();
    }

    fn drop_what_everybody_had(&mut self) {
        while self.waiting.front().is_some_and(|waiting| waiting.readers == 0) {
            if let Some(first) = self.waiting.pop_front() {
                self.bytes -= first.bytes;
                self.taken += 1;
            }
        }
    }

    /// The next event for a reader: `Err` if it was cut off, `Ok(None)` if there is none yet.
    fn take(&mut self, reader: u64) -> Result<Option<Event>, CutOff> {
        let had = self.readers.get_mut(&reader).ok_or(CutOff)?;
        let place = usize::try_from(*had - self.taken).unwrap_or(usize::MAX);
        let Some(waiting) = self.waiting.get_mut(place) else { return Ok(None) };
        *had += 1;
        waiting.readers -= 1;
        let event = waiting.event.clone();
        self.drop_what_everybody_had();
        Ok(Some(event))
    }

    fn cut_off_everybody(&mut self) {
        self.taken += self.waiting.len() as u64;
        self.waiting.clear();
        self.readers.clear();
        self.bytes = 0;
    }
}

/// A reader missed something.
struct CutOff;

impl MemoryLive {
    /// Acts on what is shown of a log, and forgets about it what nobody needs.
    fn with<T>(&self, log: &LogId, act: impl FnOnce(&mut Feed) -> T) -> T {
        let mut logs = locked(&self.logs);
        if let Some(feed) = logs.get_mut(log) {
            let done = act(feed);
            if !feed.is_needed() {
                logs.remove(log);
            }
            return done;
        }
        let mut feed = Feed::default();
        let done = act(&mut feed);
        if feed.is_needed() {
            logs.insert(log.clone(), feed);
        }
        done
    }
}

#[async_trait]
impl Live for MemoryLive {
    async fn begin(&self, lease: &Lease, last: Number) {
        self.with(&lease.log, |feed| {
            if feed.driven.is_some_and(|(epoch, _)| epoch > lease.epoch) {
                return;
            }
            feed.driven = Some((lease.epoch, last));
            feed.open.clear();
            feed.cut_off_everybody();
            feed.wake.notify_waiters();
        });
    }

    async fn publish(&self, lease: &Lease, news: News) {
        self.with(&lease.log, |feed| {
            if feed.driven.is_none_or(|(epoch, _)| epoch != lease.epoch) {
                return;
            }
            for shown in news.shown {
                feed.show(shown);
            }
            if news.partial {
                feed.cut_off_everybody();
            }
            feed.driven = Some((lease.epoch, news.last));
            feed.wake.notify_waiters();
        });
    }

    async fn end(&self, lease: &Lease) {
        self.with(&lease.log, |feed| {
            if feed.driven.is_some_and(|(epoch, _)| epoch == lease.epoch) {
                feed.driven = None;
                feed.open.clear();
            }
        });
    }

    fn watched(&self, log: &LogId) -> bool {
        locked(&self.logs).get(log).is_some_and(|feed| !feed.readers.is_empty())
    }

    async fn subscribe(&self, log: &LogId) -> Subscription {
        self.with(log, |feed| {
            let had = feed.taken + feed.waiting.len() as u64;
            let reader = self.readers.fetch_add(1, Ordering::Relaxed);
            feed.readers.insert(reader, had);
            let (live, log, wake) = (self.clone(), log.clone(), feed.wake.clone());
            Subscription {
                shown: feed.driven.map(|(_, last)| last),
                open: feed.open.values().cloned().collect(),
                events: Box::new(MemoryEvents { live, log, reader, wake }),
            }
        })
    }
}

/// A reader's end.
struct MemoryEvents {
    live: MemoryLive,
    log: LogId,
    reader: u64,
    wake: Arc<Notify>,
}

#[async_trait]
impl LiveEvents for MemoryEvents {
    async fn next(&mut self) -> Option<Event> {
        loop {
            // Listened to before the question: what comes in between is not missed.
            let woken = self.wake.notified();
            match self.live.with(&self.log, |feed| feed.take(self.reader)) {
                Ok(Some(event)) => return Some(event),
                Ok(None) => woken.await,
                Err(CutOff) => return None,
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.live.with(&self.log, |feed| feed.readers.contains_key(&self.reader))
    }
}

impl Drop for MemoryEvents {
    fn drop(&mut self) {
        self.live.with(&self.log, |feed| {
            if let Some(had) = feed.readers.remove(&self.reader) {
                feed.forget(had);
            }
        });
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A shared in-process [`Live`].
#[must_use]
pub fn memory() -> Arc<dyn Live> {
    Arc::new(MemoryLive::default())
}

#[cfg(test)]
mod tests;
