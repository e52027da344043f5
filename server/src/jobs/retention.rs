//! Removes what is old, and looks whether the database file is sound.

use std::sync::Arc;
use std::time::Duration;

use exile_engine::env::Env;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::store::{Store, StoreError};

/// How often.
const DAY: Duration = Duration::from_hours(24);

/// Rows that are removed at once, so that nobody waits long for the disk.
const BATCH: u32 = 2000;

/// Removes records of runs that ended, and usage of calls that were made, longer than that ago
/// (`None`: they stay), and sums of usage that no quota counts any more, and looks for damage; at the
/// start and then once a day.
pub async fn serve(
    (store, env): (Store, Arc<dyn Env>),
    (records, usage): (Option<Duration>, Option<Duration>),
    stop: CancellationToken,
) {
    // One that does not fit is longer than time has been measured: nothing is that old.
    let before = |keep: Option<Duration>| {
        let keep = SignedDuration::try_from(keep?).ok()?;
        env.now().checked_sub(keep).ok()
    };
    loop {
        let purging = async {
            if let Some(older_than) = before(records) {
                purge(&store, older_than).await;
            }
            if let Some(older_than) = before(usage) {
                match purge_usage(&store, older_than).await {
                    Ok(rows) => tracing::info!(%older_than, rows, "removed old usage"),
                    Err(error) => failed(&error, "old usage"),
                }
            }
            if let Err(error) = purge_spent(&store, env.now()).await {
                failed(&error, "old sums of usage");
            }
            match store.check().await {
                Ok(None) => {}
                Ok(Some(damage)) => tracing::error!(
                    damage,
                    "the database file is damaged: stop exile and put the last backup in its place"
                ),
                Err(error) => tracing::warn!(%error, "could not look for damage in the database"),
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

fn failed(error: &StoreError, what: &str) {
    tracing::warn!(%error, "could not remove {what}; tries again in a day");
}

async fn purge_usage(store: &Store, older_than: Timestamp) -> Result<u64, StoreError> {
    let mut rows = 0;
    loop {
        let removed = store.purge_usage(older_than, BATCH).await?;
        rows += removed;
        if removed < u64::from(BATCH) {
            return Ok(rows);
        }
    }
}

async fn purge_spent(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    while store.purge_spent(now, BATCH).await? {}
    Ok(())
}

async fn purge(store: &Store, older_than: Timestamp) {
    match store.purge(older_than).await {
        Ok(purged) => {
            let (logs, records, blobs) = (purged.logs, purged.records, purged.blobs);
            tracing::info!(%older_than, logs, records, blobs, "removed what is old");
        }
        Err(error) => failed(&error, "what is old"),
    }
}
