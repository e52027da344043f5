//! Tools of exile: what a model or a graph can call.
//!
//! | module | what it holds |
//! |---|---|
//! | [`native`] | tools written in Rust: `calculator`, `current_time`, `http_get` |
//!
//! Invariants:
//! - A tool reaches the network only through [`exile_engine::http::Http`], behind the outbound
//!   guard, and the clock only through its [`ToolCx`](exile_engine::tool::ToolCx).
//! - Whatever a model passes in ends in an answer or a typed error, never in a panic.
//!
//! Absent on purpose: model providers and node kinds (`nodes/`), which this crate never sees.

pub mod native;
