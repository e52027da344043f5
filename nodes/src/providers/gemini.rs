//! Google Gemini through its OpenAI-compatible endpoint.
//!
//! A tool call carries a signature that must return with it; a call that another model made is
//! given the documented stand-in (wire fact 21). Errors come as arrays (wire fact 22).

use exile_engine::model::Capabilities;

use super::chat::profile::{Json, Profile, Rules};

/// Gemini.
pub const PROFILE: Profile = Profile {
    name: "gemini",
    base_url: "https://generativelanguage.googleapis.com/v1beta/openai",
    key_variable: "GEMINI_API_KEY",
    rules: |_| Rules {
        capabilities: Capabilities { tools: true, json_schema: true, reasoning: true },
        foreign_signature: Some("skip_thought_signature_validator"),
        json: Json::SchemaWithoutTools,
        ..Rules::PLAIN
    },
};
