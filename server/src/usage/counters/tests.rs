//! Counters by hand, and a budget under any order of calls.

use proptest::prelude::*;

use super::{
    Counter, Counters as _, Kind, Left, Memory, Per, Reservation, Reserved, Settled, Unit,
    Unreserved, Window,
};

const NOW: Window = Window { from_ms: 0, to_ms: 60_000 };

fn counter(subject: &str) -> Counter {
    Counter { kind: Kind::User, subject: subject.into(), unit: Unit::Tokens, per: Per::Minute }
}

fn reserve(subject: &str, limit: u64, amount: u64) -> Reservation {
    Reservation { counter: counter(subject), window: NOW, limit, amount }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(future).unwrap()
}

fn begin(counters: &Memory, subject: &str, window: Window, spent: u64) {
    if now(counters.begins(&counter(subject), window)).unwrap() {
        assert!(now(counters.begin(&counter(subject), window, spent)).unwrap());
    }
}

/// One that an attempt of the subject `a` came to.
fn settled(window: Window, (reserved, age, spent): (u64, u64, u64)) -> Settled {
    Settled { counter: counter("a"), window, age, reserved, spent }
}

/// An attempt ends, and its call with it.
fn end(counters: &Memory, settled: Settled) {
    counters.settle(std::slice::from_ref(&settled));
    counters.close(&[settled], &[], &mut || ());
}

#[test]
fn all_is_taken_or_nothing_and_what_was_not_spent_comes_back() {
    let counters = Memory::default();
    let reserved = |reservations: &[Reservation]| now(counters.reserve(reservations)).unwrap();
    assert_eq!(reserved(&[reserve("a", 10, 4), reserve("b", 5, 4)]), Reserved::Unknown(vec![0, 1]));
    begin(&counters, "a", NOW, 3);
    begin(&counters, "a", NOW, 9);
    begin(&counters, "b", NOW, 5);
    let both = [reserve("a", 10, 7), reserve("b", 5, 7)];
    assert_eq!(reserved(&both), Reserved::Exhausted { place: 1, reserved: false });
    assert_eq!(reserved(&both[..1]), Reserved::All { age: 0 }, "nothing was taken of it before");
    assert_eq!(reserved(&both[..1]), Reserved::Exhausted { place: 0, reserved: true });
    end(&counters, settled(NOW, (7, 0, 2)));
    assert_eq!(reserved(&[reserve("a", 6, 1)]), Reserved::All { age: 0 }, "3 and 2 were spent");
    // The next window begins anew, and what comes from the one before it is nobody's.
    let next = Window { from_ms: 60_000, to_ms: 120_000 };
    begin(&counters, "a", next, 0);
    end(&counters, settled(NOW, (1, 0, 9)));
    let late = Reservation { window: next, ..reserve("a", 1, 1) };
    assert_eq!(reserved(&[late]), Reserved::All { age: 0 });
    // A clock that went back, or a call that was slow, is told where the others are.
    assert_eq!(reserved(&[reserve("a", 1, 1)]), Reserved::Behind(vec![(0, next)]));
    end(&counters, settled(next, (1, 0, 0)));
    let again = Reservation { window: next, ..reserve("a", 1, 1) };
    assert_eq!(reserved(&[again]), Reserved::All { age: 0 });
}

#[test]
fn counters_that_are_forgotten_begin_anew_and_learn_what_earlier_calls_spent() {
    let counters = Memory::default();
    let reserved = |limit, amount| now(counters.reserve(&[reserve("a", limit, amount)])).unwrap();
    begin(&counters, "a", NOW, 0);
    assert_eq!(reserved(10, 8), Reserved::All { age: 0 });
    counters.forget();
    assert_eq!(reserved(10, 4), Reserved::Unknown(vec![0]));
    begin(&counters, "a", NOW, 1);
    assert_eq!(reserved(10, 4), Reserved::All { age: 1 });
    // The first call ends: what it spent counts, and the second one's reserve stays.
    end(&counters, settled(NOW, (8, 0, 5)));
    assert_eq!(reserved(10, 1), Reserved::Exhausted { place: 0, reserved: true }, "1 + 5 + 4");
}

#[test]
fn a_row_is_counted_once_whenever_its_counter_begins() {
    let left = |counters: &Memory| now(counters.left(&[reserve("a", 100, 0)])).unwrap();
    let begins = |counters: &Memory| now(counters.begins(&counter("a"), NOW)).unwrap();
    let says = |counters: &Memory, spent| now(counters.begin(&counter("a"), NOW, spent)).unwrap();
    let call = || settled(NOW, (8, 0, 5));
    // Between an attempt's end and its row.
    let counters = Memory::default();
    counters.settle(&[call()]);
    assert!(begins(&counters) && says(&counters, 0));
    counters.close(&[call()], &[], &mut || ());
    assert_eq!(left(&counters), Left::All(vec![95]));
    // The row comes while it is looked up: it may be among them or not, so it is looked up again.
    let counters = Memory::default();
    assert!(begins(&counters));
    counters.close(&[call()], &[], &mut || ());
    assert!(begins(&counters), "another one looks, too");
    assert!(!says(&counters, 0), "nobody knows");
    assert!(!says(&counters, 5), "nor does the other one");
    assert!(begins(&counters) && says(&counters, 5));
    assert_eq!(left(&counters), Left::All(vec![95]));
    // A call that was on its way before anybody limited it.
    let unreserved = |at_ms| Unreserved { counter: counter("a"), at_ms, spent: 7 };
    counters.close(&[], &[unreserved(NOW.from_ms)], &mut || ());
    counters.close(&[], &[unreserved(NOW.to_ms), unreserved(NOW.from_ms - 1)], &mut || ());
    assert_eq!(left(&counters), Left::All(vec![88]));
}

#[test]
fn what_is_sure_to_be_spent_does_not_come_back() {
    let counters = Memory::default();
    let of = |unit| Counter { unit, ..counter("a") };
    for unit in [Unit::Requests, Unit::Tokens] {
        assert!(now(counters.begins(&of(unit), NOW)).unwrap());
        assert!(now(counters.begin(&of(unit), NOW, 0)).unwrap());
    }
    let reserved = |unit, limit, amount| {
        let reservation = Reservation { counter: of(unit), window: NOW, limit, amount };
        now(counters.reserve(&[reservation])).unwrap()
    };
    assert_eq!(reserved(Unit::Requests, 1, 1), Reserved::All { age: 0 });
    assert_eq!(reserved(Unit::Requests, 1, 1), Reserved::Exhausted { place: 0, reserved: false });
    assert_eq!(reserved(Unit::Tokens, 10, 10), Reserved::All { age: 0 });
    assert_eq!(reserved(Unit::Tokens, 10, 1), Reserved::Exhausted { place: 0, reserved: true });
    // The attempt has ended: what it spent is held until its call has a row.
    counters.settle(&[settled(NOW, (10, 0, 10))]);
    assert_eq!(reserved(Unit::Tokens, 10, 1), Reserved::Exhausted { place: 0, reserved: false });
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
            end(&counters, settled(NOW, (amount, 0, used)));
        };
        for (amount, part, later) in calls {
            let left = spent + reserved < budget;
            let outcome = now(counters.reserve(&[reserve("a", budget, amount)])).unwrap();
            prop_assert_eq!(outcome == (Reserved::All { age: 0 }), left);
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
