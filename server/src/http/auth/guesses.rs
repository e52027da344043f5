//! How often tokens of sign-in links are tried: a few wrong ones from one address, and not many from
//! all addresses together, are taken in; then nothing is looked up for a while.
//!
//! A token holds 256 bits, so that no number of guesses finds one; this bounds what guessing costs.
//! Addresses of IPv6 are told apart by their network of 64 bits: a subscriber has all of one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::http::peer::subscriber;

/// As many addresses as are told apart. Of more, those are forgotten that have not failed lately.
const ADDRESSES: usize = 4096;

/// In which time as many guesses are taken in as the limits say.
const WINDOW: Duration = Duration::from_mins(1);

/// Wrong guesses, by where they came from.
#[derive(Debug, Default)]
pub struct Guesses(Mutex<Wrong>);

#[derive(Debug, Default)]
struct Wrong {
    all: Bucket,
    by_address: HashMap<IpAddr, Bucket>,
}

/// Wrong guesses that still count: each counts for less as time goes by.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// In guesses.
    level: f64,
    /// When that was so.
    at: Duration,
}

impl Bucket {
    /// What counts now, where `most` guesses are forgotten in a window.
    fn level(self, now: Duration, most: f64) -> f64 {
        let forgotten = now.saturating_sub(self.at).as_secs_f64() / WINDOW.as_secs_f64() * most;
        (self.level - forgotten).max(0.0)
    }

    /// How long it takes until there is room for one more.
    fn wait(self, now: Duration, most: f64) -> Duration {
        let excess = self.level(now, most) + 1.0 - most;
        Duration::from_secs_f64((excess / most * WINDOW.as_secs_f64()).max(0.0))
    }

    fn add(&mut self, now: Duration, most: f64) {
        *self = Self { level: self.level(now, most) + 1.0, at: now };
    }
}

/// How many wrong guesses are taken in within a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// From one address.
    pub of_one: u32,
    /// From all addresses together.
    pub of_all: u32,
}

impl Guesses {
    /// The lock guards whole counts: nothing panics while it is held.
    fn wrong(&self) -> MutexGuard<'_, Wrong> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long an address has to wait before its next guess; zero: it may guess. `now`: on the
    /// monotonic clock.
    #[must_use]
    pub fn wait(&self, address: Option<IpAddr>, now: Duration, most: Most) -> Duration {
        let wrong = self.wrong();
        let one = address.and_then(|address| wrong.by_address.get(&subscriber(address)).copied());
        let one = one.unwrap_or_default().wait(now, most.of_one.into());
        one.max(wrong.all.wait(now, most.of_all.into()))
    }

    /// A guess was wrong.
    pub fn note(&self, address: Option<IpAddr>, now: Duration, most: Most) {
        let mut wrong = self.wrong();
        wrong.all.add(now, most.of_all.into());
        let Some(address) = address.map(subscriber) else { return };
        if wrong.by_address.len() >= ADDRESSES {
            let of_one = most.of_one.into();
            wrong.by_address.retain(|_, bucket| bucket.level(now, of_one) > 0.0);
        }
        if wrong.by_address.len() < ADDRESSES || wrong.by_address.contains_key(&address) {
            wrong.by_address.entry(address).or_default().add(now, most.of_one.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most { of_one: 3, of_all: 5 };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_few_guesses_are_free_and_then_time_must_pass() {
        let (guesses, now) = (Guesses::default(), Duration::from_secs(100));
        for _ in 0..3 {
            assert_eq!(guesses.wait(Some(address(1)), now, MOST), Duration::ZERO);
            guesses.note(Some(address(1)), now, MOST);
        }
        assert_eq!(guesses.wait(Some(address(1)), now, MOST), Duration::from_secs(20));
        assert_eq!(
            guesses.wait(Some(address(2)), now, MOST),
            Duration::ZERO,
            "another one is free"
        );
        for other in 2..4 {
            guesses.note(Some(address(other)), now, MOST);
        }
        assert_eq!(
            guesses.wait(Some(address(9)), now, MOST),
            Duration::from_secs(12),
            "all together"
        );
        let later = now + Duration::from_secs(20);
        assert_eq!(guesses.wait(Some(address(1)), later, MOST), Duration::ZERO);
    }

    #[test]
    fn addresses_are_not_kept_without_end() {
        let guesses = Guesses::default();
        let of = |n: u32| Some(IpAddr::from(n.to_be_bytes()));
        for n in 0..20_000 {
            guesses.note(of(n), Duration::ZERO, MOST);
        }
        assert!(guesses.wrong().by_address.len() <= ADDRESSES);
        guesses.note(of(1), Duration::from_hours(1), MOST);
        assert_eq!(guesses.wrong().by_address.len(), 1, "who failed long ago is forgotten");
    }
}
