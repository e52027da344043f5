//! The pen of a log's driver: numbers facts, stores them, and shows them once they are stored.
//!
//! Invariants:
//! - What is shown was stored before; deltas alone are shown without being stored.
//! - Nothing is shown once the lease may have lapsed: a process that was stopped in its sleep
//!   first asks whether the log is still its own.
//! - Numbers rise in the order in which things are shown.
//! - A store without room is asked again until it has some, or until the lease is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::bundle::Program;
use crate::id::{InputId, RunId};
use crate::journal::{Batch, Consumed, History, JournalError, Lease, StoredMessage, Verdict};
use crate::limits::Limits;
use crate::message::Message;
use crate::model::{Delta, Retry};
use crate::run::event::{self, call_key};
use crate::run::fold::{Illegal, LogState, Programs};
use crate::run::leases::HeldLease;
use crate::run::live::{News, Shown, StreamedDelta};
use crate::run::marks::Marks;
use crate::run::record::{Called, Durability, Fact, Forked, Number, Numbered, Record, Waiting};
use crate::run::shared::Shared;
use crate::run::trials::Trial;
use crate::run::trouble::Trouble;

/// Numbers reserved beyond those used, so that deltas seldom need an append of their own.
const HEADROOM: Number = 10_000;
/// Records of one append, about, at most.
const TOGETHER: usize = 256;
/// Longest pause between two attempts to write to a store without room.
const PATIENCE: Duration = Duration::from_secs(2);

/// Writes one log under one lease.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// The right to write.
    pub(crate) held: Arc<HeldLease>,
    /// What the records say, those not yet stored included.
    pub(crate) log: LogState,
    /// What the run that goes on is or was pinned to.
    programs: Programs,
    stored: Number,
    /// The highest number that was shown.
    shown: Number,
    next: Number,
    reserved: Number,
    /// What the next append stores.
    due: Due,
    /// Something was pushed since the last [`flush`](Self::flush).
    unflushed: bool,
    /// The append that is under way.
    flight: Option<Flight>,
    /// Held while the run is tried apart from others.
    pub(crate) trial: Option<Trial>,
    /// Of each open call: the marks of its deltas, and the number of the last one.
    marks: BTreeMap<Arc<str>, (Marks, Number)>,
}

/// What is pushed and not yet stored.
#[derive(Default)]
struct Due {
    batch: Batch,
    to_show: Vec<ToShow>,
    acks: Vec<oneshot::Sender<()>>,
    troubles: Vec<Trouble>,
    /// Inputs that are decided.
    decided: Vec<InputId>,
    /// It must be stored before anybody is answered, whatever the run's durability.
    at_once: bool,
    /// Deltas were shown that have higher numbers than its first record.
    overtaken: bool,
}

/// An append under way, and what is shown once it has landed.
struct Flight {
    append: BoxFuture<'static, Result<Batch, JournalError>>,
    due: Due,
}

/// What readers see once everything before it is stored.
enum ToShow {
    Record(Numbered),
    Delta(StreamedDelta),
    /// The deltas of a call are void.
    Void(Arc<str>),
    /// The record of a call takes the place of its deltas.
    Closed(Arc<str>),
}

impl Writer {
    /// `reserved`: every number handed out so far is at most this.
    pub(crate) fn new(
        shared: Arc<Shared>,
        held: Arc<HeldLease>,
        log: LogState,
        reserved: Number,
        programs: Programs,
    ) -> Self {
        Self {
            shared,
            held,
            stored: log.head,
            shown: reserved,
            log,
            programs,
            next: reserved + 1,
            reserved,
            due: Due::default(),
            unflushed: false,
            flight: None,
            trial: None,
            marks: BTreeMap::new(),
        }
    }

    /// Which log, and under which epoch.
    pub(crate) fn lease(&self) -> &Lease {
        &self.held.lease
    }

    /// What the records say, if all of them are stored.
    pub(crate) fn into_stored(self) -> Option<LogState> {
        let stored = self.flight.is_none() && self.stored == self.log.head;
        stored.then_some(self.log)
    }

    /// How much is admitted.
    pub(crate) fn limits(&self) -> &Limits {
        self.shared.limits()
    }

    /// The program of the run that goes on.
    pub(crate) fn program(&self) -> Option<&Arc<Program>> {
        self.programs.get(&self.log.run.as_ref()?.bundle)
    }

    /// Makes a program known to the facts that follow.
    pub(crate) fn add_program(&mut self, program: Arc<Program>) {
        self.programs.add(program);
    }

    /// Adds a fact to what the next [`flush`](Self::flush) stores. The state follows at once, so
    /// that the next fact can be worked out; nothing of it is shown or acted upon before.
    pub(crate) fn push(&mut self, fact: Fact) -> Result<(), JournalError> {
        self.due.troubles.extend(Trouble::of(&fact, &self.log));
        let numbered = self.number(fact);
        self.log
            .apply(&numbered, &self.programs)
            .map_err(|illegal| JournalError::Corrupt(illegal.to_string()))?;
        self.due.to_show.push(ToShow::Record(numbered.clone()));
        self.due.batch.records.push(numbered);
        self.unflushed = true;
        Ok(())
    }

    fn number(&mut self, fact: Fact) -> Numbered {
        let record = Record { at_ms: self.shared.services.env.now().as_millisecond(), fact };
        let numbered = Numbered { number: self.next, record: Arc::new(record) };
        self.next += event::width(&numbered.record.fact);
        numbered
    }

    /// Goes on from an earlier number, whose history is given. What is pushed next is stored
    /// together with this, and with the input that asked for it.
    pub(crate) async fn fork(
        &mut self,
        forked: Forked,
        history: History,
        programs: Programs,
    ) -> Result<(), JournalError> {
        self.land().await?;
        let corrupt = |illegal: Illegal| JournalError::Corrupt(illegal.to_string());
        self.log =
            LogState::replay(&history.records, history.messages, &programs).map_err(corrupt)?;
        self.programs = programs;
        self.push(Fact::Forked(Box::new(forked)))
    }

    /// Makes a message known to the records that follow, to be stored with them.
    pub(crate) fn message(&mut self, message: Arc<Message>, shown: bool) {
        let run = self.log.run.as_ref().map(|r| r.started.run.clone());
        if let Some(run) = run {
            self.first_message(message, shown, &run);
        }
    }

    /// Like [`message`](Self::message), for a run whose first record does not stand yet.
    pub(crate) fn first_message(&mut self, message: Arc<Message>, shown: bool, run: &RunId) {
        if self.log.messages.get(&message.id) == Some(&message) {
            return;
        }
        let run = run.clone();
        // What stands for older messages is for models.
        let shown = shown && message.covers.is_none();
        self.log.messages.insert(message.id.clone(), message.clone());
        self.due.batch.messages.push(StoredMessage { message, run, shown });
    }

    /// Pushes that the run waits for what it waited for before.
    pub(crate) fn waiting(&mut self, waiting: &Waiting) -> Result<(), JournalError> {
        self.push(Fact::Waiting(Box::new(waiting.clone())))
    }

    /// Notes what became of an input. It is stored with what was pushed, at once: somebody waits
    /// for it.
    pub(crate) fn decide(&mut self, input: InputId, verdict: Verdict) {
        self.due.decided.push(input.clone());
        self.due.batch.consumed.push(Consumed { input, verdict });
        self.due.at_once = true;
        self.unflushed = true;
    }

    /// Answers a waiting task once what was pushed so far is stored.
    pub(crate) fn acknowledge(&mut self, ack: oneshot::Sender<()>) {
        self.due.acks.push(ack);
        self.unflushed = true;
    }

    /// Has the next [`flush`](Self::flush) store what was pushed, whatever the run's durability.
    pub(crate) fn at_once(&mut self) {
        self.due.at_once = true;
    }

    /// Forgets the deltas of a call that is made again; whether there were any.
    pub(crate) fn void(&mut self, task: &str, call: &str) -> bool {
        let key = call_key(task, call);
        let streamed = self.marks.remove(&key).is_some();
        if streamed {
            self.due.to_show.push(ToShow::Void(key));
        }
        streamed
    }

    /// Numbers a delta and shows it after what was pushed before it.
    pub(crate) async fn delta(
        &mut self,
        task: Arc<str>,
        call: Arc<str>,
        shown: bool,
        delta: Delta,
    ) -> Result<(), JournalError> {
        let (bytes, reasoning) = match &delta {
            Delta::Text(text) | Delta::Refusal(text) => (text.len(), false),
            Delta::Reasoning(text) => (text.len(), true),
        };
        if bytes == 0 {
            return Ok(());
        }
        if self.next > self.reserved {
            self.reserve().await?;
        }
        let number = self.next;
        self.next += 1;
        let (marks, last) = self.marks.entry(call_key(&task, &call)).or_default();
        marks.push(number - *last, bytes, reasoning);
        *last = number;
        let delta = StreamedDelta { number, task, call, shown, delta };
        self.due.to_show.push(ToShow::Delta(delta));
        self.unflushed = true;
        Ok(())
    }

    /// Stores that more numbers may be handed out, and nothing else.
    async fn reserve(&mut self) -> Result<(), JournalError> {
        self.land().await?;
        let mut batch = Batch { after: self.stored, ..Batch::default() };
        batch.reserve = self.next + HEADROOM;
        let batch = append(self.shared.clone(), self.held.clone(), batch).await?;
        self.note_stored(&batch);
        Ok(())
    }

    /// Ends a call: its record takes the place of its deltas.
    pub(crate) fn called(&mut self, mut called: Called) -> Result<(), JournalError> {
        let key = call_key(&called.task, &called.call);
        let streamed = self.marks.remove(&key);
        let closed = streamed.is_some().then(|| ToShow::Closed(key));
        called.marks = streamed.unwrap_or_default().0;
        self.push(Fact::Called(Box::new(called)))?;
        self.due.to_show.extend(closed);
        Ok(())
    }

    /// Whether something was pushed since the last [`flush`](Self::flush).
    pub(crate) fn pending(&self) -> bool {
        self.unflushed
    }

    /// Whether what was pushed is enough for one append.
    pub(crate) fn is_full(&self) -> bool {
        self.due.batch.records.len() >= TOGETHER
    }

    fn to_store(&self) -> bool {
        let batch = &self.due.batch;
        !batch.records.is_empty() || !batch.consumed.is_empty()
    }

    /// Stores what was pushed, shows it, and answers who waits for it, in the order that the
    /// run's durability asks for.
    pub(crate) async fn flush(&mut self) -> Result<(), JournalError> {
        self.unflushed = false;
        if self.due.at_once {
            return self.store_all().await;
        }
        let durability = self.log.run.as_ref().map(|run| run.started.durability);
        match durability.unwrap_or_default() {
            Durability::Sync => self.store_all().await,
            Durability::Async => {
                self.answer();
                if self.flight.is_none() { self.take_off().await } else { Ok(()) }
            }
            Durability::Exit => {
                self.answer();
                self.show_deltas().await
            }
        }
    }

    /// Stores everything that was pushed, shows it, and answers who waits for it.
    pub(crate) async fn store_all(&mut self) -> Result<(), JournalError> {
        self.unflushed = false;
        self.land().await?;
        self.take_off().await?;
        self.land().await
    }

    /// What came of the append that is under way, which [`finish_append`](Self::finish_append)
    /// takes; for ever, if none is. Dropping the future loses nothing.
    pub(crate) async fn appended(&mut self) -> Result<Batch, JournalError> {
        match &mut self.flight {
            Some(flight) => (&mut flight.append).await,
            None => std::future::pending().await,
        }
    }

    /// Shows what was appended, and begins to store what was pushed since.
    pub(crate) async fn finish_append(
        &mut self,
        appended: Result<Batch, JournalError>,
    ) -> Result<(), JournalError> {
        self.landed(appended).await?;
        self.take_off().await
    }

    /// Begins to store what was pushed; shows it at once if there is nothing to store.
    async fn take_off(&mut self) -> Result<(), JournalError> {
        if !self.to_store() {
            let due = std::mem::take(&mut self.due);
            return self.show(due).await;
        }
        self.renumber();
        let mut due = std::mem::take(&mut self.due);
        let mut batch = std::mem::take(&mut due.batch);
        batch.after = self.stored;
        let used = self.next - 1;
        batch.reserve = self.reserved;
        if used > self.reserved {
            batch.reserve = used + HEADROOM;
        }
        let append = Box::pin(append(self.shared.clone(), self.held.clone(), batch));
        self.flight = Some(Flight { append, due });
        Ok(())
    }

    /// Waits for the append that is under way, if one is.
    async fn land(&mut self) -> Result<(), JournalError> {
        let Some(flight) = &mut self.flight else { return Ok(()) };
        let appended = (&mut flight.append).await;
        self.landed(appended).await
    }

    async fn landed(&mut self, appended: Result<Batch, JournalError>) -> Result<(), JournalError> {
        let Some(Flight { due, .. }) = self.flight.take() else { return Ok(()) };
        self.note_stored(&appended?);
        if self.log.run.as_ref().is_none_or(|run| run.crashes == 0) {
            self.trial = None;
        }
        self.show(due).await
    }

    fn note_stored(&mut self, batch: &Batch) {
        self.reserved = batch.reserve.max(self.reserved);
        if let Some(last) = batch.records.last() {
            self.stored = last.number;
        }
    }

    /// Gives the records that are due numbers above every delta that was shown in the meantime.
    fn renumber(&mut self) {
        let Due { batch, to_show, overtaken, .. } = &mut self.due;
        if !std::mem::take(overtaken) {
            return;
        }
        for record in &mut batch.records {
            record.number = self.next;
            self.next += event::width(&record.record.fact);
        }
        let shown = to_show.iter_mut().filter_map(|shown| match shown {
            ToShow::Record(record) => Some(record),
            ToShow::Delta(_) | ToShow::Void(_) | ToShow::Closed(_) => None,
        });
        for (shown, renumbered) in shown.zip(&batch.records) {
            *shown = renumbered.clone();
        }
        if let Some(last) = batch.records.last() {
            self.log.head = last.number;
        }
    }

    fn answer(&mut self) {
        acknowledge_all(std::mem::take(&mut self.due.acks));
    }

    /// Shows deltas whose records are stored later.
    async fn show_deltas(&mut self) -> Result<(), JournalError> {
        let all = std::mem::take(&mut self.due.to_show);
        let (deltas, records): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|shown| matches!(shown, ToShow::Delta(_) | ToShow::Void(_)));
        self.due.overtaken |= !self.due.batch.records.is_empty() && !deltas.is_empty();
        self.due.to_show = records;
        self.show(Due { to_show: deltas, ..Due::default() }).await
    }

    /// Shows what is stored by now, and answers who waits for it. Whether anybody reads is asked
    /// only after storing: a reader that came before finds its events here, one that comes later
    /// finds them in the journal.
    async fn show(&mut self, due: Due) -> Result<(), JournalError> {
        if due.to_show.iter().any(|s| matches!(s, ToShow::Delta(_))) {
            self.ensure_lease().await?;
        }
        if due.to_show.is_empty() {
            self.tell(due.decided, due.acks);
            return Ok(());
        }
        let watched = self.shared.live.watched(&self.held.lease.log);
        let mut news = News { last: self.shown, ..News::default() };
        for item in due.to_show {
            match item {
                ToShow::Delta(delta) => {
                    news.last = delta.number;
                    news.shown.push(Shown::Delta(delta));
                }
                ToShow::Void(call) | ToShow::Closed(call) => news.shown.push(Shown::Closed(call)),
                ToShow::Record(record) => {
                    news.last = record.number + event::width(&record.record.fact) - 1;
                    if watched {
                        let events = event::project(&record, &self.log.messages);
                        news.shown.extend(events.into_iter().map(Shown::Event));
                    } else {
                        news.partial = true;
                    }
                    if let Fact::Ended(ended) = &record.record.fact {
                        self.shared.stops.tell(&ended.run);
                    } else if let Fact::Waiting(waiting) = &record.record.fact {
                        self.shared.stops.tell(&waiting.run);
                    }
                }
            }
        }
        self.shown = news.last;
        self.shared.live.publish(&self.held.lease, news).await;
        for trouble in due.troubles {
            trouble.log();
        }
        self.tell(due.decided, due.acks);
        Ok(())
    }

    /// Tells those who wait for what was stored.
    fn tell(&self, decided: Vec<InputId>, acks: Vec<oneshot::Sender<()>>) {
        for input in decided {
            self.shared.verdicts.tell(&input);
        }
        acknowledge_all(acks);
    }

    /// Asks for the lease again if it may have lapsed.
    async fn ensure_lease(&mut self) -> Result<(), JournalError> {
        let env = &*self.shared.services.env;
        if self.held.holds_at(env.monotonic()) {
            return Ok(());
        }
        self.held.renew(&*self.shared.journal, env, self.shared.lease).await
    }
}

fn acknowledge_all(acks: Vec<oneshot::Sender<()>>) {
    for ack in acks {
        // A task that no longer waits was dropped; its record stands all the same.
        let _ = ack.send(());
    }
}

/// Appends, and asks a store without room again and again until the lease is lost; gives the batch
/// back.
async fn append(
    shared: Arc<Shared>,
    held: Arc<HeldLease>,
    batch: Batch,
) -> Result<Batch, JournalError> {
    let mut pause = Duration::from_millis(50);
    loop {
        match shared.journal.append(&held.lease, &batch).await {
            Ok(()) => break,
            Err(error) if error.retry() == Retry::Backoff => {
                tracing::warn!(log = %held.lease.log, %error, "append failed; trying again");
                shared.fault(Some(&error));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PATIENCE);
                held.renew(&*shared.journal, &*shared.services.env, shared.lease).await?;
            }
            Err(error) => return Err(error),
        }
    }
    shared.fault(None);
    Ok(batch)
}
