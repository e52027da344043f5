//! What a key that made something else still allows: the line of keys from it to the first one,
//! which no key made.
//!
//! Invariant: what a key made works only while every key of its line works, and with no more than
//! the least role among their users.

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::users::Role;
use super::{Store, StoreError, codec};

/// Longest line that is walked; far more than one may be long. It bounds the walk if rows that
/// somebody edited by hand form a circle.
const LONGEST: i64 = 64;

/// What a line of keys allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The least role among their users.
    pub role: Role,
    /// When the first of them expires.
    pub void_at: Option<Timestamp>,
    /// How many keys stand before the last one.
    pub generation: u32,
}

impl Store {
    /// How the key of that id stands; `None` if it, or a key of its line, works no longer.
    pub async fn standing(&self, key: &str) -> Result<Option<Standing>, StoreError> {
        let rows = sqlx::query(
            "WITH RECURSIVE line (id, generation) AS (
                 SELECT ?1, 0
                 UNION ALL
                 SELECT k.parent, line.generation + 1
                 FROM line JOIN exile_key k ON k.id = line.id
                 WHERE k.parent IS NOT NULL AND line.generation <= ?2
             )
             SELECT k.revoked_at, k.expires_at, u.role, u.disabled_at
             FROM line LEFT JOIN exile_key k ON k.id = line.id
             LEFT JOIN exile_user u ON u.id = k.user",
        )
        .bind(key)
        .bind(LONGEST)
        .fetch_all(self.readers())
        .await?;
        let now = self.now();
        let mut all: Option<Standing> = None;
        for row in &rows {
            let Some((role, void_at)) = works(row, now)? else { return Ok(None) };
            all = Some(match all {
                None => Standing { role, void_at, generation: 0 },
                Some(all) => Standing {
                    role: all.role.least(role),
                    void_at: earlier(all.void_at, void_at),
                    generation: all.generation + 1,
                },
            });
        }
        let bounded = |standing: &Standing| i64::from(standing.generation) <= LONGEST;
        Ok(all.filter(bounded))
    }
}

/// The role of a key's user and when the key expires; `None` if it does not work.
fn works(row: &SqliteRow, now: Timestamp) -> Result<Option<(Role, Option<Timestamp>)>, StoreError> {
    let role: Option<&str> = row.try_get("role")?;
    let Some(role) = role else { return Ok(None) };
    let role = Role::parse(role).ok_or_else(|| StoreError::unreadable("role of a user", role))?;
    let void_at = codec::maybe_time(row, "expires_at")?;
    let ended = codec::maybe_time(row, "revoked_at")?.is_some()
        || codec::maybe_time(row, "disabled_at")?.is_some()
        || void_at.is_some_and(|at| at <= now);
    Ok((!ended).then_some((role, void_at)))
}

/// The earlier of two times, where none means never.
pub(super) fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
