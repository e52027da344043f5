//! Which business a request belongs to.
//!
//! A business that a quota or an alias of `exile.yaml` names is worth something: its quota is spent
//! and its models answer. It belongs to the users and keys that an administrator has bound to it.
//! Any other name is a label for the usage, free to be chosen.
//!
//! Invariants:
//! - Who is bound to businesses stays within them: a request that names none belongs to the first of
//!   them, so that no quota is escaped by silence. What a key is bound to goes before what its user is.
//! - Who is bound to none names no business that something hangs on. With a quota of `*` something
//!   hangs on every name, so that nobody makes up counters without end.
//! - Administrators who are bound to none may name any.

use axum::http::HeaderMap;

use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::problem::Problem;
use crate::usage::Kind;

/// Longest name of a business, in characters.
const LONGEST: usize = 128;

/// Most businesses that a user or a key is bound to.
const MOST: usize = 64;

impl Caller {
    /// The businesses that the caller is bound to.
    fn businesses(&self) -> &[String] {
        let of_key = self.key.as_ref().map(|key| key.businesses.as_slice()).unwrap_or_default();
        if of_key.is_empty() { &self.user.businesses } else { of_key }
    }

    /// The business that a request belongs to which names this one, or none.
    ///
    /// # Errors
    /// It is not the caller's to name, or no name.
    pub fn business(&self, app: &App, named: Option<String>) -> Result<Option<String>, Problem> {
        let bound = self.businesses();
        let Some(name) = named else { return Ok(bound.first().cloned()) };
        check_name("business", &name)?;
        let may = match bound {
            [] => self.is_admin() || !is_worth_something(app, &name),
            bound => bound.contains(&name),
        };
        if may { Ok(Some(name)) } else { Err(Problem::Business { name, known: bound.to_vec() }) }
    }
}

/// The business of a request: what the body says, else the header `X-Exile-Business`.
pub(crate) fn named(body: Option<String>, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(header) = headers.get("x-exile-business").filter(|_| body.is_none()) else {
        return Ok(body);
    };
    let text = header.to_str().map_err(|_| {
        Problem::Unreadable("X-Exile-Business must be visible ASCII characters".into())
    })?;
    Ok(Some(text.to_owned()))
}

/// Whether a quota or a model hangs on a business.
fn is_worth_something(app: &App, name: &str) -> bool {
    let quotas = app.ledger.quotas();
    let quotas = quotas.of(Kind::Business);
    let mut aliases = app.catalog.models.aliases().values();
    quotas.contains_key(name)
        || quotas.contains_key("*")
        || aliases.any(|alias| alias.business.contains_key(name))
}

/// Checks what a user or a key is to be bound to.
pub fn check_names(names: &[String]) -> Result<(), Problem> {
    if names.len() > MOST {
        let what = format!("businesses: at most {MOST} are bound to one user or key");
        return Err(Problem::Field { field: "businesses".into(), what });
    }
    names.iter().try_for_each(|name| check_name("businesses", name))
}

fn check_name(field: &str, name: &str) -> Result<(), Problem> {
    if (1..=LONGEST).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let what =
        format!("{field}: a name has 1 to {LONGEST} characters, none of them a control character");
    Err(Problem::Field { field: field.to_owned(), what })
}
