//! `kill -9` of the whole server at random moments, with runs in flight: every run ends right,
//! every step is there once, and no call is made again but those that were open.
//!
//! `EXILE_SEED` sets which moments. Many more kills, at named points of the store's work and over
//! every kind of effect: `durable/kills.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::installation::{Installation, Serving};
use super::upstream::{Say, Upstream};
use super::web::Answer;
use crate::durable::{Seeded, number};

/// How often the server is killed.
const KILLS: u64 = 20;

/// Runs that are in flight when the server dies.
const RUNS: usize = 6;

/// Two branches, a join, and a model call in each node; each notes itself in `log`.
const GRAPH: &str = r#"graph: steps
state:
  messages: { reduce: messages }
  name: { type: string }
  log: { reduce: append }
  a: {}
  b: {}
  c: {}
nodes:
  first: { kind: set, set: { log: "'first'" } }
  left: { kind: llm, prompt: "{{ name }} left", into: a }
  right: { kind: llm, prompt: "{{ name }} right", into: b }
  noted_left: { kind: set, set: { log: "'left'" } }
  noted_right: { kind: set, set: { log: "'right'" } }
  both: { kind: llm, prompt: "{{ name }} both", into: c }
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

#[test]
fn every_run_ends_right_however_often_the_process_is_killed() {
    let seed = number("EXILE_SEED", 1);
    let mut random = Seeded(seed);
    let upstream = Upstream::start(|_| Say::Text("fine"));
    let config = format!(
        "models: {{ default: lab/m }}\nproviders: {{ lab: {{ base_url: {}/v1 }} }}\n",
        upstream.url
    );
    let place = Installation::bare().with("exile.yaml", &config).with("graphs/steps.yaml", GRAPH);
    let mut runs: BTreeMap<String, String> = BTreeMap::new();
    for kill in 0..KILLS {
        let server = place.serve();
        for n in 0..RUNS {
            let name = format!("r{kill}-{n}");
            let body = json!({ "graph": "steps", "input": { "name": name } }).to_string();
            let started = server.ask("POST", "/api/runs", &body);
            assert_eq!(started.status, 202, "{started:?}");
            runs.insert(started.json()["id"].as_str().unwrap().to_owned(), name);
        }
        // The moment itself is what is tried: from before the first step to after the last.
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        server.kill();
    }
    let server = place.serve();
    for (run, name) in &runs {
        check(&server, &upstream, run, name, seed);
    }
    assert_eq!(server.terminate().code, 0);
}

/// The run's stream to its end. A run that three processes in a row died with before it got on is
/// left to a person, who says that it may go on.
fn finished(server: &Serving, run: &str) -> Answer {
    loop {
        let stream = server.ask("GET", &format!("/api/runs/{run}/stream"), "");
        let poisoned = stream.body.contains(r#""code":"poison""#);
        if !poisoned || stream.body.contains("event: run.finished") {
            return stream;
        }
        // 409 if it goes on already: the stream is asked for again.
        let resolve = format!("/api/runs/{run}/resolve");
        let resolved = server.ask("POST", &resolve, r#"{"action": "retry"}"#);
        assert!([202, 409].contains(&resolved.status), "{resolved:?}");
    }
}

fn check(server: &Serving, upstream: &Upstream, run: &str, name: &str, seed: u64) {
    let stream = finished(server, run);
    assert!(stream.body.contains("event: run.finished"), "seed {seed}, {name}: {stream:?}");
    let state = server.ask("GET", &format!("/api/runs/{run}/state"), "").json();
    let expected = json!(["first", "left", "right", "last"]);
    assert_eq!(state["values"]["log"], expected, "seed {seed}, {name}");
    let events = server.ask("GET", &format!("/api/runs/{run}/events"), "").json();
    let events = events["items"].as_array().unwrap();
    let count = |event: &str| events.iter().filter(|e| e["name"] == event).count();
    assert_eq!(count("model.finished"), 3, "seed {seed}, {name}: one record per call");
    for call in ["left", "right", "both"] {
        let asked = upstream.count(&format!("{name} {call}"));
        // A call that was open when the process died is made again, once per take-over.
        assert!(asked >= 1, "seed {seed}, {name} {call} was never asked");
        assert!(
            asked <= 1 + open_at_death(events, call),
            "seed {seed}, {name} {call} was recorded and asked {asked} times"
        );
    }
}

/// How often the process died while this node's call had no record yet.
fn open_at_death(events: &[Value], node: &str) -> usize {
    let recorded = |e: &&Value| e["name"] == "model.finished" && e["data"]["node"] == node;
    let until = events.iter().position(|e| recorded(&e)).unwrap();
    events[..until].iter().filter(|e| e["name"] == "stream.reset").count()
}
