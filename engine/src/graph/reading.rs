//! From a document to a [`GraphSpec`], as far as it can be understood.
//!
//! Invariants:
//! - What is designed but not part of this version is found by name and said so
//!   (`not_supported`); it never reaches the schema, and is never ignored.
//! - What does not meet the schema is taken out and reported, so that the rest is checked too.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::diagnostic::{Finding, code};
use crate::document::{Document, child};
use crate::graph::spec::GraphSpec;
use crate::shape::{self, Shape};

/// What could be read of a file, and what is wrong with the rest.
pub(crate) struct Reading {
    pub(crate) spec: GraphSpec,
    /// Nodes whose YAML cannot be read; their names are known all the same.
    pub(crate) broken_nodes: BTreeSet<String>,
    /// Lines were left out: what follows from all lines together cannot be said.
    pub(crate) broken_lines: bool,
    pub(crate) findings: Vec<Finding>,
}

const UNSUPPORTED_KEYS: [&str; 1] = ["expose"];
const UNSUPPORTED_NODE_KEYS: [&str; 1] = ["context"];
/// Kinds that are designed and not part of this version.
pub(crate) const UNSUPPORTED_KINDS: [&str; 3] = ["recall", "remember", "retrieve"];

/// Reads a document's shape; `None` in the place of the spec if there is nothing to go on with.
pub(crate) fn read(document: &Document) -> Result<Reading, Vec<Finding>> {
    let mut findings = document.findings().to_vec();
    let mut json = document.to_json();
    if !json.is_object() {
        let message = "a graph is a map with `graph`, `state`, `nodes` and `edges`";
        let fix = "begin with `graph: NAME`";
        findings.push(document.error_at(code::WRONG_TYPE, "", message, fix));
        return Err(findings);
    }
    strip_unsupported(document, &mut json, &mut findings);
    let mut broken = Broken::default();
    match Shape::new(shape::schema_of::<GraphSpec>()) {
        Ok(shape) => {
            let violations = shape.check(document, "", &json);
            for violation in violations {
                broken.prune(&mut json, &violation.pointer, violation.finding.code);
                findings.push(violation.finding);
            }
        }
        Err(why) => findings.push(document.error_at(code::INVALID_SCHEMA, "", why, "report it")),
    }
    broken.finish(&mut json);
    match serde_json::from_value(json) {
        Ok(spec) => {
            let (broken_nodes, broken_lines) = (broken.nodes, broken.lines);
            Ok(Reading { spec, broken_nodes, broken_lines, findings })
        }
        Err(error) => {
            findings.push(shape::unread(document, "", &error));
            Err(findings)
        }
    }
}

/// Removes what this version does not support, so that it is reported once and by name.
fn strip_unsupported(document: &Document, json: &mut Value, findings: &mut Vec<Finding>) {
    let mut refuse = |pointer: &str, what: &str| {
        let message = format!("{what} is not supported by this version");
        findings.push(document.error_at_key(
            code::NOT_SUPPORTED,
            pointer,
            message,
            "remove it, or use a later version of exile",
        ));
    };
    for key in UNSUPPORTED_KEYS {
        if json.as_object_mut().is_some_and(|map| map.shift_remove(key).is_some()) {
            refuse(&child("", key), &format!("`{key}`"));
        }
    }
    let nodes = json.get_mut("nodes").and_then(Value::as_object_mut);
    for (name, node) in nodes.into_iter().flatten() {
        let pointer = child("/nodes", name);
        for key in UNSUPPORTED_NODE_KEYS {
            if node.as_object_mut().is_some_and(|map| map.shift_remove(key).is_some()) {
                refuse(&child(&pointer, key), &format!("`{key}` on a node"));
            }
        }
    }
}

/// What had to be taken out of the JSON so that the rest can be read.
#[derive(Default)]
struct Broken {
    nodes: BTreeSet<String>,
    lines: bool,
}

impl Broken {
    fn prune(&mut self, json: &mut Value, pointer: &str, code: &str) {
        let steps: Vec<String> = pointer
            .split('/')
            .skip(1)
            .map(|step| step.replace("~1", "/").replace("~0", "~"))
            .collect();
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        if code == code::UNKNOWN_KEY {
            if let Some((around, key)) = pointer.rsplit_once('/')
                && let Some(map) = json.pointer_mut(around).and_then(Value::as_object_mut)
            {
                map.shift_remove(&key.replace("~1", "/").replace("~0", "~"));
            }
            return;
        }
        match steps.as_slice() {
            ["nodes", name, ..] => {
                json["nodes"][*name] = Value::Object(Map::new());
                self.nodes.insert((*name).to_owned());
            }
            ["state", name, ..] => json["state"][*name] = Value::Object(Map::new()),
            ["edges", index, ..] => {
                self.lines = true;
                if let Some(edge) =
                    index.parse::<usize>().ok().and_then(|i| json["edges"].get_mut(i))
                {
                    *edge = Value::Null;
                }
            }
            [key, ..] => {
                self.lines |= matches!(*key, "edges" | "order" | "nodes" | "mode");
                if let Some(map) = json.as_object_mut() {
                    map.shift_remove(*key);
                }
            }
            [] => {}
        }
    }

    /// Puts in what cannot be missing, and keeps the places of the lines that stay.
    fn finish(&mut self, json: &mut Value) {
        let Some(map) = json.as_object_mut() else { return };
        if !map.contains_key("graph") {
            map.insert("graph".into(), "unnamed".into());
        }
        if !map.contains_key("nodes") {
            self.lines = true;
            map.insert("nodes".into(), Value::Object(Map::new()));
        }
        for edge in map.get_mut("edges").and_then(Value::as_array_mut).into_iter().flatten() {
            if edge.is_null() {
                *edge = serde_json::json!({ "from": [], "to": "END" });
            }
        }
    }
}
