//! Any other server of the protocol: address, key, headers and query come from the configuration.
//!
//! What is known of a model travels with its name: a DeepSeek or an OpenAI reasoning model keeps
//! its rules behind a gateway.

use super::chat::profile::{Profile, Rules};
use super::{deepseek, openai};

/// A server that only the configuration knows.
pub const PROFILE: Profile = Profile {
    name: "",
    base_url: "",
    key_variable: "",
    rules: |model| {
        if model.to_ascii_lowercase().contains("deepseek") {
            Rules { json: Rules::PLAIN.json, ..deepseek::RULES }
        } else if openai::is_reasoning_model(model) {
            (openai::PROFILE.rules)(model)
        } else {
            Rules::PLAIN
        }
    },
};
