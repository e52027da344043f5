//! An answer on its way in, whatever the protocol.
//!
//! Invariants:
//! - A call that the end of the answer may have cut is never given out (wire fact 7).
//! - Memory is bounded: by [`AnswerLimits`] and [`CALL_LIMIT`], whatever is sent.

use exile_engine::limits::AnswerLimits;
use exile_engine::model::{Delta, Finish, ModelReply, ProviderFault, Usage};
use serde_json::{Map, Value};

use super::calls::{CALL_LIMIT, Calls};
use super::error;

/// What came so far.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub content: String,
    pub reasoning: Option<String>,
    /// The model refused (wire fact 9).
    pub refused: bool,
    pub calls: Calls,
    pub finish: Option<Finish>,
    pub usage: Option<Usage>,
    pub model: Option<String>,
    pub id: Option<String>,
    /// Fields that must return verbatim.
    pub opaque: Map<String, Value>,
    /// Something of an answer was seen, if only an empty choice.
    pub begun: bool,
    /// The protocol's own end was seen.
    pub ended: bool,
    /// Bytes that are held.
    pub size: usize,
}

/// Puts the pieces of one protocol together.
pub(crate) trait Assemble: Send {
    /// Takes one chunk of a stream, or one whole reply, and shows what of it can be shown.
    fn take(&mut self, chunk: &Value, shown: &mut Vec<Delta>) -> Result<(), ProviderFault>;

    /// What came so far.
    fn answer(&self) -> &Answer;

    /// Everything that came.
    fn close(self: Box<Self>) -> Answer;
}

impl Answer {
    /// More text.
    pub(crate) fn say(&mut self, text: &str, shown: &mut Vec<Delta>) {
        if !text.is_empty() {
            self.content.push_str(text);
            self.size += text.len();
            shown.push(Delta::Text(text.to_owned()));
        }
    }

    /// More text of a refusal (wire fact 9).
    pub(crate) fn refuse(&mut self, text: &str, shown: &mut Vec<Delta>) {
        self.refused = true;
        self.content.push_str(text);
        self.size += text.len();
        shown.push(Delta::Refusal(text.to_owned()));
    }

    /// More thinking; an empty one is not none (wire fact 16).
    pub(crate) fn think(&mut self, thought: &str, shown: &mut Vec<Delta>) {
        self.reasoning.get_or_insert_default().push_str(thought);
        if !thought.is_empty() {
            self.size += thought.len();
            shown.push(Delta::Reasoning(thought.to_owned()));
        }
    }

    /// A fragment of a tool call, as the chat protocol has them.
    pub(crate) fn call(&mut self, fragment: &Value) {
        self.size += self.calls.take(fragment);
    }

    /// Whether it still fits.
    pub(crate) fn check(&self, limits: AnswerLimits) -> Result<(), ProviderFault> {
        if self.size > limits.bytes {
            return Err(error::too_long(limits));
        }
        if self.calls.len() > CALL_LIMIT {
            return Err(error::garbage(format!("more than {CALL_LIMIT} tool calls")));
        }
        Ok(())
    }

    /// The reply. `whole`: it came in one piece, which nothing can have cut. `mint` makes ids for
    /// calls that came without one.
    pub(crate) fn reply(
        self,
        asked: &str,
        whole: bool,
        mint: &mut dyn FnMut() -> String,
    ) -> ModelReply {
        let cut = match self.finish {
            Some(Finish::Stop | Finish::ToolCalls) => self.refused,
            Some(Finish::Length | Finish::Filtered | Finish::Refused) => true,
            None => !whole,
        };
        let finish = if self.refused { Some(Finish::Refused) } else { self.finish };
        ModelReply {
            content: self.content,
            reasoning: self.reasoning,
            tool_calls: self.calls.close(cut, mint),
            finish: finish.unwrap_or(Finish::Stop),
            usage: self.usage,
            model: self.model.unwrap_or_else(|| asked.to_owned()),
            id: self.id,
            opaque: (!self.opaque.is_empty()).then_some(Value::Object(self.opaque)),
        }
    }
}
