//! `/api/holder`: how the command line knows that it talks to the process that holds its home,
//! before it sends the home's key.
//!
//! Open: an answer tells nothing to whoever does not have that key.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::local_key;
use crate::http::app::App;
use crate::http::extract::Query;
use crate::http::problem::Problem;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(holder))
}

/// A challenge.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HolderQuery {
    /// 16 to 64 letters, digits, `-` and `_`, never used before.
    #[param(min_length = 16, max_length = 64)]
    nonce: String,
}

/// What proves that the server has the key of the home.
#[derive(Serialize, ToSchema)]
struct HolderView {
    /// Where the server says that it listens.
    url: String,
    /// HMAC-SHA256 under the home's key over that address and the nonce.
    proof: String,
}

/// Proves to whoever has the key in `<home>/local.key` that this server holds that home.
#[utoipa::path(
    get, path = "/api/holder", tag = "access",
    params(HolderQuery),
    responses((status = 200, body = HolderView)),
)]
async fn holder(
    State(app): State<Arc<App>>,
    Query(query): Query<HolderQuery>,
) -> Result<Json<HolderView>, Problem> {
    if !local_key::is_nonce(&query.nonce) {
        let what = "nonce: must be 16 to 64 letters, digits, `-` and `_`".to_owned();
        return Err(Problem::Unreadable(what));
    }
    let url = app.settings.listening.clone();
    let proof = app.local_key.prove(&query.nonce, &url);
    let proof = proof.map_err(|error| Problem::Internal(error.to_string()))?;
    Ok(Json(HolderView { url, proof: proof.ok_or(Problem::NotFound)? }))
}
