//! `kill -9` at named points of the store's work and at random moments, while six logs go on: single
//! runs, conversations, and forks of both.
//!
//! `EXILE_KILLS` sets how many kills, `EXILE_SEED` the first round's seed. A round has a file, an
//! upstream and a seed of its own; a seed that fails is printed and can be run alone.

use exile_engine::env::{Env as _, SystemEnv};
use exile_engine::id::{LogId, RunId};
use exile_engine::run::record::Durability;

use super::check::{Expected, Findings};
use super::graphs;
use super::history;
use super::plan::number;
use super::scenario::Scenario;

/// Kills without `EXILE_KILLS`.
const KILLS: u64 = 25;
/// Kills over one file.
const ROUND: u64 = 25;

#[test]
fn no_kill_loses_what_was_acknowledged_or_repeats_what_was_recorded() {
    let (kills, first) = (number("EXILE_KILLS", KILLS), number("EXILE_SEED", 1));
    let clock = SystemEnv::new();
    let expected = undisturbed();
    let (mut total, mut at_points) = (Findings::default(), 0);
    for round in 0..kills.div_ceil(ROUND) {
        let kills = ROUND.min(kills - round * ROUND);
        let named = Named { seed: first + round, kills };
        let mut scenario = Scenario::new(named.seed);
        at_points += (0..kills).filter(|_| scenario.life(true)).count();
        scenario.life(false);
        let found = scenario.check(&expected);
        assert!(found.complaints.is_empty(), "{}", found.complaints.join("\n"));
        total += found;
    }
    println!(
        "{kills} kills, {at_points} of them at named points, in {:.0} s: {} runs, {} of them forks, \
         {} displaced, {} of these rolled back; {} records, {} calls; {} interrupted calls made \
         again, {} attempts after failed ones, {} unsafe calls put before a person; 0 acknowledged \
         records lost, 0 recorded calls made again, 0 unsafe effects doubled",
        clock.monotonic().as_secs_f64(),
        total.runs,
        total.forked,
        total.displaced,
        total.rolled_back,
        total.records,
        total.calls,
        total.again,
        total.retried,
        total.attended,
    );
}

/// Says which seed failed.
struct Named {
    seed: u64,
    kills: u64,
}

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to run it alone: make kills KILLS={} SEED={}", self.kills, self.seed);
        }
    }
}

/// How every graph ends if nothing happens to it.
fn undisturbed() -> Expected {
    let mut scenario = Scenario::new(0);
    let runs: Vec<RunId> =
        graphs::killed().map(|name| scenario.plan.want(name, Durability::Sync)).collect();
    scenario.life(false);
    let stored = scenario.stored();
    let state = |id: &RunId| {
        let run = &scenario.plan.logs[&LogId::from(id)].runs[0];
        (run.graph, history::final_state(&run.name, &stored.runs[id]).unwrap())
    };
    let expected = runs.iter().map(state).collect();
    let found = scenario.check(&expected);
    assert!(found.complaints.is_empty(), "without a kill: {}", found.complaints.join("\n"));
    expected
}
