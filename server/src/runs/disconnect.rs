//! What becomes of a run whose caller leaves before it has come to rest.

use std::sync::Arc;

use exile_engine::id::{LogId, RunId};
use exile_engine::run::engine::Engine;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// What a caller wants of a run that it no longer waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDisconnect {
    /// It goes on.
    #[default]
    Continue,
    /// It is cancelled.
    Cancel,
}

/// Held while a caller is there. Dropped with the request, before the run has come to rest, it
/// does what the caller wanted; unless the server ends, which sends everybody away: then the run
/// goes on at the next start.
pub struct CancelOnDisconnect(Option<Wanted>);

/// What is done if the caller leaves.
struct Wanted {
    engine: Arc<Engine>,
    log: LogId,
    run: RunId,
    /// Each of them is cancelled when the server sends callers away.
    ends: [CancellationToken; 2],
}

impl CancelOnDisconnect {
    /// For a caller that waits for `run`, whose log is `log`. `ends`: each of them is cancelled when
    /// the server sends callers away.
    #[must_use]
    pub fn new(
        engine: &Arc<Engine>,
        (log, run): (LogId, &RunId),
        wanted: OnDisconnect,
        ends: [CancellationToken; 2],
    ) -> Self {
        let cancels = wanted == OnDisconnect::Cancel;
        Self(cancels.then(|| Wanted { engine: engine.clone(), log, run: run.clone(), ends }))
    }

    /// For a caller whose leaving means nothing.
    #[must_use]
    pub fn free() -> Self {
        Self(None)
    }

    /// The run came to rest: leaving means nothing any more.
    pub fn over(&mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDisconnect {
    fn drop(&mut self) {
        let (Some(wanted), Ok(runtime)) = (self.0.take(), Handle::try_current()) else { return };
        let Wanted { engine, log, run, ends } = wanted;
        if ends.iter().any(CancellationToken::is_cancelled) {
            return;
        }
        runtime.spawn(async move {
            if let Err(error) = engine.cancel(&log, &run).await {
                tracing::warn!(%run, %error, "its caller left, and it could not be cancelled");
            }
        });
    }
}
