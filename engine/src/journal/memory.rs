//! Logs in memory: for tests, benchmarks and whoever embeds the engine without a disk.
//!
//! Keeps every law of `conformance.rs`; "durable" here means as long as the process.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use foldhash::HashMap;
use indexmap::IndexMap;

use super::lineage::{self, Cut, Line};
use super::{
    Batch, BlobId, ForkRun, History, IfActive, Input, Journal, JournalError, Lease, Place, Refusal,
    ReleaseInfo, Sent, StoredMessage, Verdict, wake_ms,
};
use crate::env::Env;
use crate::id::{InputId, LogId, MessageId, RunId, UserId, WorkerId};
use crate::message::Message;
use crate::run::record::{Fact, Number, Numbered, Record, RunError};

/// Every log of the process.
#[derive(Debug)]
pub struct MemoryJournal {
    env: Arc<dyn Env>,
    logs: Mutex<Logs>,
}

#[derive(Debug, Default)]
struct Logs {
    by_id: HashMap<LogId, Log>,
    runs: HashMap<RunId, Place>,
    blobs: HashMap<BlobId, Vec<u8>>,
    /// Logs with something to do that nobody holds.
    due: BTreeSet<PlaceInQueue>,
    /// Whose log was claimed last.
    turn: Option<UserId>,
    /// Leases, by when they lapse.
    leases: BTreeSet<(Duration, LogId)>,
    /// Logs with something to do from a time on.
    wakes: BTreeSet<(i64, LogId)>,
    /// Inputs sent so far.
    sent: u64,
}

/// Whose log it is, the input that brought it here, and which.
type PlaceInQueue = (Option<UserId>, u64, LogId);

#[derive(Debug, Default)]
struct Log {
    /// Who owns the first run that was sent to it.
    owner: Option<UserId>,
    records: Vec<Numbered>,
    messages: IndexMap<MessageId, Arc<Message>>,
    head: Number,
    reserved: Number,
    epoch: u64,
    /// When the lease lapses, on the monotonic clock; `None`: nobody holds the log.
    held_until: Option<Duration>,
    unread: Vec<(u64, InputId, Input)>,
    /// Every input that was ever sent, and its place among all.
    known: HashMap<InputId, u64>,
    /// What became of those that were decided.
    verdicts: HashMap<InputId, Verdict>,
    /// Runs that have not ended.
    open: HashSet<RunId>,
    active: Option<RunId>,
    due: Option<u64>,
    /// It cannot be read.
    parked: bool,
    wake: Option<i64>,
    cuts: Vec<Cut>,
    /// What it is a fork of, and up to which number.
    parent: Option<(LogId, Number)>,
}

impl Log {
    /// Whether somebody's lease has not lapsed.
    fn is_held(&self, leases: &BTreeSet<(Duration, LogId)>, id: &LogId) -> bool {
        self.held_until.is_some_and(|until| leases.contains(&(until, id.clone())))
    }
}

impl MemoryJournal {
    /// Without any log; leases use `env`'s monotonic clock.
    #[must_use]
    pub fn new(env: Arc<dyn Env>) -> Self {
        Self { env, logs: Mutex::default() }
    }

    /// No code that holds the lock panics half-way, so a poisoned lock still guards whole logs.
    fn logs(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn find(&self, run: &RunId) -> Result<Option<Place>, JournalError> {
        Ok(self.logs().find(run))
    }

    async fn send(&self, log: &LogId, id: &InputId, input: &Input) -> Result<Sent, JournalError> {
        self.logs().send(log, id, input)
    }

    async fn claim(
        &self,
        _: &WorkerId,
        lease: Duration,
        but: &[UserId],
    ) -> Result<Option<Lease>, JournalError> {
        let now = self.env.monotonic();
        let wall_ms = self.env.now().as_millisecond();
        Ok(self.logs().claim(now, now.saturating_add(lease), wall_ms, but))
    }

    async fn renew(&self, leases: &[Lease], by: Duration) -> Result<Vec<LogId>, JournalError> {
        let until = self.env.monotonic().saturating_add(by);
        let mut logs = self.logs();
        let mut lost = Vec::new();
        for lease in leases {
            if logs.held(lease).is_ok() {
                logs.hold(&lease.log, Some(until));
            } else {
                lost.push(lease.log.clone());
            }
        }
        Ok(lost)
    }

    async fn release(&self, lease: &Lease, rest: &ReleaseInfo) -> Result<(), JournalError> {
        let mut logs = self.logs();
        // Somebody else's by now: nothing is left to give back.
        if let Ok(log) = logs.held(lease) {
            let wake = rest.wake_ms.filter(|_| log.waits());
            if log.waits() {
                log.due = log.newer_than(rest.seen.as_ref());
            }
            logs.hold(&lease.log, None);
            logs.wake(&lease.log, wake);
        }
        Ok(())
    }

    async fn park(&self, lease: &Lease, why: &RunError) -> Result<(), JournalError> {
        self.logs().park(lease, why)
    }

    async fn inbox(&self, log: &LogId) -> Result<Vec<(InputId, Input)>, JournalError> {
        let logs = self.logs();
        let unread = logs.by_id.get(log).map(|log| log.unread.as_slice()).unwrap_or_default();
        Ok(unread.iter().map(|(_, id, input)| (id.clone(), input.clone())).collect())
    }

    async fn verdict(&self, log: &LogId, id: &InputId) -> Result<Option<Verdict>, JournalError> {
        let logs = self.logs();
        Ok(logs.by_id.get(log).and_then(|log| log.verdicts.get(id)).cloned())
    }

    async fn append(&self, lease: &Lease, batch: &Batch) -> Result<(), JournalError> {
        self.logs().append(lease, batch)
    }

    async fn load(&self, log: &LogId, at: Option<Number>) -> Result<History, JournalError> {
        Ok(self.logs().load(log, at.unwrap_or(Number::MAX)))
    }

    async fn read(&self, log: &LogId, from: Number, limit: usize) -> Result<History, JournalError> {
        Ok(self.logs().read(log, from, limit))
    }

    async fn put_blob(&self, bytes: &[u8]) -> Result<BlobId, JournalError> {
        let id = BlobId::of(bytes);
        self.logs().blobs.entry(id.clone()).or_insert_with(|| bytes.to_vec());
        Ok(id)
    }

    async fn get_blob(&self, id: &BlobId) -> Result<Option<Vec<u8>>, JournalError> {
        Ok(self.logs().blobs.get(id).cloned())
    }
}

impl Logs {
    fn find(&self, run: &RunId) -> Option<Place> {
        let place = self.runs.get(run)?;
        let log = self.by_id.get(&place.log);
        let still = log.filter(|log| place.first.is_none() && log.waits() && log.due.is_none());
        Some(Place { behind: still.and_then(|log| log.active.clone()), ..place.clone() })
    }

    fn send(
        &mut self,
        id: &LogId,
        input_id: &InputId,
        input: &Input,
    ) -> Result<Sent, JournalError> {
        let begins = matches!(input, Input::Start(_) | Input::Fork(_));
        let rejects = matches!(input, Input::Start(s) if s.if_active == IfActive::Reject);
        let log = self.by_id.get(id);
        let known = log.is_some_and(|log| log.known.contains_key(input_id));
        if known || (begins && self.runs.contains_key(input.run())) {
            return Ok(Sent::Known);
        }
        if rejects && log.is_some_and(|log| !log.open.is_empty()) {
            return Ok(Sent::Busy);
        }
        if let Input::Fork(fork) = input
            && fork.log != *id
        {
            self.fork(id, fork)?;
        } else if log.is_none() && !matches!(input, Input::Start(_)) {
            return Err(JournalError::Gone(format!("log {id}")));
        }
        self.sent += 1;
        let log = self.by_id.entry(id.clone()).or_default();
        if log.owner.is_none() {
            log.owner = input.owner().cloned();
        }
        log.known.insert(input_id.clone(), self.sent);
        log.unread.push((self.sent, input_id.clone(), input.clone()));
        if log.due.is_none() {
            log.due = Some(self.sent);
            if !log.is_held(&self.leases, id) {
                self.due.insert((log.owner.clone(), self.sent, id.clone()));
            }
        }
        if begins {
            let run = input.run();
            log.open.insert(run.clone());
            self.runs.insert(
                run.clone(),
                Place { log: id.clone(), first: None, last: None, behind: None, unreadable: None },
            );
        }
        Ok(Sent::New)
    }

    /// Begins the log `id` as a fork.
    fn fork(&mut self, id: &LogId, fork: &ForkRun) -> Result<(), JournalError> {
        if let Some(log) = self.by_id.get(id) {
            return Err(JournalError::Conflict { log: id.clone(), expected: 0, found: log.head });
        }
        let Some(parent) = self.by_id.get(&fork.log) else {
            return Err(JournalError::Gone(format!("log {} to fork", fork.log)));
        };
        let reserved = parent.reserved;
        let history = self.load(&fork.log, fork.at);
        let head = history.records.last().map_or(0, |r| r.number);
        let parent = Some((fork.log.clone(), head));
        self.by_id.insert(id.clone(), Log { head, reserved, parent, ..Log::default() });
        Ok(())
    }

    /// The first in the queue whose owner comes after `served`, and is none of `but`. Owners are
    /// served in turn.
    fn next_owner(&self, served: Option<&UserId>, but: &[UserId]) -> Option<&PlaceInQueue> {
        let after = |owner: &Option<UserId>| {
            let last = (owner.clone(), u64::MAX, LogId::from(""));
            self.due.range((Bound::Excluded(last), Bound::Unbounded)).next()
        };
        let mut next = match served {
            None => self.due.first(),
            Some(served) => after(&Some(served.clone())),
        };
        while let Some((owner, ..)) = next
            && owner.as_ref().is_some_and(|owner| but.contains(owner))
        {
            next = after(owner);
        }
        next
    }

    fn claim(
        &mut self,
        now: Duration,
        until: Duration,
        wall_ms: i64,
        but: &[UserId],
    ) -> Option<Lease> {
        while self.leases.first().is_some_and(|(lapses, _)| *lapses <= now) {
            let Some((_, id)) = self.leases.pop_first() else { break };
            let queued = self.by_id.get(&id).and_then(|log| Some((log.owner.clone(), log.due?)));
            if let Some((owner, due)) = queued {
                self.due.insert((owner, due, id));
            }
        }
        let first = self.next_owner(self.turn.as_ref(), but).or_else(|| self.next_owner(None, but));
        let first = first.map(|(_, _, id)| id);
        let mut woken = self.wakes.iter().take_while(|(at, _)| *at <= wall_ms).map(|(_, id)| id);
        let free =
            |id: &&LogId| self.by_id.get(*id).is_some_and(|log| !log.is_held(&self.leases, id));
        let id = first.or_else(|| woken.find(free))?.clone();
        let log = self.by_id.get_mut(&id)?;
        log.epoch += 1;
        let (epoch, head, reserved) = (log.epoch, log.head, log.reserved);
        self.turn = log.owner.clone();
        self.hold(&id, Some(until));
        Some(Lease { log: id, epoch, owner: self.turn.clone(), head, reserved })
    }

    fn park(&mut self, lease: &Lease, why: &RunError) -> Result<(), JournalError> {
        let log = self.held(lease)?;
        let (unread, open) = (std::mem::take(&mut log.unread), log.open.clone());
        for (_, id, input) in unread {
            let verdict = if let Input::Cancel { run } = &input {
                log.open.remove(run);
                Verdict::Taken
            } else {
                Verdict::Refused(Refusal::Unreadable { why: why.message.clone() })
            };
            log.verdicts.insert(id, verdict);
        }
        (log.due, log.parked) = (None, true);
        for run in open {
            self.runs.entry(run).and_modify(|place| {
                (place.last, place.unreadable) = (None, Some(why.clone()));
            });
        }
        self.hold(&lease.log, None);
        self.wake(&lease.log, None);
        Ok(())
    }

    /// Notes until when somebody holds the log.
    fn hold(&mut self, id: &LogId, until: Option<Duration>) {
        let Some(log) = self.by_id.get_mut(id) else { return };
        if let Some(old) = std::mem::replace(&mut log.held_until, until) {
            self.leases.remove(&(old, id.clone()));
        }
        if let Some(until) = until {
            self.leases.insert((until, id.clone()));
        }
        if let Some(due) = log.due {
            let queued = (log.owner.clone(), due, id.clone());
            match until {
                Some(_) => self.due.remove(&queued),
                None => self.due.insert(queued),
            };
        }
    }

    fn held(&mut self, lease: &Lease) -> Result<&mut Log, JournalError> {
        self.by_id
            .get_mut(&lease.log)
            .filter(|log| log.epoch == lease.epoch && log.held_until.is_some())
            .ok_or_else(|| JournalError::Fenced(lease.log.clone()))
    }

    fn append(&mut self, lease: &Lease, batch: &Batch) -> Result<(), JournalError> {
        let head = batch.head(&lease.log)?;
        let log = self.held(lease)?;
        if log.head != batch.after {
            let (log, expected, found) = (lease.log.clone(), batch.after, log.head);
            return Err(JournalError::Conflict { log, expected, found });
        }
        (log.head, log.parked) = (head, false);
        log.reserved = log.reserved.max(head).max(batch.reserve);
        log.records.extend_from_slice(&batch.records);
        for StoredMessage { message, .. } in &batch.messages {
            log.messages.insert(message.id.clone(), message.clone());
        }
        for consumed in &batch.consumed {
            log.unread.retain(|(_, id, _)| *id != consumed.input);
            log.verdicts.insert(consumed.input.clone(), consumed.verdict.clone());
        }
        for record in &batch.records {
            self.turn(&lease.log, record);
        }
        if let Some(last) = batch.records.last() {
            self.wake(&lease.log, wake_ms(&last.record.fact));
        }
        self.requeue(&lease.log);
        Ok(())
    }

    /// Notes the beginning or end of a run.
    fn turn(&mut self, id: &LogId, record: &Numbered) {
        let Some(log) = self.by_id.get_mut(id) else { return };
        let number = record.number;
        if let Some(waits) = log.active.as_ref().and_then(|run| self.runs.get_mut(run)) {
            (waits.last, waits.unreadable) = (None, None);
        }
        match &record.record.fact {
            Fact::Waiting(waiting) => {
                self.runs.entry(waiting.run.clone()).and_modify(|place| place.last = Some(number));
                return;
            }
            Fact::Started(started) => log.active = Some(started.run.clone()),
            Fact::Forked(forked) => {
                log.cuts.push(Cut { number, at: forked.at });
                let over = log.active.take().filter(|over| forked.run.as_ref() != Some(over));
                if let Some(over) = over {
                    log.open.remove(&over);
                    self.runs.entry(over).and_modify(|place| place.last = Some(number));
                }
                log.active.clone_from(&forked.run);
            }
            Fact::Ended(ended) => {
                log.open.remove(&ended.run);
                log.active.take_if(|active| *active == ended.run);
                self.runs.entry(ended.run.clone()).and_modify(|place| place.last = Some(number));
            }
            _ => return,
        }
        if let Some(run) = begins_or_ends(&record.record)
            && let Some(place) = self.runs.get_mut(run)
        {
            place.first.get_or_insert(number);
        }
    }

    /// Keeps the log's place in the queue while its run goes on; else that of its oldest input.
    fn requeue(&mut self, id: &LogId) {
        let Some(log) = self.by_id.get_mut(id) else { return };
        let oldest = log.unread.first().map(|(seq, ..)| *seq);
        let goes_on = log.active.is_some() && !log.waits();
        let due = if goes_on { log.due.or(Some(0)) } else { oldest };
        if let Some(old) = std::mem::replace(&mut log.due, due) {
            self.due.remove(&(log.owner.clone(), old, id.clone()));
        }
        if let Some(new) = due.filter(|_| !log.is_held(&self.leases, id)) {
            self.due.insert((log.owner.clone(), new, id.clone()));
        }
    }

    /// Sets when the log has something to do although it waits.
    fn wake(&mut self, id: &LogId, at_ms: Option<i64>) {
        let Some(log) = self.by_id.get_mut(id) else { return };
        if let Some(old) = std::mem::replace(&mut log.wake, at_ms) {
            self.wakes.remove(&(old, id.clone()));
        }
        if let Some(new) = at_ms {
            self.wakes.insert((new, id.clone()));
        }
    }

    /// The log and those that it is a fork of, the nearest first.
    fn line(&self, id: &LogId) -> Vec<&Log> {
        let first = self.by_id.get(id);
        let parent = |log: &&Log| log.parent.as_ref().and_then(|(id, _)| self.by_id.get(id));
        std::iter::successors(first, parent).collect()
    }

    fn load(&self, id: &LogId, at: Number) -> History {
        let logs = self.line(id);
        let lines: Vec<Line> = logs.iter().map(|log| log.line()).collect();
        let spans = lineage::spans(&lines, at);
        let records = spans.iter().flat_map(|span| logs[span.line].records(span.from, span.to));
        let mut records: Vec<Numbered> = records.cloned().collect();
        let snapshot = |r: &Numbered| matches!(r.record.fact, Fact::Snapshot { .. });
        records.drain(..records.iter().rposition(snapshot).unwrap_or(0));
        history(&logs, records, Record::names)
    }

    fn read(&self, id: &LogId, from: Number, limit: usize) -> History {
        let logs = self.line(id);
        let own = logs.first().map_or(&[][..], |log| log.records_from(from));
        let page = &own[..limit.min(own.len())];
        let mut history = history(&logs, page.to_vec(), Record::names_in_events);
        history.next = own.get(page.len()).map(|record| record.number);
        history
    }
}

/// Records of a log, with the messages that `names` tells of each, of it and those that it is a
/// fork of.
fn history(logs: &[&Log], records: Vec<Numbered>, names: impl Fn(&Record) -> Vec<&str>) -> History {
    let mut named = IndexMap::new();
    for id in records.iter().flat_map(|r| names(&r.record)) {
        let id = MessageId::from(id);
        if let Some(message) = logs.iter().find_map(|log| log.messages.get(&id)) {
            named.insert(id, message.clone());
        }
    }
    let reserved = logs.first().map_or(0, |log| log.reserved);
    History { reserved, records, messages: named.into_values().collect(), next: None }
}

impl Log {
    fn line(&self) -> Line {
        let parent_at = self.parent.as_ref().map(|(_, at)| *at);
        Line { cuts: self.cuts.clone(), parent_at }
    }

    /// Whether its run waits for somebody.
    fn waits(&self) -> bool {
        let waits = |r: &Numbered| matches!(r.record.fact, Fact::Waiting(_));
        self.parked || self.records.last().is_some_and(waits)
    }

    /// The place of the oldest unread input that was sent after this one.
    fn newer_than(&self, seen: Option<&InputId>) -> Option<u64> {
        let seen = seen.and_then(|id| self.known.get(id)).copied().unwrap_or_default();
        self.unread.iter().map(|(seq, ..)| *seq).find(|seq| *seq > seen)
    }

    /// From the record on that a number belongs to.
    fn records_from(&self, number: Number) -> &[Numbered] {
        let above = self.records.partition_point(|r| r.number <= number);
        &self.records[above.saturating_sub(1)..]
    }

    fn records(&self, from: Number, to: Number) -> &[Numbered] {
        let start = self.records.partition_point(|r| r.number < from);
        let end = self.records.partition_point(|r| r.number <= to).max(start);
        &self.records[start..end]
    }
}

/// The run that has a first record with this one, unless it has one already.
fn begins_or_ends(record: &Record) -> Option<&RunId> {
    match &record.fact {
        Fact::Started(started) => Some(&started.run),
        Fact::Forked(forked) => forked.run.as_ref(),
        Fact::Ended(ended) => Some(&ended.run),
        _ => None,
    }
}
