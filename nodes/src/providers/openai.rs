//! OpenAI's chat completions, and Azure's by `base_url`, header and query.
//!
//! Reasoning models refuse `max_tokens` and `temperature` (wire fact 10). The role stays
//! `system`: they take it as `developer`.

use exile_engine::model::Capabilities;

use super::chat::profile::{Json, Profile, Rules};

/// OpenAI.
pub const PROFILE: Profile = Profile {
    name: "openai",
    base_url: "https://api.openai.com/v1",
    key_variable: "OPENAI_API_KEY",
    rules: |model| {
        let reasoning = is_reasoning_model(model);
        Rules {
            capabilities: Capabilities { tools: true, json_schema: true, reasoning },
            max_tokens: if reasoning { "max_completion_tokens" } else { "max_tokens" },
            temperature: !reasoning,
            json: Json::Schema,
            ..Rules::PLAIN
        }
    },
};

/// The o-series and GPT-5 and later, by name: `o3-mini`, `gpt-5.1`, `openai/gpt-6`.
pub(super) fn is_reasoning_model(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let number = |prefix: &str| {
        let rest = name.strip_prefix(prefix)?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse::<u32>().ok()
    };
    number("o").is_some() || number("gpt-").is_some_and(|n| n >= 5)
}

#[cfg(test)]
mod tests {
    use super::is_reasoning_model;

    #[test]
    fn reasoning_models_are_known_by_name() {
        for model in [
            "o1",
            "o3-mini",
            "o4-mini-2025",
            "gpt-5",
            "gpt-5.1",
            "gpt-5-nano",
            "gpt-10",
            "openai/gpt-5-mini",
        ] {
            assert!(is_reasoning_model(model), "{model}");
        }
        for model in ["gpt-4o", "gpt-4.1-mini", "gpt-3.5-turbo", "gpt-oss-20b", "olmo-2", "opus"] {
            assert!(!is_reasoning_model(model), "{model}");
        }
    }
}
