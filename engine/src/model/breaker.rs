//! Circuit breakers: a model that keeps failing is left alone for a while.
//!
//! Invariants:
//! - Only failures of the other side count: what a request itself is at fault for says nothing
//!   about whom it was sent to.
//! - After [`FAILURES`] in a row, over at least [`OUTAGE`], nobody asks for [`REST`], or for as long
//!   as the provider asks, if that is more; then one request tries. Each trial that fails doubles
//!   the rest, up to [`REST_MAX`].
//! - Calls that fail at the same moment are one hiccup, which each call's own retry gets over.
//! - A call counts once, however often it is made again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{ModelRef, ProviderFault, Retry};

/// Failures in a row that open a breaker.
pub const FAILURES: u32 = 5;
/// How long failures go on, at least, before they open a breaker: longer than the pause before a
/// call's first retry, whose success ends the row.
pub const OUTAGE: Duration = Duration::from_secs(1);
/// How long it stays open first.
pub const REST: Duration = Duration::from_secs(30);
/// How long it stays open at most.
pub const REST_MAX: Duration = Duration::from_mins(5);

/// One breaker for each model.
#[derive(Debug, Default)]
pub struct Breakers(Mutex<HashMap<ModelRef, Breaker>>);

/// One model's.
#[derive(Debug, Default)]
struct Breaker {
    /// In a row.
    failures: u32,
    /// When the first of them was told, on the monotonic clock.
    since: Duration,
    /// Nobody asks before this, on the monotonic clock.
    open_until: Option<Duration>,
    rest: Duration,
    /// Somebody tries whether it works again, since then.
    tried_at: Option<Duration>,
}

impl Breakers {
    /// No code that holds the lock panics half-way.
    fn all(&self) -> MutexGuard<'_, HashMap<ModelRef, Breaker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the model may be asked now (`now` on the monotonic clock). Whoever may must tell
    /// what came of it with [`succeeded`](Self::succeeded), [`failed`](Self::failed) or
    /// [`left`](Self::left).
    ///
    /// # Errors
    /// How long nobody should ask.
    pub fn enter(&self, model: &ModelRef, now: Duration) -> Result<(), Duration> {
        let mut all = self.all();
        let Some(breaker) = all.get_mut(model) else { return Ok(()) };
        let Some(until) = breaker.open_until else { return Ok(()) };
        if now < until {
            return Err(until.saturating_sub(now));
        }
        // One tries; if it never tells, another one does after a rest.
        if let Some(tried) = breaker.tried_at.filter(|tried| now < *tried + breaker.rest) {
            return Err((tried + breaker.rest).saturating_sub(now));
        }
        breaker.tried_at = Some(now);
        Ok(())
    }

    /// The model answered.
    pub fn succeeded(&self, model: &ModelRef) {
        self.all().remove(model);
    }

    /// The request ended without saying anything about the model.
    pub fn left(&self, model: &ModelRef) {
        if let Some(breaker) = self.all().get_mut(model) {
            breaker.tried_at = None;
        }
    }

    /// The model failed; `true` if that opened its breaker.
    pub fn failed(&self, model: &ModelRef, fault: &ProviderFault, now: Duration) -> bool {
        // What no second try can mend, the request or its key is at fault for.
        if fault.retry() == Retry::Never {
            self.left(model);
            return false;
        }
        let mut all = self.all();
        let breaker = all.entry(model.clone()).or_default();
        let tried = breaker.tried_at.take().is_some();
        if breaker.failures == 0 {
            breaker.since = now;
        }
        breaker.failures += 1;
        let outage = breaker.failures >= FAILURES && now.saturating_sub(breaker.since) >= OUTAGE;
        if !tried && !outage {
            return false;
        }
        let asked = match fault.retry() {
            Retry::After(pause) => pause,
            Retry::Never | Retry::Backoff => Duration::ZERO,
        };
        let doubled = if tried { breaker.rest * 2 } else { REST };
        breaker.rest = doubled.max(asked).clamp(REST, REST_MAX);
        breaker.open_until = Some(now + breaker.rest);
        true
    }

    /// How long nobody will ask the model; `None`: it may be asked.
    #[must_use]
    pub fn open_for(&self, model: &ModelRef, now: Duration) -> Option<Duration> {
        let all = self.all();
        let until = all.get(model)?.open_until?;
        (now < until).then(|| until.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::{Breakers, Duration, FAILURES, ModelRef, OUTAGE, ProviderFault, REST};

    fn down() -> ProviderFault {
        ProviderFault::Unavailable { status: 503, detail: String::new() }
    }

    fn model() -> ModelRef {
        ModelRef::parse("lab/m").unwrap()
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// As many failures as it takes, the last one at `at`.
    fn outage(breakers: &Breakers, fault: &ProviderFault, at: Duration) {
        for failure in 1..FAILURES {
            assert!(!breakers.failed(&model(), fault, at.saturating_sub(OUTAGE)), "{failure}");
        }
        assert!(breakers.failed(&model(), fault, at));
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_request_tries_after_a_rest() {
        let breakers = Breakers::default();
        let (model, mut now) = (model(), Duration::from_secs(100));
        assert_eq!(breakers.enter(&model, now), Ok(()));
        outage(&breakers, &down(), now);
        assert_eq!(breakers.enter(&model, now + SECOND), Err(REST.saturating_sub(SECOND)));
        now += REST;
        assert_eq!(breakers.enter(&model, now), Ok(()), "one tries");
        assert_eq!(breakers.enter(&model, now), Err(REST), "the others wait for what it says");
        assert!(breakers.failed(&model, &down(), now), "and rest again, longer");
        assert_eq!(breakers.enter(&model, now + REST), Err(REST));
        now += REST * 2;
        assert_eq!(breakers.enter(&model, now), Ok(()));
        breakers.succeeded(&model);
        assert_eq!(breakers.enter(&model, now), Ok(()), "it works");
        assert_eq!(breakers.enter(&model, now), Ok(()), "for everybody");
    }

    #[test]
    fn calls_that_fail_at_once_open_nothing() {
        let breakers = Breakers::default();
        let (model, now) = (model(), Duration::from_secs(100));
        for _ in 0..100 {
            assert!(!breakers.failed(&model, &down(), now));
        }
        assert_eq!(breakers.enter(&model, now), Ok(()), "each makes its call again");
        breakers.succeeded(&model);
        assert!(!breakers.failed(&model, &down(), now + OUTAGE), "which ends the row");
        assert_eq!(breakers.enter(&model, now + OUTAGE), Ok(()));
    }

    #[test]
    fn a_trial_that_never_tells_gives_way_to_another() {
        let breakers = Breakers::default();
        let (model, now) = (model(), Duration::from_secs(100));
        outage(&breakers, &down(), now);
        assert_eq!(breakers.enter(&model, now + REST), Ok(()));
        assert_eq!(breakers.enter(&model, now + REST * 2), Ok(()));
    }

    #[test]
    fn what_the_request_is_at_fault_for_opens_nothing() {
        let breakers = Breakers::default();
        let (model, now) = (model(), Duration::from_secs(100));
        let fault = ProviderFault::BadRequest { status: 400, detail: String::new() };
        for _ in 0..2 * FAILURES {
            assert!(!breakers.failed(&model, &fault, now));
        }
        assert_eq!(breakers.enter(&model, now), Ok(()));
    }

    #[test]
    fn it_stays_open_for_as_long_as_the_provider_asks() {
        let breakers = Breakers::default();
        let (model, now) = (model(), Duration::from_secs(100));
        let fault =
            ProviderFault::RateLimited { retry_after_ms: Some(90_000), detail: String::new() };
        outage(&breakers, &fault, now);
        assert_eq!(breakers.open_for(&model, now), Some(90 * SECOND));
        assert_eq!(breakers.enter(&model, now + 90 * SECOND), Ok(()));
    }
}
