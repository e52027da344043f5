//! Clock, randomness and ids as a parameter, so that every run can be repeated exactly.
//!
//! This file is the only one that reads the machine's clock or randomness; `.clippy.toml` bans
//! the bare calls everywhere else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use uuid::{Builder, Uuid};

/// The world outside a run, as far as it is not reached through a trait of its own.
pub trait Env: Send + Sync + std::fmt::Debug {
    /// Wall-clock time.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment of this process; never goes back.
    fn monotonic(&self) -> Duration;

    /// Fills `bytes` with randomness fit for keys.
    fn fill(&self, bytes: &mut [u8]);

    /// A `UUIDv7` (RFC 9562) of [`now`](Self::now) and [`fill`](Self::fill).
    fn uuid(&self) -> Uuid {
        let mut random = [0; 10];
        self.fill(&mut random);
        let millis = u64::try_from(self.now().as_millisecond()).unwrap_or(0);
        Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

/// The real clock and the operating system's randomness.
#[derive(Debug)]
pub struct SystemEnv {
    started: std::time::Instant,
}

impl SystemEnv {
    /// Starts the monotonic clock.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "the one place that may")]
    pub fn new() -> Self {
        Self { started: std::time::Instant::now() }
    }
}

impl Default for SystemEnv {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for SystemEnv {
    #[allow(clippy::disallowed_methods, reason = "the one place that may")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    #[allow(clippy::expect_used, reason = "without randomness no key or id may be made")]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives randomness");
    }
}

/// A clock that moves one millisecond per reading and randomness that counts: for tests and
/// golden traces.
#[derive(Debug)]
pub struct StepEnv {
    millis: AtomicU64,
    draws: AtomicU64,
}

impl StepEnv {
    /// Starts at 2026-01-01T00:00:00Z.
    #[must_use]
    pub fn new() -> Self {
        Self { millis: AtomicU64::new(1_767_225_600_000), draws: AtomicU64::new(0) }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.millis.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Default for StepEnv {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for StepEnv {
    fn now(&self) -> Timestamp {
        let millis = self.millis.fetch_add(1, Ordering::Relaxed);
        Timestamp::from_millisecond(i64::try_from(millis).unwrap_or(i64::MAX))
            .unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }

    fn fill(&self, bytes: &mut [u8]) {
        let draw = self.draws.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let tail = bytes.len().saturating_sub(draw.len());
        let skip = draw.len().saturating_sub(bytes.len());
        bytes.fill(0);
        bytes[tail..].copy_from_slice(&draw[skip..]);
    }
}
