//! Requests that nobody means well, over a real socket: each gets a 4xx problem, nothing is
//! stored, and the server goes on.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::installation::{Installation, Serving};
use super::web::{self, Answer};

/// Everything that a request could have left behind.
fn stored(server: &Serving, messages: &str) -> Vec<Value> {
    let lists = ["/api/conversations", "/api/runs", "/api/users", "/api/keys", messages];
    lists.map(|list| server.ask("GET", list, "").json()).to_vec()
}

#[track_caller]
fn check(answer: &Answer, status: u16, code: &str) {
    let shown: String = answer.body.chars().take(500).collect();
    assert!(answer.head.contains("application/problem+json"), "{}: {shown}", answer.head);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{shown}");
}

#[test]
fn bad_bodies_store_nothing() {
    let place = Installation::bare();
    let server = place.serve();
    let made = server.ask("POST", "/api/conversations", "{}").json();
    let messages = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
    let unknown = "/api/conversations/conv_nobody/messages";
    let before = stored(&server, &messages);
    let deep = format!("{{\"content\": {}", "[".repeat(500_000));
    let large = json!({ "content": "x".repeat(33 << 20) }).to_string();
    let cases = [
        (&*messages, r#"{"content": "hi""#, 400, "malformed_json"),
        (&messages, &deep, 400, "json_too_deep"),
        (&messages, r#"{"content": "\u0000"}"#, 400, "nul_in_text"),
        (&messages, "{\"content\": \"\0\"}", 400, "malformed_json"),
        (&messages, r#"{"content": "\ud800"}"#, 400, "malformed_json"),
        (&messages, r#"{"content": "\udc00\ud800"}"#, 400, "malformed_json"),
        (&messages, r#"{"content": "hi", "contant": "ho"}"#, 422, "invalid_field"),
        (&messages, r#"{"content": {"text": "hi"}}"#, 422, "invalid_field"),
        (&messages, &large, 413, "body_too_large"),
        (unknown, r#"{"content": "hi"}"#, 404, "not_found"),
        ("/api/conversations", r#"{"graph": "ghost"}"#, 422, "unknown_graph"),
        ("/api/conversations", r#"{"graph": "../chat"}"#, 422, "unknown_graph"),
        ("/api/conversations", r#"{"skill": "../../etc/passwd"}"#, 422, "unknown_skill"),
        ("/api/runs", r#"{"graph": "ghost", "input": {}}"#, 422, "unknown_graph"),
        ("/api/runs/wait", r#"{"graph": "chat", "input": {"n": 1}}"#, 422, "unknown_channel"),
        (
            "/api/runs/stream",
            r#"{"graph": "chat", "input": {"messages": 7}}"#,
            422,
            "invalid_field",
        ),
        ("/api/tools/..%2fcalculator/call", r#"{"arguments": {}}"#, 404, "not_found"),
        ("/api/users", r#"{"name": "a\u0000b"}"#, 400, "nul_in_text"),
    ];
    for (path, body, status, code) in cases {
        check(&server.ask("POST", path, body), status, code);
    }
    assert_eq!(stored(&server, &messages), before);
    let good = server.ask("POST", &messages, r#"{"content": "hi"}"#);
    assert_eq!(good.status, 200, "{good:?}");
}

#[test]
fn paths_that_climb_find_nothing() {
    let place = Installation::bare();
    let server = place.serve();
    let key = place.key();
    for path in [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/style.css/../local.key",
        "/api/docs/../../.exile/local.key",
        "/api/docs/..%2f..%2f.exile%2flocal.key",
        "/api/graphs/..%2fskills%2fassistant",
        "/api/graphs/..%5c..%5cchat",
        "/api/graphs/chat%00.yaml",
        "/api/conversations/%2e%2e%2f%2e%2e",
        "/api/runs/..;/state",
    ] {
        let answer = server.ask("GET", path, "");
        check(&answer, 404, "not_found");
        assert!(!answer.body.contains("root:") && !answer.body.contains(&key), "{path}");
    }
    check(&server.ask("GET", "/api/graphs/%ff%fe", ""), 400, "malformed_request");
}

#[test]
fn what_is_no_http_is_cut_off() {
    let place = Installation::bare();
    let server = place.serve();
    let long = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    let target = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(1 << 17));
    let mut many = String::from("GET /healthz HTTP/1.1\r\n");
    for n in 0..1000 {
        write!(many, "x-{n}: y\r\n").unwrap();
    }
    for request in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", &long, &target, &format!("{many}\r\n")] {
        let answer = web::send(&server.url, request.as_bytes());
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
    assert_eq!(server.ask("GET", "/healthz", "").status, 200);
}

/// A list that holds ten times the list before it, and so on.
fn bomb() -> String {
    let mut text = String::from("graph: bomb\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..100 {
        let items = vec![format!("*a{}", i - 1); 10].join(", ");
        writeln!(text, "a{i}: &a{i} [{items}]").unwrap();
    }
    text
}

/// That it takes no time is the engine's promise: what is refused was not expanded or parsed.
#[test]
fn a_bomb_and_a_huge_graph_are_refused_and_the_others_are_served() {
    let nodes = "  n: { kind: set, set: {} }\n".repeat(80_000);
    let huge = format!("graph: huge\nnodes:\n{nodes}");
    assert!(huge.len() > 2_000_000);
    let good = include_str!("../../../../graphs/chat.yaml");
    let place = Installation::bare()
        .with("graphs/bomb.yaml", &bomb())
        .with("graphs/huge.yaml", &huge)
        .with("graphs/chat.yaml", good);
    let ended = place.run(&["validate", "graphs", "--json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let findings: Value = serde_json::from_str(&ended.out).unwrap();
    let codes: Vec<_> =
        findings["findings"].as_array().unwrap().iter().map(|f| &f["code"]).collect();
    assert_eq!(codes, ["alias_bomb", "too_large"], "{findings}");
    let server = place.serve();
    for name in ["bomb", "huge"] {
        let body = json!({ "graph": name }).to_string();
        let refused = server.ask("POST", "/api/conversations", &body);
        assert_eq!(refused.status, 422, "{refused:?}");
    }
    let made = server.ask("POST", "/api/conversations", r#"{"graph": "chat"}"#);
    assert_eq!(made.status, 201, "{made:?}");
}
