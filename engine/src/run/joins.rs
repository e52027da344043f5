//! What the joins of a running graph hold: arrivals that wait for others, and arrivals that will
//! be absorbed.
//!
//! One bit stands for each slot, so that a copy costs next to nothing whatever the join waits for.

use serde::{Deserialize, Serialize};

use crate::graph::Graph;

/// A join and one of its slots, by their places in the graph.
pub type SlotIndex = [usize; 2];

/// What joins hold. Empty until something arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinState {
    filled: Bits,
    owed: Bits,
}

/// How one [`JoinState`] differs from another: the slots whose bit is the other one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinChange {
    /// Slots that are filled now and were not, or the reverse.
    #[serde(rename = "f", default, skip_serializing_if = "Vec::is_empty")]
    pub filled: Vec<SlotIndex>,
    /// Slots that owe an arrival now and did not, or the reverse.
    #[serde(rename = "w", default, skip_serializing_if = "Vec::is_empty")]
    pub owed: Vec<SlotIndex>,
}

impl JoinState {
    /// From the slots that hold an arrival and those that owe one.
    ///
    /// # Errors
    /// A slot that the graph does not have.
    pub fn new(graph: &Graph, filled: &[SlotIndex], owed: &[SlotIndex]) -> Result<Self, String> {
        let mut state = Self::default();
        state.toggle(graph, &JoinChange { filled: filled.to_vec(), owed: owed.to_vec() })?;
        Ok(state)
    }

    /// Applies a change.
    ///
    /// # Errors
    /// A slot that the graph does not have.
    pub fn toggle(&mut self, graph: &Graph, change: &JoinChange) -> Result<(), String> {
        for (bits, slots) in [(&mut self.filled, &change.filled), (&mut self.owed, &change.owed)] {
            for &[join, slot] in slots {
                let there = graph.joins.get(join).is_some_and(|join| slot < join.slots.len());
                if !there {
                    return Err(format!("the graph has no slot {slot} of a join {join}"));
                }
                bits.flip(graph.first_slot(join) + slot);
            }
        }
        Ok(())
    }

    /// What leads from `self` to `other`.
    #[must_use]
    pub fn change_to(&self, graph: &Graph, other: &Self) -> JoinChange {
        JoinChange {
            filled: slots(graph, self.filled.differing(&other.filled)),
            owed: slots(graph, self.owed.differing(&other.owed)),
        }
    }

    /// Whether no arrival waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.filled.is_empty()
    }

    /// Slots with an arrival, in order.
    #[must_use]
    pub fn filled(&self, graph: &Graph) -> Vec<SlotIndex> {
        slots(graph, self.filled.ones())
    }

    /// Slots whose next arrival is absorbed, in order.
    #[must_use]
    pub fn owed(&self, graph: &Graph) -> Vec<SlotIndex> {
        slots(graph, self.owed.ones())
    }

    /// Something arrives at a slot: it fills it, or is absorbed.
    pub(super) fn arrive(&mut self, graph: &Graph, join: usize, slot: usize) {
        let place = graph.first_slot(join) + slot;
        if !self.owed.clear(place) {
            self.filled.set(place);
        }
    }

    /// Joins that hold an arrival, in order.
    pub(super) fn waiting(&self, graph: &Graph) -> Vec<usize> {
        if self.is_idle() {
            return Vec::new();
        }
        let holds = |join: &usize| {
            let (from, to) = range(graph, *join);
            self.filled.any(from, to)
        };
        (0..graph.joins.len()).filter(holds).collect()
    }

    /// Whether a slot holds an arrival.
    pub(super) fn is_filled(&self, graph: &Graph, join: usize, slot: usize) -> bool {
        self.filled.get(graph.first_slot(join) + slot)
    }

    /// How many slots of a join hold an arrival.
    pub(super) fn count_filled(&self, graph: &Graph, join: usize) -> usize {
        let (from, to) = range(graph, join);
        self.filled.count(from, to)
    }

    /// Empties a join that fires. `owes`: of a slot without an arrival, whether one is still to
    /// come.
    pub(super) fn empty(&mut self, graph: &Graph, join: usize, owes: impl Fn(usize) -> bool) {
        let (from, to) = range(graph, join);
        for place in from..to {
            if !self.filled.clear(place) && !self.owed.get(place) && owes(place - from) {
                self.owed.set(place);
            }
        }
    }

    /// Keeps those owed arrivals that may still come.
    pub(super) fn keep_owed(&mut self, graph: &Graph, may_come: impl Fn(usize, usize) -> bool) {
        for [join, slot] in self.owed(graph) {
            if !may_come(join, slot) {
                self.owed.clear(graph.first_slot(join) + slot);
            }
        }
    }

    /// The same arrivals in another version of the graph; those without a place there are dropped.
    #[must_use]
    pub(super) fn moved(&self, from: &Graph, to: &Graph) -> Self {
        let fits =
            |slot: &SlotIndex| to.joins.get(slot[0]).is_some_and(|j| slot[1] < j.slots.len());
        let (mut filled, mut owed) = (self.filled(from), self.owed(from));
        filled.retain(fits);
        owed.retain(fits);
        Self::new(to, &filled, &owed).unwrap_or_default()
    }
}

fn range(graph: &Graph, join: usize) -> (usize, usize) {
    let from = graph.first_slot(join);
    (from, from + graph.joins[join].slots.len())
}

fn slots(graph: &Graph, places: Vec<usize>) -> Vec<SlotIndex> {
    let mut join = 0;
    let mut slot_of = |place: usize| {
        while place >= graph.first_slot(join) + graph.joins[join].slots.len() {
            join += 1;
        }
        [join, place - graph.first_slot(join)]
    };
    places.into_iter().map(&mut slot_of).collect()
}

/// A set of small numbers. Equal sets are equal whatever room they have.
#[derive(Clone, Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    const WORD: usize = 64;

    fn get(&self, place: usize) -> bool {
        self.0.get(place / Self::WORD).is_some_and(|word| word >> (place % Self::WORD) & 1 == 1)
    }

    fn word(&mut self, place: usize) -> &mut u64 {
        let word = place / Self::WORD;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        &mut self.0[word]
    }

    fn set(&mut self, place: usize) {
        *self.word(place) |= 1 << (place % Self::WORD);
    }

    fn flip(&mut self, place: usize) {
        *self.word(place) ^= 1 << (place % Self::WORD);
    }

    /// Takes a number out; whether it was there.
    fn clear(&mut self, place: usize) -> bool {
        let there = self.get(place);
        if there {
            self.flip(place);
        }
        there
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn ones(&self) -> Vec<usize> {
        self.differing(&Self::default())
    }

    fn any(&self, from: usize, to: usize) -> bool {
        self.masked(from, to).any(|word| word != 0)
    }

    fn count(&self, from: usize, to: usize) -> usize {
        self.masked(from, to).map(|word| word.count_ones() as usize).sum()
    }

    /// The words that hold the numbers of a range, without all others.
    fn masked(&self, from: usize, to: usize) -> impl Iterator<Item = u64> + '_ {
        let first = from / Self::WORD;
        let words = self.0.iter().enumerate().skip(first).take(to.div_ceil(Self::WORD) - first);
        words.map(move |(n, word)| {
            let base = n * Self::WORD;
            let below = from.saturating_sub(base).min(Self::WORD);
            let upto = to.saturating_sub(base).min(Self::WORD);
            let ones = |n: usize| if n == Self::WORD { u64::MAX } else { (1 << n) - 1 };
            word & ones(upto) & !ones(below)
        })
    }

    /// Numbers that are in one of the two sets, in order.
    fn differing(&self, other: &Self) -> Vec<usize> {
        let word = |bits: &Self, n: usize| bits.0.get(n).copied().unwrap_or(0);
        let mut places = Vec::new();
        for n in 0..self.0.len().max(other.0.len()) {
            let mut rest = word(self, n) ^ word(other, n);
            while rest != 0 {
                places.push(n * Self::WORD + rest.trailing_zeros() as usize);
                rest &= rest - 1;
            }
        }
        places
    }
}

impl PartialEq for Bits {
    fn eq(&self, other: &Self) -> bool {
        self.differing(other).is_empty()
    }
}

impl Eq for Bits {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Bits;

    proptest! {
        #[test]
        fn bits_are_a_set(
            ops in prop::collection::vec((0..300_usize, any::<bool>()), 0..100),
            from in 0..300_usize, len in 0..150_usize,
        ) {
            let (mut bits, mut set) = (Bits::default(), BTreeSet::new());
            for (place, put) in ops {
                if put {
                    bits.set(place);
                    set.insert(place);
                } else {
                    prop_assert_eq!(bits.clear(place), set.remove(&place));
                }
            }
            prop_assert_eq!(bits.ones(), set.iter().copied().collect::<Vec<_>>());
            let inside = set.range(from..from + len).count();
            prop_assert_eq!(bits.count(from, from + len), inside);
            prop_assert_eq!(bits.any(from, from + len), inside > 0);
        }
    }
}
