//! Requests under an `Idempotency-Key`: what was answered is answered again.
//!
//! Invariants:
//! - Of many requests with one key, one at a time is worked on.
//! - A use of a key lasts for 24 hours from when its request was last worked on, and for as long as
//!   it is being worked on. What comes after that is another use, with a generation of its own.
//! - A use belongs to one body. A request that was cut off (the process died, exile itself failed)
//!   may be sent again with that body, and continues under the same generation; with another body
//!   it is refused, because the first may have begun something.

use exile_engine::id::UserId;
use jiff::{SignedDuration, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::{Store, StoreError, codec};

/// How long an answer is kept, whatever else is removed earlier.
pub(super) const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// How many expired uses one request removes: more than one, so that they get fewer, and few, so
/// that the request does not pay for a whole day of others.
const REMOVED: u32 = 16;

/// A use of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// Who sends the request.
    pub owner: UserId,
    /// The key as sent.
    pub key: String,
    /// Method and path.
    pub route: String,
    /// The digest of the body and of all else that decides what is done.
    pub body: String,
}

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Idempotent {
    /// Work on it, then finish, release or abandon it.
    Fresh {
        /// Tells this use of the key from earlier and later ones. The same one is given again for a
        /// request that was cut off.
        generation: String,
    },
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
    /// The whole body; `None` if it was not kept.
    pub body: Option<Vec<u8>>,
}

impl Store {
    /// Notes that a request begins, or says what became of the one before it.
    pub async fn begin_idempotent(&self, used: &KeyUse) -> Result<Idempotent, StoreError> {
        let now = self.now();
        let mut write = self.begin().await?;
        remove_expired(write.connection(), now).await?;
        let row = sqlx::query(
            "SELECT * FROM exile_idempotency WHERE owner = ?1 AND key = ?2 AND route = ?3",
        )
        .bind(used.owner.as_str())
        .bind(&used.key)
        .bind(&used.route)
        .fetch_optional(write.connection())
        .await?;
        let generation = match row.as_ref().map(|row| known(row, &used.body, now)).transpose()? {
            None | Some(Known::Expired) => self.env().uuid().simple().to_string(),
            Some(Known::CutOff { generation }) => generation,
            Some(Known::Told(told)) => {
                write.commit().await?;
                return Ok(told);
            }
        };
        sqlx::query(
            "INSERT INTO exile_idempotency
                 (owner, key, route, body_sha256, begun_at, generation, held)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1)
             ON CONFLICT DO UPDATE SET
                 body_sha256 = excluded.body_sha256, begun_at = excluded.begun_at,
                 generation = excluded.generation, held = 1,
                 status = NULL, headers = NULL, body = NULL",
        )
        .bind(used.owner.as_str())
        .bind(&used.key)
        .bind(&used.route)
        .bind(&used.body)
        .bind(now.as_millisecond())
        .bind(&generation)
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(Idempotent::Fresh { generation })
    }

    /// Keeps the answer for those who ask again.
    pub async fn finish_idempotent(
        &self,
        used: &KeyUse,
        generation: &str,
        answer: StoredAnswer,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE exile_idempotency SET status = ?5, headers = ?6, body = ?7, held = 0
             WHERE owner = ?1 AND key = ?2 AND route = ?3 AND generation = ?4",
        )
        .bind(used.owner.as_str())
        .bind(&used.key)
        .bind(&used.route)
        .bind(generation)
        .bind(answer.status)
        .bind(codec::json(&answer.headers)?)
        .bind(answer.body)
        .execute(self.write().await?.connection())
        .await?;
        Ok(())
    }

    /// Lets a request be sent again that may have begun something: the same body under the same
    /// generation.
    pub async fn release_idempotent(
        &self,
        used: &KeyUse,
        generation: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE exile_idempotency SET held = 0
             WHERE owner = ?1 AND key = ?2 AND route = ?3 AND generation = ?4",
        )
        .bind(used.owner.as_str())
        .bind(&used.key)
        .bind(&used.route)
        .bind(generation)
        .execute(self.write().await?.connection())
        .await?;
        Ok(())
    }

    /// Forgets a request that began nothing, so that the key may be used for another one.
    pub async fn abandon_idempotent(
        &self,
        used: &KeyUse,
        generation: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM exile_idempotency
             WHERE owner = ?1 AND key = ?2 AND route = ?3 AND generation = ?4 AND status IS NULL",
        )
        .bind(used.owner.as_str())
        .bind(&used.key)
        .bind(&used.route)
        .bind(generation)
        .execute(self.write().await?.connection())
        .await?;
        Ok(())
    }

    /// Lets requests be sent again that a dead process was working on.
    pub(super) async fn release_all_idempotent(&self) -> Result<(), StoreError> {
        sqlx::query("UPDATE exile_idempotency SET held = 0 WHERE held = 1")
            .execute(self.write().await?.connection())
            .await?;
        Ok(())
    }
}

/// What a row says of a request.
enum Known {
    /// The use is over: the key is free.
    Expired,
    /// The request was not answered and nobody works on it.
    CutOff { generation: String },
    /// Nothing is to be done.
    Told(Idempotent),
}

fn known(row: &SqliteRow, body: &str, now: Timestamp) -> Result<Known, StoreError> {
    let (held, same): (bool, _) = (row.try_get("held")?, row.try_get::<&str, _>("body_sha256")?);
    let begun_at = codec::time(row, "begun_at")?;
    if !held && begun_at <= now - KEPT {
        return Ok(Known::Expired);
    }
    if same != body {
        return Ok(Known::Told(Idempotent::Mismatch));
    }
    if held {
        return Ok(Known::Told(Idempotent::InFlight));
    }
    let Some(status) = row.try_get("status")? else {
        return Ok(Known::CutOff { generation: row.try_get("generation")? });
    };
    let headers = codec::parsed(row, "headers")?;
    let answer = StoredAnswer { status, headers, body: row.try_get("body")? };
    Ok(Known::Told(Idempotent::Replay(answer)))
}

async fn remove_expired(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM exile_idempotency WHERE rowid IN (
             SELECT rowid FROM exile_idempotency WHERE begun_at <= ?1 AND held = 0
             ORDER BY begun_at LIMIT ?2)",
    )
    .bind((now - KEPT).as_millisecond())
    .bind(REMOVED)
    .execute(connection)
    .await?;
    Ok(())
}
