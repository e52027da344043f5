//! Parts of a run's records, for those who look back from its end.
//!
//! Absent on purpose: who the run belongs to (`runs.rs` has told before), and what records mean.

use exile_engine::id::LogId;
use exile_engine::run::record::{Number, Numbered};

use super::history::to_records;
use super::{Store, StoreError, codec};

impl Store {
    /// At most `limit` records of the log from `first` up to `last`, newest first.
    pub async fn records_back(
        &self,
        log: &LogId,
        (first, last): (Number, Number),
        limit: u32,
    ) -> Result<Vec<Numbered>, StoreError> {
        let mut read = self.readers().begin().await?;
        let rows = sqlx::query(
            "SELECT number, version, body FROM exile_record
             WHERE log = (SELECT key FROM exile_log WHERE id = ?1) AND number BETWEEN ?2 AND ?3
             ORDER BY number DESC LIMIT ?4",
        )
        .bind(log.as_str())
        .bind(codec::integer(first)?)
        .bind(codec::integer(last)?)
        .bind(limit)
        .fetch_all(&mut *read)
        .await?;
        let records = to_records(&mut read, &rows).await?;
        read.rollback().await?;
        Ok(records)
    }
}
