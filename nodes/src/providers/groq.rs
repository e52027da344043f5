//! Groq. It enforces a schema only on answers that are not streamed; exile streams, so that its
//! answers are checked here.

use exile_engine::model::Effort;

use super::profile::{Echo, Profile, Rules};

/// Groq.
pub const PROFILE: Profile = Profile {
    name: "groq",
    key_variable: "GROQ_API_KEY",
    rules: |model| {
        let reasoning = model.contains("gpt-oss");
        Rules {
            max_tokens: "max_completion_tokens",
            efforts: if reasoning { &[Effort::Low, Effort::Medium, Effort::High] } else { &[] },
            reasoning: Echo::No,
            ..Rules::PLAIN
        }
    },
    ..Profile::PLAIN
};
