//! xAI's chat completions. Only its small reasoning models can be told how hard to think; the
//! others think as they like and refuse the word.

use exile_engine::model::Effort;

use super::profile::{Json, Profile, Rules};

/// xAI.
pub const PROFILE: Profile = Profile {
    name: "xai",
    key_variable: "XAI_API_KEY",
    rules: |model| Rules {
        efforts: if model.contains("grok-3-mini") { &[Effort::Low, Effort::High] } else { &[] },
        json: Json::Schema,
        ..Rules::PLAIN
    },
    ..Profile::PLAIN
};
