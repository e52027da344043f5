//! Who waits for something to happen to a run or to an input, by its id.

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use foldhash::HashMap;
use tokio::sync::Notify;

/// Ids that are waited for from which on those are swept that nobody waits for any more.
const SWEPT: usize = 1024;

/// Who waits, by id.
pub(crate) struct Waiters<K>(Mutex<HashMap<K, Weak<Notify>>>);

impl<K> Default for Waiters<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Waiters<K> {
    /// What tells that it has happened.
    pub(crate) fn of(&self, id: &K) -> Arc<Notify> {
        let mut all = self.all();
        if let Some(waiting) = all.get(id).and_then(Weak::upgrade) {
            return waiting;
        }
        if all.len() >= SWEPT && all.len().is_power_of_two() {
            all.retain(|_, waiting| waiting.strong_count() > 0);
        }
        let waiting = Arc::new(Notify::new());
        all.insert(id.clone(), Arc::downgrade(&waiting));
        waiting
    }

    /// Says that it has happened.
    pub(crate) fn tell(&self, id: &K) {
        let waiting = self.all().remove(id).and_then(|waiting| waiting.upgrade());
        if let Some(waiting) = waiting {
            waiting.notify_waiters();
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<K, Weak<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
