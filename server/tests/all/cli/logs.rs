//! What operators find in the log.

use serde_json::{Value, json};

use super::installation::Installation;
use super::web::{ask, ask_with};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Runs a graph that fails at its node `answer`, and one that does not: the log of both, and the id of
/// the one that failed.
fn log_of_a_failure(place: Installation) -> (String, String) {
    let rules = "- { match: fail, fail: { status: 401, message: wrong key } }\n";
    let place = place.with(".exile/mock.yaml", rules);
    let server = place.serve();
    let body = |text: &str| json!({ "graph": "chat", "input": { "messages": text } }).to_string();
    let lines =
        format!("{}traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n", server.authorization());
    let failed = ask_with(&server.url, "POST", "/api/runs/wait", &lines, &body("fail"));
    let run = failed.json()["run"].as_str().unwrap().to_owned();
    assert_eq!(server.ask("POST", "/api/runs/wait", &body("hello")).status, 200);
    (server.terminate().err, run)
}

#[test]
fn every_failed_run_is_one_line_of_the_log() {
    let (log, run) = log_of_a_failure(Installation::bare());
    let failed: Vec<&str> = log.lines().filter(|line| line.contains("a run failed")).collect();
    assert_eq!(failed.len(), 1, "{log}");
    let [run, trace] = [format!("run={run}"), format!("trace=\"{TRACE}\"")];
    for part in
        ["WARN", &*run, "graph=chat", "node=\"answer\"", "code=\"provider_unauthorized\"", &*trace]
    {
        assert!(failed[0].contains(part), "no {part} in {}", failed[0]);
    }
}

#[test]
fn the_log_is_json_if_it_is_asked_for() {
    let (log, run) = log_of_a_failure(Installation::bare().set("EXILE_LOG_FORMAT", "json"));
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed = lines.iter().find(|line| line["message"] == "a run failed").unwrap();
    assert_eq!(
        json!([failed["level"], failed["run"], failed["graph"], failed["node"], failed["trace"]]),
        json!(["WARN", run, "chat", "answer", TRACE])
    );
    assert!(failed["timestamp"].is_string() && failed["code"].is_string(), "{failed}");
    let wrong = Installation::bare().set("EXILE_LOG_FORMAT", "xml").run(&["user", "list"]);
    assert!(wrong.code == 1 && wrong.err.contains("EXILE_LOG_FORMAT"), "{wrong:?}");
    let place = Installation::bare().set("EXILE_LOG_FORMAT", "xml");
    assert_eq!(place.run(&["user", "list", "--log-format", "json"]).code, 0, "a flag comes first");
}

#[test]
fn what_administrators_do_at_others_and_direct_calls_of_tools_are_lines_of_the_log() {
    let place = Installation::bare();
    let server = place.serve();
    for name in ["ada", "bob"] {
        assert_eq!(place.run(&["user", "add", name]).code, 0);
    }
    let key = place.run(&["key", "create", "--user", "ada"]);
    let key = key.out.lines().next().unwrap().to_owned();
    let made = ask(&server.url, "POST", "/api/conversations", Some(&key), "{}").json();
    let id = made["id"].as_str().unwrap().to_owned();
    let path = format!("/api/conversations/{id}");
    assert_eq!(ask(&server.url, "GET", &path, Some(&key), "").status, 200);
    assert_eq!(server.ask("GET", &path, "").status, 200);
    assert_eq!(server.ask("GET", "/api/runs?owner=bob", "").status, 200);
    let body = json!({ "arguments": { "expression": "40 + 2" } }).to_string();
    assert_eq!(server.ask("POST", "/api/tools/calculator/call", &body).status, 200);
    let log = server.terminate().err;
    let reached: Vec<&str> =
        log.lines().filter(|line| line.contains("an administrator reached")).collect();
    assert_eq!(reached.len(), 2, "{log}");
    for part in ["by=\"admin\"", "owner=\"ada\"", &id, "GET", "/api/conversations/{id}", "key_"] {
        assert!(reached[0].contains(part), "no {part} in {}", reached[0]);
    }
    assert!(reached[1].contains("owner=\"bob\"") && reached[1].contains("/api/runs"), "{log}");
    let called = log.lines().find(|line| line.contains("a tool is called directly")).unwrap();
    assert!(called.contains("calculator") && called.contains("admin"), "{called}");
    assert!(!log.contains("40 + 2"), "{log}");
}
