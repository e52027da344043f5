//! What sets one provider of the chat protocol apart from the next, as data.

use exile_engine::model::Capabilities;

/// One provider.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// The name before the slash.
    pub name: &'static str,
    /// Where it is reached; empty if only a configuration can say.
    pub base_url: &'static str,
    /// The environment variable that holds its key; empty if only a configuration can say.
    pub key_variable: &'static str,
    /// What a model of it takes, by the model's name.
    pub rules: fn(model: &str) -> Rules,
}

/// What one model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What it can do.
    pub capabilities: Capabilities,
    /// The field that bounds the answer (wire fact 10).
    pub max_tokens: &'static str,
    /// Whether it takes `temperature` (wire fact 10).
    pub temperature: bool,
    /// What its own reasoning is sent back as.
    pub reasoning: Echo,
    /// What a forced tool choice costs (wire fact 17).
    pub forced_choice: ForcedChoice,
    /// What stands in for the signature of a tool call that another model made (wire fact 21).
    pub foreign_signature: Option<&'static str>,
    /// How it can be held to JSON.
    pub json: Json,
}

/// Whether reasoning returns with an assistant's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// Never.
    No,
    /// As `reasoning_content` on every assistant message, empty where there is none of its own:
    /// a tool turn without it is refused (wire fact 16).
    Always,
}

/// What a request with a forced tool choice needs besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForcedChoice {
    /// Nothing.
    Plain,
    /// Thinking switched off for this request.
    WithoutThinking,
}

/// How a model is held to JSON, besides being told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Json {
    /// `response_format` with the schema itself.
    Schema,
    /// Like `Schema`, but not together with tools.
    SchemaWithoutTools,
    /// `response_format: json_object`, for schemas of objects (wire fact 19).
    Object,
    /// Not at all.
    Told,
}

impl Rules {
    /// What any server of the protocol takes.
    pub const PLAIN: Self = Self {
        capabilities: Capabilities { tools: true, json_schema: false, reasoning: false },
        max_tokens: "max_tokens",
        temperature: true,
        reasoning: Echo::No,
        forced_choice: ForcedChoice::Plain,
        foreign_signature: None,
        json: Json::Told,
    };
}
