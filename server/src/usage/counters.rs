//! Counters that several callers count on at once, in this process or, later, between replicas.
//!
//! Invariants:
//! - What is reserved of several counters is reserved of all of them or of none, in one move.
//! - A counter that has something left gives a whole reserve, so that it is overshot by less than
//!   one; a counter that has nothing left gives nothing.
//! - Nobody's window is older than the newest one that was reserved from: whoever comes with an older
//!   one reserves from that.

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

/// What is to be reserved of one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reservation {
    /// Of which counter.
    pub counter: Counter,
    /// In which window.
    pub window: Window,
    /// How much there is of it.
    pub limit: u64,
    /// How much is reserved; 0: it need only have something left.
    pub amount: u64,
}

/// What an attempt came to that had reserved something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// Of which counter.
    pub counter: Counter,
    /// In which window.
    pub window: Window,
    /// As [`Reserved::All`] said.
    pub age: u64,
    /// How much was reserved.
    pub reserved: u64,
    /// How much of it was spent.
    pub spent: u64,
}

/// What a call spent on a counter that it reserved nothing of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreserved {
    /// On which counter.
    pub counter: Counter,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// How much.
    pub spent: u64,
}

/// What reserving came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reserved {
    /// All of it is reserved.
    All {
        /// How often the counters had been forgotten.
        age: u64,
    },
    /// One has nothing left: which, and whether that is so only until others settle.
    Exhausted {
        /// Its place in the list.
        place: usize,
        /// Less than its limit is spent, or sure to be; the rest is reserved and may come back.
        reserved: bool,
    },
    /// Nobody knows what was spent on these, by their places: [`Counters::begin`] tells.
    Unknown(Vec<usize>),
    /// Others reserve in later windows of these already, by their places: so must everybody.
    Behind(Vec<(usize, Window)>),
}

/// What is left to be reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Of each, in the order of the list.
    All(Vec<u64>),
    /// Nobody knows what was spent on these, by their places.
    Unknown(Vec<usize>),
}

/// Counts. One implementation is shared by every meter that counts on the same.
#[async_trait]
pub(super) trait Counters: Send + Sync {
    /// Reserves all or nothing.
    async fn reserve(&self, reservations: &[Reservation]) -> Result<Reserved, StoreError>;

    /// What is neither spent nor reserved of each. Nothing is reserved.
    async fn left(&self, reservations: &[Reservation]) -> Result<Left, StoreError>;

    /// Whether somebody has to say what was spent on a counter before anybody here reserves of it: if
    /// so, they look it up and say it with [`begin`](Self::begin).
    async fn begins(&self, counter: &Counter, window: Window) -> Result<bool, StoreError>;

    /// Says what the rows of a counter's window come to; `false`: a row came since
    /// [`begins`](Self::begins), so that nobody knows whether it is among them. What is known stays.
    async fn begin(
        &self,
        counter: &Counter,
        window: Window,
        spent: u64,
    ) -> Result<bool, StoreError>;

    /// An attempt ended: of what it reserved, what it did not spend comes back, and the rest is held
    /// until its call has a row. Never waits.
    fn settle(&self, settled: &[Settled]);

    /// A call has its row, which `write` writes: what its attempts held is spent, also on counters
    /// that have begun anew since, and so is `unreserved`. Nobody begins a counter meanwhile, so that a
    /// row is either among those that a counter begins with, or counted here. Never waits.
    fn close(&self, held: &[Settled], unreserved: &[Unreserved], write: &mut dyn FnMut());

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
    /// Counters whose rows are being looked up, and whether a row has come since.
    beginning: HashMap<Counter, bool>,
}

impl Counts {
    /// Those that nobody has begun, by their places.
    fn unknown(&self, reservations: &[Reservation]) -> Vec<usize> {
        let unknown =
            |reservation: &Reservation| !self.knows(&reservation.counter, reservation.window);
        reservations
            .iter()
            .enumerate()
            .filter(|(_, t)| unknown(t))
            .map(|(place, _)| place)
            .collect()
    }

    fn knows(&self, counter: &Counter, window: Window) -> bool {
        self.all.get(counter).is_some_and(|count| count.window.from_ms >= window.from_ms)
    }
}

#[derive(Clone, Copy)]
struct Count {
    window: Window,
    spent: u64,
    reserved: u64,
    /// Of what is reserved, how much will be spent whatever becomes of the calls.
    certain: u64,
}

impl Count {
    fn give_back(&mut self, counter: &Counter, reserved: u64) {
        self.reserved = self.reserved.saturating_sub(reserved);
        self.certain = self.certain.saturating_sub(certain(counter, reserved));
    }
}

/// How much of a reserve will be spent whatever becomes of its call: a request stays one.
fn certain(counter: &Counter, amount: u64) -> u64 {
    match counter.unit {
        Unit::Requests => amount,
        Unit::Tokens | Unit::Money => 0,
    }
}

impl Reservation {
    fn certain(&self) -> u64 {
        certain(&self.counter, self.amount)
    }
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
    async fn reserve(&self, reservations: &[Reservation]) -> Result<Reserved, StoreError> {
        let mut counts = self.lock();
        let unknown = counts.unknown(reservations);
        if !unknown.is_empty() {
            return Ok(Reserved::Unknown(unknown));
        }
        let behind: Vec<(usize, Window)> = (0..)
            .zip(reservations)
            .filter_map(|(place, reservation)| {
                let window = counts.all.get(&reservation.counter)?.window;
                (window != reservation.window).then_some((place, window))
            })
            .collect();
        if !behind.is_empty() {
            return Ok(Reserved::Behind(behind));
        }
        for (place, reservation) in reservations.iter().enumerate() {
            if let Some(count) = counts.all.get(&reservation.counter)
                && count.spent.saturating_add(count.reserved) >= reservation.limit
            {
                let certain = count.spent.saturating_add(count.certain) >= reservation.limit;
                return Ok(Reserved::Exhausted { place, reserved: !certain });
            }
        }
        for reservation in reservations {
            if let Some(count) = counts.all.get_mut(&reservation.counter) {
                count.reserved = count.reserved.saturating_add(reservation.amount);
                count.certain = count.certain.saturating_add(reservation.certain());
            }
        }
        Ok(Reserved::All { age: counts.age })
    }

    async fn left(&self, reservations: &[Reservation]) -> Result<Left, StoreError> {
        let counts = self.lock();
        let unknown = counts.unknown(reservations);
        if !unknown.is_empty() {
            return Ok(Left::Unknown(unknown));
        }
        let left = |reservation: &Reservation| {
            let count = counts.all.get(&reservation.counter);
            let gone = count.map_or(0, |count| count.spent.saturating_add(count.reserved));
            reservation.limit.saturating_sub(gone)
        };
        Ok(Left::All(reservations.iter().map(left).collect()))
    }

    async fn begins(&self, counter: &Counter, window: Window) -> Result<bool, StoreError> {
        let mut counts = self.lock();
        if counts.knows(counter, window) {
            return Ok(false);
        }
        // Somebody else may be looking, whose rows are not all either once another one has come.
        counts.beginning.entry(counter.clone()).or_insert(false);
        Ok(true)
    }

    async fn begin(
        &self,
        counter: &Counter,
        window: Window,
        spent: u64,
    ) -> Result<bool, StoreError> {
        let mut counts = self.lock();
        if counts.all.len() >= MANY && counts.all.len().is_power_of_two() {
            counts.all.retain(|_, count| count.window.to_ms > window.from_ms);
        }
        let outdated = counts.beginning.remove(counter).unwrap_or(true);
        if outdated || counts.knows(counter, window) {
            return Ok(!outdated);
        }
        let count = Count { window, spent, reserved: 0, certain: 0 };
        counts.all.insert(counter.clone(), count);
        Ok(true)
    }

    fn settle(&self, settled: &[Settled]) {
        let mut counts = self.lock();
        let now = counts.age;
        for Settled { counter, window, age, reserved, spent } in settled {
            // What was reserved in a window that is over concerns nobody any more.
            let count = counts.all.get_mut(counter).filter(|count| count.window == *window);
            if let Some(count) = count.filter(|_| *age == now) {
                count.give_back(counter, *reserved);
                count.reserved = count.reserved.saturating_add(*spent);
                count.certain = count.certain.saturating_add(*spent);
            }
        }
    }

    fn close(&self, held: &[Settled], unreserved: &[Unreserved], write: &mut dyn FnMut()) {
        let mut counts = self.lock();
        write();
        counts.beginning.values_mut().for_each(|outdated| *outdated = true);
        let now = counts.age;
        for Settled { counter, window, age, spent, .. } in held {
            let count = counts.all.get_mut(counter).filter(|count| count.window == *window);
            if let Some(count) = count {
                if *age == now {
                    count.reserved = count.reserved.saturating_sub(*spent);
                    count.certain = count.certain.saturating_sub(*spent);
                }
                count.spent = count.spent.saturating_add(*spent);
            }
        }
        for Unreserved { counter, at_ms, spent } in unreserved {
            let within =
                |count: &&mut Count| (count.window.from_ms..count.window.to_ms).contains(at_ms);
            if let Some(count) = counts.all.get_mut(counter).filter(within) {
                count.spent = count.spent.saturating_add(*spent);
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
mod tests;
