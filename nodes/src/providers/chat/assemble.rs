//! Puts the pieces of an answer together: chunks of a stream, or one whole reply.
//!
//! Invariants:
//! - Fields that are unknown, absent, null or of a surprising type are passed over (wire facts
//!   3, 5); only an error field, or no answer at all, fails.
//! - Every tool call ends up with a name, and with an id that no other call of the answer has
//!   (wire fact 6).
//! - A call that the end of the answer may have cut is never given out (wire fact 7).

mod calls;

use exile_engine::model::{Delta, Finish, ModelReply, ProviderFault, Usage};
use serde_json::{Value, json};

use super::error;
use calls::Calls;

/// An answer on its way in.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    content: String,
    reasoning: Option<String>,
    refused: bool,
    calls: Calls,
    finish: Option<Finish>,
    usage: Option<Usage>,
    model: Option<String>,
    id: Option<String>,
    extra_content: Option<Value>,
    /// Some choice was seen, if only an empty one.
    answered: bool,
}

impl Assembler {
    /// Takes one chunk of a stream, or one whole reply, and gives what of it can be shown.
    pub(crate) fn take(&mut self, chunk: &Value) -> Result<Vec<Delta>, ProviderFault> {
        if let Some(fault) = error::inside_answer(chunk) {
            return Err(fault);
        }
        let text = |key: &str| chunk[key].as_str().filter(|s| !s.is_empty()).map(str::to_owned);
        self.model = text("model").or(self.model.take());
        self.id = text("id").or(self.id.take());
        self.usage = usage(&chunk["usage"]).or(self.usage);
        // Only the first choice was asked for; a chunk may hold none (wire fact 3).
        let Some(choice) = chunk["choices"].get(0) else { return Ok(Vec::new()) };
        self.answered = true;
        self.usage = usage(&choice["usage"]).or(self.usage);
        let part = if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
        let deltas = self.part(part);
        if let Some(reason) = choice["finish_reason"].as_str().filter(|r| !r.is_empty()) {
            self.finish = Some(finish(reason)?);
        }
        Ok(deltas)
    }

    /// Whether the model has said why it stopped.
    pub(crate) fn finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether anything of an answer came.
    pub(crate) fn answered(&self) -> bool {
        self.answered
    }

    /// The whole answer. `mint` makes ids for calls that came without one.
    pub(crate) fn reply(self, asked: &str, mint: &mut dyn FnMut() -> String) -> ModelReply {
        let finish = match self.finish {
            _ if self.refused => Finish::Refused,
            Some(finish) => finish,
            None => Finish::Stop,
        };
        let cut = matches!(finish, Finish::Length | Finish::Filtered);
        ModelReply {
            content: self.content,
            reasoning: self.reasoning,
            tool_calls: self.calls.close(cut, mint),
            finish,
            usage: self.usage,
            model: self.model.unwrap_or_else(|| asked.to_owned()),
            id: self.id,
            opaque: self.extra_content.map(|extra| json!({ "extra_content": extra })),
        }
    }

    /// A delta or a message.
    fn part(&mut self, part: &Value) -> Vec<Delta> {
        let mut deltas = Vec::new();
        // Servers name it one way or the other, some both ways at once (wire fact 26).
        let thought = ["reasoning_content", "reasoning"].iter().find_map(|k| part[*k].as_str());
        if let Some(thought) = thought {
            self.think(thought, &mut deltas);
        }
        match &part["content"] {
            Value::String(text) => self.say(text, &mut deltas),
            Value::Array(parts) => parts.iter().for_each(|p| self.content_part(p, &mut deltas)),
            _ => {}
        }
        if let Some(refusal) = part["refusal"].as_str().filter(|r| !r.is_empty()) {
            self.refused = true;
            self.say(refusal, &mut deltas);
        }
        for fragment in part["tool_calls"].as_array().into_iter().flatten() {
            self.calls.take(fragment);
        }
        if part["extra_content"].is_object() {
            self.extra_content = Some(part["extra_content"].clone());
        }
        deltas
    }

    /// One item of a content list: text, or thinking that itself is a list.
    fn content_part(&mut self, part: &Value, deltas: &mut Vec<Delta>) {
        if let Some(text) = part["text"].as_str() {
            self.say(text, deltas);
        }
        match &part["thinking"] {
            Value::String(thought) => self.think(thought, deltas),
            Value::Array(parts) => {
                for thought in parts.iter().filter_map(|p| p["text"].as_str()) {
                    self.think(thought, deltas);
                }
            }
            _ => {}
        }
    }

    fn say(&mut self, text: &str, deltas: &mut Vec<Delta>) {
        if !text.is_empty() {
            self.content.push_str(text);
            deltas.push(Delta::Text(text.to_owned()));
        }
    }

    fn think(&mut self, thought: &str, deltas: &mut Vec<Delta>) {
        self.reasoning.get_or_insert_default().push_str(thought);
        if !thought.is_empty() {
            deltas.push(Delta::Reasoning(thought.to_owned()));
        }
    }
}

/// Why the model stopped. What is not known counts as done.
fn finish(reason: &str) -> Result<Finish, ProviderFault> {
    let failed =
        |detail: &str| Err(ProviderFault::Unavailable { status: 200, detail: detail.to_owned() });
    match reason.to_ascii_lowercase().as_str() {
        "length" | "max_tokens" | "model_length" => Ok(Finish::Length),
        "content_filter" | "safety" => Ok(Finish::Filtered),
        "refusal" => Ok(Finish::Refused),
        "insufficient_system_resource" => failed("it lacks the resources to go on"),
        "error" => failed("the answer ended with an error"),
        other if other.contains("malformed_function_call") => {
            failed("the model wrote a tool call that cannot be read")
        }
        _ => Ok(Finish::Stop),
    }
}

/// Tokens as counted by the provider; `None` for null or an object without counts.
fn usage(usage: &Value) -> Option<Usage> {
    let input = usage["prompt_tokens"].as_u64()?;
    let cached = usage["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .or(usage["prompt_cache_hit_tokens"].as_u64());
    let reasoning = usage["completion_tokens_details"]["reasoning_tokens"].as_u64();
    Some(Usage {
        input,
        cached: cached.unwrap_or(0),
        output: usage["completion_tokens"].as_u64().unwrap_or(0),
        reasoning: reasoning.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests;
