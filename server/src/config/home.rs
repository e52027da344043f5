//! The home folder (`.exile/`): the database, the local key and who holds them.
//!
//! Invariants:
//! - At most one process has the home open: whoever holds the lock on `lock`. The kernel lets go
//!   of it when the process ends, however it ends.
//! - A folder made here, and every file, is for its owner alone (0700, 0600) and ignores itself in
//!   Git; a folder that was there keeps its permissions and its `.gitignore`.
//! - `server.json` is only a hint where the holder listens: whoever takes the home removes what an
//!   earlier one left, and who is asked there must prove that they hold it (`local_key.rs`).

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Secret;

/// A home folder that exists.
#[derive(Clone, Debug)]
pub struct Home {
    path: PathBuf,
}

/// The right to open what is in a home; given back when dropped.
#[derive(Debug)]
pub struct HeldHome {
    home: Home,
    _lock: File,
}

/// Where the holder of a home listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// E.g. `http://127.0.0.1:8080`.
    pub url: String,
    /// Its process.
    pub pid: u32,
}

/// Why a home cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}", path.display())]
pub struct HomeError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Home {
    /// Makes the folder if it is not there.
    pub fn at(path: &Path) -> Result<Self, HomeError> {
        let fail = |what| move |source| HomeError { what, path: path.to_owned(), source };
        let new = !path.exists();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(fail("cannot make the home"))?;
        let path = path.canonicalize().map_err(fail("cannot open the home"))?;
        let home = Self { path };
        if new {
            home.write(".gitignore", b"*\n")?;
        }
        Ok(home)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        Self::database_in(&self.path)
    }

    /// The database of a home that need not be there.
    #[must_use]
    pub fn database_in(home: &Path) -> PathBuf {
        home.join("exile.db")
    }

    /// Takes the home; `None` if another process has it.
    pub fn hold(&self) -> Result<Option<HeldHome>, HomeError> {
        let path = self.path.join("lock");
        let fail = |source| HomeError { what: "cannot lock", path: path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {
                // A process that was killed could not take its hint away.
                self.remove_hint();
                Ok(Some(HeldHome { home: self.clone(), _lock: file }))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(fail(source)),
        }
    }

    /// Where the holder says that it listens; `None` while it is starting.
    #[must_use]
    pub fn listening(&self) -> Option<Listening> {
        let text = fs::read(self.path.join("server.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn remove_hint(&self) {
        // A hint that stays behind misleads nobody: it proves nothing.
        let _ = fs::remove_file(self.path.join("server.json"));
    }

    /// Stores the admin key that the command line uses by itself. For the holder of the home.
    pub fn store_local_key(&self, key: &Secret) -> Result<(), HomeError> {
        self.write("local.key", format!("{}\n", key.expose()).as_bytes())
    }

    /// The admin key of this home; `None` before the first start.
    pub fn local_key(&self) -> Result<Option<Secret>, HomeError> {
        let path = self.path.join("local.key");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Secret::new(text.trim()))),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HomeError { what: "cannot read", path, source }),
        }
    }

    /// Replaces a file whole: a reader sees the old content or the new, never a part.
    fn write(&self, name: &str, content: &[u8]) -> Result<(), HomeError> {
        let (path, draft) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let write = || {
            let mut options = OpenOptions::new();
            options.create(true).truncate(true).write(true).mode(0o600);
            let mut file = options.open(&draft)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().map_err(|source| HomeError { what: "cannot write", path: path.clone(), source })
    }
}

impl HeldHome {
    /// The folder.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Says where this process listens.
    pub fn announce(&self, url: &str) -> Result<(), HomeError> {
        let listening = Listening { url: url.to_owned(), pid: std::process::id() };
        self.home.write("server.json", &serde_json::to_vec(&listening).unwrap_or_default())
    }
}

impl Drop for HeldHome {
    fn drop(&mut self) {
        self.home.remove_hint();
    }
}
