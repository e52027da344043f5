//! Who may do what: a key or a session on every route that is not listed open.
//!
//! Invariants:
//! - A route is closed unless [`OPEN`] names it; forgetting to list one shuts it.
//! - A session cookie changes things only from a page of this server (`Origin`).
//! - A key with the scope [`ACT_AS`] acts as plain users alone: it never gains anybody's role.
//! - Keys and sessions are compared by the store, by hash; neither is ever logged.
//!
//! Absent on purpose: ownership of rows. Every read of the store takes the owner.

use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use exile_engine::id::UserId;
use exile_engine::model::meter::Payer;

use crate::app::App;
use crate::problem::Problem;
use crate::store::{Role, User};

/// Routes that anybody may call.
pub const OPEN: &[&str] = &[
    "/",
    "/style.css",
    "/healthz",
    "/readyz",
    "/sign-in",
    "/api/openapi.json",
    "/api/docs",
    "/api/docs/",
    "/api/docs/{*rest}",
];

/// The cookie that holds a session.
pub const COOKIE: &str = "__Host-exile";

/// The scope of a key that may name the user it acts for (`X-Exile-User`).
pub const ACT_AS: &str = "act_as";

/// The scope of a key that may read `/metrics`.
pub const METRICS: &str = "metrics";

/// Names the user that a key acts for.
const USER_HEADER: &str = "x-exile-user";

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose rows are read and written.
    pub user: User,
    /// Id of the key, if it is one.
    pub key: Option<String>,
    /// What a key may do besides its user's role; empty for sessions.
    pub scopes: Vec<String>,
    /// The session, if it is one.
    pub session: Option<String>,
}

impl Caller {
    /// The owner of everything the caller makes.
    #[must_use]
    pub fn id(&self) -> &UserId {
        &self.user.id
    }

    /// Whether the caller may name the user it acts for.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.scopes.iter().any(|scope| scope == ACT_AS)
    }

    /// Whether the caller may read the figures of the process.
    #[must_use]
    pub fn measures(&self) -> bool {
        self.is_admin() || self.scopes.iter().any(|scope| scope == METRICS)
    }

    /// Who pays for what the caller asks of models, outside of runs.
    #[must_use]
    pub fn payer(&self, business: Option<String>) -> Payer {
        let (owner, key) = (self.user.id.clone(), self.key.clone());
        Payer { owner, key, business, graph: None, run: None }
    }

    /// Whether the caller runs the installation.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.user.role == Role::Admin
    }

    /// Stops everybody else.
    pub fn admin(&self) -> Result<(), Problem> {
        if self.is_admin() { Ok(()) } else { Err(Problem::Forbidden("the role admin")) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::Internal("an open route asks who calls".into()))
    }
}

/// Lets a request pass if it may.
pub async fn check(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if route.is_some_and(|route| OPEN.contains(&route)) {
        return next.run(request).await;
    }
    match identify(&app, request.method(), request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn identify(app: &App, method: &Method, headers: &HeaderMap) -> Result<Caller, Problem> {
    let caller = if headers.contains_key(header::AUTHORIZATION) {
        by_key(app, headers).await?
    } else {
        by_session(app, method, headers).await?
    };
    match headers.get(USER_HEADER) {
        Some(name) => act_as(app, caller, name).await,
        None => Ok(caller),
    }
}

/// The caller as the user that the header names; one who is new is added.
async fn act_as(app: &App, caller: Caller, name: &HeaderValue) -> Result<Caller, Problem> {
    if !caller.acts() {
        return Err(Problem::Forbidden("a key with the scope act_as"));
    }
    let name = std::str::from_utf8(name.as_bytes()).ok().filter(|name| User::is_name(name));
    let name = name.ok_or_else(|| Problem::Unreadable("X-Exile-User is no user's name".into()))?;
    as_user(app, caller, name).await
}

/// The plain user of that name, who is added if new; the key stays the caller's.
///
/// # Errors
/// A user of that name has more rights than a plain one.
pub async fn as_user(app: &App, caller: Caller, name: &str) -> Result<Caller, Problem> {
    let user = app.store.user_named(name).await?;
    if user.role != Role::User {
        return Err(Problem::Forbidden("a user with the role user: nobody is given more rights"));
    }
    Ok(Caller { user, key: caller.key, scopes: Vec::new(), session: None })
}

/// Whom the session of a page's visitor belongs to, if there is one.
pub async fn visitor(app: &App, headers: &HeaderMap) -> Result<Option<User>, Problem> {
    match cookie(headers) {
        Some(token) => Ok(app.store.session_owner(token).await?),
        None => Ok(None),
    }
}

async fn by_key(app: &App, headers: &HeaderMap) -> Result<Caller, Problem> {
    const WRONG: Problem = Problem::Unauthorized("the key is not valid");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(WRONG) };
    let (scheme, secret) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or(WRONG)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::Unauthorized("the Authorization header is not `Bearer KEY`"));
    }
    let (key, user) = app.store.key_owner(secret.trim()).await?.ok_or(WRONG)?;
    Ok(Caller { user, key: Some(key.id), scopes: key.scopes, session: None })
}

async fn by_session(app: &App, method: &Method, headers: &HeaderMap) -> Result<Caller, Problem> {
    let token = cookie(headers).ok_or(Problem::Unauthorized("no key and no session"))?;
    let user = app.store.session_owner(token).await?;
    let user = user.ok_or(Problem::Unauthorized("the session has ended"))?;
    if !method.is_safe() && !same_origin(headers) {
        return Err(Problem::Origin);
    }
    Ok(Caller { user, key: None, scopes: Vec::new(), session: Some(token.to_owned()) })
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = all.flat_map(|v| v.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, value)| *name == COOKIE && !value.is_empty()).map(|(_, value)| value)
}

/// Browsers send `Origin` with every unsafe request; without one, only `Sec-Fetch-Site` can tell.
fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => {
            let host_of = |o| str::strip_prefix(o, "https://").or(str::strip_prefix(o, "http://"));
            host_of(origin).is_some_and(|o| o.eq_ignore_ascii_case(host))
        }
        (Some(_), None) => false,
        (None, _) => {
            let site = headers.get("sec-fetch-site").and_then(|v| v.to_str().ok());
            site == Some("same-origin")
        }
    }
}
