//! Node kinds. New one: a file that implements [`NodeKind`], a line in [`all`].
//!
//! | file | kind |
//! |---|---|
//! | `llm.rs` | `llm`: one question to a model |
//! | `agent.rs` | `agent`: a subgraph `llm → tools → llm` |
//! | `tools.rs` | `tools`: runs the calls that a model asked for |
//! | `tool.rs` | `tool`: one named call |
//! | `set.rs` | `set`: channels out of expressions |
//! | `ask.rs` | what `llm` and `agent` share: skill, model, texts and tools of a question |

mod agent;
mod ask;
mod llm;
mod set;
mod tool;
mod tools;

use std::sync::Arc;

use exile_engine::node::{NodeKind, NodeKinds};

/// Every kind there is.
#[must_use]
pub fn all() -> NodeKinds {
    let kinds: [Arc<dyn NodeKind>; 5] = [
        Arc::new(llm::Kind),
        Arc::new(agent::Kind),
        Arc::new(tools::Kind),
        Arc::new(tool::Kind),
        Arc::new(set::Kind),
    ];
    NodeKinds(kinds.to_vec())
}

/// The channel that a conversation is held in.
const MESSAGES: &str = "messages";
