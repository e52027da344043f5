//! The published JSON Schemas. That of a graph needs the kinds and is compared where they are.

use std::path::Path;

use exile_engine::{schema, yaml};
use serde_json::{Value, json};

use crate::kinds;

fn accepts(schema: &Value, text: &str) -> bool {
    let value = yaml::parse("t.yaml", text).unwrap().to_json();
    jsonschema::draft7::new(schema).unwrap().is_valid(&value)
}

#[test]
fn the_published_skill_schema_is_the_one_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../graphs/schema/skill.json");
    let made = format!("{}\n", serde_json::to_string_pretty(&schema::skill()).unwrap());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &made).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap();
    assert_eq!(published, made, "run the tests with UPDATE=1 to publish it");
}

#[test]
fn the_skill_of_the_design_meets_its_schema() {
    let skill = schema::skill();
    assert!(accepts(
        &skill,
        "skill: support\nmodel: default\ntemperature: 0.2\nreasoning: high\nsystem: Hi.\ntools: [calculator, shop__*]\napprove: [shop__refund]\nmcp_servers: [crm]\nretrieval: { collections: [manual], mode: hybrid, top_k: 6, rerank: true, threshold: 0.35, max_tokens: 3000 }\nmemory: { recall: 5, remember: true }\n"
    ));
    assert!(!accepts(&skill, "skill: support\nsytem: Hi.\n"));
}

#[test]
fn the_graph_schema_knows_the_keys_of_every_kind() {
    let graph = schema::graph(&kinds::catalog().kinds);
    let with = |node: &str| {
        let text = format!(
            "graph: g\nnodes:\n  a: {node}\nedges:\n  - {{ from: [a, b], to: END, join: all }}\n"
        );
        accepts(&graph, &text)
    };
    assert!(with("{ kind: set, set: { n: 1 }, branch: all }"));
    assert!(with("{ kind: probe, text: hi }"));
    assert!(with(
        "{ kind: probe, retry: 2, timeout: 5s, idle_timeout: 1s, on_error: b, cache: 1h, goto: { to: x, among: [b, END] } }"
    ));
    assert!(with("{ kind: probe, retry: { attempts: 2, wait: 100ms, max_wait: 1s } }"));
    for wrong in [
        "{ kind: set }",
        "{ kind: probe, set: {} }",
        "{ text: hi }",
        "{ kind: other }",
        "{ kind: probe, retry: -1 }",
        "{ kind: probe, retry: { wait: 1s } }",
        "{ kind: probe, timeout: 5 }",
        "{ kind: probe, goto: { to: x } }",
        "{ kind: probe, cache: true }",
    ] {
        assert!(!with(wrong), "{wrong}");
    }
    assert_eq!(graph["$schema"], json!("http://json-schema.org/draft-07/schema#"));
}
