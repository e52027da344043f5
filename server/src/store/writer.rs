//! The one connection that writes.
//!
//! Invariants:
//! - Writers take turns, in the order in which they came. Who gets none in time is told: behind a
//!   lock of another program, each would else wait for all before it.
//! - A transaction that is dropped before its end (an error, a caller that went away) leaves no
//!   trace: its connection is closed, which rolls back, and the next writer opens another. SQLite
//!   itself ends some transactions when the disk is full; a connection in doubt is never reused.
//! - A connection that cannot write is never kept: SQLite opens a file that may not be written for
//!   reading, and would refuse with that connection also once the file may be written again.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::{BUSY, StoreError, failpoints};

const NO_TURN: &str = "it was not free to write for 5 s, or the disk is slow";

/// Hands out the writing connection.
pub(super) struct Writer {
    options: SqliteConnectOptions,
    slot: Mutex<Option<SqliteConnection>>,
    /// The connection in the slot may be inside a transaction that nobody will end.
    doubtful: AtomicBool,
    /// Pages that the file may have; 0: no limit.
    pages: AtomicU32,
}

/// The writing connection, held until dropped.
pub(super) struct Write<'a> {
    connection: MappedMutexGuard<'a, SqliteConnection>,
    doubtful: &'a AtomicBool,
    in_transaction: bool,
}

impl Writer {
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        Self {
            options,
            slot: Mutex::new(None),
            doubtful: AtomicBool::new(false),
            pages: AtomicU32::new(0),
        }
    }

    /// Waits for its turn; opens the connection if there is none to be trusted.
    pub(super) async fn lock(&self) -> Result<Write<'_>, StoreError> {
        failpoints::between().await;
        let turn = tokio::time::timeout(BUSY, self.slot.lock()).await;
        let mut slot = turn.map_err(|_| StoreError::Held(NO_TURN.to_owned()))?;
        if self.doubtful.load(Ordering::Acquire) {
            *slot = None;
            self.doubtful.store(false, Ordering::Release);
        }
        if slot.is_none() {
            *slot = Some(self.connect().await?);
        }
        let connection = MutexGuard::try_map(slot, Option::as_mut)
            .map_err(|_| StoreError::Unavailable("it is closed".to_owned()))?;
        Ok(Write { connection, doubtful: &self.doubtful, in_transaction: false })
    }

    /// Like [`lock`](Self::lock), in a transaction.
    pub(super) async fn begin(&self) -> Result<Write<'_>, StoreError> {
        let mut write = self.lock().await?;
        sqlx::query("BEGIN IMMEDIATE").execute(write.transaction()).await?;
        Ok(write)
    }

    /// Waits for its turn and closes the connection.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        match self.slot.lock().await.take() {
            Some(connection) => Ok(connection.close().await?),
            None => Ok(()),
        }
    }

    /// Sets the limit of pages for every connection from now on.
    pub(super) async fn limit_pages(&self, pages: u32) -> Result<(), StoreError> {
        self.pages.store(pages, Ordering::Relaxed);
        self.close().await
    }

    async fn connect(&self) -> Result<SqliteConnection, StoreError> {
        let options = self.options.clone();
        let options = match self.pages.load(Ordering::Relaxed) {
            0 => options,
            pages => options.pragma("max_page_count", pages.to_string()),
        };
        let mut connection = options.connect().await?;
        // Of a file that was opened for reading alone, SQLite begins such a transaction all the same:
        // only what writes is refused.
        let writes = "BEGIN IMMEDIATE; PRAGMA user_version = 0; ROLLBACK";
        sqlx::raw_sql(writes).execute(&mut connection).await?;
        Ok(connection)
    }
}

impl Write<'_> {
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// The connection, for a statement that begins a transaction itself.
    pub(super) fn transaction(&mut self) -> &mut SqliteConnection {
        self.in_transaction = true;
        &mut self.connection
    }

    /// Makes what was written durable. What follows is outside the transaction.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        sqlx::query("COMMIT").execute(self.connection()).await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Takes back what was written and keeps the connection: the cheap way out of a transaction
    /// that found nothing to do.
    pub(super) async fn rollback(mut self) -> Result<(), StoreError> {
        sqlx::query("ROLLBACK").execute(self.connection()).await?;
        self.in_transaction = false;
        Ok(())
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        if self.in_transaction {
            self.doubtful.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_reads_alone_is_never_handed_out() {
        let folder = tempfile::tempdir().unwrap();
        let options = super::super::options(&folder.path().join("exile.db"));
        let writer = Writer::new(options.clone());
        drop(writer.lock().await.unwrap());
        writer.close().await.unwrap();
        let reader = Writer::new(options.create_if_missing(false).read_only(true));
        for _ in 0..2 {
            let refused = reader.lock().await.err().unwrap();
            assert!(matches!(refused, StoreError::Full(_)), "{refused:?}");
        }
    }
}
