//! The machine's monotonic clock, which two processes read alike; `Instant` is opaque.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Since an origin that all processes share.
pub fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

/// Until then; at once if it has passed.
pub async fn sleep_until(then: Duration) {
    tokio::time::sleep(then.saturating_sub(now())).await;
}
