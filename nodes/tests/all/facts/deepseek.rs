//! DeepSeek's: wire facts 14 to 20.

use std::sync::Arc;

use exile_engine::message::Role;
use exile_engine::model::{ModelRequest, ToolChoice};
use serde_json::json;

use crate::facts::{ask, at, call, delta, end, hello, stream, text, tool_turn};
use crate::rules;
use crate::upstream::{Answer, Upstream};

#[tokio::test]
async fn fact_14_model_names_pass_as_they_are() {
    let answer = || Answer::events(&[delta(json!({ "content": "ok" })), end("stop")]);
    let upstream = Upstream::strict(rules::deepseek, [answer(), answer(), answer()]).await;
    let deepseek = at(&upstream, "deepseek");
    for model in ["deepseek-flash", "deepseek-v4-pro", "deepseek-v4-flash"] {
        stream(&deepseek, &hello(model)).await.0.unwrap();
        assert_eq!(upstream.body()["model"], model);
    }
    assert_eq!(upstream.seen()[0].line, "POST /v1/chat/completions");
    for model in ["deepseek-chat", "some/future-model:v9"] {
        let error = stream(&deepseek, &hello(model)).await.0.unwrap_err();
        assert_eq!((error.fault.code(), &*error.model), ("provider_model_unknown", model));
        assert_eq!(upstream.body()["model"], model, "a later model needs no new exile");
    }
}

#[tokio::test]
async fn fact_15_thinking_is_left_on_and_streams_as_reasoning() {
    let answer = Answer::events(&[
        delta(json!({ "reasoning_content": "hm ", "content": null })),
        delta(json!({ "reasoning_content": "yes", "content": null })),
        delta(json!({ "content": "4", "reasoning_content": null })),
        end("stop"),
    ]);
    let upstream = Upstream::strict(rules::deepseek, [answer]).await;
    let request = hello("deepseek-flash");
    let (reply, said, thought) = stream(&at(&upstream, "deepseek"), &request).await;
    let reply = reply.unwrap();
    assert_eq!((said.as_str(), thought.as_str()), ("4", "hm yes"));
    assert_eq!((reply.content, reply.reasoning), (said, Some(thought)));
    assert!(upstream.body().get("thinking").is_none());
}

#[tokio::test]
async fn fact_16_reasoning_returns_in_all_later_turns() {
    let turn = |reasoning: &str, id: &str| {
        let parts = json!({ "reasoning_content": reasoning, "tool_calls": [call(id, "{}")] });
        Answer::events(&[delta(parts), end("tool_calls")])
    };
    let upstream =
        Upstream::strict(rules::deepseek, [turn("why", "a"), turn("", "b"), turn("so", "c")]).await;
    let deepseek = at(&upstream, "deepseek");
    let mut conversation = vec![text(Role::User, "go")];
    for _ in 0..3 {
        tool_turn(&deepseek, "deepseek-flash", &mut conversation).await;
    }
    let body = upstream.body();
    assert_eq!(body["messages"][1]["reasoning_content"], "why");
    assert_eq!(body["messages"][3]["reasoning_content"], "");
}

#[tokio::test]
async fn fact_17_a_forced_tool_is_not_refused() {
    let answer =
        || Answer::events(&[delta(json!({ "tool_calls": [call("a", "{}")] })), end("stop")]);
    let upstream = Upstream::strict(rules::deepseek, [answer(), answer()]).await;
    let deepseek = at(&upstream, "deepseek");
    for choice in [ToolChoice::Required, ToolChoice::Named("add".into())] {
        let request = ModelRequest { tool_choice: choice, ..hello("deepseek-flash") };
        assert_eq!(stream(&deepseek, &request).await.0.unwrap().tool_calls.len(), 1);
    }
}

#[tokio::test]
async fn fact_18_errors_are_read_whatever_their_type_says() {
    let body =
        json!({ "error": { "message": "Model Not Exist", "code": "invalid_request_error" } });
    let answer = Answer::new(400).header("content-type", "application/octet-stream");
    let upstream = Upstream::start([answer.then(&body.to_string())]).await;
    let error = stream(&at(&upstream, "deepseek"), &hello("gone")).await.0.unwrap_err();
    assert_eq!(error.fault.code(), "provider_model_unknown");
    assert!(error.to_string().starts_with("deepseek/gone: "), "{error}");
}

#[tokio::test]
async fn fact_19_deepseek_is_held_to_json_by_a_word_and_a_format() {
    let answer = Answer::events(&[delta(json!({ "content": "   " })), end("stop")]);
    let upstream = Upstream::strict(rules::deepseek, [answer]).await;
    let told = text(Role::System, "Answer with one JSON value.");
    let mut request = ask("deepseek-flash", vec![told, text(Role::User, "q")]);
    request.output_schema = Some(json!({ "type": "object" }));
    // Spaces for an answer are an answer; that they are no JSON is found by who asked for it.
    assert_eq!(stream(&at(&upstream, "deepseek"), &request).await.0.unwrap().content, "   ");
    assert_eq!(upstream.body()["response_format"]["type"], "json_object");
    assert_eq!(upstream.refused(), [""; 0]);
}

#[tokio::test]
async fn fact_20_cached_tokens_are_counted_and_prefixes_stay_the_same() {
    let mut last = end("stop");
    last["usage"] = json!({ "prompt_tokens": 9, "completion_tokens": 1,
        "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 1 });
    let answer = || Answer::events(&[delta(json!({ "content": "ok" })), last.clone()]);
    let upstream = Upstream::start([answer(), answer()]).await;
    let deepseek = at(&upstream, "deepseek");
    let reply = stream(&deepseek, &hello("m")).await.0.unwrap();
    assert_eq!(reply.usage.unwrap().cached, 8);
    let mut longer = hello("m");
    let more = [text(Role::Assistant, "ok"), text(Role::User, "more")];
    longer.messages.extend(more.map(Arc::new));
    stream(&deepseek, &longer).await.0.unwrap();
    let (short, long) = (&upstream.seen()[0].text, &upstream.seen()[1].text);
    let same = short.bytes().zip(long.bytes()).take_while(|(a, b)| a == b).count();
    assert!(same >= short.find("hello").unwrap() + 5, "the prefix ends at {same}: {long}");
}
