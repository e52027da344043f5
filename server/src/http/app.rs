//! What every request can reach.
//!
//! Absent on purpose: how the parts are made (the composition root) and configuration as written;
//! a route sees only the few settings it needs.

use std::sync::Arc;

use exile_engine::bundle::Catalog;
use exile_engine::env::Env;
use exile_engine::id::{LogId, RunId};
use exile_engine::run::engine::Engine;
use exile_engine::span::TraceLink;
use tokio_util::sync::CancellationToken;

use crate::config::Proxies;
use crate::config::local_key::LocalKey;
pub use crate::config::{Environment, Limits};
use crate::http::auth::guesses::Guesses;
use crate::http::transport::Transport;
use crate::library::Current;
use crate::runs::Runs;
use crate::runs::disconnect::{CancelOnDisconnect, OnDisconnect};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::usage::UsageMeter;

/// The parts of one server.
#[derive(Clone)]
pub struct App {
    /// Rows.
    pub store: Store,
    /// Runs.
    pub engine: Arc<Engine>,
    /// Graphs and skills.
    pub library: Current,
    /// Node kinds, tools and models.
    pub catalog: Catalog,
    /// Clock, ids, randomness.
    pub env: Arc<dyn Env>,
    /// Quotas and usage.
    pub usage: Arc<UsageMeter>,
    /// Calls that no run makes end now: the server has waited for them long enough.
    pub cut: CancellationToken,
    /// What Prometheus reads.
    pub metrics: Arc<Metrics>,
    /// What all requests share of this machine.
    pub transport: Arc<Transport>,
    /// The trace that requests belong to.
    pub trace: Arc<dyn TraceLink>,
    /// What the configuration says to routes.
    pub settings: Settings,
    /// The key of the home.
    pub local_key: LocalKey,
    /// Wrong sign-in links.
    pub guesses: Arc<Guesses>,
}

impl App {
    /// What runs are begun, answered and read with.
    #[must_use]
    pub fn runs(&self) -> Runs<'_> {
        Runs {
            store: &self.store,
            engine: &self.engine,
            library: &self.library,
            catalog: &self.catalog,
            env: &*self.env,
            usage: &self.usage,
            page_bytes: self.settings.limits.page,
        }
    }

    /// Does what the caller of a run wants when it leaves before the run has come to rest.
    #[must_use]
    pub fn on_disconnect(
        &self,
        log: LogId,
        run: &RunId,
        wanted: OnDisconnect,
    ) -> CancelOnDisconnect {
        let ends = [self.cut.clone(), self.transport.readers.clone()];
        CancelOnDisconnect::new(&self.engine, (log, run), wanted, ends)
    }
}

/// The part of the configuration that routes read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `production` is held to more by `/readyz`.
    pub environment: Environment,
    /// Where people reach the server, without a slash at its end.
    pub url: String,
    /// Where this machine reaches it, as `server.json` of the home says.
    pub listening: String,
    /// Whose word is taken for where a request came from.
    pub trusted_proxies: Proxies,
    /// For conversations and runs that name none.
    pub default_graph: String,
    /// How much is admitted.
    pub limits: Limits,
}
