//! What became of an input: the word of the one writer of its log, stored together with what the
//! input changed.

use serde::{Deserialize, Serialize};

use crate::id::{InputId, InterruptId};

/// What became of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did what it asks for.
    Taken,
    /// It came too late or does not fit; nothing of it was done.
    Refused(Refusal),
}

impl Verdict {
    /// Why it was refused, if it was.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Taken => None,
            Self::Refused(why) => Some(why),
        }
    }
}

/// Why nothing became of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The run has ended.
    #[error("the run has ended")]
    Ended,
    /// The run is queued or goes on, and only a run that waits can do this.
    #[error("the run goes on")]
    GoesOn,
    /// A question that it answers is open no more: it has its answer, or its task has ended.
    #[error("{interrupt} is answered already")]
    Answered {
        /// Which.
        interrupt: InterruptId,
    },
    /// The run's log cannot be read.
    #[error("{why}")]
    Unreadable {
        /// Why, and what to do.
        why: String,
    },
    /// The run does not need attention.
    #[error("the run needs no attention")]
    NoAttention,
    /// The call that it names is open no more.
    #[error("the call {call} is not open")]
    CallClosed {
        /// Which, as `task#call`.
        call: String,
    },
    /// The state cannot be changed like that.
    #[error("the state cannot be changed: {why}")]
    Edit {
        /// Why.
        why: String,
    },
    /// The run does not fit the graph that it was to move to.
    #[error("the run does not fit the graph: {why}")]
    Migration {
        /// The first thing that does not fit.
        why: String,
    },
}

/// An input that is read and decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// Which.
    pub input: InputId,
    /// What became of it.
    pub verdict: Verdict,
}

impl Consumed {
    /// One that did what it asks for.
    #[must_use]
    pub fn taken(input: InputId) -> Self {
        Self { input, verdict: Verdict::Taken }
    }
}
