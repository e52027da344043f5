//! Quotas that were set over the API, each as the JSON that was sent.

use serde_json::Value;
use sqlx::Row as _;

use super::{Store, StoreError, codec};

impl Store {
    /// Every one: kind, name, body.
    pub async fn quotas(&self) -> Result<Vec<(String, String, Value)>, StoreError> {
        let rows = sqlx::query("SELECT kind, name, body FROM exile_quota ORDER BY kind, name")
            .fetch_all(self.readers())
            .await?;
        rows.iter()
            .map(|row| {
                Ok((row.try_get("kind")?, row.try_get("name")?, codec::parsed(row, "body")?))
            })
            .collect()
    }

    /// Sets one.
    pub async fn put_quota(&self, kind: &str, name: &str, body: &Value) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO exile_quota (kind, name, body, changed_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET body = excluded.body, changed_at = excluded.changed_at",
        )
        .bind(kind)
        .bind(name)
        .bind(codec::json(body)?)
        .bind(self.now().as_millisecond())
        .execute(self.write().await?.connection())
        .await?;
        Ok(())
    }

    /// Takes one away; `false` if there is none.
    pub async fn delete_quota(&self, kind: &str, name: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM exile_quota WHERE kind = ?1 AND name = ?2")
            .bind(kind)
            .bind(name)
            .execute(self.write().await?.connection())
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
