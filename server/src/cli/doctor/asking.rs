//! Whether providers answer: each is asked one short question, which costs a few tokens.

use exile_engine::env::{Env as _, SystemEnv};
use exile_engine::model::ModelRef;
use exile_engine::model::card::Catalogue;
use exile_nodes::providers::mock;
use futures_util::future::join_all;
use serde_json::json;

use super::{Check, State};
use crate::cli::connection::Connection;

/// Most tokens of an answer.
const TOKENS: u32 = 16;

/// Asks the first of `models` of each provider, all at once.
pub(super) async fn ask(
    connection: &Connection,
    catalogue: &Catalogue,
    models: &[ModelRef],
) -> Vec<Check> {
    let mut first: Vec<&ModelRef> = Vec::new();
    let mut left: Vec<String> = Vec::new();
    for model in models.iter().filter(|model| &*model.provider != mock::NAME) {
        let embeds = catalogue.card(model).embeddings.as_ref().is_some_and(|cell| cell.value);
        if embeds || first.iter().any(|other| other.provider == model.provider) {
            left.push(model.to_string());
        } else {
            first.push(model);
        }
    }
    let mut checks = join_all(first.into_iter().map(|model| one(connection, model))).await;
    if !left.is_empty() {
        let detail = format!("whether {} answer; `exile model probe` asks one", left.join(", "));
        checks.push(Check::skipped(detail));
    }
    checks
}

async fn one(connection: &Connection, model: &ModelRef) -> Check {
    let body = json!({
        "model": model.to_string(),
        "messages": [{ "role": "user", "content": "Reply with OK." }],
        "max_tokens": TOKENS,
    });
    let (env, start) = (SystemEnv::new(), SystemEnv::new().monotonic());
    let answered = connection.post("/v1/chat/completions", &body).await;
    let took = env.monotonic().saturating_sub(start).as_millis();
    let (state, detail) = match answered {
        Ok(_) => (State::Good, format!("{model} answered after {took} ms")),
        Err(error) => (State::Bad, format!("{model}: {error}")),
    };
    Check { what: "provider", state, detail }
}
