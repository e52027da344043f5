//! What makes one value of two: `+ - * / // % ** ~`.

use std::rc::Rc;

use crate::expr::budget::{Budget, Fault, Outcome};
use crate::expr::datum::{Datum, List, undefined};
use crate::expr::numbers::{self, Number};
use crate::expr::print;
use crate::expr::syntax::Operator;

pub(super) fn operate<'s>(
    budget: &Budget,
    operator: Operator,
    a: &Datum<'s>,
    b: &Datum<'s>,
) -> Outcome<Datum<'s>> {
    if a.is_undefined() || b.is_undefined() {
        if operator == Operator::Concat {
            return concat(budget, a, b);
        }
        return undefined();
    }
    match (operator, a, b) {
        (Operator::Concat, ..) => concat(budget, a, b),
        (Operator::Add, Datum::Text(left), Datum::Text(right)) => {
            let (left, right) = (left.as_str(), right.as_str());
            budget.fits(left.len().saturating_add(right.len()))?;
            budget.made(&[left, right].concat())
        }
        (Operator::Mul, Datum::Text(text), times) | (Operator::Mul, times, Datum::Text(text)) => {
            let times = count(times)?;
            let bytes = text.as_str().len().saturating_mul(times);
            budget.fits(bytes)?;
            budget.made(&text.as_str().repeat(times))
        }
        _ => match (list(budget, a)?, list(budget, b)?) {
            (Some(left), Some(right)) if operator == Operator::Add => {
                budget.slots(left.items.len() + right.items.len())?;
                budget.list(left.items.iter().chain(&right.items).cloned().collect())
            }
            (Some(items), None) if operator == Operator::Mul => repeat(budget, &items, b),
            (None, Some(items)) if operator == Operator::Mul => repeat(budget, &items, a),
            _ => match (Number::of(a), Number::of(b)) {
                (Some(a), Some(b)) => numbers::calculate(operator, a, b),
                _ => Err(unlike(operator, a, b)),
            },
        },
    }
}

/// Both as text, one after the other.
fn concat<'s>(budget: &Budget, a: &Datum<'s>, b: &Datum<'s>) -> Outcome<Datum<'s>> {
    let mut text = print::Sink::new(budget);
    text.print(a)?;
    text.print(b)?;
    budget.made(&text.into_text())
}

fn list<'s>(budget: &Budget, datum: &Datum<'s>) -> Outcome<Option<Rc<List<'s>>>> {
    match datum {
        Datum::List(_) | Datum::Messages(_) | Datum::Json(serde_json::Value::Array(_)) => {
            budget.sequence(datum).map(Some)
        }
        _ => Ok(None),
    }
}

fn repeat<'s>(budget: &Budget, list: &List<'s>, times: &Datum<'s>) -> Outcome<Datum<'s>> {
    let times = count(times)?;
    budget.slots(list.items.len().saturating_mul(times))?;
    budget.list(std::iter::repeat_n(&list.items, times).flatten().cloned().collect())
}

/// How many times; a negative number is none.
fn count(times: &Datum<'_>) -> Outcome<usize> {
    match times.as_int() {
        Some(times) => Ok(usize::try_from(times.max(0)).unwrap_or(usize::MAX)),
        None => Err(Fault::new(format!(
            "a text or list is repeated a whole number of times, not {} times",
            times.kind()
        ))),
    }
}

fn unlike(operator: Operator, a: &Datum<'_>, b: &Datum<'_>) -> Fault {
    let sign = match operator {
        Operator::Add => "+",
        Operator::Sub => "-",
        Operator::Mul => "*",
        Operator::Div => "/",
        Operator::FloorDiv => "//",
        Operator::Rem => "%",
        Operator::Pow => "**",
        Operator::Concat => "~",
    };
    let (left, right) = (a.kind(), b.kind());
    Fault::new(format!("`{sign}` cannot take {left} and {right}; `~` joins anything as text"))
}
