//! Servers that people run themselves: Ollama (its `/v1`), vLLM and llama.cpp. They hold a model
//! to a schema by a grammar, which leaves no room for tool calls in the same answer.

use super::profile::{Json, Profile, Rules};

/// Ollama.
pub const OLLAMA: Profile = Profile { name: "ollama", rules, ..Profile::PLAIN };
/// vLLM.
pub const VLLM: Profile = Profile { name: "vllm", rules, ..Profile::PLAIN };
/// llama.cpp.
pub const LLAMA_CPP: Profile = Profile { name: "llamacpp", rules, ..Profile::PLAIN };

fn rules(_: &str) -> Rules {
    Rules { json: Json::SchemaWithoutTools, ..Rules::PLAIN }
}
