//! A copy of a home's rows, made while a server may go on writing them.
//!
//! Invariants:
//! - A copy is the rows as they were at one moment, in one file that needs no other.
//! - It is there whole or not at all, and what is there already is never replaced.
//! - It was read back and found sound before it gets its name.
//! - Absent on purpose: the home's lock. Whoever copies only reads, which a server does not notice.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::{MIGRATION_TABLE, StoreError, options};

/// Why there is no copy. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There are no rows of exile.
    #[error("{} holds nothing to back up: no server has been started with this home", .0.display())]
    Nothing(PathBuf),
    /// A file of that name is there.
    #[error("{} is there already; name another file, or move that one away", .0.display())]
    Exists(PathBuf),
    /// The copy's name or folder cannot be used.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The rows cannot be read, or the copy not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The copy does not read as it should: the original is damaged.
    #[error("the rows are damaged and were not copied: {0}; restore an earlier backup")]
    Damaged(String),
}

/// Copies the rows in `database` to a new file and says how many bytes it has.
///
/// # Errors
/// See [`BackupError`].
pub async fn back_up(database: &Path, copy: &Path) -> Result<u64, BackupError> {
    let failed = |source| BackupError::File { path: copy.to_owned(), source };
    if copy.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(copy.to_owned()));
    }
    let named = copy.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
    let folder = copy.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize().map_err(failed)?;
    let draft = Draft::beside(&folder, named);
    vacuum(database, &draft.0).await?;
    check(&draft.0).await?;
    let file = File::open(&draft.0).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    give_name(&draft.0, &folder.join(named)).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(copy.to_owned()),
        _ => failed(source),
    })?;
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(file.metadata().map_err(failed)?.len())
}

/// Gives a draft its name, which nothing has that came there in the meantime.
fn give_name(draft: &Path, name: &Path) -> io::Result<()> {
    match fs::hard_link(draft, name) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // Not every file system has links.
            if name.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(draft, name)
        }
        done => done,
    }
}

/// A file that is gone again whatever happens.
struct Draft(PathBuf);

impl Draft {
    fn beside(folder: &Path, name: &std::ffi::OsStr) -> Self {
        let mut draft = name.to_owned();
        draft.push(format!(".{}.part", std::process::id()));
        Self(folder.join(draft))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // One that was never made is gone already.
        let _ = fs::remove_file(&self.0);
    }
}

async fn vacuum(database: &Path, to: &Path) -> Result<(), BackupError> {
    if !database.is_file() {
        return Err(BackupError::Nothing(database.to_owned()));
    }
    let options = options(database).create_if_missing(false);
    let mut connection = options.connect().await.map_err(StoreError::from)?;
    let ours: Option<String> = sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE name = ?1")
        .bind(MIGRATION_TABLE)
        .fetch_optional(&mut connection)
        .await
        .map_err(StoreError::from)?;
    if ours.is_none() {
        return Err(BackupError::Nothing(database.to_owned()));
    }
    let name = to.to_str().ok_or_else(|| BackupError::File {
        path: to.to_owned(),
        source: io::ErrorKind::InvalidFilename.into(),
    })?;
    let copied = sqlx::query("VACUUM INTO ?1").bind(name).execute(&mut connection).await;
    copied.map_err(|error| damage_of(error.into()))?;
    connection.close().await.map_err(StoreError::from)?;
    Ok(())
}

/// Reads the whole copy. It is left as it was copied: a file by itself, without a log beside it.
async fn check(copy: &Path) -> Result<(), BackupError> {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(copy)
        .read_only(true)
        .disable_statement_logging();
    let mut connection: SqliteConnection = options.connect().await.map_err(StoreError::from)?;
    let found: String = sqlx::query_scalar("PRAGMA integrity_check(1)")
        .fetch_one(&mut connection)
        .await
        .map_err(|error| damage_of(error.into()))?;
    connection.close().await.map_err(StoreError::from)?;
    if found == "ok" { Ok(()) } else { Err(BackupError::Damaged(found)) }
}

fn damage_of(error: StoreError) -> BackupError {
    match error {
        StoreError::Corrupt(why) => BackupError::Damaged(why),
        other => BackupError::Store(other),
    }
}
