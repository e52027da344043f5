//! Names of things: one newtype per identifier, so that a run's id is never passed for a user's.
//!
//! Invariants:
//! - A generated id is `prefix_` and a UUIDv7 in 32 hexadecimal digits: sortable by birth, made
//!   from [`Env`](crate::env::Env) alone.
//! - An id read from outside is opaque text; whether it names something is the store's answer.

use serde::{Deserialize, Serialize};

use crate::env::Env;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub std::sync::Arc<str>);

        impl $name {
            /// What a generated id of this type begins with.
            pub const PREFIX: &'static str = $prefix;

            /// Makes a new id from the environment's clock and randomness.
            #[must_use]
            pub fn new(env: &dyn Env) -> Self {
                Self(format!(concat!($prefix, "_{}"), env.uuid().simple()).into())
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

ids! {
    /// One execution of a graph.
    RunId = "run";
    /// The history behind one conversation, or behind one run that has none: the text of the
    /// conversation's or the run's id.
    LogId = "log";
    /// What a user sees as one thread of talk.
    ConversationId = "conv";
    /// One message of a conversation or of a graph's `messages` channel.
    MessageId = "msg";
    /// A question of a run to a person.
    InterruptId = "int";
    /// Who owns a row.
    UserId = "user";
    /// One thing sent to a log: sending the same id twice is sending it once.
    InputId = "in";
    /// One process that drives logs.
    WorkerId = "worker";
}

impl From<&ConversationId> for LogId {
    fn from(id: &ConversationId) -> Self {
        Self(id.0.clone())
    }
}

impl From<&RunId> for LogId {
    fn from(id: &RunId) -> Self {
        Self(id.0.clone())
    }
}
