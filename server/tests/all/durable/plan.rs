//! What a test wants of its logs, and what it knows of them from what workers told it.
//!
//! A person's part is played here: questions are answered, open calls are resolved, all by a seed.
//! An input that was not acknowledged is sent again under its id by the next life.

use std::collections::{BTreeMap, BTreeSet};

use exile_engine::id::{InputId, LogId, RunId};
use exile_engine::journal::Resolution;
use exile_engine::run::record::{Callee, Intent, Number, Waiting};
use serde_json::json;

use super::graphs;
use super::log::{Begins, Known, Log, Run};
use super::protocol::{Order, Told, start_of};

/// What a person says of a call that failed.
pub(super) const SAID: &str = "a person says so";

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

/// All logs of one file.
pub(super) struct Plan {
    seed: u64,
    pub(super) life: u32,
    pub(super) logs: BTreeMap<LogId, Log>,
    /// Runs that were wanted so far.
    pub(super) count: usize,
    acknowledged: BTreeSet<InputId>,
    /// What this life was told to send.
    ordered: BTreeSet<InputId>,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let (acknowledged, ordered) = (BTreeSet::new(), BTreeSet::new());
        Self { seed, life: 0, logs: BTreeMap::new(), count: 0, acknowledged, ordered }
    }

    /// Numbers for a place, the same whoever asks and when.
    pub(super) fn at(&self, place: &str) -> Seeded {
        let mix = |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte));
        let mut seeded = Seeded(place.bytes().fold(self.seed, mix));
        // Places that differ in their last byte lie close together.
        Seeded(seeded.below(u64::MAX))
    }

    /// Another worker begins.
    pub(super) fn begin_life(&mut self) {
        self.life += 1;
        self.ordered.clear();
    }

    pub(super) fn all_ended(&self) -> bool {
        !self.logs.values().any(Log::goes_on)
    }

    /// The runs that have not ended, and the last that is known of their log.
    pub(super) fn open(&self) -> String {
        let line = |log: &Log| {
            let last = log.known.last_key_value().map(|(number, k)| (number, &k.record.fact));
            let runs: Vec<&Run> = log.open().collect();
            format!("{}: {runs:?}: {last:?}", log.id)
        };
        let active = self.logs.values().filter(|log| log.goes_on());
        active.map(line).collect::<Vec<_>>().join("\n")
    }

    /// What the next life is asked to read: what may have been stored without being told.
    pub(super) fn unknown(&self) -> Vec<(LogId, Number)> {
        let next = |log: &Log| log.known.last_key_value().map_or(0, |(number, _)| number + 1);
        let active = self.logs.values().filter(|log| log.goes_on());
        active.map(|log| (log.id.clone(), next(log))).collect()
    }

    /// Takes in what a worker told. Gives the log that something is to be done about.
    pub(super) fn take(&mut self, told: Told) -> Option<LogId> {
        let (log, records, life, acknowledged) = match told {
            Told::Stored { log, records } => (log, records, self.life, true),
            Told::Holds { log, records } => (log, records, self.life - 1, false),
            Told::Sent(id) => {
                self.acknowledged.insert(id);
                return None;
            }
            Told::Busy(id) => {
                let mut logs = self.logs.values_mut();
                let (log, run) = logs.find_map(|log| {
                    let run = log.runs.iter_mut().find(|run| run.id == id)?;
                    Some((log.id.clone(), run))
                })?;
                run.refused = true;
                return Some(log);
            }
            Told::Ready | Told::HasRead | Told::Fenced(_) | Told::Seen { .. } => return None,
        };
        let learns = self.logs.get_mut(&log).unwrap();
        for (number, record) in records {
            learns.learn(number, Known { record, life, acknowledged });
        }
        Some(log)
    }

    /// What is to be done about a log: begin its runs, answer and resolve the one that waits.
    /// Each only once in a life: what was refused must not be sent again.
    pub(super) fn orders(&mut self, id: &LogId) -> Vec<Order> {
        let log = &self.logs[id];
        let mut orders: Vec<_> =
            log.unbegun().map(|run| (start_of(&run.id), beginning(&log.id, run))).collect();
        if let Some((number, waiting)) = log.waits() {
            orders.extend(answers(waiting));
            if waiting.attention.is_some() {
                orders.extend(self.resolutions(&waiting.run, number, waiting));
            }
        }
        orders.retain(|(input, _)| {
            !self.acknowledged.contains(input) && self.ordered.insert(input.clone())
        });
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
        match (self.at(place).below(8), &intent.to) {
            (0, _) => Resolution::Failed { message: SAID.into() },
            (1..=4, Callee::Tool { args, .. }) => Resolution::Done { output: graphs::output(args) },
            _ => Resolution::Retry,
        }
    }
}

fn beginning(log: &LogId, run: &Run) -> Order {
    let (log, graph, durability) = (log.clone(), run.graph.to_owned(), run.durability);
    match &run.begins {
        Begins::Start(if_active) => {
            let input = [("name".to_owned(), json!(run.name))].into_iter().collect();
            let (run, if_active) = (run.id.clone(), *if_active);
            Order::Start { log, run, graph, input, durability, if_active }
        }
        Begins::Fork { from, at } => {
            Order::Fork { log, run: run.id.clone(), graph, from: from.clone(), at: *at }
        }
    }
}

/// One answer to each question. A fork asks again what its origin asked, under the same ids.
fn answers(waiting: &Waiting) -> impl Iterator<Item = (InputId, Order)> {
    let run = &waiting.run;
    waiting.asked.iter().map(move |asked| {
        let answer = asked.question.choices.first().map_or("a word", String::as_str);
        let id = InputId::from(format!("answer_{run}_{}", asked.id));
        let (interrupt, value) = (asked.id.clone(), json!(answer));
        (id.clone(), Order::Answer { run: run.clone(), id, interrupt, value })
    })
}
