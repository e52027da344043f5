//! Puts an answer of Anthropic's Messages together: events of a stream, or one whole message.
//!
//! Invariants:
//! - Events, blocks and fields that are unknown are passed over, blocks kept.
//! - Usage is cumulative: what a later event says replaces what an earlier one said (wire fact 25).
//! - Blocks are kept as they came where a message of text and calls could not say the same.

use exile_engine::model::{Delta, Finish, ProviderFault, Usage};
use serde_json::{Value, json};

use crate::providers::answer::{Answer, Assemble};
use crate::providers::error;

/// The key of the blocks among a message's opaque fields.
pub(super) const BLOCKS: &str = "content";

/// Most blocks of one answer.
const BLOCK_LIMIT: usize = 4096;

/// An answer on its way in.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    answer: Answer,
    blocks: Vec<Block>,
    counts: Counts,
}

/// One block of content, and the arguments of a call as they come.
#[derive(Debug)]
struct Block {
    index: u64,
    value: Value,
    arguments: String,
}

/// Tokens, each as it was last said.
#[derive(Debug, Default)]
struct Counts {
    input: Option<u64>,
    written: u64,
    cached: u64,
    output: u64,
    reasoning: u64,
}

impl Assemble for Assembler {
    fn take(&mut self, event: &Value, shown: &mut Vec<Delta>) -> Result<(), ProviderFault> {
        if let Some(fault) = error::inside_answer(event) {
            return Err(fault);
        }
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => self.begin(&event["message"], false, shown)?,
            "message" => self.begin(event, true, shown)?,
            "content_block_start" => {
                let index = event["index"].as_u64().unwrap_or(0);
                self.block(index, &event["content_block"], false, shown)?;
            }
            "content_block_delta" => self.delta(event, shown),
            "message_delta" => {
                self.count(&event["usage"]);
                self.finish(&event["delta"]["stop_reason"]);
            }
            "message_stop" => self.answer.ended = true,
            _ => {}
        }
        Ok(())
    }

    fn answer(&self) -> &Answer {
        &self.answer
    }

    fn close(mut self: Box<Self>) -> Answer {
        let blocks: Vec<Value> =
            std::mem::take(&mut self.blocks).into_iter().map(Block::close).collect();
        if blocks.iter().any(is_opaque) {
            self.answer.opaque.insert(BLOCKS.into(), blocks.into());
        }
        self.answer
    }
}

impl Assembler {
    /// The head of a message; a whole one has all its blocks in it.
    fn begin(
        &mut self,
        message: &Value,
        whole: bool,
        shown: &mut Vec<Delta>,
    ) -> Result<(), ProviderFault> {
        self.answer.begun = true;
        let text = |key: &str| message[key].as_str().map(str::to_owned);
        self.answer.id = text("id");
        self.answer.model = text("model");
        self.count(&message["usage"]);
        let blocks = message["content"].as_array().into_iter().flatten();
        for (index, block) in (0..).zip(blocks) {
            self.block(index, block, whole, shown)?;
        }
        self.finish(&message["stop_reason"]);
        Ok(())
    }

    /// A block begins; one of a `whole` message has everything already.
    fn block(
        &mut self,
        index: u64,
        block: &Value,
        whole: bool,
        shown: &mut Vec<Delta>,
    ) -> Result<(), ProviderFault> {
        if self.blocks.len() >= BLOCK_LIMIT {
            return Err(error::garbage(format!("more than {BLOCK_LIMIT} blocks")));
        }
        let answer = &mut self.answer;
        answer.begun = true;
        answer.size += block.to_string().len();
        match block["type"].as_str().unwrap_or_default() {
            "text" => answer.say(block["text"].as_str().unwrap_or_default(), shown),
            "thinking" => answer.think(block["thinking"].as_str().unwrap_or_default(), shown),
            "tool_use" => {
                // A stream begins with an empty object and sends the text of the real one.
                let input = block["input"].as_object().filter(|i| whole || !i.is_empty());
                let arguments = input.map_or(json!(""), |input| json!(input));
                answer.call(&json!({ "index": index, "id": block["id"],
                    "function": { "name": block["name"], "arguments": arguments } }));
            }
            _ => {}
        }
        let value = if block.is_object() { block.clone() } else { json!({}) };
        self.blocks.push(Block { index, value, arguments: String::new() });
        Ok(())
    }

    fn delta(&mut self, event: &Value, shown: &mut Vec<Delta>) {
        let index = event["index"].as_u64().unwrap_or(0);
        let Some(block) = self.blocks.iter_mut().rfind(|b| b.index == index) else { return };
        let (answer, delta) = (&mut self.answer, &event["delta"]);
        let piece = |key: &str| delta[key].as_str().unwrap_or_default();
        match delta["type"].as_str().unwrap_or_default() {
            "text_delta" => {
                block.extend("text", piece("text"));
                answer.say(piece("text"), shown);
            }
            "thinking_delta" => {
                block.extend("thinking", piece("thinking"));
                answer.think(piece("thinking"), shown);
            }
            "signature_delta" => {
                answer.size += piece("signature").len();
                block.extend("signature", piece("signature"));
            }
            "input_json_delta" => {
                block.arguments.push_str(piece("partial_json"));
                if block.value["type"] == "tool_use" {
                    answer.call(&json!({ "index": index,
                        "function": { "arguments": piece("partial_json") } }));
                } else {
                    answer.size += piece("partial_json").len();
                }
            }
            "citations_delta" => {
                answer.size += delta["citation"].to_string().len();
                block.cite(&delta["citation"]);
            }
            _ => {}
        }
    }

    fn count(&mut self, usage: &Value) {
        let number = |key: &str| usage[key].as_u64();
        let counts = &mut self.counts;
        counts.input = number("input_tokens").or(counts.input);
        counts.written = number("cache_creation_input_tokens").unwrap_or(counts.written);
        counts.cached = number("cache_read_input_tokens").unwrap_or(counts.cached);
        counts.output = number("output_tokens").unwrap_or(counts.output);
        let thought = usage["output_tokens_details"]["thinking_tokens"].as_u64();
        counts.reasoning = thought.unwrap_or(counts.reasoning);
        // Its input leaves out what was read from the cache and what was written to it.
        self.answer.usage = counts.input.map(|input| Usage {
            input: input.saturating_add(counts.written).saturating_add(counts.cached),
            cached: counts.cached,
            written: counts.written,
            output: counts.output,
            reasoning: counts.reasoning,
        });
    }

    /// Why the model stopped. What is not known counts as done.
    fn finish(&mut self, reason: &Value) {
        let Some(reason) = reason.as_str() else { return };
        self.answer.finish = Some(match reason {
            "tool_use" => Finish::ToolCalls,
            "max_tokens" | "model_context_window_exceeded" => Finish::Length,
            "refusal" => Finish::Refused,
            _ => Finish::Stop,
        });
    }
}

impl Block {
    fn extend(&mut self, key: &str, piece: &str) {
        match &mut self.value[key] {
            Value::String(text) => text.push_str(piece),
            other => *other = json!(piece),
        }
    }

    fn cite(&mut self, citation: &Value) {
        match &mut self.value["citations"] {
            Value::Array(list) => list.push(citation.clone()),
            other => *other = json!([citation]),
        }
    }

    fn close(mut self) -> Value {
        if let Ok(input @ Value::Object(_)) = serde_json::from_str(&self.arguments) {
            self.value["input"] = input;
        }
        self.value
    }
}

/// Whether a message of text and calls would lose the block.
fn is_opaque(block: &Value) -> bool {
    !matches!(block["type"].as_str(), Some("text" | "tool_use"))
}

#[cfg(test)]
mod tests;
