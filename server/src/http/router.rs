//! What surrounds every route, whatever it serves.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use tower_http::catch_panic::CatchPanicLayer;

use super::app::App;
use super::problem::Problem;
use super::{admission, auth, idempotency, trace};

/// Puts around `routes` (from the outside) trace, headers, panics, access, room for bodies,
/// idempotency and the server's end, and gives the whole service.
pub fn surround(routes: Router<Arc<App>>, app: Arc<App>) -> Router {
    routes
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::Method)
        .layer(middleware::from_fn_with_state(app.clone(), until_cut))
        .layer(middleware::from_fn_with_state(app.clone(), idempotency::answer_once))
        .layer(middleware::from_fn(admission::until_answered))
        .layer(middleware::from_fn_with_state(app.clone(), auth::check))
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
        () = app.cut.cancelled() => Problem::stopping().into_response(),
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
