//! How people prove who they are: one-time links that become sessions.
//!
//! Invariants:
//! - A link works once, for ten minutes.
//! - A session ends after twelve hours without use, and after seven days in any case.
//! - A link that a key made, and the session that it becomes, work as long as that key does
//!   (`standing.rs`); those of a disabled user do not.

use exile_engine::id::UserId;
use jiff::{SignedDuration, Timestamp};
use sqlx::Row as _;

use super::standing::Standing;
use super::users::{self, Role, User};
use super::{Store, StoreError, codec, token};

const LINK_LASTS: SignedDuration = SignedDuration::from_mins(10);
const SESSION_IDLE: SignedDuration = SignedDuration::from_hours(12);
const SESSION_LASTS: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Uses closer together than this are noted once.
const NOTE_USE_EVERY: SignedDuration = SignedDuration::from_mins(1);

/// Whose session it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOwner {
    /// The user.
    pub user: User,
    /// What the session may do at most: its user's role, or less if the user of the key that it
    /// comes from has less.
    pub role: Role,
    /// The key that made the link that it comes from, if one did, and how that stands.
    pub key: Option<(String, Standing)>,
}

impl Store {
    /// Makes the token of a one-time sign-in link, and says until when it works. `key`: the key that
    /// asks for it.
    pub async fn create_sign_in(
        &self,
        user: &UserId,
        key: Option<&str>,
    ) -> Result<(String, Timestamp), StoreError> {
        let (token, now) = (token::token("", self.env()), self.now());
        let mut write = self.begin().await?;
        sqlx::query("DELETE FROM exile_sign_in WHERE expires_at <= ?1")
            .bind(now.as_millisecond())
            .execute(write.connection())
            .await?;
        let expires_at = now + LINK_LASTS;
        sqlx::query(
            "INSERT INTO exile_sign_in (digest, user, expires_at, key) VALUES (?1, ?2, ?3, ?4)",
        )
        .bind(token::digest(&token))
        .bind(user.as_str())
        .bind(expires_at.as_millisecond())
        .bind(key)
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok((token, expires_at))
    }

    /// Trades a sign-in token for a session's; the token is spent. `None` if it is not good.
    pub async fn redeem_sign_in(&self, token: &str) -> Result<Option<(String, User)>, StoreError> {
        let (session, now) = (token::token("", self.env()), self.now().as_millisecond());
        let mut write = self.begin().await?;
        let link: Option<(String, Option<String>)> = sqlx::query_as(
            "DELETE FROM exile_sign_in WHERE digest = ?1 AND expires_at > ?2 RETURNING user, key",
        )
        .bind(token::digest(token))
        .bind(now)
        .fetch_optional(write.connection())
        .await?;
        let Some((user, key)) = link else {
            write.rollback().await?;
            return Ok(None);
        };
        if let Some(key) = &key
            && self.standing(key).await?.is_none()
        {
            write.rollback().await?;
            return Ok(None);
        }
        sqlx::query("DELETE FROM exile_session WHERE seen_at <= ?1 OR created_at <= ?2")
            .bind(now - millis(SESSION_IDLE))
            .bind(now - millis(SESSION_LASTS))
            .execute(write.connection())
            .await?;
        sqlx::query(
            "INSERT INTO exile_session (digest, user, created_at, seen_at, key)
             VALUES (?1, ?2, ?3, ?3, ?4)",
        )
        .bind(token::digest(&session))
        .bind(&user)
        .bind(now)
        .bind(key)
        .execute(write.connection())
        .await?;
        let row = sqlx::query("SELECT * FROM exile_user WHERE id = ?1")
            .bind(&user)
            .fetch_one(write.connection())
            .await?;
        let user = users::from_row(&row)?;
        if user.disabled_at.is_some() {
            write.rollback().await?;
            return Ok(None);
        }
        write.commit().await?;
        Ok(Some((session, user)))
    }

    /// Whose session this is; notes that it was used. `None` if it is not good.
    pub async fn session_owner(&self, token: &str) -> Result<Option<SessionOwner>, StoreError> {
        let (digest, now) = (token::digest(token), self.now());
        let row = sqlx::query(
            "SELECT u.*, s.digest AS session, s.seen_at, s.key AS link_key
             FROM exile_session s JOIN exile_user u ON u.id = s.user
             WHERE s.digest = ?1 AND s.seen_at > ?2 AND s.created_at > ?3
               AND u.disabled_at IS NULL",
        )
        .bind(&digest)
        .bind(now.as_millisecond() - millis(SESSION_IDLE))
        .bind(now.as_millisecond() - millis(SESSION_LASTS))
        .fetch_optional(self.readers())
        .await?;
        let Some(row) = row else { return Ok(None) };
        if !token::same(&digest, row.try_get("session")?) {
            return Ok(None);
        }
        let user = users::from_row(&row)?;
        let key: Option<String> = row.try_get("link_key")?;
        let key = match key {
            None => None,
            Some(key) => match self.standing(&key).await? {
                Some(standing) => Some((key, standing)),
                None => return Ok(None),
            },
        };
        let seen = codec::maybe_time(&row, "seen_at")?;
        if seen.is_none_or(|at| now.duration_since(at) >= NOTE_USE_EVERY) {
            self.note_session(&digest, now).await;
        }
        let role = key.as_ref().map_or(user.role, |(_, key)| user.role.least(key.role));
        Ok(Some(SessionOwner { user, role, key }))
    }

    /// A request is not refused because its time could not be noted (a full disk can still read).
    async fn note_session(&self, digest: &[u8], now: Timestamp) {
        let noted = async {
            sqlx::query("UPDATE exile_session SET seen_at = ?2 WHERE digest = ?1")
                .bind(digest)
                .bind(now.as_millisecond())
                .execute(self.write().await?.connection())
                .await?;
            Ok::<_, StoreError>(())
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, "the time of a session's use was not noted");
        }
    }

    /// Ends a session at once.
    pub async fn end_session(&self, token: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM exile_session WHERE digest = ?1")
            .bind(token::digest(token))
            .execute(self.write().await?.connection())
            .await?;
        Ok(())
    }
}

fn millis(duration: SignedDuration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
