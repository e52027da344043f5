//! A provider that fails, in every way that providers fail: the run says which one and why, what
//! came before stays, and the conversation goes on.

use serde_json::{Value, json};

use super::installation::{Installation, Serving};
use super::upstream::{Asked, Say, Upstream};

/// Silent for longer than `timeout` below means a fault. Long enough for a busy machine to give
/// an answer that is not meant to fail.
const TIMEOUT: &str = "2s";

fn error(status: u16, message: &str) -> Say {
    Say::Plain(status, json!({ "error": { "message": message } }).to_string())
}

fn script(asked: &Asked) -> Say {
    match asked.last().as_str() {
        "401" => error(401, "no such key"),
        "429" => error(429, "slow down"),
        "500" => error(500, "broken"),
        "garbage" => Say::Plain(200, "<html>Welcome to the hotel wifi</html>".into()),
        "half a stream" => Say::Half("Half an"),
        "silence" => Say::Nothing,
        "silence in between" => Say::Stall("Half an"),
        _ => Say::Text("fine"),
    }
}

/// Says something that fails between two messages that do not.
fn check(said: &str, status: u16, code: &str) {
    let upstream = Upstream::start(script);
    let config = format!(
        "models: {{ default: lab/m }}\n\
         providers: {{ lab: {{ base_url: {}/v1, timeout: {TIMEOUT}, retries: 0 }} }}\n",
        upstream.url
    );
    let place = Installation::bare().with("exile.yaml", &config);
    let server = place.serve();
    let made = server.ask("POST", "/api/conversations", r#"{"graph": "chat"}"#).json();
    let messages = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
    let say = |body: Value| server.ask("POST", &messages, &body.to_string());

    assert_eq!(say(json!({ "content": "before" })).status, 200);
    let failed = say(json!({ "content": said }));
    assert_eq!((failed.status, failed.json()["code"].as_str()), (status, Some(code)), "{failed:?}");
    assert!(failed.json()["detail"].as_str().unwrap().contains("lab/m: "), "{failed:?}");
    the_run_failed(&server, failed.json()["run"].as_str().unwrap(), code);

    let streamed = say(json!({ "content": said, "stream": true }));
    let last = streamed.body.split("event: ").last().unwrap();
    assert!(last.starts_with("run.failed") && last.contains(code), "{streamed:?}");
    let begun = matches!(said, "half a stream" | "silence in between");
    assert_eq!(streamed.body.contains("Half an"), begun, "{streamed:?}");

    let after = say(json!({ "content": "after" }));
    assert_eq!((after.status, &after.json()["message"]["content"]), (200, &json!("fine")));
    let stored = server.ask("GET", &messages, "").json();
    let contents: Vec<_> = stored["items"].as_array().unwrap().iter().map(spoken).collect();
    let expected =
        ["user before", "assistant fine", "user ", "user ", "user after", "assistant fine"];
    let expected = expected.map(|e| if e == "user " { format!("user {said}") } else { e.into() });
    assert_eq!(contents, expected);
}

fn spoken(message: &Value) -> String {
    format!("{} {}", message["role"].as_str().unwrap(), message["content"].as_str().unwrap())
}

fn the_run_failed(server: &Serving, run: &str, code: &str) {
    let run = server.ask("GET", &format!("/api/runs/{run}"), "").json();
    assert_eq!(run["status"], "failed", "{run}");
    let error = &run["error"];
    let place = (&error["code"], &error["provider"], &error["model"]);
    assert_eq!(place, (&json!(code), &json!("lab"), &json!("m")), "{run}");
    assert!(error["message"].as_str().unwrap().contains("lab/m: "), "{run}");
}

#[test]
fn a_refused_key() {
    check("401", 502, "provider_unauthorized");
}

#[test]
fn too_many_requests() {
    check("429", 429, "provider_rate_limited");
}

#[test]
fn a_server_error() {
    check("500", 502, "provider_unavailable");
}

#[test]
fn garbage() {
    check("garbage", 502, "provider_garbage");
}

#[test]
fn half_a_stream() {
    check("half a stream", 502, "provider_truncated");
}

#[test]
fn silence() {
    check("silence", 504, "provider_timeout");
}

#[test]
fn silence_in_between() {
    check("silence in between", 504, "provider_timeout");
}
