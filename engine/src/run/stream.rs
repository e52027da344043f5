//! A run's events as a reader gets them: what happened, then what happens.
//!
//! Invariants:
//! - Numbers rise strictly; a reader that comes back with the last number it saw gets exactly the
//!   rest, deltas included.
//! - A reader holds a bounded number of events: one that falls behind reads on from the journal.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::broadcast::error::RecvError;

use crate::id::{LogId, RunId};
use crate::journal::{History, JournalError};
use crate::run::event::{self, Event};
use crate::run::live::Subscription;
use crate::run::record::{Fact, Number};
use crate::run::shared::{Shared, message_map};

/// Records read at once.
const PAGE: usize = 500;

/// See [`Engine::events`](super::engine::Engine::events).
pub(crate) fn events(
    shared: Arc<Shared>,
    run: RunId,
    after: Number,
) -> BoxStream<'static, Result<Event, JournalError>> {
    let reader =
        Reader { shared, run, after, queue: VecDeque::new(), live: None, first: None, over: false };
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

/// All records of a run that begins at `first`, to its end or the log's head.
pub(crate) async fn records(
    shared: &Shared,
    log: &LogId,
    run: &RunId,
    first: Number,
) -> Result<History, JournalError> {
    let mut all = History::default();
    let mut from = first;
    loop {
        let page = shared.journal.read(log, from, PAGE).await?;
        let full = page.records.len() == PAGE;
        all.messages.extend(page.messages);
        for record in page.records {
            from = record.number + 1;
            let ends = matches!(&record.record.fact, Fact::Ended(e) if e.run == *run);
            all.records.push(record);
            if ends {
                return Ok(all);
            }
        }
        if !full {
            return Ok(all);
        }
    }
}

struct Reader {
    shared: Arc<Shared>,
    run: RunId,
    after: Number,
    queue: VecDeque<Event>,
    live: Option<Subscription>,
    /// The number of the run's first record, once it has begun.
    first: Option<Number>,
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Event>, JournalError> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                self.after = event.number;
                // A run that waited and went on since is read on.
                self.over = event.ends_stream() && (self.queue.is_empty() || event.ends_run());
                return Ok(Some(event));
            }
            if self.over {
                return Ok(None);
            }
            let Some(live) = &mut self.live else {
                if !self.catch_up().await? {
                    return Ok(None);
                }
                continue;
            };
            match live.events.recv().await {
                Ok(event) => self.take(event),
                Err(RecvError::Lagged(_) | RecvError::Closed) => self.live = None,
            }
        }
    }

    fn take(&mut self, event: Event) {
        if self.first.is_none() && event.begins(&self.run) {
            self.first = Some(event.number);
        }
        let ours = self.first.is_some_and(|first| event.number >= first);
        if ours && event.number > self.after {
            self.queue.push_back(event);
        }
    }

    /// Subscribes, then reads what the journal has: what is appended in between is seen twice and
    /// dropped by its number. `false`: there is no such run.
    async fn catch_up(&mut self) -> Result<bool, JournalError> {
        let Some(place) = self.shared.journal.find(&self.run).await? else { return Ok(false) };
        let mut live = self.shared.live.subscribe(&place.log).await;
        let backlog = std::mem::take(&mut live.backlog);
        self.live = Some(live);
        // The run may have begun between the two questions.
        let place = self.shared.journal.find(&self.run).await?.unwrap_or(place);
        self.first = place.first;
        let Some(first) = self.first else { return Ok(true) };
        // A run that was answered and has not taken that in yet is about to go on. Asked before
        // the records are read: what is consumed in between shows there.
        let inbox = self.shared.journal.inbox(&place.log).await?;
        let answered = inbox.iter().any(|(_, input)| *input.run() == self.run);
        let history = records(&self.shared, &place.log, &self.run, first).await?;
        let messages = message_map(history.messages);
        let mut events = Vec::new();
        let (mut over, mut ended) = (false, false);
        for record in &history.records {
            if let Fact::Called(called) = &record.record.fact {
                events.extend(event::deltas(called, &messages));
            }
            ended = matches!(record.record.fact, Fact::Ended(_));
            over = ended || matches!(record.record.fact, Fact::Waiting(_));
            events.extend(event::project(record, &messages));
        }
        if !over {
            // Deltas of calls that are still open are in no record.
            events.extend(backlog.into_iter().filter(|e| e.number >= first));
        }
        events.retain(|e| e.number > self.after);
        events.sort_by_key(|e| e.number);
        events.dedup_by_key(|e| e.number);
        self.queue.extend(events);
        // A reader that has seen the last event already gets nothing more.
        self.over = self.queue.is_empty() && (ended || (over && !answered));
        Ok(true)
    }
}
