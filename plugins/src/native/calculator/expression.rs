//! Reads and evaluates an arithmetic expression in one pass, by binding power (Pratt).
//!
//! | operator | binds | |
//! |---|---|---|
//! | `+` `-` | 1 | from the left |
//! | `*` `/` `%` | 3 | from the left |
//! | sign | 5 | `-2^2` is `-4` |
//! | `^` `**` | 8 | from the right: `2^3^2` is `2^9` |

use std::cmp::Ordering;

use super::number::Number;
use super::{CalculatorError, MAX_DEPTH};

type Result<T> = std::result::Result<T, CalculatorError>;

/// The value of `text`.
pub(super) fn evaluate(text: &str) -> Result<Number> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let value = parser.expression(0)?;
    parser.expect(&Token::End, "an operator or the end")?;
    Ok(value)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// Digits with at most one point, and a power of ten.
    Number(String, i32),
    Name(String),
    Operator(Operator),
    Open,
    Close,
    Comma,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Plus,
    Minus,
    Times,
    Over,
    Remainder,
    Power,
}

impl Operator {
    /// How strongly it binds to its left and to its right.
    fn binds(self) -> (u8, u8) {
        match self {
            Self::Plus | Self::Minus => (1, 2),
            Self::Times | Self::Over | Self::Remainder => (3, 4),
            Self::Power => (8, 7),
        }
    }

    fn apply(self, left: Number, right: Number) -> Result<Number> {
        match self {
            Self::Plus => left.plus(right),
            Self::Minus => left.minus(right),
            Self::Times => left.times(right),
            Self::Over => left.over(right),
            Self::Remainder => left.remainder(right),
            Self::Power => left.power(right),
        }
    }
}

/// How strongly a sign binds to what follows it.
const SIGN_BINDS: u8 = 5;

struct Parser {
    /// Each with its position, the last one [`Token::End`].
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: u32,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn expect(&mut self, due: &Token, expected: &'static str) -> Result<()> {
        if self.peek() != due {
            return Err(self.unexpected(expected));
        }
        self.next += 1;
        Ok(())
    }

    fn unexpected(&self, expected: &'static str) -> CalculatorError {
        let found = match self.peek() {
            Token::Number(digits, _) => format!("the number {digits}"),
            Token::Name(name) => format!("`{name}`"),
            Token::Operator(_) => "an operator".to_owned(),
            Token::Open => "`(`".to_owned(),
            Token::Close => "`)`".to_owned(),
            Token::Comma => "`,` (write numbers without thousands separators)".to_owned(),
            Token::End => "the end".to_owned(),
        };
        let at = self.tokens.get(self.next).map_or(0, |(at, _)| *at);
        CalculatorError::Expected { expected, found, at }
    }

    /// An operand and all operators after it that bind at least as strongly as `binds`.
    fn expression(&mut self, binds: u8) -> Result<Number> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(CalculatorError::TooDeep);
        }
        let mut value = self.operand()?;
        while let Token::Operator(operator) = *self.peek()
            && operator.binds().0 >= binds
        {
            self.next += 1;
            let right = self.expression(operator.binds().1)?;
            value = operator.apply(value, right)?;
        }
        self.depth -= 1;
        Ok(value)
    }

    fn operand(&mut self) -> Result<Number> {
        let error = self.unexpected("a number, a name, a sign or `(`");
        match self.take() {
            Token::Number(digits, exponent) => {
                Number::read(&digits, exponent).unwrap_or(Err(error))
            }
            Token::Name(name) if *self.peek() == Token::Open => self.function(&name),
            Token::Name(name) => constant(&name),
            Token::Operator(Operator::Minus) => Ok(self.expression(SIGN_BINDS)?.negated()),
            Token::Operator(Operator::Plus) => self.expression(SIGN_BINDS),
            Token::Open => {
                let value = self.expression(0)?;
                self.expect(&Token::Close, "an operator or `)`")?;
                Ok(value)
            }
            _ => Err(error),
        }
    }

    fn function(&mut self, name: &str) -> Result<Number> {
        let function = FUNCTIONS.iter().find(|f| f.name.eq_ignore_ascii_case(name));
        let function = function.ok_or_else(|| unknown(name))?;
        self.expect(&Token::Open, "`(`")?;
        let mut args = Vec::new();
        if *self.peek() != Token::Close {
            args.push(self.expression(0)?);
            while *self.peek() == Token::Comma {
                self.next += 1;
                args.push(self.expression(0)?);
            }
        }
        self.expect(&Token::Close, "an operator, `,` or `)`")?;
        let (name, takes) = (function.name, function.takes);
        (function.apply)(&args).unwrap_or(Err(CalculatorError::Arguments { function: name, takes }))
    }
}

/// A function and what it does; `None` if it does not take these arguments.
struct Function {
    name: &'static str,
    takes: &'static str,
    apply: fn(&[Number]) -> Option<Result<Number>>,
}

const ONE: &str = "one argument";
const SOME: &str = "one argument or more, separated by commas";

const FUNCTIONS: &[Function] = &[
    Function { name: "sqrt", takes: ONE, apply: |a| one(a).map(Number::root) },
    Function { name: "abs", takes: ONE, apply: |a| one(a).map(|n| Ok(n.magnitude())) },
    Function { name: "round", takes: "a number and at most 28 digits", apply: round },
    Function { name: "floor", takes: ONE, apply: |a| one(a).map(|n| Ok(n.floor())) },
    Function { name: "ceil", takes: ONE, apply: |a| one(a).map(|n| Ok(n.ceil())) },
    Function { name: "min", takes: SOME, apply: |a| extreme(a, Ordering::Less) },
    Function { name: "max", takes: SOME, apply: |a| extreme(a, Ordering::Greater) },
    Function { name: "ln", takes: ONE, apply: |a| one(a).map(|n| n.logarithm(f64::ln)) },
    Function { name: "log10", takes: ONE, apply: |a| one(a).map(|n| n.logarithm(f64::log10)) },
    Function { name: "sin", takes: ONE, apply: |a| one(a).map(|n| n.angle(f64::sin)) },
    Function { name: "cos", takes: ONE, apply: |a| one(a).map(|n| n.angle(f64::cos)) },
    Function { name: "tan", takes: ONE, apply: |a| one(a).map(|n| n.angle(f64::tan)) },
];

fn one(args: &[Number]) -> Option<Number> {
    match args {
        [number] => Some(*number),
        _ => None,
    }
}

fn round(args: &[Number]) -> Option<Result<Number>> {
    match args {
        [number] => Some(Ok(number.rounded(0))),
        [number, digits] => digits.digits().map(|digits| Ok(number.rounded(digits))),
        _ => None,
    }
}

fn extreme(args: &[Number], wanted: Ordering) -> Option<Result<Number>> {
    args.iter().copied().reduce(|a, b| if b.compare(a) == wanted { b } else { a }).map(Ok)
}

fn constant(name: &str) -> Result<Number> {
    match name.to_ascii_lowercase().as_str() {
        "pi" | "π" => Ok(Number::Near(std::f64::consts::PI)),
        "e" => Ok(Number::Near(std::f64::consts::E)),
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> CalculatorError {
    let known: Vec<&str> = FUNCTIONS.iter().map(|f| f.name).collect();
    CalculatorError::Unknown { name: name.to_owned(), known: known.join(", ") }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let start = at;
        let rest = &chars[at..];
        let token = match c {
            c if c.is_whitespace() => {
                at += 1;
                continue;
            }
            '0'..='9' | '.' => number(rest, &mut at),
            c if c.is_alphabetic() => {
                let name: String = rest.iter().take_while(|c| c.is_alphanumeric()).collect();
                at += name.chars().count();
                Token::Name(name)
            }
            '*' if rest.get(1) == Some(&'*') => {
                at += 2;
                Token::Operator(Operator::Power)
            }
            _ => {
                at += 1;
                symbol(c).ok_or(CalculatorError::Character { found: c, at })?
            }
        };
        tokens.push((start + 1, token));
    }
    tokens.push((chars.len() + 1, Token::End));
    Ok(tokens)
}

/// Operators and brackets, also as Chinese keyboards and typeset texts have them.
fn symbol(c: char) -> Option<Token> {
    Some(match c {
        '+' | '＋' => Token::Operator(Operator::Plus),
        '-' | '−' | '－' => Token::Operator(Operator::Minus),
        '*' | '×' => Token::Operator(Operator::Times),
        '/' | '÷' => Token::Operator(Operator::Over),
        '%' => Token::Operator(Operator::Remainder),
        '^' => Token::Operator(Operator::Power),
        '(' | '（' => Token::Open,
        ')' | '）' => Token::Close,
        ',' | '，' => Token::Comma,
        _ => return None,
    })
}

/// `12`, `1.5`, `.5`, `2e-3`; `at` moves behind it.
fn number(rest: &[char], at: &mut usize) -> Token {
    let digits: String = rest.iter().take_while(|c| c.is_ascii_digit() || **c == '.').collect();
    *at += digits.len();
    let mut exponent = 0;
    if let Some(power) = power_of_ten(&rest[digits.len()..])
        && let Ok(parsed) = power.trim_start_matches('+').parse()
    {
        *at += 1 + power.len();
        exponent = parsed;
    }
    Token::Number(digits, exponent)
}

/// The `-3` of `e-3`, if that is what follows the digits.
fn power_of_ten(rest: &[char]) -> Option<String> {
    let (['e' | 'E'], rest) = rest.split_at_checked(1)? else { return None };
    let sign = usize::from(matches!(rest.first(), Some('+' | '-')));
    let digits = rest[sign..].iter().take_while(|c| c.is_ascii_digit()).count();
    (digits > 0).then(|| rest[..sign + digits].iter().collect())
}
