//! What bad input gets: a problem that says where, nothing stored, the server up.

use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

use super::fixture::{Answer, Exile};

pub(super) async fn post(
    exile: &Exile,
    path: &str,
    kind: Option<&str>,
    body: impl Into<Body>,
) -> Answer {
    let mut request = Request::builder()
        .method("POST")
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {}", exile.alice));
    if let Some(kind) = kind {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    exile.send(request.body(body.into()).unwrap()).await
}

pub(super) const JSON: Option<&str> = Some("application/json");

/// Status, code, and a part of the detail.
#[track_caller]
pub(super) fn check(answer: &Answer, status: u16, code: &str, detail: &str) {
    let problem = answer.problem();
    assert_eq!((answer.status, problem["code"].as_str()), (status, Some(code)), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(detail), "{detail:?} in {problem}");
}

pub(super) async fn nothing_is_stored(exile: &Exile, conversation: &str) {
    let said = exile.call("GET", &format!("{conversation}/messages"), None).await.json();
    assert_eq!(said["items"], json!([]));
    assert_eq!(exile.call("GET", "/api/runs", None).await.json()["items"], json!([]));
    let listed = exile.call("GET", "/api/conversations", None).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "only the one made before");
}

#[tokio::test]
async fn bad_bodies_are_refused_with_their_place_and_store_nothing() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("mock/any").await;
    let messages = format!("{conversation}/messages");
    let deep = format!("{{\"content\": {}{}}}", "[".repeat(1000), "]".repeat(1000));
    let in_string = json!({ "content": "[".repeat(1000), "x": 1 }).to_string();
    let cases: [(&str, &[u8], u16, &str, &str); 16] = [
        (&messages, b"{\"content\": \"hi\"", 400, "malformed_json", "EOF"),
        (&messages, b"{\"content\": \"hi\"} {}", 400, "malformed_json", "trailing"),
        (&messages, b"content=hi", 400, "malformed_json", "line 1 column 1"),
        (&messages, b"{\"content\": \"\xff\xfe\"}", 400, "malformed_json", "unicode"),
        (&messages, br#"{"content": "\ud800"}"#, 400, "malformed_json", "column"),
        (&messages, b"{\"content\": \"a\0b\"}", 400, "malformed_json", "control character"),
        (&messages, br#"{"content": "a\\\u0000"}"#, 400, "nul_in_text", "line 1, column 17"),
        (&messages, deep.as_bytes(), 400, "json_too_deep", "line 1, column 76"),
        (&messages, in_string.as_bytes(), 422, "invalid_field", "unknown field `x`"),
        (&messages, br#"{"content": 7}"#, 422, "invalid_field", "content: invalid type"),
        (&messages, br#"{"stream": true}"#, 422, "invalid_field", "content: must not be empty"),
        (
            &messages,
            br#"{"images": ["file:///x"]}"#,
            422,
            "invalid_field",
            "images[0]: an image is",
        ),
        (&messages, br#"{"content": ""}"#, 422, "invalid_field", "must not be empty"),
        (&messages, br#"["hi", true]"#, 422, "invalid_field", "must be an object"),
        ("/api/conversations", br#"{"grahp": "x"}"#, 422, "invalid_field", "unknown field `grahp`"),
        ("/api/runs", br#"{"input": {"a": "\udfff"}}"#, 400, "malformed_json", "column"),
    ];
    for (path, body, status, code, detail) in cases {
        check(&post(&exile, path, JSON, body.to_vec()).await, status, code, detail);
    }
    nothing_is_stored(&exile, &conversation).await;
}

#[tokio::test]
async fn a_field_at_fault_is_named() {
    let exile = Exile::start().await;
    let answer = post(&exile, "/api/conversations", JSON, r#"{"title": ["x"]}"#).await;
    assert_eq!(answer.problem()["field"], "title");
    let body =
        json!({ "graph": "chat", "input": { "messages": [{ "role": "user" }, { "role": 1 }] } });
    let answer = post(&exile, "/api/runs", JSON, body.to_string()).await;
    assert_eq!(answer.problem()["field"], "input.messages[1]");
}

#[tokio::test]
async fn no_refusal_speaks_of_types_in_here() {
    let exile = Exile::start().await;
    let nested =
        r#"{"graph": "chat", "input": {"messages": [{"role": "user", "tool_calls": [5]}]}}"#;
    for (path, body) in [
        ("/api/conversations", "5"),
        ("/api/conversations", "\"expected struct Mine\""),
        ("/api/runs", "null"),
        ("/api/runs", r#"{"graph": "chat", "input": {"messages": 5}}"#),
        ("/api/runs", nested),
        ("/v1/chat/completions", "5"),
        ("/v1/chat/completions", r#"{"model": "mock/any", "messages": [5]}"#),
        ("/v1/chat/completions", r#"{"model": "mock/any", "messages": 5, "tools": 7}"#),
    ] {
        let answer = post(&exile, path, JSON, body).await;
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.text);
        let said = answer.text.replace("expected struct Mine", "");
        assert!(!said.contains("struct"), "{body}: {said}");
    }
}

#[tokio::test]
async fn a_body_is_read_only_as_what_it_is_declared_to_be() {
    let exile = Exile::start().await;
    let body = r#"{"title": "x"}"#;
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("application/jsonp"),
    ] {
        let answer = post(&exile, "/api/conversations", kind, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_media_type"));
    }
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"] {
        assert_eq!(post(&exile, "/api/conversations", Some(kind), body).await.status, 201);
    }
    let empty = post(&exile, "/api/conversations", None, Body::empty()).await;
    assert_eq!(empty.status, 201, "no body is an empty object");
}

#[tokio::test]
async fn odd_text_makes_the_round_trip() {
    let exile = Exile::start().await;
    let odd = "\u{7f}, bidi \u{202e}abc\u{202c}, \u{1f469}\u{200d}\u{1f4bb}, 你好, \u{fffd}\r\n";
    let created = exile.call("POST", "/api/conversations", Some(json!({ "title": odd }))).await;
    let conversation = created.header("location").to_owned();
    let messages = format!("{conversation}/messages");
    let answer = exile.call("POST", &messages, Some(json!({ "content": odd }))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(exile.call("GET", &conversation, None).await.json()["title"], odd);
    let said = exile.call("GET", &messages, None).await.json();
    assert_eq!(said["items"][0]["content"], odd);
}

#[tokio::test]
async fn names_are_looked_up_and_never_become_paths() {
    let exile = Exile::start().await;
    let tricks = ["..%2f..%2fetc%2fpasswd", "..%2fchat", "%2e%2e", "chat.yaml", "chat%00", "CHAT"];
    for trick in tricks {
        for path in ["/api/graphs/", "/api/skills/", "/api/conversations/", "/api/runs/"] {
            let answer = exile.call("GET", &format!("{path}{trick}"), None).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (404, "not_found"),
                "{path}{trick}"
            );
        }
    }
    for name in ["../chat", "skills/pirate", "chat\u{1}", "/etc/passwd", "", "ghost"] {
        for path in ["/api/conversations", "/api/runs"] {
            let answer = exile.call("POST", path, Some(json!({ "graph": name }))).await;
            check(&answer, 422, "unknown_graph", "there are: ");
        }
        let answer = exile.call("POST", "/api/conversations", Some(json!({ "skill": name }))).await;
        check(&answer, 422, "unknown_skill", "pirate");
    }
    let bytes = exile.call("GET", "/api/graphs/%ff%fe", None).await;
    assert_eq!((bytes.status, bytes.code().as_str()), (400, "malformed_request"));
}

#[tokio::test]
async fn queries_and_cursors_are_checked() {
    let exile = Exile::start().await;
    let cases = [
        ("/api/conversations?limit=many", "limit"),
        ("/api/conversations?offset=3", "unknown field"),
        ("/api/conversations?after=zzz", "cursor"),
        ("/api/runs?status=done", "queued, running"),
        ("/sign-in?to=alice", "unknown field"),
    ];
    for (path, detail) in cases {
        check(&exile.call("GET", path, None).await, 400, "malformed_request", detail);
    }
    let value: Value = exile.call("GET", "/api/conversations?limit=0", None).await.json();
    assert_eq!(value, json!({ "items": [], "next": null }));
}
