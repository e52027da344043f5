//! One log: the runs that are wanted on it, and what is known of its records from what workers
//! told.

use std::collections::{BTreeMap, BTreeSet};

use exile_engine::id::{LogId, RunId};
use exile_engine::journal::IfActive;
use exile_engine::run::record::{Durability, Fact, Number, Record, Waiting};

/// How a run begins.
#[derive(Clone, Debug)]
pub(super) enum Begins {
    /// With an input of its own.
    Start(IfActive),
    /// At a number of another run.
    Fork { from: RunId, at: Number },
}

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) begins: Begins,
    pub(super) graph: &'static str,
    /// Stands in everything that it asks and writes; a fork's is that of its origin.
    pub(super) name: String,
    pub(super) durability: Durability,
    /// It was refused when it was sent, because another run had not ended.
    pub(super) refused: bool,
}

impl Run {
    /// Whether the run of the same log that goes on or waits is cancelled for it.
    pub(super) fn displaces(&self) -> bool {
        match self.begins {
            Begins::Start(if_active) => {
                matches!(if_active, IfActive::Interrupt | IfActive::Rollback)
            }
            Begins::Fork { .. } => true,
        }
    }
}

/// A record, and how the test knows of it.
pub(super) struct Known {
    pub(super) record: Record,
    /// Which life of the worker stored it.
    pub(super) life: u32,
    /// That life said so; else a later one found it.
    pub(super) acknowledged: bool,
}

/// The runs of one log, in the order in which they are sent, and its records.
pub(super) struct Log {
    pub(super) id: LogId,
    pub(super) runs: Vec<Run>,
    pub(super) known: BTreeMap<Number, Known>,
    begun: BTreeSet<RunId>,
    ended: BTreeSet<RunId>,
    /// Runs that it has at last: one, or the turns of a conversation.
    pub(super) turns: usize,
    /// How many records it has when its next run is sent, if not all have ended before.
    pub(super) next_at: usize,
}

impl Log {
    pub(super) fn new(id: LogId, turns: usize) -> Self {
        let (known, begun, ended) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { id, runs: Vec::new(), known, begun, ended, turns, next_at: 0 }
    }

    /// Takes in what is known of a record.
    pub(super) fn learn(&mut self, number: Number, known: Known) {
        match &known.record.fact {
            Fact::Started(started) => _ = self.begun.insert(started.run.clone()),
            Fact::Forked(forked) => self.begun.extend(forked.run.clone()),
            Fact::Ended(ended) => _ = self.ended.insert(ended.run.clone()),
            _ => {}
        }
        self.known.entry(number).or_insert(known);
    }

    /// The runs that have not begun.
    pub(super) fn unbegun(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| !run.refused && !self.begun.contains(&run.id))
    }

    /// The runs that were sent or will be, and have not ended.
    pub(super) fn open(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| !run.refused && !self.ended.contains(&run.id))
    }

    pub(super) fn goes_on(&self) -> bool {
        self.open().next().is_some()
    }

    /// The numbers that are known of each run that has begun.
    pub(super) fn numbers(&self) -> BTreeMap<RunId, Vec<Number>> {
        by_run(self.known.iter().map(|(number, known)| (&known.record.fact, *number)))
    }

    /// What its run waits for, if it does.
    pub(super) fn waits(&self) -> Option<(Number, &Waiting)> {
        let (number, last) = self.known.last_key_value()?;
        match &last.record.fact {
            Fact::Waiting(waiting) => Some((*number, waiting)),
            _ => None,
        }
    }
}

/// The records of each run of a log, from the one that begins it to the one that ends it; what
/// stands between two runs belongs to none.
pub(super) fn by_run<'r, T>(
    records: impl Iterator<Item = (&'r Fact, T)>,
) -> BTreeMap<RunId, Vec<T>> {
    let mut runs: BTreeMap<RunId, Vec<T>> = BTreeMap::new();
    let mut current = None;
    for (fact, record) in records {
        match fact {
            Fact::Started(started) => current = Some(started.run.clone()),
            Fact::Forked(forked) => current.clone_from(&forked.run),
            _ => {}
        }
        if let Some(run) = &current {
            runs.entry(run.clone()).or_default().push(record);
        }
        if matches!(fact, Fact::Ended(_)) {
            current = None;
        }
    }
    runs
}
