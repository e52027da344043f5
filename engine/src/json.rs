//! JSON from outside: what is refused before it is parsed, and what is refused before it is kept.
//!
//! Requests, tool arguments, tool answers, model answers and writes to channels all come through
//! here, so that whatever is stored can be read again: `serde_json` gives up at 128 levels, and a
//! record wraps a value in a few levels of its own.
//!
//! Invariants:
//! - Refusing costs one pass over the bytes and no memory.
//! - A number is kept to the digit or refused, never rounded.

use serde_json::Value;

/// What JSON from outside may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Levels of lists and objects, one inside the other.
    pub depth: usize,
    /// Values, lists and objects among them.
    pub values: usize,
}

impl Bounds {
    /// What an installation admits unless `exile.yaml` says otherwise. A parsed value takes about
    /// 80 bytes, so these many take 80 MB.
    pub const DEFAULT: Self = Self { depth: 64, values: 1_000_000 };
}

impl Default for Bounds {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in bytes.
    pub column: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why JSON from outside is refused.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It nests too deep.
    #[error("it nests deeper than {limit} levels at {place}")]
    TooDeep {
        /// Allowed levels.
        limit: usize,
        /// Where the first level too many begins.
        place: Place,
    },
    /// It holds too many values.
    #[error("it holds more than {limit} values")]
    TooMany {
        /// Allowed values.
        limit: usize,
    },
    /// A number that 64 bits do not hold to the digit.
    #[error("the number {number} at {place} does not fit into 64 bits; write it as a string")]
    Number {
        /// Its first digits.
        number: String,
        /// Where it begins.
        place: Place,
    },
    /// It is no JSON.
    #[error("it is not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
}

/// What a scan found in a text that it admits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Values, lists and objects among them: what the text takes once it is parsed.
    pub values: usize,
    /// The first escaped `U+0000` inside a string, which only some callers refuse.
    pub nul: Option<Place>,
}

/// Parses a text that [`scan`] admits.
pub fn parse(text: &str, bounds: Bounds) -> Result<Value, JsonError> {
    scan(text.as_bytes(), bounds)?;
    Ok(serde_json::from_str(text)?)
}

/// Walks over a text outside its strings. What is no JSON at all passes here and is found by the
/// parser afterwards.
pub fn scan(bytes: &[u8], bounds: Bounds) -> Result<Scanned, JsonError> {
    let (mut depth, mut values) = (0_usize, 1_usize);
    let (mut line, mut start) = (1, 0);
    let mut scanned = Scanned::default();
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let place = Place { line, column: i - start + 1 };
        match byte {
            b'"' => {
                i = string_end(bytes, i + 1, |at| {
                    let column = at - start + 1;
                    scanned.nul.get_or_insert(Place { line, column });
                });
            }
            b'[' | b'{' => {
                (depth, values) = (depth + 1, values + 1);
                if depth > bounds.depth {
                    return Err(JsonError::TooDeep { limit: bounds.depth, place });
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            b'\n' => (line, start) = (line + 1, i + 1),
            b'-' | b'0'..=b'9' => {
                let digit =
                    |b: &u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
                let end = bytes[i..].iter().position(|b| !digit(b)).map_or(bytes.len(), |n| i + n);
                let number = std::str::from_utf8(&bytes[i..end]).unwrap_or_default();
                if !keeps_digits(number) {
                    let number = number.chars().take(40).collect();
                    return Err(JsonError::Number { number, place });
                }
                i = end;
                continue;
            }
            _ => {}
        }
        if values > bounds.values {
            return Err(JsonError::TooMany { limit: bounds.values });
        }
        i += 1;
    }
    scanned.values = values;
    Ok(scanned)
}

/// The place of the quote that closes a string, or the end. `nul` is told where `\u0000` stands.
fn string_end(bytes: &[u8], from: usize, mut nul: impl FnMut(usize)) -> usize {
    let mut i = from;
    while let Some(&byte) = bytes.get(i) {
        match byte {
            b'"' => return i,
            b'\\' => {
                if bytes[i + 1..].starts_with(b"u0000") {
                    nul(i);
                }
                i += 2;
            }
            _ => i += 1,
        }
    }
    bytes.len()
}

/// Whether a number that is read as an `i64`, a `u64` or an `f64` prints as it was written. A text
/// that is no number passes: the parser refuses it.
pub(crate) fn keeps_digits(text: &str) -> bool {
    if !text.contains(['.', 'e', 'E']) {
        return text.len() < 19
            || text.parse::<i64>().is_ok()
            || text.parse::<u64>().is_ok()
            || !text.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit());
    }
    let Ok(number) = text.parse::<f64>() else { return true };
    // Of two shortest texts that stand for one number, printers may choose either: what counts is
    // how the number will be printed here.
    let printed = serde_json::Number::from_f64(number).map(|number| number.to_string());
    printed.is_some_and(|printed| significant(text) == significant(&printed))
}

/// The digits of a decimal number from its first to its last that is not zero, and the power of
/// ten that the first of them stands for.
fn significant(text: &str) -> (String, i64) {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.trim_start_matches('+').parse().unwrap_or(i64::MAX / 2);
    let mantissa = mantissa.trim_start_matches(['-', '+']);
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: String = [whole, part].concat();
    let leading = digits.bytes().take_while(|b| *b == b'0').count();
    let kept = digits.trim_matches('0');
    if kept.is_empty() {
        return (String::new(), 0);
    }
    let place = |n: usize| i64::try_from(n).unwrap_or(i64::MAX / 2);
    (kept.to_owned(), exponent.saturating_add(place(whole.len()) - place(leading) - 1))
}

/// Whether a value nests at most so many levels.
#[must_use]
pub fn is_within(value: &Value, depth: usize) -> bool {
    let mut open = vec![(value, 0)];
    while let Some((value, level)) = open.pop() {
        let inside = level + 1;
        match value {
            Value::Array(items) if inside <= depth => {
                open.extend(items.iter().map(|item| (item, inside)));
            }
            Value::Object(fields) if inside <= depth => {
                open.extend(fields.values().map(|field| (field, inside)));
            }
            Value::Array(_) | Value::Object(_) => return false,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    true
}

/// What a value takes in memory, about, in bytes: text as it is, and as much for each value, list
/// and object as a parsed one takes.
#[must_use]
pub fn weigh(value: &Value) -> usize {
    const EACH: usize = size_of::<Value>();
    EACH + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weigh).sum(),
        Value::Object(fields) => fields.iter().map(|(key, v)| EACH + key.len() + weigh(v)).sum(),
    }
}

/// A hash of a value; equal values have equal ones, whatever the order of an object's fields.
#[must_use]
pub fn hash(value: &Value) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    std::mem::discriminant(value).hash(&mut hasher);
    match value {
        Value::Null => {}
        Value::Bool(yes) => yes.hash(&mut hasher),
        Value::Number(number) => number.hash(&mut hasher),
        Value::String(text) => text.hash(&mut hasher),
        Value::Array(items) => items.iter().for_each(|item| hash(item).hash(&mut hasher)),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                let mut hasher = DefaultHasher::new();
                (key, hash(value)).hash(&mut hasher);
                hasher.finish()
            };
            fields.iter().map(field).fold(0_u64, u64::wrapping_add).hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(text: &str) -> String {
        parse(text, Bounds { depth: 3, values: 8 }).unwrap_err().to_string()
    }

    #[test]
    fn depth_and_values_are_counted_outside_strings() {
        let admitted = r#"{"a": [[1, "[[[[{{,,,,,,,,"]], "b\"[": 2}"#;
        assert!(parse(admitted, Bounds { depth: 3, values: 8 }).is_ok());
        assert_eq!(
            refused("{\"a\":\n [[[1]]]}"),
            "it nests deeper than 3 levels at line 2, column 4"
        );
        assert_eq!(refused("[1,2,3,4,5,6,7,8]"), "it holds more than 8 values");
        assert!(refused("[1").starts_with("it is not JSON"));
        assert_eq!(scan(br#"["\\u0000"]"#, Bounds::DEFAULT).unwrap().nul, None);
        let nul = scan(br#"["a\u0000"]"#, Bounds::DEFAULT).unwrap().nul;
        assert_eq!(nul, Some(Place { line: 1, column: 4 }));
    }

    #[test]
    fn a_number_is_kept_to_the_digit_or_refused() {
        for kept in [
            "0",
            "-0",
            "1.0",
            "1.50",
            "0.1",
            "1e3",
            "1E+3",
            "-2.5e-7",
            "9223372036854775807",
            "-9223372036854775808",
            "18446744073709551615",
            "0.30000000000000004",
            "5e-324",
            "1.7976931348623157e308",
            "0.000",
            "100e-2",
        ] {
            assert!(parse(kept, Bounds::DEFAULT).is_ok(), "{kept}");
        }
        for lost in [
            "18446744073709551616",
            "-9223372036854775809",
            "12345678901234567890123",
            "1e400",
            "-1e400",
            "1e-400",
            "0.1234567890123456789",
            "9007199254740993.0",
            "1e99999999999",
            "0.1000000000000000055511151231257827",
        ] {
            let error = parse(&format!("{{\"n\":{lost}}}"), Bounds::DEFAULT).unwrap_err();
            assert!(matches!(error, JsonError::Number { .. }), "{lost}: {error}");
        }
    }

    #[test]
    fn depth_of_a_value_is_that_of_its_text() {
        let nested =
            |levels: usize| (0..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        assert!(is_within(&Value::Null, 0));
        assert!(is_within(&nested(64), 64));
        assert!(!is_within(&nested(65), 64));
    }

    proptest! {
        #[test]
        fn whatever_prints_is_read_back_as_it_was(
            float in any::<f64>(), whole in any::<i64>(), large in any::<u64>(),
        ) {
            for value in [Value::from(float), Value::from(whole), Value::from(large)] {
                let text = value.to_string();
                prop_assert_eq!(parse(&text, Bounds::DEFAULT).unwrap(), value);
            }
        }

        #[test]
        fn no_bytes_break_a_scan(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = scan(&bytes, Bounds::DEFAULT);
        }

        #[test]
        fn digits_that_a_float_cannot_hold_are_refused(
            whole in "[1-9][0-9]{0,9}", part in "[0-9]{0,25}",
        ) {
            let text = format!("{whole}.{part}1");
            let held: f64 = text.parse().unwrap();
            let same = significant(&Value::from(held).to_string()) == significant(&text);
            prop_assert_eq!(parse(&text, Bounds::DEFAULT).is_ok(), same);
        }
    }
}
