//! The outermost layer: one span per request, and an id that finds it again.
//!
//! Invariants:
//! - Every request has a trace id: the caller's (W3C `traceparent`), the exporter's, or a new one.
//! - Neither bodies, queries nor credentials are recorded.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use exile_engine::span;
use tracing::Instrument as _;

use crate::http::app::App;
use crate::http::problem::wire::{self, ErrorFormat};

/// The trace that a request belongs to, for those who act on its behalf.
#[derive(Clone, Debug)]
pub struct Trace {
    /// 32 hexadecimal digits.
    pub id: String,
    /// What a run is given as its parent; `None` if the request belongs to no trace elsewhere.
    pub traceparent: Option<String>,
}

/// Opens the request's span, answers, and names the trace in problems.
pub async fn follow(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    let method = request.method().clone();
    let format = ErrorFormat::of(request.uri().path());
    let span = span::http_request(method.as_str(), route);
    let incoming = traceparent(request.headers());
    if let Some(parent) = &incoming {
        app.trace.adopt(&span, parent);
    }
    let parent = app.trace.traceparent(&span).or(incoming);
    let id = parent
        .as_deref()
        .and_then(trace_id)
        .map_or_else(|| app.env.uuid().simple().to_string(), str::to_owned);
    request.extensions_mut().insert(Trace { id: id.clone(), traceparent: parent });
    let began = app.env.monotonic();
    let response = next.run(request).instrument(span.clone()).await;
    let took = app.env.monotonic().saturating_sub(began);
    let (took_ms, status) = (took.as_millis(), response.status().as_u16());
    app.metrics.answered(known(&method), route, status, took);
    span::http_answered(&span, status);
    span.in_scope(|| tracing::debug!(status, took_ms, trace_id = id, "answered"));
    wire::traced(response, &id, format)
}

/// A method's name, of those that there are: anything may be written in its place.
fn known(method: &Method) -> &'static str {
    const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

/// The caller's `traceparent`, if it is one: `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |s: &str, len| {
        s.len() == len && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let id = |s: &str, len| hex(s, len) && s.bytes().any(|b| b != b'0');
    match parts[..] {
        [version, trace, span, flags, ..]
            if hex(version, 2)
                && version != "ff"
                && id(trace, 32)
                && id(span, 16)
                && hex(flags, 2)
                && (parts.len() == 4 || version != "00") =>
        {
            Some(text.to_owned())
        }
        _ => None,
    }
}

fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1)
}
