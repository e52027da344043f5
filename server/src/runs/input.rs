//! What a caller hands to a graph, checked before anything is stored.
//!
//! Invariants:
//! - Only channels under the graph's `input` are set by an input, only declared ones by an edit,
//!   each with a value that its type and reducer take; nothing else of the request reaches the
//!   run.
//! - Every message has an id when it is stored: the caller's own, or a new one.

use std::sync::Arc;

use exile_engine::env::Env;
use exile_engine::graph::Graph;
use exile_engine::id::MessageId;
use exile_engine::message::{Image, Message, Role, ToolCall};
use exile_engine::state::{Channel, ChannelValue, Reducer, State, Writes};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::RunsError;

/// Checks an input against the graph and completes its messages.
pub fn check(
    graph: &Graph,
    input: Map<String, Value>,
    env: &dyn Env,
) -> Result<Map<String, Value>, RunsError> {
    writes(graph, "input", &graph.input, input, env)
}

/// Checks a person's change of the state against the graph and completes its messages.
pub fn check_edit(
    graph: &Graph,
    values: Map<String, Value>,
    env: &dyn Env,
) -> Result<Map<String, Value>, RunsError> {
    let all: Vec<Arc<str>> = graph.channels.iter().map(|channel| channel.name.clone()).collect();
    writes(graph, "values", &all, values, env)
}

/// `field`: the one that the values stand in. `may`: channels that may be set.
fn writes(
    graph: &Graph,
    field: &'static str,
    may: &[Arc<str>],
    values: Map<String, Value>,
    env: &dyn Env,
) -> Result<Map<String, Value>, RunsError> {
    let mut writes = Writes::new();
    for (name, value) in values {
        let allowed = may.iter().any(|allowed| **allowed == *name);
        let Some(channel) = graph.channels.get(&name).filter(|_| allowed) else {
            return Err(RunsError::UnknownChannel {
                under: field,
                graph: graph.name.to_string(),
                channel: name,
                known: may.iter().map(ToString::to_string).collect(),
            });
        };
        writes.insert(channel.name.clone(), complete(channel, value, field, env)?.into());
    }
    State::new(graph.channels.clone()).merge([&writes])?;
    let json = |value: &ChannelValue| value.to_json().into_owned();
    Ok(writes.iter().map(|(name, value)| (name.to_string(), json(value))).collect())
}

fn complete(
    channel: &Channel,
    value: Value,
    field: &str,
    env: &dyn Env,
) -> Result<Value, RunsError> {
    if channel.reduce != Reducer::Messages {
        return Ok(value);
    }
    let items = match value {
        Value::Array(items) => items,
        one => vec![one],
    };
    let message = |(i, item)| message(format!("{field}.{}[{i}]", channel.name), item, env);
    items.into_iter().enumerate().map(message).collect::<Result<_, _>>().map(Value::Array)
}

/// A message as callers write it. What models and tools alone may say of themselves (`model`,
/// `opaque`) cannot be set.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    id: Option<MessageId>,
    role: Role,
    #[serde(default)]
    content: String,
    #[serde(default)]
    images: Vec<Image>,
    reasoning: Option<String>,
    #[serde(default)]
    tool_calls: Vec<ToolCall>,
    tool_call_id: Option<String>,
    tool_name: Option<String>,
}

fn message(field: String, item: Value, env: &dyn Env) -> Result<Value, RunsError> {
    let wrong = |what: String| RunsError::Field { what: format!("{field}: {what}"), field };
    let given: Given = match item {
        Value::String(content) => return Ok(value(&user_message(env, content))),
        // A list would be read as the fields of a message, in their order.
        Value::Array(_) => return Err(wrong("expected a message, got a list".into())),
        item => match serde_json::from_value(item) {
            Ok(given) => given,
            Err(error) => return Err(wrong(mistake(&error))),
        },
    };
    if given.id.as_ref().is_some_and(|id| !(1..=128).contains(&id.as_str().len())) {
        return Err(wrong("`id` must be 1 to 128 bytes long, or left out".into()));
    }
    let forged = |name: &String| name.is_empty() || name.chars().any(char::is_control);
    if given.tool_calls.iter().map(|call| &call.name).chain(&given.tool_name).any(forged) {
        return Err(wrong("a tool's name is not empty and holds no control character".into()));
    }
    let id = given.id.unwrap_or_else(|| MessageId::new(env));
    Ok(value(&Message {
        images: given.images,
        reasoning: given.reasoning,
        tool_calls: given.tool_calls,
        tool_call_id: given.tool_call_id,
        tool_name: given.tool_name,
        ..Message::text(id, given.role, given.content)
    }))
}

/// What a person says.
fn user_message(env: &dyn Env, content: String) -> Message {
    Message::text(MessageId::new(env), Role::User, content)
}

fn value(message: &Message) -> Value {
    // A message is text, numbers and JSON: printing it cannot fail.
    serde_json::to_value(message).unwrap_or_default()
}

/// What a value is instead of what it should be, without the names that types have in here.
#[must_use]
pub fn mistake(error: &serde_json::Error) -> String {
    let said = error.to_string();
    match said.rsplit_once("expected struct ") {
        Some((before, name)) => {
            let after = name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            format!("{before}expected an object{after}")
        }
        None => said,
    }
}
