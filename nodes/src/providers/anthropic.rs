//! Anthropic's Messages: a protocol of its own, with the same HTTP, timeouts, secrets, framing of
//! events and assembler of calls as the chat protocol.
//!
//! | file | what it does |
//! |---|---|
//! | `anthropic/request.rs` | from a request to a body |
//! | `anthropic/assemble.rs` | from events to an answer |
//!
//! Thinking is off unless `reasoning` asks for it. Its blocks are signed and return as they came,
//! to the model that wrote them (wire fact 25).

pub(crate) mod assemble;
pub(crate) mod request;

use exile_engine::model::Effort;

use super::profile::{
    Echo, Json, Profile, Protocol, Rules, Schemas, Temperature, Thinking, ThinkingOff,
};

/// Anthropic.
pub const PROFILE: Profile = Profile {
    name: "anthropic",
    protocol: Protocol::Anthropic,
    base_url: "https://api.anthropic.com",
    key_variable: "ANTHROPIC_API_KEY",
    key_header: "x-api-key",
    rules,
};

/// The revision of the protocol that is spoken.
pub(crate) const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

/// Where answers are asked for, below the address as it is configured: with `/v1` or without.
pub(crate) fn path(base_url: &str) -> &'static str {
    if base_url.trim_end_matches('/').ends_with("/v1") { "messages" } else { "v1/messages" }
}

fn rules(model: &str) -> Rules {
    let version = version(model);
    let opus = model.contains("opus");
    let reasoning = version >= (3, 7);
    let adaptive = version >= (4, 6);
    let enforces = version >= (4, 5) || (opus && version >= (4, 1));
    Rules {
        max_tokens: "max_tokens",
        default_max_tokens: Some(match version {
            (0..=2, _) | (3, 0..=4) => 4096,
            (3, 5 | 6) => 8192,
            _ => 32_000,
        }),
        temperature: if opus && version >= (4, 7) {
            Temperature::Never
        } else {
            Temperature::UnlessThinking
        },
        thinking: if adaptive { Thinking::Adaptive } else { Thinking::Budget },
        efforts: match (reasoning, adaptive, opus) {
            (false, ..) => &[],
            (true, true, false) => &[Effort::None, Effort::Low, Effort::Medium, Effort::High],
            _ => &[Effort::None, Effort::Low, Effort::Medium, Effort::High, Effort::Max],
        },
        reasoning: Echo::No,
        thinking_off: ThinkingOff::Forced,
        json: if enforces { Json::StrictSchema } else { Json::Told },
        schemas: Schemas::ObjectRoot,
        asks_usage: false,
        ends_with_user: true,
        ..Rules::PLAIN
    }
}

/// The version in a model's name: `claude-opus-4-5-20251101`, `claude-3-7-sonnet-latest`. One that
/// names none is taken for a later one.
fn version(model: &str) -> (u32, u32) {
    let numbers = |part: &str| part.len() <= 2 && part.bytes().all(|c| c.is_ascii_digit());
    let mut parts = model.split(['-', '.', '@']).filter(|part| !part.is_empty());
    let Some(major) = parts.by_ref().find(|part| numbers(part)) else { return (u32::MAX, 0) };
    let minor = parts.next().filter(|part| numbers(part)).and_then(|part| part.parse().ok());
    (major.parse().unwrap_or(u32::MAX), minor.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{Json, Thinking, path, rules, version};

    #[test]
    fn versions_are_known_by_name() {
        for (model, expected) in [
            ("claude-3-haiku-20240307", (3, 0)),
            ("claude-3-5-sonnet-latest", (3, 5)),
            ("claude-sonnet-4-20250514", (4, 0)),
            ("claude-opus-4-5-20251101", (4, 5)),
            ("claude-sonnet-4-6", (4, 6)),
            ("claude-sonnet-5", (5, 0)),
            ("claude-next", (u32::MAX, 0)),
        ] {
            assert_eq!(version(model), expected, "{model}");
        }
        assert_eq!(rules("claude-3-haiku-20240307").default_max_tokens, Some(4096));
        assert_eq!(rules("claude-sonnet-4-6").thinking, Thinking::Adaptive);
        assert_eq!(rules("claude-haiku-4-5").thinking, Thinking::Budget);
        assert_eq!(rules("claude-sonnet-4-0").json, Json::Told);
    }

    #[test]
    fn the_address_may_end_with_its_version_or_not() {
        assert_eq!(path("https://api.anthropic.com"), "v1/messages");
        assert_eq!(path("http://127.0.0.1:9/v1/"), "messages");
    }
}
