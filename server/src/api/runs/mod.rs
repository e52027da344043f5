//! `/api/runs`: running a graph, and all that can be asked of a run.

mod checkpoints;
mod create;
mod diff;
mod fork;
mod list;
mod one;
mod resume;
mod view;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::http::app::App;

pub(crate) use checkpoints::CheckpointView;
pub(crate) use fork::MigrationView;
pub(crate) use view::RunView;

/// This folder's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .merge(list::routes())
        .merge(create::routes())
        .merge(one::routes())
        .merge(resume::routes())
        .merge(checkpoints::routes())
        .merge(diff::routes())
        .merge(fork::routes())
}
