//! What a server does by itself, beside requests and runs: it removes what is old.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often.
const DAY: Duration = Duration::from_hours(24);

/// Removes records of runs that ended, and usage of calls that were made, longer than that ago, at
/// the start and then once a day; `None`: everything stays.
pub async fn serve(
    app: Arc<App>,
    (records, usage): (Option<Duration>, Option<Duration>),
    stop: CancellationToken,
) {
    // One that does not fit is longer than time has been measured: nothing is that old.
    let before = |keep: Option<Duration>| {
        let keep = SignedDuration::try_from(keep?).ok()?;
        app.env.now().checked_sub(keep).ok()
    };
    if records.is_none() && usage.is_none() {
        return;
    }
    loop {
        let purging = async {
            if let Some(older_than) = before(records) {
                purge(&app, older_than).await;
            }
            if let Some(older_than) = before(usage) {
                purge_usage(&app, older_than).await;
            }
        };
        tokio::select! {
            () = purging => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(DAY) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn purge_usage(app: &App, older_than: Timestamp) {
    match app.store.purge_usage(older_than).await {
        Ok(rows) => tracing::info!(%older_than, rows, "removed old usage"),
        Err(error) => tracing::warn!(%error, "could not remove old usage; tries again in a day"),
    }
}

async fn purge(app: &App, older_than: Timestamp) {
    match app.store.purge(older_than).await {
        Ok(purged) => {
            let (logs, records, blobs) = (purged.logs, purged.records, purged.blobs);
            tracing::info!(%older_than, logs, records, blobs, "removed what is old");
        }
        Err(error) => tracing::warn!(%error, "could not remove what is old; tries again in a day"),
    }
}
