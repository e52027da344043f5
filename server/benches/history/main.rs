//! What a request costs that comes after 300,000 others: the same requests of an owner with that
//! many runs, and of one with none or, where a page is asked for, with as many as fill it; each on a
//! server of its own, in turns. Likewise what it costs to remove the records of fifty runs. One JSON
//! line for each figure; the bench fails if one of them grew beyond three times the promise.
//!
//! `cargo bench -p exile-server --bench history`.
#![allow(missing_docs, unreachable_pub, reason = "a benchmark")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a benchmark")]

mod retention;
mod seed;
mod server;

use std::process::ExitCode;
use std::time::Duration;

use exile_engine::env::{Env as _, SystemEnv};
use serde_json::json;

use server::Server;

/// Runs of the owner before the requests that are measured.
const RUNS: u32 = 300_000;
/// Runs that fill every page that is asked for: each tenth failed.
const A_PAGE: u32 = 500;
/// Times that each request is sent to each server.
const TIMES: usize = 300;
/// How much dearer a request may be after all of them.
const PROMISED: f64 = 1.2;
/// How much of that is put down to the machine.
const FAILS: f64 = 3.0 * PROMISED;

/// What is measured: its name, beside how many runs, and how it is asked for.
type Ask = (&'static str, u32, fn(&mut Server));

const ASKS: [Ask; 5] = [
    ("turn", 0, |server| server.say("hello")),
    ("page_of_runs", A_PAGE, |server| server.get("/api/runs")),
    ("page_of_failed_runs", A_PAGE, |server| server.get("/api/runs?status=failed")),
    ("page_of_waiting_runs", A_PAGE, |server| server.get("/api/runs?status=waiting&graph=agent")),
    ("page_of_conversations", A_PAGE, |server| server.get("/api/conversations")),
];

fn main() -> ExitCode {
    let env = SystemEnv::new();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let [mut empty, mut page, mut full] = [0, A_PAGE, RUNS].map(|runs| {
        let home = folder.path().join(runs.to_string());
        drop(Server::start(&home));
        if runs > 0 {
            seed::runs(&home, runs);
        }
        Server::start(&home)
    });
    let mut worst = 0.0_f64;
    let mut tell = |name: &str, few: u32, times: [Vec<Duration>; 2]| {
        let [beside, full] = times.map(median);
        let ratio = full.as_secs_f64() / beside.as_secs_f64();
        worst = worst.max(ratio);
        let [beside_ms, ms] = [beside, full].map(|time| time.as_secs_f64() * 1000.0);
        let figure = format!("{name}_after_{RUNS}_runs");
        println!(
            "{}",
            json!({ "figure": figure, "value": ms, format!("after_{few}"): beside_ms, "ratio": ratio })
        );
    };
    for (name, few, ask) in ASKS {
        let beside = if few == 0 { &mut empty } else { &mut page };
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..TIMES {
            for (server, times) in [&mut *beside, &mut full].into_iter().zip(&mut times) {
                let began = env.monotonic();
                ask(server);
                times.push(env.monotonic().saturating_sub(began));
            }
        }
        tell(name, few, times);
    }
    drop((empty, page, full));
    let homes = [A_PAGE, RUNS].map(|runs| folder.path().join(runs.to_string()));
    tell("purge_of_50_runs", A_PAGE, retention::passes(&env, homes));
    if worst > FAILS {
        eprintln!("{worst:.2} × as dear as without them, where {PROMISED} × is promised");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
