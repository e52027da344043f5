//! The status of every answer.
//!
//! Invariant: this file alone knows status codes, those of good answers included ([`Created`],
//! [`Accepted`]).

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use exile_engine::journal::JournalError;
use exile_engine::model::ProviderFault;
use exile_engine::tool::ToolErrorKind;
use serde::Serialize;

use super::{INTERNAL, Problem, REPORT};

impl Problem {
    /// The status of an answer that says this. No wildcard arm: a new problem must choose.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_)
            | Self::TooDeep { .. }
            | Self::TooMany { .. }
            | Self::Number { .. }
            | Self::Nul(_)
            | Self::Unreadable(_)
            | Self::Parameter { .. } => StatusCode::BAD_REQUEST,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::Business { .. } | Self::Insecure | Self::Origin => {
                StatusCode::FORBIDDEN
            }
            Self::NotFound | Self::NoModel(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::NameTaken(_)
            | Self::RunActive
            | Self::RunsActive
            | Self::LastAdmin
            | Self::UserDisabled(_)
            | Self::Run(_)
            | Self::InFlight
            | Self::SecretShown
            | Self::AnswerNotKept { .. }
            | Self::InFile(_)
            | Self::RunWaits(_)
            | Self::RunCancelled(_) => StatusCode::CONFLICT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Field { .. }
            | Self::UnknownName { .. }
            | Self::GraphBroken { .. }
            | Self::NotConversational(_)
            | Self::Input(_)
            | Self::UnknownChannel { .. }
            | Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotReady(_) | Self::Overloaded { .. } | Self::Undecided(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::RunFailed { error, .. } => run_status(&error.code),
            Self::Model(error) => model_status(&error.fault),
            Self::Quota(_) | Self::TooManyAttempts(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::TakenBack(_) => StatusCode::BAD_GATEWAY,
            Self::Tool(error) => tool(error.kind).0,
            Self::Store(error) => store(error).0,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What is wrong with the store: status, code and remedy.
pub(super) fn store(error: &JournalError) -> (StatusCode, &'static str, &'static str) {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match error {
        JournalError::Full(_) => (
            unavailable,
            "store_full",
            "free some disk space, or let the database file be written; what failed was not stored",
        ),
        JournalError::Unavailable(_) => (
            unavailable,
            "store_unavailable",
            "try again in a moment; if it stays so, end what else uses the database file (a backup, \
             a shell of sqlite3), or see whether its disk answers",
        ),
        JournalError::Damaged(_) => (
            unavailable,
            "store_damaged",
            "stop exile and put the last backup in the database's place; \
             `sqlite3 FILE 'PRAGMA integrity_check'` says what is damaged, and \
             `sqlite3 FILE .recover` saves what can be read",
        ),
        JournalError::Purged(_) => (
            StatusCode::GONE,
            "events_purged",
            "what remains is GET /api/runs/{id} and the messages of its conversation; \
             `retention.records` in exile.yaml says how long records stay",
        ),
        JournalError::Gone(_) => {
            (StatusCode::NOT_FOUND, "not_found", "it was deleted in the meantime")
        }
        JournalError::Corrupt(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "log_unreadable",
            "what stands before it can be read: events, checkpoints and messages; put the backup in \
             its place that has it whole, or delete the conversation",
        ),
        JournalError::Fenced(_) | JournalError::Conflict { .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, INTERNAL, REPORT)
        }
    }
}
/// What is wrong with a call of a tool: status and code.
pub(super) fn tool(error: ToolErrorKind) -> (StatusCode, &'static str) {
    match error {
        ToolErrorKind::InvalidArgs => (StatusCode::UNPROCESSABLE_ENTITY, "tool_invalid_args"),
        ToolErrorKind::NotFound => (StatusCode::NOT_FOUND, "tool_not_found"),
        ToolErrorKind::Denied => (StatusCode::FORBIDDEN, "tool_denied"),
        ToolErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "tool_timeout"),
        ToolErrorKind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "tool_rate_limited"),
        ToolErrorKind::Upstream => (StatusCode::BAD_GATEWAY, "tool_upstream"),
        ToolErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "tool_internal"),
        ToolErrorKind::NotRun => (StatusCode::CONFLICT, "tool_not_run"),
        ToolErrorKind::OutcomeUnknown => (StatusCode::BAD_GATEWAY, "tool_outcome_unknown"),
    }
}
/// Of a call without a run: what the caller's own request is at fault for is a 4xx.
fn model_status(fault: &ProviderFault) -> StatusCode {
    match fault {
        ProviderFault::BadRequest { .. }
        | ProviderFault::NotSent { .. }
        | ProviderFault::ContextTooLong { .. }
        | ProviderFault::Incapable { .. } => StatusCode::BAD_REQUEST,
        ProviderFault::ModelUnknown { .. } | ProviderFault::ProviderUnknown => {
            StatusCode::NOT_FOUND
        }
        other => run_status(other.code()),
    }
}

/// The codes are those of `ProviderFault::code`, `NodeError::code` and the driver; one that is
/// not listed is the graph's own fault.
fn run_status(code: &str) -> StatusCode {
    match code {
        "provider_key_missing" | "provider_circuit_open" | "not_available" => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        "provider_rate_limited" | "quota_exceeded" => StatusCode::TOO_MANY_REQUESTS,
        "provider_timeout" => StatusCode::GATEWAY_TIMEOUT,
        "context_too_long" | "model_incapable" => StatusCode::UNPROCESSABLE_ENTITY,
        "tool_failed" | "output_invalid" => StatusCode::BAD_GATEWAY,
        "state_full" => StatusCode::PAYLOAD_TOO_LARGE,
        "open_call" | "poison" | "needs_migration" | "log_unreadable" => StatusCode::CONFLICT,
        code if code.starts_with("provider_") => StatusCode::BAD_GATEWAY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// OpenAI has one status for a body that cannot be taken.
pub(super) fn openai_status(status: StatusCode) -> StatusCode {
    if status == StatusCode::UNPROCESSABLE_ENTITY { StatusCode::BAD_REQUEST } else { status }
}

/// 201: something exists now.
pub struct Created<T> {
    /// Its path.
    pub location: String,
    /// What it is.
    pub body: T,
}

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, [(header::LOCATION, self.location)], Json(self.body)).into_response()
    }
}

/// 202: it is stored and will happen.
pub struct Accepted<T> {
    /// Where to look how it goes.
    pub location: String,
    /// What is known now.
    pub body: T,
}

impl<T: Serialize> IntoResponse for Accepted<T> {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, [(header::LOCATION, self.location)], Json(self.body)).into_response()
    }
}
