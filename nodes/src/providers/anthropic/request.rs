//! The body of a call to Anthropic's Messages.
//!
//! Invariants, besides those of `turns.rs`:
//! - Users and the model take turns, a user begins and ends, and no text is blank.
//! - Signed blocks return as they came, in their order, to the model that wrote them.
//! - Thinking is asked for only where the request may have it: not with a forced tool, and, on
//!   models with a budget, not inside of a tool loop that began without.

use exile_engine::message::{Image, Message};
use exile_engine::model::{Effort, ModelRequest, ToolChoice};
use exile_engine::tool::ToolSpec;
use serde_json::{Map, Value, json};

use super::assemble::BLOCKS;
use crate::providers::chat::request::{GO_ON, Wire};
use crate::providers::profile::{Json, Schemas, Temperature, Thinking};
use crate::providers::schema;
use crate::providers::turns::{Answered, Turn, Turns};

/// Tokens that a model with a budget may think: low, medium, high, max. The least is 1024.
const BUDGETS: [u32; 4] = [2048, 8192, 16_384, 24_576];
const LEAST_BUDGET: u32 = 1024;

/// Anthropic's scale of temperature ends here.
const HOTTEST: f64 = 1.0;

/// Further fields of chat completions that Messages has as well.
const TOLD: [&str; 2] = ["stop", "top_p"];

/// Why further fields of a request cannot be sent: they are no fields of Messages.
pub(crate) fn untold(further: &Map<String, Value>) -> Option<String> {
    let field = further.keys().find(|field| !TOLD.contains(&field.as_str()))?;
    Some(format!("this provider takes no `{field}`"))
}

impl Wire<'_> {
    /// The JSON body.
    pub(crate) fn anthropic_body(&self, request: &ModelRequest) -> Value {
        let conversation =
            Turns::of(request, self.provider, self.rules.call_ids, self.rules.images);
        let mut body = Map::new();
        body.insert("model".into(), json!(request.model));
        let limit = request.max_tokens.or(self.rules.default_max_tokens).unwrap_or(LEAST_BUDGET);
        body.insert("max_tokens".into(), json!(limit));
        let system = conversation.system.join("\n\n");
        if !system.trim().is_empty() {
            body.insert("system".into(), json!(system));
        }
        body.insert("messages".into(), self.anthropic_messages(&conversation));
        let forced = self.anthropic_tools(request, &mut body);
        let effort = request.reasoning.and_then(|wanted| self.rules.effort(wanted));
        let thinks = match effort.filter(|effort| *effort != Effort::None && !forced) {
            Some(effort) => self.anthropic_thinking(effort, limit, &conversation, &mut body),
            None => false,
        };
        if let Some(temperature) = request.temperature
            && !thinks
            && self.rules.temperature != Temperature::Never
        {
            body.insert("temperature".into(), json!(temperature.min(HOTTEST)));
        }
        if let Some(schema) = &request.output_schema
            && self.rules.json == Json::StrictSchema
            && schema::is_strict(schema)
        {
            let format = json!({ "type": "json_schema", "schema": schema });
            let config = body.entry("output_config").or_insert_with(|| json!({}));
            config["format"] = format;
        }
        for (field, value) in &request.further {
            match field.as_str() {
                "stop" if value.is_string() => {
                    body.insert("stop_sequences".into(), json!([value]));
                }
                "stop" => _ = body.insert("stop_sequences".into(), value.clone()),
                _ => _ = body.insert(field.clone(), value.clone()),
            }
        }
        if self.stream {
            body.insert("stream".into(), json!(true));
        }
        Value::Object(body)
    }

    /// Writes tools and choice; gives whether a tool is forced.
    fn anthropic_tools(&self, request: &ModelRequest, body: &mut Map<String, Value>) -> bool {
        if request.tools.is_empty() {
            return false;
        }
        let tools: Vec<Value> = request.tools.iter().map(|t| tool(t, self.rules.schemas)).collect();
        body.insert("tools".into(), tools.into());
        let choice = match &request.tool_choice {
            ToolChoice::Auto => return false,
            ToolChoice::None => json!({ "type": "none" }),
            ToolChoice::Required => json!({ "type": "any" }),
            ToolChoice::Named(name) => json!({ "type": "tool", "name": name }),
        };
        body.insert("tool_choice".into(), choice);
        request.tool_choice != ToolChoice::None
    }

    /// Asks for thinking, if the conversation may have it.
    fn anthropic_thinking(
        &self,
        effort: Effort,
        limit: u32,
        conversation: &Turns<'_>,
        body: &mut Map<String, Value>,
    ) -> bool {
        if self.rules.thinking == Thinking::Adaptive {
            body.insert("thinking".into(), json!({ "type": "adaptive" }));
            body.insert("output_config".into(), json!({ "effort": effort }));
            return true;
        }
        let place = match effort {
            Effort::None | Effort::Minimal | Effort::Low => 0,
            Effort::Medium => 1,
            Effort::High => 2,
            Effort::Max => 3,
        };
        // What is thought counts towards the limit, and something must be left for the answer.
        let budget = BUDGETS[place].min(limit / 4 * 3);
        if budget < LEAST_BUDGET || self.in_loop_without_thinking(conversation) {
            return false;
        }
        let thinking = json!({ "type": "enabled", "budget_tokens": budget });
        body.insert("thinking".into(), thinking);
        true
    }

    /// Whether the last turn is a tool loop that was begun without thinking blocks of this model:
    /// such a turn must go on as it began.
    fn in_loop_without_thinking(&self, conversation: &Turns<'_>) -> bool {
        match conversation.turns.last() {
            Some(Turn::Answered(last)) if !last.calls.is_empty() => self.blocks(last).is_none(),
            _ => false,
        }
    }

    fn anthropic_messages(&self, conversation: &Turns<'_>) -> Value {
        let mut list = Alternating::default();
        for turn in &conversation.turns {
            match turn {
                Turn::Said { text, images, .. } => {
                    list.say("user", images.iter().map(image).collect());
                    list.say("user", words(text));
                }
                Turn::Answered(answered) => {
                    list.say("assistant", self.answered(answered));
                    let result = |called: &crate::providers::turns::Called<'_>| {
                        json!({ "type": "tool_result", "tool_use_id": called.id,
                            "content": called.answer })
                    };
                    list.say("user", answered.calls.iter().map(result).collect());
                }
            }
        }
        list.close()
    }

    /// The blocks of a turn of the model.
    fn answered(&self, answered: &Answered<'_>) -> Vec<Value> {
        if let Some(blocks) = self.blocks(answered) {
            return blocks.clone();
        }
        let mut blocks = words(&answered.message.content);
        blocks.extend(answered.calls.iter().map(|called| {
            let input: Value = serde_json::from_str(&called.arguments(false)).unwrap_or(json!({}));
            json!({ "type": "tool_use", "id": called.id, "name": called.name, "input": input })
        }));
        blocks
    }

    /// The blocks as they came, if this model wrote them and they still say what the message says.
    fn blocks<'a>(&self, answered: &Answered<'a>) -> Option<&'a Vec<Value>> {
        let message: &'a Message = answered.message;
        if !answered.same_model || !self.signed {
            return None;
        }
        let blocks = message.opaque.as_ref()?[BLOCKS].as_array()?;
        let text: String = blocks.iter().filter_map(|b| b["text"].as_str()).collect();
        let ids = blocks.iter().filter(|b| b["type"] == "tool_use").map(|b| b["id"].as_str());
        let same = text == message.content
            && ids.eq(answered.calls.iter().map(|called| Some(called.id.as_str())));
        same.then_some(blocks)
    }
}

/// Messages whose roles alternate: blocks of the same role join.
#[derive(Default)]
struct Alternating(Vec<(&'static str, Vec<Value>)>);

impl Alternating {
    fn say(&mut self, role: &'static str, blocks: Vec<Value>) {
        if blocks.is_empty() {
            return;
        }
        match self.0.last_mut().filter(|(last, _)| *last == role) {
            Some((_, said)) => said.extend(blocks),
            None => self.0.push((role, blocks)),
        }
    }

    /// A user begins and ends.
    fn close(mut self) -> Value {
        let go_on = || ("user", words(GO_ON));
        if self.0.first().is_none_or(|(role, _)| *role != "user") {
            self.0.insert(0, go_on());
        }
        if self.0.last().is_some_and(|(role, _)| *role != "user") {
            self.0.push(go_on());
        }
        let message =
            |(role, blocks): (&str, Vec<Value>)| json!({ "role": role, "content": blocks });
        self.0.into_iter().map(message).collect()
    }
}

/// A text block; none for a blank text, which is refused.
fn words(text: &str) -> Vec<Value> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    vec![json!({ "type": "text", "text": text })]
}

fn image(image: &Image) -> Value {
    let source = match image.data() {
        Some((media, data)) => json!({ "type": "base64", "media_type": media, "data": data }),
        None => json!({ "type": "url", "url": image.url() }),
    };
    json!({ "type": "image", "source": source })
}

fn tool(tool: &ToolSpec, rule: Schemas) -> Value {
    json!({ "name": tool.name, "description": tool.description,
        "input_schema": schema::parameters(&tool.parameters, rule) })
}

#[cfg(test)]
mod tests;
