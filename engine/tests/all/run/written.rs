//! Graphs as people write them, run: reducers, scopes, branches, `mode: linear`, checked writes.

use std::collections::BTreeMap;

use exile_engine::graph::build::{Known, Names};
use exile_engine::graph::compile;
use exile_engine::graph::nesting::Graphs;
use exile_engine::id::{LogId, RunId};
use exile_engine::run::record::Ended;
use exile_engine::yaml;
use expect_test::{Expect, expect};
use serde_json::{Map, Value, json};

use crate::hand::Bench;
use crate::kinds;

/// Runs a graph once per input, in one log: how the last run ended, and the state after each.
async fn turns(text: &str, inputs: &[Value]) -> (Ended, Vec<Value>) {
    let (catalog, skills) = (kinds::catalog(), BTreeMap::new());
    let known =
        Known { catalog: &catalog, skills: &skills, graphs: Graphs::none(), names: Names::Checked };
    let compiled = compile::compile(&yaml::parse("g.yaml", text).unwrap(), known);
    let graph = compiled.graph.unwrap_or_else(|| panic!("{:?}", compiled.findings));
    let bench = Bench::new(graph).await;
    let log = LogId::from("conv_1");
    let mut states = Vec::new();
    let mut last = None;
    for (n, input) in inputs.iter().enumerate() {
        let run = RunId::from(format!("run_{n}"));
        bench.start(&log, &run, input.as_object().unwrap().clone()).await;
        last = Some(bench.ended(&run).await);
        states.push(Value::Object(bench.engine.state(&log).await.unwrap()));
    }
    (last.unwrap(), states)
}

/// The state after one run without input, by name, and the error if there is one.
async fn check(text: &str, expected: &Expect) {
    let (ended, states) = turns(text, &[json!({})]).await;
    let error = ended.error.map(|e| format!("{}: {}\n", e.code, e.message)).unwrap_or_default();
    let state: BTreeMap<&String, &Value> = states[0].as_object().unwrap().iter().collect();
    let line = |(name, value)| format!("{name}: {value}\n");
    let state: String = state.into_iter().map(line).collect();
    expected.assert_eq(&format!("{error}{state}"));
}

#[tokio::test]
async fn every_reducer_merges_in_its_way() {
    check(
        "
graph: g
mode: linear
state:
  replace: {}
  kept:    { type: string, default: kept }
  append:  { reduce: append }
  started: { reduce: append, default: [0] }
  sum:     { reduce: sum }
  halves:  { reduce: sum, default: 1 }
  merge:   { reduce: merge, default: { a: 0, b: 0 } }
  union:   { reduce: union }
nodes:
  one: { kind: set, set: { replace: 1, append: [1, 2], started: 1, sum: 2, halves: 0.5, merge: { a: 1 }, union: [1, 1, 2] } }
  two: { kind: set, set: { replace: 'replace + 1', append: '{\"n\": 3}', started: [2, [3]], sum: -5, halves: 0.25, merge: { c: 2 }, union: 2 } }
  three: { kind: set, set: { append: 'sum', union: [3, 2] } }
order: [one, two, three]
",
        &expect![[r#"
            append: [1,2,{"n":3},-3]
            halves: 1.75
            kept: "kept"
            merge: {"a":1,"b":0,"c":2}
            replace: 2
            started: [0,1,2,[3]]
            sum: -3
            union: [1,2,3]
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_channel_of_one_run_begins_anew_and_one_of_the_log_goes_on() {
    let text = "
graph: g
input: [given, told]
state:
  given: { default: nothing, scope: run }
  told:  { default: nothing }
  turns: { reduce: sum }
  steps: { reduce: sum, default: 10, scope: run }
nodes:
  count: { kind: set, set: { turns: 1, steps: 1 } }
edges:
  - { from: START, to: count }
  - { from: count, to: END }
";
    let (_, states) = turns(text, &[json!({ "given": 1, "told": 1 }), json!({})]).await;
    assert_eq!(states[0], json!({ "given": 1, "told": 1, "turns": 1, "steps": 11 }));
    assert_eq!(states[1], json!({ "given": "nothing", "told": 1, "turns": 2, "steps": 11 }));
}

/// `log` after a node `judge` with three conditional lines and an `otherwise`.
async fn branches(branch: &str, n: u32) -> Vec<String> {
    let text = format!(
        "
graph: g
state: {{ n: {{ type: integer }}, log: {{ reduce: append }} }}
nodes:
  judge: {{ kind: probe{branch} }}
  a: {{ kind: set, set: {{ log: \"'a'\" }} }}
  b: {{ kind: set, set: {{ log: \"'b'\" }} }}
  always: {{ kind: set, set: {{ log: \"'always'\" }} }}
  none: {{ kind: set, set: {{ log: \"'none'\" }} }}
edges:
  - {{ from: START, to: judge }}
  - {{ from: judge, to: a, when: n > 1 }}
  - {{ from: judge, to: b, when: n > 2 }}
  - {{ from: judge, to: always }}
  - {{ from: judge, to: none, otherwise: true }}
"
    );
    let (_, states) = turns(&text, &[json!({ "n": n })]).await;
    serde_json::from_value(states[0]["log"].clone()).unwrap()
}

#[tokio::test]
async fn the_first_true_line_is_taken_or_every_one_else_otherwise() {
    for (branch, n, expected) in [
        ("", 3, vec!["a", "always"]),
        ("", 0, vec!["always", "none"]),
        (", branch: all", 3, vec!["a", "b", "always"]),
        (", branch: all", 2, vec!["a", "always"]),
        (", branch: all", 0, vec!["always", "none"]),
    ] {
        assert_eq!(branches(branch, n).await, expected, "{branch} with {n}");
    }
}

#[tokio::test]
async fn a_write_that_does_not_fit_its_channel_fails_the_run_and_changes_nothing() {
    let graph = |value: &str| {
        format!(
            "
graph: g
state: {{ n: {{ type: integer, default: 7 }}, total: {{ reduce: sum }} }}
nodes: {{ a: {{ kind: set, set: {{ {value} }} }} }}
edges: [{{ from: START, to: a }}]
"
        )
    };
    check(
        &graph("total: 1, n: \"'se' ~ 'ven'\""),
        &expect![[r#"
            write_refused: channel `n` takes integer, got "seven"
            n: 7
            total: 0
        "#]],
    )
    .await;
    check(
        &graph("total: \"['1']\""),
        &expect![[r#"
            write_refused: channel `total` takes numbers, got ["1"]
            n: 7
            total: 0
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_condition_that_is_no_boolean_fails_the_run_where_it_stands() {
    let text = "
graph: g
state: { n: { default: 7 } }
nodes: { a: { kind: probe } }
edges:
  - { from: START, to: a }
  - { from: a, to: a, when: n }
  - { from: a, to: END, otherwise: true }
";
    let (ended, _) = turns(text, &[json!({})]).await;
    let error = ended.error.unwrap();
    assert_eq!(error.code, "expression_failed");
    assert!(error.message.starts_with("edge from a: "), "{}", error.message);
}

#[tokio::test]
async fn an_input_that_starts_as_given_is_there_for_the_first_condition() {
    let text = "
graph: g
state: { n: { type: integer, default: 0 }, log: { reduce: append } }
nodes:
  small: { kind: set, set: { log: \"'small'\" } }
  large: { kind: set, set: { log: \"'large'\" } }
edges:
  - { from: START, to: large, when: n > 5 }
  - { from: START, to: small, otherwise: true }
";
    let (_, states) = turns(text, &[json!({ "n": 6 }), json!({ "n": 1 })]).await;
    assert_eq!(states[1]["log"], json!(["large", "small"]));
    let empty = Map::new();
    assert_eq!(turns(text, &[Value::Object(empty)]).await.1[0]["log"], json!(["small"]));
}
