//! A run is cancelled in the middle of a call, a hundred times: the upstream sees its socket
//! close, and nothing that stood behind the call begins.
//!
//! How fast is printed, and not asserted: the machine may be busy.

use std::time::Duration;

use exile_engine::env::{Env as _, SystemEnv};

use super::installation::{Installation, Serving};
use super::upstream::{Say, Upstream};

const TIMES: usize = 100;

/// A call that hangs, each in a place of its own, and one behind it. What the upstream sees asked
/// is the second word.
const CALLS: &[(&str, &str, &str)] = &[
    ("head", "head", "call: { kind: llm, prompt: head, into: a }"),
    ("body", "body", "call: { kind: llm, prompt: body, into: a }"),
    ("inside", "inside", "call: { kind: agent, prompt: inside, tools: [http_get] }"),
    (
        "page",
        "GET /page",
        "call: { kind: tool, tool: http_get, args: { url: \"URL/page\" }, into: a }",
    ),
];

fn installation(upstream: &Upstream) -> Installation {
    let host = upstream.url.strip_prefix("http://").unwrap();
    let config = format!(
        "models: {{ default: lab/m }}\nproviders: {{ lab: {{ base_url: {}/v1 }} }}\n\
         outbound: {{ allow: ['{host}'] }}\n",
        upstream.url
    );
    CALLS.iter().fold(Installation::bare().with("exile.yaml", &config), |place, (name, _, call)| {
        let call = call.replace("URL", &upstream.url);
        let graph = format!(
            "graph: {name}\n\
             state: {{ messages: {{ reduce: messages }}, a: {{}}, b: {{}} }}\n\
             nodes:\n  {call}\n  later: {{ kind: llm, prompt: later, into: b }}\n\
             edges:\n  - {{ from: START, to: call }}\n  - {{ from: call, to: later }}\n  \
             - {{ from: later, to: END }}\n"
        );
        place.with(&format!("graphs/{name}.yaml"), &graph)
    })
}

/// Starts a run, cancels it when its call hangs, and gives the time until the socket closed.
fn cancel(server: &Serving, upstream: &Upstream, graph: &str, asked: &str) -> Duration {
    let clock = SystemEnv::new();
    let body = format!(r#"{{"graph": "{graph}", "input": {{}}}}"#);
    let started = server.ask("POST", "/api/runs", &body);
    assert_eq!(started.status, 202, "{started:?}");
    let run = format!("/api/runs/{}", started.json()["id"].as_str().unwrap());
    upstream.wait_for(asked);
    let began = clock.monotonic();
    let cancelled = server.ask("POST", &format!("{run}/cancel"), "");
    assert_eq!(cancelled.status, 202, "{cancelled:?}");
    upstream.wait_for_departure();
    let took = clock.monotonic().saturating_sub(began);
    let stream = server.ask("GET", &format!("{run}/stream"), "");
    assert!(stream.body.contains("event: run.cancelled"), "{graph}: {stream:?}");
    took
}

#[test]
fn cancel_reaches_every_call_in_flight_and_nothing_follows() {
    let upstream = Upstream::start(|asked| match asked.last().as_str() {
        "body" | "inside" => Say::Stall("Half an answer"),
        _ => Say::Nothing,
    });
    let place = installation(&upstream);
    let server = place.serve();
    let mut times: Vec<Duration> = (0..TIMES)
        .map(|n| {
            let (graph, asked, _) = CALLS[n % CALLS.len()];
            cancel(&server, &upstream, graph, asked)
        })
        .collect();
    assert_eq!(upstream.count("later"), 0, "a node ran after its run was cancelled");
    times.sort_unstable();
    println!(
        "cancel to the upstream's closed socket, {TIMES} of {TIMES}: median {:.1} ms, slowest {:.1} ms",
        times[TIMES / 2].as_secs_f64() * 1000.0,
        times[TIMES - 1].as_secs_f64() * 1000.0,
    );
}
