//! What the store promises, over a database file of its own per test.

mod access;
mod forks;
mod idempotency;
mod journal;
mod plans;
mod retention;
mod rows;
mod usage;
mod write;

use std::path::PathBuf;
use std::sync::Arc;

use exile_engine::env::StepEnv;
use exile_server::store::Store;
use sqlx::ConnectOptions as _;
use tempfile::TempDir;

/// Bytes of a page, far more than any test has.
pub(crate) const PAGE: usize = 1 << 20;

/// A store and the folder that it lives in.
pub(crate) struct Home {
    folder: TempDir,
    pub(crate) env: Arc<StepEnv>,
    pub(crate) store: Store,
}

impl Home {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let env = Arc::new(StepEnv::new());
        let store = Store::open(&folder.path().join("exile.db"), env.clone()).await.unwrap();
        Self { folder, env, store }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("exile.db")
    }

    /// What a run was given, as its row has it.
    pub(crate) async fn input(&self, run: &str) -> serde_json::Value {
        let mut connection =
            exile_server::store::options(&self.database()).connect().await.unwrap();
        let input: String = sqlx::query_scalar("SELECT input FROM exile_run WHERE id = ?1")
            .bind(run)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        serde_json::from_str(&input).unwrap()
    }

    /// Drops every connection, as a process does that dies, and opens the file again.
    pub(crate) async fn reopen(self) -> Self {
        let Self { folder, env, store } = self;
        drop(store);
        let store = Store::open(&folder.path().join("exile.db"), env.clone()).await.unwrap();
        Self { folder, env, store }
    }
}
