//! `exile key`: keys for programs, each of one user.

use clap::{Args, Subcommand};
use exile_engine::env::{Env as _, SystemEnv};
use exile_engine::period::Period;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::connection::{Connection, part, view, views};
use super::error::CliError;
use super::terminal::Terminal;
use crate::api::{KeyView, SecretView};
use crate::http::auth::Scope;

/// Manage keys.
#[derive(Subcommand)]
pub(super) enum Key {
    /// Make a key; it is shown once and stored hashed
    Create(Create),
    /// End a key, and every key that it made, at once
    Revoke {
        /// The key's id
        id: String,
    },
    /// Print a user's keys, void ones included, without their secrets
    List {
        /// Whose [default: your own]
        #[arg(long)]
        user: Option<String>,
    },
}

/// A key to make.
#[derive(Args)]
pub(super) struct Create {
    /// The user's name
    #[arg(long)]
    user: String,
    /// What it is for
    #[arg(long, default_value = "cli")]
    name: String,
    /// What it may do, several times for more [default: whatever its user may]. metrics: read
    /// /metrics and nothing else. read: what its user may read. run: runs, conversations and /v1.
    /// `act_as`: name the user of a request in X-Exile-User
    #[arg(long = "scope", value_name = "SCOPE", value_parser = Scope::ALL.map(Scope::as_str))]
    scopes: Vec<String>,
    /// The same as `--scope act_as`
    #[arg(long)]
    act_as: bool,
    /// The same as `--scope metrics`
    #[arg(long)]
    metrics: bool,
    /// A business that its requests may belong to, several times for more; the first one where they
    /// name none [default: those of its user]
    #[arg(long = "business", value_name = "NAME")]
    businesses: Vec<String>,
    /// After how long it stops working, e.g. 30d or 12h [default: never]
    #[arg(long, value_name = "PERIOD")]
    expires: Option<String>,
}

impl Key {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        match self {
            Self::Create(create) => create.run(connection, terminal).await,
            Self::Revoke { id } => {
                connection.delete(&format!("/api/keys/{}", part(&id))).await?;
                if terminal.json() {
                    return terminal.value(&json!({ "revoked": id }));
                }
                terminal.line(&format!("revoked {id}"))
            }
            Self::List { user } => {
                let query = user.map(|name| format!("?user={}", part(&name)));
                let keys = connection.all("/api/keys", &query.unwrap_or_default()).await?;
                let rows = views(&keys)?.into_iter().map(row).collect();
                let head = ["ID", "NAME", "BEGINS", "SCOPES", "STATE", "EXPIRES", "MADE BY"];
                terminal.table(&head, rows, &json!({ "items": keys, "next": null }))
            }
        }
    }
}

fn row(key: KeyView) -> Vec<String> {
    let expires_at = key.expires_at.map(|at| at.to_string()).unwrap_or_default();
    vec![
        key.id,
        key.name,
        key.prefix,
        key.scopes.join(" "),
        key.state.into_owned(),
        expires_at,
        key.parent.unwrap_or_default(),
    ]
}

impl Create {
    async fn run(self, connection: &Connection, terminal: &mut Terminal) -> Result<(), CliError> {
        let short = [(Scope::ActAs, self.act_as), (Scope::Metrics, self.metrics)];
        let short = short.into_iter().filter(|(_, given)| *given);
        let mut scopes = self.scopes;
        scopes.extend(short.map(|(scope, _)| scope.as_str().to_owned()));
        scopes.sort();
        scopes.dedup();
        let mut body = json!({
            "user": self.user,
            "name": self.name,
            "scopes": scopes,
            "businesses": self.businesses,
        });
        if let Some(period) = &self.expires {
            body["expires_at"] = json!(after(period)?);
        }
        let made = connection.post("/api/keys", &body).await?;
        if terminal.json() {
            return terminal.value(&made);
        }
        let made: SecretView = view(&made)?;
        terminal.line(&made.secret)?;
        let id = made.key.id;
        terminal.aside(&format!("shown once; to end it: exile key revoke {id}"))
    }
}

/// When a period from now is over.
fn after(period: &str) -> Result<Timestamp, CliError> {
    let wrong = |why: String| CliError::Usage(format!("--expires {period}: {why}"));
    let length = period.parse::<Period>().map_err(|error| wrong(error.to_string()))?;
    let end = SignedDuration::try_from(length.0).ok();
    let end = end.and_then(|length| SystemEnv::new().now().checked_add(length).ok());
    end.ok_or_else(|| {
        wrong("is longer than time is counted; leave it out for a key without end".into())
    })
}
