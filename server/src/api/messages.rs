//! `/api/conversations/{id}/messages`: saying something, and reading what was said.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use exile_engine::id::{ConversationId, LogId, MessageId, RunId};
use exile_engine::journal::IfActive;
use exile_engine::message::{Image, Message, Role, ToolCall};
use exile_engine::run::record::{Number, RunOptions};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::runs::RunView;
use crate::http::app::App;
use crate::http::auth::{Caller, reach};
use crate::http::body::JsonBody;
use crate::http::extract::{Path, Query};
use crate::http::openapi::{if_active, on_disconnect};
use crate::http::pagination::{List, PageQuery};
use crate::http::problem::{Problem, RUN_HEADER};
use crate::http::sse::{self, Accepts};
use crate::http::trace::Trace;
use crate::runs::IdempotencyKey;
use crate::runs::create::{self, NewRun};
use crate::runs::disconnect::OnDisconnect;
use crate::runs::interrupts::InterruptView;
use crate::runs::resume;
use crate::store::{Conversation, MessageRow};

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, send))
}

/// What a person says.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SendBody {
    /// The text; not empty, unless there are images.
    #[serde(default)]
    content: String,
    /// Pictures to be seen with it: `https://` addresses, or `data:image/png;base64,…`.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    images: Vec<Image>,
    /// Answer as a stream of events; also `Accept: text/event-stream`.
    #[serde(default)]
    stream: bool,
    /// What becomes of the message while a run of the conversation goes on: `reject` (409),
    /// `enqueue` (it begins when those before it have ended), `interrupt` (that run is cancelled
    /// and keeps what it did) or `rollback` (that run is cancelled and leaves nothing).
    #[serde(default)]
    #[schema(schema_with = if_active)]
    if_active: IfActive,
    /// What becomes of the run if the caller leaves before it has ended: it goes on (`continue`)
    /// or is cancelled (`cancel`).
    #[serde(default)]
    #[schema(schema_with = on_disconnect)]
    on_disconnect: OnDisconnect,
}

/// The answer to a message.
#[derive(Serialize, ToSchema)]
struct SentView {
    /// What was answered; null if the graph said nothing, or asks first.
    message: Option<MessageView>,
    /// The run that answered.
    run: RunView,
    /// Questions that the run waits for answers to.
    interrupts: Vec<InterruptView>,
    /// Sources of the answer: none in this version.
    #[schema(value_type = Vec<Object>)]
    citations: [Value; 0],
}

/// A message.
#[derive(Serialize, ToSchema)]
pub(super) struct MessageView {
    /// Its id.
    #[schema(value_type = String)]
    id: MessageId,
    /// `system`, `user`, `assistant` or `tool`.
    role: &'static str,
    /// The text; empty when an assistant only calls tools.
    content: String,
    /// Pictures that belong to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    images: Vec<Image>,
    /// What the model thought, if it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    /// Calls that the assistant asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallView>,
    /// The call that a tool message answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
    /// The tool that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<String>,
    /// What a person changed the arguments of the call that it answers to, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_arguments: Option<Value>,
    /// `provider/model` that wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// A provider refused it: it stays here, and later turns go on without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    set_aside: bool,
    /// Why only its role and its text are here: what else is stored of it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    /// The run that made it.
    #[schema(value_type = String)]
    run: RunId,
    /// When it was stored.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// A call that an assistant asks for.
#[derive(Serialize, ToSchema)]
struct CallView {
    /// What the tool's message names.
    id: String,
    /// The tool.
    name: String,
    /// JSON text as the model wrote it.
    arguments: String,
}

impl From<ToolCall> for CallView {
    fn from(call: ToolCall) -> Self {
        Self { id: call.id, name: call.name, arguments: call.arguments }
    }
}

impl From<MessageRow> for MessageView {
    fn from(row: MessageRow) -> Self {
        let Message { id, role, content, images, reasoning, tool_calls, .. } = row.message;
        Self {
            id,
            role: role.as_str(),
            content,
            images,
            reasoning,
            tool_calls: tool_calls.into_iter().map(Into::into).collect(),
            tool_call_id: row.message.tool_call_id,
            tool_name: row.message.tool_name,
            edited_arguments: row.message.edited_arguments,
            model: row.message.model,
            set_aside: row.set_aside,
            unreadable: row.unreadable,
            run: row.run,
            created_at: row.created_at,
        }
    }
}

/// Says something and waits for the answer, or watches it being written.
///
/// The message is queued behind those that came before it, unless `if_active` says otherwise.
/// While a run of the conversation waits for a free text, the message is that answer; while it
/// waits for anything else, the message is refused. The answer is JSON once the run has ended or
/// waits, or the run's events as they happen.
#[utoipa::path(
    post, path = "/api/conversations/{id}/messages", tag = "conversations",
    params(("id" = String, Path)),
    request_body = SendBody,
    responses(
        (status = 200, description = "The answer, or its events", content(
            (SentView = "application/json"), (String = "text/event-stream"),
        )),
    ),
)]
async fn send(
    State(app): State<Arc<App>>,
    caller: Caller,
    Extension(trace): Extension<Trace>,
    key: IdempotencyKey,
    Accepts(accepts): Accepts,
    Path(id): Path<ConversationId>,
    JsonBody(body): JsonBody<SendBody>,
) -> Result<Response, Problem> {
    let conversation = reach::conversation(&app, &caller, &id).await?;
    let caller = caller.in_place_of(&app, &conversation.owner).await?;
    if body.content.is_empty() && body.images.is_empty() {
        let what = "content: must not be empty".into();
        return Err(Problem::Field { field: "content".into(), what });
    }
    let SendBody { content, images, stream, if_active, on_disconnect } = body;
    let said = Said { trace, key, content, images, if_active };
    let (run, after) = said.to(&app, &caller, conversation).await?;
    let mut on_leave = app.on_disconnect(LogId::from(&id), &run, on_disconnect);
    if stream || accepts {
        return Ok(sse::stream(&app, run, after, on_leave));
    }
    let stopped = create::wait_until_stopped(app.runs(), &run, after).await;
    on_leave.over();
    stopped?;
    let row = app.store.run(caller.id(), &run).await?.ok_or(Problem::NotFound)?;
    let message = app.store.answer_of(&row, after).await?.map(Into::into);
    let run_view = RunView::of(&app, row).await?;
    let interrupts = run_view.interrupts().to_vec();
    let view = SentView { message, run: run_view, interrupts, citations: [] };
    Ok(([(RUN_HEADER, run.to_string())], Json(view)).into_response())
}

/// A message that was sent.
struct Said {
    trace: Trace,
    key: IdempotencyKey,
    content: String,
    images: Vec<Image>,
    if_active: IfActive,
}

impl Said {
    /// The run that takes it, and the number beyond which that is about the message.
    async fn to(
        self,
        app: &App,
        caller: &Caller,
        conversation: Conversation,
    ) -> Result<(RunId, Number), Problem> {
        let id = self.key.message_id(&*app.env);
        if self.key.is_keyed()
            && let Some(known) = app.store.message(caller.id(), &id).await?
        {
            // Sent before, by a request that was cut off.
            return Ok((known.run, 0));
        }
        let message =
            Message { images: self.images, ..Message::text(id, Role::User, self.content) };
        let waits = match self.if_active {
            IfActive::Interrupt | IfActive::Rollback => None,
            IfActive::Reject | IfActive::Enqueue => {
                create::waiting_in(app.runs(), caller.id(), &conversation.id).await?
            }
        };
        if let Some(row) = waits
            && let Some(after) = resume::by_message(app.runs(), &self.key, &row, &message).await?
        {
            return Ok((row.id, after));
        }
        let new = turn(conversation, &message, (self.if_active, self.trace.traceparent));
        let run = create::start(app.runs(), &caller.requester(), &self.key, new).await?;
        Ok((run, 0))
    }
}

fn turn(
    conversation: Conversation,
    message: &Message,
    (if_active, traceparent): (IfActive, Option<String>),
) -> NewRun {
    let mut said = json!([{ "id": message.id, "role": message.role, "content": message.content }]);
    if !message.images.is_empty() {
        said[0]["images"] = json!(message.images);
    }
    NewRun {
        graph: conversation.graph,
        conversation: Some(conversation.id),
        options: RunOptions {
            skill: conversation.skill,
            model: conversation.model,
            business: conversation.business,
            key: None,
            system_prompt: conversation.system_prompt,
        },
        input: std::iter::once(("messages".to_owned(), said)).collect(),
        if_active,
        durability: None,
        traceparent,
    }
}

/// What was said, oldest first.
#[utoipa::path(
    get, path = "/api/conversations/{id}/messages", tag = "conversations",
    params(("id" = String, Path), PageQuery),
    responses((status = 200, body = List<MessageView>)),
)]
async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<ConversationId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<List<MessageView>>, Problem> {
    let owner = reach::conversation(&app, &caller, &id).await?.owner;
    let bytes = app.settings.limits.page;
    let rows = app.store.list_messages(&owner, &id, query.page(), bytes).await?;
    Ok(Json(List::of(rows.ok_or(Problem::NotFound)?)))
}
