//! An object of a body, read field by field; what is wrong is said as OpenAI says it.

use serde_json::{Map, Value};

use crate::http::problem::Problem;

/// An object and its place in the body.
pub(super) struct Fields {
    left: Map<String, Value>,
    /// E.g. `messages[0]`; empty for the body itself.
    place: String,
}

impl Fields {
    /// The fields of an object at `place`.
    pub(super) fn of(value: Value, place: &str) -> Result<Self, Problem> {
        match value {
            Value::Object(left) => Ok(Self { left, place: place.to_owned() }),
            other => Err(wrong_type(place, "an object", &other)),
        }
    }

    /// Where a field stands, e.g. `messages[0].content`.
    pub(super) fn place(&self, field: &str) -> String {
        if self.place.is_empty() { field.to_owned() } else { format!("{}.{field}", self.place) }
    }

    /// A field of any type. `null` says as much as leaving it out.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.left.remove(field).filter(|value| !value.is_null())
    }

    /// A text.
    pub(super) fn text(&mut self, field: &str) -> Result<Option<String>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(&self.place(field), "a string", &other)),
        }
    }

    /// A text that must be there.
    pub(super) fn required(&mut self, field: &str) -> Result<String, Problem> {
        self.text(field)?.ok_or_else(|| missing(&self.place(field)))
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, field: &str) -> Result<Option<bool>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong_type(&self.place(field), "a boolean", &other)),
        }
    }

    /// A whole number from 1.
    pub(super) fn count(&mut self, field: &str) -> Result<Option<u32>, Problem> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let Some(number) = value.as_i64() else {
            return Err(wrong_type(&self.place(field), "an integer", &value));
        };
        u32::try_from(number).ok().filter(|n| *n > 0).map(Some).ok_or_else(|| {
            let place = self.place(field);
            let what =
                format!("Invalid '{place}': expected a value >= 1, but got {number} instead.");
            refused(&place, "integer_below_min_value", what)
        })
    }

    /// A number.
    pub(super) fn number(&mut self, field: &str) -> Result<Option<f64>, Problem> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let number = value.as_f64();
        number.map(Some).ok_or_else(|| wrong_type(&self.place(field), "a number", &value))
    }

    /// A list.
    pub(super) fn list(&mut self, field: &str) -> Result<Option<Vec<Value>>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(wrong_type(&self.place(field), "an array", &other)),
        }
    }

    /// An object.
    pub(super) fn object(&mut self, field: &str) -> Result<Option<Self>, Problem> {
        let place = self.place(field);
        self.take(field).map(|value| Self::of(value, &place)).transpose()
    }

    /// Refuses a field, if it is there and says anything.
    pub(super) fn refuse(&mut self, field: &str, why: &str) -> Result<(), Problem> {
        match self.take(field) {
            None => Ok(()),
            Some(_) => Err(unsupported(&self.place(field), why)),
        }
    }

    /// What nobody has read.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.left.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }

    /// Refuses what nobody has read.
    pub(super) fn end(self) -> Result<(), Problem> {
        let Some((field, _)) = self.left.iter().find(|(_, value)| !value.is_null()) else {
            return Ok(());
        };
        let place = self.place(field);
        Err(refused(&place, "unknown_parameter", format!("Unknown parameter: '{place}'.")))
    }
}

/// A field that cannot be taken as it is.
pub(super) fn refused(place: &str, code: &'static str, what: String) -> Problem {
    Problem::Parameter { param: Some(place.to_owned()), code: Some(code), what }
}

/// A field that exile knows and does not serve.
pub(super) fn unsupported(place: &str, why: &str) -> Problem {
    let what = format!("Unsupported parameter: '{place}' is not supported: {why}.");
    refused(place, "unsupported_parameter", what)
}

/// A value that exile does not serve.
pub(super) fn unsupported_value(place: &str, value: &str, why: &str) -> Problem {
    let what = format!("Unsupported value: '{place}' does not support {value}: {why}.");
    refused(place, "unsupported_value", what)
}

pub(super) fn missing(place: &str) -> Problem {
    let what = format!("Missing required parameter: '{place}'.");
    refused(place, "missing_required_parameter", what)
}

pub(super) fn wrong_type(place: &str, expected: &str, found: &Value) -> Problem {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    let what = format!("Invalid type for '{place}': expected {expected}, but got {found} instead.");
    refused(place, "invalid_type", what)
}
