//! How many connections there are at once, and who makes way when there are too many.
//!
//! Invariants:
//! - There are never more connections than places, so that the store, models and tools always find
//!   a descriptor.
//! - A connection on which a request is answered is never sent away for a new one. Of the others
//!   the oldest one goes that has not asked anything yet, and after those one that has.
//! - One address never has all places, unless it is configured to.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exile_engine::env::Env;

use super::seat::{Order, Seat};
use crate::http::peer::subscriber;

/// How many connections are looked at to find one that can make way.
const LOOKED_AT: usize = 1024;

/// All connections.
pub(super) struct Places {
    /// At once.
    most: usize,
    /// From one address at once.
    most_of_one: usize,
    env: Arc<dyn Env>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    by_address: HashMap<IpAddr, usize>,
    /// Those that have not asked anything yet, by their number.
    fresh: BTreeMap<u64, Arc<Seat>>,
    /// Those that have.
    known: BTreeMap<u64, Arc<Seat>>,
    /// Where the last search among the known ones ended.
    hand: u64,
    /// What everybody was told last.
    stopping: bool,
}

impl Places {
    pub(super) fn new(most: usize, most_of_one: usize, env: Arc<dyn Env>) -> Self {
        Self { most, most_of_one, env, taken: Mutex::default() }
    }

    /// A place for a new connection; `None`: all are taken by others that are being answered.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = subscriber(address);
        let mut taken = self.taken();
        let of_one = taken.by_address.get(&address).copied().unwrap_or(0);
        if of_one >= self.most_of_one {
            taken.make_way(Some(address))?;
        } else if taken.len() >= self.most {
            taken.make_way(None)?;
        }
        let number = taken.next;
        taken.next += 1;
        let seat = Arc::new(Seat::new(address, number, self.env.clone()));
        if taken.stopping {
            seat.tell(Order::Finish);
        }
        *taken.by_address.entry(address).or_default() += 1;
        taken.fresh.insert(number, seat.clone());
        Some(Place { seat, places: self.clone() })
    }

    /// Lets a connection make way although there are places: something else has run out.
    pub(super) fn make_way(&self) {
        self.taken().make_way(None);
    }

    /// The connection asked something.
    pub(super) fn asked(&self, seat: &Seat) {
        let mut taken = self.taken();
        if let Some(seat) = taken.fresh.remove(&seat.number) {
            taken.known.insert(seat.number, seat);
        }
    }

    /// Tells everybody; whoever comes later is told to finish.
    pub(super) fn tell(&self, order: Order) {
        let mut taken = self.taken();
        taken.stopping = true;
        for seat in taken.fresh.values().chain(taken.known.values()) {
            seat.tell(order);
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn len(&self) -> usize {
        self.fresh.len() + self.known.len()
    }

    /// Ends a connection, of this address if one is given.
    fn make_way(&mut self, address: Option<IpAddr>) -> Option<()> {
        let seat = self.spare(address)?;
        self.leave(&seat);
        seat.tell(Order::End);
        Some(())
    }

    /// Who can best be spared.
    fn spare(&mut self, address: Option<IpAddr>) -> Option<Arc<Seat>> {
        let fits =
            |seat: &Seat| address.is_none_or(|address| seat.address == address) && seat.is_idle();
        if let Some(seat) = self.fresh.values().find(|seat| fits(seat)) {
            return Some(seat.clone());
        }
        let after = self.known.range((Bound::Excluded(self.hand), Bound::Unbounded));
        let around = after.chain(self.known.range(..=self.hand));
        for (number, seat) in around.take(LOOKED_AT) {
            self.hand = *number;
            if fits(seat) {
                return Some(seat.clone());
            }
        }
        None
    }

    fn leave(&mut self, seat: &Seat) {
        let was = self.fresh.remove(&seat.number).or_else(|| self.known.remove(&seat.number));
        if was.is_none() {
            return;
        }
        if let Some(count) = self.by_address.get_mut(&seat.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&seat.address);
            }
        }
    }
}

/// One connection's place; dropped with it.
pub(super) struct Place {
    pub seat: Arc<Seat>,
    pub places: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().leave(&self.seat);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use exile_engine::env::SystemEnv;

    use super::*;

    fn places(most: usize, most_of_one: usize) -> Arc<Places> {
        Arc::new(Places::new(most, most_of_one, Arc::new(SystemEnv::new())))
    }

    fn of(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn is_told_to_end(place: &Place) -> bool {
        place.seat.order() == Order::End
    }

    #[test]
    fn the_oldest_that_has_not_asked_anything_makes_way() {
        let places = places(3, 3);
        let [known, first, second] = [1, 2, 3].map(|n| places.take(of(n)).unwrap());
        places.asked(&known.seat);
        let third = places.take(of(4)).unwrap();
        assert_eq!(
            [&known, &first, &second, &third].map(is_told_to_end),
            [false, true, false, false]
        );
        let [fourth, fifth] = [5, 6].map(|n| places.take(of(n)).unwrap());
        assert_eq!(
            [&known, &second, &third, &fourth].map(is_told_to_end),
            [false, true, true, false]
        );
        drop((first, second, third));
        for place in [&fourth, &fifth] {
            places.asked(&place.seat);
        }
        let busy = fourth.seat.begin();
        let sixth = places.take(of(7)).unwrap();
        places.asked(&sixth.seat);
        assert_eq!([&known, &fourth, &fifth].map(is_told_to_end), [false, false, true]);
        let answering = [known.seat.begin(), sixth.seat.begin()];
        assert!(places.take(of(8)).is_none(), "all of them are being answered");
        drop((busy, answering));
        assert!(places.take(of(8)).is_some());
    }

    #[test]
    fn one_address_makes_way_for_itself() {
        let places = places(10, 2);
        let [first, second, other] = [1, 1, 2].map(|n| places.take(of(n)).unwrap());
        let third = places.take(of(1)).unwrap();
        assert_eq!([&first, &other].map(is_told_to_end), [true, false]);
        let busy = [third.seat.begin(), second.seat.begin()];
        assert!(places.take(of(1)).is_none());
        drop((busy, third));
        assert!(places.take(of(1)).is_some());
        assert!(places.take(of(3)).is_some());
    }

    #[test]
    fn many_that_are_being_answered_do_not_hide_one_that_is_not() {
        let places = places(3000, 3000);
        let all: Vec<Place> = (0..3000).map(|_| places.take(of(1)).unwrap()).collect();
        let idle = 2500;
        let busy: Vec<_> =
            all.iter().filter(|p| p.seat.number != idle).map(|p| p.seat.begin()).collect();
        for place in &all {
            places.asked(&place.seat);
        }
        assert!((0..4).any(|_| places.take(of(2)).is_some()));
        drop(busy);
    }

    #[test]
    fn a_subscriber_is_counted_once_whatever_address_it_takes() {
        let subscriber = |text: &str| subscriber(text.parse().unwrap());
        assert_eq!(subscriber("2001:db8:1:2:a::1"), subscriber("2001:db8:1:2::ffff"));
        assert_ne!(subscriber("2001:db8:1:2::1"), subscriber("2001:db8:1:3::1"));
        assert_eq!(subscriber("::ffff:192.0.2.1"), of(1));
    }
}
