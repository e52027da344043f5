//! Results of nodes with `cache`, kept in the process.
//!
//! The key is what the node is (its YAML and its skill), what its run is pinned to and was told
//! (model, skill, system prompt), what the node reads of the state and besides (its conversation,
//! the failure that it handles), and whose run it is: a result never serves
//! another user. Together they take no more memory than `limits.cache` says. Absent on purpose: other processes and restarts, where the
//! node simply runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::env::Env;
use crate::expr::{NodeFailure, Scope};
use crate::graph;
use crate::id::{ConversationId, MessageId};
use crate::message::Message;
use crate::node::Done;
use crate::run::fold::RunState;
use crate::run::task::Task;
use crate::state::ChannelValue;

/// Results kept at most.
const RESULTS_MAX: usize = 10_000;
/// Largest result that is kept, in bytes of JSON.
const BYTES_MAX: usize = 256 * 1024;
/// What a result takes besides its values, about, in bytes.
const AROUND: usize = 256;

/// The results of one process.
#[derive(Debug)]
pub(crate) struct Cache {
    results: Mutex<Results>,
    /// Bytes that they may take in memory, about.
    limit: usize,
}

#[derive(Debug, Default)]
struct Results {
    kept: HashMap<Key, Kept>,
    /// Which ends when: those that have passed go first, then those with the least time left.
    ends: BTreeSet<(Duration, Key)>,
    /// What they take together.
    bytes: usize,
}

/// What a result stands for: a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key([u8; 32]);

#[derive(Debug)]
struct Kept {
    done: Done,
    /// On the monotonic clock.
    until: Duration,
    bytes: usize,
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
            let value = task.state.get(name).map(|value| value.to_json().to_string());
            let value = value.unwrap_or_default();
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

impl Results {
    fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.ends.remove(&(kept.until, *key));
            self.bytes -= kept.bytes;
        }
    }

    fn insert(&mut self, key: Key, kept: Kept) {
        self.remove(&key);
        self.bytes += kept.bytes;
        self.ends.insert((kept.until, key));
        self.kept.insert(key, kept);
    }
}

impl Cache {
    /// One whose results take at most so many bytes in memory, about.
    pub(crate) fn new(limit: usize) -> Self {
        Self { results: Mutex::default(), limit }
    }

    /// A result that may still be taken. Its messages get ids of their own: the same id would
    /// replace the message that was written before.
    pub(crate) fn get(&self, key: &Key, env: &dyn Env) -> Option<Done> {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = results.kept.get(key).filter(|kept| env.monotonic() < kept.until)?;
        let mut done = kept.done.clone();
        for (_, value) in done.writes.iter_mut() {
            if let ChannelValue::Messages(list) = value {
                *list = list.iter().map(|message| renamed(message, env)).collect();
            }
        }
        Some(done)
    }

    /// Keeps a result.
    pub(crate) fn put(&self, key: Key, done: &Done, keep: Duration, env: &dyn Env) {
        let written = done.writes.values().map(|value| value.to_json().to_string().len());
        let bytes: usize = written.sum();
        if bytes > BYTES_MAX {
            return;
        }
        let name = |(name, value): (&Arc<str>, &ChannelValue)| name.len() + value.weight();
        let bytes = AROUND + done.writes.iter().map(name).sum::<usize>();
        if bytes > self.limit {
            return;
        }
        let until = env.monotonic().saturating_add(keep);
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.insert(key, Kept { done: done.clone(), until, bytes });
        while results.bytes > self.limit || results.kept.len() > RESULTS_MAX {
            let Some((_, first)) = results.ends.first().copied() else { break };
            results.remove(&first);
        }
    }
}

fn renamed(message: &Message, env: &dyn Env) -> Arc<Message> {
    Arc::new(Message { id: MessageId::new(env), ..message.clone() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::env::StepEnv;
    use crate::json;

    fn key(n: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        Key(key)
    }

    fn done(text: &str) -> Done {
        let writes = std::iter::once(("x".into(), json!(text).into())).collect();
        Done { writes, goto: None }
    }

    fn keys(cache: &Cache) -> Vec<usize> {
        let results = cache.results.lock().unwrap();
        let mut kept: Vec<usize> =
            (0..20_000).filter(|n| results.kept.contains_key(&key(*n))).collect();
        kept.sort_unstable();
        assert_eq!(results.kept.len(), results.ends.len());
        assert_eq!(results.bytes, results.kept.values().map(|kept| kept.bytes).sum::<usize>());
        kept
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes_and_what_ends_first_goes_first() {
        let text = "t".repeat(3000);
        let size = |text: &str| AROUND + "x".len() + json::weigh(&json!(text));
        let (env, cache) = (StepEnv::new(), Cache::new(3 * size(&text) + size("small")));
        let minutes = Duration::from_mins;
        for (n, keep) in [(0, 50), (1, 10), (2, 40)] {
            cache.put(key(n), &done(&text), minutes(keep), &env);
        }
        assert_eq!(keys(&cache), [0, 1, 2]);
        cache.put(key(3), &done(&text), minutes(30), &env);
        assert_eq!(keys(&cache), [0, 2, 3], "the one with the least time left made way");
        cache.put(key(4), &done("small"), minutes(1), &env);
        assert_eq!(keys(&cache), [0, 2, 3, 4], "there is room for it");
        env.advance(minutes(5));
        cache.put(key(5), &done("small"), minutes(60), &env);
        assert_eq!(keys(&cache), [0, 2, 3, 5], "what has passed goes before all that has not");
        cache.put(key(6), &done(&"t".repeat(20_000)), minutes(60), &env);
        assert_eq!(keys(&cache), [0, 2, 3, 5], "nothing makes way for what has no room at all");
        for _ in 0..10 {
            cache.put(key(0), &done(&text), minutes(60), &env);
        }
        assert_eq!(keys(&cache), [0, 2, 3, 5], "one that is worked out again counts once");
    }

    #[test]
    fn small_results_are_bounded_in_number_and_a_cache_without_room_keeps_nothing() {
        let (env, cache) = (StepEnv::new(), Cache::new(usize::MAX));
        for n in 0..RESULTS_MAX + 5 {
            let keep = Duration::from_secs(1000 + n as u64);
            cache.put(key(n), &done("small"), keep, &env);
        }
        let kept = keys(&cache);
        assert_eq!((kept.len(), kept[0]), (RESULTS_MAX, 5));
        let none = Cache::new(0);
        none.put(key(1), &done(""), Duration::from_mins(1), &env);
        assert_eq!(keys(&none), [0_usize; 0]);
    }
}
