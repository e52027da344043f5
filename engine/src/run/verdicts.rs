//! Sending an input and waiting for what becomes of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::id::{InputId, LogId, RunId};
use crate::journal::{Input, JournalError, Verdict};
use crate::run::engine::{Engine, POLL};

/// How long a sender waits for the writer of the log. Longer than a turn of any driver takes;
/// a log whose process was lost is taken over later than that.
const PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Sends an input to a log, idempotent by `id`, and waits for what becomes of it. `None`: it is
    /// stored, and will be decided: nobody did so within ten seconds, or this process
    /// [drives](Self::drives) no runs.
    ///
    /// # Errors
    /// As of [`send`](Self::send), or the store could not be asked. While the store takes no writes
    /// nothing can be decided, so that is an error too.
    pub async fn submit(
        &self,
        log: &LogId,
        id: &InputId,
        input: &Input,
    ) -> Result<Option<Verdict>, JournalError> {
        self.send(log, id, input).await?;
        if !self.drives() {
            return self.shared.journal.verdict(log, id).await;
        }
        let decided = tokio::time::timeout(PATIENCE, self.decided(log, id)).await;
        decided.map_or(Ok(None), |verdict| verdict.map(Some))
    }

    /// Whether this process drives runs: [`serve`](Self::serve) was called.
    #[must_use]
    pub fn drives(&self) -> bool {
        self.drives.load(Ordering::Relaxed)
    }

    /// Ends a run, whether it has begun or not, and waits until that is decided; idempotent.
    ///
    /// # Errors
    /// As of [`submit`](Self::submit).
    pub async fn submit_cancel(
        &self,
        log: &LogId,
        run: &RunId,
    ) -> Result<Option<Verdict>, JournalError> {
        self.submit(log, &cancel_id(run), &Input::Cancel { run: run.clone() }).await
    }

    async fn decided(&self, log: &LogId, id: &InputId) -> Result<Verdict, JournalError> {
        let down = self.store_is_down();
        tokio::pin!(down);
        loop {
            // Listened to before the question: what happens in between is not missed.
            let tells = self.shared.verdicts.of(id);
            let told = tells.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if let Some(verdict) = self.shared.journal.verdict(log, id).await? {
                return Ok(verdict);
            }
            let silent = tokio::select! {
                // A decision in another process is met by asking the journal.
                () = tokio::time::sleep(POLL) => true,
                () = &mut told => false,
                why = &mut down => return Err(JournalError::Full(why)),
            };
            if silent {
                self.ensure_sent(log, id).await?;
            }
        }
    }
    /// An input that is neither unread nor decided was deleted, with its log.
    async fn ensure_sent(&self, log: &LogId, id: &InputId) -> Result<(), JournalError> {
        let unread = self.shared.journal.inbox(log).await?.iter().any(|(unread, _)| unread == id);
        if unread || self.shared.journal.verdict(log, id).await?.is_some() {
            return Ok(());
        }
        Err(JournalError::Gone(format!("log {log}")))
    }
}

/// The id of the one cancel of a run.
pub(super) fn cancel_id(run: &RunId) -> InputId {
    InputId::from(format!("cancel_{run}"))
}
