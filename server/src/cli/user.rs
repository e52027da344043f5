//! `exile user`: who may use this installation.

use clap::Subcommand;
use serde_json::{Value, json};

use super::connection::{Connection, part, view, views};
use super::error::CliError;
use super::terminal::Terminal;
use crate::api::UserView;
use crate::http::pagination::List;
use crate::store::Role;

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
        /// A business that their requests may belong to, several times for more
        #[arg(long = "business", value_name = "NAME")]
        businesses: Vec<String>,
    },
    /// Print every user
    List,
    /// Give a user another role
    Role {
        /// The user's name
        name: String,
        /// What they may do from now on
        #[arg(value_enum)]
        role: Role,
    },
    /// Bind a user to businesses that quotas and models hang on; to none if none is named
    Businesses {
        /// The user's name
        name: String,
        /// Those that their requests may belong to, the first one where they name none
        businesses: Vec<String>,
    },
    /// Stop a user's keys and sessions at once; their runs go on
    Disable {
        /// The user's name
        name: String,
    },
    /// Let a disabled user's keys work again
    Enable {
        /// The user's name
        name: String,
    },
    /// Remove a user with their keys, conversations and runs
    Remove {
        /// The user's name
        name: String,
    },
}

impl User {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        match self {
            Self::Add { name, role, businesses } => {
                let body = json!({
                    "name": name, "role": role, "businesses": businesses,
                });
                let user = connection.post("/api/users", &body).await?;
                if terminal.json() {
                    return terminal.value(&user);
                }
                terminal.line(&summary(&view(&user)?))?;
                terminal.aside(&format!("a key for them: exile key create --user {name}"))
            }
            Self::List => {
                let users = connection.all("/api/users", "").await?;
                let row = |user: UserView| {
                    let state = if user.disabled { "disabled" } else { "active" };
                    let role = user.role.as_str().to_owned();
                    vec![user.id.to_string(), user.name, role, state.to_owned()]
                };
                let rows = views(&users)?.into_iter().map(row).collect();
                let json = json!({ "items": users, "next": null });
                terminal.table(&["ID", "NAME", "ROLE", "STATE"], rows, &json)
            }
            Self::Role { name, role } => {
                change(connection, terminal, &name, &json!({ "role": role })).await
            }
            Self::Businesses { name, businesses } => {
                change(connection, terminal, &name, &json!({ "businesses": businesses })).await
            }
            Self::Disable { name } => {
                change(connection, terminal, &name, &json!({ "disabled": true })).await
            }
            Self::Enable { name } => {
                change(connection, terminal, &name, &json!({ "disabled": false })).await
            }
            Self::Remove { name } => {
                let id = id(connection, &name).await?;
                connection.delete(&format!("/api/users/{}", part(&id))).await?;
                if terminal.json() {
                    return terminal.value(&json!({ "removed": id }));
                }
                terminal.line(&format!("removed {id} {name}"))
            }
        }
    }
}

async fn change(
    connection: &Connection,
    terminal: &mut Terminal,
    name: &str,
    body: &Value,
) -> Result<(), CliError> {
    let id = id(connection, name).await?;
    let user = connection.patch(&format!("/api/users/{}", part(&id)), body).await?;
    if terminal.json() { terminal.value(&user) } else { terminal.line(&summary(&view(&user)?)) }
}

fn summary(user: &UserView) -> String {
    let disabled = if user.disabled { ", disabled" } else { "" };
    format!("{} {} ({}{disabled})", user.id, user.name, user.role.as_str())
}

/// The id of the user of that name.
pub(super) async fn id(connection: &Connection, name: &str) -> Result<String, CliError> {
    let found = connection.get(&format!("/api/users?name={}", part(name))).await?;
    let found: List<UserView> = view(&found)?;
    let id = found.items.into_iter().next().map(|user| user.id.to_string());
    id.ok_or_else(|| CliError::Refused {
        code: "unknown_user".to_owned(),
        detail: format!("no user is named `{name}`"),
        remedy: "`exile user list` shows all".to_owned(),
    })
}
