//! `/api/users`: who may use the installation.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use exile_engine::id::UserId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Caller;
use crate::app::App;
use crate::body::JsonBody;
use crate::page::{List, PageQuery};
use crate::problem::{Created, Problem};
use crate::store::{Role, User};
use crate::url::Query;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(me))
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
    role: RoleName,
}

/// What a user may do.
#[derive(Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum RoleName {
    /// Everything, users and keys included.
    Admin,
    /// Graphs, skills and documents too.
    Author,
    /// Conversations and runs.
    #[default]
    User,
}

impl From<RoleName> for Role {
    fn from(role: RoleName) -> Self {
        match role {
            RoleName::Admin => Self::Admin,
            RoleName::Author => Self::Author,
            RoleName::User => Self::User,
        }
    }
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::Author => Self::Author,
            Role::User => Self::User,
        }
    }
}

/// A user.
#[derive(Serialize, ToSchema)]
struct UserView {
    /// The id, which owns rows.
    #[schema(value_type = String)]
    id: UserId,
    /// The name.
    name: String,
    /// What the user may do.
    role: RoleName,
    /// When the user was added.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        let User { id, name, role, created_at } = user;
        Self { id, name, role: role.into(), created_at }
    }
}

/// Everybody; for administrators.
#[utoipa::path(
    get, path = "/api/users", tag = "access",
    params(PageQuery),
    responses((status = 200, body = List<UserView>)),
)]
async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<List<UserView>>, Problem> {
    caller.admin()?;
    Ok(Json(List::of(app.store.list_users(query.page()).await?)))
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
    caller.admin()?;
    if !User::is_name(&body.name) {
        let what = "name: must be 1 to 100 characters, none of them a control character".into();
        return Err(Problem::Field { field: "name".into(), what });
    }
    let user = app.store.create_user(&body.name, body.role.into()).await?;
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
