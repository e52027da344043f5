//! Filters that make numbers: exactly, or an error.

use crate::expr::access;
use crate::expr::arguments::Given;
use crate::expr::budget::{Budget, Fault, Outcome};
use crate::expr::datum::{Datum, undefined};
use crate::expr::filters::texts;
use crate::expr::numbers::{self, Number};
use crate::expr::operate::operate;
use crate::expr::syntax::Operator;
use crate::json;

pub(super) fn abs<'s>(_: &Budget, of: &Datum<'s>, _: &mut Given<'s>) -> Outcome<Datum<'s>> {
    match of.clone().defined()? {
        Datum::Int(whole) => numbers::int(whole.abs()),
        Datum::Float(float) => numbers::float(float.abs()),
        other => Err(Fault::new(format!("{} has no absolute value", other.kind()))),
    }
}

/// `int(default, base)`: the whole number that a text says, or the whole part of a number. The
/// default stands for what is no number; one that is too large is an error all the same.
pub(super) fn int<'s>(_: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let default = given.take("default");
    let base = given.count("base")?.and_then(|base| u32::try_from(base).ok()).unwrap_or(10);
    match of {
        Datum::Bool(yes) => Ok(Datum::Int((*yes).into())),
        Datum::Int(whole) => Ok(Datum::Int(*whole)),
        Datum::Float(float) => whole(*float),
        Datum::Undefined { silent: false } => undefined(),
        Datum::Null | Datum::Undefined { .. } => Ok(default.unwrap_or(Datum::Int(0))),
        Datum::Text(text) => match written(text.as_str(), base) {
            Written::Whole(whole) => numbers::int(whole),
            Written::Fraction(float) => whole(float),
            Written::TooLarge => {
                Err(Fault::new(format!("{} does not fit into 64 bits", quoted(text.as_str()))))
            }
            Written::No => default
                .ok_or_else(|| Fault::new(format!("{} is no whole number", quoted(text.as_str())))),
        },
        other => default.ok_or_else(|| Fault::new(format!("{} is no number", other.kind()))),
    }
}

/// What a text says when it is read as a number.
enum Written {
    Whole(i128),
    Fraction(f64),
    TooLarge,
    No,
}

fn written(text: &str, base: u32) -> Written {
    let text = text.trim();
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        3..=36 => "",
        _ => return Written::No,
    };
    let (minus, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let marked = digits.get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(prefix));
    let digits = if marked { &digits[prefix.len()..] } else { digits };
    if !digits.is_empty() && digits.chars().all(|c| c.is_digit(base)) {
        let whole = i128::from_str_radix(digits, base);
        return whole.map_or(Written::TooLarge, |n| Written::Whole(if minus { -n } else { n }));
    }
    // `inf` and `nan` are no numbers here; `1e400` is one.
    let number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    match text.parse::<f64>() {
        Ok(float) if number && float.is_finite() => Written::Fraction(float),
        Ok(_) if number => Written::TooLarge,
        _ => Written::No,
    }
}

#[allow(clippy::cast_possible_truncation, reason = "beyond 128 bits it is the end of the range")]
fn whole<'s>(float: f64) -> Outcome<Datum<'s>> {
    numbers::int(float.trunc() as i128)
}

/// `float(default)`.
pub(super) fn float<'s>(_: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let default = given.take("default");
    match of {
        Datum::Undefined { silent: false } => undefined(),
        Datum::Null | Datum::Undefined { .. } => Ok(default.unwrap_or(Datum::Float(0.0))),
        Datum::Text(text) => {
            let written = text.as_str().trim();
            let number = written.contains(|c: char| c.is_ascii_digit());
            match written.parse::<f64>().ok().filter(|_| number) {
                Some(float) if float.is_finite() && json::keeps_digits(written) => {
                    Ok(Datum::Float(float))
                }
                Some(_) => Err(Fault::new(format!(
                    "{} has more digits than a number can keep",
                    quoted(written)
                ))),
                None => {
                    default.ok_or_else(|| Fault::new(format!("{} is no number", quoted(written))))
                }
            }
        }
        other => match Number::of(other) {
            Some(number) => numbers::float(number.exactly()?),
            None => default.ok_or_else(|| Fault::new(format!("{} is no number", other.kind()))),
        },
    }
}

/// `round(precision, method)`.
pub(super) fn round<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let number = match of {
        Datum::Int(whole) => (*whole).into(),
        Datum::Float(float) => (*float).into(),
        other => return Err(Fault::new(format!("{} cannot be rounded", other.kind()))),
    };
    let rounded = texts::library(b, "round", number, given)?;
    let failed = |error: minijinja::Error| Fault::new(error.to_string());
    if rounded.is_integer() {
        return numbers::int(i128::try_from(rounded).map_err(failed)?);
    }
    numbers::float(f64::try_from(rounded).map_err(failed)?)
}

/// `sum(attribute, start)`: what is not there counts nothing.
pub(super) fn sum<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let attribute = given.text("attribute")?;
    let mut sum = given.take("start").unwrap_or(Datum::Int(0));
    for item in &b.sequence(of)?.items {
        b.spend(1)?;
        let item = match &attribute {
            Some(path) => access::path(b, item, path.as_str())?,
            None => item.clone(),
        };
        if item.is_undefined() {
            continue;
        }
        if Number::of(&sum).is_some() && Number::of(&item).is_none() {
            return Err(Fault::new(format!("only numbers can be summed, not {}", item.kind())));
        }
        sum = operate(b, Operator::Add, &sum, &item)?;
    }
    Ok(sum)
}

fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("the text {short:?}")
}
