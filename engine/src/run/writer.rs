//! The pen of a log's driver: numbers facts, stores them, and shows them once they are stored.
//!
//! Invariants:
//! - What is shown was stored before; deltas alone are shown without being stored.
//! - Numbers rise in the order in which things are shown.
//! - A store without room is asked again until it has some, or until the lease is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::bundle::Program;
use crate::id::{InputId, RunId};
use crate::journal::{Batch, JournalError, Lease, StoredMessage};
use crate::message::Message;
use crate::model::{Delta, Retry};
use crate::run::event::{self, Event, call_key};
use crate::run::fold::LogState;
use crate::run::record::{Called, Fact, Marks, Number, Numbered, Record};
use crate::run::shared::{LEASE, Shared};

/// Numbers reserved beyond those used, so that deltas seldom need an append of their own.
const HEADROOM: Number = 10_000;
/// Longest pause between two attempts to write to a store without room.
const PATIENCE: Duration = Duration::from_secs(2);

/// Writes one log under one lease.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    pub(crate) lease: Lease,
    /// What the records say, those not yet stored included.
    pub(crate) log: LogState,
    /// The program of the run that goes on.
    pub(crate) program: Option<Arc<Program>>,
    stored: Number,
    next: Number,
    reserved: Number,
    batch: Batch,
    to_show: Vec<ToShow>,
    acks: Vec<oneshot::Sender<()>>,
    settled: Vec<Arc<str>>,
    /// Of each open call: the marks of its deltas, and the number of the last one.
    marks: BTreeMap<Arc<str>, (Marks, Number)>,
}

/// What readers see once everything before it is stored.
enum ToShow {
    Record(Numbered),
    Delta(Event),
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        lease: Lease,
        log: LogState,
        reserved: Number,
        program: Option<Arc<Program>>,
    ) -> Self {
        Self {
            shared,
            lease,
            stored: log.head,
            log,
            program,
            next: reserved + 1,
            reserved,
            batch: Batch::default(),
            to_show: Vec::new(),
            acks: Vec::new(),
            settled: Vec::new(),
            marks: BTreeMap::new(),
        }
    }

    /// Adds a fact to what the next [`flush`](Self::flush) stores. The state follows at once, so
    /// that the next fact can be worked out; nothing of it is shown or acted upon before.
    pub(crate) fn push(&mut self, fact: Fact) -> Result<(), JournalError> {
        let record = Record { at_ms: self.shared.services.env.now().as_millisecond(), fact };
        let numbered = Numbered { number: self.next, record: Arc::new(record) };
        self.next += event::width(&numbered.record.fact);
        self.log
            .apply(&numbered, self.program.as_ref())
            .map_err(|illegal| JournalError::Corrupt(illegal.to_string()))?;
        self.to_show.push(ToShow::Record(numbered.clone()));
        self.batch.records.push(numbered);
        Ok(())
    }

    /// Makes a message known to the records that follow, to be stored with them.
    pub(crate) fn message(&mut self, message: Message, shown: bool) {
        let run = self.log.run.as_ref().map(|r| r.started.run.clone());
        if let Some(run) = run {
            self.first_message(message, shown, &run);
        }
    }

    /// Like [`message`](Self::message), for a run whose first record does not stand yet.
    pub(crate) fn first_message(&mut self, message: Message, shown: bool, run: &RunId) {
        let message = Arc::new(message);
        if self.log.messages.get(&message.id) == Some(&message) {
            return;
        }
        let run = run.clone();
        self.log.messages.insert(message.id.clone(), message.clone());
        self.batch.messages.push(StoredMessage { message, run, shown });
    }

    /// Marks inputs as answered by what is stored next.
    pub(crate) fn consume(&mut self, input: InputId) {
        self.batch.consumed.push(input);
    }

    /// Answers a waiting task once what was pushed so far is stored.
    pub(crate) fn acknowledge(&mut self, ack: oneshot::Sender<()>) {
        self.acks.push(ack);
    }

    /// Numbers a delta and shows it after what was pushed before it.
    pub(crate) async fn delta(
        &mut self,
        task: &str,
        call: &str,
        shown: bool,
        delta: &Delta,
    ) -> Result<(), JournalError> {
        if self.next > self.reserved {
            self.batch.reserve = self.next + HEADROOM;
            self.flush().await?;
        }
        let number = self.next;
        self.next += 1;
        let (bytes, reasoning) = match delta {
            Delta::Text(text) => (text.len(), false),
            Delta::Reasoning(text) => (text.len(), true),
        };
        let (marks, last) = self.marks.entry(call_key(task, call)).or_default();
        marks.push(number - *last, bytes, reasoning);
        *last = number;
        self.to_show.push(ToShow::Delta(event::delta(number, task, call, shown, delta)));
        Ok(())
    }

    /// Ends a call: its record takes the place of its deltas.
    pub(crate) fn called(&mut self, mut called: Called) -> Result<(), JournalError> {
        let key = call_key(&called.task, &called.call);
        called.marks = self.marks.remove(&key).unwrap_or_default().0;
        self.settled.push(key);
        self.push(Fact::Called(Box::new(called)))
    }

    /// Whether there is something to store or to show.
    pub(crate) fn pending(&self) -> bool {
        self.to_store() || !self.to_show.is_empty() || !self.acks.is_empty()
    }

    fn to_store(&self) -> bool {
        !self.batch.records.is_empty()
            || !self.batch.consumed.is_empty()
            || self.batch.reserve > self.reserved
    }

    /// Stores what was pushed, then shows it, then answers who waits for it.
    pub(crate) async fn flush(&mut self) -> Result<(), JournalError> {
        if self.to_store() {
            self.store().await?;
        }
        self.show().await;
        for call in self.settled.drain(..) {
            self.shared.live.settle(&self.lease.log, &call).await;
        }
        for ack in self.acks.drain(..) {
            // A task that no longer waits was dropped; its record stands all the same.
            let _ = ack.send(());
        }
        Ok(())
    }

    /// Shows what is stored by now. Whether anybody reads is asked only after storing: a reader
    /// that came before finds its events here, one that comes later finds them in the journal.
    async fn show(&mut self) {
        let watched = self.shared.live.watched(&self.lease.log);
        let mut events = Vec::new();
        for item in self.to_show.drain(..) {
            match item {
                ToShow::Delta(delta) => events.push(delta),
                ToShow::Record(record) => {
                    if watched {
                        events.extend(event::project(&record, &self.log.messages));
                    }
                    if let Fact::Ended(ended) = &record.record.fact {
                        // Nobody waiting is no failure.
                        let _ = self.shared.ends.send(ended.run.clone());
                    }
                }
            }
        }
        if !events.is_empty() {
            self.shared.live.publish(&self.lease.log, events).await;
        }
    }

    /// Keeps the log claimed. A store without room cannot note that, but neither can it note that
    /// somebody else took the log: only losing the lease ends the driving.
    pub(crate) async fn renew(&self) -> Result<(), JournalError> {
        let renewed = self.shared.journal.renew(&self.lease, LEASE).await;
        renewed.or_else(|error| match error.retry() {
            Retry::Backoff => Ok(()),
            Retry::Never | Retry::After(_) => Err(error),
        })
    }

    async fn store(&mut self) -> Result<(), JournalError> {
        let mut batch = std::mem::take(&mut self.batch);
        batch.after = self.stored;
        let used = self.next - 1;
        if used > self.reserved {
            batch.reserve = batch.reserve.max(used + HEADROOM);
        }
        batch.reserve = batch.reserve.max(self.reserved);
        let mut pause = Duration::from_millis(50);
        loop {
            match self.shared.journal.append(&self.lease, &batch).await {
                Ok(()) => break,
                Err(error) if error.retry() == Retry::Backoff => {
                    tracing::warn!(log = %self.lease.log, %error, "append failed; trying again");
                    self.shared.fault(Some(&error));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PATIENCE);
                    self.renew().await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.shared.fault(None);
        self.reserved = batch.reserve;
        if let Some(last) = batch.records.last() {
            self.stored = last.number;
        }
        Ok(())
    }
}
