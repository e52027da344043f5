//! A problem on the wire: `application/problem+json` (RFC 9457).
//!
//! The trace id is put in by the outermost layer ([`traced`]), which alone knows it.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::problem::{INTERNAL, Problem, RUN_HEADER};

/// The body of every problem.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Report {
    /// A URI of this kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable, for programs.
    pub code: String,
    /// What went wrong this time.
    pub detail: String,
    /// What to do.
    pub remedy: String,
    /// Finds the request in logs and traces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// E.g. `field`, `run`, `reasons`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Map<String, Value>,
    /// For the log only.
    #[serde(skip)]
    hidden: Option<String>,
}

impl Report {
    fn new(problem: &Problem) -> Self {
        let (code, detail) = (problem.code().into_owned(), problem.to_string());
        let inside = code == INTERNAL;
        Self {
            kind: format!("urn:exile:problem:{code}"),
            title: title(&code),
            status: problem.status().as_u16(),
            code,
            detail: if inside { "something went wrong inside".into() } else { detail.clone() },
            remedy: problem.remedy().into_owned(),
            trace_id: None,
            extra: problem.extra(),
            hidden: inside.then_some(detail),
        }
    }
}

/// `body_too_large` reads "Body too large".
fn title(code: &str) -> String {
    let mut title = code.replace('_', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let report = Report::new(&self);
        let mut response = (PROBLEM_JSON, Json(&report)).into_response();
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if matches!(self, Self::Unauthorized(_)) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(run) = self.run().and_then(|r| HeaderValue::from_str(r.as_str()).ok()) {
            headers.insert(RUN_HEADER, run);
        }
        response.extensions_mut().insert(Arc::new(report));
        response
    }
}

const PROBLEM_JSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/problem+json")];

/// Puts the trace id into a problem and logs what is exile's own fault; other answers pass.
pub fn traced(mut response: Response, trace_id: &str) -> Response {
    let Some(report) = response.extensions_mut().remove::<Arc<Report>>() else { return response };
    if report.status >= 500 {
        let detail = report.hidden.as_deref().unwrap_or(&report.detail);
        tracing::error!(code = report.code, trace_id, detail, "a request failed");
    }
    let report = Report { trace_id: Some(trace_id.to_owned()), ..Report::clone(&report) };
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    (parts, PROBLEM_JSON, Json(report)).into_response()
}
