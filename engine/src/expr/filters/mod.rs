//! Filters: what stands after `|`. New filter: one line in [`TABLE`].
//!
//! | file | what it holds |
//! |---|---|
//! | `lists.rs` | those that look at the items of lists and maps |
//! | `ordering.rs` | those that put items in order |
//! | `texts.rs` | those that make texts |
//! | `numbers.rs` | those that make numbers |
//!
//! Invariants:
//! - A filter pays for what it looks at and for what it makes before it makes it.
//! - Of filters that work on one text those that are more than a line are the library's own, each
//!   call with a limit of work of its own.

mod lists;
mod numbers;
mod ordering;
mod texts;

use crate::expr::arguments::Given;
use crate::expr::budget::{Budget, Outcome};
use crate::expr::datum::Datum;

/// A place in [`TABLE`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Id(usize);

type Filter = for<'s> fn(&Budget, &Datum<'s>, &mut Given<'s>) -> Outcome<Datum<'s>>;

const TABLE: &[(&str, Filter)] = &[
    ("abs", numbers::abs),
    ("attr", lists::attr),
    ("batch", lists::batch),
    ("bool", |_, of, _| of.is_true().map(Datum::Bool)),
    ("capitalize", texts::capitalize),
    ("chain", lists::chain),
    ("count", lists::length),
    ("d", lists::default),
    ("default", lists::default),
    ("dictsort", ordering::dictsort),
    ("e", texts::escape),
    ("escape", texts::escape),
    ("first", lists::first),
    ("float", numbers::float),
    ("format", texts::format),
    ("groupby", ordering::groupby),
    ("indent", texts::indent),
    ("int", numbers::int),
    ("items", lists::items),
    ("join", texts::join),
    ("last", lists::last),
    ("length", lists::length),
    ("lines", texts::lines),
    ("list", |budget, of, _| budget.sequence(of).map(Datum::List)),
    ("lower", texts::lower),
    ("map", lists::map),
    ("max", ordering::max),
    ("min", ordering::min),
    ("pprint", texts::pprint),
    ("reject", |budget, of, given| lists::select(budget, of, given, false)),
    ("rejectattr", |budget, of, given| lists::select_by(budget, of, given, false)),
    ("replace", texts::replace),
    ("reverse", lists::reverse),
    ("round", numbers::round),
    ("safe", |budget, of, _| texts::of(budget, of).map(Datum::Text)),
    ("select", |budget, of, given| lists::select(budget, of, given, true)),
    ("selectattr", |budget, of, given| lists::select_by(budget, of, given, true)),
    ("slice", lists::slice),
    ("sort", ordering::sort),
    ("split", texts::split),
    ("string", |budget, of, _| texts::of(budget, of).map(Datum::Text)),
    ("sum", numbers::sum),
    ("title", texts::title),
    ("tojson", texts::tojson),
    ("trim", texts::trim),
    ("unique", lists::unique),
    ("upper", texts::upper),
    ("zip", lists::zip),
];

/// The filter of that name.
pub(super) fn find(name: &str) -> Option<Id> {
    TABLE.iter().position(|(known, _)| *known == name).map(Id)
}

impl Id {
    /// What the filter makes of a value.
    pub(super) fn apply<'s>(
        self,
        budget: &Budget,
        of: &Datum<'s>,
        mut given: Given<'s>,
    ) -> Outcome<Datum<'s>> {
        budget.spend(1)?;
        if let Some(text) = of.as_text() {
            budget.bytes(text.len())?;
        }
        let made = TABLE[self.0].1(budget, of, &mut given)?;
        given.end()?;
        Ok(made)
    }
}
