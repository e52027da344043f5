//! Tests: what stands after `is`, and what `select` and its like are given by name. New test: one
//! line in [`TABLE`].

use std::cmp::Ordering;

use crate::expr::arguments::Given;
use crate::expr::budget::{Budget, Fault, Outcome};
use crate::expr::compare;
use crate::expr::datum::Datum;
use crate::expr::filters;
use crate::expr::numbers::{self, Number};
use crate::expr::syntax::Operator;

/// A place in [`TABLE`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Id(usize);

type Check = for<'s> fn(&Budget, &Datum<'s>, &mut Given<'s>) -> Outcome<bool>;

const TABLE: &[(&str, Check)] = &[
    ("boolean", |_, of, _| Ok(matches!(of, Datum::Bool(_)))),
    ("defined", |_, of, _| Ok(!of.is_undefined())),
    ("divisibleby", divisible),
    ("endingwith", |_, of, given| Ok(text(of)?.ends_with(&*text(&given.needed("text")?)?))),
    ("eq", equal),
    ("equalto", equal),
    ("==", equal),
    ("even", |_, of, _| Ok(of.as_int().is_some_and(|whole| whole % 2 == 0))),
    ("false", |_, of, _| Ok(matches!(of, Datum::Bool(false)))),
    ("filter", |_, of, _| Ok(filters::find(&text(of)?).is_some())),
    ("float", |_, of, _| Ok(matches!(of, Datum::Float(_)))),
    ("ge", |b, of, given| Ok(order(b, of, given)?.is_ge())),
    (">=", |b, of, given| Ok(order(b, of, given)?.is_ge())),
    ("greaterthan", |b, of, given| Ok(order(b, of, given)?.is_gt())),
    ("gt", |b, of, given| Ok(order(b, of, given)?.is_gt())),
    (">", |b, of, given| Ok(order(b, of, given)?.is_gt())),
    ("in", |b, of, given| compare::contains(b, &given.needed("values")?, of)),
    ("int", |_, of, _| Ok(matches!(of, Datum::Int(_)))),
    ("integer", |_, of, _| Ok(matches!(of, Datum::Int(_)))),
    ("iterable", |_, of, _| Ok(iterable(of))),
    ("le", |b, of, given| Ok(order(b, of, given)?.is_le())),
    ("<=", |b, of, given| Ok(order(b, of, given)?.is_le())),
    ("lessthan", |b, of, given| Ok(order(b, of, given)?.is_lt())),
    ("lower", |_, of, _| Ok(cased(of, char::is_lowercase, char::is_uppercase))),
    ("lt", |b, of, given| Ok(order(b, of, given)?.is_lt())),
    ("<", |b, of, given| Ok(order(b, of, given)?.is_lt())),
    ("mapping", |_, of, _| Ok(of.kind() == "a map")),
    ("ne", |b, of, given| Ok(!equal(b, of, given)?)),
    ("!=", |b, of, given| Ok(!equal(b, of, given)?)),
    ("none", |_, of, _| Ok(matches!(of, Datum::Null))),
    ("number", |_, of, _| Ok(matches!(of, Datum::Int(_) | Datum::Float(_)))),
    ("odd", |_, of, _| Ok(of.as_int().is_some_and(|whole| whole % 2 != 0))),
    ("sameas", same),
    ("sequence", |_, of, _| Ok(of.kind() == "a list")),
    ("startingwith", |_, of, given| Ok(text(of)?.starts_with(&*text(&given.needed("text")?)?))),
    ("string", |_, of, _| Ok(of.as_text().is_some())),
    ("test", |_, of, _| Ok(find(&text(of)?).is_some())),
    ("true", |_, of, _| Ok(matches!(of, Datum::Bool(true)))),
    ("undefined", |_, of, _| Ok(of.is_undefined())),
    ("upper", |_, of, _| Ok(cased(of, char::is_uppercase, char::is_lowercase))),
];

/// The test of that name.
pub(super) fn find(name: &str) -> Option<Id> {
    TABLE.iter().position(|(known, _)| *known == name).map(Id)
}

impl Id {
    /// Whether the test holds.
    pub(super) fn holds<'s>(
        self,
        budget: &Budget,
        of: &Datum<'s>,
        mut given: Given<'s>,
    ) -> Outcome<bool> {
        if let Some(text) = of.as_text() {
            budget.bytes(text.len())?;
        }
        let holds = TABLE[self.0].1(budget, of, &mut given)?;
        given.end()?;
        Ok(holds)
    }
}

fn text(of: &Datum<'_>) -> Outcome<String> {
    of.as_text().map(str::to_owned).ok_or_else(|| Fault::new(format!("{} is no text", of.kind())))
}

fn equal<'s>(budget: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<bool> {
    compare::equal(budget, of, &given.needed("other")?)
}

fn order<'s>(budget: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Ordering> {
    compare::order(budget, of, &given.needed("other")?)
}

fn iterable(of: &Datum<'_>) -> bool {
    let text_or_null = matches!(of, Datum::Text(_) | Datum::Null | Datum::Namespace(_));
    text_or_null || matches!(of.kind(), "a list" | "a map")
}

fn divisible<'s>(_: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<bool> {
    let by = given.needed("by")?;
    let (Some(number), Some(by)) = (Number::of(of), Number::of(&by)) else { return Ok(false) };
    Ok(!numbers::calculate(Operator::Rem, number, by)?.is_true()?)
}

/// The same kind and the same value: `1` and `1.0` are not.
fn same<'s>(budget: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<bool> {
    let other = given.needed("other")?;
    let alike = matches!(of, Datum::Int(_)) == matches!(other, Datum::Int(_));
    Ok(alike && compare::equal(budget, of, &other)?)
}

/// Whether a text has letters of the one case and none of the other.
fn cased(of: &Datum<'_>, one: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    of.as_text().is_some_and(|text| text.chars().any(one) && !text.chars().any(other))
}
