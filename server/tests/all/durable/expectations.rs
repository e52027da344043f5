//! What is wanted next: single runs, conversations whose next turn is sent while an earlier one
//! goes on or waits, and forks of what there is.
//!
//! Every choice is made by the seed and the place that it is made for, so that the third log of a
//! seed is the same one however its workers die.

use exile_engine::id::{LogId, RunId};
use exile_engine::journal::IfActive;
use exile_engine::run::record::{Durability, Fact, Number};

use super::graphs;
use super::log::{Begins, Log, Run};
use super::plan::{Plan, Seeded};

/// Turns of a conversation, at least.
const TURNS: u64 = 3;
/// How many more it may have.
const MORE_TURNS: u64 = 9;
/// Records after which the next turn is sent, at most: about as many as a run has.
const APART: u64 = 18;

impl Plan {
    /// Wants one more run of a graph, on a log of its own.
    pub(super) fn want(&mut self, graph: &'static str, durability: Durability) -> RunId {
        let run = self.new_run(graph, durability);
        let id = run.id.clone();
        self.add(Log::new(LogId::from(&id), 1), run);
        id
    }

    /// Wants more, so that this many logs go on at once.
    pub(super) fn want_some(&mut self, at_once: usize) -> Vec<LogId> {
        let active = self.logs.values().filter(|log| log.goes_on()).count();
        (active..at_once).map(|_| self.want_log()).collect()
    }

    fn want_log(&mut self) -> LogId {
        let place = format!("log {}", self.logs.len());
        let mut dice = self.at(&place);
        let (kind, graph) = (dice.below(5), a_graph(&mut dice));
        let durability = a_durability(&mut dice);
        match kind {
            0 | 1 => LogId::from(&self.want(graph, durability)),
            2 | 3 => {
                let turns = TURNS + dice.below(MORE_TURNS);
                let id = LogId::from(format!("conv_{:04}", self.logs.len()));
                let run = self.new_run(graph, durability);
                let mut log = Log::new(id.clone(), usize::try_from(turns).unwrap());
                log.next_at = usize::try_from(dice.below(APART)).unwrap();
                self.add(log, run);
                id
            }
            _ => match self.fork_of(None, &mut dice) {
                None => LogId::from(&self.want(graph, durability)),
                Some(run) => {
                    let id = LogId::from(&run.id);
                    self.add(Log::new(id.clone(), 1), run);
                    id
                }
            },
        }
    }

    /// Wants the next turn of a conversation, if it is time.
    pub(super) fn grow(&mut self, id: &LogId) {
        loop {
            let log = &self.logs[id];
            let is_time = log.known.len() >= log.next_at || !log.goes_on();
            if log.runs.len() >= log.turns || !is_time {
                return;
            }
            let mut dice = self.at(&format!("{id} turn {}", log.runs.len()));
            let (graph, durability) = (log.runs[0].graph, a_durability(&mut dice));
            let if_active = match dice.below(8) {
                0..=2 => IfActive::Enqueue,
                3 => IfActive::Interrupt,
                4 | 5 => IfActive::Rollback,
                _ => IfActive::Reject,
            };
            let fork = dice.below(6) == 0;
            let apart = usize::try_from(dice.below(APART)).unwrap();
            let fork = if fork { self.fork_of(Some(id), &mut dice) } else { None };
            let run = fork.unwrap_or_else(|| {
                let run = self.new_run(graph, durability);
                Run { begins: Begins::Start(if_active), ..run }
            });
            self.count += 1;
            let log = self.logs.get_mut(id).unwrap();
            log.runs.push(run);
            log.next_at = log.known.len() + apart;
        }
    }

    /// A fork of some run that has begun, of that log or of any, at some number of it.
    fn fork_of(&self, log: Option<&LogId>, dice: &mut Seeded) -> Option<Run> {
        let logs = self.logs.values().filter(|l| log.is_none_or(|id| l.id == *id));
        let places = |log: &Log| {
            let run = |(id, numbers): (RunId, Vec<Number>)| {
                let run = log.runs.iter().find(|run| run.id == id).unwrap().clone();
                let ends = |n: &Number| matches!(log.known[n].record.fact, Fact::Ended(_));
                (run, numbers.into_iter().filter(|n| !ends(n)).collect::<Vec<_>>())
            };
            log.numbers().into_iter().map(run).collect::<Vec<_>>()
        };
        let begun: Vec<(Run, Vec<Number>)> = logs.flat_map(places).collect();
        let (origin, numbers) = pick(&begun, dice)?;
        let begins = Begins::Fork { from: origin.id.clone(), at: *pick(numbers, dice)? };
        let id = self.new_run(origin.graph, origin.durability).id;
        Some(Run { id, begins, refused: false, ..origin.clone() })
    }

    fn new_run(&self, graph: &'static str, durability: Durability) -> Run {
        let name = format!("n{:04}", self.count);
        let (id, begins) = (RunId::from(format!("run_{name}")), Begins::Start(IfActive::Enqueue));
        Run { id, begins, graph, name, durability, refused: false }
    }

    fn add(&mut self, mut log: Log, run: Run) {
        self.count += 1;
        log.runs.push(run);
        self.logs.insert(log.id.clone(), log);
    }
}

fn a_graph(dice: &mut Seeded) -> &'static str {
    let all: Vec<&'static str> = graphs::killed().collect();
    all[usize::try_from(dice.below(all.len() as u64)).unwrap()]
}

fn a_durability(dice: &mut Seeded) -> Durability {
    match dice.below(5) {
        0 => Durability::Async,
        1 => Durability::Exit,
        _ => Durability::Sync,
    }
}

fn pick<'t, T>(all: &'t [T], dice: &mut Seeded) -> Option<&'t T> {
    if all.is_empty() {
        return None;
    }
    all.get(usize::try_from(dice.below(all.len() as u64)).ok()?)
}
