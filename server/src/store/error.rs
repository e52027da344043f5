//! What can go wrong with the rows, by what the caller can do about it.

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
    /// It did not answer, or is held by another process.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// What is stored cannot be read.
    #[error("the database holds what cannot be read: {0}")]
    Corrupt(String),
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
            Self::Full(_) | Self::Unavailable(_) => Retry::Backoff,
            Self::Corrupt(_)
            | Self::Foreign { .. }
            | Self::TooOld { .. }
            | Self::Taken(_)
            | Self::Purged(_)
            | Self::Gone(_)
            | Self::Cursor => Retry::Never,
        }
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

/// Sorts SQLite's result codes (<https://www.sqlite.org/rescode.html>); the low byte is the class.
pub(super) fn from_code(code: Option<i32>, message: String) -> StoreError {
    // CONSTRAINT_FOREIGNKEY: the row that this one belongs to was deleted.
    if code == Some(787) {
        return StoreError::Gone("row that this belongs to".to_owned());
    }
    match code.map(|c| c & 0xff) {
        // READONLY, IOERR, FULL
        Some(8 | 10 | 13) => StoreError::Full(message),
        // CORRUPT, CONSTRAINT, MISMATCH, NOTADB
        Some(11 | 19 | 20 | 26) => StoreError::Corrupt(message),
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
            StoreError::Purged(log) => Self::Purged(log),
            StoreError::Gone(what) => Self::Gone(what),
            StoreError::Foreign { .. }
            | StoreError::TooOld { .. }
            | StoreError::Taken(_)
            | StoreError::Cursor => Self::Unavailable(error.to_string()),
        }
    }
}
