//! A problem on the wire: `application/problem+json` (RFC 9457), and under `/v1` the error that
//! OpenAI's clients raise on.
//!
//! The trace id is put in by the outermost layer ([`traced`]), which alone knows it.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use exile_engine::model::meter::Exceeded;
use serde::Serialize;
use serde_json::{Map, Value};

use super::status::openai_status;
use crate::http::problem::{INTERNAL, Problem, RUN_HEADER, UNNAMED};

/// What OpenAI's clients show of a failed request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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
        if let Some(pause) = self.retry_after() {
            // In whole seconds, and never too early.
            let seconds = pause.as_millis().div_ceil(1000).to_string();
            headers.extend(HeaderValue::from_str(&seconds).map(|s| (header::RETRY_AFTER, s)));
        }
        for (name, value) in self.exceeded().into_iter().flat_map(rate_limit) {
            headers.extend(HeaderValue::from_str(&value).map(|value| (name, value)));
        }
        if let Some(run) = self.run().and_then(|r| HeaderValue::from_str(r.as_str()).ok()) {
            headers.insert(RUN_HEADER, run);
        }
        response.extensions_mut().insert(Arc::new(report));
        response
    }
}

const PROBLEM_JSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/problem+json")];

/// What of a quota is left, as draft-ietf-httpapi-ratelimit-headers-10 writes it.
fn rate_limit(exceeded: &Exceeded) -> [(HeaderName, String); 2] {
    let Exceeded { unit, amount, window_s, retry_after_ms, .. } = exceeded;
    let seconds = retry_after_ms.div_ceil(1000);
    [
        (POLICY, format!("\"{unit}\";q={amount};w={window_s}")),
        (LIMIT, format!("\"{unit}\";r=0;t={seconds}")),
    ]
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// How a problem is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorFormat {
    /// RFC 9457.
    Problem,
    /// As OpenAI writes errors.
    OpenAi,
}

impl ErrorFormat {
    /// That of a path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        if path == "/v1" || path.starts_with("/v1/") { Self::OpenAi } else { Self::Problem }
    }
}

/// What OpenAI's clients raise on, in an answer or in the middle of one.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct OpenAiError {
    /// What went wrong.
    error: OpenAiFault,
}

/// What went wrong, in OpenAI's shape: all fields are always there.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct OpenAiFault {
    /// For people.
    message: String,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field that is at fault, e.g. `messages[0].content`.
    param: Option<String>,
    /// Stable, for programs.
    code: Option<String>,
}

impl From<&Problem> for OpenAiError {
    fn from(problem: &Problem) -> Self {
        openai(&Report::new(problem))
    }
}

fn openai(report: &Report) -> OpenAiError {
    let code = match report.code.as_str() {
        "unauthorized" => "invalid_api_key",
        "context_too_long" => "context_length_exceeded",
        "provider_rate_limited" => "rate_limit_exceeded",
        code => code,
    };
    let kind = match report.status {
        400..=428 => "invalid_request_error",
        429 => "rate_limit_error",
        _ => "server_error",
    };
    // Whatever is wrong with a key reads the same.
    let message = match report.status {
        401 => "Incorrect API key provided, or none: send `Authorization: Bearer KEY`.",
        _ => &report.detail,
    };
    let param = report.extra.get("field").and_then(Value::as_str).map(str::to_owned);
    let code = Some(code).filter(|code| *code != UNNAMED).map(str::to_owned);
    OpenAiError { error: OpenAiFault { message: message.to_owned(), kind, param, code } }
}

/// Puts the trace id into a problem and logs what is exile's own fault; other answers pass.
pub fn traced(mut response: Response, trace_id: &str, format: ErrorFormat) -> Response {
    let Some(report) = response.extensions_mut().remove::<Arc<Report>>() else { return response };
    if report.status >= 500 {
        let detail = report.hidden.as_deref().unwrap_or(&report.detail);
        tracing::error!(code = report.code, trace_id, detail, "a request failed");
    }
    let report = Report { trace_id: Some(trace_id.to_owned()), ..Report::clone(&report) };
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    if format == ErrorFormat::OpenAi {
        parts.status = openai_status(parts.status);
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.extend(HeaderValue::from_str(trace_id).map(|id| (REQUEST_ID, id)));
        return (parts, Json(openai(&report))).into_response();
    }
    (parts, PROBLEM_JSON, Json(report)).into_response()
}
