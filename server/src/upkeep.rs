//! What a server does by itself, beside requests and runs: it removes what is old.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often.
const DAY: Duration = Duration::from_hours(24);

/// Removes records of runs that ended longer than `keep` ago, at the start and then once a day;
/// `None`: everything stays.
pub async fn serve(app: Arc<App>, keep: Option<Duration>, stop: CancellationToken) {
    let Some(keep) = keep else { return };
    // One that does not fit is longer than time has been measured: nothing is that old.
    let Ok(keep) = SignedDuration::try_from(keep) else { return };
    loop {
        tokio::select! {
            () = purge(&app, keep) => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(DAY) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn purge(app: &App, keep: SignedDuration) {
    let Ok(older_than) = app.env.now().checked_sub(keep) else { return };
    match app.store.purge(older_than).await {
        Ok(purged) => {
            let (logs, records, blobs) = (purged.logs, purged.records, purged.blobs);
            tracing::info!(%older_than, logs, records, blobs, "removed what is old");
        }
        Err(error) => tracing::warn!(%error, "could not remove what is old; tries again in a day"),
    }
}
