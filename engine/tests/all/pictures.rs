//! What a graph compiles to, and how it is drawn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use exile_engine::graph::build::{Known, Names};
use exile_engine::graph::nesting::Graphs;
use exile_engine::graph::{
    Branch, Graph, Needs, OnError, Retry, Schedule, Target, compile, picture,
};
use exile_engine::run::record::Durability;
use exile_engine::{skill, yaml};
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

fn graph(text: &str) -> Arc<Graph> {
    let catalog = kinds::catalog();
    let support = yaml::parse("support.yaml", "skill: support").unwrap();
    let none = BTreeMap::new();
    let known =
        Known { catalog: &catalog, skills: &none, graphs: Graphs::none(), names: Names::Checked };
    let support = skill::compile(&support, known).0.map(Arc::new);
    let skills = BTreeMap::from([("support".to_owned(), support)]);
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
          "schedule": "superstep",
          "durability": "sync",
          "limits": {
            "steps": 40,
            "timeout_ms": 180000,
            "tokens": 60000
          }
        }"#]],
    );
}

const ERRANDS: &str = r#"
graph: errands
schedule: dataflow
durability: async
state:
  next: { type: string }
nodes:
  a: { kind: probe, retry: 2, timeout: 5s, idle_timeout: 1s, on_error: c, cache: 1h, text: "{{ next }}", skill: support }
  b: { kind: probe, retry: { attempts: 1, wait: 100ms, max_wait: 1s }, on_error: continue }
  c: { kind: probe, goto: { to: next, among: [b, END] } }
edges:
  - { from: START, to: a }
  - { from: START, to: b }
  - { from: [a, b], to: c, join: any }
  - { from: [a, b], to: END }
"#;

#[test]
fn pictures_show_how_many_a_join_waits_for_and_where_nodes_go_besides() {
    let graph = graph(ERRANDS);
    check(
        &picture::mermaid(&graph),
        &expect![[r#"
        flowchart TD
            n0([START])
            n1["a<br/><i>probe</i>"]
            n2["b<br/><i>probe</i>"]
            n3["c<br/><i>probe</i>"]
            n4{{any}}
            n5([END])
            n0 --> n1
            n0 --> n2
            n1 --> n4
            n1 --> n5
            n1 -.->|"on error"| n3
            n2 --> n4
            n2 --> n5
            n3 -.->|"goto"| n2
            n3 -.->|"goto"| n5
            n4 --> n3
    "#]],
    );
    let json = picture::json(&graph);
    let ways: Vec<String> =
        json["edges"].as_array().unwrap()[4..].iter().map(ToString::to_string).collect();
    check(
        &ways.join("\n"),
        &expect![[r#"
        {"from":["a","b"],"to":"c","join":"any"}
        {"from":"a","to":"c","on_error":true}
        {"from":"c","to":"b","goto":true}
        {"from":"c","to":"END","goto":true}"#]],
    );
    assert_eq!((&json["schedule"], &json["durability"]), (&"dataflow".into(), &"async".into()));
}

#[test]
fn the_keys_that_every_kind_has_become_its_policy() {
    let graph = graph(ERRANDS);
    let policy = |node: usize| &graph.nodes[node].policy;
    let retry = Retry { attempts: 3, ..Retry::default() };
    assert_eq!((policy(0).retry, policy(0).on_error), (retry, OnError::Node(2)));
    let times = (policy(0).timeout, policy(0).idle_timeout);
    assert_eq!(times, (Some(Duration::from_secs(5)), Some(Duration::from_secs(1))));
    let (wait, wait_max) = (Duration::from_millis(100), Duration::from_secs(1));
    assert_eq!(policy(1).retry, Retry { attempts: 2, wait, wait_max });
    assert_eq!(policy(1).on_error, OnError::Continue);
    assert_eq!((policy(2).retry, policy(2).on_error), (Retry::default(), OnError::Fail));
    let goto = policy(2).goto.as_ref().unwrap();
    assert_eq!(goto.among, [Target::Node(1), Target::End]);
    assert_eq!(goto.names, ["b".into(), "END".into()]);
    assert_eq!(graph.joins[0].needs, Needs::Count(1));
    // `c` can fire `b` by its `goto`, and `a` can fire `c` by its `on_error`.
    assert_eq!(graph.joins[0].slots[1].alive, [true, true, true]);
    assert_eq!(graph.joins[0].slots[0].alive, [true, false, false]);
    assert_eq!((graph.schedule, graph.durability), (Schedule::Dataflow, Durability::Async));
}

#[test]
fn a_cache_knows_the_node_and_what_it_reads() {
    let cache = |text: &str| graph(text).nodes[0].policy.cache.clone().unwrap();
    let whole = cache(ERRANDS);
    assert_eq!((whole.keep, whole.reads), (Duration::from_hours(1), vec!["next".into()]));
    let same = |text: &str| cache(text).node == whole.node;
    assert!(same(&ERRANDS.replace("timeout: 5s", "timeout: 6s")), "what it does is the same");
    assert!(!same(&ERRANDS.replace("{{ next }}", "{{ next }}!")));
    assert!(!same(&ERRANDS.replace(", skill: support", "")));
    let told = "{{ next }} {{ conversation.id }} {{ user.id }}";
    assert_eq!(whole.scope, Vec::<&str>::new());
    assert_eq!(cache(&ERRANDS.replace("{{ next }}", told)).scope, ["conversation", "user"]);
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
    assert_eq!((graph.limits.steps, graph.limits.tokens), (Some(40), Some(60_000)));
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
