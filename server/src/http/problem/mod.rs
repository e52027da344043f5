//! What goes wrong over HTTP, as RFC 9457 problems.
//!
//! | file | holds |
//! |---|---|
//! | `status.rs` | the status of every answer |
//! | `members.rs`, `conflict.rs` | codes, remedies and members; those of a run that stands elsewhere |
//! | `wire.rs` | what a problem looks like on the wire |
//!
//! Invariants:
//! - A problem tells the caller what, where and what to do, and nothing of another owner's data:
//!   [`Problem::NotFound`] holds no field, so an unknown id and somebody else's read the same.
//! - What went wrong inside exile stays inside: [`Problem::Internal`] shows its trace id, the log
//!   has the rest.

mod conflict;
mod members;
mod status;
pub mod wire;

use std::time::Duration;

use axum::http::HeaderName;
use exile_engine::id::RunId;
use exile_engine::journal::JournalError;
use exile_engine::json::{JsonError, Place};
use exile_engine::model::ProviderError;
use exile_engine::model::meter::Exceeded;
use exile_engine::run::record::RunError;
use exile_engine::state::WriteError;
use exile_engine::tool::ToolError;

use crate::runs::{RunConflict, RunsError};
use crate::store::StoreError;
use crate::usage::Refused;
pub use status::{Accepted, Created};

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
}

/// The code of what OpenAI itself has no code for.
pub(crate) const UNNAMED: &str = "invalid_parameter";
/// The code of what is exile's own fault: its detail goes to the log alone.
pub(crate) const INTERNAL: &str = "internal";
const REPORT: &str = "report it with the trace id; the server's log has the details";
