//! Which tools some graph or skill lets nobody call before a person agreed.
//!
//! Read from the files, those that serve and the newest ones: a file that does not load any more
//! takes no approval away.

use serde_json::{Map, Value};

use super::Library;
use crate::bundle::Source;
use crate::yaml;

impl Library {
    /// Names and patterns of tools that stand under `approve` anywhere.
    #[must_use]
    pub fn approvals(&self) -> &[String] {
        self.approvals.get_or_init(|| {
            let served = self.graphs.iter().filter_map(|graph| graph.bundle.as_deref());
            let served = served.flat_map(|bundle| {
                let inside = bundle.graphs.values().chain(bundle.skills.values());
                std::iter::once(&bundle.graph).chain(inside)
            });
            let skills = self.skills.iter();
            let skills = skills.flat_map(|skill| skill.served.iter().chain([&skill.source]));
            let newest = self.graphs.iter().map(|graph| &graph.source);
            let mut all = Vec::new();
            served.chain(skills).chain(newest).for_each(|source| read(source, &mut all));
            all.sort_unstable();
            all.dedup();
            all
        })
    }
}

fn read(source: &Source, all: &mut Vec<String>) {
    if !source.text.contains("approve") {
        return;
    }
    if let Ok(document) = yaml::parse(&source.path, &source.text) {
        collect(&document.to_json(), all);
    }
}

fn collect(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            all.extend(approved(map));
            map.values().for_each(|value| collect(value, all));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, all)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What one node or skill says: a list, or `true` beside the one tool that it calls.
fn approved(map: &Map<String, Value>) -> Vec<String> {
    match (map.get("approve"), map.get("tool")) {
        (Some(Value::Array(list)), _) => {
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        (Some(Value::Bool(true)), Some(Value::String(tool))) => vec![tool.clone()],
        _ => Vec::new(),
    }
}
