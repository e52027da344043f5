//! Node kinds. New one: a file that implements [`NodeKind`], a line in [`all`].
//!
//! | file | kind |
//! |---|---|
//! | `llm.rs` | `llm`: one question to a model |
//! | `agent.rs` | `agent`: a subgraph `llm → tools → llm` |
//! | `tools.rs` | `tools`: runs the calls that a model asked for |
//! | `tool.rs` | `tool`: one named call |
//! | `set.rs` | `set`: channels out of expressions |
//! | `map.rs` | `map`: a node once for each item of a list |
//! | `graph.rs` | `graph`: a graph inside a node |
//! | `human.rs` | `human`: a question to a person |
//! | `summarize.rs` | `summarize`: a summary in the place of old messages |
//! | `ask.rs` | what `llm` and `agent` share: skill, model, texts and tools of a question |
//! | `history.rs` | what a model is sent of a conversation |

mod agent;
mod ask;
mod graph;
mod history;
mod human;
mod llm;
mod map;
mod set;
mod summarize;
mod tool;
mod tools;

use std::sync::Arc;

use exile_engine::node::{NodeKind, NodeKinds};

/// Every kind there is.
#[must_use]
pub fn all() -> NodeKinds {
    let kinds: [Arc<dyn NodeKind>; 9] = [
        Arc::new(llm::Kind),
        Arc::new(agent::Kind),
        Arc::new(tools::Kind),
        Arc::new(tool::Kind),
        Arc::new(set::Kind),
        Arc::new(map::Kind),
        Arc::new(graph::Kind),
        Arc::new(human::Kind),
        Arc::new(summarize::Kind),
    ];
    NodeKinds(kinds.to_vec())
}

/// The channel that a conversation is held in.
const MESSAGES: &str = "messages";
