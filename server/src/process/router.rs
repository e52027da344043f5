//! The whole service: the routes of every surface, and their description.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::app::App;
use crate::http::{openapi, router};
use crate::{api, openai};

/// Every documented route.
fn documented() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::front())
        .merge(api::routes())
        .merge(openai::routes())
        .routes(routes!(openapi_json))
}

/// The OpenAPI document of what [`router`] serves.
#[must_use]
pub fn document() -> OpenApi {
    openapi::complete(documented().into_openapi())
}

/// All that the server answers, with what surrounds it.
pub fn router(app: Arc<App>) -> Router {
    let (routes, _) = documented().split_for_parts();
    router::surround(routes.merge(openapi::browser()), app)
}

/// This document.
#[utoipa::path(
    get, path = "/api/openapi.json", operation_id = "document", tag = "page",
    responses((status = 200, body = Object, content_type = "application/json")),
)]
async fn openapi_json() -> impl IntoResponse {
    // The document is the same for the whole life of the process.
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_json().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}
