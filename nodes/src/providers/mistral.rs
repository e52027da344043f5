//! Mistral. It refuses fields that it does not know and ids of other lengths, sends usage without
//! being asked, and answers nothing to a conversation that ends with its own words.

use exile_engine::model::Effort;

use super::profile::{CallIds, Echo, Json, Profile, Rules};

/// Mistral.
pub const PROFILE: Profile = Profile {
    name: "mistral",
    key_variable: "MISTRAL_API_KEY",
    rules: |model| {
        let reasoning = model.contains("magistral") || model.contains("medium");
        Rules {
            efforts: if reasoning { &[Effort::None, Effort::High] } else { &[] },
            reasoning: Echo::No,
            json: Json::Schema,
            call_ids: CallIds::Nine,
            asks_usage: false,
            ends_with_user: true,
            ..Rules::PLAIN
        }
    },
    ..Profile::PLAIN
};
