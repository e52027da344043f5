//! `/api/keys`: what programs show instead of a password.
//!
//! A key's secret is in the answer that creates it and nowhere else: that answer is never cached
//! or kept for `Idempotency-Key`.

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

use crate::access::{ACT_AS, Caller, METRICS};
use crate::app::App;
use crate::body::JsonBody;
use crate::page::List;
use crate::problem::{Created, Problem};
use crate::store::ApiKey;
use crate::url::{Path, Query};

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// What keys may do besides their user's role.
const SCOPES: [&str; 2] = [ACT_AS, METRICS];

/// A new key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewKeyBody {
    /// What it is for.
    name: String,
    /// Whose it is: a user's name. Administrators may name others; the caller if nothing is said.
    user: Option<String>,
    /// What it may do besides its user's role: `act_as`, `metrics`; for administrators
    /// to give.
    #[serde(default)]
    scopes: Vec<String>,
    /// When it stops working; never if nothing is said.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// A key, without its secret.
#[derive(Serialize, ToSchema)]
struct KeyView {
    /// Its id.
    id: String,
    /// Whose it is.
    #[schema(value_type = String)]
    user_id: UserId,
    /// What it is for.
    name: String,
    /// How its secret begins.
    prefix: String,
    /// What it may do besides its user's role.
    scopes: Vec<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was last used.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    /// When it was revoked.
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
    /// When it stops working.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// A new key and its secret, which is shown once.
#[derive(Serialize, ToSchema)]
struct SecretView {
    #[serde(flatten)]
    key: KeyView,
    /// What to send after `Authorization: Bearer`.
    secret: String,
}

impl From<ApiKey> for KeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            user_id: key.user,
            name: key.name,
            prefix: key.prefix,
            scopes: key.scopes,
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
}

/// The user of that name; anybody but an administrator may name only themselves.
async fn user(app: &App, caller: &Caller, name: Option<String>) -> Result<UserId, Problem> {
    let Some(name) = name.filter(|name| *name != caller.user.name) else {
        return Ok(caller.user.id.clone());
    };
    caller.admin()?;
    let unknown = || Problem::UnknownName { what: "user", name: name.clone(), known: Vec::new() };
    Ok(app.store.user_by_name(&name).await?.ok_or_else(unknown)?.id)
}

/// A user's keys.
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
    let keys = app.store.list_keys(&owner).await?;
    Ok(Json(List::whole(keys.into_iter().map(Into::into).collect())))
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
    if let Some(unknown) = body.scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
        let what = format!("scopes: `{unknown}` is no scope; there are {}", SCOPES.join(", "));
        return Err(Problem::Field { field: "scopes".into(), what });
    }
    if !body.scopes.is_empty() {
        caller.admin()?;
    }
    let owner = user(&app, &caller, body.user).await?;
    let made = app.store.create_key(&owner, &body.name, &body.scopes, body.expires_at).await?;
    let (key, secret) = made;
    let location = format!("/api/keys/{}", key.id);
    let created = Created { location, body: SecretView { key: key.into(), secret } };
    Ok(([(header::CACHE_CONTROL, "no-store")], created))
}

/// Revokes a key; it stops working at once.
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
    let own = app.store.list_keys(caller.id()).await?;
    if !caller.is_admin() && !own.iter().any(|key| key.id == id) {
        return Err(Problem::NotFound);
    }
    if app.store.revoke_key(&id).await? { Ok(NoContent) } else { Err(Problem::NotFound) }
}
