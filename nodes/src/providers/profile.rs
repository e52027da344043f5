//! What sets one provider apart from the next, as data.
//!
//! Invariant: no code asks for a provider's name. What differs is a field of [`Rules`].

use exile_engine::model::Effort;
use schemars::JsonSchema;
use serde::Deserialize;

/// One provider.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// The name before the slash. A name that begins with it and goes on with `-` has its rules
    /// too: `azure-eu`.
    pub name: &'static str,
    /// What is spoken, unless the configuration says otherwise.
    pub protocol: Protocol,
    /// Where it is reached; empty if only a configuration can say.
    pub base_url: &'static str,
    /// The environment variable that holds its key; empty: made of the name.
    pub key_variable: &'static str,
    /// The header that the key is sent in; `authorization` as a bearer token.
    pub key_header: &'static str,
    /// What a model of it takes, by the model's name.
    pub rules: fn(model: &str) -> Rules,
}

/// What is spoken with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OpenAI's chat completions.
    Chat,
    /// Anthropic's Messages.
    Anthropic,
}

/// What one model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether it sees pictures; others are told that there was one.
    pub images: bool,
    /// The field that bounds the answer (wire fact 10).
    pub max_tokens: &'static str,
    /// The bound where the request has none and the provider demands one.
    pub default_max_tokens: Option<u32>,
    /// Whether it takes `temperature` (wire fact 10).
    pub temperature: Temperature,
    /// How it is told how hard to think.
    pub thinking: Thinking,
    /// The words for that which it knows, least first; empty: it cannot be told.
    pub efforts: &'static [Effort],
    /// What its own reasoning is sent back as.
    pub reasoning: Echo,
    /// Which requests with tools must have its thinking switched off.
    pub thinking_off: ThinkingOff,
    /// What stands in for the signature of a tool call that another model made (wire fact 21).
    pub foreign_signature: Option<&'static str>,
    /// How it can be held to JSON.
    pub json: Json,
    /// Which JSON Schema it takes for a tool's parameters.
    pub schemas: Schemas,
    /// Which ids of tool calls it takes.
    pub call_ids: CallIds,
    /// Whether a stream must ask for its usage (wire fact 3); who sends it anyway may refuse to
    /// be asked.
    pub asks_usage: bool,
    /// Whether the last message must be a user's or a tool's.
    pub ends_with_user: bool,
}

/// Whether `temperature` is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temperature {
    /// Whenever it is given.
    Always,
    /// Only if thinking is switched off in the same request.
    WithoutThinking,
    /// Only if the request does not ask for thinking.
    UnlessThinking,
    /// Never.
    Never,
}

/// The field that says how hard to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// `reasoning_effort`.
    Effort,
    /// `thinking.type` and `reasoning_effort` (wire fact 15).
    Switch,
    /// `reasoning: { effort }`.
    Nested,
    /// `thinking: adaptive` and `output_config: { effort }`.
    Adaptive,
    /// `thinking: enabled` with a budget of tokens.
    Budget,
}

/// How reasoning returns with an assistant's message, besides opaque fields, which return to the
/// model that gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// Not at all.
    No,
    /// As `reasoning_content` on every assistant message, empty where there is none of its own:
    /// a tool turn without it is refused (wire fact 16).
    Always,
    /// Under the name it came with, to the model that wrote it, on messages with tool calls:
    /// models that think between calls lose their thread without it (wire fact 26).
    AsReceived,
}

/// Which requests with tools must have thinking switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThinkingOff {
    /// None.
    Never,
    /// Those that force a tool (wire fact 17).
    Forced,
    /// All of them.
    Tools,
}

/// How a model is held to JSON, besides being told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Json {
    /// `response_format` with the schema itself.
    Schema,
    /// Like `Schema`, but not together with tools.
    SchemaWithoutTools,
    /// Only schemas that can be enforced to the letter.
    StrictSchema,
    /// `response_format: json_object`, for schemas of objects (wire fact 19).
    Object,
    /// Not at all.
    Told,
}

/// Which schemas a tool's parameters may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schemas {
    /// Any.
    Any,
    /// Those of OpenAPI 3.0: no references, no `const`, no `oneOf` (wire fact 24).
    OpenApi,
    /// An object at the root, without alternatives there.
    ObjectRoot,
}

/// Which ids a tool call may have. What does not fit is replaced, the same way in every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallIds {
    /// At most 40 letters, digits, `_` and `-`.
    Words,
    /// Exactly nine letters and digits.
    Nine,
}

impl Profile {
    /// What any server of the chat protocol is.
    pub const PLAIN: Self = Self {
        name: "",
        protocol: Protocol::Chat,
        base_url: "",
        key_variable: "",
        key_header: "authorization",
        rules: |_| Rules::PLAIN,
    };
}

impl Rules {
    /// What any server of the chat protocol takes.
    pub const PLAIN: Self = Self {
        images: true,
        max_tokens: "max_tokens",
        default_max_tokens: None,
        temperature: Temperature::Always,
        thinking: Thinking::Effort,
        efforts: &[Effort::None, Effort::Low, Effort::Medium, Effort::High],
        reasoning: Echo::AsReceived,
        thinking_off: ThinkingOff::Never,
        foreign_signature: None,
        json: Json::Told,
        schemas: Schemas::Any,
        call_ids: CallIds::Words,
        asks_usage: true,
        ends_with_user: false,
    };

    /// The word that this model knows and that is nearest to `wanted`; of two as near, the harder.
    #[must_use]
    pub fn effort(&self, wanted: Effort) -> Option<Effort> {
        let distance = |known: &&Effort| (**known as i8 - wanted as i8).abs();
        // The last of the smallest is the harder one.
        self.efforts.iter().rev().min_by_key(distance).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{Effort, Rules};

    #[test]
    fn an_unknown_effort_becomes_the_nearest_known_one() {
        let known = |efforts| Rules { efforts, ..Rules::PLAIN };
        let deepseek = known(&[Effort::None, Effort::Low, Effort::High, Effort::Max]);
        assert_eq!(deepseek.effort(Effort::Medium), Some(Effort::High));
        assert_eq!(deepseek.effort(Effort::Minimal), Some(Effort::Low));
        assert_eq!(deepseek.effort(Effort::None), Some(Effort::None));
        let always = known(&[Effort::Low, Effort::Medium, Effort::High]);
        assert_eq!(always.effort(Effort::None), Some(Effort::Low));
        assert_eq!(always.effort(Effort::Max), Some(Effort::High));
        assert_eq!(known(&[]).effort(Effort::High), None);
    }
}
