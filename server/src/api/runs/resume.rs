//! `/api/runs/{id}/resume` and `resolve`: what a person says to a run that waits.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use exile_engine::id::RunId;
use exile_engine::journal::{Input, Refusal, Resolution, ResolveRun, ResumeRun};
use exile_engine::run::record::Intent;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::view::{RunView, accepted, owned, waiting};
use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::body::JsonBody;
use crate::http::extract::Path;
use crate::http::problem::Problem;
use crate::http::sse::{self, Accepts};
use crate::runs::IdempotencyKey;
use crate::runs::RunConflict;
use crate::runs::disconnect::CancelOnDisconnect;
use crate::runs::resume::{self, Answers};
use crate::runs::verdict;
use crate::store::{RunRow, RunStatus};

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(resume)).routes(routes!(resolve))
}

/// Answers to questions of a run.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ResumeBody {
    /// Interrupt → answer; at least one. A choice, a text, or what the question's schema says; to
    /// an approval `"approve"`, `"reject"`, `{"edit": {arguments}}` or `{"reject": "why"}`.
    #[schema(value_type = Object)]
    answers: Answers,
    /// Answer as a stream of the events that follow; also `Accept: text/event-stream`.
    #[serde(default)]
    stream: bool,
}

/// Answers questions of a run, one, some or all of them.
#[utoipa::path(
    post, path = "/api/runs/{id}/resume", tag = "runs",
    params(("id" = String, Path)),
    request_body = ResumeBody,
    responses(
        (status = 202, description = "The run has them and goes on", body = RunView),
        (status = 200, description = "The events that follow", body = String,
         content_type = "text/event-stream"),
    ),
)]
async fn resume(
    State(app): State<Arc<App>>,
    caller: Caller,
    key: IdempotencyKey,
    Accepts(accepts): Accepts,
    Path(id): Path<RunId>,
    JsonBody(body): JsonBody<ResumeBody>,
) -> Result<Response, Problem> {
    let row = owned(&app, &caller, &id).await?;
    if body.answers.is_empty() {
        let what = "answers: must name at least one interrupt".into();
        return Err(Problem::Field { field: "answers".into(), what });
    }
    let not_waiting = RunConflict::NotWaiting { run: id.clone(), status: row.status.as_str() };
    let standing = resume::standing(app.runs(), &row).await?;
    let Some((at, given)) = standing else { return Err(not_waiting.into()) };
    let answers = new(&given, &key, body.answers)?;
    let open = resume::open(&given, &at);
    if open.is_empty() && !answers.is_empty() {
        return Err(not_waiting.into());
    }
    resume::check(&open, &answers, &app.catalog.tools)?;
    if !answers.is_empty() {
        let by = caller.id().clone();
        let resume = ResumeRun { run: id.clone(), answers, by, message: None };
        let input = Input::Resume(Box::new(resume));
        verdict::submit(app.runs(), &key, &row, &input).await?;
    }
    if body.stream || accepts {
        return Ok(sse::stream(&app, id, at.number, CancelOnDisconnect::free()));
    }
    accepted(&app, &caller, &id).await
}

/// The answers that are new: one that was given before is passed over if its request may be a
/// repetition, and a conflict otherwise.
fn new(given: &Answers, key: &IdempotencyKey, answers: Answers) -> Result<Answers, Problem> {
    let mut new = Answers::new();
    for (interrupt, value) in answers {
        match given.get(&interrupt) {
            None => _ = new.insert(interrupt, value),
            Some(before) if key.is_keyed() && *before == value => {}
            Some(_) => return Err(RunConflict::Answered { interrupt }.into()),
        }
    }
    Ok(new)
}

/// What becomes of a run that needs attention.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ResolveBody {
    /// What becomes of it.
    action: Action,
    /// The open call, as `task#call`; nothing: every open call, or the run as a whole.
    call: Option<String>,
    /// With `done`: what the tool would have answered; any JSON value.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Object>)]
    output: Option<Value>,
    /// With `failed`: why.
    message: Option<String>,
}

/// A null that is written is a value.
fn given<'de, D: Deserializer<'de>>(json: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(json).map(Some)
}

/// What becomes of an open call, or of a run that cannot go on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Action {
    /// The call happened, and gave `output`.
    Done,
    /// The call is made again under its key; the run goes on.
    Retry,
    /// The call failed; a run without an open call fails.
    Failed,
}

/// Says what became of calls whose outcome is unknown, or whether a run may go on.
#[utoipa::path(
    post, path = "/api/runs/{id}/resolve", tag = "runs",
    params(("id" = String, Path)),
    request_body = ResolveBody,
    responses((status = 202, description = "It is done and the run goes on", body = RunView)),
)]
async fn resolve(
    State(app): State<Arc<App>>,
    caller: Caller,
    key: IdempotencyKey,
    Path(id): Path<RunId>,
    JsonBody(body): JsonBody<ResolveBody>,
) -> Result<Response, Problem> {
    let row = owned(&app, &caller, &id).await?;
    if row.unreadable().is_some() {
        return try_again(&app, &caller, &key, row, body).await;
    }
    let waiting = waiting(&app, &row).await?;
    let Some(waiting) = waiting.filter(|_| row.status == RunStatus::NeedsAttention) else {
        let status = row.status.as_str();
        return Err(RunConflict::NotInAttention { run: id, status }.into());
    };
    let call = named(&waiting.open, body.call.clone())?;
    let action = resolution(body, &waiting.open, call.as_ref())?;
    let input =
        Input::Resolve(ResolveRun { run: id.clone(), call, action, by: caller.id().clone() });
    verdict::submit(app.runs(), &key, &row, &input).await?;
    accepted(&app, &caller, &id).await
}

/// Has a log that could not be read looked at once more.
async fn try_again(
    app: &App,
    caller: &Caller,
    key: &IdempotencyKey,
    row: RunRow,
    body: ResolveBody,
) -> Result<Response, Problem> {
    let (run, by) = (row.id.clone(), caller.id().clone());
    let action = resolution(body, &[], None)?;
    let input = Input::Resolve(ResolveRun { run, call: None, action, by });
    match verdict::decision(app.runs(), key, &row, &input).await? {
        // It is read again, and stands where it stood.
        None | Some(Refusal::NoAttention) => accepted(app, caller, &row.id).await,
        Some(why) => Err(verdict::conflict(app.runs(), &row, why).await?.into()),
    }
}

/// The call that is named, if it is open.
fn named(open: &[Intent], call: Option<String>) -> Result<Option<String>, Problem> {
    match call {
        Some(name) if !open.iter().any(|intent| intent.name() == name) => {
            let known = open.iter().map(Intent::name).collect();
            Err(Problem::UnknownName { what: "call", name, known })
        }
        call => Ok(call),
    }
}

fn resolution(
    body: ResolveBody,
    open: &[Intent],
    call: Option<&String>,
) -> Result<Resolution, Problem> {
    let field = |field: &str, what: &str| Problem::Field {
        field: field.to_owned(),
        what: format!("{field}: {what}"),
    };
    match (body.action, body.output, body.message) {
        (Action::Done | Action::Retry, _, Some(_)) => {
            Err(field("message", "goes with `failed` alone"))
        }
        (Action::Retry | Action::Failed, Some(_), _) => {
            Err(field("output", "goes with `done` alone"))
        }
        (Action::Done, _, _) if open.is_empty() => {
            Err(field("action", "no call is open; `retry` or `failed` is what this run takes"))
        }
        (Action::Done, _, _) if open.len() > 1 && call.is_none() => {
            Err(field("call", "several calls are open: name the one that is done"))
        }
        (Action::Done, None, _) => Err(field("output", "`done` needs what the tool answered")),
        (Action::Done, Some(output), _) => Ok(Resolution::Done { output }),
        (Action::Retry, _, _) => Ok(Resolution::Retry),
        (Action::Failed, _, message) => {
            let message = message.unwrap_or_else(|| "a person said that it failed".into());
            Ok(Resolution::Failed { message })
        }
    }
}
