//! `exile key`: keys for programs, each of one user.

use clap::Subcommand;
use serde_json::{Value, json};

use super::connection::{Connection, part};
use super::error::CliError;
use super::terminal::Terminal;
use crate::access::{ACT_AS, METRICS};

/// Manage keys.
#[derive(Subcommand)]
pub(super) enum Key {
    /// Make a key; it is shown once and stored hashed
    Create {
        /// The user's name
        #[arg(long)]
        user: String,
        /// What it is for
        #[arg(long, default_value = "cli")]
        name: String,
        /// It may name the user it acts for (the header X-Exile-User)
        #[arg(long)]
        act_as: bool,
        /// It may read /metrics
        #[arg(long)]
        metrics: bool,
    },
    /// End a key at once
    Revoke {
        /// The key's id
        id: String,
    },
    /// Print a user's keys, without their secrets
    List {
        /// Whose [default: your own]
        #[arg(long)]
        user: Option<String>,
    },
}

impl Key {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        match self {
            Self::Create { user, name, act_as, metrics } => {
                let scopes = [(ACT_AS, act_as), (METRICS, metrics)];
                let scopes = scopes.into_iter().filter(|(_, given)| *given);
                let scopes: Vec<&str> = scopes.map(|(scope, _)| scope).collect();
                let body = json!({ "user": user, "name": name, "scopes": scopes });
                let made = connection.post("/api/keys", &body).await?;
                if terminal.json() {
                    return terminal.value(&made);
                }
                terminal.line(made["secret"].as_str().unwrap_or_default())?;
                let id = made["id"].as_str().unwrap_or_default();
                terminal.aside(&format!("shown once; to end it: exile key revoke {id}"))
            }
            Self::Revoke { id } => {
                connection.delete(&format!("/api/keys/{}", part(&id))).await?;
                if terminal.json() {
                    return terminal.value(&json!({ "revoked": id }));
                }
                terminal.line(&format!("revoked {id}"))
            }
            Self::List { user } => {
                let query = user.map(|name| format!("?user={}", part(&name)));
                let path = format!("/api/keys{}", query.unwrap_or_default());
                let answer = connection.get(&path).await?;
                let keys = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let row = |k: &Value| {
                    let state = if k["revoked_at"].is_null() { "active" } else { "revoked" };
                    vec![text(&k["id"]), text(&k["name"]), text(&k["prefix"]), state.to_owned()]
                };
                let rows = keys.iter().map(row).collect();
                terminal.table(&["ID", "NAME", "BEGINS", "STATE"], rows, &answer)
            }
        }
    }
}
