//! `/api/conversations`: what a user sees as threads of talk.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::NoContent;
use exile_engine::id::{ConversationId, UserId};
use exile_engine::model::Models;
use exile_engine::run::record::RunOptions;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::auth::business::named;
use crate::http::auth::reach::{self, Owners};
use crate::http::body::JsonBody;
use crate::http::extract::{Path, Query};
use crate::http::pagination::{self, List};
use crate::http::problem::{Created, Problem};
use crate::runs::create;
use crate::store::{Conversation, Deletion, NewConversation};

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(read, rename, delete))
}

/// What a new conversation is about; everything may be left out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewConversationBody {
    /// Which graph answers; the configuration's `default_graph` if nothing is said.
    graph: Option<String>,
    /// For nodes without a skill of their own.
    skill: Option<String>,
    /// For nodes without a model of their own: an alias or `provider/model`.
    model: Option<String>,
    /// Chooses among an alias's models; also the header `X-Exile-Business`.
    business: Option<String>,
    /// Goes before every other system text.
    system_prompt: Option<String>,
    /// For lists.
    title: Option<String>,
}

/// What can be changed of a conversation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RenameBody {
    /// The new title; null takes it away.
    #[schema(required = true)]
    title: Option<String>,
}

/// A conversation.
#[derive(Serialize, ToSchema)]
struct ConversationView {
    /// Its id.
    #[schema(value_type = String)]
    id: ConversationId,
    /// The id of the user whose it is.
    #[schema(value_type = String)]
    owner: UserId,
    /// For lists.
    title: Option<String>,
    /// The graph that answers.
    graph: String,
    /// For nodes without a skill of their own.
    skill: Option<String>,
    /// For nodes without a model of their own.
    model: Option<String>,
    /// The provider of that model when the conversation was made.
    provider: Option<String>,
    /// Chooses among an alias's models.
    business: Option<String>,
    /// Goes before every other system text.
    system_prompt: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When something was last said or changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<Conversation> for ConversationView {
    fn from(row: Conversation) -> Self {
        Self {
            id: row.id,
            owner: row.owner,
            title: row.title,
            graph: row.graph,
            skill: row.skill,
            model: row.model,
            provider: row.provider,
            business: row.business,
            system_prompt: row.system_prompt,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Begins a conversation.
#[utoipa::path(
    post, path = "/api/conversations", tag = "conversations",
    params(("X-Exile-Business" = Option<String>, Header, description = "Instead of `business`")),
    request_body = NewConversationBody,
    responses((status = 201, body = ConversationView)),
)]
async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(body): JsonBody<NewConversationBody>,
) -> Result<Created<ConversationView>, Problem> {
    let graph = body.graph.unwrap_or_else(|| app.settings.default_graph.clone());
    let library = app.library.now();
    create::check_conversational(&library, &graph)?;
    let options = RunOptions {
        skill: body.skill,
        model: body.model,
        business: caller.business(&app, named(body.business, &headers)?)?,
        key: None,
        system_prompt: body.system_prompt,
    };
    create::check_names(app.runs(), &library, &options)?;
    let resolve = |model: &String| {
        Models::resolve(app.catalog.models.aliases(), model, options.business.as_deref())
    };
    let provider = options.model.as_ref().and_then(resolve).map(|m| m.provider.to_string());
    let new = NewConversation {
        owner: caller.user.id,
        title: body.title,
        graph,
        skill: options.skill,
        model: options.model,
        provider,
        business: options.business,
        system_prompt: options.system_prompt,
    };
    let row = app.store.create_conversation(new).await?;
    Ok(Created { location: format!("/api/conversations/{}", row.id), body: row.into() })
}

/// Which conversations.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ConversationsQuery {
    /// Those of this user, or everybody's (`*`), for administrators; the caller's own if nothing is
    /// said.
    owner: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// Items, 1 to 200; 50 if nothing is said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// The caller's conversations, newest first; with `owner`, others'.
#[utoipa::path(
    get, path = "/api/conversations", tag = "conversations",
    params(ConversationsQuery),
    responses((status = 200, body = List<ConversationView>)),
)]
async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ConversationsQuery>,
) -> Result<Json<List<ConversationView>>, Problem> {
    let page = pagination::page(query.after, query.limit);
    let bytes = app.settings.limits.page;
    let listed = match reach::owners(&app, &caller, query.owner).await? {
        Owners::One(owner) => app.store.list_conversations(&owner, page, bytes).await?,
        Owners::All => app.store.list_all_conversations(page, bytes).await?,
    };
    Ok(Json(List::of(listed)))
}

/// One conversation.
#[utoipa::path(
    get, path = "/api/conversations/{id}", tag = "conversations",
    params(("id" = String, Path)),
    responses((status = 200, body = ConversationView)),
)]
async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<ConversationId>,
) -> Result<Json<ConversationView>, Problem> {
    Ok(Json(reach::conversation(&app, &caller, &id).await?.into()))
}

/// Gives a conversation another title.
#[utoipa::path(
    patch, path = "/api/conversations/{id}", tag = "conversations",
    params(("id" = String, Path)),
    request_body = RenameBody,
    responses((status = 200, body = ConversationView)),
)]
async fn rename(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<ConversationId>,
    JsonBody(body): JsonBody<RenameBody>,
) -> Result<Json<ConversationView>, Problem> {
    let owner = reach::conversation(&app, &caller, &id).await?.owner;
    let row = app.store.rename_conversation(&owner, &id, body.title.as_deref()).await?;
    Ok(Json(row.ok_or(Problem::NotFound)?.into()))
}

/// Deletes a conversation with its messages and runs; 409 while a run has not ended.
#[utoipa::path(
    delete, path = "/api/conversations/{id}", tag = "conversations",
    params(("id" = String, Path)),
    responses((status = 204)),
)]
async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<ConversationId>,
) -> Result<NoContent, Problem> {
    let owner = reach::conversation(&app, &caller, &id).await?.owner;
    match app.store.delete_conversation(&owner, &id).await? {
        Deletion::Deleted => Ok(NoContent),
        Deletion::Active => Err(Problem::RunActive),
        Deletion::Unknown => Err(Problem::NotFound),
    }
}
