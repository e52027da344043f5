//! What goes wrong over HTTP, as RFC 9457 problems; and the status of every answer.
//!
//! Invariants:
//! - This file alone knows status codes, those of good answers included ([`Created`],
//!   [`Accepted`]).
//! - A problem tells the caller what, where and what to do, and nothing of another owner's data:
//!   [`Problem::NotFound`] holds no field, so an unknown id and somebody else's read the same.
//! - What went wrong inside exile stays inside: [`Problem::Internal`] shows its trace id, the log
//!   has the rest.
//!
//! Absent on purpose: what a problem looks like on the wire (`wire.rs`).

mod conflict;
pub mod wire;

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use exile_engine::id::RunId;
use exile_engine::journal::JournalError;
use exile_engine::json::{JsonError, Place};
use exile_engine::model::meter::Exceeded;
use exile_engine::model::{ProviderError, ProviderFault, Retry};
use exile_engine::run::record::RunError;
use exile_engine::state::WriteError;
use exile_engine::tool::{ToolError, ToolErrorKind};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::runs::{RunConflict, RunsError};
use crate::store::StoreError;
use crate::usage::Refused;

/// The header that names the run an answer is about.
pub const RUN_HEADER: HeaderName = HeaderName::from_static("x-exile-run");

/// Why a request is not answered as asked.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The body is not JSON.
    #[error("the body is not JSON: {0}")]
    Malformed(String),
    /// The body nests too deep.
    #[error("the body nests deeper than {limit} levels at {place}")]
    TooDeep {
        /// Allowed levels.
        limit: usize,
        /// Where the first level too many begins.
        place: Place,
    },
    /// The body holds too many values.
    #[error("the body holds more than {limit} values")]
    TooMany {
        /// Allowed values.
        limit: usize,
    },
    /// A number of the body cannot be kept to the digit.
    #[error("the number {number} at {place} does not fit into 64 bits")]
    Number {
        /// Its first digits.
        number: String,
        /// Where it begins.
        place: Place,
    },
    /// A text of the body holds the character U+0000.
    #[error("a text holds NUL (\\u0000) at {0}")]
    Nul(Place),
    /// Path, query or a header cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The body did not come in time.
    #[error("the body did not arrive within {0:?}")]
    BodyTimeout(Duration),
    /// There was no room for the body within the time that a request waits for it.
    #[error("the server holds as many large bodies as it may")]
    Overloaded {
        /// When it may be tried again.
        retry_after: Duration,
    },
    /// The body is longer than allowed.
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// Allowed bytes.
        limit: usize,
    },
    /// The body is not declared as JSON.
    #[error("the body is declared as `{0}`")]
    MediaType(String),
    /// A field is unknown, missing or of the wrong type.
    #[error("{what}")]
    Field {
        /// Where, e.g. `input.messages[0]`; empty for the body itself.
        field: String,
        /// What is wrong with it.
        what: String,
    },
    /// A name in the body stands for nothing.
    #[error("no {what} is named `{name}`{}", listed(known))]
    UnknownName {
        /// `graph`, `skill`, `model`, `user`, `node`, `interrupt` or `call`.
        what: &'static str,
        /// As given.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The graph's file has errors, so that it cannot run.
    #[error("graph `{graph}` does not load: {first}")]
    GraphBroken {
        /// Its name.
        graph: String,
        /// The first finding.
        first: String,
    },
    /// The graph cannot serve a conversation.
    #[error("graph `{0}` takes no `messages`, so it cannot hold a conversation")]
    NotConversational(String),
    /// The input does not fit the graph's channels.
    #[error("{0}")]
    Input(#[from] WriteError),
    /// A caller may not set this channel.
    #[error("graph `{graph}` has no{} channel `{channel}`{}", of_input(under), listed(known))]
    UnknownChannel {
        /// The field that sets it: `input` or `values`.
        under: &'static str,
        /// The graph.
        graph: String,
        /// As given.
        channel: String,
        /// What may be set.
        known: Vec<String>,
    },
    /// No key, a wrong one, or a session that ended.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The caller's role or key does not allow it.
    #[error("this needs {0}")]
    Forbidden(&'static str),
    /// The business is not the caller's to name.
    #[error("the business `{name}` is not yours to name{}", bound_to(known))]
    Business {
        /// As given.
        name: String,
        /// Those that the caller is bound to.
        known: Vec<String>,
    },
    /// Too many wrong sign-in links came from there, or from everywhere.
    #[error("too many sign-in links were wrong lately")]
    TooManyAttempts(Duration),
    /// A browser would drop the session's cookie.
    #[error("browsers keep no session on plain http: the link was not used")]
    Insecure,
    /// A browser's request from another site.
    #[error("a session cookie came with a request from another origin")]
    Origin,
    /// No such thing, or not this caller's.
    #[error("there is nothing under that name or id, or it is not yours")]
    NotFound,
    /// The path exists, the method does not.
    #[error("this path does not answer that method")]
    Method,
    /// The name is in use.
    #[error("the name `{0}` is taken")]
    NameTaken(String),
    /// A run stands in the way.
    #[error("a run of this conversation has not ended")]
    RunActive,
    /// Runs of a user who is to be removed stand in the way.
    #[error("a run of this user has not ended; the user is disabled now, so that no other begins")]
    RunsActive,
    /// Nobody would be left to administer the installation.
    #[error("this is the last administrator who is not disabled")]
    LastAdmin,
    /// A disabled user is not let in.
    #[error("the user `{0}` is disabled")]
    UserDisabled(String),
    /// The run stands where this cannot be done.
    #[error(transparent)]
    Run(#[from] RunConflict),
    /// What was sent to the run is stored; nothing became of it yet.
    #[error("run {0} has not come to what was sent to it")]
    Undecided(RunId),
    /// The same `Idempotency-Key` is being answered.
    #[error("a request with this Idempotency-Key is still being answered")]
    InFlight,
    /// The same `Idempotency-Key` came with another body.
    #[error("this Idempotency-Key was used for another body")]
    KeyReused,
    /// A repeated request whose first answer held a secret.
    #[error("the first answer to this Idempotency-Key held a secret, which is shown once")]
    SecretShown,
    /// A repeated request whose first answer was too long to be kept.
    #[error("the first answer to this Idempotency-Key was too long to be kept")]
    AnswerNotKept {
        /// The run that it was about.
        run: Option<RunId>,
    },
    /// The run that was waited for did not finish.
    #[error("{}", .error.message)]
    RunFailed {
        /// Which.
        run: RunId,
        /// Why.
        error: Box<RunError>,
    },
    /// Somebody stopped the run that was waited for.
    #[error("run {0} was cancelled")]
    RunCancelled(RunId),
    /// A tool that was called directly failed.
    #[error("{0}")]
    Tool(#[from] ToolError),
    /// The server should not get requests yet, or any more.
    #[error("{}", .0.join("; "))]
    NotReady(Vec<String>),
    /// A field of a body of OpenAI's, in OpenAI's words.
    #[error("{what}")]
    Parameter {
        /// Where, e.g. `messages[0].content`.
        param: Option<String>,
        /// OpenAI's code.
        code: Option<&'static str>,
        /// What is wrong with it.
        what: String,
    },
    /// Nothing of that name answers a chat completion.
    #[error("The model `{0}` does not exist or you do not have access to it.")]
    NoModel(String),
    /// A model that was asked without a run failed.
    #[error("{0}")]
    Model(ProviderError),
    /// A quota is used up, before anything was begun.
    #[error("{0}")]
    Quota(Box<Exceeded>),
    /// It is written in exile.yaml, which the API does not change.
    #[error("{0} is written in exile.yaml")]
    InFile(String),
    /// A run that was to be one answer asks a person first.
    #[error("run {0} asks a person before it goes on")]
    RunWaits(RunId),
    /// A run that was to be one answer took back what was streamed of it.
    #[error("run {0} took back what it had said")]
    TakenBack(RunId),
    /// The store failed.
    #[error(transparent)]
    Store(JournalError),
    /// A defect of exile.
    #[error("{0}")]
    Internal(String),
}

/// What a connection is told that there is no place for, before anything of it is read.
pub(crate) const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
    content-length: 0\r\nretry-after: 1\r\n\r\n";

fn of_input(under: &str) -> &'static str {
    if under == "input" { " input" } else { "" }
}

fn bound_to(known: &[String]) -> String {
    if known.is_empty() {
        String::new()
    } else {
        format!("; you are bound to {}", known.join(", "))
    }
}

fn listed(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!("; there are: {}", known.join(", ")) }
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::TooDeep { limit, place } => Self::TooDeep { limit, place },
            JsonError::TooMany { limit } => Self::TooMany { limit },
            JsonError::Number { number, place } => Self::Number { number, place },
            JsonError::Syntax(error) => Self::Malformed(error.to_string()),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Exceeded(exceeded) => Self::Quota(exceeded),
            Refused::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken(name) => Self::NameTaken(name),
            StoreError::Cursor => Self::Unreadable(error.to_string()),
            error => JournalError::from(error).into(),
        }
    }
}

impl From<RunsError> for Problem {
    fn from(error: RunsError) -> Self {
        match error {
            RunsError::NotFound => Self::NotFound,
            RunsError::UnknownName { what, name, known } => Self::UnknownName { what, name, known },
            RunsError::GraphBroken { graph, first } => Self::GraphBroken { graph, first },
            RunsError::NotConversational(graph) => Self::NotConversational(graph),
            RunsError::UnknownChannel { under, graph, channel, known } => {
                Self::UnknownChannel { under, graph, channel, known }
            }
            RunsError::Input(error) => Self::Input(error),
            RunsError::Field { field, what } => Self::Field { field, what },
            RunsError::Business { name, known } => Self::Business { name, known },
            RunsError::Quota(exceeded) => Self::Quota(exceeded),
            RunsError::Active => Self::RunActive,
            RunsError::Conflict(conflict) => Self::Run(conflict),
            RunsError::Undecided(run) => Self::Undecided(run),
            RunsError::Failed { run, error } => Self::RunFailed { run, error },
            RunsError::Cancelled(run) => Self::RunCancelled(run),
            RunsError::Journal(error) => error.into(),
            RunsError::Store(error) => error.into(),
            RunsError::Internal(what) => Self::Internal(what),
        }
    }
}

impl From<JournalError> for Problem {
    fn from(error: JournalError) -> Self {
        match error {
            // To whoever comes too late it is as if it had never been.
            JournalError::Gone(_) => Self::NotFound,
            error => Self::Store(error),
        }
    }
}

impl Problem {
    /// What a request is told that ends with the server.
    #[must_use]
    pub fn stopping() -> Self {
        Self::NotReady(vec!["the server ends".to_owned()])
    }

    /// No wildcard arm, here and below: a new problem must choose.
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

    /// Stable, for programs.
    pub(crate) fn code(&self) -> Cow<'_, str> {
        let code = match self {
            Self::Malformed(_) => "malformed_json",
            Self::TooDeep { .. } => "json_too_deep",
            Self::TooMany { .. } => "json_too_many_values",
            Self::Number { .. } => "number_too_long",
            Self::Nul(_) => "nul_in_text",
            Self::Unreadable(_) => "malformed_request",
            Self::BodyTimeout(_) => "body_timeout",
            Self::TooLarge { .. } => "body_too_large",
            Self::Overloaded { .. } => "overloaded",
            Self::MediaType(_) => "unsupported_media_type",
            Self::Field { .. } => "invalid_field",
            Self::UnknownName { what, .. } => return format!("unknown_{what}").into(),
            Self::GraphBroken { .. } => "graph_broken",
            Self::NotConversational(_) => "not_conversational",
            Self::Input(_) => "invalid_input",
            Self::UnknownChannel { .. } => "unknown_channel",
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::Business { .. } => "business_not_yours",
            Self::TooManyAttempts(_) => "too_many_attempts",
            Self::Insecure => "insecure_origin",
            Self::Origin => "foreign_origin",
            Self::NotFound => "not_found",
            Self::Method => "method_not_allowed",
            Self::NameTaken(_) => "name_taken",
            Self::RunActive => "run_active",
            Self::RunsActive => "runs_active",
            Self::LastAdmin => "last_admin",
            Self::UserDisabled(_) => "user_disabled",
            Self::Run(conflict) => conflict.code(),
            Self::Undecided(_) => "run_undecided",
            Self::InFlight => "idempotency_in_flight",
            Self::KeyReused => "idempotency_key_reused",
            Self::SecretShown => "secret_shown_once",
            Self::AnswerNotKept { .. } => "idempotency_answer_not_kept",
            Self::RunFailed { error, .. } => &error.code,
            Self::RunCancelled(_) => "run_cancelled",
            Self::Tool(error) => tool(error.kind).1,
            Self::Parameter { code, .. } => code.unwrap_or(UNNAMED),
            Self::NoModel(_) => "model_not_found",
            Self::Model(error) => error.fault.code(),
            Self::Quota(_) => "quota_exceeded",
            Self::InFile(_) => "in_file",
            Self::RunWaits(_) => "run_waiting",
            Self::TakenBack(_) => "answer_taken_back",
            Self::NotReady(_) => "not_ready",
            Self::Store(error) => store(error).1,
            Self::Internal(_) => INTERNAL,
        };
        code.into()
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> Cow<'static, str> {
        let remedy = match self {
            Self::Malformed(_) => {
                "send one JSON value in UTF-8, without lone surrogates such as \\ud800"
            }
            Self::TooDeep { .. } => {
                "send flatter JSON; `limits.nesting` in exile.yaml says how deep"
            }
            Self::TooMany { .. } => {
                "send fewer values at once; `limits.values` in exile.yaml says how many"
            }
            Self::Number { .. } => "write it as a string",
            Self::Nul(_) => "take the NUL characters out of the text",
            Self::Unreadable(_) => "see /api/docs for the parameters of this path",
            Self::BodyTimeout(_) => "send it again over a better connection",
            Self::TooLarge { .. } => {
                "send less at once; `limits.body` and `limits.small_body` in exile.yaml say how much"
            }
            Self::Overloaded { .. } => {
                "come back after `Retry-After`; `limits.bodies` in exile.yaml says how much is held"
            }
            Self::MediaType(_) => "send `Content-Type: application/json` (curl: --json)",
            Self::Field { .. } => "see /api/docs for the fields of this body",
            Self::UnknownName { .. } => "use the name of one that exists",
            Self::GraphBroken { graph, .. } => {
                let all = format!("GET /api/graphs/{graph} lists every finding");
                return format!("correct the file; {all}").into();
            }
            Self::NotConversational(_) => {
                "declare `messages: { reduce: messages }` and list it in `input`, or use /api/runs"
            }
            Self::Input(_) => "GET /api/graphs/{name} shows the graph's channels and their types",
            Self::UnknownChannel { under: "input", .. } => {
                "set only channels that the graph lists under `input`"
            }
            Self::UnknownChannel { .. } => "set only channels that the graph declares",
            Self::Unauthorized(_) => {
                "send `Authorization: Bearer KEY`; `exile key create` makes a key, the one in \
                 <home>/local.key works on this machine"
            }
            Self::Forbidden(_) => "ask an administrator",
            Self::Business { .. } => {
                "name one that you are bound to, or have an administrator bind you: \
                 `exile user businesses`, or `exile key create --business`"
            }
            Self::TooManyAttempts(_) => "wait as long as Retry-After says",
            Self::Insecure => {
                "reach exile by https (`public_url` in exile.yaml), or through a tunnel at 127.0.0.1"
            }
            Self::Origin => "send it from a page of this server, or use a key",
            Self::NotFound => "check the name or id; /api/docs lists every path",
            Self::Method => "the Allow header and /api/docs list the methods of this path",
            Self::NameTaken(_) => "choose another name",
            Self::RunActive => "wait for it, or POST /api/runs/{id}/cancel first",
            Self::RunsActive => {
                "wait for it, or cancel it: GET /api/runs?owner=NAME lists the user's runs"
            }
            Self::LastAdmin => "give another user the role admin first",
            Self::UserDisabled(_) => "enable the user first: PATCH /api/users/{id}",
            Self::Run(conflict) => return conflict.remedy(),
            Self::Undecided(run) => {
                return format!(
                    "it will be decided: GET /api/runs/{run} shows what came of it, and the same \
                     request with the same Idempotency-Key is answered with that"
                )
                .into();
            }
            Self::InFlight => "wait, then send the same request again to get its answer",
            Self::KeyReused => "use a new Idempotency-Key for a new request",
            Self::SecretShown => "if it is lost, revoke it and create another under a new key",
            Self::AnswerNotKept { run: Some(run) } => {
                return format!("GET /api/runs/{run}/state has what the run came to").into();
            }
            Self::AnswerNotKept { run: None } => {
                "what it asked for was done; use a new key to ask once more, or have an \
                 administrator raise `limits.kept_answer` in exile.yaml"
            }
            Self::RunFailed { run, .. } | Self::RunCancelled(run) => {
                return format!("GET /api/runs/{run}/events shows what happened").into();
            }
            Self::Parameter { .. } => "correct the field",
            Self::NoModel(_) => "GET /v1/models lists what there is",
            _ if self.exceeded().is_some() => {
                "wait, or have an administrator raise it: `quotas` in exile.yaml, or /api/quotas"
            }
            Self::Model(_) | Self::Quota(_) => "GET /api/models shows which models can be asked",
            Self::InFile(_) => "change it there; the server reads it when it starts",
            Self::RunWaits(run) => {
                return format!("POST /api/runs/{run}/resume takes the answer").into();
            }
            Self::TakenBack(run) => {
                return format!("GET /api/runs/{run}/state has the whole answer once it has ended")
                    .into();
            }
            Self::Tool(_) => "GET /api/tools shows what each tool takes",
            Self::NotReady(_) => "`exile doctor` says what to do about each reason",
            Self::Store(error) => store(error).2,
            Self::Internal(_) => REPORT,
        };
        remedy.into()
    }

    /// Members besides the common ones.
    pub(crate) fn extra(&self) -> Map<String, Value> {
        let extra = match self {
            Self::Parameter { param, .. } => json!({ "field": param }),
            Self::Quota(exceeded) => json!({ "quota": exceeded }),
            Self::Model(ProviderError {
                fault: ProviderFault::QuotaExceeded(exceeded),
                provider,
                model,
            }) => json!({ "quota": exceeded, "provider": provider, "model": model }),
            Self::Model(error) => {
                let field = match error.fault {
                    ProviderFault::ContextTooLong { .. } => Some("messages"),
                    ProviderFault::Incapable { .. } | ProviderFault::ModelUnknown { .. } => {
                        Some("model")
                    }
                    _ => None,
                };
                json!({ "field": field, "provider": error.provider, "model": error.model })
            }
            Self::Field { field, .. } if !field.is_empty() => json!({ "field": field }),
            Self::UnknownName { what: what @ ("graph" | "skill" | "model"), .. } => {
                json!({ "field": what })
            }
            Self::UnknownChannel { under, channel, .. } => {
                json!({ "field": format!("{under}.{channel}") })
            }
            Self::RunFailed { run, error } => match at_fault(&error.code) {
                Some(field) => json!({ "field": field, "run": run, "error": error }),
                None => json!({ "run": run, "error": error }),
            },
            Self::RunCancelled(run) | Self::RunWaits(run) | Self::TakenBack(run) => {
                json!({ "run": run })
            }
            Self::Run(conflict) => conflict.extra(),
            Self::NotReady(reasons) => json!({ "reasons": reasons }),
            Self::Tool(error) => json!({ "error": error }),
            _ => Value::Null,
        };
        match extra {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// The quota that is used up, if one is.
    pub(crate) fn exceeded(&self) -> Option<&Exceeded> {
        match self {
            Self::Quota(exceeded)
            | Self::Model(ProviderError {
                fault: ProviderFault::QuotaExceeded(exceeded), ..
            }) => Some(exceeded),
            _ => None,
        }
    }

    /// When it may be tried again, where that is known.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if let Some(exceeded) = self.exceeded() {
            return Some(Duration::from_millis(exceeded.retry_after_ms));
        }
        match self {
            Self::Overloaded { retry_after } | Self::TooManyAttempts(retry_after) => {
                Some(*retry_after)
            }
            Self::Model(ProviderError { fault, .. }) => match fault.retry() {
                Retry::After(pause) => Some(pause),
                Retry::Never | Retry::Backoff => None,
            },
            _ => None,
        }
    }

    /// The run that the problem is about.
    pub(crate) fn run(&self) -> Option<&RunId> {
        match self {
            Self::RunFailed { run, .. }
            | Self::RunCancelled(run)
            | Self::RunWaits(run)
            | Self::TakenBack(run)
            | Self::AnswerNotKept { run: Some(run) } => Some(run),
            _ => None,
        }
    }
}

/// The code of what OpenAI itself has no code for.
pub(crate) const UNNAMED: &str = "invalid_parameter";
/// The code of what is exile's own fault: its detail goes to the log alone.
pub(crate) const INTERNAL: &str = "internal";
const REPORT: &str = "report it with the trace id; the server's log has the details";

fn store(error: &JournalError) -> (StatusCode, &'static str, &'static str) {
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

fn tool(error: ToolErrorKind) -> (StatusCode, &'static str) {
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

/// The field of a message that a run failed for.
fn at_fault(code: &str) -> Option<&'static str> {
    match code {
        "context_too_long" => Some("content"),
        "model_incapable" => Some("model"),
        _ => None,
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
pub(crate) fn openai_status(status: StatusCode) -> StatusCode {
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
