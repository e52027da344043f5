//! The places in which logs are driven, and who holds how many of them.
//!
//! Invariant: of the places, an eighth is kept from an owner who holds more than half, so that no
//! owner's runs, however many wait for their providers, keep another's from beginning.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

use crate::id::UserId;

/// Of so many places, one is kept for those who hold few.
const KEPT: usize = 8;

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

    /// The owner who gets no further place while so few are free; `None`: everybody may.
    pub(super) fn holds_enough(&self) -> Option<&UserId> {
        let few = self.most / KEPT;
        if few == 0 || self.drives.len() + few < self.most {
            return None;
        }
        self.held.iter().find(|(_, held)| **held * 2 > self.most).map(|(owner, _)| owner)
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
    async fn who_holds_more_than_half_gets_none_of_the_last_places() {
        let mut places = Places::new(16);
        let [ann, bob] = ["ann", "bob"].map(UserId::from);
        for n in 0..14 {
            assert_eq!(places.holds_enough(), None, "{n}");
            places.take(Some(ann.clone()), std::future::pending());
        }
        assert_eq!((places.holds_enough(), places.is_full()), (Some(&ann), false));
        places.take(Some(bob), std::future::ready(()));
        places.take(None, std::future::ready(()));
        assert!(places.is_full());
        assert!(places.left().await && places.left().await);
        assert_eq!((places.holds_enough(), places.is_full()), (Some(&ann), false));
    }
}
