//! What the store promises, over a database file of its own per test.

mod access;
mod forks;
mod idempotency;
mod journal;
mod retention;
mod rows;
mod usage;
mod write;

use std::path::PathBuf;
use std::sync::Arc;

use exile_engine::env::StepEnv;
use exile_server::store::Store;
use tempfile::TempDir;

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

    /// Drops every connection, as a process does that dies, and opens the file again.
    pub(crate) async fn reopen(self) -> Self {
        let Self { folder, env, store } = self;
        drop(store);
        let store = Store::open(&folder.path().join("exile.db"), env.clone()).await.unwrap();
        Self { folder, env, store }
    }
}
