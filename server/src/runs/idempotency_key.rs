//! Ids of what a request begins: the same ones whenever the request is sent again under its key.

use std::sync::Arc;

use exile_engine::env::Env;
use exile_engine::id::{InputId, MessageId, RunId};
use exile_engine::journal::BlobId;

use crate::store::KeyUse;

/// What makes the ids of a request the same as those of an earlier one; empty if the request came
/// without a key.
#[derive(Clone, Debug, Default)]
pub struct IdempotencyKey(Option<Arc<str>>);

impl IdempotencyKey {
    /// Of one use of a key: whoever sends that request again under the same generation gets the
    /// same ids, and nobody else does.
    pub(crate) fn of(used: &KeyUse, generation: &str) -> Self {
        let KeyUse { owner, key, route, body } = used;
        let text = format!("{owner}\0{route}\0{key}\0{generation}\0{body}");
        let digest = BlobId::of(text.as_bytes()).0;
        Self(Some(digest.trim_start_matches("sha256:").into()))
    }

    /// A new run's id: derived from the key, if there is one.
    #[must_use]
    pub fn run_id(&self, env: &dyn Env) -> RunId {
        match &self.0 {
            None => RunId::new(env),
            Some(digest) => RunId::from(format!("{}_{}", RunId::PREFIX, &digest[..32])),
        }
    }

    /// The id of what is sent to a run: derived from the key, if there is one.
    #[must_use]
    pub fn input_id(&self, env: &dyn Env) -> InputId {
        match &self.0 {
            None => InputId::new(env),
            Some(digest) => InputId::from(format!("{}_{}", InputId::PREFIX, &digest[..32])),
        }
    }

    /// The id of the message that the request sends: derived from the key, if there is one.
    #[must_use]
    pub fn message_id(&self, env: &dyn Env) -> MessageId {
        match &self.0 {
            None => MessageId::new(env),
            Some(digest) => MessageId::from(format!("{}_{}", MessageId::PREFIX, &digest[..32])),
        }
    }

    /// Whether the request may be a repetition.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        self.0.is_some()
    }
}
