//! Numbers of the calculator: decimals as long as every digit is known, else the nearest
//! floating-point number.
//!
//! Invariants:
//! - [`Number::Exact`] holds the mathematically exact value: an operation that would round a
//!   decimal gives a [`Number::Near`] instead.
//! - A [`Number::Near`] is finite.

use std::cmp::Ordering;
use std::fmt;

use rust_decimal::Decimal;
use rust_decimal::RoundingStrategy::MidpointAwayFromZero;
use rust_decimal::prelude::{FromPrimitive as _, ToPrimitive as _};

use super::CalculatorError;

/// Largest whole exponent that is multiplied out.
const MAX_EXACT_POWER: u32 = 256;

/// Digits of a floating-point number that are shown: one less than its arithmetic may get wrong.
const SHOWN_DIGITS: usize = 15;

/// A real number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    /// At most 28 digits, all of them right.
    Exact(Decimal),
    /// About 16 digits.
    Near(f64),
}

use Number::{Exact, Near};

type Result = std::result::Result<Number, CalculatorError>;

impl Number {
    /// Reads digits with at most one point among them, times a power of ten; `None` if they are
    /// no number.
    pub(super) fn read(digits: &str, exponent: i32) -> Option<Result> {
        let number = match Decimal::from_str_exact(digits) {
            Ok(exact) => Ok(Exact(exact.normalize())),
            Err(_) => finite(digits.parse().ok()?),
        };
        if exponent == 0 {
            return Some(number);
        }
        let scale = Exact(Decimal::TEN).power(Exact(exponent.into()));
        Some(number.and_then(|n| n.times(scale?)))
    }

    /// The nearest floating-point number.
    pub(super) fn near(self) -> f64 {
        match self {
            Exact(n) => n.to_f64().unwrap_or(f64::NAN),
            Near(n) => n,
        }
    }

    pub(super) fn negated(self) -> Self {
        match self {
            Exact(n) => Exact(-n),
            Near(n) => Near(-n),
        }
    }

    pub(super) fn plus(self, other: Self) -> Result {
        if let (Exact(a), Exact(b)) = (self, other)
            && let Some(sum) = exact_sum(a, b)
        {
            return Ok(Exact(sum));
        }
        let (a, b) = (self.near(), other.near());
        let sum = a + b;
        // What is left of two equal numbers after rounding is noise.
        let noise = 2.0 * f64::EPSILON * a.abs().max(b.abs());
        finite(if sum.abs() <= noise { 0.0 } else { sum })
    }

    pub(super) fn minus(self, other: Self) -> Result {
        self.plus(other.negated())
    }

    pub(super) fn times(self, other: Self) -> Result {
        if let (Exact(a), Exact(b)) = (self, other)
            && let Some(product) = exact_product(a, b)
        {
            return Ok(Exact(product));
        }
        finite(self.near() * other.near())
    }

    pub(super) fn over(self, other: Self) -> Result {
        if other.is_zero() {
            return Err(CalculatorError::DivisionByZero);
        }
        if let (Exact(a), Exact(b)) = (self, other)
            && let Some(quotient) = a.checked_div(b)
            && exact_product(quotient, b) == Some(a)
        {
            return Ok(Exact(quotient));
        }
        finite(self.near() / other.near())
    }

    /// The remainder, with the sign of `other`, as Python and spreadsheets have it.
    pub(super) fn remainder(self, other: Self) -> Result {
        if other.is_zero() {
            return Err(CalculatorError::DivisionByZero);
        }
        let rest = match (self, other) {
            (Exact(a), Exact(b)) => a.checked_rem(b).map(Exact),
            _ => None,
        };
        let rest = match rest {
            Some(rest) => rest,
            None => finite(self.near() % other.near())?,
        };
        let apart = (rest.near() < 0.0) != (other.near() < 0.0);
        if apart && !rest.is_zero() { rest.plus(other) } else { Ok(rest) }
    }

    pub(super) fn power(self, exponent: Self) -> Result {
        if self.is_zero() && exponent.near() < 0.0 {
            return Err(CalculatorError::DivisionByZero);
        }
        if let (Exact(base), Exact(n)) = (self, exponent)
            && n.is_integer()
            && let Some(times) = n.abs().to_u32().filter(|times| *times <= MAX_EXACT_POWER)
            && let Some(power) = exact_power(base, times)
        {
            return if n < Decimal::ZERO {
                Exact(Decimal::ONE).over(Exact(power))
            } else {
                Ok(Exact(power))
            };
        }
        let power = self.near().powf(exponent.near());
        real(power, "a fractional power of a negative number")
    }

    pub(super) fn root(self) -> Result {
        real(self.near().sqrt(), "the square root of a negative number")
    }

    /// `ln` or `log10`, given as `log`.
    pub(super) fn logarithm(self, log: fn(f64) -> f64) -> Result {
        if self.near() <= 0.0 {
            return Err(CalculatorError::NotReal { what: "the logarithm of zero or less" });
        }
        finite(log(self.near()))
    }

    /// `sin`, `cos` or `tan`, given as `function`.
    pub(super) fn angle(self, function: fn(f64) -> f64) -> Result {
        let (angle, value) = (self.near(), function(self.near()));
        // The nearest number to pi is not pi: what its sine differs from zero by is noise.
        let noise = f64::EPSILON * angle.abs();
        finite(if value.abs() <= noise && angle.abs() > 1.0 { 0.0 } else { value })
    }

    pub(super) fn magnitude(self) -> Self {
        if self.near() < 0.0 { self.negated() } else { self }
    }

    pub(super) fn floor(self) -> Self {
        match self {
            Exact(n) => Exact(n.floor()),
            Near(n) => Near(n.floor()),
        }
    }

    pub(super) fn ceil(self) -> Self {
        match self {
            Exact(n) => Exact(n.ceil()),
            Near(n) => Near(n.ceil()),
        }
    }

    /// Rounds half away from zero.
    pub(super) fn rounded(self, digits: u32) -> Self {
        let decimal = match self {
            Exact(n) => Some(n),
            Near(n) => Decimal::from_f64(n),
        };
        match decimal {
            Some(n) => Exact(n.round_dp_with_strategy(digits, MidpointAwayFromZero)),
            // Too large to have digits after the point.
            None => self,
        }
    }

    pub(super) fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Exact(a), Exact(b)) => a.cmp(&b),
            _ => self.near().total_cmp(&other.near()),
        }
    }

    /// A whole number of digits after the point that a decimal can have.
    pub(super) fn digits(self) -> Option<u32> {
        let Exact(n) = self else { return None };
        n.is_integer().then(|| n.to_u32()).flatten().filter(|n| *n <= Decimal::MAX_SCALE)
    }

    fn is_zero(self) -> bool {
        match self {
            Exact(n) => n.is_zero(),
            Near(n) => n == 0.0,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exact(n) if n.is_zero() => f.write_str("0"),
            Exact(n) => write!(f, "{}", n.normalize()),
            Near(n) => f.write_str(&shown(*n)),
        }
    }
}

/// A floating-point number without the digits that rounding may have invented; very large and
/// very small ones as `1.5e30`.
fn shown(n: f64) -> String {
    let rounded = format!("{n:.*e}", SHOWN_DIGITS - 1).parse().unwrap_or(n);
    let plain = rounded == 0.0 || (1e-7..1e21).contains(&f64::abs(rounded));
    // `+ 0.0` turns a negative zero into zero.
    if plain { (rounded + 0.0).to_string() } else { format!("{rounded:e}") }
}

fn finite(n: f64) -> Result {
    if n.is_finite() { Ok(Near(n)) } else { Err(CalculatorError::TooLarge) }
}

fn real(n: f64, what: &'static str) -> Result {
    if n.is_nan() { Err(CalculatorError::NotReal { what }) } else { finite(n) }
}

/// The sum, unless it has more digits than a decimal.
fn exact_sum(a: Decimal, b: Decimal) -> Option<Decimal> {
    let sum = a.checked_add(b)?;
    (sum.checked_sub(a)? == b && sum.checked_sub(b)? == a).then_some(sum)
}

/// The product, unless it has more digits than a decimal.
fn exact_product(a: Decimal, b: Decimal) -> Option<Decimal> {
    if a.is_zero() || b.is_zero() {
        return Some(Decimal::ZERO);
    }
    let (a, b) = (a.normalize(), b.normalize());
    let product = a.checked_mul(b)?;
    (product.scale() == a.scale() + b.scale()).then_some(product)
}

fn exact_power(base: Decimal, times: u32) -> Option<Decimal> {
    let mut power = Decimal::ONE;
    for _ in 0..times {
        power = exact_product(power, base)?;
    }
    Some(power)
}
