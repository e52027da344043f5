//! Being told that files of a folder change.

use std::path::Path;
use std::sync::Arc;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Tells of every change in a folder, in `skills/` there, and of the folder itself, for as long as
/// the watcher lives. What is not there is told of when it comes.
pub(super) fn watch(folder: &Path, told: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let folder = std::path::absolute(folder).map_err(notify::Error::io)?;
    // The folder may be moved, or be a link that is set anew: its parent knows.
    let parent = folder.parent().unwrap_or(&folder).to_owned();
    let (this, beside, told) = (folder.clone(), parent.clone(), told.clone());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // An error may stand for events that are lost.
        if event.is_ok_and(|event| !concerns(&event, &this, &beside)) {
            return;
        }
        told.notify_one();
    })?;
    for path in [&parent, &folder, &folder.join("skills")] {
        if path == &parent || path.is_dir() {
            watcher.watch(path, RecursiveMode::NonRecursive)?;
        }
    }
    Ok(watcher)
}

/// Whether an event may mean other content: not one that a reader causes (exile reads, too), and
/// not one about a neighbour of the folder.
pub(super) fn concerns(event: &Event, folder: &Path, parent: &Path) -> bool {
    let neighbour = |path: &Path| path != folder && path.parent() == Some(parent);
    let neighbours = !event.paths.is_empty() && event.paths.iter().all(|path| neighbour(path));
    event.need_rescan() || !(event.kind.is_access() || neighbours)
}
