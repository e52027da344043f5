//! What a graph compiles to, and how it is drawn.

use std::collections::BTreeMap;
use std::time::Duration;

use exile_engine::graph::build::{Known, Names};
use exile_engine::graph::{Branch, Graph, Target, compile, picture};
use exile_engine::yaml;
use expect_test::{Expect, expect};

use crate::kinds;

const RESEARCH: &str = r#"
graph: research
limits: { steps: 40, timeout: 3m, tokens: 60000 }
input: [question]
output: [notes]
state:
  question: { type: string }
  notes: { reduce: append, scope: run }
  rounds: { reduce: sum }
nodes:
  plan: { kind: set, set: { rounds: 1 } }
  web: { kind: set, set: { notes: "'web: ' ~ question" } }
  library: { kind: set, set: { notes: "'library'" } }
  judge: { kind: probe, branch: all }
edges:
  - { from: START, to: plan }
  - { from: plan, to: web }
  - { from: plan, to: library }
  - { from: [web, library], to: judge }
  - { from: judge, to: plan, when: 'rounds < 3 and "web" in notes' }
  - { from: judge, to: END, otherwise: true }
"#;

fn graph(text: &str) -> Graph {
    let catalog = kinds::catalog();
    let skills = BTreeMap::new();
    let known =
        Known { catalog: &catalog, skills: &skills, graphs: Graphs::none(), names: Names::Checked };
    let compiled = compile::compile(&yaml::parse("g.yaml", text).unwrap(), known);
    assert_eq!(compiled.findings, []);
    compiled.graph.unwrap()
}

fn check(drawn: &str, expected: &Expect) {
    expected.assert_eq(drawn);
}

#[test]
fn mermaid_shows_conditions_and_joins() {
    check(
        &picture::mermaid(&graph(RESEARCH)),
        &expect![[r#"
        flowchart TD
            n0([START])
            n1["plan<br/><i>set</i>"]
            n2["web<br/><i>set</i>"]
            n3["library<br/><i>set</i>"]
            n4["judge<br/><i>probe</i>"]
            n5{{all}}
            n6([END])
            n0 --> n1
            n1 --> n2
            n1 --> n3
            n2 --> n5
            n3 --> n5
            n4 -->|"rounds #lt; 3 and #quot;web#quot; in notes"| n1
            n4 -->|"otherwise"| n6
            n5 --> n4
    "#]],
    );
}

#[test]
fn dot_shows_conditions_and_joins() {
    check(
        &picture::dot(&graph(RESEARCH)),
        &expect![[r#"
        digraph "research" {
            n0 [label="START", shape=oval];
            n1 [label="plan\nset", shape=box];
            n2 [label="web\nset", shape=box];
            n3 [label="library\nset", shape=box];
            n4 [label="judge\nprobe", shape=box];
            n5 [label="all", shape=diamond];
            n6 [label="END", shape=oval];
            n0 -> n1;
            n1 -> n2;
            n1 -> n3;
            n2 -> n5;
            n3 -> n5;
            n4 -> n1 [label="rounds < 3 and \"web\" in notes"];
            n4 -> n6 [label="otherwise"];
            n5 -> n4;
        }
    "#]],
    );
}

#[test]
fn json_holds_all_of_it() {
    let json = picture::json(&graph(RESEARCH));
    check(
        &serde_json::to_string_pretty(&json).unwrap(),
        &expect![[r#"
        {
          "graph": "research",
          "nodes": [
            {
              "name": "plan",
              "kind": "set"
            },
            {
              "name": "web",
              "kind": "set"
            },
            {
              "name": "library",
              "kind": "set"
            },
            {
              "name": "judge",
              "kind": "probe"
            }
          ],
          "edges": [
            {
              "from": "START",
              "to": "plan"
            },
            {
              "from": "plan",
              "to": "web"
            },
            {
              "from": "plan",
              "to": "library"
            },
            {
              "from": "judge",
              "to": "plan",
              "when": "rounds < 3 and \"web\" in notes"
            },
            {
              "from": "judge",
              "to": "END",
              "otherwise": true
            },
            {
              "from": [
                "web",
                "library"
              ],
              "to": "judge",
              "join": "all"
            }
          ],
          "state": [
            {
              "name": "question",
              "type": "string",
              "reduce": "replace",
              "scope": "log"
            },
            {
              "name": "notes",
              "type": "any",
              "reduce": "append",
              "scope": "run"
            },
            {
              "name": "rounds",
              "type": "any",
              "reduce": "sum",
              "scope": "log"
            }
          ],
          "input": [
            "question"
          ],
          "output": [
            "notes"
          ],
          "limits": {
            "steps": 40,
            "timeout_ms": 180000,
            "tokens": 60000
          }
        }"#]],
    );
}

#[test]
fn a_graph_compiles_to_indices() {
    let graph = graph(RESEARCH);
    let names: Vec<&str> = graph.nodes.iter().map(|node| &*node.name).collect();
    assert_eq!(names, ["plan", "web", "library", "judge"]);
    let targets = |node: usize| graph.nodes[node].lines.iter().map(|l| l.to).collect::<Vec<_>>();
    assert_eq!(targets(0), [Target::Node(1), Target::Node(2)]);
    assert_eq!(targets(1), [Target::Slot { join: 0, slot: 0 }]);
    assert_eq!(targets(3), [Target::Node(0), Target::End]);
    assert_eq!(graph.nodes[3].branch, Branch::All);
    assert_eq!((graph.limits.steps, graph.limits.tokens), (40, Some(60_000)));
    assert_eq!(graph.limits.timeout, Some(Duration::from_mins(3)));
    assert_eq!(graph.input, ["question".into()]);
    assert!(graph.shown);
}

#[test]
fn a_slot_lives_while_its_source_can_be_reached_without_its_join() {
    let graph = graph(RESEARCH);
    let slot = &graph.joins[0].slots[0];
    // `web` itself, `plan` before it, and `judge`, which can go back to `plan`; not `library`,
    // whose only way leads through this join.
    assert_eq!(slot.alive, [true, true, false, true]);
    assert_eq!(graph.joins[0].slots[1].alive, [true, false, true, true]);
}

#[test]
fn a_join_before_another_keeps_its_slots_alive_through_the_first() {
    let text = "graph: g\nnodes:\n  a: { kind: probe }\n  b: { kind: probe }\n  c: { kind: probe }\n  d: { kind: probe }\nedges:\n  - { from: START, to: a }\n  - { from: START, to: b }\n  - { from: [a, b], to: c }\n  - { from: [c, b], to: d }\n  - { from: d, to: END }\n";
    let graph = graph(text);
    assert_eq!(graph.joins[1].slots[0].alive, [true, true, true, false]);
}

#[test]
fn a_linear_graph_is_the_same_graph_with_lines() {
    let nodes = "graph: g\nnodes:\n  a: { kind: probe }\n  b: { kind: probe }\n";
    let linear = graph(&format!("{nodes}mode: linear\norder: [b, a]\n"));
    let lines = graph(&format!(
        "{nodes}edges:\n  - {{ from: START, to: b }}\n  - {{ from: b, to: a }}\n  - {{ from: a, to: END }}\n"
    ));
    assert_eq!(picture::json(&linear), picture::json(&lines));
}
