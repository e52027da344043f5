//! The library that serves now, and how it follows the files of its folder.
//!
//! Invariants:
//! - A reader takes the library once ([`Current::now`]) and sees that one to its end.
//! - No edit is lost: a folder is watched before it is read, and what is told while it is read
//!   makes it be read again.
//! - What a start had no time for is looked at in the first turn.
//! - What serves after an edit is the engine's to say ([`Library::reload`]).

mod changes;
#[cfg(test)]
mod tests;
mod watching;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use exile_engine::bundle::Catalog;
use exile_engine::library::{Files, Library};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::changes::Change;

/// For how long nothing must be told before files are read: an editor saves in several steps.
const QUIET: Duration = Duration::from_millis(50);

/// After how long they are read all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a folder is read that cannot be watched.
const UNWATCHED: Duration = Duration::from_secs(2);

/// How often one is read that is watched: some network filesystems take the watch and never tell.
const WATCHED: Duration = Duration::from_secs(30);

/// The library that serves now.
#[derive(Clone, Debug)]
pub struct Current(watch::Sender<Arc<Library>>);

impl Current {
    /// Begins with this one.
    #[must_use]
    pub fn new(library: Library) -> Self {
        Self(watch::Sender::new(Arc::new(library)))
    }

    /// The library as it is; whoever needs it twice keeps it.
    #[must_use]
    pub fn now(&self) -> Arc<Library> {
        self.0.borrow().clone()
    }

    fn replace(&self, library: Library) {
        self.0.send_replace(Arc::new(library));
    }
}

/// Reloads the library whenever files of its folder change, until it is told to stop.
pub async fn follow(current: Current, folder: PathBuf, catalog: Catalog, stop: CancellationToken) {
    let follower = Follower { current, folder, catalog, watch: watching::watch };
    tokio::select! {
        () = stop.cancelled() => {}
        () = follower.follow() => {}
    }
}

/// `watch` makes what tells of changes for as long as it lives.
#[derive(Clone)]
struct Follower<W> {
    current: Current,
    folder: PathBuf,
    catalog: Catalog,
    watch: W,
}

impl<W, G> Follower<W>
where
    W: Fn(&Path, &Arc<Notify>) -> notify::Result<G> + Clone + Send + 'static,
    G: Send + 'static,
{
    async fn follow(self) {
        let told = Arc::new(Notify::new());
        let mut watcher;
        let mut blind = false;
        loop {
            let (follower, told_too) = (self.clone(), told.clone());
            let turn = spawn_blocking(move || {
                // A new watch each time, and before the reading: the folder may be another one by
                // that name. The one before lives until this one does.
                let watch = (follower.watch)(&follower.folder, &told_too);
                follower.reload();
                watch
            });
            let turn = turn.await;
            watcher = self.watcher(turn, blind);
            blind = watcher.is_none();
            let pause = if blind { UNWATCHED } else { WATCHED };
            // Told or not, it is time to look.
            let _ = timeout(pause, told.notified()).await;
            let quiet = async { while timeout(QUIET, told.notified()).await.is_ok() {} };
            let _ = timeout(PATIENCE, quiet).await;
        }
    }

    /// What a turn made. That a folder cannot be watched is said once.
    fn watcher(&self, turn: Result<notify::Result<G>, JoinError>, blind: bool) -> Option<G> {
        let folder = self.folder.display();
        match turn {
            Ok(Ok(watcher)) => return Some(watcher),
            Ok(Err(_)) if blind => {}
            Ok(Err(error)) => {
                let seconds = UNWATCHED.as_secs();
                tracing::warn!(
                    "{folder} cannot be watched ({error}); it is read every {seconds} seconds"
                );
            }
            Err(error) => tracing::error!(%error, "{folder} could not be loaded again"),
        }
        None
    }

    fn reload(&self) {
        let files = Files::read(&self.folder, &self.catalog.limits.files);
        let before = self.current.now();
        if *before.files() == files && !before.is_unfinished() {
            return;
        }
        let after = before.reload(files, &self.catalog);
        let changes = changes::between(&before, &after);
        self.current.replace(after);
        for change in changes {
            match change {
                Change::Good(line) => tracing::info!("{line}"),
                Change::Bad(line) => tracing::warn!("{line}"),
            }
        }
    }
}
