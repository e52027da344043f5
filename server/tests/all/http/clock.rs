//! The system's clock, moved by as much as a test says: wall-clock time alone, as when an operator
//! sets it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use exile_engine::env::{Env, SystemEnv};
use jiff::{SignedDuration, Timestamp};

#[derive(Debug, Default)]
pub(super) struct Clock {
    system: SystemEnv,
    moved_ms: AtomicI64,
}

impl Clock {
    /// Sets the clock forward, or back.
    pub(super) fn shift(&self, by: SignedDuration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        self.moved_ms.fetch_add(by, Ordering::Relaxed);
    }
}

impl Env for Clock {
    fn now(&self) -> Timestamp {
        self.system.now() + SignedDuration::from_millis(self.moved_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.system.fill(bytes);
    }
}
