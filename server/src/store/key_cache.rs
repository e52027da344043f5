//! Keys that were shown lately, by the digests of their secrets: a request need not wait for a row.
//!
//! Invariant: what was read before a key or a user changed is never kept after the change. They
//! change in this process alone, which holds the home.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::keys::KeyOwner;

/// As many keys as are kept; of more, all are looked up again.
const KEPT: usize = 4096;

#[derive(Default)]
pub(super) struct KeyCache(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// How often a key or a user changed.
    changes: u64,
    keys: HashMap<Vec<u8>, KeyOwner>,
}

impl KeyCache {
    /// The lock guards whole keys: nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key, if it is kept, and how often something changed until now.
    pub(super) fn get(&self, digest: &[u8]) -> (Option<KeyOwner>, u64) {
        let known = self.lock();
        (known.keys.get(digest).cloned(), known.changes)
    }

    /// Keeps what was read when as much had changed as `changes` says.
    pub(super) fn keep(&self, changes: u64, digest: Vec<u8>, owner: KeyOwner) {
        let mut known = self.lock();
        if known.changes != changes {
            return;
        }
        if known.keys.len() >= KEPT {
            known.keys.clear();
        }
        known.keys.insert(digest, owner);
    }

    /// A key or a user has changed: everything is looked up again, since the keys that a key made
    /// depend on it.
    pub(super) fn forget(&self) {
        let mut known = self.lock();
        known.changes += 1;
        known.keys.clear();
    }
}
