//! The time that quotas count in.
//!
//! Invariant: it never goes back, not even over a restart. It follows the system's clock as long as
//! that runs ahead of it; if somebody sets that back, this one goes on from where it was, as fast as
//! time passes. So a window that is used up stays used up until its time is over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use exile_engine::env::Env;
use jiff::Timestamp;

/// A clock that never goes back.
pub(super) struct Clock {
    env: Arc<dyn Env>,
    /// The time that was last taken from the system, in milliseconds since 1970, and when that was
    /// on the monotonic clock.
    set: Mutex<(i64, Duration)>,
}

impl Clock {
    /// One that begins at the system's time, or at `latest_ms` (in milliseconds since 1970) if that
    /// is later: the last time that a process before this one wrote down.
    pub(super) fn new(env: Arc<dyn Env>, latest_ms: i64) -> Self {
        let set = Mutex::new((latest_ms, env.monotonic()));
        Self { env, set }
    }

    /// The time.
    pub(super) fn now(&self) -> Timestamp {
        let (system, passed) = (self.env.now(), self.env.monotonic());
        // The lock guards two numbers: nothing panics while it is held.
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let (from_ms, since) = *set;
        let since = i64::try_from(passed.saturating_sub(since).as_millis()).unwrap_or(i64::MAX);
        let own_ms = from_ms.saturating_add(since);
        if system.as_millisecond() >= own_ms {
            *set = (system.as_millisecond(), passed);
            return system;
        }
        Timestamp::from_millisecond(own_ms).unwrap_or(system)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use exile_engine::env::Env;
    use jiff::Timestamp;

    use super::Clock;

    /// Both clocks of a machine, in milliseconds.
    #[derive(Debug, Default)]
    struct Machine {
        system: AtomicI64,
        passed: AtomicI64,
    }

    impl Env for Machine {
        fn now(&self) -> Timestamp {
            Timestamp::from_millisecond(self.system.load(Ordering::Relaxed)).unwrap()
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.passed.load(Ordering::Relaxed).try_into().unwrap())
        }

        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    #[test]
    fn it_goes_on_as_fast_as_time_passes_when_the_system_is_set_back() {
        let machine = Arc::new(Machine::default());
        let clock = Clock::new(machine.clone(), 500);
        let at = |system, passed| {
            machine.system.store(system, Ordering::Relaxed);
            machine.passed.store(passed, Ordering::Relaxed);
            clock.now().as_millisecond()
        };
        assert_eq!(at(0, 0), 500, "a process before this one was there already");
        assert_eq!(at(1_000, 10), 1_000, "the system is ahead");
        assert_eq!(at(200, 30), 1_020);
        assert_eq!(at(-9_000, 31), 1_021);
        assert_eq!(at(1_030, 50), 1_040);
        assert_eq!(at(2_000, 60), 2_000, "it was set right");
        assert_eq!(at(2_001, 61), 2_001);
    }
}
