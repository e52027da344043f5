//! How much is spent on looking at a graph as a whole.
//!
//! What can run at the same time, and what can run twice, is a matter of pairs of nodes and of ways
//! through the graph, of which a file of a megabyte may have more than can be looked at. Each
//! analysis pays for what it looks at, and stops where there is nothing left; the graph then has
//! what was found, and a finding that says that not all was looked at.

use std::cell::Cell;

/// Steps that are left. A step is about a nanosecond where the code is optimised.
#[derive(Debug)]
pub(super) struct Effort {
    left: Cell<u64>,
    spent: Cell<bool>,
}

impl Effort {
    pub(super) fn new(steps: u64) -> Self {
        Self { left: Cell::new(steps), spent: Cell::new(false) }
    }

    /// Pays for so many steps; whether there were as many. Once there are not, nothing more is.
    pub(super) fn spend(&self, steps: usize) -> bool {
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        match self.left.get().checked_sub(steps) {
            Some(left) if !self.spent.get() => self.left.set(left),
            _ => self.spent.set(true),
        }
        !self.spent.get()
    }

    /// Whether something was left out.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.get()
    }
}
