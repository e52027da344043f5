//! Server-sent events in general: wire facts 1 to 5.

use exile_engine::model::Usage;
use serde_json::json;

use crate::facts::{at, delta, end, hello, stream};
use crate::upstream::{Answer, Upstream};

#[tokio::test]
async fn fact_01_comments_and_leading_blank_lines() {
    let stream_body = Answer::new(200)
        .header("content-type", "text/event-stream")
        .then(": keep-alive\n\n: keep-alive\n\n")
        .then(&format!(
            "data: {}\n\n: OPENROUTER PROCESSING\n\n",
            delta(json!({ "content": "hi" }))
        ))
        .then(&format!("data: {}\n\ndata: [DONE]\n\n", end("stop")));
    let whole = Answer::json(format!(
        "\n\n\n{}",
        json!({ "choices": [{ "message": { "content": "hi" }, "finish_reason": "stop" }] })
    ));
    let upstream = Upstream::start([stream_body, whole]).await;
    let deepseek = at(&upstream, "deepseek");
    assert_eq!(stream(&deepseek, &hello("m")).await.0.unwrap().content, "hi");
    assert_eq!(deepseek.complete(&hello("m")).await.unwrap().content, "hi");
}

#[tokio::test]
async fn fact_02_lines_and_characters_are_cut_anywhere() {
    let wire = format!(
        "data: {}\r\n\r\ndata: {}\r\n\r\ndata: [DONE]\r\n\r\n",
        delta(json!({ "content": "你好 😀" })),
        end("stop")
    );
    let cut = wire.as_bytes().chunks(3).fold(Answer::new(200), Answer::bytes);
    let upstream = Upstream::start([cut]).await;
    let (reply, said, _) = stream(&at(&upstream, "openai"), &hello("m")).await;
    assert_eq!((reply.unwrap().content.as_str(), said.as_str()), ("你好 😀", "你好 😀"));
}

#[tokio::test]
async fn fact_02_an_end_without_finish_and_without_done_is_an_error() {
    let half =
        || Answer::new(200).then(&format!("data: {}\n\n", delta(json!({ "content": "ha" }))));
    let marked = half().then("data: [DONE]");
    let finished = half().then(&format!("data: {}\n\n", end("stop")));
    let upstream = Upstream::start([half(), half().broken(), marked, finished.broken()]).await;
    let openai = at(&upstream, "openai");
    for _ in 0..2 {
        let (reply, said, _) = stream(&openai, &hello("m")).await;
        assert_eq!(reply.unwrap_err().fault.code(), "provider_truncated");
        assert_eq!(said, "ha", "what came before was shown");
    }
    assert_eq!(stream(&openai, &hello("m")).await.0.unwrap().content, "ha");
    assert_eq!(stream(&openai, &hello("m")).await.0.unwrap().content, "ha");
}

#[tokio::test]
async fn fact_03_usage_comes_last_with_no_choice_or_with_the_finish() {
    let usage = json!({ "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7 });
    let own = json!({ "choices": [], "usage": usage });
    let mut with_finish = end("stop");
    with_finish["usage"] = usage;
    let text = delta(json!({ "content": "x" }));
    let upstream = Upstream::start([
        Answer::events(&[text.clone(), end("stop"), own]),
        Answer::events(&[text, with_finish]),
    ])
    .await;
    let expected = Some(Usage { input: 5, output: 2, ..Usage::default() });
    for name in ["openai", "deepseek"] {
        let reply = stream(&at(&upstream, name), &hello("m")).await.0.unwrap();
        assert_eq!(reply.usage, expected);
        assert_eq!(upstream.body()["stream_options"]["include_usage"], true);
    }
}

#[tokio::test]
async fn fact_04_a_failure_after_status_200() {
    let error = json!({ "error": { "message": "overloaded", "code": 502 } });
    let upstream =
        Upstream::start([Answer::events(&[delta(json!({ "content": "a" })), error])]).await;
    let (reply, said, _) = stream(&at(&upstream, "router"), &hello("m")).await;
    let error = reply.unwrap_err();
    assert_eq!((error.fault.code(), said.as_str()), ("provider_unavailable", "a"));
    assert_eq!(error.to_string(), "router/m: the provider failed (200): overloaded");
}

#[tokio::test]
async fn fact_04_anthropic_may_be_overloaded_in_its_first_event() {
    let error = json!({ "type": "error",
        "error": { "type": "overloaded_error", "message": "Overloaded" } });
    let limit = json!({ "type": "error",
        "error": { "type": "rate_limit_error", "message": "slow down" } });
    let upstream = Upstream::start([Answer::events(&[error]), Answer::events(&[limit])]).await;
    let claude = at(&upstream, "anthropic");
    for code in ["provider_unavailable", "provider_rate_limited"] {
        assert_eq!(stream(&claude, &hello("claude")).await.0.unwrap_err().fault.code(), code);
    }
}

#[tokio::test]
async fn fact_05_unknown_fields_and_events_pass() {
    let mut odd = delta(json!({ "content": "hi", "annotations": [], "audio": null }));
    odd["obfuscation"] = json!("x7Gd");
    odd["service_tier"] = json!({ "new": ["shape"] });
    let usage = json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop",
        "content_filter_results": {} }], "usage": { "prompt_tokens": "many" } });
    let chat = Answer::events(&[json!({ "prompt_filter_results": [] }), odd, usage]);
    let events = [
        json!({ "type": "message_start", "message": { "x": 1, "content": [] } }),
        json!({ "type": "tomorrows_event" }),
        json!({ "type": "content_block_start", "index": 0,
            "content_block": { "type": "text", "text": "hi", "y": {} } }),
        json!({ "type": "message_stop" }),
    ];
    let upstream = Upstream::start([chat, Answer::events(&events)]).await;
    for (name, model) in [("openai", "m"), ("anthropic", "claude")] {
        assert_eq!(stream(&at(&upstream, name), &hello(model)).await.0.unwrap().content, "hi");
    }
}
