//! Checks values of a [`Document`] against JSON Schemas, everything at once, in words that a
//! person can act on. The schemas are generated from the types that are read afterwards.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError, Validator};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::diagnostic::{FINDINGS_LIMIT, Finding, any_error, bound, code, sort, suggest};
use crate::document::{Document, child};

/// A schema, ready to check with.
#[derive(Debug)]
pub struct Shape {
    schema: Value,
    validator: Validator,
}

/// A finding and the value that it is about.
#[derive(Debug)]
pub(crate) struct Violation {
    /// A JSON pointer from the document's root.
    pub(crate) pointer: String,
    pub(crate) finding: Finding,
}

/// The draft-07 schema of a type, as it is read from YAML.
#[must_use]
pub fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::draft07().into_generator().into_root_schema_for::<T>().to_value()
}

/// Reads `value` (the document's, perhaps with variables filled in) as a `T`.
///
/// # Errors
/// Every finding of the document and its shape at once, sorted.
pub fn read<T>(document: &Document, value: Value) -> Result<T, Vec<Finding>>
where
    T: JsonSchema + DeserializeOwned,
{
    let mut findings = document.findings().to_vec();
    match Shape::new(schema_of::<T>()) {
        Ok(shape) => {
            findings.extend(shape.check(document, "", &value).into_iter().map(|v| v.finding));
        }
        Err(why) => findings.push(document.error_at(code::INVALID_SCHEMA, "", why, REPORT)),
    }
    if any_error(&findings) {
        sort(&mut findings);
        bound(&mut findings);
        return Err(findings);
    }
    serde_json::from_value(value).map_err(|error| vec![unread(document, "", &error)])
}

const REPORT: &str = "this is a defect of exile: please report it";

/// What the schema admits and the type does not: a limit that a schema cannot express.
pub(crate) fn unread(document: &Document, pointer: &str, error: &serde_json::Error) -> Finding {
    document.error_at(code::INVALID_VALUE, pointer, error.to_string(), "change the value")
}

impl Shape {
    /// Compiles a schema.
    ///
    /// # Errors
    /// The validator's words, if it is none.
    pub fn new(schema: Value) -> Result<Self, String> {
        let validator = jsonschema::validator_for(&schema).map_err(|error| error.to_string())?;
        Ok(Self { schema, validator })
    }

    /// Checks `value`, which stands at `pointer` of the document.
    pub(crate) fn check(
        &self,
        document: &Document,
        pointer: &str,
        value: &Value,
    ) -> Vec<Violation> {
        let words = Words { document, pointer, schema: &self.schema };
        let errors = self.validator.iter_errors(value);
        let violations = errors.flat_map(|error| words.violations(&error));
        violations.take(FINDINGS_LIMIT + 1).collect()
    }
}

/// Turns the validator's errors into findings.
struct Words<'a> {
    document: &'a Document,
    pointer: &'a str,
    schema: &'a Value,
}

impl Words<'_> {
    fn violations(&self, error: &ValidationError<'_>) -> Vec<Violation> {
        let at = format!("{}{}", self.pointer, error.instance_path().as_str());
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let keys = unexpected.iter().take(FINDINGS_LIMIT + 1);
                keys.map(|key| self.unknown_key(error, &at, key)).collect()
            }
            ValidationErrorKind::AnyOf { context }
            | ValidationErrorKind::OneOfNotValid { context } => {
                let words = allowed(context, error.instance_path().as_str());
                match best(context) {
                    _ if !words.is_empty() => vec![self.none_of(error, at, &words)],
                    Some(errors) => errors.iter().flat_map(|e| self.violations(e)).collect(),
                    None => vec![self.other(error, at)],
                }
            }
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                let message = format!("`{key}` is missing{}", of(&at));
                let fix = format!("add `{key}: …`");
                let finding = self.document.error_at_key(code::MISSING_KEY, &at, message, fix);
                vec![Violation { pointer: at, finding }]
            }
            ValidationErrorKind::Type { kind } => vec![self.wrong_type(error, at, kind)],
            ValidationErrorKind::Enum { options } => {
                let words: Vec<String> =
                    options.as_array().into_iter().flatten().map(plain).collect();
                vec![self.none_of(error, at, &words)]
            }
            ValidationErrorKind::Constant { expected_value } => {
                let message = format!("`{}` is not allowed{}", plain(error.instance()), of(&at));
                let fix = format!("write {expected_value}, or remove the key");
                vec![self.value(code::INVALID_VALUE, at, message, fix)]
            }
            _ => vec![self.other(error, at)],
        }
    }

    fn unknown_key(&self, error: &ValidationError<'_>, at: &str, key: &str) -> Violation {
        let schema = error.schema_path().as_str();
        let around = schema.rsplit_once('/').map_or("", |(around, _)| around);
        let known = self.schema.pointer(&format!("{around}/properties")).and_then(Value::as_object);
        let known: Vec<&str> =
            known.into_iter().flat_map(|map| map.keys().map(String::as_str)).collect();
        let pointer = child(at, key);
        let message = format!("the key `{key}` means nothing here");
        let fix = suggest(key, known);
        let finding = self.document.error_at_key(code::UNKNOWN_KEY, &pointer, message, fix);
        Violation { pointer, finding }
    }

    fn none_of(&self, error: &ValidationError<'_>, at: String, words: &[String]) -> Violation {
        let got = plain(error.instance());
        let message = format!("`{got}` is not allowed{}", of(&at));
        let fix = suggest(&got, words.iter().map(String::as_str));
        self.value(code::INVALID_VALUE, at, message, fix)
    }

    /// What the schema says about the form of a text.
    fn form(&self, error: &ValidationError<'_>) -> Option<&str> {
        let (around, _) = error.schema_path().as_str().rsplit_once('/')?;
        let around = self.schema.pointer(around)?;
        around.get("pattern")?;
        around.get("description")?.as_str()
    }

    fn wrong_type(&self, error: &ValidationError<'_>, at: String, kind: &TypeKind) -> Violation {
        let wanted: Vec<&str> = match kind {
            TypeKind::Single(one) => vec![one.as_str()],
            TypeKind::Multiple(many) => many.iter().map(JsonType::as_str).collect(),
        };
        let names: Vec<&str> =
            wanted.iter().filter(|name| **name != "null").map(|name| spoken(name)).collect();
        let got = error.instance();
        let message =
            format!("{} must be {}, not {}", subject(&at), names.join(" or "), kind_of(got));
        let scalar = got.is_number() || got.is_boolean();
        let fix = if let Some(form) = self.form(error) {
            form.to_owned()
        } else if wanted.contains(&"string") && scalar {
            format!("put it in quotes: '{}'", plain(got))
        } else if wanted.contains(&"array") && !wanted.contains(&"string") && got.is_string() {
            format!("write a list: [{}]", plain(got))
        } else if got.is_null() && wanted.iter().any(|kind| ["object", "array"].contains(kind)) {
            "indent what belongs to it further than its key, or remove the key".to_owned()
        } else if got.is_null() {
            "write a value after the colon, or remove the key".to_owned()
        } else {
            format!("write {}", names.join(" or "))
        };
        self.value(code::WRONG_TYPE, at, message, fix)
    }

    fn other(&self, error: &ValidationError<'_>, at: String) -> Violation {
        let message = format!("{}: {error}", subject(&at));
        let fix = match error.kind() {
            ValidationErrorKind::Minimum { limit } => format!("write {limit} or more"),
            ValidationErrorKind::Maximum { limit } => format!("write {limit} or less"),
            ValidationErrorKind::MinItems { limit } => format!("list at least {limit}"),
            _ => self.form(error).unwrap_or("change the value").to_owned(),
        };
        self.value(code::INVALID_VALUE, at, message, fix)
    }

    fn value(&self, code: &'static str, at: String, message: String, fix: String) -> Violation {
        let finding = self.document.error_at(code, &at, message, fix);
        Violation { pointer: at, finding }
    }
}

/// The words that alternatives allow, if all of them are single words for the value at `path`.
fn allowed(context: &[Vec<ValidationError<'static>>], path: &str) -> Vec<String> {
    let words = |errors: &Vec<ValidationError<'static>>| match errors.as_slice() {
        [only] if only.instance_path().as_str() == path => match only.kind() {
            ValidationErrorKind::Constant { expected_value } => Some(vec![plain(expected_value)]),
            ValidationErrorKind::Enum { options } => {
                Some(options.as_array().into_iter().flatten().map(plain).collect())
            }
            ValidationErrorKind::AnyOf { context }
            | ValidationErrorKind::OneOfNotValid { context } => Some(allowed(context, path)),
            // An optional value's schema ends with `null`.
            ValidationErrorKind::Type { kind: TypeKind::Single(JsonType::Null) } => Some(vec![]),
            _ => None,
        },
        _ => None,
    };
    let lists: Option<Vec<Vec<String>>> = context.iter().map(words).collect();
    lists.into_iter().flatten().flatten().collect()
}

/// Of alternatives that all failed, the one that was probably meant: its errors lie deepest.
fn best<'e>(
    context: &'e [Vec<ValidationError<'static>>],
) -> Option<&'e [ValidationError<'static>]> {
    let depth = |errors: &&Vec<ValidationError<'static>>| {
        let deep = |e: &ValidationError<'static>| e.instance_path().as_str().matches('/').count();
        let typed = |e: &ValidationError<'static>| match e.kind() {
            ValidationErrorKind::Type { .. } => false,
            ValidationErrorKind::Enum { options } => {
                let of_its_kind = |word: &Value| kind_of(word) == kind_of(e.instance());
                options.as_array().is_some_and(|words| words.iter().any(of_its_kind))
            }
            _ => true,
        };
        (errors.iter().map(deep).max(), errors.iter().all(typed))
    };
    // The first of equals: an optional value's schema ends with `null`.
    context.iter().rev().max_by_key(depth).map(Vec::as_slice).filter(|errors| !errors.is_empty())
}

fn of(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!(" in {}", subject(pointer)) }
}

/// The last key of a pointer, as it is spoken of.
fn subject(pointer: &str) -> String {
    match pointer.rsplit_once('/') {
        None => "the file".to_owned(),
        Some((around, index)) if index.parse::<usize>().is_ok() => {
            format!("item {} of {}", index.parse::<usize>().unwrap_or(0) + 1, subject(around))
        }
        Some((_, key)) => format!("`{}`", key.replace("~1", "/").replace("~0", "~")),
    }
}

pub(crate) fn spoken(kind: &str) -> &str {
    match kind {
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a map",
        "null" => "nothing",
        other => other,
    }
}

pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => crate::state::short(other),
    }
}
