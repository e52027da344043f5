//! Tasks that run side by side, and tasks that are stopped, as an upstream sees them.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::installation::Installation;
use super::upstream::{Say, Upstream};

const GRAPH: &str = r"graph: pair
state: { a: {}, b: {} }
nodes:
  left: { kind: llm, prompt: left, into: a }
  right: { kind: llm, prompt: right, into: b }
edges:
  - { from: START, to: left }
  - { from: START, to: right }
  - { from: [left, right], to: END }
";

fn installation(upstream: &Upstream) -> Installation {
    let config = format!(
        "models: {{ default: lab/m }}\nproviders: {{ lab: {{ base_url: {}/v1 }} }}\n",
        upstream.url
    );
    Installation::bare().with("exile.yaml", &config).with("graphs/pair.yaml", GRAPH)
}

/// Where two calls meet: neither goes on before both are there.
#[derive(Default)]
struct Meeting {
    there: Mutex<u32>,
    come: Condvar,
}

impl Meeting {
    /// Whether the other one came while this one was waiting.
    fn attend(&self) -> bool {
        let mut there = self.there.lock().unwrap();
        *there += 1;
        self.come.notify_all();
        let alone = |there: &mut u32| *there < 2;
        let patience = Duration::from_secs(20);
        !self.come.wait_timeout_while(there, patience, alone).unwrap().1.timed_out()
    }
}

#[test]
fn two_branches_call_their_models_at_the_same_time() {
    let meeting = Arc::new(Meeting::default());
    let alone = r#"{"error": {"message": "nobody else came"}}"#;
    let upstream = Upstream::start(move |_| {
        if meeting.attend() { Say::Text("met") } else { Say::Plain(500, alone.into()) }
    });
    let place = installation(&upstream);
    let server = place.serve();
    let ended = server.ask("POST", "/api/runs/wait", r#"{"graph": "pair", "input": {}}"#);
    assert_eq!(ended.status, 200, "{ended:?}");
    assert_eq!((upstream.count("left"), upstream.count("right")), (1, 1));
}

#[test]
fn cancelling_closes_the_upstream_sockets() {
    let upstream = Upstream::start(|asked| match asked.last().as_str() {
        "left" => Say::Nothing,
        _ => Say::Stall("Half an answer"),
    });
    let place = installation(&upstream);
    let server = place.serve();
    let started = server.ask("POST", "/api/runs", r#"{"graph": "pair", "input": {}}"#);
    assert_eq!(started.status, 202, "{started:?}");
    let run = format!("/api/runs/{}", started.json()["id"].as_str().unwrap());
    // One call waits for the head of its answer, the other for the rest of it.
    upstream.wait_for_all(&["left", "right"]);
    let cancelled = server.ask("POST", &format!("{run}/cancel"), "");
    assert!((200..300).contains(&cancelled.status), "{cancelled:?}");
    upstream.wait_for_departure();
    upstream.wait_for_departure();
    let stream = server.ask("GET", &format!("{run}/stream"), "");
    assert!(stream.body.contains("event: run.cancelled"), "{stream:?}");
    assert_eq!(server.ask("GET", &run, "").json()["status"], "cancelled");
}
