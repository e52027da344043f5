//! `kill -9` in the middle of a run: the next start finishes it, and what was finished is not
//! called again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::installation::Installation;
use super::upstream::{Say, Upstream};

/// Page, model, model, model, each noted in `log`.
fn steps(url: &str) -> String {
    format!(
        r#"graph: steps
state:
  messages: {{ reduce: messages }}
  log: {{ reduce: append }}
  page: {{}}
  answer: {{ type: string }}
nodes:
  fetch: {{ kind: tool, tool: http_get, args: {{ url: "{url}/page" }}, into: page }}
  noted_fetch: {{ kind: set, set: {{ log: "'fetch'" }} }}
  one: {{ kind: llm, prompt: call one, into: answer }}
  noted_one: {{ kind: set, set: {{ log: "'one'" }} }}
  two: {{ kind: llm, prompt: call two, into: answer }}
  noted_two: {{ kind: set, set: {{ log: "'two'" }} }}
  three: {{ kind: llm, prompt: call three, into: answer }}
edges:
  - {{ from: START, to: fetch }}
  - {{ from: fetch, to: noted_fetch }}
  - {{ from: noted_fetch, to: one }}
  - {{ from: one, to: noted_one }}
  - {{ from: noted_one, to: two }}
  - {{ from: two, to: noted_two }}
  - {{ from: noted_two, to: three }}
  - {{ from: three, to: END }}
"#
    )
}

fn installation(upstream: &Upstream) -> Installation {
    let host = upstream.url.strip_prefix("http://").unwrap();
    let config = format!(
        "models: {{ default: lab/m }}\nproviders: {{ lab: {{ base_url: {}/v1 }} }}\n\
         outbound: {{ allow: ['{host}'] }}\n",
        upstream.url
    );
    Installation::bare()
        .with("exile.yaml", &config)
        .with("graphs/steps.yaml", &steps(&upstream.url))
}

/// Kills the server when `last` has been asked and stays unanswered, then starts another one and
/// reads the run to its end.
fn check(last: &'static str, asked_twice: &str) {
    let dead = Arc::new(AtomicBool::new(false));
    let alive = dead.clone();
    let upstream = Upstream::start(move |asked| match asked.last().as_str() {
        text if text == last && !alive.load(Ordering::SeqCst) => Say::Nothing,
        "GET /page" => Say::Plain(200, "{\"page\": 1}".into()),
        _ => Say::Text("fine"),
    });
    let place = installation(&upstream);
    let server = place.serve();
    let started = server.ask("POST", "/api/runs", r#"{"graph": "steps", "input": {}}"#);
    assert_eq!(started.status, 202, "{started:?}");
    let run = started.json()["id"].as_str().unwrap().to_owned();
    upstream.wait_for(last);
    server.kill();
    dead.store(true, Ordering::SeqCst);

    let server = place.serve();
    let stream = server.ask("GET", &format!("/api/runs/{run}/stream"), "");
    assert!(stream.body.contains("event: run.finished"), "{stream:?}");
    let state = server.ask("GET", &format!("/api/runs/{run}/state"), "").json();
    assert_eq!(state["values"]["log"], serde_json::json!(["fetch", "one", "two"]), "{state}");
    for call in ["GET /page", "call one", "call two", "call three"] {
        let expected = if call == asked_twice { 2 } else { 1 };
        assert_eq!(upstream.count(call), expected, "{call}");
    }
    let ended = server.terminate();
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn killed_in_the_first_model_call() {
    check("call one", "call one");
}

#[test]
fn killed_in_a_later_model_call() {
    check("call three", "call three");
}

#[test]
fn killed_in_a_tool_that_only_reads() {
    check("GET /page", "GET /page");
}

#[test]
fn an_orderly_stop_makes_no_call_twice() {
    let (release, gate) = std::sync::mpsc::channel();
    let gate = std::sync::Mutex::new(gate);
    let upstream = Upstream::start(move |asked| match asked.last().as_str() {
        "call one" => {
            gate.lock().unwrap().recv().unwrap();
            Say::Text("fine")
        }
        "GET /page" => Say::Plain(200, "{}".into()),
        _ => Say::Text("fine"),
    });
    let place = installation(&upstream);
    let server = place.serve();
    let started = server.ask("POST", "/api/runs", r#"{"graph": "steps", "input": {}}"#);
    let run = started.json()["id"].as_str().unwrap().to_owned();
    upstream.wait_for("call one");
    server.signal();
    release.send(()).unwrap();
    let ended = server.ended();
    assert_eq!(ended.code, 0, "{ended:?}");

    let server = place.serve();
    let stream = server.ask("GET", &format!("/api/runs/{run}/stream"), "");
    assert!(stream.body.contains("event: run.finished"), "{stream:?}");
    for call in ["GET /page", "call one", "call two", "call three"] {
        assert_eq!(upstream.count(call), 1, "{call}");
    }
}
