//! Anthropic's, the local servers', and what all name differently: wire facts 25 to 27.

use exile_engine::message::Role;
use exile_engine::model::Usage;
use serde_json::{Value, json};

use crate::facts::{at, delta, end, hello, stream, text, tool_turn};
use crate::rules;
use crate::upstream::{Answer, Upstream};

/// A turn of Claude that thinks and calls a tool.
fn signed_claude(signature: &str, id: &str) -> Answer {
    let block = |index: u64, block: Value| json!({ "type": "content_block_start", "index": index, "content_block": block });
    let usage = json!({ "input_tokens": 3, "cache_read_input_tokens": 40, "output_tokens": 1 });
    Answer::events(&[
        json!({ "type": "message_start", "message": { "id": "m", "usage": usage } }),
        block(0, json!({ "type": "thinking", "thinking": "hm", "signature": signature })),
        block(1, json!({ "type": "tool_use", "id": id, "name": "add", "input": { "x": 1 } })),
        json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" },
            "usage": { "output_tokens": 9 } }),
        json!({ "type": "message_stop" }),
    ])
}

#[tokio::test]
async fn fact_25_signed_thinking_returns_and_cached_input_is_counted() {
    let turns = [signed_claude("anthropic-sig", "t1"), signed_claude("anthropic-sig", "t2")];
    let upstream = Upstream::strict(rules::anthropic, turns).await;
    let claude = at(&upstream, "anthropic");
    let mut conversation = vec![text(Role::User, "go")];
    let reply = tool_turn(&claude, "claude-sonnet-4-6", &mut conversation).await;
    let expected = Usage { input: 43, cached: 40, written: 0, output: 9, reasoning: 0 };
    assert_eq!(reply.usage, Some(expected));
    tool_turn(&claude, "claude-sonnet-4-6", &mut conversation).await;
    let turn = &upstream.body()["messages"][1]["content"];
    let thinking = json!({ "type": "thinking", "thinking": "hm", "signature": "anthropic-sig" });
    assert_eq!(turn[0], thinking);
    assert_eq!(upstream.refused(), [""; 0]);
}

#[tokio::test]
async fn fact_25_signatures_of_another_account_are_dropped_once_refused() {
    let turns = [signed_claude("elsewhere", "t1"), signed_claude("anthropic-sig", "t2")];
    let upstream = Upstream::strict(rules::anthropic, turns).await;
    let claude = at(&upstream, "anthropic");
    let mut conversation = vec![text(Role::User, "go")];
    for _ in 0..2 {
        tool_turn(&claude, "claude-sonnet-4-6", &mut conversation).await;
    }
    assert_eq!((upstream.seen().len(), upstream.refused().len()), (3, 1));
}

#[tokio::test]
async fn fact_25_overload_and_spend_limits_have_their_own_class() {
    let error = |kind: &str, message: &str| {
        json!({ "type": "error", "error": { "type": kind, "message": message } }).to_string()
    };
    let spent = error("rate_limit_error", "This request would exceed your spend limit");
    let upstream = Upstream::start([
        Answer::new(529).then(&error("overloaded_error", "Overloaded")),
        Answer::new(429).then(&spent),
        Answer::new(404).then(&error("not_found_error", "model: claude-nonexistent")),
        Answer::new(401).then(&error("authentication_error", "invalid x-api-key")),
    ])
    .await;
    let claude = at(&upstream, "anthropic");
    for code in [
        "provider_unavailable",
        "provider_no_balance",
        "provider_model_unknown",
        "provider_unauthorized",
    ] {
        assert_eq!(stream(&claude, &hello("claude")).await.0.unwrap_err().fault.code(), code);
    }
}

#[tokio::test]
async fn fact_26_reasoning_has_two_names_and_errors_numeric_codes() {
    let thought = |field: &str| Answer::events(&[delta(json!({ field: "hm" })), end("stop")]);
    let error = json!({ "error": { "code": 400, "type": "exceed_context_size_error",
        "message": "the request exceeds the available context size" } });
    let upstream = Upstream::start([
        thought("reasoning"),
        thought("reasoning_content"),
        Answer::new(400).then(&error.to_string()),
    ])
    .await;
    for name in ["vllm", "llamacpp"] {
        assert_eq!(stream(&at(&upstream, name), &hello("m")).await.2, "hm");
    }
    let fault = stream(&at(&upstream, "llamacpp"), &hello("m")).await.0.unwrap_err().fault;
    assert_eq!(fault.code(), "context_too_long");
}

#[tokio::test]
async fn fact_27_a_long_context_is_one_class_everywhere() {
    for (name, body) in [
        (
            "openai",
            json!({ "error": { "message": "too long", "code": "context_length_exceeded" } }),
        ),
        (
            "llamacpp",
            json!({ "error": { "code": 400, "type": "exceed_context_size_error",
            "message": "x" } }),
        ),
        (
            "gemini",
            json!([{ "error": { "code": 400, "status": "INVALID_ARGUMENT",
            "message": "The input token count (9) exceeds the maximum number of tokens" } }]),
        ),
        (
            "anthropic",
            json!({ "type": "error", "error": { "type": "invalid_request_error",
            "message": "prompt is too long: 9 tokens > 8 maximum" } }),
        ),
    ] {
        let upstream = Upstream::start([Answer::new(400).then(&body.to_string())]).await;
        let fault = stream(&at(&upstream, name), &hello("m")).await.0.unwrap_err().fault;
        assert_eq!(fault.code(), "context_too_long", "{name}");
    }
}

#[tokio::test]
async fn texts_become_vectors_where_a_provider_has_them() {
    let vectors = json!({ "model": "e", "usage": { "prompt_tokens": 4 },
        "data": [{ "index": 0, "embedding": [0.5, 1] }, { "index": 1, "embedding": [0, 0.25] }] });
    let unknown = json!({ "error": { "code": 400, "message": "Model e does not exist" } });
    let answers = [Answer::json(vectors), Answer::new(400).then(&unknown.to_string())];
    let upstream = Upstream::start(answers).await;
    let texts = ["one".to_owned(), "two".to_owned()];
    let openai = at(&upstream, "openai");
    let found = openai.embed("e", &texts, &serde_json::Map::new()).await.unwrap();
    assert_eq!(
        (found.vectors, found.usage.unwrap().input),
        (vec![vec![0.5, 1.0], vec![0.0, 0.25]], 4)
    );
    assert_eq!(upstream.seen()[0].line, "POST /v1/embeddings");
    assert_eq!(upstream.body(), json!({ "model": "e", "input": ["one", "two"] }));
    let error = openai.embed("e", &texts, &serde_json::Map::new()).await.unwrap_err();
    assert_eq!(error.fault.code(), "provider_model_unknown");
    let none =
        at(&upstream, "anthropic").embed("e", &texts, &serde_json::Map::new()).await.unwrap_err();
    assert_eq!((none.fault.code(), upstream.seen().len()), ("provider_request_invalid", 2));
}
