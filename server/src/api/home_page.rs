//! `/`: one small page, in Chinese and English, that says what runs and how to talk to it.
//!
//! It holds no script and no data but the visitor's own name, so it is open; its policy forbids
//! everything but its own style sheet.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::{Html, IntoResponse};
use exile_nodes::providers::mock;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::app::App;
use crate::http::auth::{self, origin::keeps_cookies};
use crate::http::peer::Peer;
use crate::http::problem::Problem;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(page)).routes(routes!(style))
}

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The page.
#[utoipa::path(
    get, path = "/", tag = "page",
    responses((status = 200, body = String, content_type = "text/html")),
)]
async fn page(
    State(app): State<Arc<App>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let peer = peer.map(|Extension(Peer(address))| address);
    let is_https = app.settings.trusted_proxies.is_https(&headers, peer);
    let visitor = auth::visitor(&app, &headers).await?;
    let mock = app.catalog.models.provider(mock::NAME).is_some();
    let html = include_str!("../../console/index.html")
        .replace("{url}", &escape(&url(&app, &headers)))
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{environment}", app.settings.environment.as_str())
        .replace("{graph}", &escape(&app.settings.default_graph))
        .replace("{graphs}", &app.library.now().graphs().len().to_string())
        .replace("{tools}", &app.catalog.tools.specs().count().to_string())
        .replace("{mock}", shown_if(mock))
        .replace("{insecure}", shown_if(!keeps_cookies(&headers, &app.settings.url, is_https)))
        .replace("{session}", shown_if(visitor.is_some()))
        .replace("{visitor}", &visitor.map(|user| escape(&user.name)).unwrap_or_default());
    Ok(([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(html)))
}

/// The attribute of an element that is there only sometimes.
pub(super) fn shown_if(shown: bool) -> &'static str {
    if shown { "" } else { "hidden" }
}

/// Where the visitor reaches the server, for the examples.
fn url(app: &App, headers: &HeaderMap) -> String {
    if app.settings.url != app.settings.listening {
        return app.settings.url.clone();
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:-[]".contains(c);
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok());
    let host = host.filter(|host| host.chars().all(plain)).unwrap_or("127.0.0.1:8080");
    format!("http://{host}")
}

/// A text as it may stand in a page.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page's style sheet.
#[utoipa::path(
    get, path = "/style.css", tag = "page",
    responses((status = 200, body = String, content_type = "text/css")),
)]
async fn style() -> impl IntoResponse {
    const CSS: &str = include_str!("../../console/style.css");
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], CSS)
}
