//! The body of a call: what was asked, in the shape that this model of this provider takes.
//!
//! Invariants:
//! - Whoever wrote the earlier messages, the body is valid: every tool call is followed by its
//!   answer, and no answer stands without its call.
//! - Fields that a provider gave with a message return verbatim to the model that gave them, and
//!   to no other (wire facts 16, 21).
//! - The same request gives the same bytes, so that a provider's prefix cache hits.

use std::collections::HashSet;

use exile_engine::message::{Message, Role, ToolCall};
use exile_engine::model::{ModelRequest, ToolChoice};
use exile_engine::tool::{ToolAnswer, ToolError, ToolErrorKind, ToolSpec};
use serde_json::{Map, Value, json};

use super::profile::{Echo, ForcedChoice, Json, Rules};

/// Longest id of a tool call that every provider takes.
const ID_LIMIT: usize = 40;

/// What the body depends on besides the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire<'a> {
    /// Name of the provider as configured.
    pub provider: &'a str,
    /// What the model takes.
    pub rules: Rules,
    /// Whether the answer is to come in pieces.
    pub stream: bool,
    /// Whether signatures of earlier messages are sent; `false` after they were refused.
    pub signed: bool,
}

impl Wire<'_> {
    /// The JSON body.
    pub(crate) fn body(&self, request: &ModelRequest) -> Value {
        let mut body = Map::new();
        body.insert("model".into(), json!(request.model));
        body.insert("messages".into(), self.messages(request));
        if !request.tools.is_empty() {
            let tools: Vec<Value> = request.tools.iter().map(function).collect();
            body.insert("tools".into(), tools.into());
            self.choose(&request.tool_choice, &mut body);
        }
        if let (Some(temperature), true) = (request.temperature, self.rules.temperature) {
            body.insert("temperature".into(), json!(temperature));
        }
        if let Some(limit) = request.max_tokens {
            body.insert(self.rules.max_tokens.into(), json!(limit));
        }
        if let Some(schema) = &request.output_schema
            && let Some(format) = self.response_format(schema, !request.tools.is_empty())
        {
            body.insert("response_format".into(), format);
        }
        if self.stream {
            body.insert("stream".into(), json!(true));
            body.insert("stream_options".into(), json!({ "include_usage": true }));
        }
        Value::Object(body)
    }

    fn choose(&self, choice: &ToolChoice, body: &mut Map<String, Value>) {
        let choice = match choice {
            ToolChoice::Auto => return,
            ToolChoice::None => json!("none"),
            ToolChoice::Required => json!("required"),
            ToolChoice::Named(name) => json!({ "type": "function", "function": { "name": name } }),
        };
        let forced = choice != json!("none");
        if forced && self.rules.forced_choice == ForcedChoice::WithoutThinking {
            body.insert("thinking".into(), json!({ "type": "disabled" }));
        }
        body.insert("tool_choice".into(), choice);
    }

    fn response_format(&self, schema: &Value, tools: bool) -> Option<Value> {
        let whole = || {
            let strict = is_strict(schema);
            json!({ "type": "json_schema",
                "json_schema": { "name": "answer", "strict": strict, "schema": schema } })
        };
        match self.rules.json {
            Json::Schema => Some(whole()),
            Json::SchemaWithoutTools if !tools => Some(whole()),
            Json::Object if schema["type"] == "object" => Some(json!({ "type": "json_object" })),
            Json::SchemaWithoutTools | Json::Object | Json::Told => None,
        }
    }

    fn messages(&self, request: &ModelRequest) -> Value {
        let messages = &request.messages;
        let head = messages.iter().take_while(|m| m.role == Role::System).count();
        let mut out = Vec::new();
        if head > 0 {
            // One system message: many chat templates take no second one.
            let texts: Vec<&str> = messages[..head].iter().map(|m| m.content.as_str()).collect();
            out.push(json!({ "role": "system", "content": texts.join("\n\n") }));
        }
        let mut answered = HashSet::new();
        for (i, message) in messages.iter().enumerate().skip(head) {
            match message.role {
                Role::System | Role::User => {
                    let role = message.role.as_str();
                    out.push(json!({ "role": role, "content": message.content }));
                }
                Role::Assistant => {
                    self.assistant(&request.model, i, message, &mut out);
                    for (j, call) in message.tool_calls.iter().enumerate() {
                        let found = answer(messages, i, &call.id, &mut answered);
                        let id = wire_id(call, i, j);
                        let content = found.unwrap_or_else(not_run);
                        out.push(json!({ "role": "tool", "tool_call_id": id, "content": content }));
                    }
                }
                // Sent right after its call; without one it is not sent at all.
                Role::Tool => {}
            }
        }
        out.into()
    }

    fn assistant(&self, model: &str, at: usize, message: &Message, out: &mut Vec<Value>) {
        if message.content.is_empty() && message.tool_calls.is_empty() {
            return;
        }
        let author = message.model.as_deref().unwrap_or_default();
        let (by, written_by) = author.split_once('/').unwrap_or_default();
        let same_provider = by == self.provider;
        let same_model = same_provider && written_by == model && self.signed;
        let mut wire = Map::new();
        wire.insert("role".into(), json!("assistant"));
        let content = (!message.content.is_empty()).then_some(&message.content);
        wire.insert("content".into(), json!(content));
        if self.rules.reasoning == Echo::Always {
            let own = message.reasoning.as_deref().filter(|_| same_provider);
            wire.insert("reasoning_content".into(), json!(own.unwrap_or_default()));
        }
        if same_model {
            returned(message.opaque.as_ref(), &mut wire);
        }
        if !message.tool_calls.is_empty() {
            let call = |(j, call)| self.call(same_model, (at, j), call);
            let calls: Vec<Value> = message.tool_calls.iter().enumerate().map(call).collect();
            wire.insert("tool_calls".into(), calls.into());
        }
        out.push(Value::Object(wire));
    }

    fn call(&self, same_model: bool, (at, j): (usize, usize), call: &ToolCall) -> Value {
        let mut wire = Map::new();
        wire.insert("id".into(), json!(wire_id(call, at, j)));
        wire.insert("type".into(), json!("function"));
        let arguments = wire_arguments(&call.arguments);
        wire.insert("function".into(), json!({ "name": call.name, "arguments": arguments }));
        if same_model {
            returned(call.opaque.as_ref(), &mut wire);
        }
        // Of parallel calls the first alone is signed.
        if let Some(stand_in) = self.rules.foreign_signature
            && j == 0
            && !wire.contains_key("extra_content")
        {
            let google = json!({ "google": { "thought_signature": stand_in } });
            wire.insert("extra_content".into(), google);
        }
        Value::Object(wire)
    }
}

/// Puts back what a provider gave.
fn returned(opaque: Option<&Value>, wire: &mut Map<String, Value>) {
    for (key, value) in opaque.and_then(Value::as_object).into_iter().flatten() {
        wire.insert(key.clone(), value.clone());
    }
}

/// The content of the first tool message after `from` that answers `id` and no earlier call.
fn answer(
    messages: &[Message],
    from: usize,
    id: &str,
    used: &mut HashSet<usize>,
) -> Option<String> {
    let answers = |m: &Message| m.role == Role::Tool && m.tool_call_id.as_deref() == Some(id);
    let mut later = messages.iter().enumerate().skip(from + 1);
    let (at, message) = later.find(|(at, m)| answers(m) && !used.contains(at))?;
    used.insert(at);
    Some(message.content.clone())
}

/// What stands for an answer that nobody gave.
fn not_run() -> String {
    let error = ToolError::new(ToolErrorKind::NotRun, "this call was never made");
    ToolAnswer::Failed(error).to_text()
}

/// The call's id; one that is too long for other providers is replaced by its place.
fn wire_id(call: &ToolCall, message: usize, place: usize) -> String {
    if call.id.is_empty() || call.id.len() > ID_LIMIT {
        format!("call_{message}_{place}")
    } else {
        call.id.clone()
    }
}

/// Servers that fill a chat template parse the arguments and fail on what is no object; what was
/// wrong with them stands in the tool's answer.
fn wire_arguments(text: &str) -> &str {
    match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(_) => text,
        Err(_) => "{}",
    }
}

fn function(tool: &ToolSpec) -> Value {
    let mut parameters = tool.parameters.clone();
    if let Some(root) = parameters.as_object_mut() {
        // Servers that check for a closed set of keywords refuse it.
        root.remove("$schema");
    }
    json!({ "type": "function", "function": {
        "name": tool.name, "description": tool.description, "parameters": parameters } })
}

/// Whether a provider can enforce the schema to the letter (wire fact 12): every object is
/// closed and requires all its properties.
fn is_strict(schema: &Value) -> bool {
    let nested = |key: &str| schema[key].as_array().into_iter().flatten();
    let inner = || {
        let properties = schema["properties"].as_object().into_iter().flatten().map(|(_, v)| v);
        properties.chain(nested("anyOf")).chain(schema.get("items"))
    };
    let closed = match schema["properties"].as_object() {
        Some(properties) => {
            let required = |name: &String| nested("required").any(|r| r == name);
            schema["additionalProperties"] == false && properties.keys().all(required)
        }
        None => schema["type"] != "object",
    };
    closed && inner().all(is_strict)
}

#[cfg(test)]
mod tests;
