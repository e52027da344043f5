//! `/api/models`: what models there are, what each can do and who says so; and proving it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use exile_engine::model::card::Card;
use exile_engine::model::{AfterFirstToken, ModelAlias, ModelRef, Models};
use exile_nodes::providers::probe::{self, Proof};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::body::JsonBody;
use crate::http::problem::Problem;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(prove))
}

/// All models and aliases.
#[derive(Serialize, ToSchema)]
struct ModelsView {
    /// Those that aliases lead to, and those of configured providers that something is known of.
    items: Vec<ModelView>,
    /// Always null: the list has one page.
    next: Option<String>,
    /// Names that graphs and skills use.
    aliases: Vec<AliasView>,
}

/// A model.
#[derive(Serialize, ToSchema)]
struct ModelView {
    /// `provider/model`.
    name: String,
    /// Whether it could be asked now.
    ready: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// It failed too often and is left alone for that many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    circuit_open_ms: Option<u64>,
    /// What is known of it, cell by cell: `{value, source, date}`. A cell that is not there is
    /// unknown.
    #[schema(value_type = Object)]
    capabilities: Arc<Card>,
}

/// A name for models.
#[derive(Serialize, ToSchema)]
struct AliasView {
    /// As graphs and skills use it.
    name: String,
    /// Who is asked first.
    model: String,
    /// Business → who is asked first for it.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    business: std::collections::BTreeMap<String, String>,
    /// Who is asked next, in order.
    fallback: Vec<String>,
    /// What becomes of an answer that breaks off: `fail` or `restart`.
    #[schema(value_type = String)]
    after_first_token: AfterFirstToken,
}

impl AliasView {
    fn of(name: &str, alias: &ModelAlias) -> Self {
        let business = alias.business.iter().map(|(name, m)| (name.clone(), m.to_string()));
        Self {
            name: name.to_owned(),
            model: alias.model.to_string(),
            business: business.collect(),
            fallback: alias.fallback.iter().map(ToString::to_string).collect(),
            after_first_token: alias.after_first_token,
        }
    }
}

/// What is to be proved.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProbeBody {
    /// `provider/model`, or an alias.
    model: String,
}

/// What the model showed.
#[derive(Serialize, ToSchema)]
struct ProbeView {
    /// `provider/model`.
    model: String,
    /// Cell by cell.
    proofs: Vec<ProofView>,
    /// Cells that are not as the catalogue says.
    drift: usize,
}

/// What one cell turned out to be.
#[derive(Serialize, ToSchema)]
struct ProofView {
    /// The cell.
    cell: &'static str,
    /// What the catalogue says; null if nothing.
    claimed: Option<bool>,
    /// What the model showed; null if that could not be told.
    seen: Option<bool>,
    /// What it said or did, in short.
    detail: String,
    /// Whether the two differ.
    drift: bool,
}

impl From<Proof> for ProofView {
    fn from(proof: Proof) -> Self {
        let drift = proof.drifts();
        let Proof { cell, claimed, seen, detail } = proof;
        Self { cell, claimed, seen, detail, drift }
    }
}

/// Every model and alias.
#[utoipa::path(
    get, path = "/api/models", tag = "models",
    responses((status = 200, body = ModelsView)),
)]
async fn list(State(app): State<Arc<App>>) -> Json<ModelsView> {
    let models = &app.catalog.models;
    let items = every(models).iter().map(|model| view(&app, model)).collect();
    let aliases = models.aliases().iter().map(|(name, alias)| AliasView::of(name, alias));
    Json(ModelsView { items, next: None, aliases: aliases.collect() })
}

/// Models that aliases lead to, then those that something is known of, each once.
pub(crate) fn every(models: &Models) -> Vec<ModelRef> {
    let mut all: Vec<ModelRef> = Vec::new();
    let of_alias = |alias: &ModelAlias| {
        let first = std::iter::once(&alias.model).chain(alias.business.values());
        first.chain(&alias.fallback).cloned().collect::<Vec<_>>()
    };
    let known = models.catalogue().named().filter(|m| models.provider(&m.provider).is_some());
    for model in models.aliases().values().flat_map(of_alias).chain(known) {
        if !all.contains(&model) {
            all.push(model);
        }
    }
    all
}

fn view(app: &App, model: &ModelRef) -> ModelView {
    let models = &app.catalog.models;
    let reason = match models.provider(&model.provider) {
        Some(provider) => provider.ready().err().map(|error| error.fault.to_string()),
        None => Some("no provider of this name is configured".to_owned()),
    };
    let open = models.breakers().open_for(model, app.env.monotonic());
    ModelView {
        name: model.to_string(),
        ready: reason.is_none(),
        reason,
        circuit_open_ms: open.map(|open| u64::try_from(open.as_millis()).unwrap_or(u64::MAX)),
        capabilities: models.catalogue().card(model),
    }
}

/// Asks a model some small questions, and says what it can do and what the catalogue says. Costs
/// a few hundred tokens.
#[utoipa::path(
    post, path = "/api/models/probe", tag = "models",
    request_body = ProbeBody,
    responses((status = 200, body = ProbeView)),
)]
async fn prove(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(body): JsonBody<ProbeBody>,
) -> Result<Json<ProbeView>, Problem> {
    caller.require_admin()?;
    let models = &app.catalog.models;
    let unknown =
        || Problem::UnknownName { what: "model", name: body.model.clone(), known: models.names() };
    let model = Models::resolve(models.aliases(), &body.model, None).ok_or_else(unknown)?;
    let provider = models.provider(&model.provider).ok_or_else(unknown)?;
    let proofs =
        probe::prove(&**provider, &model, &models.catalogue().card(&model), &*app.env).await;
    let proofs: Vec<ProofView> = proofs.into_iter().map(Into::into).collect();
    let drift = proofs.iter().filter(|proof| proof.drift).count();
    Ok(Json(ProbeView { model: model.to_string(), proofs, drift }))
}
