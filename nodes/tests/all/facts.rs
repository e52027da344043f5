//! The wire facts, each against an upstream that refuses what the provider refuses.

use std::sync::Arc;
use std::time::Duration;

use exile_engine::env::StepEnv;
use exile_engine::id::MessageId;
use exile_engine::message::{Message, Role};
use exile_engine::model::{
    Delta, Finish, ModelReply, ModelRequest, Provider, ProviderError, ToolChoice, Usage,
};
use exile_engine::span::NoTrace;
use exile_engine::tool::{Effect, ToolSpec};
use exile_nodes::providers::{ProviderConfig, Secret, provider};
use serde_json::{Value, json};

use crate::rules;
use crate::upstream::{Answer, Upstream};

pub(crate) const KEY: &str = "sk-canary-1234567890";

/// A provider of that name at the upstream.
pub(crate) fn at(upstream: &Upstream, name: &str) -> Arc<dyn Provider> {
    configured(upstream, name, |_| {})
}

pub(crate) fn configured(
    upstream: &Upstream,
    name: &str,
    change: impl FnOnce(&mut ProviderConfig),
) -> Arc<dyn Provider> {
    let mut config = ProviderConfig {
        base_url: Some(format!("{}/v1", upstream.url)),
        api_key: Some(Secret::new(KEY)),
        first_byte_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
        ..ProviderConfig::new(name)
    };
    change(&mut config);
    provider(config, Arc::new(NoTrace), Arc::new(StepEnv::new())).unwrap()
}

pub(crate) fn text(role: Role, content: &str) -> Message {
    Message::text(MessageId::from("m"), role, content)
}

pub(crate) fn ask(model: &str, messages: Vec<Message>) -> ModelRequest {
    let schema = json!({ "type": "object", "properties": { "x": { "type": "number" } } });
    ModelRequest {
        model: model.into(),
        messages,
        tools: vec![ToolSpec::new("add", "adds", schema, Effect::Pure, "native")],
        tool_choice: ToolChoice::Auto,
        temperature: Some(0.3),
        max_tokens: Some(99),
        output_schema: None,
    }
}

pub(crate) fn hello(model: &str) -> ModelRequest {
    ask(model, vec![text(Role::User, "hello")])
}

/// Streams to the end; deltas are joined by kind.
pub(crate) async fn stream(
    provider: &Arc<dyn Provider>,
    request: &ModelRequest,
) -> (Result<ModelReply, ProviderError>, String, String) {
    let (sender, mut deltas) = tokio::sync::mpsc::channel(4096);
    let reply = provider.stream(request, &sender).await;
    drop(sender);
    let (mut said, mut thought) = (String::new(), String::new());
    while let Some(delta) = deltas.recv().await {
        match delta {
            Delta::Text(text) => said.push_str(&text),
            Delta::Reasoning(text) => thought.push_str(&text),
        }
    }
    (reply, said, thought)
}

/// A chunk of a stream.
pub(crate) fn delta(delta: Value) -> Value {
    json!({ "id": "r", "model": "m", "choices": [{ "index": 0, "delta": delta }] })
}

pub(crate) fn end(reason: &str) -> Value {
    json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })
}

fn call(id: &str, arguments: &str) -> Value {
    json!({ "index": 0, "id": id, "type": "function",
        "function": { "name": "add", "arguments": arguments } })
}

/// Has `provider` ask for calls, and appends its message and their answers to the conversation.
async fn tool_turn(
    provider: &Arc<dyn Provider>,
    model: &str,
    conversation: &mut Vec<Message>,
) -> ModelReply {
    let (reply, ..) = stream(provider, &ask(model, conversation.clone())).await;
    let reply = reply.unwrap();
    let message = Message {
        reasoning: reply.reasoning.clone(),
        tool_calls: reply.tool_calls.clone(),
        model: Some(format!("{}/{model}", provider.name())),
        opaque: reply.opaque.clone(),
        ..text(Role::Assistant, &reply.content)
    };
    conversation.push(message);
    for call in &reply.tool_calls {
        conversation.push(Message::tool(MessageId::from("t"), call, "3"));
    }
    reply
}

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
async fn fact_06_calls_without_ids_get_ids_that_stay_unique() {
    let twice = json!({ "tool_calls": [call("", "{\"x\":1}"), call("", "{\"x\":2}")] });
    let answers = || Answer::events(&[delta(twice.clone()), end("tool_calls")]);
    let upstream = Upstream::strict(rules::gemini, [answers(), answers()]).await;
    let gemini = at(&upstream, "gemini");
    let mut conversation = vec![text(Role::User, "1 and 2")];
    let first = tool_turn(&gemini, "gemini-3-flash", &mut conversation).await;
    let second = tool_turn(&gemini, "gemini-3-flash", &mut conversation).await;
    let ids: Vec<&str> =
        first.tool_calls.iter().chain(&second.tool_calls).map(|c| c.id.as_str()).collect();
    let distinct: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!((ids.len(), distinct.len()), (4, 4), "{ids:?}");
}

#[tokio::test]
async fn fact_07_a_call_cut_by_the_token_limit_is_not_given_out() {
    let parts = [delta(json!({ "tool_calls": [call("a", "{\"x\": 1")] })), end("length")];
    let whole = json!({ "choices": [{ "finish_reason": "length",
        "message": { "content": "", "tool_calls": [call("a", "{\"x\": 1")] } }] });
    let upstream = Upstream::start([Answer::events(&parts), Answer::json(whole)]).await;
    let deepseek = at(&upstream, "deepseek");
    let streamed = stream(&deepseek, &hello("m")).await.0.unwrap();
    assert_eq!((streamed.tool_calls.len(), streamed.finish), (0, Finish::Length));
    let whole = deepseek.complete(&hello("m")).await.unwrap();
    assert_eq!((whole.tool_calls.len(), whole.finish), (0, Finish::Length));
}

#[tokio::test]
async fn fact_08_stop_may_carry_calls() {
    let parts = [delta(json!({ "tool_calls": [call("a", "")] })), end("stop")];
    let upstream = Upstream::start([Answer::events(&parts)]).await;
    let reply = stream(&at(&upstream, "openai"), &hello("m")).await.0.unwrap();
    assert_eq!((reply.tool_calls.len(), reply.finish), (1, Finish::Stop));
    assert_eq!(reply.tool_calls[0].arguments, "");
}

#[tokio::test]
async fn fact_09_refusals_are_content_and_lack_of_resources_fails() {
    let upstream = Upstream::start([
        Answer::events(&[delta(json!({ "refusal": "I can't." })), end("stop")]),
        Answer::events(&[delta(json!({ "content": "x" })), end("insufficient_system_resource")]),
    ])
    .await;
    let provider = at(&upstream, "deepseek");
    let (reply, said, _) = stream(&provider, &hello("m")).await;
    assert_eq!((reply.unwrap().finish, said.as_str()), (Finish::Refused, "I can't."));
    let error = stream(&provider, &hello("m")).await.0.unwrap_err();
    assert_eq!(error.fault.code(), "provider_unavailable");
}

#[tokio::test]
async fn fact_10_reasoning_models_are_asked_in_their_own_words() {
    let answer = || Answer::events(&[delta(json!({ "content": "ok" })), end("stop")]);
    let upstream = Upstream::strict(rules::openai, [answer(), answer(), answer()]).await;
    let openai = at(&upstream, "openai");
    for model in ["gpt-5.1", "o4-mini", "gpt-4.1"] {
        assert!(stream(&openai, &hello(model)).await.0.is_ok(), "{model}");
    }
    assert_eq!(upstream.body()["max_tokens"], 99);
    assert_eq!(upstream.seen()[0].body["max_completion_tokens"], 99);
}

#[tokio::test]
async fn fact_13_quota_errors_are_final_and_plain_texts_are_read() {
    let quota = json!({ "error": { "message": "You exceeded your current quota",
        "type": "insufficient_quota", "code": "insufficient_quota" } });
    let upstream = Upstream::start([
        Answer::new(429).then(&quota.to_string()),
        Answer::new(401).header("content-type", "text/plain").then("no such key"),
        Answer::new(429).header("retry-after", "7").then("slow down"),
    ])
    .await;
    let openai = at(&upstream, "openai");
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(openai.complete(&hello("m")).await.unwrap_err().fault);
    }
    let shown: Vec<&str> = codes.iter().map(exile_engine::model::ProviderFault::code).collect();
    assert_eq!(shown, ["provider_no_balance", "provider_unauthorized", "provider_rate_limited"]);
    assert_eq!(codes[0].retry(), exile_engine::model::Retry::Never);
    assert_eq!(codes[2].retry(), exile_engine::model::Retry::After(Duration::from_secs(7)));
}

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

/// A Gemini turn: two parallel calls, the first alone signed.
fn signed_turn(signature: &str) -> Answer {
    let mut first = call("g1", "{}");
    first["extra_content"] = json!({ "google": { "thought_signature": signature } });
    let mut second = call("g2", "{}");
    second["index"] = json!(1);
    Answer::events(&[delta(json!({ "tool_calls": [first, second] })), end("tool_calls")])
}

fn plain_turn(id: &str) -> Answer {
    Answer::events(&[delta(json!({ "tool_calls": [call(id, "{}")] })), end("tool_calls")])
}

#[tokio::test]
async fn fact_21_signatures_return_verbatim() {
    let turns = [signed_turn("gemini-sig-1"), signed_turn("gemini-sig-2"), plain_turn("x")];
    let upstream = Upstream::strict(rules::gemini, turns).await;
    let gemini = at(&upstream, "gemini");
    let mut conversation = vec![text(Role::User, "go")];
    for _ in 0..3 {
        tool_turn(&gemini, "gemini-3-flash", &mut conversation).await;
    }
    let first = &upstream.body()["messages"][1]["tool_calls"];
    assert_eq!(first[0]["extra_content"]["google"]["thought_signature"], "gemini-sig-1");
    assert!(first[1].get("extra_content").is_none());
}

#[tokio::test]
async fn fact_21_signatures_of_another_key_are_dropped_once_refused() {
    let upstream =
        Upstream::strict(rules::gemini, [signed_turn("other-key"), plain_turn("x")]).await;
    let gemini = at(&upstream, "gemini");
    let mut conversation = vec![text(Role::User, "go")];
    for _ in 0..2 {
        tool_turn(&gemini, "gemini-3-flash", &mut conversation).await;
    }
    assert_eq!(upstream.seen().len(), 3, "one was refused and asked again");
}

#[tokio::test]
async fn a_conversation_moves_between_providers_without_a_400() {
    let thinking =
        json!({ "reasoning_content": "secret thought", "tool_calls": [call("d", "{}")] });
    let deepseek_turn = || Answer::events(&[delta(thinking.clone()), end("tool_calls")]);
    let up = [
        Upstream::strict(rules::deepseek, [deepseek_turn(), deepseek_turn()]).await,
        Upstream::strict(rules::openai, [plain_turn("o"), plain_turn("o2")]).await,
        Upstream::strict(rules::gemini, [signed_turn("gemini-sig"), signed_turn("gemini-sig")])
            .await,
    ];
    let providers = [
        (at(&up[0], "deepseek"), "deepseek-flash"),
        (at(&up[1], "openai"), "gpt-5.1"),
        (at(&up[2], "gemini"), "gemini-3-flash"),
    ];
    let mut conversation = vec![text(Role::System, "be brief"), text(Role::User, "go")];
    for (provider, model) in providers.iter().chain(&providers) {
        tool_turn(provider, model, &mut conversation).await;
    }
    assert!(!up[1].body().to_string().contains("secret thought"), "reasoning stays at home");
    assert!(!up[1].body().to_string().contains("gemini-sig"), "signatures stay at home");
    assert!(up[0].body().to_string().contains("secret thought"));
}
