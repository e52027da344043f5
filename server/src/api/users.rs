//! `/api/users`: who may use the installation.
//!
//! Invariants:
//! - There is always an administrator who is not disabled.
//! - What a change takes away is taken away at once, from requests on their way here too.
//! - Runs of a user who is disabled go on: work is not lost by a change that can be taken back.
//!   Administrators see and cancel them (`GET /api/runs?owner=`).

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

use crate::http::app::App;
use crate::http::auth::{Caller, business};
use crate::http::body::JsonBody;
use crate::http::extract::{Path, Query};
use crate::http::pagination::{self, List};
use crate::http::problem::{Created, Problem};
use crate::store::{Changed, Removal, Role, User, UserChange};

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(me))
        .routes(routes!(read, change, remove))
        .routes(routes!(sign_in_link))
}

/// A new user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewUserBody {
    /// Unique; 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// `user` if nothing is said.
    #[serde(default)]
    role: Role,
    /// The businesses that the user's requests may belong to, the first one where they name none;
    /// without any, whatever no quota and no alias names.
    #[serde(default)]
    businesses: Vec<String>,
}

/// What is to change of a user; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UserChangeBody {
    /// What the user may do.
    role: Option<Role>,
    /// Whether the user's keys and sessions let nobody in.
    disabled: Option<bool>,
    /// The businesses that the user's requests may belong to.
    businesses: Option<Vec<String>>,
}

/// A user.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct UserView {
    /// The id, which owns rows.
    #[schema(value_type = String)]
    pub(crate) id: UserId,
    /// The name.
    pub(crate) name: String,
    /// What the user may do.
    pub(crate) role: Role,
    /// The businesses that the user's requests may belong to, the first one where they name none.
    pub(crate) businesses: Vec<String>,
    /// Whether the user's keys and sessions let nobody in.
    pub(crate) disabled: bool,
    /// When the user was added.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) created_at: Timestamp,
    /// Since when the user is disabled.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) disabled_at: Option<Timestamp>,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        let User { id, name, role, businesses, created_at, disabled_at } = user;
        let disabled = disabled_at.is_some();
        Self { id, name, role, businesses, disabled, created_at, disabled_at }
    }
}

/// A link that signs a user in.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct SignInLinkView {
    /// The page that it leads to; it works once.
    pub(crate) link: String,
    /// Until when it works.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) expires_at: Timestamp,
}

/// Which users.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UsersQuery {
    /// The one of this name alone.
    name: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// Items, 1 to 200; 50 if nothing is said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Everybody; for administrators.
#[utoipa::path(
    get, path = "/api/users", tag = "access",
    params(UsersQuery),
    responses((status = 200, body = List<UserView>)),
)]
async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<UsersQuery>,
) -> Result<Json<List<UserView>>, Problem> {
    caller.require_admin()?;
    if let Some(name) = query.name {
        let user = app.store.user_by_name(&name).await?;
        return Ok(Json(List::whole(user.into_iter().map(Into::into).collect())));
    }
    Ok(Json(List::of(app.store.list_users(pagination::page(query.after, query.limit)).await?)))
}

/// Adds a user; for administrators.
#[utoipa::path(
    post, path = "/api/users", tag = "access",
    request_body = NewUserBody,
    responses((status = 201, body = UserView)),
)]
async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(body): JsonBody<NewUserBody>,
) -> Result<Created<UserView>, Problem> {
    caller.require_admin()?;
    if !User::is_name(&body.name) {
        let what = "name: must be 1 to 100 characters, none of them a control character".into();
        return Err(Problem::Field { field: "name".into(), what });
    }
    business::check_names(&body.businesses)?;
    let user = app.store.add_user(&body.name, body.role, &body.businesses).await?;
    Ok(Created { location: "/api/users".into(), body: user.into() })
}

/// Who is asking.
#[utoipa::path(
    get, path = "/api/users/me", tag = "access",
    responses((status = 200, body = UserView)),
)]
async fn me(caller: Caller) -> Json<UserView> {
    Json(caller.user.into())
}

/// One user; for administrators.
#[utoipa::path(
    get, path = "/api/users/{id}", tag = "access",
    params(("id" = String, Path)),
    responses((status = 200, body = UserView)),
)]
async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<UserId>,
) -> Result<Json<UserView>, Problem> {
    caller.require_admin()?;
    Ok(Json(app.store.user(&id).await?.ok_or(Problem::NotFound)?.into()))
}

/// Changes what a user may do, or whether they may do anything; for administrators.
///
/// It holds at once: keys and sessions of a disabled user let nobody in, and neither do the keys
/// that theirs made. Their runs go on; `GET /api/runs?owner=` lists them.
#[utoipa::path(
    patch, path = "/api/users/{id}", tag = "access",
    params(("id" = String, Path)),
    request_body = UserChangeBody,
    responses((status = 200, body = UserView)),
)]
async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<UserId>,
    JsonBody(body): JsonBody<UserChangeBody>,
) -> Result<Json<UserView>, Problem> {
    caller.require_admin()?;
    let UserChangeBody { role, disabled, businesses } = body;
    business::check_names(businesses.as_deref().unwrap_or_default())?;
    let change = UserChange { role, disabled, businesses };
    match app.store.change_user(&id, change).await? {
        Changed::Done(user) => {
            keep_local_key(&app).await;
            let (by, role) = (&caller.user.name, user.role.as_str());
            let disabled = user.disabled_at.is_some();
            tracing::info!(%by, user = user.name, role, disabled, "a user was changed");
            Ok(Json(user.into()))
        }
        Changed::LastAdmin => Err(Problem::LastAdmin),
        Changed::Unknown => Err(Problem::NotFound),
    }
}

/// The command line's own key may have been the user's.
pub(super) async fn keep_local_key(app: &App) {
    if let Err(error) = app.local_key.ensure(&app.store).await {
        tracing::error!(%error, "the home has no key that works; the next start makes one");
    }
}

/// Removes a user with their keys, sessions, conversations and runs; for administrators.
///
/// 409 while a run of theirs has not ended; they are disabled then. What their calls cost stays in
/// the usage, under their id.
#[utoipa::path(
    delete, path = "/api/users/{id}", tag = "access",
    params(("id" = String, Path)),
    responses((status = 204)),
)]
async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<UserId>,
) -> Result<NoContent, Problem> {
    caller.require_admin()?;
    match app.store.remove_user(&id).await? {
        Removal::Removed => {
            keep_local_key(&app).await;
            tracing::info!(by = caller.user.name, user = %id, "a user was removed");
            Ok(NoContent)
        }
        Removal::Active => Err(Problem::RunsActive),
        Removal::LastAdmin => Err(Problem::LastAdmin),
        Removal::Unknown => Err(Problem::NotFound),
    }
}

/// Makes a link that signs a user in, once, within ten minutes; for administrators.
#[utoipa::path(
    post, path = "/api/users/{id}/sign-in-link", tag = "access",
    params(("id" = String, Path)),
    responses((status = 201, body = SignInLinkView)),
)]
async fn sign_in_link(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<UserId>,
) -> Result<impl IntoResponse, Problem> {
    caller.require_admin()?;
    let user = app.store.user(&id).await?.ok_or(Problem::NotFound)?;
    if user.disabled_at.is_some() {
        return Err(Problem::UserDisabled(user.name));
    }
    let maker = caller.maker().map(|maker| maker.key.as_str());
    let (token, expires_at) = app.store.create_sign_in(&user.id, maker).await?;
    tracing::info!(by = caller.user.name, user = user.name, "a sign-in link was made");
    // Headers may be kept and logged on the way: the token is in the body alone.
    let location = "/sign-in".to_owned();
    let link = format!("{}{location}?token={token}", app.settings.url);
    let created = Created { location, body: SignInLinkView { link, expires_at } };
    Ok(([(header::CACHE_CONTROL, "no-store")], created))
}
