//! What the vertices of a graph do, and the models they talk to.
//!
//! | module | holds |
//! |---|---|
//! | [`kinds`] | node kinds: `llm`, `agent`, `tools`, `tool`, `set` |
//! | [`providers`] | model providers over chat completions and Anthropic's Messages, and the mock |
//! | [`http`] | the one way out to the network |
//! | [`guard`] | which addresses that way may lead to |
//!
//! Absent on purpose: tools (`plugins`), storage and configuration files (`server`).

pub mod guard;
pub mod http;
pub mod kinds;
pub mod providers;
