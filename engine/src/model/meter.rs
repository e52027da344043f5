//! What calls to models cost whom: told before every attempt and after it, and free to refuse one.
//!
//! Invariants:
//! - Nothing is sent before its reserve is taken.
//! - Whatever becomes of a call, also if whoever asks leaves in the middle, its bill is settled:
//!   dropping it settles it for what was streamed.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Delta, ModelRef, ModelRequest, ProviderFault, Usage};
use crate::id::{RunId, UserId};
use crate::message::{Message, ToolCall};

/// Who a call is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payer {
    /// The user.
    pub owner: UserId,
    /// Id of the key that it was asked with, if it was one.
    pub key: Option<String>,
    /// The business that it belongs to.
    pub business: Option<String>,
    /// The graph, of a run's call.
    pub graph: Option<String>,
    /// The run, of a run's call.
    pub run: Option<RunId>,
}

/// A quota that is used up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exceeded {
    /// Whose it is, e.g. `user alice`.
    pub of: String,
    /// What is counted: `requests`, `tokens` or `money`.
    pub unit: String,
    /// How much there is, as written, e.g. `60/min`.
    pub limit: String,
    /// The same in whole units.
    pub amount: u64,
    /// For how long, in seconds.
    pub window_s: u64,
    /// When there is more, in milliseconds from now.
    pub retry_after_ms: u64,
    /// The tokens at which it cut an answer before that said anything; `None`: nothing was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_at: Option<u32>,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, unit, limit, retry_after_ms, cut_at, .. } = self;
        let seconds = retry_after_ms.div_ceil(1000);
        match cut_at {
            None => write!(f, "the quota of {of} is used up ({unit}: {limit})")?,
            Some(tokens) => write!(
                f,
                "the answer was cut at {tokens} tokens, which is what the quota of {of} \
                 ({unit}: {limit}) had for it"
            )?,
        }
        write!(f, "; there is more in {seconds} s")
    }
}

/// The most tokens that an answer may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cap {
    /// So many.
    pub tokens: u32,
    /// The quota that has no more; `None`: the request or the model itself says so.
    pub quota: Option<Box<Exceeded>>,
}

/// Counts calls.
pub trait Meter: Send + Sync {
    /// Begins the bill of a call.
    fn open(&self, payer: &Payer) -> Box<dyn Bill>;
}

/// What one call costs, over all its attempts and models.
#[async_trait]
pub trait Bill: Send + Sync {
    /// Takes the most that an attempt may cost. Gives the most tokens that its answer may have;
    /// `None`: as many as `size` says.
    ///
    /// # Errors
    /// [`ProviderFault::QuotaExceeded`], [`ProviderFault::NotSent`]: the attempt must not be made.
    async fn reserve(&mut self, model: &ModelRef, size: Size)
    -> Result<Option<Cap>, ProviderFault>;

    /// A piece of the answer came.
    fn piece(&mut self, delta: &Delta);

    /// The attempt was answered: tokens as the provider counted them, if it did, and the calls of
    /// tools in the answer, which come in no piece.
    fn answered(&mut self, usage: Option<Usage>, calls: &[ToolCall]);

    /// The attempt failed.
    fn failed(&mut self, fault: &ProviderFault);
}

/// How much is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// The input.
    pub input: Tally,
    /// Most tokens of the answer; `None`: nobody said.
    pub output: Option<u32>,
    /// Vectors are asked for, not an answer.
    pub embeds: bool,
}

impl Size {
    /// Of a request.
    #[must_use]
    pub fn of(request: &ModelRequest) -> Self {
        let mut input = Tally::default();
        request.messages.iter().for_each(|message| input.message(message));
        for tool in &request.tools {
            input.text(&tool.name);
            input.text(&tool.description);
            input.json(&tool.parameters);
        }
        if let Some(schema) = &request.output_schema {
            input.json(schema);
        }
        for value in request.further.values() {
            input.json(value);
        }
        Self { input, output: request.max_tokens, embeds: false }
    }

    /// Of texts that are to become vectors: there is no answer in tokens.
    #[must_use]
    pub fn of_texts(texts: &[String]) -> Self {
        let mut input = Tally::default();
        for text in texts {
            input.text(text);
        }
        Self { input, output: Some(0), embeds: true }
    }
}

/// Text by how many tokens it may be. Every vocabulary cuts differently: only the provider counts
/// exactly, and this stands in where it has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    bytes: u64,
    /// Of these, characters of ASCII, of which about four are a token.
    narrow: u64,
    /// All other characters, of which about ten are seven tokens.
    wide: u64,
    images: u64,
}

impl Tally {
    /// Bytes of what stands around each message.
    const AROUND: u64 = 12;
    /// What a picture is at most: the dearest one that is known, of many tiles.
    const IMAGE_MOST: u64 = 50_000;
    /// About what one is.
    const IMAGE: u64 = 1_000;

    /// Adds a text.
    pub fn text(&mut self, text: &str) {
        let narrow = text.bytes().filter(u8::is_ascii).count() as u64;
        self.bytes += text.len() as u64;
        self.narrow += narrow;
        if narrow < text.len() as u64 {
            self.wide += text.chars().filter(|c| !c.is_ascii()).count() as u64;
        }
    }

    fn json(&mut self, value: &Value) {
        self.text(&value.to_string());
    }

    fn message(&mut self, message: &Message) {
        self.bytes += Self::AROUND;
        self.narrow += Self::AROUND;
        self.text(&message.content);
        self.text(message.reasoning.as_deref().unwrap_or_default());
        for call in &message.tool_calls {
            self.text(&call.name);
            self.text(&call.arguments);
            call.opaque.iter().for_each(|opaque| self.json(opaque));
        }
        message.edited_arguments.iter().for_each(|args| self.json(args));
        message.opaque.iter().for_each(|opaque| self.json(opaque));
        self.images += message.images.len() as u64;
    }

    /// How many images it holds.
    #[must_use]
    pub fn images(self) -> u64 {
        self.images
    }

    /// The most tokens that it can be: in vocabularies of bytes, no text has more tokens than bytes.
    #[must_use]
    pub fn at_most(self) -> u64 {
        self.bytes + self.images * Self::IMAGE_MOST
    }

    /// About how many tokens it is.
    #[must_use]
    pub fn about(self) -> u64 {
        self.narrow.div_ceil(4) + (self.wide * 7).div_ceil(10) + self.images * Self::IMAGE
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    /// Texts, and their tokens in the vocabulary `o200k_base`.
    #[test]
    fn a_tally_is_a_bound_and_near_the_truth() {
        let cases = [
            ("The quick brown fox jumps over the lazy dog.", 10),
            ("今天的天气很好,我们一起去公园散步吧。", 14),
            ("fn main() { println!(\"hello\"); }", 9),
        ];
        for (text, tokens) in cases {
            let mut tally = Tally::default();
            tally.text(text);
            assert!(tally.at_most() >= tokens, "{text}");
            assert!(tally.about().abs_diff(tokens) * 2 <= tokens, "{text}: {}", tally.about());
        }
        // What vocabularies are bad at is still no more than its bytes.
        let mut rare = Tally::default();
        rare.text("𒀀𒀁");
        assert_eq!(rare.at_most(), 8);
    }
}
