//! What one evaluation may still use up, and why one is stopped.
//!
//! Invariants:
//! - Every step, every byte that is made or looked through and every slot of a list is paid for
//!   before it exists, so that memory and time are bounded together: a step buys [`BYTES`] bytes.
//! - No text grows beyond `expression_result`, also one that is only on the way to a result.

use std::cell::Cell;

use crate::expr::syntax::Place;
use crate::limits::ExpressionLimits;
use crate::size::Size;

/// Bytes that one step pays for, made or looked through: about as long as an operation takes.
pub(super) const BYTES: usize = 64;

/// Bytes that a slot of a list or map takes, its own part of the allocation included.
const SLOT: usize = 32;

/// What is left of an evaluation's limits.
#[derive(Debug)]
pub(super) struct Budget {
    limits: ExpressionLimits,
    steps: Cell<u64>,
}

/// Why an evaluation failed, and where in its source.
#[derive(Debug)]
pub(super) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    message: String,
    place: Option<Place>,
}

/// The outcome of anything that an evaluation does.
pub(super) type Outcome<T> = Result<T, Fault>;

impl Budget {
    pub(super) fn new(limits: ExpressionLimits) -> Self {
        Self { limits, steps: Cell::new(limits.steps) }
    }

    /// Levels of lists and maps that a value may have.
    pub(super) fn nesting(&self) -> usize {
        self.limits.nesting
    }

    /// Pays for so many steps.
    pub(super) fn spend(&self, steps: u64) -> Outcome<()> {
        if let Some(left) = self.steps.get().checked_sub(steps) {
            self.steps.set(left);
            return Ok(());
        }
        // What failed once for want of steps must not go on with cheaper ones.
        self.steps.set(0);
        let steps = self.limits.steps;
        Err(Fault::new(format!(
            "it takes too long: more than {steps} steps (`limits: {{ expression_steps }}` in \
             exile.yaml)"
        )))
    }

    /// Pays for bytes that are made or looked through.
    pub(super) fn bytes(&self, bytes: usize) -> Outcome<()> {
        self.spend(steps(bytes / BYTES))
    }

    /// Pays for a list or map of so many items.
    pub(super) fn slots(&self, slots: usize) -> Outcome<()> {
        self.bytes(slots.saturating_mul(SLOT))
    }

    /// Pays for a text of so many bytes, or refuses it as too long.
    pub(super) fn text(&self, bytes: usize) -> Outcome<()> {
        self.fits(bytes)?;
        self.bytes(bytes)
    }

    /// Refuses what is longer than a result may be.
    pub(super) fn fits(&self, bytes: usize) -> Outcome<()> {
        if bytes <= self.limits.result {
            return Ok(());
        }
        let limit = Size(self.limits.result);
        Err(Fault::new(format!(
            "it gives more than the {limit} allowed (`limits: {{ expression_result }}` in \
             exile.yaml)"
        )))
    }
}

/// A number of steps.
pub(super) fn steps(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Inner { message: message.into(), place: None }))
    }

    /// The same fault at this place, unless it is known to be inside of it already.
    pub(super) fn at(mut self, place: Place) -> Self {
        self.0.place.get_or_insert(place);
        self
    }

    pub(super) fn message(&self) -> &str {
        &self.0.message
    }

    pub(super) fn place(&self) -> Option<Place> {
        self.0.place
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}
