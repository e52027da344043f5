//! What logs say that were driven here lately, so that the next turn of a conversation need not read
//! and replay all that came before it.
//!
//! Invariants:
//! - What is kept of a log is used only under a lease that says that the log's head is still the same:
//!   a record that another process appended makes it void.
//! - A log is kept between two runs alone, and never while it is driven.
//! - All of it together takes no more memory than `limits.histories`; what was used longest ago goes
//!   first.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;

use crate::id::LogId;
use crate::journal::Lease;
use crate::run::fold::LogState;

/// The logs that one process keeps.
#[derive(Debug)]
pub(crate) struct KeptLogs {
    kept: Mutex<Kept>,
    /// Bytes that they may take in memory, about.
    limit: usize,
}

#[derive(Debug, Default)]
struct Kept {
    logs: HashMap<LogId, KeptLog>,
    /// Which was put when: those that were put first go first.
    order: BTreeMap<u64, LogId>,
    /// How many were put so far.
    puts: u64,
    /// What they take together.
    bytes: usize,
}

#[derive(Debug)]
struct KeptLog {
    state: LogState,
    put: u64,
    bytes: usize,
}

impl KeptLogs {
    /// One whose logs take at most so many bytes in memory, about.
    pub(crate) fn new(limit: usize) -> Self {
        Self { kept: Mutex::default(), limit }
    }

    /// What the log says, if it is kept and nothing was appended since.
    pub(crate) fn take(&self, lease: &Lease) -> Option<LogState> {
        let state = self.kept().remove(&lease.log)?;
        (state.head == lease.head).then_some(state)
    }

    /// Keeps what a log says between two runs.
    pub(crate) fn put(&self, log: &LogId, mut state: LogState) {
        state.forget_unnamed();
        let bytes = state.weight();
        let mut kept = self.kept();
        kept.remove(log);
        if state.run.is_some() || bytes > self.limit {
            return;
        }
        kept.insert(log, state, bytes);
        while kept.bytes > self.limit {
            let Some((_, oldest)) = kept.order.first_key_value() else { break };
            let oldest = oldest.clone();
            kept.remove(&oldest);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, log: &LogId) -> Option<LogState> {
        let KeptLog { state, put, bytes } = self.logs.remove(log)?;
        self.order.remove(&put);
        self.bytes -= bytes;
        Some(state)
    }

    fn insert(&mut self, log: &LogId, state: LogState, bytes: usize) {
        self.puts += 1;
        self.bytes += bytes;
        self.order.insert(self.puts, log.clone());
        self.logs.insert(log.clone(), KeptLog { state, put: self.puts, bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(log: &str, head: u64) -> Lease {
        Lease { log: log.into(), epoch: 1, owner: None, head, reserved: head }
    }

    fn state(head: u64) -> LogState {
        let mut state = LogState::default();
        state.head = head;
        state
    }

    #[test]
    fn a_log_is_used_once_and_only_where_nothing_was_appended() {
        let kept = KeptLogs::new(1 << 20);
        kept.put(&"a".into(), state(7));
        assert!(kept.take(&lease("b", 7)).is_none());
        assert!(kept.take(&lease("a", 8)).is_none(), "somebody else appended");
        assert!(kept.take(&lease("a", 7)).is_none(), "it was void from then on");
        kept.put(&"a".into(), state(9));
        assert_eq!(kept.take(&lease("a", 9)).map(|state| state.head), Some(9));
        assert!(kept.take(&lease("a", 9)).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_was_put_first_goes_first() {
        let each = state(1).weight();
        let kept = KeptLogs::new(3 * each);
        for log in ["a", "b", "a", "c", "d"] {
            kept.put(&log.into(), state(1));
        }
        let held = |log: &str| kept.take(&lease(log, 1)).is_some();
        assert_eq!(["a", "b", "c", "d"].map(held), [true, false, true, true]);
        assert_eq!(kept.kept().bytes, 0);
        let none = KeptLogs::new(0);
        none.put(&"a".into(), state(1));
        assert!(none.take(&lease("a", 1)).is_none());
    }
}
