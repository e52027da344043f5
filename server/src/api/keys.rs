//! `/api/keys`: what programs show instead of a password.
//!
//! Invariants:
//! - A key's secret is in the answer that creates it and nowhere else: that answer is never cached
//!   or kept for `Idempotency-Key`.
//! - A key that a key makes, itself or through a sign-in link, works no longer than it and has no
//!   more than its role. Scopes cannot grow, since a key with scopes reaches no route of this file
//!   that writes (`http/auth/scopes.rs`).
//! - No quota is escaped by making keys: those of a user who is no administrator count as one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, NoContent};
use exile_engine::id::UserId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::users::keep_local_key;
use crate::http::app::App;
use crate::http::auth::{Caller, Scope, business};
use crate::http::body::JsonBody;
use crate::http::extract::{Path, Query};
use crate::http::pagination::{self, List};
use crate::http::problem::{Created, Problem};
use crate::store::{ApiKey, NewKey, User};

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// How many keys, each made by the one before it, may come from one.
const GENERATIONS: u32 = 8;

/// A new key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewKeyBody {
    /// What it is for; 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Whose it is: a user's name. Administrators may name others; the caller if nothing is said.
    user: Option<String>,
    /// What it may do: `metrics` (`GET /metrics` and nothing else), `read` (what its user may read),
    /// `run` (runs, conversations and `/v1`), `act_as` (naming users in `X-Exile-User`, within what
    /// `run` or `read` allows; for administrators to give). Whatever its user may if nothing is
    /// said.
    #[serde(default)]
    scopes: Vec<String>,
    /// The businesses that its requests may belong to, the first one where they name none; those of
    /// its user if nothing is said. For administrators to give.
    #[serde(default)]
    businesses: Vec<String>,
    /// When it stops working, at the latest with the key that makes it; with that one if nothing is
    /// said.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// A key, without its secret.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct KeyView {
    /// Its id.
    pub(crate) id: String,
    /// Whose it is.
    #[schema(value_type = String)]
    pub(crate) user_id: UserId,
    /// What it is for.
    pub(crate) name: String,
    /// How its secret begins.
    pub(crate) prefix: String,
    /// What it may do; whatever its user may if there are none.
    pub(crate) scopes: Vec<String>,
    /// The businesses that its requests may belong to; those of its user if there are none.
    pub(crate) businesses: Vec<String>,
    /// `active`, `revoked`, `expired`, or `suspended` while its user, or the user of a key that it
    /// comes from, is disabled.
    #[schema(value_type = String)]
    pub(crate) state: Cow<'static, str>,
    /// The key that made it, with which it ends.
    pub(crate) parent: Option<String>,
    /// The key whose quota and usage its calls count as: its own id, or another one's.
    pub(crate) counts_as: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) created_at: Timestamp,
    /// When it was last used.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) last_used_at: Option<Timestamp>,
    /// When it was revoked.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) revoked_at: Option<Timestamp>,
    /// When it stops working.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) expires_at: Option<Timestamp>,
}

/// A new key and its secret, which is shown once.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct SecretView {
    #[serde(flatten)]
    pub(crate) key: KeyView,
    /// What to send after `Authorization: Bearer`.
    pub(crate) secret: String,
}

impl KeyView {
    fn new(key: ApiKey, state: &'static str) -> Self {
        let counts_as = key.counts_as.unwrap_or_else(|| key.id.clone());
        Self {
            id: key.id,
            user_id: key.user,
            name: key.name,
            prefix: key.prefix,
            scopes: key.scopes,
            businesses: key.businesses,
            state: state.into(),
            parent: key.parent,
            counts_as,
            created_at: key.created_at,
            last_used_at: key.last_used_at,
            revoked_at: key.revoked_at,
            expires_at: key.expires_at,
        }
    }
}

/// Whose keys.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct KeysQuery {
    /// A user's name, for administrators; the caller if nothing is said.
    user: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// Items, 1 to 200; 50 if nothing is said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// The user of that name; anybody but an administrator may name only themselves.
async fn user(app: &App, caller: &Caller, name: Option<String>) -> Result<User, Problem> {
    let Some(name) = name.filter(|name| *name != caller.user.name) else {
        return Ok(caller.user.clone());
    };
    caller.require_admin()?;
    let unknown = || Problem::UnknownName { what: "user", name: name.clone(), known: Vec::new() };
    app.store.user_by_name(&name).await?.ok_or_else(unknown)
}

/// A user's keys, oldest first.
#[utoipa::path(
    get, path = "/api/keys", tag = "access",
    params(KeysQuery),
    responses((status = 200, body = List<KeyView>)),
)]
async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<KeysQuery>,
) -> Result<Json<List<KeyView>>, Problem> {
    let owner = user(&app, &caller, query.user).await?;
    let listed = app.store.list_keys(&owner.id, pagination::page(query.after, query.limit)).await?;
    let mut parents = Parents::default();
    let mut items = Vec::with_capacity(listed.items.len());
    for key in listed.items {
        let state = parents.state(&app, &owner, &key).await?;
        items.push(KeyView::new(key, state));
    }
    Ok(Json(List { items, next: listed.next }))
}

/// Whether keys that made others work, by their ids, so that each is looked up once.
#[derive(Default)]
struct Parents(HashMap<String, bool>);

impl Parents {
    /// How a key of `owner` stands.
    async fn state(
        &mut self,
        app: &App,
        owner: &User,
        key: &ApiKey,
    ) -> Result<&'static str, Problem> {
        if key.revoked_at.is_some() {
            return Ok("revoked");
        }
        if key.expires_at.is_some_and(|at| at <= app.env.now()) {
            return Ok("expired");
        }
        let suspended = owner.disabled_at.is_some()
            || match &key.parent {
                Some(parent) => !self.works(app, parent).await?,
                None => false,
            };
        Ok(if suspended { "suspended" } else { "active" })
    }

    async fn works(&mut self, app: &App, parent: &str) -> Result<bool, Problem> {
        if let Some(works) = self.0.get(parent) {
            return Ok(*works);
        }
        let works = app.store.standing(parent).await?.is_some();
        self.0.insert(parent.to_owned(), works);
        Ok(works)
    }
}

/// Makes a key. The answer shows its secret, once.
#[utoipa::path(
    post, path = "/api/keys", tag = "access",
    request_body = NewKeyBody,
    responses((status = 201, body = SecretView)),
)]
async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(body): JsonBody<NewKeyBody>,
) -> Result<impl IntoResponse, Problem> {
    check_name(&body.name)?;
    check_scopes(&caller, &body.scopes)?;
    let owner = user(&app, &caller, body.user.clone()).await?;
    let expires_at = expiry(&app, &caller, body.expires_at)?;
    check_number(&app, &caller, &owner).await?;
    let counts_as = counts_as(&app, &caller).await?;
    let businesses = businesses(&caller, body.businesses)?;
    let new = NewKey {
        user: &owner.id,
        name: &body.name,
        scopes: &body.scopes,
        businesses: &businesses,
        expires_at,
        parent: caller.maker().map(|maker| maker.key.as_str()),
        counts_as: counts_as.as_deref(),
    };
    let (key, secret) = app.store.make_key(new).await?;
    let location = format!("/api/keys/{}", key.id);
    let state = Parents::default().state(&app, &owner, &key).await?;
    let body = SecretView { key: KeyView::new(key, state), secret };
    Ok(([(header::CACHE_CONTROL, "no-store")], Created { location, body }))
}

fn field(field: &str, what: &str) -> Problem {
    Problem::Field { field: field.to_owned(), what: format!("{field}: {what}") }
}

fn check_name(name: &str) -> Result<(), Problem> {
    if User::is_name(name) {
        return Ok(());
    }
    Err(field("name", "must be 1 to 100 characters, none of them a control character"))
}

fn check_scopes(caller: &Caller, scopes: &[String]) -> Result<(), Problem> {
    for scope in scopes {
        match Scope::parse(scope) {
            Some(Scope::ActAs | Scope::Metrics) => caller.require_admin()?,
            Some(Scope::Read | Scope::Run) => {}
            None => {
                let known = Scope::ALL.map(Scope::as_str).join(", ");
                return Err(field("scopes", &format!("`{scope}` is no scope; there are {known}")));
            }
        }
    }
    Ok(())
}

/// What a key that the caller makes is bound to: what an administrator says, else what the key that
/// makes it is.
fn businesses(caller: &Caller, wanted: Vec<String>) -> Result<Vec<String>, Problem> {
    if caller.is_admin() {
        business::check_names(&wanted)?;
        return Ok(wanted);
    }
    if !wanted.is_empty() {
        caller.require_admin()?;
    }
    Ok(caller.key.as_ref().map(|key| key.businesses.clone()).unwrap_or_default())
}

/// When a key that the caller makes expires.
fn expiry(
    app: &App,
    caller: &Caller,
    wanted: Option<Timestamp>,
) -> Result<Option<Timestamp>, Problem> {
    if wanted.is_some_and(|at| at <= app.env.now()) {
        return Err(field("expires_at", "is past; such a key would never work"));
    }
    match (wanted, caller.maker().and_then(|maker| maker.void_at)) {
        (Some(wanted), Some(end)) if wanted > end => {
            let what = format!("is after {end}, when the key that makes this one expires");
            Err(field("expires_at", &what))
        }
        (wanted, end) => Ok(wanted.or(end)),
    }
}

/// Bounds how many keys there are, and how long the lines are that they form.
async fn check_number(app: &App, caller: &Caller, owner: &User) -> Result<(), Problem> {
    if caller.maker().is_some_and(|maker| maker.generation >= GENERATIONS) {
        let what = format!(
            "the key that makes this one comes from {GENERATIONS} others; make it with one of those"
        );
        return Err(Problem::Field { field: String::new(), what });
    }
    let most = app.settings.limits.keys;
    if !caller.is_admin() && app.store.count_keys(&owner.id).await? >= most {
        let what = format!("there are {most} keys already; revoke some (`limits.keys`)");
        return Err(Problem::Field { field: String::new(), what });
    }
    Ok(())
}

/// The key whose quota a new one takes from; `None`: it has one of its own, as an administrator
/// gives it.
async fn counts_as(app: &App, caller: &Caller) -> Result<Option<String>, Problem> {
    if caller.is_admin() {
        return Ok(None);
    }
    if let Some(key) = caller.quota_key() {
        return Ok(Some(key));
    }
    let first = app.store.first_key(caller.id()).await?;
    Ok(first.map(|key| key.counts_as.unwrap_or(key.id)))
}

/// Revokes a key; it, and every key that it made, stops working at once.
#[utoipa::path(
    delete, path = "/api/keys/{id}", tag = "access",
    params(("id" = String, Path)),
    responses((status = 204)),
)]
async fn revoke(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<NoContent, Problem> {
    let key = app.store.key(&id).await?.ok_or(Problem::NotFound)?;
    if !caller.is_admin() && key.user != *caller.id() {
        return Err(Problem::NotFound);
    }
    if !app.store.revoke_key(&id).await? {
        return Err(Problem::NotFound);
    }
    keep_local_key(&app).await;
    Ok(NoContent)
}
