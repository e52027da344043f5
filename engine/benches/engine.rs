//! What the engine itself costs: steps and fan-outs of nodes that do nothing, log in memory.
//!
//! `cargo bench -p exile-engine`. One iteration is one whole run, from start to end.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

#[path = "../tests/all/hand.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod hand;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use exile_engine::env::{Env, SystemEnv};
use exile_engine::graph::Graph;
use exile_engine::id::{LogId, RunId};
use exile_engine::journal::MemoryJournal;
use exile_engine::model::Models;
use exile_engine::state::Reducer;
use futures_util::future::join_all;
use serde_json::{Map, json};

use hand::{Bench, Hand, writes};

/// Nodes that run one after the other, each writing a number.
fn chain(nodes: usize) -> Graph {
    let mut hand = Hand::default().channel("n", Reducer::Replace, json!(0));
    for i in 0..nodes {
        hand = hand.node(&format!("n{i}"), writes(&[("n", json!(i))]));
        let from = if i == 0 { "START".to_owned() } else { format!("n{}", i - 1) };
        hand = hand.edge(&from, &format!("n{i}"));
    }
    hand.limits.steps = Some(u32::MAX);
    hand.graph()
}

/// Nodes that run at the same time, and one that waits for all.
fn fan(nodes: usize) -> Graph {
    let mut hand = Hand::default().channel("n", Reducer::Sum, json!(0));
    let names: Vec<String> = (0..nodes).map(|i| format!("n{i}")).collect();
    for name in &names {
        hand = hand.node(name, writes(&[("n", json!(1))])).edge("START", name);
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    hand.node("join", writes(&[("n", json!(1))])).join(&all, "join").graph()
}

fn run(c: &mut Criterion, name: &str, graph: Graph, steps: u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let env: Arc<dyn Env> = Arc::new(SystemEnv::new());
    let journal = Arc::new(MemoryJournal::new(env.clone()));
    let bench = runtime.block_on(Bench::over(journal, env, graph, Models::default()));
    let runs = AtomicU64::new(0);
    let mut group = c.benchmark_group("engine");
    group.throughput(Throughput::Elements(steps));
    group.bench_function(name, |b| {
        b.to_async(&runtime).iter(|| async {
            let id = format!("run_{}", runs.fetch_add(1, Ordering::Relaxed));
            bench.start(&LogId::from(&*id), &RunId::from(&*id), Map::new()).await;
            bench.engine.wait(&RunId::from(&*id)).await.unwrap()
        });
    });
    group.finish();
}

/// Many short runs, each on a log of its own, from the first start to the last end.
fn concurrent(c: &mut Criterion, name: &str, graph: impl Fn() -> Graph, runs: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let env: Arc<dyn Env> = Arc::new(SystemEnv::new());
    let mut group = c.benchmark_group("engine");
    group.throughput(Throughput::Elements(runs as u64));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function(name, |b| {
        b.iter_custom(|times| {
            let mut taken = Duration::ZERO;
            for _ in 0..times {
                let journal = Arc::new(MemoryJournal::new(env.clone()));
                let bench = Bench::over(journal, env.clone(), graph(), Models::default());
                let bench = runtime.block_on(bench);
                let began = env.monotonic();
                runtime.block_on(join_all((0..runs).map(|n| finished(&bench, n))));
                taken += env.monotonic().checked_sub(began).unwrap();
            }
            taken
        });
    });
    group.finish();
}

async fn finished(bench: &Bench, n: usize) {
    let id = format!("run_{n}");
    bench.start(&LogId::from(&*id), &RunId::from(&*id), Map::new()).await;
    bench.engine.wait(&RunId::from(&*id)).await.unwrap();
}

fn benches(c: &mut Criterion) {
    run(c, "chain_1000", chain(1000), 1000);
    run(c, "fan_out_100_and_join", fan(100), 1);
    concurrent(c, "2000_runs_of_3_nodes", || chain(3), 2000);
}

criterion_group!(engine, benches);
criterion_main!(engine);
