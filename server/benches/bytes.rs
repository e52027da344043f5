//! What is on the disk after work, once the log of writes has moved into the file. One JSON line
//! for each figure.
//!
//! `cargo bench -p exile-server --bench bytes`.
#![allow(missing_docs, unreachable_pub, dead_code, reason = "a benchmark")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a benchmark")]

mod world;

use std::path::Path;

use serde_json::json;
use tokio::runtime::Runtime;

use world::World;

const STEPS: u64 = 20_000;
const TURNS: usize = 500;

fn main() {
    let runtime = Runtime::new().unwrap();
    let empty = runtime.block_on(empty());
    let steps = runtime.block_on(steps());
    let each = steps.saturating_sub(empty) / STEPS;
    println!("{}", json!({ "figure": "bytes_per_step", "value": each, "steps": STEPS }));
    let turns = runtime.block_on(turns());
    println!("{}", json!({ "figure": "bytes_of_500_turns", "value": turns }));
}

async fn empty() -> u64 {
    let folder = world::folder();
    World::open(folder.path()).await.close().await;
    size(folder.path())
}

async fn steps() -> u64 {
    let folder = world::folder();
    let world = World::open(folder.path()).await;
    world.count(STEPS).await;
    world.close().await;
    size(folder.path())
}

async fn turns() -> u64 {
    let folder = world::folder();
    let world = World::open(folder.path()).await;
    world.conversation(TURNS).await;
    world.close().await;
    size(folder.path())
}

/// Of every file in the home.
fn size(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder.join("home")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}
