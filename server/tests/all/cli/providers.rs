//! Providers by configuration alone: each protocol under its own name and under another, with
//! thinking, pictures and tools, seen from both ends.

use serde_json::{Value, json};

use super::installation::{Installation, Serving};
use super::upstream::{Asked, Say, Upstream};

const CHAT: &str = "graph: ask\nstate:\n  messages: { reduce: messages }\n\
    nodes:\n  answer: { kind: llm, skill: thinker }\n\
    edges:\n  - { from: START, to: answer }\n  - { from: answer, to: END }\n";
const AGENT: &str = "graph: work\nstate:\n  messages: { reduce: messages }\n\
    nodes:\n  answer: { kind: agent, tools: [calculator], reasoning: high }\n\
    edges:\n  - { from: START, to: answer }\n  - { from: answer, to: END }\n";
const SKILL: &str = "skill: thinker\nsystem: Be brief.\nreasoning: low\n";
const PICTURE: &str = "data:image/png;base64,iVBORw0KGgo=";

fn events(events: &[Value]) -> String {
    let event = |e: &Value| format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap());
    events.iter().map(event).collect::<Vec<_>>().concat()
}

/// Claude thinks; it adds with a tool if it has one and has not done so yet.
fn claude(asked: &Asked) -> Say {
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    let start = |index: u64, block: Value| json!({ "type": "content_block_start", "index": index, "content_block": block });
    let calls = body["tools"].is_array() && !asked.body.contains("tool_result");
    let (block, reason) = if calls {
        let input = json!({ "expression": "2+3" });
        let call =
            json!({ "type": "tool_use", "id": "toolu_1", "name": "calculator", "input": input });
        (call, "tool_use")
    } else {
        (json!({ "type": "text", "text": "Five." }), "end_turn")
    };
    Say::Plain(
        200,
        events(&[
            json!({ "type": "message_start", "message": { "id": "m1", "model": "claude",
            "usage": { "input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 1 } } }),
            start(0, json!({ "type": "thinking", "thinking": "hm", "signature": "sig" })),
            start(1, block),
            json!({ "type": "message_delta", "delta": { "stop_reason": reason },
            "usage": { "output_tokens": 7 } }),
            json!({ "type": "message_stop" }),
        ]),
    )
}

/// A server whose conversations ask this model at the upstream; the path of one's messages.
fn conversation(upstream: &Upstream, graph: &str, model: &str) -> (Installation, Serving, String) {
    let config = format!(
        "models: {{ default: {model} }}\nproviders:\n  \
         anthropic: {{ base_url: {url}, api_key: sk-canary }}\n  \
         claude: {{ base_url: {url}/v1, api_key: sk-canary, protocol: anthropic }}\n  \
         lab: {{ base_url: {url}/v1 }}\n",
        url = upstream.url
    );
    let place = Installation::bare()
        .with("exile.yaml", &config)
        .with("graphs/ask.yaml", CHAT)
        .with("graphs/work.yaml", AGENT)
        .with("graphs/skills/thinker.yaml", SKILL);
    let server = place.serve();
    let made = server.ask("POST", "/api/conversations", &json!({ "graph": graph }).to_string());
    let path = format!("/api/conversations/{}/messages", made.json()["id"].as_str().unwrap());
    (place, server, path)
}

fn body(upstream: &Upstream) -> Value {
    serde_json::from_str(&upstream.all().pop().unwrap().body).unwrap()
}

#[test]
fn anthropics_protocol_is_spoken_under_its_name_and_by_configuration() {
    for name in ["anthropic", "claude"] {
        let upstream = Upstream::start(claude);
        let (_place, server, path) =
            conversation(&upstream, "ask", &format!("{name}/claude-sonnet-4-6"));
        let streamed = server.ask("POST", &path, r#"{"content": "2+3?", "stream": true}"#).body;
        for part in ["event: reasoning.delta\ndata: {", "event: message.delta\ndata: {", "Five."] {
            assert!(streamed.contains(part), "{part} is not in {streamed}");
        }
        let asked = upstream.all().pop().unwrap();
        assert_eq!(asked.line, "POST /v1/messages");
        assert!(asked.head.contains("x-api-key: sk-canary"), "{}", asked.head);
        assert!(asked.head.contains("anthropic-version: 2023-06-01"), "{}", asked.head);
        let body = body(&upstream);
        assert_eq!((&body["system"], &body["stream"]), (&json!("Be brief."), &json!(true)));
        assert_eq!(body["output_config"], json!({ "effort": "low" }), "the skill's effort");
        let stored = server.ask("GET", &path, "").json();
        assert_eq!(stored["items"][1]["reasoning"], "hm");
    }
}

#[test]
fn a_tool_loop_returns_signed_thinking_as_it_came() {
    let upstream = Upstream::start(claude);
    let (_place, server, path) = conversation(&upstream, "work", "anthropic/claude-haiku-4-5");
    let answer = server.ask("POST", &path, r#"{"content": "2+3?"}"#).json();
    assert_eq!(answer["message"]["content"], "Five.", "{answer}");
    let body = body(&upstream);
    assert_eq!(body["thinking"]["type"], "enabled");
    let turn = &body["messages"][1]["content"];
    assert_eq!(turn[0], json!({ "type": "thinking", "thinking": "hm", "signature": "sig" }));
    assert_eq!(body["messages"][2]["content"][0]["tool_use_id"], "toolu_1");
    assert!(body["messages"][2]["content"][0]["content"].as_str().unwrap().contains('5'));
}

#[test]
fn a_picture_is_seen_in_either_protocol_and_stays_in_the_conversation() {
    let said = json!({ "content": "What is this?", "images": [PICTURE] }).to_string();
    let url = json!({ "type": "image_url", "image_url": { "url": PICTURE } });
    let source = json!({ "type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo=" });
    let block = json!({ "type": "image", "source": source });
    for (model, script, part) in [
        ("lab/m", (|_| Say::Text("A picture.")) as fn(&Asked) -> Say, url),
        ("anthropic/claude-sonnet-4-6", claude, block),
    ] {
        let upstream = Upstream::start(script);
        let (_place, server, path) = conversation(&upstream, "ask", model);
        assert_eq!(server.ask("POST", &path, &said).status, 200);
        let body = body(&upstream);
        let messages = body["messages"].as_array().unwrap();
        let parts = messages.iter().find(|m| m["role"] == "user").unwrap()["content"].clone();
        assert!(parts.as_array().unwrap().contains(&part), "{parts}");
        let stored = server.ask("GET", &path, "").json();
        assert_eq!(stored["items"][0]["images"], json!([PICTURE]));
    }
}

#[test]
fn names_with_line_breaks_are_refused_before_anything_is_asked() {
    let upstream = Upstream::start(|_| Say::Text("never"));
    let (_place, server, _) = conversation(&upstream, "ask", "lab/m");
    for model in ["lab/m\r\nx-evil: 1", "lab/m\nn", "lab/"] {
        let made = json!({ "graph": "ask", "model": model }).to_string();
        let refused = server.ask("POST", "/api/conversations", &made);
        assert!((400..500).contains(&refused.status), "{model:?}: {refused:?}");
    }
    let call = json!({ "id": "a", "name": "calculator\r\nx-evil: 1", "arguments": "{}" });
    let message = json!({ "role": "assistant", "tool_calls": [call] });
    let run = json!({ "graph": "ask", "input": { "messages": [message] } }).to_string();
    let refused = server.ask("POST", "/api/runs", &run);
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(upstream.all().is_empty());
}
