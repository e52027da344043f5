//! How long is waited before something is tried again.

use std::time::Duration;

use super::{ProviderFault, Retry};
use crate::env::Env;

/// What a provider asks for.
pub(crate) fn asked_for(fault: &ProviderFault) -> Option<Duration> {
    match fault.retry() {
        Retry::After(asked) => Some(asked),
        Retry::Never | Retry::Backoff => None,
    }
}

/// The pause after so many retries: `first`, doubled with each of them up to `longest`, and spread
/// by half at random, so that many runs do not come back at once; at least what is asked for.
pub(crate) fn before_retry(
    env: &dyn Env,
    (first, longest): (Duration, Duration),
    retries: u32,
    asked: Option<Duration>,
) -> Duration {
    let doubled = first.saturating_mul(1 << retries.min(16)).min(longest);
    let mut random = [0; 2];
    env.fill(&mut random);
    let spread = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
    doubled.mul_f64(0.5 + spread / 2.0).max(asked.unwrap_or_default())
}
