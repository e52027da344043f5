//! Keys: how programs prove whose requests they send.
//!
//! Invariants:
//! - The secret is shown once; its row holds the digest and the first characters.
//! - Unknown, revoked, expired and empty secrets, and those of disabled users, all get the same
//!   answer: none.
//! - A key that a key made works as long as that one does (`standing.rs`).

use exile_engine::id::UserId;
use jiff::{SignedDuration, Timestamp};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::page::{Listed, Page};
use super::standing::earlier;
use super::users::{Role, User};
use super::{Store, StoreError, codec, token};

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
    /// What it may do; empty: whatever its user may.
    pub scopes: Vec<String>,
    /// The businesses that its requests may belong to; empty: those of its user.
    pub businesses: Vec<String>,
    /// The key that made it.
    pub parent: Option<String>,
    /// The key whose quota it takes from; `None`: it has one of its own.
    pub counts_as: Option<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// To within a minute.
    pub last_used_at: Option<Timestamp>,
    /// Since when it is void.
    pub revoked_at: Option<Timestamp>,
    /// From when on it will be void.
    pub expires_at: Option<Timestamp>,
}

/// What a new key is made of.
#[derive(Clone, Debug)]
pub struct NewKey<'a> {
    /// Whose it is.
    pub user: &'a UserId,
    /// What people call it.
    pub name: &'a str,
    /// What it may do; empty: whatever its user may.
    pub scopes: &'a [String],
    /// The businesses that its requests may belong to; empty: those of its user.
    pub businesses: &'a [String],
    /// From when on it will be void.
    pub expires_at: Option<Timestamp>,
    /// The key that makes it.
    pub parent: Option<&'a str>,
    /// The key whose quota it takes from.
    pub counts_as: Option<&'a str>,
}

/// Who a secret belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOwner {
    /// The key.
    pub key: ApiKey,
    /// Its user.
    pub user: User,
    /// What it may do at most: its user's role, or less if the user of a key that it comes from has
    /// less.
    pub role: Role,
    /// When it, or a key that it comes from, expires.
    pub void_at: Option<Timestamp>,
    /// How many keys it comes from.
    pub generation: u32,
}

impl Store {
    /// Makes a key that comes from no other one, and its secret, which is not to be had again.
    pub async fn create_key(
        &self,
        user: &UserId,
        name: &str,
        scopes: &[String],
        expires_at: Option<Timestamp>,
    ) -> Result<(ApiKey, String), StoreError> {
        let (parent, counts_as, businesses) = (None, None, &[]);
        self.make_key(NewKey { user, name, scopes, businesses, expires_at, parent, counts_as })
            .await
    }

    /// Makes a key and its secret, which is not to be had again.
    pub async fn make_key(&self, new: NewKey<'_>) -> Result<(ApiKey, String), StoreError> {
        let secret = token::token(PREFIX, self.env());
        let key = ApiKey {
            id: format!("key_{}", self.env().uuid().simple()),
            user: new.user.clone(),
            name: new.name.to_owned(),
            prefix: secret.chars().take(SHOWN).collect(),
            scopes: new.scopes.to_vec(),
            businesses: new.businesses.to_vec(),
            parent: new.parent.map(str::to_owned),
            counts_as: new.counts_as.map(str::to_owned),
            created_at: self.now(),
            last_used_at: None,
            revoked_at: None,
            expires_at: new.expires_at,
        };
        sqlx::query(
            "INSERT INTO exile_key (id, user, name, prefix, digest, scopes, created_at, expires_at,
                                    businesses, parent, counts_as)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )
        .bind(&key.id)
        .bind(key.user.as_str())
        .bind(&key.name)
        .bind(&key.prefix)
        .bind(token::digest(&secret))
        .bind(codec::json(&key.scopes)?)
        .bind(key.created_at.as_millisecond())
        .bind(key.expires_at.map(Timestamp::as_millisecond))
        .bind(codec::json(&key.businesses)?)
        .bind(&key.parent)
        .bind(&key.counts_as)
        .execute(self.write().await?.connection())
        .await?;
        Ok((key, secret))
    }

    /// Who has this secret; notes that it was used. `None` if it is good for nothing.
    pub async fn key_owner(&self, secret: &str) -> Result<Option<KeyOwner>, StoreError> {
        let digest = token::digest(secret);
        let (kept, changes) = self.shared.keys.get(&digest);
        let is_kept = kept.is_some();
        let found = if is_kept { kept } else { self.owner_of(&digest).await? };
        let Some(owner) = found else { return Ok(None) };
        let now = self.now();
        if owner.void_at.is_some_and(|at| at <= now) {
            return Ok(None);
        }
        let used = owner.key.last_used_at;
        let unnoted = used.is_none_or(|at| now.duration_since(at) >= NOTE_USE_EVERY);
        if unnoted || !is_kept {
            let mut keep = owner.clone();
            if unnoted {
                self.note_use(&owner.key.id, now).await;
                keep.key.last_used_at = Some(now);
            }
            self.shared.keys.keep(changes, digest, keep);
        }
        Ok(Some(owner))
    }

    /// Who the rows say has the secret of that digest.
    async fn owner_of(&self, digest: &[u8]) -> Result<Option<KeyOwner>, StoreError> {
        let row = sqlx::query("SELECT * FROM exile_key WHERE digest = ?1 AND revoked_at IS NULL")
            .bind(digest)
            .fetch_optional(self.readers())
            .await?;
        let Some(row) = row else { return Ok(None) };
        if !token::same(digest, row.try_get("digest")?) {
            return Ok(None);
        }
        let key = from_row(&row)?;
        let user = self.user(&key.user).await?.filter(|user| user.disabled_at.is_none());
        let Some(user) = user else { return Ok(None) };
        let (role, void_at) = (user.role, key.expires_at);
        let Some(parent) = &key.parent else {
            return Ok(Some(KeyOwner { key, user, role, void_at, generation: 0 }));
        };
        let Some(line) = self.standing(parent).await? else { return Ok(None) };
        let (role, void_at) = (role.least(line.role), earlier(void_at, line.void_at));
        let generation = line.generation + 1;
        Ok(Some(KeyOwner { key, user, role, void_at, generation }))
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

    /// Voids a key, and all that it made, at once and for good; `false` if there is none of that
    /// id. A caller that leaves does not stop it half-way, with the row void and the key still kept.
    pub async fn revoke_key(&self, id: &str) -> Result<bool, StoreError> {
        let (store, id) = (self.clone(), id.to_owned());
        Self::to_its_end(async move {
            let done = sqlx::query(
                "WITH RECURSIVE made (id) AS (
                     SELECT ?1
                     UNION SELECT k.id FROM made JOIN exile_key k ON k.parent = made.id
                 )
                 UPDATE exile_key SET revoked_at = coalesce(revoked_at, ?2)
                 WHERE id IN (SELECT id FROM made)",
            )
            .bind(&id)
            .bind(store.now().as_millisecond())
            .execute(store.write().await?.connection())
            .await?;
            store.shared.keys.forget();
            Ok(done.rows_affected() > 0)
        })
        .await
    }

    /// The key of that id, void or not.
    pub async fn key(&self, id: &str) -> Result<Option<ApiKey>, StoreError> {
        let query = sqlx::query("SELECT * FROM exile_key WHERE id = ?1").bind(id);
        query.fetch_optional(self.readers()).await?.as_ref().map(from_row).transpose()
    }

    /// A user's keys, oldest first, void ones included.
    pub async fn list_keys(&self, user: &UserId, page: Page) -> Result<Listed<ApiKey>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM exile_key WHERE user = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        )
        .bind(user.as_str())
        .bind(page.after()?.unwrap_or(0))
        .bind(page.rows())
        .fetch_all(self.readers())
        .await?;
        let item = |row: &SqliteRow| Ok((row.try_get("seq")?, from_row(row)?));
        Ok(page.list(rows.iter().map(item).collect::<Result<_, StoreError>>()?))
    }

    /// A user's oldest key, void or not.
    pub async fn first_key(&self, user: &UserId) -> Result<Option<ApiKey>, StoreError> {
        let first = Page { after: None, limit: 1 };
        Ok(self.list_keys(user, first).await?.items.pop())
    }

    /// How many keys a user has that were not revoked and have not expired.
    pub async fn count_keys(&self, user: &UserId) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM exile_key WHERE user = ?1 AND revoked_at IS NULL
                 AND (expires_at IS NULL OR expires_at > ?2)",
        )
        .bind(user.as_str())
        .bind(self.now().as_millisecond())
        .fetch_one(self.readers())
        .await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }
}

fn from_row(row: &SqliteRow) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        id: row.try_get("id")?,
        user: UserId::from(row.try_get::<&str, _>("user")?),
        name: row.try_get("name")?,
        prefix: row.try_get("prefix")?,
        scopes: codec::parsed(row, "scopes")?,
        businesses: codec::parsed(row, "businesses")?,
        parent: row.try_get("parent")?,
        counts_as: row.try_get("counts_as")?,
        created_at: codec::time(row, "created_at")?,
        last_used_at: codec::maybe_time(row, "last_used_at")?,
        revoked_at: codec::maybe_time(row, "revoked_at")?,
        expires_at: codec::maybe_time(row, "expires_at")?,
    })
}
