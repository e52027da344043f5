//! Any other server of the chat protocol: address, key, headers and query come from the
//! configuration.
//!
//! What is known of a model travels with its name: a DeepSeek or an OpenAI reasoning model keeps
//! its rules behind a gateway.

use super::profile::{Profile, Rules};
use super::{deepseek, openai};

/// A server that only the configuration knows.
pub const PROFILE: Profile = Profile {
    rules: |model| {
        if model.to_ascii_lowercase().contains("deepseek") {
            Rules { json: Rules::PLAIN.json, ..deepseek::RULES }
        } else if openai::generation(model).is_some() {
            openai::rules(model)
        } else {
            Rules::PLAIN
        }
    },
    ..Profile::PLAIN
};
