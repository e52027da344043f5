//! Rows: the only folder that names sqlx, over one SQLite file.
//!
//! | file | holds |
//! |---|---|
//! | `writer.rs` | the one connection that writes, and transactions on it |
//! | `error.rs` | what can go wrong, and what it means |
//! | `journal.rs` | the engine's journal, and a table of the files that it is made of |
//! | `retention.rs`, `retention/` | removing what is old |
//! | `codec.rs` | how values stand in columns |
//! | `page.rs` | lists in pages, behind opaque cursors |
//! | `token.rs` | tokens of which only a digest is stored |
//! | the rest | one table each |
//!
//! Invariants:
//! - Every read of an owned row takes the owner and answers nothing for somebody else's.
//! - SQL is text known at compile time; what comes from outside is bound.
//! - Message and run rows are written by the journal alone, with the records they come from; usage
//!   rows at the latest with the record of their call.
//! - Whoever opens the file holds the home's lock: leases and half-done requests that are found
//!   there belong to a process that is gone.

mod append;
mod backup;
mod blobs;
mod codec;
mod conversations;
mod error;
mod everybody;
mod failpoints;
mod history;
mod idempotency;
mod journal;
mod key_cache;
mod keys;
mod messages;
mod page;
mod park;
mod projection;
mod quotas;
mod records;
mod removal;
mod retention;
mod runs;
mod sign_in;
mod skills;
mod spent;
mod standing;
#[cfg(test)]
mod tests;
mod token;
mod usage;
mod usage_report;
mod users;
mod writer;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use exile_engine::env::Env;
use jiff::Timestamp;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, SqliteConnection};
use tokio::sync::Mutex;

pub use backup::{BackupError, back_up};
pub use conversations::{Conversation, Deletion, NewConversation};
pub use error::StoreError;
pub use everybody::OpenRuns;
#[cfg(feature = "failpoints")]
pub use failpoints::with_rival;
pub use idempotency::{Idempotent, KeyUse, StoredAnswer};
pub use keys::{ApiKey, KeyOwner, NewKey};
pub use messages::MessageRow;
pub use page::{Listed, Page};
pub use removal::Removal;
pub use retention::Purged;
pub use runs::{RunFilter, RunRow, RunStatus};
pub use sign_in::SessionOwner;
pub use skills::SkillRow;
pub use spent::{MINUTE_MS, QUARTER_MS, Spender, Spent};
pub use standing::Standing;
pub use usage::{CANCELLED, OK, OPEN, UsageRow};
pub use usage_report::{Group, GroupKey, Grouping, Spending, UsageFilter};
pub use users::{Changed, Role, User, UserChange};
use writer::Writer;

/// Oldest SQLite that is safe: 3.7.0 to 3.51.2 can corrupt a file when the WAL is reset.
const OLDEST_SQLITE: [u32; 3] = [3, 51, 3];

/// Connections that only read.
const READERS: u32 = 4;

/// What the writing connection keeps of the file in memory, as SQLite spells 8 MiB: the tail of
/// every log that is written to.
const WRITER_CACHE: &str = "-8192";

/// How long one connection waits for another one's lock.
const BUSY: Duration = Duration::from_secs(5);

/// The table in which applied migrations are noted.
const MIGRATION_TABLE: &str = "exile_migration";

/// All rows of one home. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    writer: Writer,
    queue: append::Queue,
    usage: usage::Pending,
    keys: key_cache::KeyCache,
    names: users::Names,
    damage: OnceLock<String>,
    /// The owner of the log that was claimed last.
    turn: Mutex<String>,
    readers: SqlitePool,
    env: Arc<dyn Env>,
}

impl Store {
    /// Opens the file, makes it or brings it up to date, and clears what a dead process left.
    ///
    /// # Errors
    /// [`StoreError::NotOpened`], with the reason: another program holds the file, it is damaged or
    /// of a newer exile, it holds tables named like ours that are not ours, the SQLite library is not
    /// safe.
    pub async fn open(path: &Path, env: Arc<dyn Env>) -> Result<Self, StoreError> {
        Self::open_file(path, env).await.map_err(|why| why.opening(path))
    }

    async fn open_file(path: &Path, env: Arc<dyn Env>) -> Result<Self, StoreError> {
        failpoints::arm();
        let options = options(path);
        let writer = Writer::new(options.clone().pragma("cache_size", WRITER_CACHE));
        let mut write = writer.lock().await?;
        check_library(write.connection()).await?;
        migrate(write.connection()).await?;
        drop(write);
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(2 * BUSY)
            .test_before_acquire(false)
            .connect_lazy_with(options.read_only(true).create_if_missing(false));
        let (queue, usage, keys, names, damage, turn) = Default::default();
        let shared = Shared { writer, queue, usage, keys, names, damage, turn, readers, env };
        let store = Self { shared: Arc::new(shared) };
        store.clear_leases().await?;
        store.lose_open_usage().await?;
        store.release_all_idempotent().await?;
        Ok(store)
    }

    /// Whether rows can be read and written now.
    pub async fn ping(&self) -> Result<(), StoreError> {
        if let Some(damage) = self.shared.damage.get() {
            return Err(StoreError::Damaged(damage.clone()));
        }
        sqlx::query("SELECT count(*) FROM exile_probe").fetch_one(&self.shared.readers).await?;
        // Two pages' worth, so that a full disk shows; taken away in the same transaction.
        let mut write = self.begin().await?;
        sqlx::query("INSERT INTO exile_probe (id, body) VALUES (1, zeroblob(8192))")
            .execute(write.connection())
            .await?;
        sqlx::query("DELETE FROM exile_probe").execute(write.connection()).await?;
        write.commit().await
    }

    /// Looks through the whole file for damage, without holding it; `None`: there is none. What is
    /// found makes [`ping`](Self::ping) fail from now on.
    pub async fn check(&self) -> Result<Option<String>, StoreError> {
        let found = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(self.readers()).await;
        let found: Result<String, StoreError> = found.map_err(Into::into);
        let damage = match found {
            Ok(text) if text == "ok" => return Ok(None),
            Ok(text) | Err(StoreError::Damaged(text)) => text,
            Err(error) => return Err(error),
        };
        let _ = self.shared.damage.set(damage.clone());
        Ok(Some(damage))
    }

    /// Waits for what is being written and closes every connection. Later calls fail.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.shared.readers.close().await;
        self.shared.writer.close().await
    }

    /// Lets the file grow to that many pages and no further: what a full disk does, on purpose.
    pub async fn limit_pages(&self, pages: u32) -> Result<(), StoreError> {
        self.shared.writer.limit_pages(pages).await
    }

    /// Does something as a task of its own, so that a caller that leaves does not stop it half-way,
    /// stored and not applied.
    async fn to_its_end<T: Send + 'static>(
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let ended = |error: tokio::task::JoinError| StoreError::Unavailable(error.to_string());
        tokio::spawn(work).await.map_err(ended)?
    }

    fn readers(&self) -> &SqlitePool {
        &self.shared.readers
    }

    fn env(&self) -> &dyn Env {
        &*self.shared.env
    }

    /// The time as rows keep it, in whole milliseconds, so that what is read is what was said.
    fn now(&self) -> Timestamp {
        let now = self.shared.env.now();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    /// The writing connection, for one statement, which is a transaction by itself.
    async fn write(&self) -> Result<writer::Write<'_>, StoreError> {
        self.shared.writer.lock().await
    }

    /// The writing connection, in a transaction that ends with `commit`.
    async fn begin(&self) -> Result<writer::Write<'_>, StoreError> {
        self.shared.writer.begin().await
    }
}

/// How every connection to the file is opened.
#[must_use]
pub fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        .disable_statement_logging()
}

async fn check_library(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(connection).await?;
    if is_safe(&found) { Ok(()) } else { Err(StoreError::TooOld { found }) }
}

fn is_safe(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0)) >= OLDEST_SQLITE
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let foreign: Option<String> = sqlx::query_scalar(
        r"SELECT name FROM sqlite_schema
          WHERE name LIKE 'exile\_%' ESCAPE '\' AND type IN ('table', 'view')
            AND NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)
          ORDER BY name LIMIT 1",
    )
    .bind(MIGRATION_TABLE)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(table) = foreign {
        return Err(StoreError::Foreign { table });
    }
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
        .fetch_one(&mut *connection)
        .await?;
    if tables > 0 {
        return Ok(migrations().run(connection).await?);
    }
    // Nothing is in a new file that could be lost: what a power failure takes of it is made again,
    // and the first commit afterwards syncs all of it.
    sqlx::query("PRAGMA synchronous = OFF").execute(&mut *connection).await?;
    let migrated = migrations().run(&mut *connection).await;
    sqlx::query("PRAGMA synchronous = FULL").execute(connection).await?;
    Ok(migrated?)
}

fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!("../migrations/sqlite");
    migrations.dangerous_set_table_name(MIGRATION_TABLE);
    migrations
}
