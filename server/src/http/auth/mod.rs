//! Who may do what: a key or a session on every route that is not listed open.
//!
//! Invariants:
//! - A route is closed unless [`OPEN`] names it; forgetting to list one shuts it.
//! - A session cookie changes things only from a page of this server (`Origin`).
//! - A key that may act as others acts as plain users alone: it never gains anybody's role.
//! - A key's scopes take away from its user's rights (`scopes.rs`); they never add to them.
//! - Keys and sessions are compared by the store, by hash; neither is ever logged.
//!
//! Absent on purpose: ownership of rows. Every read of the store takes the owner; `reach.rs` says
//! whose rows a caller reaches, `business.rs` which business a request belongs to.

pub mod business;
mod forwarded;
pub mod guesses;
pub mod origin;
pub mod reach;
mod scopes;

use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use exile_engine::id::UserId;
use exile_engine::model::meter::Payer;
use jiff::Timestamp;

use crate::http::app::App;
use crate::http::problem::Problem;
use crate::store::{KeyOwner, Role, Standing, User};
pub use scopes::{Rights, Scope, Scopes};

/// Routes that anybody may call.
pub const OPEN: &[&str] = &[
    "/",
    "/style.css",
    "/healthz",
    "/readyz",
    "/sign-in",
    "/api/holder",
    "/api/openapi.json",
    "/api/docs",
    "/api/docs/",
    "/api/docs/{*rest}",
];

/// The cookie that holds a session.
pub const COOKIE: &str = "__Host-exile";

/// Names the user that a key acts for.
const USER_HEADER: &str = "x-exile-user";

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose rows are read and written.
    pub user: User,
    /// The key, if the request came with one.
    pub key: Option<CallerKey>,
    /// The token of the session, if the request came with one.
    pub session: Option<String>,
    /// With what it may do at most: less than its user's role where a key's scopes, or a key that it
    /// comes from, say so.
    role: Role,
    scopes: Scopes,
    /// What the keys and links that it makes come from.
    maker: Option<Maker>,
    /// The method and the route that were asked for.
    asked: (Method, Arc<str>),
}

/// The key that a request came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerKey {
    /// Its id.
    pub id: String,
    /// The id of the key whose quota it takes from: its own, or that of the key it comes from.
    pub counts_as: String,
    /// The businesses that it is bound to; empty: those of its user.
    pub businesses: Vec<String>,
}

/// A key that a request came with, or that its session comes from: what the request makes works no
/// longer than it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    /// Its id.
    pub key: String,
    /// When it expires.
    pub void_at: Option<Timestamp>,
    /// How many keys it comes from.
    pub generation: u32,
}

impl Caller {
    /// The owner of everything the caller makes.
    #[must_use]
    pub fn id(&self) -> &UserId {
        &self.user.id
    }

    /// Whether the caller may name another user whom a request is for.
    #[must_use]
    pub fn can_impersonate(&self) -> bool {
        self.scopes.has(Scope::ActAs)
    }

    /// Whether the caller may read `/metrics`.
    #[must_use]
    pub fn can_read_metrics(&self) -> bool {
        self.is_admin() || self.scopes.has(Scope::Metrics)
    }

    /// Who pays for what the caller asks of models, outside of runs.
    #[must_use]
    pub fn payer(&self, business: Option<String>) -> Payer {
        let (owner, key) = (self.user.id.clone(), self.quota_key());
        Payer { owner, key, business, graph: None, run: None }
    }

    fn asked((method, route): (&Method, &str)) -> (Method, Arc<str>) {
        (method.clone(), route.into())
    }

    /// Id of the key whose quota the caller takes from, if it shows a key.
    #[must_use]
    pub fn quota_key(&self) -> Option<String> {
        self.key.as_ref().map(|key| key.counts_as.clone())
    }

    /// The key that everything the caller makes depends on, if there is one.
    #[must_use]
    pub fn maker(&self) -> Option<&Maker> {
        self.maker.as_ref()
    }

    /// Whether the caller runs the installation.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// Whether the caller may see how graphs and skills are made, and call tools that need care.
    #[must_use]
    pub fn is_author(&self) -> bool {
        matches!(self.role, Role::Author | Role::Admin)
    }

    /// Lets administrators pass.
    ///
    /// # Errors
    /// [`Problem::Forbidden`]: the caller is none.
    pub fn require_admin(&self) -> Result<(), Problem> {
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

/// The layer that finds out who calls, and refuses whoever may not call a route.
pub async fn check(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    if OPEN.contains(&route) {
        return next.run(request).await;
    }
    match identify(&app, (request.method(), route), request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Who calls, by key or session; with the method and the pattern that matched, an empty one leads
/// nowhere.
pub(crate) async fn identify(
    app: &App,
    what: (&Method, &str),
    headers: &HeaderMap,
) -> Result<Caller, Problem> {
    const OUT_OF_SCOPE: Problem = Problem::Forbidden("a key whose scopes allow it");
    let (method, route) = what;
    let mut caller = if headers.contains_key(header::AUTHORIZATION) {
        by_key(app, what, headers).await?
    } else {
        by_session(app, what, headers).await?
    };
    if let Some(name) = headers.get(USER_HEADER) {
        if !caller.can_impersonate() {
            return Err(Problem::Forbidden("a key with the scope act_as"));
        }
        if !caller.scopes.reaches_others(method, route) {
            return Err(OUT_OF_SCOPE);
        }
        return act_as(app, caller, name).await;
    }
    match caller.scopes.rights(method, route) {
        Some(Rights::Role) => {}
        Some(Rights::Plain) => caller.role = Role::User,
        None if route.is_empty() => {}
        None => return Err(OUT_OF_SCOPE),
    }
    Ok(caller)
}

/// The caller as the user that the header names; one who is new is added.
async fn act_as(app: &App, caller: Caller, name: &HeaderValue) -> Result<Caller, Problem> {
    let name = std::str::from_utf8(name.as_bytes()).ok().filter(|name| User::is_name(name));
    let name = name.ok_or_else(|| Problem::Unreadable("X-Exile-User is no user's name".into()))?;
    as_user(app, caller, name).await
}

/// The plain user of that name, who is added if new; the key stays the caller's.
///
/// # Errors
/// A user of that name has more rights than a plain one, or is disabled.
pub async fn as_user(app: &App, caller: Caller, name: &str) -> Result<Caller, Problem> {
    let user = app.store.user_named(name).await?;
    if user.role != Role::User {
        return Err(Problem::Forbidden("a user with the role user: nobody is given more rights"));
    }
    if user.disabled_at.is_some() {
        return Err(Problem::Forbidden("a user who is not disabled"));
    }
    let scopes = caller.scopes.as_another();
    Ok(Caller { user, role: Role::User, scopes, session: None, ..caller })
}

/// Whom the session of a page's visitor belongs to, if there is one.
pub async fn visitor(app: &App, headers: &HeaderMap) -> Result<Option<User>, Problem> {
    match cookie(headers) {
        Some(token) => Ok(app.store.session_owner(token).await?.map(|owner| owner.user)),
        None => Ok(None),
    }
}

async fn by_key(app: &App, what: (&Method, &str), headers: &HeaderMap) -> Result<Caller, Problem> {
    const WRONG: Problem = Problem::Unauthorized("the key is not valid");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(WRONG) };
    let (scheme, secret) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or(WRONG)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::Unauthorized("the Authorization header is not `Bearer KEY`"));
    }
    let owner = app.store.key_owner(secret.trim()).await?.ok_or(WRONG)?;
    let KeyOwner { key, user, role, void_at, generation } = owner;
    let maker = Some(Maker { key: key.id.clone(), void_at, generation });
    let counts_as = key.counts_as.unwrap_or_else(|| key.id.clone());
    let scopes = Scopes::of(&key.scopes);
    let key = Some(CallerKey { id: key.id, counts_as, businesses: key.businesses });
    Ok(Caller { user, key, session: None, role, scopes, maker, asked: Caller::asked(what) })
}

async fn by_session(
    app: &App,
    what: (&Method, &str),
    headers: &HeaderMap,
) -> Result<Caller, Problem> {
    let token = cookie(headers).ok_or(Problem::Unauthorized("no key and no session"))?;
    let owner = app.store.session_owner(token).await?;
    let owner = owner.ok_or(Problem::Unauthorized("the session has ended"))?;
    if !what.0.is_safe() && !origin::is_own(headers, &app.settings.url) {
        return Err(Problem::Origin);
    }
    let maker = owner.key.map(|(key, standing)| {
        let Standing { void_at, generation, .. } = standing;
        Maker { key, void_at, generation }
    });
    let (user, role, session) = (owner.user, owner.role, Some(token.to_owned()));
    let (scopes, asked) = (Scopes::default(), Caller::asked(what));
    Ok(Caller { user, key: None, session, role, scopes, maker, asked })
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = all.flat_map(|v| v.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, value)| *name == COOKIE && !value.is_empty()).map(|(_, value)| value)
}
