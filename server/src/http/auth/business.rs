//! The business that a request names, and those that users and keys are bound to; the rule is
//! `runs/business.rs`.

use axum::http::HeaderMap;

use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::problem::Problem;
use crate::runs::Requester;
use crate::runs::business::check_name;

/// Most businesses that a user or a key is bound to.
const MOST: usize = 64;

impl Caller {
    /// The businesses that the caller is bound to.
    fn businesses(&self) -> &[String] {
        let of_key = self.key.as_ref().map(|key| key.businesses.as_slice()).unwrap_or_default();
        if of_key.is_empty() { &self.user.businesses } else { of_key }
    }

    /// The caller as somebody who asks for runs.
    #[must_use]
    pub fn requester(&self) -> Requester<'_> {
        Requester {
            owner: self.id(),
            quota_key: self.quota_key(),
            businesses: self.businesses(),
            is_admin: self.is_admin(),
        }
    }

    /// The business that a request belongs to which names this one, or none.
    ///
    /// # Errors
    /// It is not the caller's to name, or no name.
    pub fn business(&self, app: &App, named: Option<String>) -> Result<Option<String>, Problem> {
        Ok(app.runs().business(&self.requester(), named)?)
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

/// Checks what a user or a key is to be bound to.
pub fn check_names(names: &[String]) -> Result<(), Problem> {
    if names.len() > MOST {
        let what = format!("businesses: at most {MOST} are bound to one user or key");
        return Err(Problem::Field { field: "businesses".into(), what });
    }
    Ok(names.iter().try_for_each(|name| check_name("businesses", name))?)
}
