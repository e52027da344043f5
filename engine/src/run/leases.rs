//! The leases that this process holds, kept alive together.
//!
//! One heartbeat renews all of them, some hundred to a statement, so that the store is asked as
//! seldom for ten thousand runs that wait for their providers as for one.
//!
//! Invariant: a driver whose lease was lost is told, and what it was told before it asks again
//! tells it until when its lease holds at least.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use tokio_util::sync::CancellationToken;

use crate::env::Env;
use crate::id::LogId;
use crate::journal::{Journal, JournalError, Lease};
use crate::model::Retry;

/// Most leases that one renewal names: it holds the store's writer for a few milliseconds.
const TOGETHER: usize = 256;

/// Every lease that this process holds.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<HashMap<LogId, Arc<HeldLease>>>);

/// A lease that a driver holds.
#[derive(Debug)]
pub(crate) struct HeldLease {
    /// Which.
    pub(crate) lease: Lease,
    /// Milliseconds on the monotonic clock at which it lapses at the earliest.
    until_ms: AtomicU64,
    /// Cancelled once somebody else holds the log.
    lost: CancellationToken,
}

impl HeldLease {
    /// `until`: when it lapses at the earliest, on the monotonic clock.
    pub(crate) fn new(lease: Lease, until: Duration) -> Self {
        let until_ms = AtomicU64::new(millis(until));
        Self { lease, until_ms, lost: CancellationToken::new() }
    }

    /// Whether it holds for sure at `now`, on the monotonic clock.
    pub(crate) fn holds_at(&self, now: Duration) -> bool {
        millis(now) < self.until_ms.load(Ordering::Acquire)
    }

    /// Until somebody else holds the log.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Asks for the lease again, by itself. A store without room cannot note that, but neither can
    /// it note that somebody else took the log: only losing the lease is an error.
    pub(crate) async fn renew(
        &self,
        journal: &dyn Journal,
        env: &dyn Env,
        by: Duration,
    ) -> Result<(), JournalError> {
        let asked_at = env.monotonic();
        match journal.renew(std::slice::from_ref(&self.lease), by).await {
            Ok(lost) if lost.is_empty() => {}
            Ok(_) => return Err(JournalError::Fenced(self.lease.log.clone())),
            Err(error) if error.retry() == Retry::Backoff => {}
            Err(error) => return Err(error),
        }
        self.prolong(asked_at + by);
        Ok(())
    }

    fn prolong(&self, until: Duration) {
        self.until_ms.fetch_max(millis(until), Ordering::AcqRel);
    }
}

impl Leases {
    fn all(&self) -> MutexGuard<'_, HashMap<LogId, Arc<HeldLease>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a lease alive from now on.
    pub(crate) fn keep(&self, held: Arc<HeldLease>) {
        self.all().insert(held.lease.log.clone(), held);
    }

    /// Keeps a lease alive no longer. One of the same log that was claimed since stays.
    pub(crate) fn forget(&self, held: &Arc<HeldLease>) {
        let mut all = self.all();
        if all.get(&held.lease.log).is_some_and(|kept| Arc::ptr_eq(kept, held)) {
            all.remove(&held.lease.log);
        }
    }

    /// Renews all of them; whoever lost theirs is told.
    pub(crate) async fn renew_all(&self, journal: &dyn Journal, env: &dyn Env, by: Duration) {
        let held: Vec<Arc<HeldLease>> = self.all().values().cloned().collect();
        for some in held.chunks(TOGETHER) {
            let leases: Vec<Lease> = some.iter().map(|held| held.lease.clone()).collect();
            let asked_at = env.monotonic();
            let lost = match journal.renew(&leases, by).await {
                Ok(lost) => lost,
                Err(error) => {
                    tracing::warn!(%error, "leases could not be renewed; trying again");
                    if error.retry() != Retry::Backoff {
                        continue;
                    }
                    Vec::new()
                }
            };
            for held in some {
                if lost.contains(&held.lease.log) {
                    held.lost.cancel();
                } else {
                    held.prolong(asked_at + by);
                }
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
