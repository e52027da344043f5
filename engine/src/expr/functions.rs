//! Functions: `range`, `dict`, `namespace`. New function: one line in [`TABLE`].

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::expr::arguments::Given;
use crate::expr::budget::{Budget, Fault, Outcome};
use crate::expr::datum::{Datum, Key, Namespace};

/// A place in [`TABLE`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Id(usize);

type Function = for<'s> fn(&Budget, Given<'s>) -> Outcome<Datum<'s>>;

const TABLE: &[(&str, Function)] = &[("dict", dict), ("namespace", namespace), ("range", range)];

/// The function of that name.
pub(super) fn find(name: &str) -> Option<Id> {
    TABLE.iter().position(|(known, _)| *known == name).map(Id)
}

impl Id {
    pub(super) fn call<'s>(self, budget: &Budget, given: Given<'s>) -> Outcome<Datum<'s>> {
        TABLE[self.0].1(budget, given)
    }
}

/// `range(stop)`, `range(start, stop, step)`.
fn range<'s>(budget: &Budget, mut given: Given<'s>) -> Outcome<Datum<'s>> {
    let first = given.int("start")?.ok_or_else(|| Fault::new("`range` needs to know how far"))?;
    let (start, stop) = match given.int("stop")? {
        Some(stop) => (first, stop),
        None => (0, first),
    };
    let step = given.int("step")?.unwrap_or(1);
    given.end()?;
    if step == 0 {
        return Err(Fault::new("a range cannot have steps of 0"));
    }
    // Of numbers of at most 65 bits.
    let count = ((stop - start) + step - step.signum()) / step;
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    budget.slots(count)?;
    let mut items = Vec::with_capacity(count);
    let mut at = start;
    for _ in 0..count {
        items.push(Datum::Int(at));
        at += step;
    }
    budget.list(items)
}

/// `dict(map, key=value)`.
fn dict<'s>(budget: &Budget, mut given: Given<'s>) -> Outcome<Datum<'s>> {
    let mut entries = BTreeMap::new();
    if let Some(map) = given.take("map") {
        let pairs = budget.pairs(&map)?;
        let pairs = pairs.ok_or_else(|| Fault::new("`dict` takes a map and named values"))?;
        entries.extend(pairs);
    }
    entries.extend(given.rest_named().into_iter().map(|(name, value)| (Key::Text(name), value)));
    given.end()?;
    budget.map(entries)
}

/// `namespace(key=value)`.
fn namespace<'s>(budget: &Budget, mut given: Given<'s>) -> Outcome<Datum<'s>> {
    let made = Namespace::default();
    if let Some(map) = given.take("map") {
        let pairs = budget.pairs(&map)?;
        let pairs = pairs.ok_or_else(|| Fault::new("`namespace` takes a map and named values"))?;
        for (key, value) in pairs {
            if let Key::Text(name) = key {
                made.set(budget, name, value)?;
            }
        }
    }
    for (name, value) in given.rest_named() {
        made.set(budget, name, value)?;
    }
    given.end()?;
    Ok(Datum::Namespace(Rc::new(made)))
}
