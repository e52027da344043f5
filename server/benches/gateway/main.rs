//! What measures a gateway: a model provider for it to stand before, and the load.
//!
//! `mock` speaks `OpenAI`'s chat completions and answers until it is ended. Every other mode is a
//! load; it prints one JSON line, times in milliseconds. `tests/outside/gateway/compare.py` runs
//! them, each on its core.
//!
//! ```text
//! mock       --port N
//! latency    --direct URL --via URL   one connection: what the gateway adds to an answer
//! first      --direct URL --via URL   the same, to the first token of a stream
//! throughput [--direct URL] [--via URL] --connections N --seconds S
//! streams    [--direct URL] [--via URL] --streams N   how late each delta is
//! steady     --via URL --pid PID --rate N --seconds S   what the gateway's memory does
//! ```
//!
//! URLs end before `/chat/completions`. All modes take `--key` and `--model`; the defaults of the
//! other numbers stand where they are read.
#![allow(missing_docs, unreachable_pub, reason = "a benchmark")]
#![allow(clippy::print_stdout, reason = "a benchmark")]

mod added;
mod arguments;
mod client;
mod clock;
mod events;
mod mock;
mod spread;
mod steady;
mod streams;
mod target;
mod throughput;
mod wire;

use std::io;
use std::process::ExitCode;

use serde_json::Value;

use added::Until;
use arguments::Arguments;

fn main() -> ExitCode {
    // `cargo bench` adds this word to whatever it runs.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let Some(mode) = words.next() else {
        eprintln!("gateway: takes a mode; server/tests/outside/gateway/compare.py runs them all");
        return ExitCode::SUCCESS;
    };
    match Arguments::read(words).and_then(|arguments| run(&mode, &arguments)) {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gateway {mode}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// On one thread: the benchmark has one core for the load and the provider.
fn run(mode: &str, arguments: &Arguments) -> io::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match mode {
            "mock" => mock::serve(arguments).await,
            "latency" => added::measure(arguments, Until::End).await,
            "first" => added::measure(arguments, Until::FirstToken).await,
            "throughput" => throughput::measure(arguments).await,
            "streams" => streams::measure(arguments).await,
            "steady" => steady::measure(arguments).await,
            _ => Err(io::Error::other("no such mode")),
        }
    })
}
