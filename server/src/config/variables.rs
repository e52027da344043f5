//! Environment variables as a value, and their `${…}` form in `exile.yaml`.
//!
//! Invariants:
//! - The process's environment is read once and goes before `.env`, which never changes it.
//! - `${X}` must be set; `${X:-y}` is `y` where `X` is unset or empty; `$${` stands for `${`.
//! - Only string values are substituted, after parsing: a value can never add keys.

use std::collections::BTreeMap;
use std::path::Path;

use exile_engine::document::child;
use serde_json::Value;

use super::complaint::Complaint;

/// Names and values.
#[derive(Clone, Default)]
pub struct Variables(BTreeMap<String, String>);

impl std::fmt::Debug for Variables {
    /// Names alone: values may be keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Variables {
    /// Of this process; what is not UTF-8 is left out.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(k, v): (std::ffi::OsString, std::ffi::OsString)| {
            Some((k.into_string().ok()?, v.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// These.
    #[must_use]
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    /// Adds those of a `.env` file that are not set yet. A missing file adds none.
    pub fn add_file(&mut self, path: &Path) -> Result<(), dotenvy::Error> {
        if !path.is_file() {
            return Ok(());
        }
        for pair in dotenvy::from_path_iter(path)? {
            let (name, value) = pair?;
            self.0.entry(name).or_insert(value);
        }
        Ok(())
    }

    /// The value of a variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// Replaces `${…}` in every text below `value`; says what could not be.
    pub fn substitute(&self, value: &mut Value) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        self.walk(value, "", &mut complaints);
        complaints
    }

    fn walk(&self, value: &mut Value, place: &str, complaints: &mut Vec<Complaint>) {
        match value {
            Value::String(text) => match self.expand(text) {
                Ok(expanded) => *text = expanded,
                Err(fault) => complaints.push(fault.at(place)),
            },
            Value::Array(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    self.walk(item, &child(place, &i.to_string()), complaints);
                }
            }
            Value::Object(entries) => {
                for (key, item) in entries.iter_mut() {
                    self.walk(item, &child(place, key), complaints);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Replaces every `${…}` in a text.
    pub fn expand(&self, text: &str) -> Result<String, ExpandFault> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at]);
                out.push('{');
                rest = &rest[at + 2..];
                continue;
            }
            out.push_str(&rest[..at]);
            let inside = &rest[at + 2..];
            let end = inside.find('}').ok_or_else(|| ExpandFault::Open(rest[at..].to_owned()))?;
            out.push_str(self.reference(&inside[..end])?);
            rest = &inside[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn reference<'a>(&'a self, inside: &'a str) -> Result<&'a str, ExpandFault> {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(good) {
            return Err(ExpandFault::Name(inside.to_owned()));
        }
        self.get(name).or(default).ok_or_else(|| ExpandFault::Unset(name.to_owned()))
    }
}

/// The variable that a text names first: `X` of `${X:-y}`.
#[must_use]
pub(super) fn first_named(text: &str) -> Option<&str> {
    let inside = text.split_once("${")?.1;
    let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    (end > 0).then(|| &inside[..end])
}

/// Why a text cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandFault {
    /// Neither a value nor a default.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// Not a name.
    #[error("`${{{0}}}` names no variable")]
    Name(String),
    /// No `}`.
    #[error("`{0}` is not closed")]
    Open(String),
}

impl ExpandFault {
    fn at(self, place: &str) -> Complaint {
        let message = self.to_string();
        let (code, fix) = match self {
            Self::Unset(name) => (
                "variable_unset",
                format!("set {name}, put it into .env, or write ${{{name}:-default}}"),
            ),
            Self::Name(_) => (
                "variable_name",
                "write ${NAME} or ${NAME:-default}; `$${` stands for a plain `${`".to_owned(),
            ),
            Self::Open(_) => {
                ("variable_open", "add the `}`; `$${` stands for a plain `${`".to_owned())
            }
        };
        Complaint { place: place.to_owned(), code, message, fix }
    }
}
