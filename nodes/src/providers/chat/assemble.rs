//! Puts the pieces of a chat answer together: chunks of a stream, or one whole reply.
//!
//! Invariants:
//! - Fields that are unknown, absent, null or of a surprising type are passed over (wire facts
//!   3, 5); only an error field, or no answer at all, fails.
//! - Of several choices the first alone is read.

mod details;

use exile_engine::model::{Delta, Finish, ProviderFault, Usage};
use serde_json::{Value, json};

use super::REASONING_FIELD;
use crate::providers::answer::{Answer, Assemble};
use crate::providers::error;
use details::Details;

/// An answer on its way in.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    answer: Answer,
    details: Details,
    /// The index of the choice that is read.
    choice: Option<u64>,
}

impl Assemble for Assembler {
    fn take(&mut self, chunk: &Value, shown: &mut Vec<Delta>) -> Result<(), ProviderFault> {
        if let Some(fault) = error::inside_answer(chunk) {
            return Err(fault);
        }
        let answer = &mut self.answer;
        let text = |key: &str| chunk[key].as_str().filter(|s| !s.is_empty()).map(str::to_owned);
        answer.model = text("model").or(answer.model.take());
        answer.id = text("id").or(answer.id.take());
        answer.usage = usage(&chunk["usage"]).or(answer.usage);
        // A chunk may hold no choice (wire fact 3).
        let Some(choice) = self.read_choice(chunk) else { return Ok(()) };
        self.answer.begun = true;
        self.answer.usage = usage(&choice["usage"]).or(self.answer.usage);
        let part = if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
        self.part(part, shown);
        if let Some(reason) = choice["finish_reason"].as_str().filter(|r| !r.is_empty()) {
            self.answer.finish = Some(finish(reason)?);
        }
        Ok(())
    }

    fn answer(&self) -> &Answer {
        &self.answer
    }

    fn close(mut self: Box<Self>) -> Answer {
        if let Some(details) = self.details.close() {
            self.answer.opaque.insert("reasoning_details".into(), details);
        }
        self.answer
    }
}

impl Assembler {
    /// The choice that is read: of those of the first chunk that holds any, the first.
    fn read_choice<'c>(&mut self, chunk: &'c Value) -> Option<&'c Value> {
        let index = |choice: &Value| choice["index"].as_u64().unwrap_or(0);
        let choices = || chunk["choices"].as_array().into_iter().flatten();
        let wanted = *self.choice.get_or_insert(choices().map(index).min()?);
        choices().find(|choice| index(choice) == wanted)
    }

    /// A delta or a message.
    fn part(&mut self, part: &Value, shown: &mut Vec<Delta>) {
        let answer = &mut self.answer;
        answer.size += self.details.take(&part["reasoning_details"]);
        // Servers name it one way or the other, some both ways at once (wire fact 26).
        let named = |key: &&str| part[*key].is_string();
        if let Some(field) = ["reasoning_content", "reasoning"].into_iter().find(named) {
            answer.opaque.insert(REASONING_FIELD.into(), json!(field));
            answer.think(part[field].as_str().unwrap_or_default(), shown);
        } else if let Some(thought) = details::text(&part["reasoning_details"]) {
            answer.think(&thought, shown);
        }
        match &part["content"] {
            Value::String(text) => answer.say(text, shown),
            Value::Array(parts) => parts.iter().for_each(|p| content_part(answer, p, shown)),
            _ => {}
        }
        if let Some(refusal) = part["refusal"].as_str().filter(|r| !r.is_empty()) {
            answer.refuse(refusal, shown);
        }
        part["tool_calls"].as_array().into_iter().flatten().for_each(|f| answer.call(f));
        if part["extra_content"].is_object() {
            let extra = part["extra_content"].clone();
            answer.opaque.insert("extra_content".into(), extra);
        }
    }
}

/// One item of a content list: text, or thinking that itself is a list.
fn content_part(answer: &mut Answer, part: &Value, shown: &mut Vec<Delta>) {
    if let Some(text) = part["text"].as_str() {
        answer.say(text, shown);
    }
    match &part["thinking"] {
        Value::String(thought) => answer.think(thought, shown),
        Value::Array(parts) => {
            for thought in parts.iter().filter_map(|p| p["text"].as_str()) {
                answer.think(thought, shown);
            }
        }
        _ => {}
    }
}

/// Why the model stopped. What is not known counts as done.
fn finish(reason: &str) -> Result<Finish, ProviderFault> {
    let failed =
        |detail: &str| Err(ProviderFault::Unavailable { status: 200, detail: detail.to_owned() });
    match reason.to_ascii_lowercase().as_str() {
        "tool_calls" | "function_call" => Ok(Finish::ToolCalls),
        "length" | "max_tokens" | "model_length" => Ok(Finish::Length),
        "content_filter" | "safety" => Ok(Finish::Filtered),
        "refusal" => Ok(Finish::Refused),
        "insufficient_system_resource" => failed("it lacks the resources to go on"),
        "error" | "abort" => failed("the answer ended with an error"),
        other if other.contains("malformed_function_call") => {
            failed("the model wrote a tool call that cannot be read")
        }
        _ => Ok(Finish::Stop),
    }
}

/// Tokens as counted by the provider; `None` for null or an object without counts.
///
/// Some leave thinking out of the answer's tokens and count it in the sum alone (xAI, Gemini's
/// compatible endpoint). What audio of a request adds to it, at Mistral, is no thinking.
pub(super) fn usage(usage: &Value) -> Option<Usage> {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let asked = &usage["prompt_tokens_details"];
    let (input, mut output) =
        (usage["prompt_tokens"].as_u64()?, count(&usage["completion_tokens"]));
    let mut reasoning = count(&usage["completion_tokens_details"]["reasoning_tokens"]);
    let hidden = count(&usage["total_tokens"]).saturating_sub(input.saturating_add(output));
    if hidden != count(&asked["audio_tokens"]) {
        output += hidden;
        reasoning = reasoning.max(hidden);
    }
    let cached = asked["cached_tokens"].as_u64().or(usage["prompt_cache_hit_tokens"].as_u64());
    let (cached, written) = (cached.unwrap_or(0), count(&asked["cache_write_tokens"]));
    Some(Usage { input, cached, written, output, reasoning })
}

#[cfg(test)]
mod tests;
