//! Signing in with the one-time link of the ready line, and out.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, NoContent, Redirect};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::{COOKIE, Caller};
use crate::app::App;
use crate::problem::Problem;
use crate::url::Query;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(sign_in)).routes(routes!(sign_out))
}

/// The link's token.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SignInQuery {
    /// Works once, for ten minutes.
    token: String,
}

/// Opens a session and goes to the first page.
#[utoipa::path(
    get, path = "/sign-in", tag = "access",
    params(SignInQuery),
    responses((status = 303, description = "Signed in; the cookie is set")),
)]
async fn sign_in(
    State(app): State<Arc<App>>,
    Query(query): Query<SignInQuery>,
) -> Result<impl IntoResponse, Problem> {
    const WRONG: Problem =
        Problem::Unauthorized("the sign-in link was used before or is older than ten minutes");
    let (session, _) = app.store.redeem_sign_in(&query.token).await?.ok_or(WRONG)?;
    let cookie = format!("{COOKIE}={session}; Path=/; Secure; HttpOnly; SameSite=Strict");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")))
}

/// Ends the session of the cookie; with a key there is none to end.
#[utoipa::path(
    post, path = "/api/sign-out", tag = "access",
    responses((status = 204)),
)]
async fn sign_out(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<impl IntoResponse, Problem> {
    if let Some(session) = &caller.session {
        app.store.end_session(session).await?;
    }
    let cookie = format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0");
    Ok(([(header::SET_COOKIE, cookie)], NoContent))
}
