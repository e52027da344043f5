//! JSON Schemas that a file gives for answers (`output`): whether they are any, and whether checking
//! an answer with one is a matter of the answer's size.
//!
//! A schema of thirty lines can send a validator through a thousand million of its parts for every
//! value, and one of a kilobyte can hold patterns that take a gigabyte. Both are refused here.

use std::collections::HashMap;

use jsonschema::PatternOptions;
use serde_json::Value;

/// Values in a schema.
const VALUES: usize = 20_000;

/// Patterns in a schema, and the bytes that each may take when it is compiled.
const PATTERNS: usize = 200;
const PATTERN_BYTES: usize = 1024 * 1024;

/// Parts of a schema that are applied to one and the same value.
const PARTS: u64 = 10_000;

/// Levels of such parts inside each other, references included: a validator takes some stack for
/// each, and again for every level of the value.
const DEPTH: u32 = 24;

/// Keywords whose schemas are applied to the same value as the schema around them.
const SAME_VALUE: [&str; 8] =
    ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"];

/// What is wrong with a schema, and a JSON pointer to where.
pub(super) struct Refused {
    pub(super) message: String,
    pub(super) pointer: String,
}

/// Checks a schema.
pub(super) fn check(schema: &Value) -> Result<(), Refused> {
    size(schema)?;
    Parts { root: schema, known: HashMap::new() }.check()?;
    let patterns = PatternOptions::fancy_regex().size_limit(PATTERN_BYTES);
    let options = jsonschema::options().with_pattern_options(patterns);
    options.build(schema).map(drop).map_err(|error| Refused {
        message: error.to_string(),
        pointer: error.instance_path().as_str().to_owned(),
    })
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
