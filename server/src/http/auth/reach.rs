//! Whose runs and conversations a caller reaches: their own, and administrators everybody's.
//!
//! Invariants:
//! - What a caller does not reach reads like what is not there.
//! - Every access of an administrator to what is not theirs is one line of the log: who, whose,
//!   what.
//! - The store knows of no administrators: it is asked as the owner, once it is known who that is.

use exile_engine::id::{ConversationId, RunId, UserId};

use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::problem::Problem;
use crate::store::{Conversation, RunRow, User};

/// Whose rows a list shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Those of one user.
    One(UserId),
    /// Everybody's.
    All,
}

/// What names everybody in `?owner=`.
const EVERYBODY: &str = "*";

/// The run of that id, if the caller reaches it.
pub async fn run(app: &App, caller: &Caller, id: &RunId) -> Result<RunRow, Problem> {
    let row = run_again(app, caller, id).await?;
    if row.owner != *caller.id() {
        caller.note_reach(app, &row.owner, id.as_str()).await?;
    }
    Ok(row)
}

/// The same, for a request whose access to the run is in the log already.
pub async fn run_again(app: &App, caller: &Caller, id: &RunId) -> Result<RunRow, Problem> {
    let own = app.store.run(caller.id(), id).await?;
    if own.is_some() || !caller.is_admin() {
        return own.ok_or(Problem::NotFound);
    }
    let owner = app.store.owner_of_run(id).await?.ok_or(Problem::NotFound)?;
    app.store.run(&owner, id).await?.ok_or(Problem::NotFound)
}

/// The conversation of that id, if the caller reaches it.
pub async fn conversation(
    app: &App,
    caller: &Caller,
    id: &ConversationId,
) -> Result<Conversation, Problem> {
    let own = app.store.conversation(caller.id(), id).await?;
    if own.is_some() || !caller.is_admin() {
        return own.ok_or(Problem::NotFound);
    }
    let owner = app.store.owner_of_conversation(id).await?.ok_or(Problem::NotFound)?;
    let row = app.store.conversation(&owner, id).await?.ok_or(Problem::NotFound)?;
    caller.note_reach(app, &owner, id.as_str()).await?;
    Ok(row)
}

/// Whose rows a list shows that asks for `name`'s: a user's name, `*` for everybody, or the caller's
/// own if nothing is said.
pub async fn owners(app: &App, caller: &Caller, name: Option<String>) -> Result<Owners, Problem> {
    let Some(name) = name.filter(|name| *name != caller.user.name) else {
        return Ok(Owners::One(caller.id().clone()));
    };
    caller.require_admin()?;
    if name == EVERYBODY {
        caller.note(EVERYBODY, "");
        return Ok(Owners::All);
    }
    let unknown = || Problem::UnknownName { what: "user", name: name.clone(), known: Vec::new() };
    let owner = app.store.user_by_name(&name).await?.ok_or_else(unknown)?;
    caller.note(&name, "");
    Ok(Owners::One(owner.id))
}

impl Caller {
    /// The caller as the owner of what they reach, so that what they begin there is the owner's. What
    /// they may do stays theirs.
    pub async fn in_place_of(&self, app: &App, owner: &UserId) -> Result<Self, Problem> {
        if owner == self.id() {
            return Ok(self.clone());
        }
        let user: User = app.store.user(owner).await?.ok_or(Problem::NotFound)?;
        Ok(Self { user, ..self.clone() })
    }

    async fn note_reach(&self, app: &App, owner: &UserId, id: &str) -> Result<(), Problem> {
        let name = app.store.user_name(owner).await?;
        self.note(&name, id);
        Ok(())
    }

    fn note(&self, owner: &str, id: &str) {
        let (by, key) = (&self.user.name, self.key.as_ref().map(|key| key.id.as_str()));
        let (method, route) = (&self.asked.0, &*self.asked.1);
        tracing::info!(
            by, key, owner, id, %method, route,
            "an administrator reached what is another user's"
        );
    }
}
