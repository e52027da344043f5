//! OpenRouter: models of many providers, `VENDOR/MODEL`.
//!
//! Reasoning comes as `reasoning`, and with its signatures as `reasoning_details`, which return
//! verbatim. Models of OpenAI are held to a schema; of others it depends on who serves them, so
//! that their answers are checked here.

use exile_engine::model::Effort;

use super::openai;
use super::profile::{Echo, Json, Profile, Rules, Temperature, Thinking};

/// OpenRouter.
pub const PROFILE: Profile = Profile {
    name: "openrouter",
    key_variable: "OPENROUTER_API_KEY",
    rules: |model| {
        let own = openai::rules(model);
        let enforced = model.starts_with("openai/");
        Rules {
            json: if enforced { Json::Schema } else { Json::Told },
            temperature: if enforced { own.temperature } else { Temperature::Always },
            thinking: Thinking::Nested,
            efforts: &[
                Effort::None,
                Effort::Minimal,
                Effort::Low,
                Effort::Medium,
                Effort::High,
                Effort::Max,
            ],
            reasoning: Echo::No,
            ..Rules::PLAIN
        }
    },
    ..Profile::PLAIN
};
