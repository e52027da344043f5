//! Keys: how programs prove whose requests they send.
//!
//! Invariants:
//! - The secret is shown once; its row holds the digest and the first characters.
//! - Unknown, revoked, expired and empty secrets all get the same answer: none.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use exile_engine::id::UserId;
use jiff::{SignedDuration, Timestamp};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::users::User;
use super::{Store, StoreError, column, secret};

/// What every secret begins with.
const PREFIX: &str = "exk_";

/// Characters of the secret that stay readable, so that people can tell keys apart.
const SHOWN: usize = PREFIX.len() + 6;

/// Uses closer together than this are noted once.
const NOTE_USE_EVERY: SignedDuration = SignedDuration::from_mins(1);

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub user: UserId,
    /// What people call it.
    pub name: String,
    /// First characters of the secret.
    pub prefix: String,
    /// What it may do besides what its user may, e.g. `act_as`.
    pub scopes: Vec<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// To within a minute.
    pub last_used_at: Option<Timestamp>,
    /// Since when it is void.
    pub revoked_at: Option<Timestamp>,
    /// From when on it will be void.
    pub expires_at: Option<Timestamp>,
}

/// Keys that were shown lately, by the digests of their secrets: a request need not wait for a row.
/// They change in this process alone, by being revoked.
#[derive(Default)]
pub(super) struct Keys(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// How often a key was revoked: what was read before that is not kept after it.
    revoked: u64,
    keys: HashMap<Vec<u8>, (ApiKey, User)>,
}

/// As many keys as are kept; of more, all are looked up again.
const KEPT: usize = 4096;

impl Keys {
    /// The lock guards whole keys: nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key, if it is kept, and how often one was revoked.
    fn get(&self, digest: &[u8]) -> (Option<(ApiKey, User)>, u64) {
        let known = self.lock();
        (known.keys.get(digest).cloned(), known.revoked)
    }

    /// Keeps a key that was read when one had been revoked so often.
    fn keep(&self, revoked: u64, digest: Vec<u8>, key: ApiKey, user: User) {
        let mut known = self.lock();
        if known.revoked != revoked {
            return;
        }
        if known.keys.len() >= KEPT {
            known.keys.clear();
        }
        known.keys.insert(digest, (key, user));
    }

    fn forget(&self, id: &str) {
        let mut known = self.lock();
        known.revoked += 1;
        known.keys.retain(|_, (key, _)| key.id != id);
    }
}

impl Store {
    /// Makes a key and its secret, which is not to be had again.
    pub async fn create_key(
        &self,
        user: &UserId,
        name: &str,
        scopes: &[String],
        expires_at: Option<Timestamp>,
    ) -> Result<(ApiKey, String), StoreError> {
        let secret = secret::token(PREFIX, self.env());
        let key = ApiKey {
            id: format!("key_{}", self.env().uuid().simple()),
            user: user.clone(),
            name: name.to_owned(),
            prefix: secret.chars().take(SHOWN).collect(),
            scopes: scopes.to_vec(),
            created_at: self.now(),
            last_used_at: None,
            revoked_at: None,
            expires_at,
        };
        sqlx::query(
            "INSERT INTO exile_key (id, user, name, prefix, digest, scopes, created_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .bind(&key.id)
        .bind(user.as_str())
        .bind(name)
        .bind(&key.prefix)
        .bind(secret::digest(&secret))
        .bind(column::json(&key.scopes)?)
        .bind(key.created_at.as_millisecond())
        .bind(expires_at.map(Timestamp::as_millisecond))
        .execute(self.write().await?.connection())
        .await?;
        Ok((key, secret))
    }

    /// The key that has this secret, and its user; notes that it was used.
    pub async fn key_owner(&self, secret: &str) -> Result<Option<(ApiKey, User)>, StoreError> {
        let digest = secret::digest(secret);
        let (kept, revoked) = self.shared.keys.get(&digest);
        let is_kept = kept.is_some();
        let found = if is_kept { kept } else { self.key_of(&digest).await? };
        let Some((key, user)) = found else { return Ok(None) };
        let now = self.now();
        if key.revoked_at.is_some() || key.expires_at.is_some_and(|at| at <= now) {
            return Ok(None);
        }
        let unnoted = key.last_used_at.is_none_or(|at| now.duration_since(at) >= NOTE_USE_EVERY);
        if unnoted || !is_kept {
            let mut keep = key.clone();
            if unnoted {
                self.note_use(&key.id, now).await;
                keep.last_used_at = Some(now);
            }
            self.shared.keys.keep(revoked, digest, keep, user.clone());
        }
        Ok(Some((key, user)))
    }

    /// The key of that digest as its row is now.
    async fn key_of(&self, digest: &[u8]) -> Result<Option<(ApiKey, User)>, StoreError> {
        let row = sqlx::query("SELECT * FROM exile_key WHERE digest = ?1")
            .bind(digest)
            .fetch_optional(self.readers())
            .await?;
        let Some(row) = row else { return Ok(None) };
        if !secret::same(digest, row.try_get("digest")?) {
            return Ok(None);
        }
        let key = from_row(&row)?;
        let user = self.user(&key.user).await?;
        Ok(user.map(|user| (key, user)))
    }

    /// A request is not refused because its time could not be noted (a full disk can still read).
    async fn note_use(&self, id: &str, now: Timestamp) {
        let noted = async {
            sqlx::query("UPDATE exile_key SET last_used_at = ?2 WHERE id = ?1")
                .bind(id)
                .bind(now.as_millisecond())
                .execute(self.write().await?.connection())
                .await?;
            Ok::<_, StoreError>(())
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, key = id, "the time of a key's use was not noted");
        }
    }

    /// Voids a key at once and for good; `false` if there is none of that id. A caller that leaves
    /// does not stop it half-way, with the row void and the key still kept.
    pub async fn revoke_key(&self, id: &str) -> Result<bool, StoreError> {
        let (store, id) = (self.clone(), id.to_owned());
        let revoking = async move {
            let mut write = store.write().await?;
            let revoke = "UPDATE exile_key SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1";
            let done = sqlx::query(revoke)
                .bind(&id)
                .bind(store.now().as_millisecond())
                .execute(write.connection())
                .await?;
            store.shared.keys.forget(&id);
            Ok(done.rows_affected() > 0)
        };
        let ended = |error: tokio::task::JoinError| StoreError::Unavailable(error.to_string());
        tokio::spawn(revoking).await.map_err(ended)?
    }

    /// A user's keys, oldest first, void ones included.
    pub async fn list_keys(&self, user: &UserId) -> Result<Vec<ApiKey>, StoreError> {
        let rows = sqlx::query("SELECT * FROM exile_key WHERE user = ?1 ORDER BY seq")
            .bind(user.as_str())
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(from_row).collect()
    }
}

fn from_row(row: &SqliteRow) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        id: row.try_get("id")?,
        user: UserId::from(row.try_get::<&str, _>("user")?),
        name: row.try_get("name")?,
        prefix: row.try_get("prefix")?,
        scopes: column::parsed(row, "scopes")?,
        created_at: column::time(row, "created_at")?,
        last_used_at: column::maybe_time(row, "last_used_at")?,
        revoked_at: column::maybe_time(row, "revoked_at")?,
        expires_at: column::maybe_time(row, "expires_at")?,
    })
}
