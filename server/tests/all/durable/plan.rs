//! What a test wants of its runs, and what it knows of them from what workers told it.
//!
//! A person's part is played here: questions are answered, open calls are resolved, all by a seed.
//! An input that was not acknowledged is sent again under its id by the next life.

use std::collections::{BTreeMap, BTreeSet};

use exile_engine::id::{InputId, LogId, RunId};
use exile_engine::journal::Resolution;
use exile_engine::run::record::{Callee, Durability, Fact, Intent, Number, Record, Waiting};
use serde_json::json;

use super::graphs::{self, GRAPHS};
use super::words::{Order, Told, start_of};

/// Numbers from a seed (splitmix64, as published by Steele, Lea and Flood, 2014).
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What a variable says, or this.
pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |n| n.parse().unwrap())
}

/// A record, and how the test knows of it.
pub(super) struct Known {
    pub(super) record: Record,
    /// Which life of the worker stored it.
    pub(super) life: u32,
    /// That life said so; else a later one found it.
    pub(super) acknowledged: bool,
}

/// One run.
pub(super) struct Run {
    pub(super) graph: &'static str,
    pub(super) name: String,
    pub(super) durability: Durability,
    pub(super) known: BTreeMap<Number, Known>,
    /// A person said that one of its calls failed: it need not come to the usual end.
    pub(super) failed_by_person: bool,
}

impl Run {
    pub(super) fn ended(&self) -> bool {
        self.known.values().any(|k| matches!(k.record.fact, Fact::Ended(_)))
    }

    fn waits(&self) -> Option<(Number, &Waiting)> {
        let (number, last) = self.known.last_key_value()?;
        match &last.record.fact {
            Fact::Waiting(waiting) => Some((*number, waiting)),
            _ => None,
        }
    }
}

/// All runs of one file.
pub(super) struct Plan {
    seed: u64,
    random: Seeded,
    pub(super) life: u32,
    pub(super) runs: BTreeMap<RunId, Run>,
    acknowledged: BTreeSet<InputId>,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let (runs, acknowledged) = (BTreeMap::new(), BTreeSet::new());
        Self { seed, random: Seeded(seed), life: 0, runs, acknowledged }
    }

    /// Wants one more run of a graph.
    pub(super) fn want(&mut self, graph: &'static str, durability: Durability) -> RunId {
        let name = format!("n{:04}", self.runs.len());
        let run = RunId::from(format!("run_{name}"));
        let (known, failed_by_person) = (BTreeMap::new(), false);
        self.runs.insert(run.clone(), Run { graph, name, durability, known, failed_by_person });
        run
    }

    /// Wants runs of any graph, so that this many go on at once.
    pub(super) fn want_some(&mut self, at_once: usize) -> Vec<RunId> {
        let active = self.runs.values().filter(|run| !run.ended()).count();
        let mut wanted = Vec::new();
        for _ in active..at_once {
            let graph = GRAPHS[usize::try_from(self.random.below(GRAPHS.len() as u64)).unwrap()].0;
            let durability = match self.random.below(5) {
                0 => Durability::Async,
                1 => Durability::Exit,
                _ => Durability::Sync,
            };
            wanted.push(self.want(graph, durability));
        }
        wanted
    }

    /// A number below the bound, by the seed.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    pub(super) fn all_ended(&self) -> bool {
        self.runs.values().all(Run::ended)
    }

    /// The runs that have not ended, and the last that is known of each.
    pub(super) fn open(&self) -> String {
        let active = self.runs.iter().filter(|(_, run)| !run.ended());
        let line = |(id, run): (&RunId, &Run)| {
            let last = run.known.last_key_value().map(|(number, k)| (number, &k.record.fact));
            format!("{id} ({}, {:?}): {last:?}", run.graph, run.durability)
        };
        active.map(line).collect::<Vec<_>>().join("\n")
    }

    /// What the next life is asked to read: what may have been stored without being told.
    pub(super) fn unknown(&self) -> Vec<(LogId, Number)> {
        let active = self.runs.iter().filter(|(_, run)| !run.ended());
        let next = |run: &Run| run.known.last_key_value().map_or(0, |(number, _)| number + 1);
        active.map(|(id, run)| (LogId::from(id), next(run))).collect()
    }

    /// Takes in what a worker told. Gives the runs that something is to be done about.
    pub(super) fn take(&mut self, told: Told) -> Option<RunId> {
        let (log, records, life, acknowledged) = match told {
            Told::Stored { log, records } => (log, records, self.life, true),
            Told::Holds { log, records } => (log, records, self.life - 1, false),
            Told::Sent(id) => {
                self.acknowledged.insert(id);
                return None;
            }
            Told::Ready | Told::HasRead | Told::Fenced(_) | Told::Seen { .. } => return None,
        };
        let id = RunId::from(log.as_str());
        let run = self.runs.get_mut(&id).unwrap();
        for (number, record) in records {
            run.known.entry(number).or_insert(Known { record, life, acknowledged });
        }
        Some(id)
    }

    /// What is to be done about a run: start it, answer it, resolve it.
    pub(super) fn orders(&mut self, id: &RunId) -> Vec<Order> {
        let run = &self.runs[id];
        let mut orders = Vec::new();
        if run.known.is_empty() {
            let input = [("name".to_owned(), json!(run.name))].into_iter().collect();
            let (graph, durability) = (run.graph.to_owned(), run.durability);
            orders.push((start_of(id), Order::Start { run: id.clone(), graph, input, durability }));
        }
        if let Some((number, waiting)) = run.waits() {
            orders.extend(waiting.asked.iter().map(|asked| {
                let answer = asked.question.choices.first().map_or("a word", String::as_str);
                let input = InputId::from(format!("answer_{}", asked.id));
                let interrupt = asked.id.clone();
                let (run, value) = (id.clone(), json!(answer));
                (input.clone(), Order::Answer { run, id: input, interrupt, value })
            }));
            if waiting.attention.is_some() {
                orders.extend(self.resolutions(id, number, waiting));
            }
        }
        orders.retain(|(input, _)| !self.acknowledged.contains(input));
        for (_, order) in &orders {
            if let Order::Resolve { action: Resolution::Failed { .. }, .. } = order {
                self.runs.get_mut(id).unwrap().failed_by_person = true;
            }
        }
        orders.into_iter().map(|(_, order)| order).collect()
    }

    /// One resolution for each open call; for the whole run if it has none.
    fn resolutions(&self, run: &RunId, number: Number, waiting: &Waiting) -> Vec<(InputId, Order)> {
        let resolve = |call: Option<String>, action| {
            let name = call.as_deref().unwrap_or("run");
            let id = InputId::from(format!("resolve_{run}_{number}_{name}"));
            (id.clone(), Order::Resolve { run: run.clone(), id, call, action })
        };
        if waiting.open.is_empty() {
            return vec![resolve(None, Resolution::Retry)];
        }
        let open = |intent: &Intent| {
            let call = format!("{}#{}", intent.task, intent.call);
            resolve(Some(call.clone()), self.resolution(&format!("{run}{number}{call}"), intent))
        };
        waiting.open.iter().map(open).collect()
    }

    /// The same for the same call at the same place, whoever asks.
    fn resolution(&self, place: &str, intent: &Intent) -> Resolution {
        let mix = |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte));
        let sum = place.bytes().fold(self.seed, mix);
        match (Seeded(sum).below(8), &intent.to) {
            (0, _) => Resolution::Failed { message: "a person says so".into() },
            (1..=4, Callee::Tool { args, .. }) => Resolution::Done { output: graphs::output(args) },
            _ => Resolution::Retry,
        }
    }
}
