//! What every surface shares of runs: beginning them, answering them, reading what they did.
//!
//! | file | holds |
//! |---|---|
//! | `create.rs`, `input.rs` | from a request to a run; its input, checked |
//! | `business.rs` | which business a request belongs to |
//! | `resume.rs`, `interrupts.rs` | answers to a run's questions; what it waits for |
//! | `verdict.rs`, `conflict.rs` | what is sent to a run, and what its engine says to it; why it cannot do it |
//! | `idempotency_key.rs` | ids that are the same when a request is sent again |
//! | `disconnect.rs` | a caller that leaves |
//! | `events.rs`, `speakers.rs` | what a run has done, a part at a time; what it says, in order |
//! | `diff.rs` | what changed between two checkpoints |
//! | `error.rs` | why something of this is refused |
//!
//! Absent on purpose: HTTP. Nothing here names `axum` or a status code, so that every surface can
//! say in its own words what is refused.

pub mod business;
mod conflict;
pub mod create;
pub mod diff;
pub mod disconnect;
mod error;
pub mod events;
mod idempotency_key;
pub mod input;
pub mod interrupts;
pub mod resume;
pub mod speakers;
pub mod verdict;

use std::sync::Arc;

use exile_engine::bundle::Catalog;
use exile_engine::env::Env;
use exile_engine::id::UserId;
use exile_engine::model::meter::Payer;
use exile_engine::run::engine::Engine;

use crate::library::Current;
use crate::store::Store;
use crate::usage::UsageMeter;
pub use conflict::RunConflict;
pub use error::RunsError;
pub use idempotency_key::IdempotencyKey;

/// The parts of a server that runs are begun, answered and read with.
#[derive(Clone, Copy)]
pub struct Runs<'a> {
    /// Rows.
    pub store: &'a Store,
    /// Drives runs.
    pub engine: &'a Arc<Engine>,
    /// Graphs and skills.
    pub library: &'a Current,
    /// Node kinds, tools and models.
    pub catalog: &'a Catalog,
    /// Clock, ids, randomness.
    pub env: &'a dyn Env,
    /// Quotas and usage.
    pub usage: &'a UsageMeter,
    /// Bytes that a page of events may have.
    pub page_bytes: usize,
}

/// Who asks for a run, and pays for it.
#[derive(Clone, Debug)]
pub struct Requester<'a> {
    /// Whose the run is.
    pub owner: &'a UserId,
    /// The id of the key whose quota it takes from, if the request came with a key.
    pub quota_key: Option<String>,
    /// The businesses that the request is bound to; none: it is free to name one.
    pub businesses: &'a [String],
    /// Whether an administrator asks.
    pub is_admin: bool,
}

impl Requester<'_> {
    /// Who pays for what is asked of models in the name of `business`, outside of runs.
    #[must_use]
    pub fn payer(&self, business: Option<String>) -> Payer {
        let (owner, key) = (self.owner.clone(), self.quota_key.clone());
        Payer { owner, key, business, graph: None, run: None }
    }
}
