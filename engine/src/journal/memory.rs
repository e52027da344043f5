//! Logs in memory: for tests, benchmarks and whoever embeds the engine without a disk.
//!
//! Keeps every law of `conformance.rs`; "durable" here means as long as the process.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use indexmap::IndexMap;

use super::{
    Batch, BlobId, History, Input, Journal, JournalError, Lease, Place, Sent, StoredMessage,
};
use crate::env::Env;
use crate::id::{InputId, LogId, MessageId, RunId, WorkerId};
use crate::message::Message;
use crate::run::record::{Fact, Number, Numbered};

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
    /// Logs with something to do, by the input that brought them here.
    due: BTreeSet<(u64, LogId)>,
    /// Inputs sent so far.
    sent: u64,
}

#[derive(Debug, Default)]
struct Log {
    records: Vec<Numbered>,
    messages: IndexMap<MessageId, Arc<Message>>,
    reserved: Number,
    epoch: u64,
    /// When the lease lapses, on the monotonic clock; `None`: nobody holds the log.
    held_until: Option<Duration>,
    unread: Vec<(u64, InputId, Input)>,
    known: HashSet<InputId>,
    active: Option<RunId>,
    due: Option<u64>,
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
        Ok(self.logs().runs.get(run).cloned())
    }

    async fn send(&self, log: &LogId, id: &InputId, input: &Input) -> Result<Sent, JournalError> {
        Ok(self.logs().send(log, id, input))
    }

    async fn claim(&self, _: &WorkerId, lease: Duration) -> Result<Option<Lease>, JournalError> {
        let now = self.env.monotonic();
        Ok(self.logs().claim(now, now.saturating_add(lease)))
    }

    async fn renew(&self, lease: &Lease, by: Duration) -> Result<(), JournalError> {
        let until = self.env.monotonic().saturating_add(by);
        self.logs().held(lease)?.held_until = Some(until);
        Ok(())
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        // Somebody else's by now: nothing is left to give back.
        if let Ok(log) = self.logs().held(lease) {
            log.held_until = None;
        }
        Ok(())
    }

    async fn inbox(&self, log: &LogId) -> Result<Vec<(InputId, Input)>, JournalError> {
        let logs = self.logs();
        let unread = logs.by_id.get(log).map(|log| log.unread.as_slice()).unwrap_or_default();
        Ok(unread.iter().map(|(_, id, input)| (id.clone(), input.clone())).collect())
    }

    async fn append(&self, lease: &Lease, batch: &Batch) -> Result<(), JournalError> {
        self.logs().append(lease, batch)
    }

    async fn load(&self, log: &LogId) -> Result<History, JournalError> {
        let logs = self.logs();
        Ok(logs.by_id.get(log).map(Log::history).unwrap_or_default())
    }

    async fn read(&self, log: &LogId, from: Number, limit: usize) -> Result<History, JournalError> {
        let logs = self.logs();
        Ok(logs.by_id.get(log).map(|log| log.part(from, limit)).unwrap_or_default())
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
    fn send(&mut self, id: &LogId, input_id: &InputId, input: &Input) -> Sent {
        let known = self.by_id.get(id).is_some_and(|log| log.known.contains(input_id));
        let begun = matches!(input, Input::Start(start) if self.runs.contains_key(&start.run));
        if known || begun {
            return Sent::Known;
        }
        self.sent += 1;
        let log = self.by_id.entry(id.clone()).or_default();
        log.known.insert(input_id.clone());
        log.unread.push((self.sent, input_id.clone(), input.clone()));
        if log.due.is_none() {
            log.due = Some(self.sent);
            self.due.insert((self.sent, id.clone()));
        }
        if let Input::Start(start) = input {
            self.runs.insert(start.run.clone(), Place { log: id.clone(), first: None, last: None });
        }
        Sent::New
    }

    fn claim(&mut self, now: Duration, until: Duration) -> Option<Lease> {
        for (_, id) in &self.due {
            let Some(log) = self.by_id.get_mut(id) else { continue };
            if log.held_until.is_none_or(|held| held <= now) {
                log.epoch += 1;
                log.held_until = Some(until);
                return Some(Lease { log: id.clone(), epoch: log.epoch });
            }
        }
        None
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
        let found = log.records.last().map_or(0, |r| r.number);
        if found != batch.after {
            let (log, expected) = (lease.log.clone(), batch.after);
            return Err(JournalError::Conflict { log, expected, found });
        }
        log.reserved = log.reserved.max(head).max(batch.reserve);
        log.records.extend_from_slice(&batch.records);
        for StoredMessage { message, .. } in &batch.messages {
            log.messages.insert(message.id.clone(), message.clone());
        }
        log.unread.retain(|(_, id, _)| !batch.consumed.contains(id));
        let mut turned = !batch.consumed.is_empty();
        for record in &batch.records {
            turned |= self.turn(&lease.log, record);
        }
        if turned {
            self.requeue(&lease.log);
        }
        Ok(())
    }

    /// Notes the beginning or end of a run.
    fn turn(&mut self, id: &LogId, record: &Numbered) -> bool {
        let (run, begins) = match &record.record.fact {
            Fact::Started(started) => (&started.run, true),
            Fact::Ended(ended) => (&ended.run, false),
            _ => return false,
        };
        if let Some(place) = self.runs.get_mut(run) {
            place.first.get_or_insert(record.number);
            if !begins {
                place.last = Some(record.number);
            }
        }
        if let Some(log) = self.by_id.get_mut(id) {
            if begins {
                log.active = Some(run.clone());
            } else if log.active.as_ref() == Some(run) {
                log.active = None;
            }
        }
        true
    }

    /// Keeps the log's place in the queue while its run goes on; else that of its oldest input.
    fn requeue(&mut self, id: &LogId) {
        let Some(log) = self.by_id.get_mut(id) else { return };
        let oldest = log.unread.first().map(|(seq, ..)| *seq);
        let due = if log.active.is_some() { log.due.or(Some(0)) } else { oldest };
        if due == log.due {
            return;
        }
        if let Some(old) = log.due {
            self.due.remove(&(old, id.clone()));
        }
        if let Some(new) = due {
            self.due.insert((new, id.clone()));
        }
        log.due = due;
    }
}

impl Log {
    fn history(&self) -> History {
        let snapshot = |r: &Numbered| matches!(r.record.fact, Fact::Snapshot { .. });
        let from = self.records.iter().rfind(|r| snapshot(r)).map_or(0, |r| r.number);
        self.part(from, usize::MAX)
    }

    fn part(&self, from: Number, limit: usize) -> History {
        let start = self.records.partition_point(|r| r.number < from);
        let records: Vec<_> = self.records[start..].iter().take(limit).cloned().collect();
        let mut named = IndexMap::new();
        for id in records.iter().flat_map(|r| r.record.names()) {
            if let Some(message) = self.messages.get(&MessageId::from(id)) {
                named.insert(message.id.clone(), message.clone());
            }
        }
        History { reserved: self.reserved, records, messages: named.into_values().collect() }
    }
}
