//! `/api` and the pages beside it, one noun a file.
//!
//! A new endpoint is one file here and one line in [`routes`]. Handlers are registered with
//! `routes!`, which takes path and method from the same attribute that documents them, so that
//! the OpenAPI document and the router cannot differ.

mod conversations;
mod graphs;
mod health;
mod holder;
mod home_page;
mod keys;
mod messages;
mod metrics;
mod models;
mod protocol;
mod quotas;
mod runs;
mod sign_in;
mod skills;
mod tools;
mod usage;
mod users;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::http::app::App;

pub(crate) use keys::{KeyView, SecretView};
pub(crate) use models::every;
pub(crate) use runs::{CheckpointView, MigrationView, RunView};
pub(crate) use tools::ToolView;
pub(crate) use users::{SignInLinkView, UserView};

/// Every route of this folder, documented.
#[must_use]
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .merge(conversations::routes())
        .merge(messages::routes())
        .merge(runs::routes())
        .merge(graphs::routes())
        .merge(skills::routes())
        .merge(tools::routes())
        .merge(models::routes())
        .merge(protocol::routes())
        .merge(usage::routes())
        .merge(quotas::routes())
        .merge(users::routes())
        .merge(keys::routes())
        .merge(sign_in::routes())
        .merge(holder::routes())
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(home_page::routes())
}
