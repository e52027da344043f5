//! Counters that several takers count on at once, in this process or, later, between replicas.
//!
//! Invariants:
//! - What is taken of several counters is taken of all of them or of none, in one move.
//! - A counter that has something left gives a whole reserve, so that it is overshot by less than
//!   one; a counter that has nothing left gives nothing.
//! - Nobody's window is older than the newest one that was taken from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::calendar::{Per, Window};
use super::quota::{Kind, Unit};
use crate::store::StoreError;

/// What is counted on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Counter {
    /// Whose it is.
    pub kind: Kind,
    /// Their id, business or pattern of models.
    pub subject: Arc<str>,
    /// What is counted.
    pub unit: Unit,
    /// In how much time.
    pub per: Per,
}

/// What is to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Take {
    /// Of which counter.
    pub counter: Counter,
    /// In which window.
    pub window: Window,
    /// How much there is of it.
    pub limit: u64,
    /// How much is taken; 0: it need only have something left.
    pub amount: u64,
}

/// What became of something that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// Of which counter.
    pub counter: Counter,
    /// In which window.
    pub window: Window,
    /// How much was taken.
    pub taken: u64,
    /// As [`Taken::All`] said.
    pub age: u64,
    /// How much of it was spent.
    pub spent: u64,
}

/// What taking came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// All of it is taken.
    All {
        /// How often the counters had been forgotten.
        age: u64,
    },
    /// One has nothing left: which, and whether that is so only until others settle.
    Exhausted {
        /// Its place in the list.
        place: usize,
        /// Less than its limit is spent; the rest is reserved.
        reserved: bool,
    },
    /// Nobody knows what was spent on these, by their places: [`Counters::begin`] tells.
    Unknown(Vec<usize>),
}

/// Counts. One implementation is shared by every ledger that counts on the same.
#[async_trait]
pub(super) trait Counters: Send + Sync {
    /// Takes all or nothing.
    async fn take(&self, takes: &[Take]) -> Result<Taken, StoreError>;

    /// Says what was spent on a counter before anybody here took from it. What is known stays.
    async fn begin(&self, counter: &Counter, window: Window, spent: u64) -> Result<(), StoreError>;

    /// Gives back what was taken and not spent. Never waits. What was taken before the counters
    /// were forgotten is spent on those of now.
    fn settle(&self, settled: Vec<Settled>);

    /// Nobody knows any more what was spent on any of them.
    fn forget(&self);
}

/// Counters of one process.
#[derive(Default)]
pub(super) struct Memory(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// How often all were forgotten: a reserve of before is not held by a count of now.
    age: u64,
    all: HashMap<Counter, Count>,
}

#[derive(Clone, Copy)]
struct Count {
    window: Window,
    spent: u64,
    reserved: u64,
}

/// As many counters as are there before those of the past are looked for.
const MANY: usize = 4096;

impl Memory {
    /// The lock guards whole counts: nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Counters for Memory {
    async fn take(&self, takes: &[Take]) -> Result<Taken, StoreError> {
        let mut counts = self.lock();
        let unknown = |take: &Take| {
            let count = counts.all.get(&take.counter);
            count.is_none_or(|count| count.window.from_ms < take.window.from_ms)
        };
        let unknown: Vec<usize> =
            takes.iter().enumerate().filter(|(_, t)| unknown(t)).map(|(place, _)| place).collect();
        if !unknown.is_empty() {
            return Ok(Taken::Unknown(unknown));
        }
        // A clock that went back finds a later window, and takes nothing of it: what it took would
        // be given back to the one before.
        let of = |take: &Take, count: &Count| count.window == take.window;
        for (place, take) in takes.iter().enumerate() {
            if let Some(count) = counts.all.get(&take.counter).filter(|count| of(take, count))
                && count.spent.saturating_add(count.reserved) >= take.limit
            {
                return Ok(Taken::Exhausted { place, reserved: count.spent < take.limit });
            }
        }
        for take in takes {
            if let Some(count) = counts.all.get_mut(&take.counter).filter(|count| of(take, count)) {
                count.reserved = count.reserved.saturating_add(take.amount);
            }
        }
        Ok(Taken::All { age: counts.age })
    }

    async fn begin(&self, counter: &Counter, window: Window, spent: u64) -> Result<(), StoreError> {
        let mut counts = self.lock();
        if counts.all.len() >= MANY && counts.all.len().is_power_of_two() {
            counts.all.retain(|_, count| count.window.to_ms > window.from_ms);
        }
        let known = counts.all.get(counter).is_some_and(|c| c.window.from_ms >= window.from_ms);
        if !known {
            counts.all.insert(counter.clone(), Count { window, spent, reserved: 0 });
        }
        Ok(())
    }

    fn settle(&self, settled: Vec<Settled>) {
        let mut counts = self.lock();
        let now = counts.age;
        for Settled { counter, window, taken, age, spent } in settled {
            // What was taken in a window that is over concerns nobody any more.
            if let Some(count) = counts.all.get_mut(&counter).filter(|c| c.window == window) {
                let held = if age == now { taken } else { 0 };
                count.reserved = count.reserved.saturating_sub(held);
                count.spent = count.spent.saturating_add(spent);
            }
        }
    }

    fn forget(&self) {
        let mut counts = self.lock();
        counts.age += 1;
        counts.all.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Counter, Counters as _, Kind, Memory, Per, Settled, Take, Taken, Unit, Window};

    const NOW: Window = Window { from_ms: 0, to_ms: 60_000 };

    fn counter(subject: &str) -> Counter {
        Counter { kind: Kind::User, subject: subject.into(), unit: Unit::Tokens, per: Per::Minute }
    }

    fn take(subject: &str, limit: u64, amount: u64) -> Take {
        Take { counter: counter(subject), window: NOW, limit, amount }
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        futures_util::FutureExt::now_or_never(future).unwrap()
    }

    fn begin(counters: &Memory, subject: &str, window: Window, spent: u64) {
        now(counters.begin(&counter(subject), window, spent)).unwrap();
    }

    #[test]
    fn all_is_taken_or_nothing_and_what_was_not_spent_comes_back() {
        let counters = Memory::default();
        let taken = |takes: &[Take]| now(counters.take(takes)).unwrap();
        assert_eq!(taken(&[take("a", 10, 4), take("b", 5, 4)]), Taken::Unknown(vec![0, 1]));
        begin(&counters, "a", NOW, 3);
        begin(&counters, "a", NOW, 9);
        begin(&counters, "b", NOW, 5);
        let both = [take("a", 10, 7), take("b", 5, 7)];
        assert_eq!(taken(&both), Taken::Exhausted { place: 1, reserved: false });
        assert_eq!(taken(&both[..1]), Taken::All { age: 0 }, "nothing was taken of it before");
        assert_eq!(taken(&both[..1]), Taken::Exhausted { place: 0, reserved: true });
        counters.settle(vec![Settled {
            counter: counter("a"),
            window: NOW,
            taken: 7,
            age: 0,
            spent: 2,
        }]);
        assert_eq!(taken(&[take("a", 6, 1)]), Taken::All { age: 0 }, "3 and 2 were spent");
        // The next window begins anew, and what comes from the one before it is nobody's.
        let next = Window { from_ms: 60_000, to_ms: 120_000 };
        begin(&counters, "a", next, 0);
        counters.settle(vec![Settled {
            counter: counter("a"),
            window: NOW,
            taken: 1,
            age: 0,
            spent: 9,
        }]);
        let late = Take { window: next, ..take("a", 1, 1) };
        assert_eq!(taken(&[late]), Taken::All { age: 0 });
        // A clock that went back takes nothing of it.
        assert_eq!(taken(&[take("a", 1, 1)]), Taken::All { age: 0 });
        counters.settle(vec![Settled {
            counter: counter("a"),
            window: next,
            taken: 1,
            age: 0,
            spent: 0,
        }]);
        let again = Take { window: next, ..take("a", 1, 1) };
        assert_eq!(taken(&[again]), Taken::All { age: 0 });
    }

    #[test]
    fn counters_that_are_forgotten_begin_anew_and_learn_what_earlier_calls_spent() {
        let counters = Memory::default();
        let taken = |limit, amount| now(counters.take(&[take("a", limit, amount)])).unwrap();
        begin(&counters, "a", NOW, 0);
        assert_eq!(taken(10, 8), Taken::All { age: 0 });
        counters.forget();
        assert_eq!(taken(10, 4), Taken::Unknown(vec![0]));
        begin(&counters, "a", NOW, 1);
        assert_eq!(taken(10, 4), Taken::All { age: 1 });
        // The first call ends: what it spent counts, and the second one's reserve stays.
        counters.settle(vec![Settled {
            counter: counter("a"),
            window: NOW,
            taken: 8,
            age: 0,
            spent: 5,
        }]);
        assert_eq!(taken(10, 1), Taken::Exhausted { place: 0, reserved: true }, "1 + 5 + 4");
    }

    proptest! {
        /// Whatever the order of takes and settlements, a budget is overshot by less than the
        /// largest reserve, and a call is refused only if others hold what is left.
        #[test]
        fn a_budget_is_overshot_by_at_most_one_reserve(
            budget in 1..5_000_u64,
            calls in prop::collection::vec((1..400_u64, 0..=100_u64, any::<bool>()), 1..200),
        ) {
            let counters = Memory::default();
            begin(&counters, "a", NOW, 0);
            let (mut open, mut spent, mut reserved) = (Vec::new(), 0, 0);
            let settle = |(amount, part): (u64, u64), spent: &mut u64, reserved: &mut u64| {
                let used = amount * part / 100;
                *spent += used;
                *reserved -= amount;
                let settled = Settled { counter: counter("a"), window: NOW, taken: amount, age: 0, spent: used };
                counters.settle(vec![settled]);
            };
            for (amount, part, later) in calls {
                let left = spent + reserved < budget;
                let taken = now(counters.take(&[take("a", budget, amount)])).unwrap();
                prop_assert_eq!(taken == (Taken::All { age: 0 }), left);
                if left {
                    reserved += amount;
                    open.push((amount, part));
                }
                prop_assert!(spent + reserved < budget + 400);
                if !later && let Some(call) = open.pop() {
                    settle(call, &mut spent, &mut reserved);
                }
            }
            for call in open {
                settle(call, &mut spent, &mut reserved);
            }
            prop_assert!(spent < budget + 400);
        }
    }
}
