//! Why something that is asked of runs is refused.

use exile_engine::id::RunId;
use exile_engine::journal::JournalError;
use exile_engine::model::meter::Exceeded;
use exile_engine::run::record::RunError;
use exile_engine::state::WriteError;

use super::RunConflict;
use crate::store::StoreError;
use crate::usage::Refused;

/// Why something that is asked of runs is refused. Each surface says it in its own words.
#[derive(Debug, thiserror::Error)]
pub enum RunsError {
    /// The run is not there, or not its caller's.
    #[error("there is no such run")]
    NotFound,
    /// A name stands for nothing.
    #[error("no {what} is named `{name}`")]
    UnknownName {
        /// `graph`, `skill`, `model` or `interrupt`.
        what: &'static str,
        /// As given.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The graph's file has errors, so that it cannot run.
    #[error("graph `{graph}` does not load: {first}")]
    GraphBroken {
        /// Its name.
        graph: String,
        /// The first finding.
        first: String,
    },
    /// The graph takes no `messages`, so it cannot serve a conversation.
    #[error("graph `{0}` cannot hold a conversation")]
    NotConversational(String),
    /// A caller may not set this channel.
    #[error("graph `{graph}` has no channel `{channel}` that can be set")]
    UnknownChannel {
        /// The field that sets it: `input` or `values`.
        under: &'static str,
        /// The graph.
        graph: String,
        /// As given.
        channel: String,
        /// What may be set.
        known: Vec<String>,
    },
    /// The input does not fit the graph's channels.
    #[error(transparent)]
    Input(#[from] WriteError),
    /// A value has the wrong form.
    #[error("{what}")]
    Field {
        /// Where, e.g. `input.messages[0]`.
        field: String,
        /// What is wrong with it.
        what: String,
    },
    /// The business is not the requester's to name.
    #[error("the business `{name}` is not the requester's to name")]
    Business {
        /// As given.
        name: String,
        /// Those that the requester is bound to.
        known: Vec<String>,
    },
    /// A quota is used up.
    #[error("{0}")]
    Quota(Box<Exceeded>),
    /// Another run of the conversation has not ended.
    #[error("a run of this conversation has not ended")]
    Active,
    /// The run stands where this cannot be done.
    #[error(transparent)]
    Conflict(#[from] RunConflict),
    /// What was sent to the run is stored; nothing became of it yet.
    #[error("run {0} has not come to what was sent to it")]
    Undecided(RunId),
    /// The run that was waited for did not finish.
    #[error("{}", .error.message)]
    Failed {
        /// Which.
        run: RunId,
        /// Why.
        error: Box<RunError>,
    },
    /// Somebody stopped the run that was waited for.
    #[error("run {0} was cancelled")]
    Cancelled(RunId),
    /// Records could not be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Rows could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A defect of exile.
    #[error("{0}")]
    Internal(String),
}

impl From<Refused> for RunsError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Exceeded(exceeded) => Self::Quota(exceeded),
            Refused::Store(error) => Self::Store(error),
        }
    }
}
