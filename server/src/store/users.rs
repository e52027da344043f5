//! Who may use the installation.

use exile_engine::id::UserId;
use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::page::{Listed, Page};
use super::{Store, StoreError, column};

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Graphs, skills and documents.
    Author,
    /// Conversations and runs of their own.
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
    /// Since when.
    pub created_at: Timestamp,
}

impl User {
    /// Whether a user can be called that: 1 to 100 characters, none of them a control character.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control)
    }
}

impl Store {
    /// The user of that name, who is added with the role `user` if there is none.
    pub async fn user_named(&self, name: &str) -> Result<User, StoreError> {
        if let Some(user) = self.user_by_name(name).await? {
            return Ok(user);
        }
        match self.create_user(name, Role::User).await {
            // Somebody else has just added them. Users are never taken away.
            Err(StoreError::Taken(name)) => {
                self.user_by_name(&name).await?.ok_or(StoreError::Taken(name))
            }
            added => added,
        }
    }

    /// Adds a user.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: there is one of that name.
    pub async fn create_user(&self, name: &str, role: Role) -> Result<User, StoreError> {
        let user = User {
            id: UserId::new(self.env()),
            name: name.to_owned(),
            role,
            created_at: self.now(),
        };
        let done = sqlx::query(
            "INSERT INTO exile_user (id, name, role, created_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(user.id.as_str())
        .bind(name)
        .bind(role.as_str())
        .bind(user.created_at.as_millisecond())
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

/// Reads a user's columns, which no joined table may repeat.
pub(super) fn from_row(row: &SqliteRow) -> Result<User, StoreError> {
    let role: &str = row.try_get("role")?;
    Ok(User {
        id: UserId::from(row.try_get::<&str, _>("id")?),
        name: row.try_get("name")?,
        role: Role::parse(role).ok_or_else(|| StoreError::unreadable("role of a user", role))?,
        created_at: column::time(row, "created_at")?,
    })
}
