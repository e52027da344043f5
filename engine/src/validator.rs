//! JSON Schemas from outside, of files (`output`) and of tools: whether they are any, and whether
//! checking a value with one is a matter of the value's size.
//!
//! A schema of thirty lines can send a validator through a thousand million of its parts for every
//! value, and one of a kilobyte can hold patterns that take a gigabyte. Both are refused here. What a value does not meet is told in a bounded number of bounded
//! sentences: each quotes what it is about, which may be long.

use std::collections::HashMap;

use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

/// Values in a schema.
const VALUES: usize = 20_000;

/// Patterns in a schema, and the bytes that each may take when it is compiled.
const PATTERNS: usize = 200;
const PATTERN_BYTES: usize = 1024 * 1024;

/// Violations of a schema that are told at most, and characters of each: a violation quotes what it
/// is about, which may be long.
const VIOLATIONS: (usize, usize) = (10, 300);

/// Parts of a schema that are applied to one and the same value.
const PARTS: u64 = 10_000;

/// Levels of such parts inside each other, references included: a validator takes some stack for
/// each, and again for every level of the value.
const DEPTH: u32 = 24;

/// Keywords whose schemas are applied to the same value as the schema around them.
const SAME_VALUE: [&str; 8] =
    ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"];

/// What is wrong with a schema, and a JSON pointer to where.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    pub(crate) message: String,
    pub(crate) pointer: String,
}

/// The validator of a schema that stands in a file.
///
/// # Errors
/// It is none, or checking with it would not be bounded.
pub(crate) fn of_author(schema: &Value) -> Result<Validator, Refused> {
    bounded(schema)?;
    let patterns = PatternOptions::fancy_regex().size_limit(PATTERN_BYTES);
    built(schema, &jsonschema::options().with_pattern_options(patterns))
}

/// The validator of a schema that comes from whoever provides a tool. Its patterns are matched in
/// time that grows with the text alone, so those that look around or back are refused.
///
/// # Errors
/// It is none, or checking with it would not be bounded.
pub(crate) fn of_stranger(schema: &Value) -> Result<Validator, Refused> {
    bounded(schema)?;
    let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES);
    built(schema, &jsonschema::options().with_pattern_options(patterns))
}

fn bounded(schema: &Value) -> Result<(), Refused> {
    size(schema)?;
    Parts { root: schema, known: HashMap::new() }.check()
}

fn built(schema: &Value, options: &jsonschema::ValidationOptions) -> Result<Validator, Refused> {
    options.build(schema).map_err(|error| Refused {
        message: error.to_string(),
        pointer: error.instance_path().as_str().to_owned(),
    })
}

/// What of a value does not meet a schema, in words that a model or a person can act on.
///
/// # Errors
/// The first violations, each cut short.
pub(crate) fn violations(schema: &Validator, value: &Value) -> Result<(), String> {
    let (most, longest) = VIOLATIONS;
    let told = |error: ValidationError<'_>| {
        let text = match error.instance_path().as_str() {
            "" => error.to_string(),
            path => format!("{path}: {error}"),
        };
        match text.char_indices().nth(longest) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    };
    let wrong: Vec<String> = schema.iter_errors(value).take(most).map(told).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn size(schema: &Value) -> Result<(), Refused> {
    let (mut values, mut patterns, mut open) = (0, 0, vec![schema]);
    while let Some(value) = open.pop() {
        values += 1;
        match value {
            Value::Object(map) => {
                patterns += usize::from(map.contains_key("pattern"));
                let many = map.get("patternProperties").and_then(Value::as_object);
                patterns += many.map_or(0, serde_json::Map::len);
                open.extend(map.values());
            }
            Value::Array(items) => open.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let message = if values > VALUES {
        format!("it holds more than {VALUES} values")
    } else if patterns > PATTERNS {
        format!("it holds more than {PATTERNS} patterns")
    } else {
        return Ok(());
    };
    Err(Refused { message, pointer: String::new() })
}

/// Counts the parts of schemas that are applied to one value.
struct Parts<'s> {
    root: &'s Value,
    /// By where they stand; `None`: being counted.
    known: HashMap<*const Value, Option<Part>>,
}

/// A schema with those that are applied to the same value.
#[derive(Clone, Copy)]
struct Part {
    parts: u64,
    /// Levels, its own included.
    levels: u32,
}

impl<'s> Parts<'s> {
    fn check(mut self) -> Result<(), Refused> {
        let mut open = vec![self.root];
        while let Some(value) = open.pop() {
            match value {
                Value::Object(map) => {
                    let refused = |message| Refused { message, pointer: String::new() };
                    self.of(value, 1).map_err(refused)?;
                    open.extend(map.values());
                }
                Value::Array(items) => open.extend(items),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        Ok(())
    }

    /// `level`: where it stands in others, from 1.
    fn of(&mut self, schema: &'s Value, level: u32) -> Result<Part, String> {
        let mut all = Part { parts: 1, levels: 1 };
        let Value::Object(map) = schema else { return Ok(all) };
        let known = self.known.get(&std::ptr::from_ref(schema)).copied();
        let levels = known.flatten().map_or(1, |known| known.levels);
        if level + levels > DEPTH + 1 {
            return Err(format!("more than {DEPTH} levels of it would be applied to one value"));
        }
        match known {
            Some(Some(known)) => return Ok(known),
            Some(None) => return Err("it refers to itself for one and the same value".into()),
            None => self.known.insert(schema, None),
        };
        let inside = map.iter().flat_map(|(keyword, value)| self.inside(keyword, value));
        for inner in inside.collect::<Vec<_>>() {
            let inner = self.of(inner, level + 1)?;
            all.parts = all.parts.saturating_add(inner.parts);
            all.levels = all.levels.max(inner.levels + 1);
        }
        if all.parts > PARTS {
            return Err(format!("more than {PARTS} parts of it would be applied to one value"));
        }
        self.known.insert(schema, Some(all));
        Ok(all)
    }

    /// The schemas that a keyword applies to the same value.
    fn inside(&self, keyword: &str, value: &'s Value) -> Vec<&'s Value> {
        match (keyword, value) {
            ("$ref" | "$dynamicRef", Value::String(to)) => self.target(to).into_iter().collect(),
            ("dependentSchemas", Value::Object(map)) => map.values().collect(),
            (word, Value::Array(items)) if SAME_VALUE.contains(&word) => items.iter().collect(),
            (word, one) if SAME_VALUE.contains(&word) => vec![one],
            _ => Vec::new(),
        }
    }

    /// What a reference inside the schema means; others are not resolved.
    fn target(&self, reference: &str) -> Option<&'s Value> {
        let pointer = reference.strip_prefix('#')?;
        if pointer.is_empty() {
            return Some(self.root);
        }
        if pointer.starts_with('/') {
            return self.root.pointer(pointer);
        }
        let definitions = ["$defs", "definitions"].into_iter().filter_map(|key| self.root.get(key));
        let mut all = definitions.filter_map(Value::as_object).flat_map(serde_json::Map::values);
        all.find(|schema| ["$anchor", "$dynamicAnchor"].iter().any(|key| schema[*key] == *pointer))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_strangers_pattern_is_matched_in_time_that_grows_with_the_text_alone() {
        let text = |pattern: &str| json!({ "type": "string", "pattern": pattern });
        let validator = of_stranger(&text("^(a+)+$")).unwrap();
        let long = Value::from("a".repeat(50_000) + "!");
        assert!(violations(&validator, &long).unwrap_err().len() < 1000);
        for looks_around in ["(?=a)b", "(a)\\1"] {
            assert!(of_stranger(&text(looks_around)).is_err(), "{looks_around}");
            of_author(&text(looks_around)).unwrap();
        }
    }

    #[test]
    fn a_schema_that_would_be_gone_through_without_end_is_refused() {
        let mut defs = serde_json::Map::new();
        for n in 0..20 {
            let inner = format!("#/$defs/d{}", n + 1);
            let both = json!({ "allOf": [{ "$ref": inner }, { "$ref": inner }] });
            defs.insert(format!("d{n}"), both);
        }
        defs.insert("d20".into(), json!({}));
        let many = json!({ "$ref": "#/$defs/d0", "$defs": defs });
        assert!(of_stranger(&many).is_err(), "a million parts");
        let shared = json!({ "$ref": "#/$defs/name" });
        let fine = json!({
            "properties": { "first": shared, "last": shared },
            "$defs": { "name": { "type": "string", "pattern": "^[a-z]+$" } },
        });
        let validator = of_stranger(&fine).unwrap();
        assert_eq!(violations(&validator, &json!({ "first": "ann", "last": "lee" })), Ok(()));
        assert!(violations(&validator, &json!({ "first": "Ann" })).is_err());
    }
}
