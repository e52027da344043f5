//! Comparing: only like with like.
//!
//! - `<`, `<=`, `>`, `>=`, and what puts things in order (`sort`, `min`, `max`, `dictsort`,
//!   `groupby`, the tests `gt`, `lt`, …): number with number, text with text, boolean with boolean,
//!   and lists of such item by item. Anything else is an error that says what was compared with
//!   what. The library orders all kinds of values after one another, so that `"n/a" > 5` is true
//!   and takes a branch that nobody meant; therefore it only parses, and the comparing is here.
//! - `==`, `!=`, `in`: values of unlike kinds are never equal, and asking is no error. `1 == 1.0`,
//!   since both are numbers; `1 == true` is false.
//!
//! Invariants:
//! - Numbers are compared exactly, also a large whole number with a float.
//! - Work is paid for as it is done: two values that share much cost what they hold when written
//!   out, and stop at the limit of steps.

use std::cmp::Ordering;

use serde_json::Value;

use crate::expr::budget::{Budget, Fault, Outcome, steps};
use crate::expr::datum::{Datum, undefined};
use crate::state::MessageList;

/// Bytes that are compared for one step: comparing is faster than making.
const BYTES: usize = 256;

/// How two values stand to each other; an error if they are no two of a kind that has an order.
pub(super) fn order(budget: &Budget, a: &Datum<'_>, b: &Datum<'_>) -> Outcome<Ordering> {
    budget.spend(1)?;
    match (a, b) {
        (Datum::Undefined { .. }, _) | (_, Datum::Undefined { .. }) => undefined(),
        (Datum::Text(a), Datum::Text(b)) => texts(budget, a.as_str(), b.as_str()),
        (Datum::Bool(a), Datum::Bool(b)) => Ok(a.cmp(b)),
        (Datum::Int(a), Datum::Int(b)) => Ok(a.cmp(b)),
        (Datum::Float(a), Datum::Float(b)) => Ok(floats(*a, *b)),
        (Datum::Int(a), Datum::Float(b)) => Ok(whole_with_float(*a, *b)),
        (Datum::Float(a), Datum::Int(b)) => Ok(whole_with_float(*b, *a).reverse()),
        _ => match (as_list(a), as_list(b)) {
            (Some(left), Some(right)) => {
                for i in 0..left.len().min(right.len()) {
                    match order(budget, &left.get(i), &right.get(i))? {
                        Ordering::Equal => {}
                        unequal => return Ok(unequal),
                    }
                }
                Ok(left.len().cmp(&right.len()))
            }
            _ => Err(unlike(a, b)),
        },
    }
}

fn unlike(a: &Datum<'_>, b: &Datum<'_>) -> Fault {
    let (left, right) = (shown(a), shown(b));
    if a.kind() == b.kind() {
        return Fault::new(format!("{left} and {right} cannot be compared: they have no order"));
    }
    Fault::new(format!(
        "{left} cannot be compared with {right}: only a number with a number, or a text with a text"
    ))
}

/// A value with its kind, short enough for an error.
fn shown(datum: &Datum<'_>) -> String {
    let kind = datum.kind();
    match datum {
        Datum::Text(text) if text.as_str().chars().count() <= 40 => {
            format!("the text {:?}", text.as_str())
        }
        Datum::Text(text) => {
            let start: String = text.as_str().chars().take(37).collect();
            format!("the text {start:?}…")
        }
        Datum::Int(whole) => format!("the number {whole}"),
        Datum::Float(float) => format!("the number {float}"),
        Datum::Bool(yes) => yes.to_string(),
        _ => kind.to_owned(),
    }
}

/// Whether two values are the same.
pub(super) fn equal(budget: &Budget, a: &Datum<'_>, b: &Datum<'_>) -> Outcome<bool> {
    budget.spend(1)?;
    Ok(match (a, b) {
        (Datum::Null, Datum::Null) | (Datum::Undefined { .. }, Datum::Undefined { .. }) => true,
        (Datum::Bool(a), Datum::Bool(b)) => a == b,
        (Datum::Int(a), Datum::Int(b)) => a == b,
        (Datum::Float(a), Datum::Float(b)) => floats(*a, *b).is_eq(),
        (Datum::Int(whole), Datum::Float(float)) | (Datum::Float(float), Datum::Int(whole)) => {
            whole_with_float(*whole, *float).is_eq()
        }
        (Datum::Text(a), Datum::Text(b)) => same_text(budget, a.as_str(), b.as_str())?,
        _ => match (as_list(a), as_list(b)) {
            (Some(left), Some(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for i in 0..left.len() {
                    if !equal(budget, &left.get(i), &right.get(i))? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => maps(budget, a, b)?,
        },
    })
}

fn maps(budget: &Budget, a: &Datum<'_>, b: &Datum<'_>) -> Outcome<bool> {
    if let (Datum::Json(a), Datum::Json(b)) = (a, b)
        && std::ptr::eq(*a, *b)
    {
        return Ok(true);
    }
    let (Some(mut left), Some(mut right)) = (budget.pairs(a)?, budget.pairs(b)?) else {
        return Ok(false);
    };
    if left.len() != right.len() {
        return Ok(false);
    }
    // The state's maps stand in the order in which they were written.
    left.sort_by(|(a, _), (b, _)| a.cmp(b));
    right.sort_by(|(a, _), (b, _)| a.cmp(b));
    for ((key, value), (other_key, other)) in left.into_iter().zip(right) {
        if !equal(budget, &key.into(), &other_key.into())? || !equal(budget, &value, &other)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether `of` holds `item`: a list's items, a map's keys, a text within a text.
pub(super) fn contains(budget: &Budget, of: &Datum<'_>, item: &Datum<'_>) -> Outcome<bool> {
    match of {
        Datum::Text(text) => {
            let Some(part) = item.as_text() else {
                return Err(Fault::new(format!("a text holds texts: {} is none", item.kind())));
            };
            budget.bytes(text.as_str().len())?;
            Ok(text.as_str().contains(part))
        }
        Datum::Json(Value::Object(map)) => {
            Ok(item.as_text().is_some_and(|key| map.contains_key(key)))
        }
        Datum::Map(map) => Ok(map.entries.contains_key(&item.clone().into_key()?)),
        Datum::Namespace(namespace) => {
            let name = item.as_text();
            Ok(name.is_some_and(|name| namespace.values.borrow().contains_key(name)))
        }
        Datum::Undefined { silent: false } => undefined(),
        Datum::Undefined { silent: true } => Ok(false),
        _ => {
            let Some(list) = as_list(of) else {
                return Err(Fault::new(format!("{} holds nothing", of.kind())));
            };
            for i in 0..list.len() {
                if equal(budget, &list.get(i), item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// A list of the state or one that was made.
enum Items<'a, 's> {
    Json(&'s [Value]),
    Messages(&'s MessageList),
    Made(&'a [Datum<'s>]),
}

impl<'s> Items<'_, 's> {
    fn len(&self) -> usize {
        match self {
            Self::Json(items) => items.len(),
            Self::Messages(list) => list.len(),
            Self::Made(items) => items.len(),
        }
    }

    fn get(&self, i: usize) -> Datum<'s> {
        match self {
            Self::Json(items) => items.get(i).map_or(Datum::UNDEFINED, Datum::of_json),
            Self::Messages(list) => Datum::of_message(list, i).unwrap_or(Datum::UNDEFINED),
            Self::Made(items) => items.get(i).cloned().unwrap_or(Datum::UNDEFINED),
        }
    }
}

fn as_list<'a, 's>(datum: &'a Datum<'s>) -> Option<Items<'a, 's>> {
    match datum {
        Datum::Json(Value::Array(items)) => Some(Items::Json(items)),
        Datum::Messages(list) => Some(Items::Messages(list)),
        Datum::List(list) => Some(Items::Made(&list.items)),
        _ => None,
    }
}

/// Texts by their characters' numbers, paying for as much as is looked at.
fn texts(budget: &Budget, a: &str, b: &str) -> Outcome<Ordering> {
    let (mut left, mut right) = (a.as_bytes().chunks(BYTES), b.as_bytes().chunks(BYTES));
    loop {
        match (left.next(), right.next()) {
            (Some(a), Some(b)) if a == b => budget.spend(1)?,
            (a, b) => return Ok(a.cmp(&b)),
        }
    }
}

fn same_text(budget: &Budget, a: &str, b: &str) -> Outcome<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    budget.spend(steps(a.len() / BYTES))?;
    Ok(a == b)
}

/// Both are finite.
fn floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

/// Exact: a float beyond 64 bits is larger than every whole number, one within has a whole part
/// that fits.
#[allow(clippy::cast_possible_truncation, reason = "its size is looked at first")]
fn whole_with_float(whole: i128, float: f64) -> Ordering {
    const FAR: f64 = 1e30;
    if float >= FAR {
        return Ordering::Less;
    }
    if float <= -FAR {
        return Ordering::Greater;
    }
    let part = float.trunc();
    whole.cmp(&(part as i128)).then_with(|| floats(part, float))
}

/// Sorts by a comparison that may fail; what compares equal stays in its order.
pub(super) fn sorted<T>(
    mut items: Vec<T>,
    compare: &mut impl FnMut(&T, &T) -> Outcome<Ordering>,
) -> Outcome<Vec<T>> {
    if items.len() < 2 {
        return Ok(items);
    }
    let right = items.split_off(items.len() / 2);
    let mut left = sorted(items, compare)?.into_iter().peekable();
    let mut right = sorted(right, compare)?.into_iter().peekable();
    let mut merged = Vec::with_capacity(left.len() + right.len());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if compare(a, b)?.is_gt() { right.next() } else { left.next() };
        merged.extend(next);
    }
    merged.extend(left);
    merged.extend(right);
    Ok(merged)
}
