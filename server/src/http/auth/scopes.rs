//! What a key may do: its scopes take away from what its user may do, and never add to it.
//!
//! | scope | allows |
//! |---|---|
//! | `metrics` | `GET /metrics` and nothing else |
//! | `read` | everything that its user may read (`GET`) |
//! | `run` | runs, conversations and `/v1`, and reading what they need; no administration |
//! | `act_as` | naming the user that a request is for; by itself, within what `run` allows |
//!
//! Invariants:
//! - A key without scopes has its user's rights. Of several scopes, what any of them allows is
//!   allowed; a scope that this version does not know allows nothing.
//! - A route that [`RUN`] does not list is shut to `run`: forgetting to list one shuts it.

use axum::http::Method;

/// One thing that a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Read `/metrics`.
    Metrics,
    /// Read.
    Read,
    /// Run graphs and ask models.
    Run,
    /// Name the user that a request is for.
    ActAs,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Metrics, Self::Read, Self::Run, Self::ActAs];

    /// As rows and the API spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Read => "read",
            Self::Run => "run",
            Self::ActAs => "act_as",
        }
    }

    /// The scope of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// With which rights a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Those of its user's role.
    Role,
    /// Those of a plain user.
    Plain,
}

/// Paths below which `run` allows everything.
const RUN: &[&str] = &["/api/conversations", "/api/runs", "/v1"];

/// Routes that `run` allows to read: what runs are made of.
const RUN_READS: &[&str] = &[
    "/api/graphs",
    "/api/graphs/{name}",
    "/api/skills",
    "/api/skills/{name}",
    "/api/tools",
    "/api/models",
    "/api/protocol",
    "/api/users/me",
];

const METRICS_ROUTE: &str = "/metrics";

/// What a key, or a session, may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(Option<Vec<Scope>>);

impl Scopes {
    /// Those of a key; without any it may do what its user may.
    #[must_use]
    pub fn of(names: &[String]) -> Self {
        let known = || names.iter().filter_map(|name| Scope::parse(name)).collect();
        Self((!names.is_empty()).then(known))
    }

    /// What is left for a request in the name of another user.
    #[must_use]
    pub(super) fn as_another(&self) -> Self {
        let reads = self.has(Scope::Read) && !self.has(Scope::Run);
        Self(Some(vec![if reads { Scope::Read } else { Scope::Run }]))
    }

    /// Whether one of them is this.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.0.as_ref().is_some_and(|scopes| scopes.contains(&scope))
    }

    /// With which rights a request may be made; `None` if it may not. `route`: the pattern that
    /// matched.
    #[must_use]
    pub fn rights(&self, method: &Method, route: &str) -> Option<Rights> {
        let Some(scopes) = &self.0 else { return Some(Rights::Role) };
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if reads && scopes.contains(&Scope::Read) {
            return Some(Rights::Role);
        }
        let measures = scopes.contains(&Scope::Metrics) && route == METRICS_ROUTE;
        let runs = scopes.contains(&Scope::Run) || self.acts_alone();
        ((reads && measures) || (runs && is_of_runs(reads, route))).then_some(Rights::Plain)
    }

    /// Whether a request in the name of another user may be made.
    #[must_use]
    pub(super) fn reaches_others(&self, method: &Method, route: &str) -> bool {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        self.has(Scope::ActAs)
            && is_of_runs(reads, route)
            && self.as_another().rights(method, route).is_some()
    }

    /// `act_as` without a scope that says within which bounds.
    fn acts_alone(&self) -> bool {
        self.has(Scope::ActAs) && !self.has(Scope::Read)
    }
}

/// Whether a route belongs to running graphs and asking models.
fn is_of_runs(reads: bool, route: &str) -> bool {
    let below = |path: &&str| {
        route.strip_prefix(*path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    RUN.iter().any(below) || (reads && RUN_READS.contains(&route))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(names: &[&str]) -> Scopes {
        Scopes::of(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn scopes_take_away_and_add_nothing() {
        const GET: Method = Method::GET;
        const POST: Method = Method::POST;
        let (role, plain) = (Some(Rights::Role), Some(Rights::Plain));
        let cases: [(&[&str], Method, &str, Option<Rights>); 22] = [
            (&[], POST, "/api/users", role),
            (&["metrics"], GET, "/metrics", plain),
            (&["metrics"], GET, "/api/users/me", None),
            (&["metrics"], GET, "/api/runs", None),
            (&["read"], GET, "/api/users", role),
            (&["read"], Method::HEAD, "/api/runs/{id}", role),
            (&["read"], POST, "/api/runs", None),
            (&["read"], POST, "/api/tools/{name}/call", None),
            (&["run"], POST, "/api/runs", plain),
            (&["run"], POST, "/api/runs/{id}/cancel", plain),
            (&["run"], Method::DELETE, "/api/conversations/{id}", plain),
            (&["run"], POST, "/v1/chat/completions", plain),
            (&["run"], GET, "/api/graphs", plain),
            (&["run"], POST, "/api/graphs", None),
            (&["run"], POST, "/api/keys", None),
            (&["run"], GET, "/api/keys", None),
            (&["run"], POST, "/api/runs-of-others", None),
            (&["run", "read"], GET, "/api/keys", role),
            (&["act_as"], POST, "/api/runs", plain),
            (&["act_as"], POST, "/api/keys", None),
            (&["act_as", "read"], POST, "/api/runs", None),
            (&["of_tomorrow"], GET, "/api/users/me", None),
        ];
        for (names, method, route, rights) in cases {
            assert_eq!(scopes(names).rights(&method, route), rights, "{names:?} {method} {route}");
        }
    }

    #[test]
    fn a_request_for_another_user_stays_within_what_runs_need() {
        let cases: [(&[&str], Method, &str, bool); 9] = [
            (&[], Method::GET, "/api/runs", false),
            (&["run"], Method::GET, "/api/runs", false),
            (&["act_as"], Method::POST, "/api/runs", true),
            (&["act_as", "run"], Method::POST, "/v1/chat/completions", true),
            (&["act_as", "read"], Method::GET, "/api/runs/{id}", true),
            (&["act_as", "read"], Method::POST, "/api/runs", false),
            (&["act_as", "read"], Method::GET, "/api/keys", false),
            (&["act_as", "metrics"], Method::GET, "/metrics", false),
            (&["act_as"], Method::POST, "/api/keys", false),
        ];
        for (names, method, route, reaches) in cases {
            let reached = scopes(names).reaches_others(&method, route);
            assert_eq!(reached, reaches, "{names:?} {method} {route}");
        }
    }
}
