//! `exile sign-in`: a link that signs a user in to the server that holds the home.

use clap::Args;
use serde_json::json;

use super::connection::{Connection, part, view};
use super::error::CliError;
use super::terminal::Terminal;
use super::user;
use crate::api::{SignInLinkView, UserView};

/// Print a link that signs a user in, once, within ten minutes.
#[derive(Args)]
pub(super) struct SignIn {
    /// The user's name [default: your own]
    #[arg(long)]
    user: Option<String>,
}

impl SignIn {
    pub(super) async fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<(), CliError> {
        if !connection.is_remote() {
            let what = "no server holds this home, so there is nothing to sign in to; \
                        `exile serve` prints a link when it starts";
            return Err(CliError::Held(what.to_owned()));
        }
        let id = if let Some(name) = &self.user {
            user::id(connection, name).await?
        } else {
            let me: UserView = view(&connection.get("/api/users/me").await?)?;
            me.id.to_string()
        };
        let path = format!("/api/users/{}/sign-in-link", part(&id));
        let made = connection.post(&path, &json!({})).await?;
        if terminal.json() {
            return terminal.value(&made);
        }
        terminal.line(&view::<SignInLinkView>(&made)?.link)
    }
}
