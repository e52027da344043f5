//! Azure OpenAI: OpenAI's rules, the key in a header of its own, the address from the
//! configuration (`https://NAME.openai.azure.com/openai/v1`; older ones end with the deployment
//! and need `query: { api-version: … }`).
//!
//! Rules follow the model's name: a deployment that is named otherwise has those of any model.

use super::openai;
use super::profile::Profile;

/// Azure.
pub const PROFILE: Profile =
    Profile { name: "azure", key_header: "api-key", rules: openai::rules, ..Profile::PLAIN };
