//! `/v1`: what OpenAI's clients call. `model` is a provider's model, an alias, a graph or a skill.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Json};
use exile_engine::model::{Models, ProviderError, ProviderFault};
use exile_engine::run::record::RunOptions;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::every;
use crate::http::app::App;
use crate::http::auth::business::named;
use crate::http::auth::{self, Caller};
use crate::http::body::JsonBody;
use crate::http::problem::Problem;
use crate::http::trace::Trace;
use crate::openai::request::{Completion, Embedding, Target};
use crate::openai::{self, embeddings};
use crate::runs::IdempotencyKey;
use crate::store::User;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(complete))
        .routes(routes!(embed))
        .routes(routes!(models))
        .routes(routes!(model))
}

/// Answers a conversation, as OpenAI's chat completions do. With a provider's model, or an alias,
/// the call passes through: nothing is kept. With a graph or a skill it is a run, whose tools exile
/// executes; the run's id is in `X-Exile-Run`.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "openai",
    params(("X-Exile-Business" = Option<String>, Header, description = "Chooses among an alias's models")),
    request_body(content = Object, description = "CreateChatCompletionRequest of OpenAI's API"),
    responses((status = 200, body = Object,
        description = "CreateChatCompletionResponse; chunks of server-sent events with `stream`")),
)]
async fn complete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Extension(trace): Extension<Trace>,
    key: IdempotencyKey,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Value>,
) -> Result<Response, Problem> {
    let completion = Completion::read(body)?;
    // Whoever may act for others names them here; else the name is the provider's to have.
    let impersonates = caller.can_impersonate();
    let caller = on_behalf(&app, caller, completion.user.as_deref()).await?;
    let business = caller.business(&app, named(None, &headers)?)?;
    let options = |skill| RunOptions { skill, business: business.clone(), ..RunOptions::default() };
    let run = match Target::of(&app, &completion.model, business.as_deref())? {
        Target::Models(chain) => {
            let how = (completion.stream, completion.usage);
            let request = completion.for_models(&app, &chain, !impersonates)?;
            let payer = caller.payer(business);
            return openai::pass(&app, payer, chain, request, how).await;
        }
        Target::Graph(graph) => (graph, options(None)),
        Target::Skill(skill) => (app.settings.default_graph.clone(), options(Some(skill))),
    };
    openai::run(&app, &caller, (&trace, &key), run, completion).await
}

/// Turns texts into vectors, as OpenAI's embeddings do. Vectors of different models do not mix: an
/// alias's first model answers, or nobody.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "openai",
    request_body(content = Object, description = "CreateEmbeddingRequest of OpenAI's API"),
    responses((status = 200, body = Object, description = "CreateEmbeddingResponse")),
)]
async fn embed(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Value>,
) -> Result<Json<Value>, Problem> {
    let Embedding { model: name, texts, base64, user, mut further } = Embedding::read(body)?;
    let impersonates = caller.can_impersonate();
    let caller = on_behalf(&app, caller, user.as_deref()).await?;
    let business = caller.business(&app, named(None, &headers)?)?;
    if let Some(user) = user.filter(|_| !impersonates) {
        further.insert("user".into(), user.into());
    }
    let models = &app.catalog.models;
    let unknown = || Problem::NoModel(name.clone());
    let model = Models::resolve(models.aliases(), &name, business.as_deref());
    let model = model.filter(|_| models.knows(&name)).ok_or_else(unknown)?;
    if models.catalogue().card(&model).embeddings.as_ref().is_some_and(|cell| !cell.value) {
        let detail = "makes no vectors of texts".to_owned();
        let (provider, model) = (model.provider.to_string(), model.model.to_string());
        let fault = ProviderFault::Incapable { detail };
        return Err(Problem::Model(ProviderError { provider, model, fault }));
    }
    let payer = caller.payer(business);
    let made = models.embed(&payer, &model, &texts, &further).await;
    Ok(Json(embeddings(made.map_err(Problem::Model)?, &model.to_string(), base64)))
}

/// Everything that `model` may be.
#[utoipa::path(
    get, path = "/v1/models", tag = "openai",
    responses((status = 200, body = Object, description = "ListModelsResponse")),
)]
async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": all(&app) }))
}

/// One thing that `model` may be.
#[utoipa::path(
    get, path = "/v1/models/{*id}", tag = "openai",
    params(("id" = String, Path, description = "As listed")),
    responses((status = 200, body = Object, description = "Model")),
)]
async fn model(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let found = all(&app).into_iter().find(|model| model["id"] == id.as_str());
    found.map(Json).ok_or(Problem::NoModel(id))
}

fn all(app: &App) -> Vec<Value> {
    let models = &app.catalog.models;
    let library = app.library.now();
    let one = |id: &str, owner: &str| json!({ "id": id, "object": "model", "created": 0, "owned_by": owner });
    let aliases = models.aliases().keys();
    let mut all: Vec<Value> = aliases.map(|name| one(name, "exile")).collect();
    let graphs = library.graphs().iter().map(|graph| &graph.name);
    let graphs =
        graphs.filter(|name| crate::runs::create::check_conversational(&library, name).is_ok());
    all.extend(graphs.map(|name| one(name, "exile")));
    let skills = library.skills().iter().filter(|skill| skill.skill.is_some());
    all.extend(skills.map(|skill| one(&skill.name, "exile")));
    all.extend(every(models).iter().map(|model| one(&model.to_string(), &model.provider)));
    all
}

/// The caller as the end user that a key with the scope `act_as` names.
async fn on_behalf(app: &App, caller: Caller, user: Option<&str>) -> Result<Caller, Problem> {
    match user {
        Some(name) if caller.can_impersonate() => {
            if !User::is_name(name) {
                let (param, code) = (Some("user".to_owned()), Some("invalid_value"));
                let what = "Invalid 'user': it is no user's name.".to_owned();
                return Err(Problem::Parameter { param, code, what });
            }
            auth::as_user(app, caller, name).await
        }
        _ => Ok(caller),
    }
}
