//! Every route, one file per noun.
//!
//! A new endpoint is one file here and one line in [`router`]. Handlers are registered with
//! `routes!`, which takes path and method from the same attribute that documents them, so that
//! the OpenAPI document and the router cannot differ.

mod answers;
mod checkpoints;
mod conversations;
mod differences;
mod forks;
mod graphs;
mod health;
mod holder;
mod keys;
mod messages;
mod metrics;
mod models;
mod openapi;
mod page;
mod protocol;
mod quotas;
mod run;
mod run_view;
mod runs;
mod sign_in;
mod skills;
mod tools;
mod usage;
mod users;
mod v1;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::openai::ends;
use crate::problem::Problem;
use crate::{access, admission, idempotency, trace};

/// Every documented route.
fn api() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::front())
        .merge(conversations::routes())
        .merge(messages::routes())
        .merge(runs::routes())
        .merge(run::routes())
        .merge(answers::routes())
        .merge(checkpoints::routes())
        .merge(differences::routes())
        .merge(forks::routes())
        .merge(graphs::routes())
        .merge(skills::routes())
        .merge(tools::routes())
        .merge(models::routes())
        .merge(protocol::routes())
        .merge(v1::routes())
        .merge(usage::routes())
        .merge(quotas::routes())
        .merge(users::routes())
        .merge(keys::routes())
        .merge(sign_in::routes())
        .merge(holder::routes())
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(page::routes())
        .merge(openapi::routes())
}

/// The OpenAPI document of what [`router`] serves.
#[must_use]
pub fn document() -> OpenApi {
    openapi::complete(api().into_openapi())
}

/// The whole service: routes, and around them (from the outside) trace, headers, panics, access,
/// room for bodies, idempotency and the server's end.
pub fn router(app: Arc<App>) -> Router {
    let (routes, _) = api().split_for_parts();
    routes
        .merge(openapi::browser())
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::Method)
        .layer(middleware::from_fn_with_state(app.clone(), until_cut))
        .layer(middleware::from_fn_with_state(app.clone(), idempotency::once))
        .layer(middleware::from_fn(admission::until_answered))
        .layer(middleware::from_fn_with_state(app.clone(), access::check))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(headers))
        .layer(middleware::from_fn_with_state(app.clone(), trace::follow))
        .with_state(app)
}

/// Ends what a request waits for once the server has waited for it long enough at its end.
async fn until_cut(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    tokio::select! {
        biased;
        response = next.run(request) => response,
        () = app.cut.cancelled() => ends().into_response(),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the layer's signature")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
    Problem::Internal(format!("a handler panicked: {}", text.unwrap_or_default())).into_response()
}

/// What browsers are told of every answer, unless the answer says otherwise itself.
async fn headers(request: Request, next: Next) -> Response {
    const USUAL: [(HeaderName, &str); 6] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "private, no-cache"),
    ];
    let mut response = next.run(request).await;
    for (name, value) in USUAL {
        let value = HeaderValue::from_static(value);
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}
