//! `exile runs`: what operators see of runs, and stopping them.

use serde_json::{Value, json};

use super::installation::{Ended, Installation};
use super::web::ask;

const ASK: &str = "
graph: ask
output: [said]
state: { said: {} }
nodes: { ask: { kind: human, ask: \"Which colour?\", into: said } }
edges: [{ from: START, to: ask }, { from: ask, to: END }]
";

fn json(ended: &Ended) -> Value {
    assert_eq!(ended.code, 0, "{ended:?}");
    serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {ended:?}"))
}

#[test]
fn runs_are_listed_shown_and_cancelled_whoever_owns_them() {
    let rules = "- { match: fail, fail: { status: 401, message: wrong key } }\n";
    let place = Installation::bare().with(".exile/mock.yaml", rules).with("graphs/ask.yaml", ASK);
    let chat = "graph: chat\nmode: linear\ninput: [messages]\nstate: { messages: { reduce: messages } }\n\
                nodes: { answer: { kind: llm } }\norder: [answer]\n";
    let place = place.with("graphs/chat.yaml", chat);
    let server = place.serve();
    assert_eq!(place.run(&["user", "add", "ana"]).code, 0);
    let key = place.run(&["key", "create", "--user", "ana"]);
    let key = key.out.lines().next().unwrap().to_owned();
    let waits =
        ask(&server.url, "POST", "/api/runs/wait", Some(&key), r#"{"graph": "ask"}"#).json();
    let waits = waits["run"]["id"].as_str().unwrap();
    let failed = r#"{"graph": "chat", "input": {"messages": "fail"}}"#;
    let failed = server.ask("POST", "/api/runs/wait", failed).json();
    let failed = failed["run"].as_str().unwrap();

    let listed = place.run(&["runs", "list"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    let line = |id: &str| listed.out.lines().find(|line| line.contains(id)).unwrap().to_owned();
    assert!(line(waits).contains("waiting") && line(waits).contains("ana"), "{listed:?}");
    assert!(line(failed).contains("failed") && line(failed).contains("admin"), "{listed:?}");
    for (narrowed, id) in
        [(["--owner", "ana"], waits), (["--status", "failed"], failed), (["--graph", "ask"], waits)]
    {
        let one = json(&place.run(&[&["runs", "list", "--json"], &narrowed[..]].concat()));
        assert_eq!(
            (one["items"].as_array().unwrap().len(), &one["items"][0]["id"]),
            (1, &json!(id))
        );
    }
    let page = json(&place.run(&["runs", "list", "--json", "--limit", "1"]));
    assert_eq!(page["items"].as_array().unwrap().len(), 1);

    let shown = place.run(&["runs", "show", waits]);
    for part in ["ana", "waiting", "Which colour?", waits] {
        assert!(shown.out.contains(part), "no {part} in {shown:?}");
    }
    let shown = place.run(&["runs", "show", failed]);
    for part in ["failed", "answer", "wrong key"] {
        assert!(shown.out.contains(part), "no {part} in {shown:?}");
    }
    assert_eq!(json(&place.run(&["runs", "show", failed, "--json"]))["status"], "failed");
    assert_eq!(place.run(&["runs", "show", "run_none"]).code, 1);

    let cancelled = place.run(&["runs", "cancel", waits]);
    assert_eq!(cancelled.code, 0, "{cancelled:?}");
    ask(&server.url, "GET", &format!("/api/runs/{waits}/stream"), Some(&key), "");
    assert_eq!(json(&place.run(&["runs", "show", waits, "--json"]))["status"], "cancelled");
    let late = place.run(&["runs", "cancel", failed]);
    assert!(late.code == 0 && late.out.contains("stays as it is"), "{late:?}");
}
