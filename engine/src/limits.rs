//! How much an installation admits. Every bound stands here under the name that it has below
//! `limits` in `exile.yaml`, with a default that real documents fit into.
//!
//! Absent on purpose: limits of one graph (`limits` in its own file) and limits of sockets, which
//! belong to the server.

use crate::json::Bounds;

/// Bounds of everything that graphs, tools and models hand to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `nesting` and `values`: JSON from outside, and every value that is written to a channel.
    pub json: Bounds,
    /// `tool_result`: bytes of a tool's answer that reach a model or a record; what is longer is
    /// cut.
    pub tool_result: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { json: Bounds::DEFAULT, tool_result: 64 * 1024 }
    }
}
