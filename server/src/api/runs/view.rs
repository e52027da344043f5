//! A run as its owner sees it, wherever an answer shows one.

use std::borrow::Cow;

use axum::response::{IntoResponse as _, Response};
use exile_engine::id::{ConversationId, RunId, UserId};
use exile_engine::journal::JournalError;
use exile_engine::model::Usage;
use exile_engine::run::record::{Number, RunError, Waiting};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::http::app::App;
use crate::http::auth::{Caller, reach};
use crate::http::problem::{Accepted, Problem, RUN_HEADER};
use crate::runs::interrupts::{InterruptView, OpenCallView};
use crate::store::{RunRow, RunStatus};

/// A run.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct RunView {
    /// Its id.
    #[schema(value_type = String)]
    pub(crate) id: RunId,
    /// The id of the user whose it is.
    #[schema(value_type = String)]
    pub(crate) owner: UserId,
    /// What it runs.
    pub(crate) graph: String,
    /// The hash of everything that it is pinned to.
    pub(crate) bundle: String,
    /// The conversation it is a turn of.
    #[schema(value_type = Option<String>)]
    pub(crate) conversation_id: Option<ConversationId>,
    /// `queued`, `running`, `waiting`, `finished`, `failed`, `cancelled` or `needs_attention`.
    #[schema(value_type = String)]
    pub(crate) status: Cow<'static, str>,
    /// Why it failed, or why it needs attention.
    pub(crate) error: Option<ErrorView>,
    /// Questions that it waits for answers to.
    pub(crate) interrupts: Vec<InterruptView>,
    /// If it needs attention: calls that may or may not have happened.
    pub(crate) open_calls: Vec<OpenCallView>,
    /// The graph's output channels, where one run is read that has ended, or as they stand if it
    /// waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, required = false)]
    pub(crate) output: Option<Map<String, Value>>,
    /// Tokens of all its model calls.
    pub(crate) usage: UsageView,
    /// Its place in the log: the first number and the last one so far.
    pub(crate) numbers: [Number; 2],
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) created_at: Timestamp,
    /// When it began.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) ended_at: Option<Timestamp>,
    /// Its trace.
    pub(crate) trace_id: Option<String>,
}

/// Why a run failed.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ErrorView {
    /// Stable, e.g. `provider_rate_limited`.
    pub(crate) code: String,
    /// What, where, why and what to do.
    pub(crate) message: String,
    /// The node, if one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// Path of the innermost task that failed, e.g. `lookup:1/item:14`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// The item of a list, counted from 1, if one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) item: Option<usize>,
    /// The provider, if a model call failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) provider: Option<String>,
    /// The model, if a model call failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
}

/// Tokens, each counted once.
#[derive(Serialize, Deserialize, ToSchema)]
#[allow(clippy::struct_field_names, reason = "units stand last in the JSON")]
pub(crate) struct UsageView {
    /// Prompt tokens, cached ones included.
    pub(crate) input_tokens: u64,
    /// Of these, read from the provider's cache.
    pub(crate) cached_tokens: u64,
    /// Of these, written to the provider's cache.
    pub(crate) written_tokens: u64,
    /// Completion tokens, reasoning included.
    pub(crate) output_tokens: u64,
    /// Of these, spent on reasoning.
    pub(crate) reasoning_tokens: u64,
}

impl From<RunError> for ErrorView {
    fn from(error: RunError) -> Self {
        let RunError { code, message, node, path, item, provider, model } = error;
        Self { code, message, node, path, item, provider, model }
    }
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input,
            cached_tokens: usage.cached,
            written_tokens: usage.written,
            output_tokens: usage.output,
            reasoning_tokens: usage.reasoning,
        }
    }
}

impl RunView {
    /// The row, and what the run waits for.
    pub(in crate::api) async fn of(app: &App, row: RunRow) -> Result<Self, Problem> {
        let waiting = waiting(app, &row).await?;
        Ok(Self::new(row, waiting))
    }

    /// Several rows, in their order.
    pub(in crate::api) async fn all(app: &App, rows: Vec<RunRow>) -> Result<Vec<Self>, Problem> {
        let waiting: Vec<_> =
            rows.iter().filter(|row| waits(row)).map(|row| (&row.log, row.last)).collect();
        let mut found = app.store.waits(&waiting).await?.into_iter();
        let view = |row: RunRow| {
            let waiting = if waits(&row) { found.next().flatten() } else { None };
            Self::new(row, waiting)
        };
        Ok(rows.into_iter().map(view).collect())
    }

    /// One run by itself, with what it gave.
    pub(in crate::api) async fn whole(app: &App, row: RunRow) -> Result<Self, Problem> {
        let output = if row.status.stands() { output(app, &row).await? } else { None };
        Ok(Self { output, ..Self::of(app, row).await? })
    }

    /// Its questions.
    pub(in crate::api) fn interrupts(&self) -> &[InterruptView] {
        &self.interrupts
    }

    fn new(row: RunRow, waiting: Option<Waiting>) -> Self {
        let waiting = waiting.map(|w| (w.asked, w.attention, w.open));
        let (asked, attention, open) = waiting.unwrap_or_default();
        Self {
            id: row.id,
            owner: row.owner,
            graph: row.graph,
            bundle: row.bundle.0.to_string(),
            conversation_id: row.conversation,
            status: row.status.as_str().into(),
            error: row.error.or(attention).map(Into::into),
            interrupts: asked.into_iter().map(Into::into).collect(),
            open_calls: open.into_iter().map(Into::into).collect(),
            output: None,
            usage: row.usage.into(),
            numbers: [row.first, row.last],
            created_at: row.created_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
            trace_id: row.trace_id,
        }
    }
}

/// The output channels of a run: where its row says that it waits, or, once it has ended, as they
/// stand; `None` once its records were removed.
pub(in crate::api) async fn output(
    app: &App,
    row: &RunRow,
) -> Result<Option<Map<String, Value>>, Problem> {
    // It may have gone on since the row was read.
    let at = waits(row).then_some(row.last);
    match app.engine.run_as_far(&row.id, at).await {
        Ok(at) => Ok(at.map(|at| at.output())),
        Err(JournalError::Purged(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the run waits for, if it does.
pub(in crate::api) async fn waiting(app: &App, row: &RunRow) -> Result<Option<Waiting>, Problem> {
    if !waits(row) {
        return Ok(None);
    }
    Ok(app.engine.waiting_at(&row.log, row.last).await?)
}

/// Whether the run's last record says what it waits for.
fn waits(row: &RunRow) -> bool {
    match row.status {
        _ if row.unreadable().is_some() => false,
        RunStatus::Waiting | RunStatus::NeedsAttention => true,
        RunStatus::Queued
        | RunStatus::Running
        | RunStatus::Finished
        | RunStatus::Failed
        | RunStatus::Cancelled => false,
    }
}

/// The run, if the caller reaches it.
pub(in crate::api) async fn owned(
    app: &App,
    caller: &Caller,
    id: &RunId,
) -> Result<RunRow, Problem> {
    reach::run(app, caller, id).await
}

/// What a run that was asked for something is answered with.
pub(in crate::api) async fn accepted(
    app: &App,
    caller: &Caller,
    run: &RunId,
) -> Result<Response, Problem> {
    let body = RunView::of(app, reach::run_again(app, caller, run).await?).await?;
    let accepted = Accepted { location: format!("/api/runs/{run}"), body };
    Ok(([(RUN_HEADER, run.to_string())], accepted).into_response())
}
