//! Passes that remove the records of a few runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exile_engine::env::{Env as _, SystemEnv};
use exile_server::store::{self, Store};
use jiff::Timestamp;
use sqlx::ConnectOptions as _;
use tokio::runtime::Runtime;

/// Passes over each home.
const PASSES: u32 = 10;
/// Runs whose records a pass removes.
const RUNS: u32 = 50;
/// After the end of every run that was seeded, and before that of any other.
const BEFORE_MS: i64 = 1_767_229_200_000;

/// How long each pass took over homes of [`seed::runs`](super::seed::runs), in turns.
pub fn passes(env: &SystemEnv, homes: [PathBuf; 2]) -> [Vec<Duration>; 2] {
    Runtime::new().unwrap().block_on(async {
        let files = homes.map(|home| home.join("exile.db"));
        let mut times = [Vec::new(), Vec::new()];
        for pass in 0..PASSES {
            for (file, times) in files.iter().zip(&mut times) {
                let mut connection = store::options(file).connect().await.unwrap();
                sqlx::query(
                    "UPDATE exile_log SET changed = 1767225600000 WHERE key > ?1 AND key <= ?1 + ?2",
                )
                .bind(1_000_000 + pass * RUNS)
                .bind(RUNS)
                .execute(&mut connection)
                .await
                .unwrap();
                drop(connection);
                let store = Store::open(file, Arc::new(SystemEnv::new())).await.unwrap();
                let before = Timestamp::from_millisecond(BEFORE_MS).unwrap();
                let began = env.monotonic();
                let purged = store.purge(before).await.unwrap();
                times.push(env.monotonic().saturating_sub(began));
                assert_eq!(purged.logs, u64::from(RUNS));
            }
        }
        times
    })
}
