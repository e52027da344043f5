//! An answer in OpenAI's shape: whole, or in chunks.

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use exile_engine::message::ToolCall;
use exile_engine::model::{Delta, Embeddings, Finish, ModelReply, Usage};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::http::problem::Problem;
use crate::http::problem::wire::OpenAiError;

/// What every chunk of an answer, or the whole of it, begins with.
pub(super) struct Head {
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    pub model: String,
}

/// What a whole answer says.
#[derive(Default)]
pub(super) struct Said {
    pub content: String,
    pub reasoning: Option<String>,
    pub refused: bool,
    pub calls: Vec<ToolCall>,
    /// Fields of the provider, for it to get back.
    pub opaque: Option<Value>,
}

impl From<&ModelReply> for Said {
    fn from(reply: &ModelReply) -> Self {
        Self {
            content: reply.content.clone(),
            reasoning: reply.reasoning.clone(),
            refused: reply.finish == Finish::Refused,
            calls: reply.tool_calls.clone(),
            opaque: reply.opaque.clone(),
        }
    }
}

impl Head {
    /// A whole completion.
    pub(super) fn completion(&self, said: Said, finish: &str, usage: Option<Usage>) -> Value {
        let mut message = object(said.opaque);
        let text = Value::String(said.content);
        let silent = text == "" && !said.calls.is_empty();
        let (content, refusal) = match said.refused {
            true => (Value::Null, text),
            false if silent => (Value::Null, Value::Null),
            false => (text, Value::Null),
        };
        message.insert("role".into(), json!("assistant"));
        message.insert("content".into(), content);
        message.insert("refusal".into(), refusal);
        if let Some(reasoning) = said.reasoning {
            message.insert("reasoning_content".into(), json!(reasoning));
        }
        if !said.calls.is_empty() {
            let calls: Vec<Value> = said.calls.into_iter().map(call).collect();
            message.insert("tool_calls".into(), calls.into());
        }
        let choice = json!({ "index": 0, "message": message, "logprobs": null,
            "finish_reason": finish });
        json!({ "id": self.id, "object": "chat.completion", "created": self.created,
            "model": self.model, "choices": [choice], "usage": usage.map(tokens) })
    }

    /// One chunk; `usage`: whether the last chunk is to tell the tokens.
    pub(super) fn chunk(&self, delta: &impl Serialize, finish: Option<&str>, usage: bool) -> Bytes {
        let choice = Choice { index: 0, delta, logprobs: (), finish_reason: finish };
        event(&Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices: [choice],
            usage: usage.then_some(()),
        })
    }

    /// The chunk after the last, which tells the tokens.
    pub(super) fn usage(&self, usage: Option<Usage>) -> Bytes {
        event(&json!({ "id": self.id, "object": "chat.completion.chunk",
            "created": self.created, "model": self.model, "choices": [],
            "usage": tokens(usage.unwrap_or_default()) }))
    }
}

/// Written as it is: a stream has hundreds.
#[derive(Serialize)]
struct Chunk<'a, D> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: [Choice<'a, D>; 1],
    /// Null, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<()>,
}

#[derive(Serialize)]
struct Choice<'a, D> {
    index: u8,
    delta: &'a D,
    logprobs: (),
    finish_reason: Option<&'a str>,
}

/// A piece of an answer, as the delta of a chunk.
#[derive(Serialize)]
pub(super) enum Piece<'a> {
    #[serde(rename = "content")]
    Text(&'a str),
    #[serde(rename = "reasoning_content")]
    Reasoning(&'a str),
    #[serde(rename = "refusal")]
    Refusal(&'a str),
}

impl<'a> From<&'a Delta> for Piece<'a> {
    fn from(delta: &'a Delta) -> Self {
        match delta {
            Delta::Text(text) => Self::Text(text),
            Delta::Reasoning(text) => Self::Reasoning(text),
            Delta::Refusal(text) => Self::Refusal(text),
        }
    }
}

/// What comes of an answer only with its end: calls, and what the provider wants back.
pub(super) fn rest(reply: &ModelReply) -> Option<Value> {
    if reply.tool_calls.is_empty() && reply.opaque.is_none() {
        return None;
    }
    let mut delta = object(reply.opaque.clone());
    let calls = reply.tool_calls.iter().cloned().map(call).enumerate().map(|(n, mut call)| {
        call["index"] = json!(n);
        call
    });
    let calls: Vec<Value> = calls.collect();
    if !calls.is_empty() {
        delta.insert("tool_calls".into(), calls.into());
    }
    Some(Value::Object(delta))
}

fn call(call: ToolCall) -> Value {
    let mut written = object(call.opaque);
    let arguments = if call.arguments.is_empty() { "{}".to_owned() } else { call.arguments };
    written.insert("id".into(), json!(call.id));
    written.insert("type".into(), json!("function"));
    written.insert("function".into(), json!({ "name": call.name, "arguments": arguments }));
    Value::Object(written)
}

fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Why a model's answer ended, in OpenAI's words.
pub(super) fn finish(reply: &ModelReply) -> &'static str {
    match stopped(reply.finish) {
        "stop" if !reply.tool_calls.is_empty() => "tool_calls",
        finish => finish,
    }
}

/// Why a model stopped, in OpenAI's words, for who does not see its calls of tools.
pub(super) fn stopped(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::Filtered => "content_filter",
        Finish::Stop | Finish::ToolCalls | Finish::Refused => "stop",
    }
}

fn tokens(usage: Usage) -> Value {
    json!({ "prompt_tokens": usage.input, "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": { "cached_tokens": usage.cached },
        "completion_tokens_details": { "reasoning_tokens": usage.reasoning } })
}

/// Vectors, as lists of numbers or as the Base64 of their bytes (little-endian).
#[must_use]
pub fn embeddings(made: Embeddings, model: &str, base64: bool) -> Value {
    let vector = |vector: Vec<f32>| {
        if base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|n| n.to_le_bytes()).collect();
            json!(BASE64.encode(&bytes))
        } else {
            json!(vector)
        }
    };
    let data = made.vectors.into_iter().map(vector).enumerate();
    let data: Vec<Value> = data
        .map(|(n, vector)| json!({ "object": "embedding", "index": n, "embedding": vector }))
        .collect();
    let tokens = made.usage.map_or(0, |usage| usage.input);
    json!({ "object": "list", "data": data, "model": model,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens } })
}

/// The last line of a stream that came to its end.
pub(super) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// A failure in the middle of a stream, on which clients raise; nothing follows it.
pub(super) fn failure(problem: &Problem) -> Bytes {
    event(&OpenAiError::from(problem))
}

fn event(data: &impl Serialize) -> Bytes {
    let mut event = Vec::with_capacity(256);
    event.extend_from_slice(b"data: ");
    // Text, numbers and JSON: printing them cannot fail.
    let _ = serde_json::to_writer(&mut event, data);
    event.extend_from_slice(b"\n\n");
    event.into()
}
