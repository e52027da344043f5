//! `calculator`: arithmetic that a model should not do in its head.
//!
//! | file | what it does |
//! |---|---|
//! | `number.rs` | decimals that are exact as long as they can be |
//! | `expression.rs` | reads and evaluates an expression in one pass |
//!
//! Invariants:
//! - Any text gives a number or a [`CalculatorError`], in time and stack bounded by
//!   [`MAX_LENGTH`] and [`MAX_DEPTH`].
//! - `0.1 + 0.2` is `0.3`: digits that only the arithmetic invented are never shown.

mod expression;
mod number;

use async_trait::async_trait;
use exile_engine::tool::{Effect, Tool, ToolCx, ToolError, ToolErrorKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest expression, in characters.
pub(super) const MAX_LENGTH: usize = 1000;

/// How deep parentheses, functions, signs and powers may nest.
pub(super) const MAX_DEPTH: u32 = 50;

/// The tool.
pub(super) struct Calculator;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// What to calculate, e.g. `(12.5 + 3) * 2^3 / sqrt(16)`.
    expression: String,
}

#[async_trait]
impl Tool for Calculator {
    type Args = Args;
    type Output = Answer;
    const NAME: &'static str = "calculator";
    const DESCRIPTION: &'static str = "Calculates an arithmetic expression, exact to 28 digits. Operators: \
        + - * / % (remainder, with the divisor's sign) ^ (power) and parentheses. Functions: sqrt, \
        abs, round(x) or round(x, digits), floor, ceil, min, max, ln, log10, sin, cos, tan \
        (radians). Constants: pi, e. Write numbers without thousands separators.";
    const EFFECT: Effect = Effect::Pure;
    const TAINTS: bool = false;

    async fn call(&self, _: &ToolCx, args: Args) -> Result<Answer, ToolError> {
        calculate(&args.expression)
            .map_err(|e| ToolError::new(ToolErrorKind::InvalidArgs, e.to_string()))
    }
}

/// A result, as a JSON number where that loses no digit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// A whole number.
    Whole(i64),
    /// A number whose shortest decimal form is the result.
    Decimal(f64),
    /// All digits of a number that a JSON reader would round.
    Digits(String),
}

impl Answer {
    fn of(digits: String) -> Self {
        let same = |n: &f64| n.to_string() == digits || format!("{n:e}") == digits;
        match (digits.parse(), digits.parse().ok().filter(same)) {
            (Ok(whole), _) => Self::Whole(whole),
            (_, Some(decimal)) => Self::Decimal(decimal),
            _ => Self::Digits(digits),
        }
    }
}

/// Evaluates an expression.
pub fn calculate(expression: &str) -> Result<Answer, CalculatorError> {
    let length = expression.chars().count();
    if length > MAX_LENGTH {
        return Err(CalculatorError::TooLong { length });
    }
    expression::evaluate(expression).map(|number| Answer::of(number.to_string()))
}

/// Why an expression has no result. Positions count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalculatorError {
    /// See [`MAX_LENGTH`].
    #[error("the expression has {length} characters, at most {MAX_LENGTH} are allowed")]
    TooLong {
        /// In characters.
        length: usize,
    },
    /// See [`MAX_DEPTH`].
    #[error("the expression nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A character that no expression holds.
    #[error("`{found}` at position {at} is not part of an expression")]
    Character {
        /// The character.
        found: char,
        /// Where.
        at: usize,
    },
    /// Something else was due.
    #[error("expected {expected} at position {at}, found {found}")]
    Expected {
        /// What was due.
        expected: &'static str,
        /// What stood there.
        found: String,
        /// Where.
        at: usize,
    },
    /// Neither a function nor a constant.
    #[error("`{name}` is unknown; there are the functions {known} and the constants pi and e")]
    Unknown {
        /// As written.
        name: String,
        /// All functions.
        known: String,
    },
    /// A function got too few or too many arguments, or one that it cannot take.
    #[error("{function} takes {takes}")]
    Arguments {
        /// Its name.
        function: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// `x / 0` or `x % 0`.
    #[error("division by zero")]
    DivisionByZero,
    /// E.g. the square root of a negative number.
    #[error("{what} is not a real number")]
    NotReal {
        /// The operation.
        what: &'static str,
    },
    /// Above what a 64-bit floating-point number holds.
    #[error("the result is too large (above 1.8e308)")]
    TooLarge,
}
