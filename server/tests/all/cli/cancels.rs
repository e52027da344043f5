//! A run is cancelled in the middle of a call, a hundred times: the upstream sees its socket
//! close, and nothing that stood behind the call begins.
//!
//! How fast is printed, and not asserted: the machine may be busy.

use std::io::Write as _;
use std::net::TcpStream;
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

/// Times that a caller leaves, each way.
const LEAVES: usize = 20;

/// Sends a request, leaves when its call hangs, and gives the time until the upstream's socket
/// closed.
pub(crate) fn leave(
    server: &Serving,
    upstream: &Upstream,
    path: &str,
    (body, asked): (&str, &str),
) -> Duration {
    let clock = SystemEnv::new();
    let host = server.url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(host).unwrap();
    let (authorization, length) = (server.authorization(), body.len());
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\n{authorization}\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).unwrap();
    upstream.wait_for(asked);
    let began = clock.monotonic();
    drop(socket);
    upstream.wait_for_departure();
    clock.monotonic().saturating_sub(began)
}

#[test]
fn a_caller_that_wants_it_takes_its_run_along_when_it_leaves() {
    let upstream = Upstream::start(|_| Say::Stall("Half an answer"));
    let place = installation(&upstream);
    let server = place.serve();
    let body = r#"{"graph": "body", "input": {}, "on_disconnect": "cancel"}"#;
    for path in ["/api/runs/stream", "/api/runs/wait"] {
        let mut times: Vec<Duration> =
            (0..LEAVES).map(|_| leave(&server, &upstream, path, (body, "body"))).collect();
        times.sort_unstable();
        println!(
            "{path}: caller gone to the upstream's closed socket, {LEAVES} of {LEAVES}: \
             median {:.1} ms, slowest {:.1} ms",
            times[LEAVES / 2].as_secs_f64() * 1000.0,
            times[LEAVES - 1].as_secs_f64() * 1000.0,
        );
    }
    let runs = server.ask("GET", "/api/runs?limit=200", "").json();
    for run in runs["items"].as_array().unwrap() {
        let stream =
            server.ask("GET", &format!("/api/runs/{}/stream", run["id"].as_str().unwrap()), "");
        assert!(stream.body.contains("event: run.cancelled"), "{stream:?}");
    }
    assert_eq!(upstream.count("later"), 0);
}
