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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Duration, before_retry};
    use crate::env::SystemEnv;

    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(8);

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread_by_half() {
        let env = SystemEnv::new();
        for (retries, whole) in [(0, 500), (1, 1000), (3, 4000), (4, 8000), (40, 8000)] {
            let pauses: BTreeSet<Duration> =
                (0..64).map(|_| before_retry(&env, (FIRST, LONGEST), retries, None)).collect();
            assert!(pauses.len() > 1, "many runs would come back at once");
            let whole = Duration::from_millis(whole);
            assert!(pauses.iter().all(|pause| (whole / 2..=whole).contains(pause)), "{pauses:?}");
        }
    }

    #[test]
    fn a_pause_is_at_least_what_the_provider_asks_for() {
        let asked = Some(Duration::from_secs(20));
        let pause = before_retry(&SystemEnv::new(), (FIRST, LONGEST), 0, asked);
        assert_eq!(pause, Duration::from_secs(20));
    }
}
