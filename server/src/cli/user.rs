//! `exile user`: who may use this installation.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::connection::Connection;
use super::error::CliError;
use super::terminal::Terminal;

/// Manage users.
#[derive(Subcommand)]
pub(super) enum User {
    /// Add a user
    Add {
        /// Unique
        name: String,
        /// What they may do
        #[arg(long, value_enum, default_value_t = Role::User)]
        role: Role,
    },
    /// Print every user
    List,
}

/// What a user may do.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Role {
    /// Everything
    Admin,
    /// Graphs, skills and documents
    Author,
    /// Conversations of their own
    User,
}

impl User {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        match self {
            Self::Add { name, role } => {
                let role = match role {
                    Role::Admin => "admin",
                    Role::Author => "author",
                    Role::User => "user",
                };
                let body = json!({ "name": name, "role": role });
                let user = connection.post("/api/users", &body).await?;
                let id = user["id"].as_str().unwrap_or_default();
                if terminal.json() {
                    return terminal.value(&user);
                }
                terminal.line(&format!("{id} {name} ({role})"))?;
                terminal.aside(&format!("a key for them: exile key create --user {name}"))
            }
            Self::List => {
                let users = all(connection).await?;
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let row = |u: &Value| vec![text(&u["id"]), text(&u["name"]), text(&u["role"])];
                let rows = users.iter().map(row).collect();
                terminal.table(&["ID", "NAME", "ROLE"], rows, &json!({ "items": users }))
            }
        }
    }
}

/// Every user, page by page.
async fn all(connection: &Connection) -> Result<Vec<Value>, CliError> {
    let mut users = Vec::new();
    let mut path = "/api/users?limit=100".to_owned();
    loop {
        let page = connection.get(&path).await?;
        users.extend(page["items"].as_array().into_iter().flatten().cloned());
        match page["next"].as_str() {
            Some(next) => path = format!("/api/users?limit=100&after={next}"),
            None => return Ok(users),
        }
    }
}
