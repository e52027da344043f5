//! Bundles and large values that nothing names any more.

use exile_engine::journal::BlobId;
use jiff::SignedDuration;
use sqlx::SqliteConnection;

use super::PAGE;
use crate::store::{Store, StoreError, codec};

/// A blob that was put so recently may be about to be named.
const FRESH: SignedDuration = SignedDuration::from_hours(24);

impl Store {
    /// Removes the blobs in doubt that nothing names. Whoever is about to name one has put it just
    /// before, which makes it young again.
    pub(super) async fn purge_blobs(&self) -> Result<u64, StoreError> {
        let now = self.now();
        let (now_ms, before_ms) = (now.as_millisecond(), (now - FRESH).as_millisecond());
        let mut blobs = 0;
        loop {
            let doubtful: Vec<String> =
                sqlx::query_scalar("SELECT blob FROM exile_blob_doubt WHERE since < ?1 LIMIT ?2")
                    .bind(before_ms)
                    .bind(PAGE)
                    .fetch_all(self.readers())
                    .await?;
            if doubtful.is_empty() {
                return Ok(blobs);
            }
            let doubtful = codec::json(&doubtful)?;
            let mut write = self.begin().await?;
            let connection = write.connection();
            // Whoever takes these names away brings the doubt back.
            sqlx::query(
                "DELETE FROM exile_blob_doubt
                 WHERE since < ?2 AND blob IN (SELECT value FROM json_each(?1))
                     AND (EXISTS (SELECT 1 FROM exile_blob_use u
                                  WHERE u.blob = exile_blob_doubt.blob)
                          OR EXISTS (SELECT 1 FROM exile_bundle b
                                     JOIN exile_run r ON r.bundle = b.key AND r.kept = 1
                                     WHERE b.id = exile_blob_doubt.blob))",
            )
            .bind(&doubtful)
            .bind(before_ms)
            .execute(&mut *connection)
            .await?;
            // An input that may be refused keeps its bundle for as long as nobody has read it.
            sqlx::query(
                "UPDATE exile_blob_doubt SET since = ?3
                 WHERE since < ?2 AND blob IN (SELECT value FROM json_each(?1))
                     AND blob IN (SELECT iif(json_valid(body), body ->> '$.migrate.bundle', NULL)
                                  FROM exile_input WHERE body IS NOT NULL)",
            )
            .bind(&doubtful)
            .bind(before_ms)
            .bind(now_ms)
            .execute(&mut *connection)
            .await?;
            let done = sqlx::query(
                "DELETE FROM exile_blob WHERE id IN (
                     SELECT blob FROM exile_blob_doubt
                     WHERE since < ?2 AND blob IN (SELECT value FROM json_each(?1)))",
            )
            .bind(&doubtful)
            .bind(before_ms)
            .execute(&mut *connection)
            .await?;
            sqlx::query(
                "DELETE FROM exile_blob_doubt
                 WHERE since < ?2 AND blob IN (SELECT value FROM json_each(?1))",
            )
            .bind(&doubtful)
            .bind(before_ms)
            .execute(connection)
            .await?;
            write.commit().await?;
            blobs += done.rows_affected();
        }
    }
}

/// Notes that nothing may name a blob, which was put just now.
pub(in crate::store) async fn doubted(
    connection: &mut SqliteConnection,
    id: &BlobId,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO exile_blob_doubt (blob, since) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET since = excluded.since
         WHERE since <= excluded.since - 3600000",
    )
    .bind(&*id.0)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that logs are about to name nothing before a number any more.
pub(super) async fn unnamed(
    connection: &mut SqliteConnection,
    keys: &[i64],
    before: i64,
) -> Result<(), StoreError> {
    // A run without a last number has not ended: its bundle stays but with its log.
    sqlx::query(
        "INSERT INTO exile_blob_doubt (blob, since)
             SELECT blob, 0 FROM (
                 SELECT (SELECT id FROM exile_bundle WHERE key = bundle) AS blob FROM exile_run
                 WHERE log IN (SELECT value FROM json_each(?1)) AND kept = 1
                     AND (last < ?2 OR ?2 = ?3)
                 UNION ALL SELECT blob FROM exile_blob_use
                 WHERE log IN (SELECT value FROM json_each(?1)) AND number < ?2)
             WHERE true ON CONFLICT DO NOTHING",
    )
    .bind(codec::json(keys)?)
    .bind(before)
    .bind(i64::MAX)
    .execute(connection)
    .await?;
    Ok(())
}
