//! The body of a call: what was asked, in the shape that this model of this provider takes.
//!
//! Invariants, besides those of `turns.rs`:
//! - Fields that a provider gave with a message return verbatim to the model that gave them, and
//!   to no other (wire facts 16, 21).
//! - The same request gives the same bytes, so that a provider's prefix cache hits.

use exile_engine::message::{Image, Role};
use exile_engine::model::{Effort, ModelRequest, ToolChoice};
use exile_engine::tool::ToolSpec;
use serde_json::{Map, Value, json};

use super::REASONING_FIELD;
use crate::providers::profile::{Echo, Json, Rules, Temperature, Thinking, ThinkingOff};
use crate::providers::schema;
use crate::providers::turns::{Answered, Called, Turn, Turns};

/// What a body depends on besides the request.
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
            let tools: Vec<Value> = request.tools.iter().map(|t| self.function(t)).collect();
            body.insert("tools".into(), tools.into());
        }
        let effort = self.choose(request, &mut body);
        if let Some(effort) = effort {
            self.think(effort, &mut body);
        }
        if let Some(temperature) = request.temperature
            && self.takes_temperature(effort)
        {
            body.insert("temperature".into(), json!(temperature));
        }
        if let Some(limit) = request.max_tokens.or(self.rules.default_max_tokens) {
            body.insert(self.rules.max_tokens.into(), json!(limit));
        }
        if let Some(schema) = &request.output_schema
            && let Some(format) = self.response_format(schema, !request.tools.is_empty())
        {
            body.insert("response_format".into(), format);
        }
        // Above what the rules wrote: a caller's own words.
        body.extend(request.further.clone());
        if self.stream {
            body.insert("stream".into(), json!(true));
            if self.rules.asks_usage {
                body.insert("stream_options".into(), json!({ "include_usage": true }));
            }
        }
        Value::Object(body)
    }

    /// Writes the choice of tools; gives how hard to think, which a forced choice may rule out.
    fn choose(&self, request: &ModelRequest, body: &mut Map<String, Value>) -> Option<Effort> {
        let silent = !request.tools.is_empty() && self.rules.thinking_off == ThinkingOff::Tools;
        let wanted = if silent { Some(Effort::None) } else { request.reasoning };
        let wanted = wanted.and_then(|wanted| self.rules.effort(wanted));
        if request.tools.is_empty() {
            return wanted;
        }
        let choice = match &request.tool_choice {
            ToolChoice::Auto => return wanted,
            ToolChoice::None => json!("none"),
            ToolChoice::Required => json!("required"),
            ToolChoice::Named(name) => json!({ "type": "function", "function": { "name": name } }),
        };
        let forced = choice != json!("none");
        body.insert("tool_choice".into(), choice);
        if forced && self.rules.thinking_off == ThinkingOff::Forced {
            return Some(Effort::None);
        }
        wanted
    }

    fn think(&self, effort: Effort, body: &mut Map<String, Value>) {
        let word = match effort {
            // What is highest has a name of its own everywhere but at DeepSeek.
            Effort::Max if self.rules.thinking != Thinking::Switch => json!("xhigh"),
            effort => json!(effort),
        };
        let off = effort == Effort::None;
        match self.rules.thinking {
            Thinking::Switch => {
                let switch = if off { "disabled" } else { "enabled" };
                body.insert("thinking".into(), json!({ "type": switch }));
                if !off {
                    body.insert("reasoning_effort".into(), word);
                }
            }
            Thinking::Nested => {
                let nested =
                    if off { json!({ "enabled": false }) } else { json!({ "effort": word }) };
                body.insert("reasoning".into(), nested);
            }
            Thinking::Effort | Thinking::Adaptive | Thinking::Budget => {
                body.insert("reasoning_effort".into(), word);
            }
        }
    }

    fn takes_temperature(&self, effort: Option<Effort>) -> bool {
        match self.rules.temperature {
            Temperature::Always => true,
            Temperature::WithoutThinking => effort == Some(Effort::None),
            Temperature::UnlessThinking => effort.is_none_or(|e| e == Effort::None),
            Temperature::Never => false,
        }
    }

    fn response_format(&self, schema: &Value, tools: bool) -> Option<Value> {
        if schema["type"] != "object" {
            // No provider enforces another root: the model is told, and its answer checked.
            return None;
        }
        let whole = || {
            let strict = schema::is_strict(schema);
            let schema = schema::parameters(schema, self.rules.schemas);
            json!({ "type": "json_schema",
                "json_schema": { "name": "answer", "strict": strict, "schema": schema } })
        };
        match self.rules.json {
            Json::Schema => Some(whole()),
            Json::SchemaWithoutTools if !tools => Some(whole()),
            Json::StrictSchema if schema::is_strict(schema) => Some(whole()),
            Json::Object => Some(json!({ "type": "json_object" })),
            Json::SchemaWithoutTools | Json::StrictSchema | Json::Told => None,
        }
    }

    fn messages(&self, request: &ModelRequest) -> Value {
        let conversation =
            Turns::of(request, self.provider, self.rules.call_ids, self.rules.images);
        let mut out = Vec::new();
        if !conversation.system.is_empty() {
            // One system message: many chat templates take no second one.
            let text = conversation.system.join("\n\n");
            out.push(json!({ "role": "system", "content": text }));
        }
        for turn in &conversation.turns {
            match turn {
                Turn::Said { role, text, images } => {
                    out.push(json!({ "role": role.as_str(), "content": content(text, images) }));
                }
                Turn::Answered(answered) => {
                    out.push(self.assistant(answered));
                    out.extend(answered.calls.iter().map(|called| {
                        json!({ "role": "tool", "tool_call_id": called.id,
                            "content": called.answer })
                    }));
                }
            }
        }
        if self.rules.ends_with_user && conversation.ends_with_answer() {
            out.push(json!({ "role": Role::User.as_str(), "content": GO_ON }));
        }
        out.into()
    }

    fn assistant(&self, answered: &Answered<'_>) -> Value {
        let message = answered.message;
        let returns = answered.same_model && self.signed;
        let mut wire = Map::new();
        wire.insert("role".into(), json!("assistant"));
        let content = (!message.content.is_empty()).then_some(&message.content);
        wire.insert("content".into(), json!(content));
        match self.rules.reasoning {
            Echo::Always => {
                let own = message.reasoning.as_deref().filter(|_| answered.same_provider);
                wire.insert("reasoning_content".into(), json!(own.unwrap_or_default()));
            }
            Echo::AsReceived if answered.same_model && !answered.calls.is_empty() => {
                let field = message.opaque.as_ref().and_then(|o| o[REASONING_FIELD].as_str());
                if let (Some(field), Some(own)) = (field, &message.reasoning) {
                    wire.insert(field.into(), json!(own));
                }
            }
            Echo::AsReceived | Echo::No => {}
        }
        if returns {
            returned(message.opaque.as_ref(), &mut wire);
        }
        if !answered.calls.is_empty() {
            let opaque = message.opaque.as_ref().and_then(Value::as_object);
            let came = opaque.is_some_and(|o| o.keys().any(|key| key != REASONING_FIELD));
            let signed = returns && came;
            let call = |(place, called)| self.call(returns, signed, place, called);
            let calls: Vec<Value> = answered.calls.iter().enumerate().map(call).collect();
            wire.insert("tool_calls".into(), calls.into());
        }
        Value::Object(wire)
    }

    fn function(&self, tool: &ToolSpec) -> Value {
        let parameters = schema::parameters(&tool.parameters, self.rules.schemas);
        let mut function = json!({ "name": tool.name, "description": tool.description,
            "parameters": parameters });
        let held = matches!(self.rules.json, Json::Schema | Json::StrictSchema);
        if tool.strict && held && schema::is_strict(&tool.parameters) {
            function["strict"] = json!(true);
        }
        json!({ "type": "function", "function": function })
    }

    /// `signed`: what came with the message goes back with it.
    fn call(&self, returns: bool, signed: bool, place: usize, called: &Called<'_>) -> Value {
        let signed = signed || (returns && called.call.opaque.is_some());
        let mut wire = Map::new();
        wire.insert("id".into(), json!(called.id));
        wire.insert("type".into(), json!("function"));
        let function = json!({ "name": called.name, "arguments": called.arguments(signed) });
        wire.insert("function".into(), function);
        if returns {
            returned(called.call.opaque.as_ref(), &mut wire);
        }
        // Of parallel calls the first alone is signed.
        if let Some(stand_in) = self.rules.foreign_signature
            && place == 0
            && !wire.contains_key("extra_content")
        {
            let google = json!({ "google": { "thought_signature": stand_in } });
            wire.insert("extra_content".into(), google);
        }
        Value::Object(wire)
    }
}

/// What a user says where the last word would else be the model's own.
pub(crate) const GO_ON: &str = "Go on.";

/// A text, or a text and what is to be seen with it.
fn content(text: &str, images: &[Image]) -> Value {
    if images.is_empty() {
        return json!(text);
    }
    let words = (!text.is_empty()).then(|| json!({ "type": "text", "text": text }));
    let image = |image: &Image| json!({ "type": "image_url", "image_url": { "url": image.url() } });
    words.into_iter().chain(images.iter().map(image)).collect()
}

/// Puts back what a provider gave.
fn returned(opaque: Option<&Value>, wire: &mut Map<String, Value>) {
    for (key, value) in opaque.and_then(Value::as_object).into_iter().flatten() {
        if key != REASONING_FIELD {
            wire.insert(key.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests;
