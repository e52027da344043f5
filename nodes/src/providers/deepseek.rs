//! DeepSeek (api-docs.deepseek.com, November 2026): `deepseek-flash`, `deepseek-v4-pro`.
//!
//! Thinking is on by default and stays on, except where a tool is forced (wire facts 15–17).
//! Temperature is sent although a thinking model ignores it: it counts once thinking is off.
//! `deepseek-v4-pro` reads text alone (wire fact 14).

use exile_engine::model::Effort;

use super::profile::{Echo, Json, Profile, Rules, Thinking, ThinkingOff};

/// DeepSeek.
pub const PROFILE: Profile = Profile {
    name: "deepseek",
    base_url: "https://api.deepseek.com",
    key_variable: "DEEPSEEK_API_KEY",
    rules: |model| Rules { images: !model.contains("-pro"), ..RULES },
    ..Profile::PLAIN
};

/// Also for DeepSeek's models behind other servers.
pub(super) const RULES: Rules = Rules {
    thinking: Thinking::Switch,
    efforts: &[Effort::None, Effort::Low, Effort::High, Effort::Max],
    reasoning: Echo::Always,
    thinking_off: ThinkingOff::Forced,
    json: Json::Object,
    ..Rules::PLAIN
};
