//! JSON Schemas as providers take them.

use serde_json::{Map, Value, json};

use super::profile::Schemas;

/// Deepest nesting that references are followed to: a schema may refer to itself.
const DEPTH: usize = 12;

/// What OpenAPI 3.0 and its users know of JSON Schema.
const OPEN_API: &[&str] = &[
    "type",
    "title",
    "description",
    "nullable",
    "enum",
    "items",
    "minItems",
    "maxItems",
    "properties",
    "required",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "anyOf",
    "format",
];

/// The schema of a tool's parameters, in the form that the provider takes. What it cannot say is
/// left out: the tool itself still checks its arguments against the whole schema.
pub(crate) fn parameters(schema: &Value, rule: Schemas) -> Value {
    let mut schema = match rule {
        Schemas::OpenApi => open_api(schema, schema, 0),
        Schemas::Any | Schemas::ObjectRoot => schema.clone(),
    };
    if let Some(root) = schema.as_object_mut() {
        // Servers that check for a closed set of keywords refuse it.
        root.remove("$schema");
        if rule == Schemas::ObjectRoot {
            for alternatives in ["anyOf", "oneOf", "allOf"] {
                root.remove(alternatives);
            }
            root.insert("type".into(), json!("object"));
        }
    }
    schema
}

fn open_api(schema: &Value, root: &Value, depth: usize) -> Value {
    let Some(given) = schema.as_object() else { return json!({}) };
    if depth > DEPTH {
        return json!({ "type": "object" });
    }
    let inner = |value: &Value| open_api(value, root, depth + 1);
    let mut out = Map::new();
    let target = given.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
    let parts = target.and_then(|pointer| root.pointer(pointer)).into_iter();
    for part in parts.chain(given.get("allOf").and_then(Value::as_array).into_iter().flatten()) {
        out.extend(inner(part).as_object().cloned().unwrap_or_default());
    }
    for (key, value) in given {
        let (key, value) = match (key.as_str(), value) {
            ("const", value) => ("enum", json!([value])),
            ("oneOf" | "anyOf", Value::Array(list)) => ("anyOf", list.iter().map(inner).collect()),
            ("items", value) => ("items", inner(value)),
            ("properties", Value::Object(all)) => {
                let all = all.iter().map(|(name, value)| (name.clone(), inner(value)));
                ("properties", Value::Object(all.collect()))
            }
            (key, value) => (key, value.clone()),
        };
        if OPEN_API.contains(&key) {
            out.insert(key.into(), value);
        }
    }
    one_type(&mut out);
    // Words alone can be enumerated, and of formats only this one is known.
    if out.get("enum").and_then(Value::as_array).is_some_and(|e| !e.iter().all(Value::is_string)) {
        out.remove("enum");
    }
    if out.get("format").is_some_and(|format| format != "date-time") {
        out.remove("format");
    }
    Value::Object(out)
}

/// `["string", "null"]` is a nullable string; of other lists the first type counts.
fn one_type(schema: &mut Map<String, Value>) {
    let Some(Value::Array(types)) = schema.get("type").cloned() else { return };
    let mut named = types.iter().filter(|t| *t != "null");
    let first = named.next().cloned().unwrap_or(json!("string"));
    if types.iter().any(|t| t == "null") {
        schema.insert("nullable".into(), json!(true));
    }
    schema.insert("type".into(), first);
}

/// Whether a provider can enforce the schema to the letter (wire fact 12): an object at the root,
/// every object closed, all its properties required, and no keyword that strict decoders refuse.
pub(crate) fn is_strict(schema: &Value) -> bool {
    schema["type"] == "object" && closed(schema)
}

fn closed(schema: &Value) -> bool {
    let list = |key: &str| schema[key].as_array().into_iter().flatten();
    let map = |key: &str| schema[key].as_object().into_iter().flatten().map(|(_, v)| v);
    let itself = match schema["properties"].as_object() {
        Some(properties) => {
            let required = |name: &String| list("required").any(|r| r == name);
            schema["additionalProperties"] == false && properties.keys().all(required)
        }
        None => schema["type"] != "object",
    };
    let refused = ["default", "oneOf", "allOf", "not", "if", "patternProperties"];
    let parts = map("properties").chain(map("$defs")).chain(list("anyOf"));
    itself
        && refused.iter().all(|key| schema.get(key).is_none())
        && parts.chain(schema.get("items")).all(closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fact_24_references_and_constants_become_what_open_api_knows() {
        let schema = json!({ "$schema": "x", "type": "object", "additionalProperties": false,
            "$defs": { "Place": { "type": "object", "properties": { "in": { "$ref": "#/$defs/Place" },
                "kind": { "const": "city" } } } },
            "properties": {
                "at": { "$ref": "#/$defs/Place" },
                "n": { "type": ["integer", "null"], "enum": [1, 2] },
                "when": { "oneOf": [{ "type": "string", "format": "uri" },
                    { "type": "string", "format": "date-time" }] },
            } });
        let sent = parameters(&schema, Schemas::OpenApi);
        let text = sent.to_string();
        for refused in ["$ref", "$defs", "const", "oneOf", "$schema", "additionalProperties", "uri"]
        {
            assert!(!text.contains(refused), "{refused} in {text}");
        }
        assert_eq!(sent["properties"]["at"]["properties"]["kind"]["enum"], json!(["city"]));
        assert_eq!(sent["properties"]["n"], json!({ "type": "integer", "nullable": true }));
        assert_eq!(sent["properties"]["when"]["anyOf"][1]["format"], "date-time");
    }

    #[test]
    fn other_providers_get_the_schema_as_it_is() {
        let schema = json!({ "$schema": "x", "type": "object", "properties": { "a": { "const": 1 } },
            "anyOf": [{ "required": ["a"] }] });
        let plain = parameters(&schema, Schemas::Any);
        assert_eq!((plain.get("$schema"), &plain["anyOf"]), (None, &schema["anyOf"]));
        let rooted = parameters(&schema, Schemas::ObjectRoot);
        assert_eq!((rooted.get("anyOf"), &rooted["properties"]), (None, &schema["properties"]));
    }

    #[test]
    fn fact_12_strict_means_closed_everywhere() {
        let closed = json!({ "type": "object", "additionalProperties": false, "required": ["a"],
            "properties": { "a": { "type": "array", "items": { "type": "string" } } } });
        assert!(is_strict(&closed));
        let change = |place: &str, key: &str, value: Value| {
            let mut changed = closed.clone();
            changed.pointer_mut(place).unwrap()[key] = value;
            changed
        };
        for open in [
            change("", "required", json!([])),
            change("", "additionalProperties", json!(true)),
            change("", "$defs", json!({ "x": { "type": "object" } })),
            change("/properties/a", "default", json!([])),
            json!({ "type": "array", "items": closed }),
        ] {
            assert!(!is_strict(&open), "{open}");
        }
    }
}
