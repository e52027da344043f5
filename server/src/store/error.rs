//! What can go wrong with the rows, by what the caller can do about it.

use std::path::{Path, PathBuf};

use exile_engine::id::LogId;
use exile_engine::journal::JournalError;
use exile_engine::model::Retry;
use sqlx::migrate::MigrateError;

/// Why the store did not do what was asked. Nothing is half done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room to write: disk, quota or read-only file.
    #[error("the database cannot be written: {0}")]
    Full(String),
    /// It did not answer.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// Another program holds it, and has not let go in time.
    #[error("another program holds the database ({0})")]
    Held(String),
    /// What is stored cannot be read.
    #[error("the database holds what cannot be read: {0}")]
    Corrupt(String),
    /// The file itself is no database, or is one no more.
    #[error("the database file is damaged: {0}")]
    Damaged(String),
    /// The file cannot be opened.
    #[error("{}: {why}; {}", path.display(), remedy(why))]
    NotOpened {
        /// Which.
        path: PathBuf,
        /// Why.
        why: Box<StoreError>,
    },
    /// A same-named table that is not ours.
    #[error(
        "the database already has a table `{table}` that exile did not make; \
         point exile at another file"
    )]
    Foreign {
        /// Its name.
        table: String,
    },
    /// The SQLite library can corrupt a file.
    #[error("SQLite {found} is not safe; exile needs 3.51.3 or newer")]
    TooOld {
        /// The library's version.
        found: String,
    },
    /// A name that must be unique is in use.
    #[error("the name `{0}` is taken")]
    Taken(String),
    /// Records that the answer needs were removed, as the retention says.
    #[error("records of {0} that this needs were removed, because they were old")]
    Purged(LogId),
    /// What this is about was deleted in the meantime.
    #[error("there is no {0} any more")]
    Gone(String),
    /// A cursor that no list gave out.
    #[error("the cursor is not one that a list gave out")]
    Cursor,
}

impl StoreError {
    /// Whether the same call can succeed later. No wildcard arm.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Full(_) | Self::Unavailable(_) | Self::Held(_) => Retry::Backoff,
            Self::NotOpened { why, .. } => why.retry(),
            Self::Corrupt(_)
            | Self::Damaged(_)
            | Self::Foreign { .. }
            | Self::TooOld { .. }
            | Self::Taken(_)
            | Self::Purged(_)
            | Self::Gone(_)
            | Self::Cursor => Retry::Never,
        }
    }

    /// The same, of a file that could not be opened.
    pub(super) fn opening(self, path: &Path) -> Self {
        Self::NotOpened { path: path.to_owned(), why: Box::new(self) }
    }

    /// A stored value that is not of its type.
    pub(crate) fn unreadable(what: &str, why: impl std::fmt::Display) -> Self {
        Self::Corrupt(format!("{what}: {why}"))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().and_then(|c| c.parse::<i32>().ok());
                from_code(code, error.to_string())
            }
            sqlx::Error::RowNotFound
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => {
                Self::Full(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// What to do about a file that cannot be opened. No wildcard arm.
fn remedy(why: &StoreError) -> &'static str {
    match why {
        StoreError::Full(_) => {
            "free some disk space, and let the user that exile runs as write the file and its folder"
        }
        StoreError::Unavailable(_) | StoreError::Held(_) => {
            "end what uses the file (another exile, a backup, a shell of sqlite3) and start again"
        }
        StoreError::Damaged(_) => {
            "nothing was changed: put the last backup in its place, or save what can be read with \
             `sqlite3 FILE .recover`"
        }
        StoreError::Foreign { .. } => "`--home` says where exile keeps its own",
        StoreError::TooOld { .. } => "build exile with the SQLite that it brings along",
        StoreError::Corrupt(_)
        | StoreError::NotOpened { .. }
        | StoreError::Taken(_)
        | StoreError::Purged(_)
        | StoreError::Gone(_)
        | StoreError::Cursor => {
            "start the exile that wrote it, or put the backup in its place that was made before"
        }
    }
}

/// Sorts SQLite's result codes (<https://www.sqlite.org/rescode.html>); the low byte is the class.
pub(super) fn from_code(code: Option<i32>, message: String) -> StoreError {
    match code {
        // CONSTRAINT_FOREIGNKEY: the row that this one belongs to was deleted.
        Some(787) => return StoreError::Gone("row that this belongs to".to_owned()),
        // IOERR_DATA, IOERR_CORRUPTFS
        Some(8202 | 8458) => return StoreError::Damaged(message),
        // IOERR_UNLOCK, _RDLOCK, _CHECKRESERVEDLOCK, _LOCK, _SHMLOCK: locks, not room.
        Some(2058 | 2314 | 3594 | 3850 | 5130) => return StoreError::Unavailable(message),
        _ => {}
    }
    match code.map(|c| c & 0xff) {
        // READONLY, IOERR, FULL
        Some(8 | 10 | 13) => StoreError::Full(message),
        // BUSY, LOCKED
        Some(5 | 6) => StoreError::Held(message),
        // CORRUPT, NOTADB
        Some(11 | 26) => StoreError::Damaged(message),
        // CONSTRAINT, MISMATCH
        Some(19 | 20) => StoreError::Corrupt(message),
        _ => StoreError::Unavailable(message),
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            MigrateError::VersionMissing(_) => {
                Self::Corrupt(format!("it was written by a newer exile ({error})"))
            }
            _ => Self::Corrupt(error.to_string()),
        }
    }
}

impl From<StoreError> for JournalError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(why) => Self::Full(why),
            StoreError::Unavailable(why) => Self::Unavailable(why),
            StoreError::Corrupt(why) => Self::Corrupt(why),
            StoreError::Damaged(why) => Self::Damaged(why),
            StoreError::Purged(log) => Self::Purged(log),
            StoreError::Gone(what) => Self::Gone(what),
            StoreError::Held(_)
            | StoreError::Foreign { .. }
            | StoreError::TooOld { .. }
            | StoreError::NotOpened { .. }
            | StoreError::Taken(_)
            | StoreError::Cursor => Self::Unavailable(error.to_string()),
        }
    }
}
