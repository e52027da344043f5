//! The places in which logs are driven, and who holds how many of them.
//!
//! Invariant: who holds three times as many as are free gets none of these, so that no owner's
//! runs, however many wait for their providers, keep another's from beginning. One owner leaves a
//! quarter free, and each further one who takes what there is a quarter of that. These are dynamic
//! thresholds as buffers of switches have them (Choudhury and Hahne, IEEE/ACM Transactions on
//! Networking 6(2), 1998).

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

use crate::id::UserId;

/// How many times the free places an owner may hold.
const SHARE: usize = 3;

/// Drives that go on.
pub(super) struct Places {
    most: usize,
    drives: JoinSet<()>,
    owners: HashMap<Id, UserId>,
    held: HashMap<UserId, usize>,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { most, drives: JoinSet::new(), owners: HashMap::new(), held: HashMap::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.drives.len() >= self.most
    }

    /// Owners who get no further place while so few are free.
    pub(super) fn hold_enough(&self) -> Vec<UserId> {
        let enough = SHARE * self.most.saturating_sub(self.drives.len());
        if self.drives.len() < enough {
            return Vec::new();
        }
        let held = self.held.iter().filter(|(_, held)| **held >= enough);
        held.map(|(owner, _)| owner.clone()).collect()
    }

    /// Gives a place to a drive.
    pub(super) fn take(
        &mut self,
        owner: Option<UserId>,
        drive: impl Future<Output = ()> + Send + 'static,
    ) {
        let id = self.drives.spawn(drive).id();
        if let Some(owner) = owner {
            *self.held.entry(owner.clone()).or_default() += 1;
            self.owners.insert(id, owner);
        }
    }

    /// Waits for a drive to end; `false`: none goes on.
    pub(super) async fn left(&mut self) -> bool {
        let Some(ended) = self.drives.join_next_with_id().await else { return false };
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        if let Some(owner) = self.owners.remove(&id)
            && let Some(held) = self.held.get_mut(&owner)
        {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&owner);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_holds_most_gets_none_of_the_last_places() {
        let mut places = Places::new(16);
        let [ann, bob] = ["ann", "bob"].map(UserId::from);
        for n in 0..12 {
            assert_eq!(places.hold_enough(), [], "{n}");
            places.take(Some(ann.clone()), std::future::pending());
        }
        assert_eq!((places.hold_enough(), places.is_full()), (vec![ann.clone()], false));
        for owner in [Some(bob.clone()), Some(bob), None, None] {
            places.take(owner, std::future::ready(()));
        }
        assert!(places.is_full());
        for _ in 0..4 {
            assert!(places.left().await);
        }
        assert_eq!((places.hold_enough(), places.is_full()), (vec![ann], false));
    }

    #[tokio::test]
    async fn however_many_take_what_they_get_somebody_else_gets_a_place() {
        for greedy in 1..=5 {
            let mut places = Places::new(1_600);
            let owners: Vec<_> = (0..greedy).map(|n| UserId::from(format!("user_{n}"))).collect();
            let next = |places: &Places| {
                let enough = places.hold_enough();
                let hungry = owners.iter().find(|owner| !enough.contains(owner));
                hungry.filter(|_| !places.is_full()).cloned()
            };
            while let Some(owner) = next(&places) {
                places.take(Some(owner), std::future::pending());
            }
            assert!(!places.is_full(), "{greedy} took all");
        }
    }
}
