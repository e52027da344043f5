//! Who may use the installation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use exile_engine::id::UserId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use utoipa::ToSchema;

use super::page::{Listed, Page};
use super::{Store, StoreError, codec};

/// As many names as are kept; of more, all are looked up again.
const NAMES: usize = 4096;

/// Names of users by their ids.
pub(super) type Names = Mutex<HashMap<UserId, Arc<str>>>;

/// What a user may do. The one type of it: rows, the API and the command line spell it alike.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
#[schema(as = RoleName, description = "What a user may do.")]
pub enum Role {
    /// Everything, users and keys included.
    #[value(help = "Everything")]
    Admin,
    /// Reads the sources of graphs and the prompts of skills, and calls tools that need care.
    #[value(help = "Reads the sources of graphs and skills too, and calls tools that need care")]
    Author,
    /// Conversations and runs.
    #[default]
    #[value(help = "Conversations and runs of their own")]
    User,
}

impl Role {
    /// As rows and the API spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Author => "author",
            Self::User => "user",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Admin, Self::Author, Self::User].into_iter().find(|role| role.as_str() == text)
    }

    /// The one that allows less.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        let rank = |role| match role {
            Self::User => 0,
            Self::Author => 1,
            Self::Admin => 2,
        };
        if rank(self) <= rank(other) { self } else { other }
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Unique.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The businesses that their requests may belong to; empty: any that no quota and no model
    /// hangs on.
    pub businesses: Vec<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// Since when nothing of theirs lets anybody in.
    pub disabled_at: Option<Timestamp>,
}

/// What is to change of a user; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserChange {
    /// What they may do.
    pub role: Option<Role>,
    /// Whether their keys and sessions let nobody in.
    pub disabled: Option<bool>,
    /// The businesses that their requests may belong to.
    pub businesses: Option<Vec<String>>,
}

/// What became of a user who was to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// They did.
    Done(User),
    /// They are the last administrator who is not disabled: nothing was changed.
    LastAdmin,
    /// There is none of that id.
    Unknown,
}

impl User {
    /// Whether a user can be called that: 1 to 100 characters, none of them a control character.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control)
    }

    /// Whether they are an administrator who is not disabled.
    #[must_use]
    pub fn administers(&self) -> bool {
        self.role == Role::Admin && self.disabled_at.is_none()
    }
}

impl Store {
    /// The user of that name, who is added with the role `user` if there is none.
    pub async fn user_named(&self, name: &str) -> Result<User, StoreError> {
        if let Some(user) = self.user_by_name(name).await? {
            return Ok(user);
        }
        match self.create_user(name, Role::User).await {
            // Somebody else has just added them.
            Err(StoreError::Taken(name)) => {
                self.user_by_name(&name).await?.ok_or(StoreError::Taken(name))
            }
            added => added,
        }
    }

    /// Adds a user who may name no business that anything hangs on.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: there is one of that name.
    pub async fn create_user(&self, name: &str, role: Role) -> Result<User, StoreError> {
        self.add_user(name, role, &[]).await
    }

    /// Adds a user.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: there is one of that name.
    pub async fn add_user(
        &self,
        name: &str,
        role: Role,
        businesses: &[String],
    ) -> Result<User, StoreError> {
        let user = User {
            id: UserId::new(self.env()),
            name: name.to_owned(),
            role,
            businesses: businesses.to_vec(),
            created_at: self.now(),
            disabled_at: None,
        };
        let done = sqlx::query(
            "INSERT INTO exile_user (id, name, role, created_at, businesses)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(user.id.as_str())
        .bind(name)
        .bind(role.as_str())
        .bind(user.created_at.as_millisecond())
        .bind(codec::json(&user.businesses)?)
        .execute(self.write().await?.connection())
        .await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::Taken(name.to_owned()));
        }
        Ok(user)
    }

    /// The user of that id.
    pub async fn user(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        let query = sqlx::query("SELECT * FROM exile_user WHERE id = ?1").bind(id.as_str());
        query.fetch_optional(self.readers()).await?.as_ref().map(from_row).transpose()
    }

    /// The user of that name.
    pub async fn user_by_name(&self, name: &str) -> Result<Option<User>, StoreError> {
        let query = sqlx::query("SELECT * FROM exile_user WHERE name = ?1").bind(name);
        query.fetch_optional(self.readers()).await?.as_ref().map(from_row).transpose()
    }

    /// The name of a user, which never changes; the id of one who was removed.
    pub async fn user_name(&self, id: &UserId) -> Result<Arc<str>, StoreError> {
        // The lock guards whole names: nothing panics while it is held.
        let names = || self.shared.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names().get(id).cloned();
        if let Some(name) = known {
            return Ok(name);
        }
        let Some(user) = self.user(id).await? else { return Ok(id.as_str().into()) };
        let name: Arc<str> = user.name.into();
        let mut known = names();
        if known.len() >= NAMES {
            known.clear();
        }
        known.insert(id.clone(), name.clone());
        Ok(name)
    }

    /// The administrator who came first, of those who are not disabled.
    pub async fn first_admin(&self) -> Result<Option<User>, StoreError> {
        let row = sqlx::query(
            "SELECT * FROM exile_user WHERE role = 'admin' AND disabled_at IS NULL
             ORDER BY seq LIMIT 1",
        )
        .fetch_optional(self.readers())
        .await?;
        row.as_ref().map(from_row).transpose()
    }

    /// Changes a user. What they may no longer do stops at once: keys are looked up again, and a
    /// user who is disabled has no session and no sign-in link any more.
    pub async fn change_user(
        &self,
        id: &UserId,
        change: UserChange,
    ) -> Result<Changed, StoreError> {
        let (store, id) = (self.clone(), id.clone());
        Self::to_its_end(async move {
            let mut write = store.begin().await?;
            let Some(user) = read(write.connection(), &id).await? else {
                write.rollback().await?;
                return Ok(Changed::Unknown);
            };
            let disabled_at = match change.disabled {
                Some(true) => user.disabled_at.or_else(|| Some(store.now())),
                Some(false) => None,
                None => user.disabled_at,
            };
            let role = change.role.unwrap_or(user.role);
            let businesses = change.businesses.unwrap_or_else(|| user.businesses.clone());
            let changed = User { role, businesses, disabled_at, ..user.clone() };
            if !changed.administers() && is_last_admin(write.connection(), &user).await? {
                write.rollback().await?;
                return Ok(Changed::LastAdmin);
            }
            sqlx::query(
                "UPDATE exile_user SET role = ?2, disabled_at = ?3, businesses = ?4 WHERE id = ?1",
            )
            .bind(id.as_str())
            .bind(changed.role.as_str())
            .bind(changed.disabled_at.map(Timestamp::as_millisecond))
            .bind(codec::json(&changed.businesses)?)
            .execute(write.connection())
            .await?;
            if changed.disabled_at.is_some() {
                sqlx::query("DELETE FROM exile_session WHERE user = ?1")
                    .bind(id.as_str())
                    .execute(write.connection())
                    .await?;
                sqlx::query("DELETE FROM exile_sign_in WHERE user = ?1")
                    .bind(id.as_str())
                    .execute(write.connection())
                    .await?;
            }
            write.commit().await?;
            store.shared.keys.forget();
            Ok(Changed::Done(changed))
        })
        .await
    }

    /// Every user, oldest first.
    pub async fn list_users(&self, page: Page) -> Result<Listed<User>, StoreError> {
        let rows = sqlx::query("SELECT * FROM exile_user WHERE seq > ?1 ORDER BY seq LIMIT ?2")
            .bind(page.after()?.unwrap_or(0))
            .bind(page.rows())
            .fetch_all(self.readers())
            .await?;
        let item = |row: &SqliteRow| Ok((row.try_get("seq")?, from_row(row)?));
        Ok(page.list(rows.iter().map(item).collect::<Result<_, StoreError>>()?))
    }
}

/// The user of that id, as the transaction sees them.
pub(super) async fn read(
    connection: &mut SqliteConnection,
    id: &UserId,
) -> Result<Option<User>, StoreError> {
    let query = sqlx::query("SELECT * FROM exile_user WHERE id = ?1").bind(id.as_str());
    query.fetch_optional(connection).await?.as_ref().map(from_row).transpose()
}

/// Whether the installation has no administrator but this user who is not disabled.
pub(super) async fn is_last_admin(
    connection: &mut SqliteConnection,
    user: &User,
) -> Result<bool, StoreError> {
    if !user.administers() {
        return Ok(false);
    }
    let others: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM exile_user
                        WHERE role = 'admin' AND disabled_at IS NULL AND id <> ?1)",
    )
    .bind(user.id.as_str())
    .fetch_one(connection)
    .await?;
    Ok(!others)
}

/// Reads a user's columns, which no joined table may repeat.
pub(super) fn from_row(row: &SqliteRow) -> Result<User, StoreError> {
    let role: &str = row.try_get("role")?;
    Ok(User {
        id: UserId::from(row.try_get::<&str, _>("id")?),
        name: row.try_get("name")?,
        role: Role::parse(role).ok_or_else(|| StoreError::unreadable("role of a user", role))?,
        businesses: codec::parsed(row, "businesses")?,
        created_at: codec::time(row, "created_at")?,
        disabled_at: codec::maybe_time(row, "disabled_at")?,
    })
}
