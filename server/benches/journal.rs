//! What durability costs: steps that are stored before the next one begins, in the journal that
//! `serve` opens.
//!
//! `cargo bench -p exile-server --bench journal`. Times are per step; the starts and ends of runs
//! count among their steps.
#![allow(missing_docs, unreachable_pub, reason = "a benchmark")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark")]

mod world;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use exile_engine::id::LogId;
use exile_engine::journal::Journal as _;
use exile_engine::run::record::Fact;
use exile_server::store;
use futures_util::future::join_all;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::runtime::Runtime;

use world::World;

/// Runs at once.
const RUNS: u64 = 64;
/// Steps of each of them per iteration: starts and ends are few beside them.
const STEPS: u64 = 100;
/// Turns before the one that is measured.
const TURNS: usize = 500;

/// The same settings for whatever is compared.
fn group(c: &mut Criterion) -> BenchmarkGroup<'_, WallTime> {
    let mut group = c.benchmark_group("journal");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(8));
    group
}

/// A step of a single run, and beside it the least that storing its record can cost: the same
/// bytes as one row, in a transaction of its own, over a connection with the store's options.
fn one_run(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let folder = world::folder();
    let world = runtime.block_on(World::open(folder.path()));
    let mut group = group(c);
    group.bench_function("step_of_one_run", |b| {
        b.iter_custom(|steps| {
            let began = world.env.monotonic();
            runtime.block_on(world.count(steps));
            world.env.monotonic().checked_sub(began).unwrap()
        });
    });
    let path = folder.path().join("rows.db");
    let (mut rows, body) = runtime.block_on(async { (table(&path).await, body(&world).await) });
    group.bench_function("row_of_the_same_bytes", |b| {
        b.iter_custom(|count| {
            let began = world.env.monotonic();
            runtime.block_on(insert(&mut rows, &body, count));
            world.env.monotonic().checked_sub(began).unwrap()
        });
    });
    group.finish();
    runtime.block_on(async {
        rows.close().await.unwrap();
        world.close().await;
    });
}

async fn table(path: &std::path::Path) -> SqliteConnection {
    let mut connection = store::options(path).connect().await.unwrap();
    let create = "CREATE TABLE bench (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT";
    sqlx::query(create).execute(&mut connection).await.unwrap();
    connection
}

async fn insert(connection: &mut SqliteConnection, body: &str, count: u64) {
    for _ in 0..count {
        let insert = sqlx::query("INSERT INTO bench (body) VALUES (?1)").bind(body);
        insert.execute(&mut *connection).await.unwrap();
    }
}

/// The record of a step, as text.
async fn body(world: &World) -> String {
    let log = world.count(10).await;
    let history = world.store.read(&log, 0, usize::MAX).await.unwrap();
    let step = history.records.iter().rfind(|r| matches!(r.record.fact, Fact::Step(_))).unwrap();
    serde_json::to_string(&step.record).unwrap()
}

fn many_runs(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let folder = world::folder();
    let world = runtime.block_on(World::open(folder.path()));
    let mut group = group(c);
    group.throughput(Throughput::Elements(RUNS * STEPS));
    group.bench_function("steps_of_64_runs", |b| {
        b.iter_custom(|times| {
            let began = world.env.monotonic();
            let runs = (0..RUNS).map(|_| world.count(STEPS * times));
            runtime.block_on(join_all(runs));
            world.env.monotonic().checked_sub(began).unwrap()
        });
    });
    group.finish();
    runtime.block_on(world.close());
}

/// A turn of a long conversation that is read back from the disk: from the start of its run to
/// the end, in a home that was opened just before.
fn resume(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let folder = world::folder();
    let conversation = runtime.block_on(async {
        let world = World::open(folder.path()).await;
        let conversation = world.conversation(TURNS).await;
        world.close().await;
        conversation
    });
    let mut group = group(c);
    group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(1));
    group.bench_function("turn_501_after_opening", |b| {
        b.iter_custom(|times| {
            let mut taken = Duration::ZERO;
            for _ in 0..times {
                let world = runtime.block_on(World::open(folder.path()));
                let began = world.env.monotonic();
                runtime.block_on(world.turn(&conversation));
                taken += world.env.monotonic().checked_sub(began).unwrap();
                runtime.block_on(world.close());
            }
            taken
        });
    });
    group.bench_function("load_of_500_turns_after_opening", |b| {
        b.iter_custom(|times| {
            let mut taken = Duration::ZERO;
            for _ in 0..times {
                let world = runtime.block_on(World::open(folder.path()));
                let began = world.env.monotonic();
                let log = LogId::from(&conversation);
                let state = runtime.block_on(world.state(&log));
                taken += world.env.monotonic().checked_sub(began).unwrap();
                assert!(state["messages"].as_array().unwrap().len() >= 2 * TURNS);
                runtime.block_on(world.close());
            }
            taken
        });
    });
    group.finish();
}

criterion_group!(journal, one_run, many_runs, resume);
criterion_main!(journal);
