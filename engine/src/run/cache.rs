//! Results of nodes with `cache`, kept in the process.
//!
//! The key is what the node is (its YAML and its skill), what its run is pinned to and was told
//! (model, skill, system prompt), what the node reads of the state and besides (its conversation,
//! the failure that it handles), and whose run it is: a result never serves
//! another user. Absent on purpose: other processes and restarts, where the
//! node simply runs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::env::Env;
use crate::expr::{NodeFailure, Scope};
use crate::graph::{self, Graph};
use crate::id::{ConversationId, MessageId};
use crate::node::Done;
use crate::run::fold::RunState;
use crate::run::task::Task;
use crate::run::writes::holds_messages;

/// Results kept at most; the ones that have passed go first, then any.
const RESULTS_MAX: usize = 10_000;
/// Largest result that is kept, in bytes of JSON.
const BYTES_MAX: usize = 256 * 1024;

/// The results of one process.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    results: Mutex<HashMap<Key, Kept>>,
}

/// What a result stands for: a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

#[derive(Debug)]
struct Kept {
    done: Done,
    /// On the monotonic clock.
    until: Duration,
}

impl Key {
    /// The key of a task's result: what it reads of the state and of its scope.
    pub(crate) fn new(cache: &graph::Cache, task: &Task, scope: &Scope, run: &RunState) -> Self {
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        };
        add(cache.node.as_bytes());
        add(run.started.owner.as_str().as_bytes());
        add(run.bundle.0.as_bytes());
        add(serde_json::json!(run.started.options).to_string().as_bytes());
        for name in &cache.reads {
            let value = task.state.get(name).map(ToString::to_string).unwrap_or_default();
            add(name.as_bytes());
            add(value.as_bytes());
        }
        if cache.scope.contains(&"conversation") {
            let conversation = scope.conversation.as_ref().map(ConversationId::as_str);
            add(serde_json::json!(conversation).to_string().as_bytes());
        }
        if let Some(NodeFailure { code, message, node, item }) = scope.error.as_deref() {
            add(serde_json::json!([code, message, node, item]).to_string().as_bytes());
        }
        Self(hash.finalize().into())
    }
}

impl Cache {
    /// A result that may still be taken. Its messages get ids of their own: the same id would
    /// replace the message that was written before.
    pub(crate) fn get(&self, key: &Key, graph: &Graph, env: &dyn Env) -> Option<Done> {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = results.get(key).filter(|kept| env.monotonic() < kept.until)?;
        let mut done = kept.done.clone();
        for (name, value) in &mut done.writes {
            if holds_messages(graph, name) {
                rename(value, env);
            }
        }
        Some(done)
    }

    /// Keeps a result.
    pub(crate) fn put(&self, key: Key, done: &Done, keep: Duration, env: &dyn Env) {
        let bytes: usize = done.writes.values().map(|value| value.to_string().len()).sum();
        if bytes > BYTES_MAX {
            return;
        }
        let now = env.monotonic();
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        if results.len() >= RESULTS_MAX {
            results.retain(|_, kept| now < kept.until);
        }
        if results.len() >= RESULTS_MAX {
            results.clear();
        }
        results.insert(key, Kept { done: done.clone(), until: now.saturating_add(keep) });
    }
}

fn rename(value: &mut Value, env: &dyn Env) {
    match value {
        Value::Array(messages) => messages.iter_mut().for_each(|message| rename(message, env)),
        Value::Object(message) => {
            message.insert("id".into(), MessageId::new(env).as_str().into());
        }
        _ => {}
    }
}
