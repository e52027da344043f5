//! `/api/quotas`: how much users, keys, businesses and models may take. Those of `exile.yaml` are
//! changed there.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use exile_engine::model::ModelRef;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::body::JsonBody;
use crate::http::extract::Path;
use crate::http::pagination::List;
use crate::http::problem::Problem;
use crate::usage::{Allowance, Kind};

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(set, delete))
}

/// A quota.
#[derive(Serialize, ToSchema)]
struct QuotaView {
    /// `user`, `key`, `business` or `model`.
    kind: &'static str,
    /// Whose it is; `*`: that of each one that has none.
    name: String,
    #[serde(flatten)]
    allowance: Allowance,
    /// `exile.yaml`, or `api`.
    source: &'static str,
}

impl QuotaView {
    fn of(app: &App, kind: Kind, name: &str, allowance: &Allowance) -> Self {
        let source = if app.usage.is_in_file(kind, name) { "exile.yaml" } else { "api" };
        Self { kind: kind.as_str(), name: name.to_owned(), allowance: allowance.clone(), source }
    }
}

/// Every quota. For administrators.
#[utoipa::path(
    get, path = "/api/quotas", tag = "usage",
    responses((status = 200, body = List<QuotaView>)),
)]
async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<List<QuotaView>>, Problem> {
    caller.require_admin()?;
    let quotas = app.usage.quotas();
    let of = |kind: Kind| {
        let entries = quotas.of(kind).iter();
        entries.map(|(name, allowance)| QuotaView::of(&app, kind, name, allowance)).collect()
    };
    Ok(Json(List::whole(Kind::ALL.into_iter().flat_map(|kind| -> Vec<_> { of(kind) }).collect())))
}

/// Sets a quota, in place of what it was. It applies to the next call; what was used counts. For
/// administrators.
#[utoipa::path(
    put, path = "/api/quotas/{kind}/{*name}", tag = "usage",
    params(
        ("kind" = String, Path, description = "`user`, `key`, `business` or `model`"),
        ("name" = String, Path, description = "Whose: a user's name, a key's id, a business, \
            `provider/model` or the beginning of such names and a `*`. `*` alone: each one that has \
            none of its own; of models, all of them together"),
    ),
    request_body = Allowance,
    responses((status = 200, body = QuotaView)),
)]
async fn set(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((kind, name)): Path<(String, String)>,
    JsonBody(body): JsonBody<Allowance>,
) -> Result<Json<QuotaView>, Problem> {
    let kind = writable(&app, &caller, &kind, &name)?;
    let unknown = |what| Problem::UnknownName { what, name: name.clone(), known: Vec::new() };
    match kind {
        Kind::User if name != "*" && app.store.user_by_name(&name).await?.is_none() => {
            return Err(unknown("user"));
        }
        Kind::Model if !is_pattern(&name) => return Err(unknown("model")),
        _ => {}
    }
    app.usage.set_quota(kind, &name, Some(&body)).await?;
    Ok(Json(QuotaView::of(&app, kind, &name, &body)))
}

/// Takes a quota away. For administrators.
#[utoipa::path(
    delete, path = "/api/quotas/{kind}/{*name}", tag = "usage",
    params(
        ("kind" = String, Path, description = "`user`, `key`, `business` or `model`"),
        ("name" = String, Path, description = "Whose"),
    ),
    responses((status = 204)),
)]
async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((kind, name)): Path<(String, String)>,
) -> Result<NoContent, Problem> {
    let kind = writable(&app, &caller, &kind, &name)?;
    let known = app.usage.set_quota(kind, &name, None).await?;
    if known { Ok(NoContent) } else { Err(Problem::NotFound) }
}

/// The kind of that name, if the caller may change its quota of `name`.
fn writable(app: &App, caller: &Caller, kind: &str, name: &str) -> Result<Kind, Problem> {
    caller.require_admin()?;
    let known = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
    let kind = known.ok_or(Problem::NotFound)?;
    if app.usage.is_in_file(kind, name) {
        return Err(Problem::InFile(format!("the quota of {} {name}", kind.as_str())));
    }
    Ok(kind)
}

/// Whether models can be named so.
fn is_pattern(name: &str) -> bool {
    match name.strip_suffix('*') {
        Some(beginning) => !beginning.contains('*'),
        None => ModelRef::parse(name).is_some(),
    }
}
