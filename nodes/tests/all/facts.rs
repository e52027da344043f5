//! The wire facts, each against an upstream that refuses what the provider refuses.

mod calls;
mod deepseek;
mod gemini;
mod openai;
mod others;
mod sse;

use std::sync::Arc;
use std::time::Duration;

use exile_engine::env::StepEnv;
use exile_engine::id::MessageId;
use exile_engine::message::{Message, Role};
use exile_engine::model::{Delta, ModelReply, ModelRequest, Provider, ProviderError, ToolChoice};
use exile_engine::span::NoTrace;
use exile_engine::tool::{Effect, ToolSpec};
use exile_nodes::providers::{ProviderConfig, Secret, provider};
use serde_json::{Value, json};

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
        messages: messages.into_iter().map(std::sync::Arc::new).collect(),
        tools: vec![ToolSpec::new("add", "adds", schema, Effect::Pure, "native")],
        tool_choice: ToolChoice::Auto,
        temperature: Some(0.3),
        max_tokens: Some(99),
        output_schema: None,
        reasoning: None,
        further: serde_json::Map::new(),
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
            Delta::Text(text) | Delta::Refusal(text) => said.push_str(&text),
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

pub(crate) fn call(id: &str, arguments: &str) -> Value {
    json!({ "index": 0, "id": id, "type": "function",
        "function": { "name": "add", "arguments": arguments } })
}

/// Has `provider` ask for calls, and appends its message and their answers to the conversation.
pub(crate) async fn tool_turn(
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

pub(crate) fn plain_turn(id: &str) -> Answer {
    Answer::events(&[delta(json!({ "tool_calls": [call(id, "{}")] })), end("tool_calls")])
}
