//! The published JSON Schemas (draft-07, which is what editors speak), generated from the types
//! that the loader reads: what an editor accepts, the loader accepts.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::graph::spec::{GraphSpec, NodeSpec};
use crate::node::{NodeKind, NodeKinds};
use crate::skill::SkillSpec;

/// Where the schema of a node of any kind stands, for kinds that hold one.
const NODE: &str = "#/definitions/Node";

/// The schema of a graph whose nodes may be of these kinds.
#[must_use]
pub fn graph(kinds: &NodeKinds) -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let mut schema = generator.root_schema_for::<GraphSpec>().to_value();
    let alternatives: Vec<Value> = kinds
        .0
        .iter()
        .map(|kind| {
            let name = kind.name();
            let is = json!({ "properties": { "kind": { "const": name } }, "required": ["kind"] });
            json!({ "if": is, "then": keys(&**kind, &mut generator) })
        })
        .collect();
    let names: Vec<&str> = kinds.names().collect();
    let node = json!({
        "type": "object",
        "required": ["kind"],
        "properties": { "kind": { "enum": names, "description": "What the node does." } },
        "allOf": alternatives,
    });
    schema["properties"]["nodes"]["additionalProperties"] = json!({ "$ref": NODE });
    let mut definitions = generator.take_definitions(true);
    definitions.insert("Node".into(), node);
    named(schema, definitions, "graph")
}

/// The schema of a skill.
#[must_use]
pub fn skill() -> Value {
    of::<SkillSpec>("skill")
}

/// The schema of any type that is read from YAML, under the address that exile's files name.
#[must_use]
pub fn of<T: JsonSchema>(name: &str) -> Value {
    named(crate::shape::schema_of::<T>(), Map::new(), name)
}

/// The schema of one node of this kind, by itself.
pub(crate) fn node(kind: &dyn NodeKind) -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let mut schema = keys(kind, &mut generator);
    let mut definitions = generator.take_definitions(true);
    // A node inside this one is checked when it is built, as one of its own kind.
    definitions.insert("Node".into(), json!({ "type": "object" }));
    schema["definitions"] = Value::Object(definitions);
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema
}

/// The keys of a kind and those that every node has.
fn keys(kind: &dyn NodeKind, generator: &mut SchemaGenerator) -> Value {
    let mut schema = kind.schema(generator).to_value();
    if !schema.is_object() {
        schema = json!({});
    }
    let common = <NodeSpec as JsonSchema>::json_schema(generator).to_value();
    let mut properties = Map::new();
    properties.insert("kind".into(), json!({ "const": kind.name() }));
    for source in [&schema, &common] {
        let own = source.get("properties").and_then(Value::as_object).into_iter().flatten();
        properties.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    }
    let mut required = vec![Value::from("kind")];
    required
        .extend(schema.get("required").and_then(Value::as_array).into_iter().flatten().cloned());
    schema["type"] = "object".into();
    schema["properties"] = Value::Object(properties);
    schema["required"] = Value::Array(required);
    schema["additionalProperties"] = false.into();
    schema
}

fn named(mut schema: Value, definitions: Map<String, Value>, name: &str) -> Value {
    if !definitions.is_empty() {
        let all = schema["definitions"].as_object().cloned().unwrap_or_default();
        schema["definitions"] = all.into_iter().chain(definitions).collect::<Map<_, _>>().into();
    }
    let mut root = Map::new();
    let id = format!("https://exile-engine.github.io/schema/{name}.json");
    root.insert("$schema".into(), "http://json-schema.org/draft-07/schema#".into());
    root.insert("$id".into(), id.into());
    if let Value::Object(rest) = schema {
        root.extend(rest.into_iter().filter(|(key, _)| key != "$schema"));
    }
    Value::Object(root)
}
