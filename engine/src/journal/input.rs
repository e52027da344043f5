//! What is sent to a log from outside: starts, forks, answers, and what people say of runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::BlobId;
use crate::id::{ConversationId, InterruptId, LogId, RunId, UserId};
use crate::message::Message;
use crate::run::record::{Durability, Number, RunOptions};

/// What is sent to a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Start a run.
    Start(Box<StartRun>),
    /// Go on from an earlier number of a run, as another run.
    Fork(Box<ForkRun>),
    /// End a run, whether it has begun or not.
    Cancel {
        /// Which.
        run: RunId,
    },
    /// Answer questions of a run.
    Resume(Box<ResumeRun>),
    /// Say what becomes of a run that needs attention.
    Resolve(ResolveRun),
    /// Change the state of a run that waits, or that a fork leaves to be changed.
    Edit(EditRun),
    /// Move a run to another bundle, whose blob is stored before the input is sent.
    Migrate {
        /// Which run.
        run: RunId,
        /// To what.
        bundle: BlobId,
    },
}

impl Input {
    /// The run that it is for.
    #[must_use]
    pub fn run(&self) -> &RunId {
        match self {
            Self::Start(start) => &start.run,
            Self::Fork(fork) => &fork.run,
            Self::Resume(resume) => &resume.run,
            Self::Resolve(resolve) => &resolve.run,
            Self::Edit(edit) => &edit.run,
            Self::Cancel { run } | Self::Migrate { run, .. } => run,
        }
    }

    /// Who owns the run that it begins; `None`: it begins none.
    #[must_use]
    pub fn owner(&self) -> Option<&UserId> {
        match self {
            Self::Start(start) => Some(&start.owner),
            Self::Fork(fork) => Some(&fork.owner),
            Self::Cancel { .. }
            | Self::Resume(_)
            | Self::Resolve(_)
            | Self::Edit(_)
            | Self::Migrate { .. } => None,
        }
    }
}

/// What becomes of a run that is sent to a log whose run goes on or waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IfActive {
    /// It is not taken ([`Sent::Busy`](super::Sent::Busy)).
    Reject,
    /// It begins when those before it have ended.
    #[default]
    Enqueue,
    /// The run that goes on is cancelled and keeps what it did; those that are queued before this
    /// one are cancelled as they begin.
    Interrupt,
    /// The run that goes on is cancelled, with those that are queued before this one, and this one
    /// begins where that one began.
    Rollback,
}

/// Answers to questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResumeRun {
    /// Which run.
    pub run: RunId,
    /// By question.
    pub answers: BTreeMap<InterruptId, serde_json::Value>,
    /// Who answers.
    pub by: UserId,
    /// The message of the conversation that is the (one) answer; it joins the conversation.
    pub message: Option<Box<Message>>,
}

/// What a person says of a run that needs attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResolveRun {
    /// Which run.
    pub run: RunId,
    /// The open call, as `task#call`; `None`: every open call, or the run as a whole.
    pub call: Option<String>,
    /// What becomes of it.
    pub action: Resolution,
    /// Who says so.
    pub by: UserId,
}

/// What becomes of an open call, or of a run that cannot go on by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Resolution {
    /// The call happened, and gave this.
    Done {
        /// What the tool would have answered.
        output: serde_json::Value,
    },
    /// The call is made again under its key; the run goes on.
    Retry,
    /// The call failed; a run without an open call fails.
    Failed {
        /// Why, for the model and the reader of the run.
        message: String,
    },
}

/// A change of state by a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EditRun {
    /// Which run.
    pub run: RunId,
    /// Path of the task whose subgraph is changed; empty for the run's own graph.
    #[serde(default)]
    pub path: String,
    /// The node in whose name: what follows it is live then. `None`: what is live stays.
    pub as_node: Option<String>,
    /// Channel → value; merged by the channels' reducers, as a node's writes are.
    pub writes: serde_json::Map<String, serde_json::Value>,
    /// Who changes it.
    pub by: UserId,
}

/// All that a fork needs to begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForkRun {
    /// Its id.
    pub run: RunId,
    /// The run that it is forked from.
    pub from: RunId,
    /// The log that holds that run: of another log than the one that the input is sent to, that
    /// one begins as a fork of it.
    pub log: LogId,
    /// The number that it goes on from.
    pub at: Number,
    /// As of the run it is forked from.
    pub graph: Arc<str>,
    /// As of the run it is forked from.
    pub bundle: BlobId,
    /// Who owns it.
    pub owner: UserId,
    /// As of the run it is forked from.
    pub conversation: Option<ConversationId>,
    /// A change of the state before it goes on.
    pub edit: Option<Box<EditRun>>,
    /// W3C `traceparent` of the caller.
    pub traceparent: Option<String>,
}

/// All that a run needs to begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartRun {
    /// Its id.
    pub run: RunId,
    /// The graph's name.
    pub graph: Arc<str>,
    /// What it is pinned to; the blob is stored before the input is sent.
    pub bundle: BlobId,
    /// Who owns it.
    pub owner: UserId,
    /// The conversation it is a turn of.
    pub conversation: Option<ConversationId>,
    /// What nodes without keys of their own use.
    pub options: RunOptions,
    /// Channel → value; message values are whole messages.
    pub input: serde_json::Map<String, serde_json::Value>,
    /// W3C `traceparent` of the caller.
    pub traceparent: Option<String>,
    /// What becomes of it while another run of the log goes on.
    #[serde(default)]
    pub if_active: IfActive,
    /// When its records are stored; else as its graph says.
    #[serde(default)]
    pub durability: Option<Durability>,
}
