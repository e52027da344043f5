//! Logs that cannot be read, left to people.

use exile_engine::journal::{Lease, Refusal};
use exile_engine::run::record::RunError;

use super::runs::RunStatus;
use super::{Store, StoreError, codec};

impl Store {
    /// Voids the lease and takes the log out of the queue; its runs need attention. `false`: the
    /// lease was void before.
    pub(super) async fn park_log(&self, lease: &Lease, why: &RunError) -> Result<bool, StoreError> {
        let refusal = Refusal::Unreadable { why: why.message.clone() };
        let mut write = self.begin().await?;
        let key: Option<i64> = sqlx::query_scalar(
            "UPDATE exile_log SET lease_until = NULL, worker = NULL, parked = 1, due = NULL,
                 wake = NULL, changed = coalesce(changed, ?3)
             WHERE id = ?1 AND epoch = ?2 AND lease_until IS NOT NULL RETURNING key",
        )
        .bind(lease.log.as_str())
        .bind(codec::integer(lease.epoch)?)
        .bind(self.now().as_millisecond())
        .fetch_optional(write.connection())
        .await?;
        let Some(key) = key else {
            write.rollback().await?;
            return Ok(false);
        };
        // What was sent may be unreadable itself.
        sqlx::query(
            "UPDATE exile_run SET status = ?3, error = ?2, last = NULL
             WHERE log = ?1 AND ended_at IS NULL;
             UPDATE exile_run SET status = ?4, ended_at = ?5
             WHERE log = ?1 AND ended_at IS NULL AND id IN (
                 SELECT CASE WHEN json_valid(body) THEN body ->> '$.cancel.run' END
                 FROM exile_input WHERE log = ?1 AND body IS NOT NULL);
             UPDATE exile_input SET body = NULL, consumed = 0, refused = CASE
                 WHEN json_valid(body) AND body ->> '$.cancel.run' IS NOT NULL THEN NULL
                 ELSE ?6 END
             WHERE log = ?1 AND body IS NOT NULL",
        )
        .bind(key)
        .bind(codec::json(why)?)
        .bind(RunStatus::NeedsAttention.as_str())
        .bind(RunStatus::Cancelled.as_str())
        .bind(self.now().as_millisecond())
        .bind(codec::json(&refusal)?)
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(true)
    }
}
