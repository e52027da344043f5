//! What is streamed but not stored: deltas on their way, and events as they become true.
//!
//! Invariants:
//! - Numbers rise within a log's stream.
//! - A reader that does not read is cut off, and slows nobody: it reads on from the journal.
//! - Deltas of a call are kept until the record that closes the call takes their place.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::id::LogId;
use crate::run::event::Event;

/// Carries events from the writer of a log to its readers.
#[async_trait]
pub trait Live: Send + Sync {
    /// Hands events to everybody who reads the log now. Events with a [`call`](Event::call) are
    /// kept for later readers until [`settle`](Self::settle).
    async fn publish(&self, log: &LogId, events: Vec<Event>);

    /// Whether anybody reads the log now, so that events for nobody need not be made.
    fn watched(&self, log: &LogId) -> bool;

    /// Forgets the deltas of a call: its record is stored.
    async fn settle(&self, log: &LogId, call: &str);

    /// Forgets the deltas of all calls: their writer is gone.
    async fn reset(&self, log: &LogId);

    /// Begins to read.
    async fn subscribe(&self, log: &LogId) -> Subscription;
}

/// A reader's end.
pub struct Subscription {
    /// Deltas of calls that are still open, in order.
    pub backlog: Vec<Event>,
    /// What comes from now on. `Lagged` means: read the journal, then subscribe again.
    pub events: broadcast::Receiver<Event>,
}

/// How many events a reader may fall behind.
const CAPACITY: usize = 1024;

/// [`Live`] within one process.
#[derive(Default)]
pub struct MemoryLive {
    logs: Mutex<HashMap<LogId, Channel>>,
}

struct Channel {
    sender: broadcast::Sender<Event>,
    open: VecDeque<Event>,
}

impl MemoryLive {
    fn with<T>(&self, log: &LogId, act: impl FnOnce(&mut Channel) -> T) -> T {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if !logs.contains_key(log) {
            // A log that nobody reads and nothing is kept of needs no channel.
            logs.retain(|_, c| c.sender.receiver_count() > 0 || !c.open.is_empty());
        }
        let channel = logs.entry(log.clone()).or_insert_with(|| Channel {
            sender: broadcast::channel(CAPACITY).0,
            open: VecDeque::new(),
        });
        act(channel)
    }
}

#[async_trait]
impl Live for MemoryLive {
    async fn publish(&self, log: &LogId, events: Vec<Event>) {
        self.with(log, |channel| {
            for event in events {
                if event.call.is_some() {
                    channel.open.push_back(event.clone());
                }
                // Nobody listening is no failure: the journal has what matters.
                let _ = channel.sender.send(event);
            }
        });
    }

    fn watched(&self, log: &LogId) -> bool {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(log).is_some_and(|c| c.sender.receiver_count() > 0)
    }

    async fn settle(&self, log: &LogId, call: &str) {
        self.with(log, |channel| channel.open.retain(|e| e.call.as_deref() != Some(call)));
    }

    async fn reset(&self, log: &LogId) {
        self.with(log, |channel| channel.open.clear());
    }

    async fn subscribe(&self, log: &LogId) -> Subscription {
        self.with(log, |channel| Subscription {
            backlog: channel.open.iter().cloned().collect(),
            events: channel.sender.subscribe(),
        })
    }
}

/// A shared in-process [`Live`].
#[must_use]
pub fn memory() -> Arc<dyn Live> {
    Arc::new(MemoryLive::default())
}
