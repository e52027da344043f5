//! Reads a model's text as the JSON value that it was asked for.
//!
//! Not every provider enforces a schema, and those that do not wrap JSON in fences or sentences:
//! what is wrong is said in words that the model can act on.

use serde_json::Value;

use crate::json::{self, Bounds};
use crate::validator;

/// A JSON Schema, ready to read answers with.
#[derive(Debug)]
pub struct AnswerSchema {
    schema: Value,
    validator: jsonschema::Validator,
    bounds: Bounds,
}

impl AnswerSchema {
    /// Compiles a schema. `bounds`: of the values that are read with it.
    ///
    /// # Errors
    /// The validator's words, if it is none.
    pub fn new(schema: Value, bounds: Bounds) -> Result<Self, String> {
        let validator = validator::of_author(&schema).map_err(|why| why.to_string())?;
        Ok(Self { schema, validator, bounds })
    }

    /// The schema itself.
    #[must_use]
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// The value in `text`: the whole of it, or what stands in its only fence.
    ///
    /// # Errors
    /// What to change, for the model.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let text = fenced(text).unwrap_or(text).trim();
        if text.is_empty() {
            return Err("the answer is empty".into());
        }
        let value = json::parse(text, self.bounds).map_err(|why| why.to_string())?;
        self.check(&value)?;
        Ok(value)
    }

    /// Whether a value meets the schema.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        validator::violations(&self.validator, value)
    }
}

/// What stands inside a Markdown code fence, if there is exactly one.
fn fenced(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("```")?;
    let (inside, after) = rest.rsplit_once("```")?;
    let (language, inside) = inside.split_once('\n')?;
    let plain = language.trim().chars().all(|c| c.is_ascii_alphanumeric());
    (plain && !inside.contains("```") && !after.contains("```")).then_some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_fence_is_taken_off_and_violations_are_named() {
        let schema = json!({ "type": "object", "required": ["n"],
            "properties": { "n": { "type": "integer" } } });
        let schema = AnswerSchema::new(schema, Bounds::DEFAULT).unwrap();
        assert_eq!(schema.read(" {\"n\": 1} "), Ok(json!({ "n": 1 })));
        assert_eq!(schema.read("Here:\n```json\n{\"n\": 2}\n```\n"), Ok(json!({ "n": 2 })));
        assert_eq!(schema.read("  \n "), Err("the answer is empty".into()));
        assert!(schema.read("n is 1").unwrap_err().starts_with("it is not JSON"));
        assert!(schema.read("{\"n\":\"x\"}").unwrap_err().starts_with("/n: "));
        assert!(schema.read("{}").unwrap_err().contains("\"n\""));
    }
}
