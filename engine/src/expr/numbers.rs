//! Calculating: exactly, or not at all.
//!
//! - Whole numbers stay whole and within 64 bits, with or without a sign: what does not fit is an
//!   error, never a rounded number. `/` gives a float.
//! - A whole number that a float cannot hold to the digit does not meet one.
//! - A float is finite.
//!
//! `true` and `false` count as 1 and 0, as the library has it.

use crate::expr::budget::{Fault, Outcome};
use crate::expr::datum::Datum;
use crate::expr::syntax::Operator;

#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub(super) fn of(datum: &Datum<'_>) -> Option<Self> {
        match datum {
            Datum::Bool(yes) => Some(Self::Int((*yes).into())),
            Datum::Int(whole) => Some(Self::Int(*whole)),
            Datum::Float(float) => Some(Self::Float(*float)),
            _ => None,
        }
    }

    /// The float that is this number to the digit.
    pub(super) fn exactly(self) -> Outcome<f64> {
        match self {
            Self::Float(float) => Ok(float),
            Self::Int(whole) => {
                #[allow(clippy::cast_precision_loss, reason = "it is checked by going back")]
                let float = whole as f64;
                #[allow(clippy::cast_possible_truncation, reason = "within 65 bits")]
                let same = float as i128 == whole;
                if same {
                    return Ok(float);
                }
                Err(Fault::new(format!(
                    "{whole} has more digits than a number with a fraction can keep"
                )))
            }
        }
    }
}

/// A whole number, if it fits into 64 bits.
pub(super) fn int<'s>(whole: i128) -> Outcome<Datum<'s>> {
    if (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&whole) {
        return Ok(Datum::Int(whole));
    }
    Err(Fault::new(format!("{whole} does not fit into 64 bits")))
}

/// A float, if it is finite.
pub(super) fn float<'s>(float: f64) -> Outcome<Datum<'s>> {
    if float.is_finite() {
        return Ok(Datum::Float(float));
    }
    Err(Fault::new("the result is no finite number"))
}

/// `-of`.
pub(super) fn negative<'s>(of: &Datum<'_>) -> Outcome<Datum<'s>> {
    match Number::of(of) {
        Some(Number::Int(whole)) => int(-whole),
        Some(Number::Float(number)) => float(-number),
        None => Err(Fault::new(format!("{} has no negative", of.kind()))),
    }
}

/// Two numbers and an operator between them; [`Operator::Concat`] is none of numbers.
pub(super) fn calculate<'s>(operator: Operator, a: Number, b: Number) -> Outcome<Datum<'s>> {
    match (operator, a, b) {
        (Operator::Div, _, _) => {
            let (a, b) = (a.exactly()?, b.exactly()?);
            if b == 0.0 { Err(by_zero()) } else { float(a / b) }
        }
        (_, Number::Int(a), Number::Int(b)) => whole(operator, a, b),
        _ => fraction(operator, a.exactly()?, b.exactly()?),
    }
}

/// Two numbers of at most 65 bits have a sum, a difference and a product in 128.
fn whole<'s>(operator: Operator, a: i128, b: i128) -> Outcome<Datum<'s>> {
    match operator {
        Operator::Add => int(a + b),
        Operator::Sub => int(a - b),
        Operator::Mul => match a.checked_mul(b) {
            Some(product) => int(product),
            None => Err(Fault::new(format!("{a} * {b} does not fit into 64 bits"))),
        },
        Operator::FloorDiv | Operator::Rem if b == 0 => Err(by_zero()),
        Operator::FloorDiv => {
            let quotient = a / b;
            int(if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient })
        }
        Operator::Rem => {
            let rest = a % b;
            int(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
        }
        Operator::Pow => power(a, b),
        Operator::Div | Operator::Concat => Err(Fault::new("these are no two whole numbers")),
    }
}

fn power<'s>(base: i128, exponent: i128) -> Outcome<Datum<'s>> {
    if exponent < 0 {
        if base == 0 {
            return Err(by_zero());
        }
        return float(Number::Int(base).exactly()?.powf(Number::Int(exponent).exactly()?));
    }
    // Of these even the largest exponent is no work.
    let small = match base {
        0 | 1 => Some(if exponent == 0 { 1 } else { base }),
        -1 => Some(if exponent % 2 == 0 { 1 } else { -1 }),
        _ => None,
    };
    let power = small.or_else(|| base.checked_pow(u32::try_from(exponent).ok()?));
    match power {
        Some(power) => int(power),
        None => Err(Fault::new(format!("{base} ** {exponent} does not fit into 64 bits"))),
    }
}

fn fraction<'s>(operator: Operator, a: f64, b: f64) -> Outcome<Datum<'s>> {
    match operator {
        Operator::Add => float(a + b),
        Operator::Sub => float(a - b),
        Operator::Mul => float(a * b),
        Operator::FloorDiv | Operator::Rem if b == 0.0 => Err(by_zero()),
        Operator::FloorDiv => float((a / b).floor()),
        Operator::Rem => {
            let rest = a % b;
            float(match (rest < 0.0) != (b < 0.0) {
                // A remainder has the divisor's sign, one of nothing too.
                _ if rest == 0.0 => 0.0_f64.copysign(b),
                true => rest + b,
                false => rest,
            })
        }
        Operator::Pow if a == 0.0 && b < 0.0 => Err(by_zero()),
        Operator::Pow => float(a.powf(b)),
        Operator::Div | Operator::Concat => Err(Fault::new("these are no two numbers")),
    }
}

fn by_zero() -> Fault {
    Fault::new("nothing can be divided by 0")
}
