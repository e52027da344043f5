//! Google Gemini through its OpenAI-compatible endpoint.
//!
//! A tool call carries a signature that must return with it; a call that another model made is
//! given the documented stand-in (wire fact 21). Errors come as arrays (wire fact 22). Parameters
//! of tools are schemas of OpenAPI (wire fact 24).

use exile_engine::model::Effort;

use super::profile::{Echo, Json, Profile, Rules, Schemas};

/// Gemini.
pub const PROFILE: Profile = Profile {
    name: "gemini",
    base_url: "https://generativelanguage.googleapis.com/v1beta/openai",
    key_variable: "GEMINI_API_KEY",
    rules: |model| Rules {
        // Only the 2.5 models below Pro can be kept from thinking.
        efforts: if model.contains("2.5-flash") {
            &[Effort::None, Effort::Low, Effort::Medium, Effort::High]
        } else {
            &[Effort::Low, Effort::Medium, Effort::High]
        },
        reasoning: Echo::No,
        foreign_signature: Some("skip_thought_signature_validator"),
        json: Json::SchemaWithoutTools,
        schemas: Schemas::OpenApi,
        ..Rules::PLAIN
    },
    ..Profile::PLAIN
};
