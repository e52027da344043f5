//! Requests under an `Idempotency-Key`: what was answered is answered again.
//!
//! Invariants:
//! - Of many requests with one key, one at a time is worked on.
//! - An answer is kept for 24 hours.
//! - A request that was in flight when the process died may be sent again.

use exile_engine::id::UserId;
use jiff::SignedDuration;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, column};

const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Idempotent {
    /// Work on it, then finish or abandon it.
    Fresh,
    /// Answer this again.
    Replay(StoredAnswer),
    /// The same request is being worked on.
    InFlight,
    /// The key was used for another body.
    Mismatch,
}

/// An answer as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u16,
    /// The headers worth repeating, in order.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Store {
    /// Notes that a request begins, or says what became of the one before it.
    pub async fn begin_idempotent(
        &self,
        owner: &UserId,
        key: &str,
        route: &str,
        body_sha256: &str,
    ) -> Result<Idempotent, StoreError> {
        let now = self.now();
        let mut write = self.begin().await?;
        sqlx::query("DELETE FROM exile_idempotency WHERE begun_at <= ?1")
            .bind((now - KEPT).as_millisecond())
            .execute(write.connection())
            .await?;
        let done = sqlx::query(
            "INSERT INTO exile_idempotency (owner, key, route, body_sha256, begun_at)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        )
        .bind(owner.as_str())
        .bind(key)
        .bind(route)
        .bind(body_sha256)
        .bind(now.as_millisecond())
        .execute(write.connection())
        .await?;
        let state = if done.rows_affected() > 0 {
            Idempotent::Fresh
        } else {
            let row = sqlx::query(
                "SELECT * FROM exile_idempotency WHERE owner = ?1 AND key = ?2 AND route = ?3",
            )
            .bind(owner.as_str())
            .bind(key)
            .bind(route)
            .fetch_one(write.connection())
            .await?;
            from_row(&row, body_sha256)?
        };
        write.commit().await?;
        Ok(state)
    }

    /// Keeps the answer for those who ask again.
    pub async fn finish_idempotent(
        &self,
        owner: &UserId,
        key: &str,
        route: &str,
        answer: StoredAnswer,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE exile_idempotency SET status = ?4, headers = ?5, body = ?6
             WHERE owner = ?1 AND key = ?2 AND route = ?3",
        )
        .bind(owner.as_str())
        .bind(key)
        .bind(route)
        .bind(answer.status)
        .bind(column::json(&answer.headers)?)
        .bind(answer.body)
        .execute(self.write().await?.connection())
        .await?;
        Ok(())
    }

    /// Forgets a request that did nothing, so that it may be sent again.
    pub async fn abandon_idempotent(
        &self,
        owner: &UserId,
        key: &str,
        route: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM exile_idempotency
             WHERE owner = ?1 AND key = ?2 AND route = ?3 AND status IS NULL",
        )
        .bind(owner.as_str())
        .bind(key)
        .bind(route)
        .execute(self.write().await?.connection())
        .await?;
        Ok(())
    }

    /// Forgets what a dead process was working on.
    pub(super) async fn clear_in_flight(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM exile_idempotency WHERE status IS NULL")
            .execute(self.write().await?.connection())
            .await?;
        Ok(())
    }
}

fn from_row(row: &SqliteRow, body_sha256: &str) -> Result<Idempotent, StoreError> {
    if row.try_get::<&str, _>("body_sha256")? != body_sha256 {
        return Ok(Idempotent::Mismatch);
    }
    let Some(status) = row.try_get("status")? else { return Ok(Idempotent::InFlight) };
    let headers = column::parsed(row, "headers")?;
    Ok(Idempotent::Replay(StoredAnswer { status, headers, body: row.try_get("body")? }))
}
