//! OpenAI's chat completions.
//!
//! Reasoning models refuse `max_tokens`, and `temperature` unless their thinking is switched off,
//! which GPT-5.1 and later allow (wire fact 10). The role stays `system`: they take it as
//! `developer`.

use exile_engine::model::Effort;

use super::profile::{Echo, Json, Profile, Rules, Temperature, ThinkingOff};

/// OpenAI.
pub const PROFILE: Profile = Profile {
    name: "openai",
    base_url: "https://api.openai.com/v1",
    key_variable: "OPENAI_API_KEY",
    rules,
    ..Profile::PLAIN
};

/// Also for OpenAI's models behind other servers.
pub(super) fn rules(model: &str) -> Rules {
    let version = generation(model);
    let plain = Rules { json: Json::Schema, reasoning: Echo::No, ..Rules::PLAIN };
    let Some(version) = version else { return Rules { efforts: &[], ..plain } };
    let switchable = version >= (5, 1);
    Rules {
        max_tokens: "max_completion_tokens",
        temperature: if switchable { Temperature::WithoutThinking } else { Temperature::Never },
        efforts: efforts(version),
        // GPT-5.6 and 6 answer 400 to tools unless thinking is off; later ones cannot switch it off.
        thinking_off: match version {
            (5, 6..) | (6, 0) => ThinkingOff::Tools,
            _ => ThinkingOff::Never,
        },
        ..plain
    }
}

/// What a reasoning model of that version can be told; its highest word is `xhigh` since 5.2.
fn efforts(version: (u32, u32)) -> &'static [Effort] {
    use Effort::{High, Low, Max, Medium, Minimal, None};
    match version {
        (0..=4, _) => &[Low, Medium, High],
        (5, 0) => &[Minimal, Low, Medium, High],
        (5, 1) => &[None, Low, Medium, High],
        _ => &[None, Low, Medium, High, Max],
    }
}

/// The version of a reasoning model, by its name: the o-series counts as 1 to 4 (`o3-mini`), GPT-5
/// and later as what they say (`gpt-5.1`, `openai/gpt-6`). `None`: it does not reason.
pub(super) fn generation(model: &str) -> Option<(u32, u32)> {
    let name = model.rsplit('/').next().unwrap_or(model);
    let number = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        Some((text[..end].parse::<u32>().ok()?, text[end..].to_owned()))
    };
    if let Some((series, _)) = name.strip_prefix('o').and_then(number) {
        return Some((series.min(4), 0));
    }
    let (major, rest) = number(name.strip_prefix("gpt-")?)?;
    let minor = rest.strip_prefix('.').and_then(number).map_or(0, |(minor, _)| minor);
    (major >= 5).then_some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::{Effort, Temperature, generation, rules};

    #[test]
    fn reasoning_models_are_known_by_name() {
        for (model, version) in [
            ("o1", (1, 0)),
            ("o3-mini", (3, 0)),
            ("o4-mini-2025", (4, 0)),
            ("gpt-5", (5, 0)),
            ("gpt-5.1", (5, 1)),
            ("gpt-5-nano", (5, 0)),
            ("gpt-10", (10, 0)),
            ("openai/gpt-5.2-mini", (5, 2)),
        ] {
            assert_eq!(generation(model), Some(version), "{model}");
        }
        for model in ["gpt-4o", "gpt-4.1-mini", "gpt-3.5-turbo", "gpt-oss-20b", "olmo-2", "opus"] {
            assert_eq!(generation(model), None, "{model}");
        }
    }

    #[test]
    fn fact_10_what_can_be_told_depends_on_the_version() {
        assert_eq!(rules("o3").effort(Effort::None), Some(Effort::Low));
        assert_eq!(rules("gpt-5").effort(Effort::None), Some(Effort::Minimal));
        assert_eq!(rules("gpt-5.1").effort(Effort::None), Some(Effort::None));
        assert_eq!(rules("gpt-5.1").effort(Effort::Max), Some(Effort::High));
        assert_eq!(rules("gpt-5.2").effort(Effort::Max), Some(Effort::Max));
        assert_eq!(rules("gpt-4.1").effort(Effort::High), None);
        assert_eq!(rules("gpt-5").temperature, Temperature::Never);
    }
}
