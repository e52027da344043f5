//! What workers run: model calls, tools of all three effects, maps, subgraphs, questions, and nodes
//! that fail before they succeed.
//!
//! Every graph notes its nodes in `log`, so that a node that ran twice, or not at all, shows in
//! the final state.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::mixed::MIXED;

/// Graphs that are killed: these, and those that are put together by chance.
pub(super) fn killed() -> impl Iterator<Item = &'static str> {
    GRAPHS.iter().chain(MIXED.iter()).map(|(name, _)| *name)
}

const GRAPHS: &[(&str, &str)] = &[
    ("line", LINE),
    ("branches", BRANCHES),
    ("maps", MAPS),
    ("nested", NESTED),
    ("asks", ASKS),
    ("talks", TALKS),
    ("retries", RETRIES),
];

/// What the model is asked in [`ZOMBIE`].
pub(super) const HELD: &str = "held back";
/// What it says to the first life: [`SHOWN`] words, and the rest when it is told to go on.
pub(super) const STALE: &str = "stale one stale two stale three stale four ";
/// What it says to every other one.
pub(super) const FRESH: &str = "fresh answer ";
/// Words of [`STALE`] that come at once.
pub(super) const SHOWN: usize = 4;

/// Writes every graph into that folder.
pub(super) fn write(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let others = [("inner", INNER), ("shaky", SHAKY), ("zombie", ZOMBIE)];
    for (name, text) in GRAPHS.iter().chain(MIXED.iter()).chain(&others) {
        fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
    }
}

/// What every tool answers.
pub(super) fn output(args: &Value) -> Value {
    json!({ "did": args["what"] })
}

/// How often a call fails before it succeeds, by what it asks.
pub(super) fn failures(asked: &str) -> u32 {
    match asked {
        _ if asked.ends_with("fails once") => 1,
        _ if asked.ends_with("fails twice") => 2,
        _ => 0,
    }
}

/// One call after another, one of each kind.
const LINE: &str = r#"graph: line
state: { name: { type: string }, log: { reduce: append }, a: {}, b: {}, c: {}, d: {} }
nodes:
  think: { kind: llm, prompt: "{{ name }} thinks", into: a }
  look: { kind: tool, tool: looks, args: { what: "{{ name }} looks" }, into: b }
  looked: { kind: set, set: { log: "'looked'" } }
  put: { kind: tool, tool: puts, args: { what: "{{ name }} puts" }, into: c }
  put_down: { kind: set, set: { log: "'put'" } }
  act: { kind: tool, tool: acts, args: { what: "{{ name }} acts" }, into: d }
  acted: { kind: set, set: { log: "'acted'" } }
edges:
  - { from: START, to: think }
  - { from: think, to: look }
  - { from: look, to: looked }
  - { from: looked, to: put }
  - { from: put, to: put_down }
  - { from: put_down, to: act }
  - { from: act, to: acted }
  - { from: acted, to: END }
"#;

/// Two branches of which each acts, and a join.
const BRANCHES: &str = r#"graph: branches
state: { name: { type: string }, log: { reduce: append }, a: {}, b: {}, c: {} }
nodes:
  first: { kind: set, set: { log: "'first'" } }
  left: { kind: tool, tool: acts, args: { what: "{{ name }} left" }, into: a }
  right: { kind: llm, prompt: "{{ name }} right", into: b }
  noted_left: { kind: set, set: { log: "'left'" } }
  noted_right: { kind: set, set: { log: "'right'" } }
  both: { kind: tool, tool: acts, args: { what: "{{ name }} both" }, into: c }
  last: { kind: set, set: { log: "'last'" } }
edges:
  - { from: START, to: first }
  - { from: first, to: left }
  - { from: first, to: right }
  - { from: left, to: noted_left }
  - { from: right, to: noted_right }
  - { from: [noted_left, noted_right], to: both }
  - { from: both, to: last }
  - { from: last, to: END }
"#;

/// Two maps, one of unsafe calls.
const MAPS: &str = r#"graph: maps
state: { name: { type: string }, log: { reduce: append }, items: { type: array, default: [] }, puts: {}, acts: {} }
nodes:
  list: { kind: set, set: { items: "[name ~ ' 1', name ~ ' 2', name ~ ' 3']", log: "'listed'" } }
  putting:
    kind: map
    over: items
    as: item
    concurrency: 3
    node: { kind: tool, tool: puts, args: { what: "{{ item }} put" } }
    into: puts
  acting:
    kind: map
    over: items
    as: item
    concurrency: 2
    node: { kind: tool, tool: acts, args: { what: "{{ item }} act" } }
    into: acts
  last: { kind: set, set: { log: "'last'" } }
edges:
  - { from: START, to: list }
  - { from: list, to: putting }
  - { from: putting, to: acting }
  - { from: acting, to: last }
  - { from: last, to: END }
"#;

/// A graph inside a graph.
const NESTED: &str = r#"graph: nested
state: { name: { type: string }, log: { reduce: append }, result: {}, a: {} }
nodes:
  first: { kind: set, set: { log: "'first'" } }
  inside: { kind: graph, graph: inner, with: { who: name }, into: result }
  act: { kind: tool, tool: acts, args: { what: "{{ name }} outside" }, into: a }
  last: { kind: set, set: { log: "'last'" } }
edges:
  - { from: START, to: first }
  - { from: first, to: inside }
  - { from: inside, to: act }
  - { from: act, to: last }
  - { from: last, to: END }
"#;

const INNER: &str = r#"graph: inner
input: [who]
output: [b]
state: { who: { type: string }, a: {}, b: {} }
nodes:
  think: { kind: llm, prompt: "{{ who }} inside", into: a }
  act: { kind: tool, tool: acts, args: { what: "{{ who }} inside" }, into: b }
edges:
  - { from: START, to: think }
  - { from: think, to: act }
  - { from: act, to: END }
"#;

/// Two questions at once beside a call.
const ASKS: &str = r#"graph: asks
state: { name: { type: string }, log: { reduce: append }, a: {}, b: {}, c: {}, d: {} }
nodes:
  one: { kind: human, ask: "{{ name }}, one?", choices: [approve, reject], into: a }
  two: { kind: human, ask: "{{ name }}, two?", into: b }
  act: { kind: tool, tool: acts, args: { what: "{{ name }} beside" }, into: c }
  after: { kind: tool, tool: acts, args: { what: "{{ name }} after {{ a }} {{ b }}" }, into: d }
  last: { kind: set, set: { log: "'last'" } }
edges:
  - { from: START, to: one }
  - { from: START, to: two }
  - { from: START, to: act }
  - { from: [one, two, act], to: after }
  - { from: after, to: last }
  - { from: last, to: END }
"#;

/// A model that calls all tools at once.
const TALKS: &str = r#"graph: talks
state: { messages: { reduce: messages }, name: { type: string }, log: { reduce: append } }
nodes:
  talk: { kind: agent, prompt: "{{ name }} talks", tools: [looks, puts, acts] }
  last: { kind: set, set: { log: "'last'" } }
edges:
  - { from: START, to: talk }
  - { from: talk, to: last }
  - { from: last, to: END }
"#;

/// Nodes that are tried again: a model, a tool, and a graph in which a call that must not be
/// repeated stands beside one that fails.
const RETRIES: &str = r#"graph: retries
state: { name: { type: string }, log: { reduce: append }, a: {}, b: {}, c: {}, d: {} }
nodes:
  think: { kind: llm, prompt: "{{ name }} thinks and fails once", into: a, retry: { attempts: 2, wait: 1ms } }
  look: { kind: tool, tool: looks, args: { what: "{{ name }} looks and fails twice" }, into: b, retry: { attempts: 2, wait: 1ms } }
  looked: { kind: set, set: { log: "'looked'" } }
  inside: { kind: graph, graph: shaky, with: { who: name }, into: c, retry: { attempts: 2, wait: 1ms } }
  act: { kind: tool, tool: acts, args: { what: "{{ name }} acts" }, into: d, retry: 1 }
  last: { kind: set, set: { log: "'last'" } }
edges:
  - { from: START, to: think }
  - { from: think, to: look }
  - { from: look, to: looked }
  - { from: looked, to: inside }
  - { from: inside, to: act }
  - { from: act, to: last }
  - { from: last, to: END }
"#;

const SHAKY: &str = r#"graph: shaky
input: [who]
output: [a, b, c]
state: { who: { type: string }, a: {}, b: {}, c: {} }
nodes:
  act: { kind: tool, tool: acts, args: { what: "{{ who }} inside" }, into: a }
  put: { kind: tool, tool: puts, args: { what: "{{ who }} puts and fails once" }, into: b }
  look: { kind: tool, tool: looks, args: { what: "{{ who }} looks and fails once" }, into: c }
edges:
  - { from: START, to: act }
  - { from: START, to: put }
  - { from: [act, put], to: look }
  - { from: look, to: END }
"#;

/// A model that is read from while its worker stands still, and a call after it.
const ZOMBIE: &str = r#"graph: zombie
state: { messages: { reduce: messages }, name: { type: string }, a: {} }
nodes:
  talk: { kind: llm, prompt: held back }
  act: { kind: tool, tool: acts, args: { what: "{{ name }} acts" }, into: a }
edges:
  - { from: START, to: talk }
  - { from: talk, to: act }
  - { from: act, to: END }
"#;
