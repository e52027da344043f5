//! The composition root: makes every part of a server from its configuration and puts them
//! together. The only place that knows all of them.
//!
//! Invariants:
//! - A start does nothing slow: no network, no file but those it needs.
//! - A file that does not load keeps its graph from running, not the server from starting.
//! - Parts end in the order of their need: requests, runs, rows, and last the home's lock.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use exile_engine::bundle::Catalog;
use exile_engine::env::{Env, SystemEnv};
use exile_engine::http::HttpError;
use exile_engine::id::UserId;
use exile_engine::library::{Files, Library};
use exile_engine::model::card::Catalogue;
use exile_engine::model::{Models, Provider};
use exile_engine::run::context::Services;
use exile_engine::run::engine::Engine;
use exile_engine::run::live;
use exile_engine::span::TraceLink;
use exile_engine::tool::{RegisterError, ToolRegistry};
use exile_nodes::guard::Allow;
use exile_nodes::http::{Client, Outbound};
use exile_nodes::providers::{self, ProviderConfig, mock::Mock};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::config::home::{HeldHome, Home, HomeError};
use crate::config::local_key::{LocalKey, LocalKeyError};
use crate::http::app::{App, Settings};
use crate::http::auth::origin;
use crate::http::transport::Transport;
use crate::jobs::retention;
use crate::library::{self, Current};
use crate::process::{builtin, serve};
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::usage::{Money, Rules, SharedMeter, UsageMeter};

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The address to listen on.
    #[error("cannot listen on {address}: {source}; choose another one with --bind")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The home.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The home's key.
    #[error(transparent)]
    LocalKey(#[from] LocalKeyError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A provider's address or proxy.
    #[error("{0}; see `providers` in exile.yaml")]
    Provider(#[from] providers::ConfigError),
    /// What ships as known of models: a defect of exile.
    #[error("the catalogue of models cannot be read: {0}")]
    Catalogue(String),
    /// The tools' way out.
    #[error("the tools' HTTP client: {0}")]
    Http(#[from] HttpError),
    /// Two metrics of one name: a defect of exile.
    #[error("the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Two tools in each other's way.
    #[error(transparent)]
    Tool(#[from] RegisterError),
}

/// Node kinds, tools and models of a configuration.
pub fn catalog(
    config: &Config,
    trace: &Arc<dyn TraceLink>,
    env: &Arc<dyn Env>,
) -> Result<Catalog, ComposeError> {
    let mut models: Vec<Arc<dyn Provider>> = Vec::new();
    for settings in &config.providers {
        let limits = config.limits.engine.answer;
        let settings = ProviderConfig { limits, ..settings.clone() };
        models.push(providers::provider(settings, trace.clone(), env.clone())?);
    }
    if let Some(script) = &config.mock {
        models.push(Arc::new(Mock::new(script.clone())));
    }
    let shipped = providers::catalogue().map_err(ComposeError::Catalogue)?;
    let known = Catalogue::empty().with(shipped, "exile").with(config.claims.clone(), "exile.yaml");
    let allow = config.outbound_allow.iter().map(|host| Allow::parse(host)).collect();
    let http = Client::new(Outbound { allow, proxy: None }, trace.clone())?;
    let native = exile_plugins::native::all(http, config.timezone.clone());
    let limits = Arc::new(config.limits.engine.clone());
    Ok(Catalog {
        kinds: exile_nodes::kinds::all(),
        tools: Arc::new(ToolRegistry::new(&[&native])?.with_limits(limits.clone())),
        models: Arc::new(Models::new(models, config.aliases.clone()).with_catalogue(known)),
        limits,
    })
}

/// The graphs and skills of a configuration: its folder's, or those that ship.
#[must_use]
pub fn library(config: &Config, catalog: &Catalog) -> Library {
    match &config.places.graphs {
        Some(folder) => Library::load(folder, catalog),
        None => builtin::library(catalog),
    }
}

/// The same for a server that begins, as far as it can be checked at once: what follows the folder
/// looks at the rest. Off the threads that answer, since files hold what they hold.
async fn first_library(config: &Config, catalog: &Catalog) -> Library {
    let (folder, catalog) = (config.places.graphs.clone(), catalog.clone());
    let read = move || match folder {
        Some(folder) => Library::begin(Files::read(&folder, &catalog.limits.files), &catalog),
        None => builtin::library(&catalog),
    };
    spawn_blocking(read).await.unwrap_or_else(|error| {
        tracing::error!(%error, "the graphs could not be loaded");
        Library::default()
    })
}

/// What a server does besides answering requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Everything: runs go on, edited files are followed, what is old is removed.
    Everything,
    /// Runs go on, and edited files are followed.
    Runs,
    /// Nothing. What a request asks of a run is stored, and done by who runs it next.
    Answers,
}

/// A server that answers.
pub struct Server {
    url: String,
    /// Whether it listens to other machines.
    is_open_to_others: bool,
    app: Arc<App>,
    admin: UserId,
    held: HeldHome,
    stop: CancellationToken,
    /// Writes usage until nothing is left that causes any.
    usage_writer: (CancellationToken, JoinHandle<()>),
    /// By name, in the order in which they end.
    parts: Vec<(&'static str, JoinHandle<()>)>,
}

impl Server {
    /// Opens the home, listens, and with its `duty` takes up the runs that an earlier process left.
    pub async fn start(
        config: &Config,
        held: HeldHome,
        trace: Arc<dyn TraceLink>,
        (address, duty): (SocketAddr, Duty),
    ) -> Result<Self, ComposeError> {
        let env: Arc<dyn Env> = Arc::new(SystemEnv::new());
        let unable = |source| ComposeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(unable)?;
        let url = url(listener.local_addr().map_err(unable)?);
        let app = Arc::new(app(config, &held, trace, env, url.clone()).await?);
        let admin = app.local_key.ensure(&app.store).await?;
        held.announce(&url)?;
        let stop = CancellationToken::new();
        let mut parts = Vec::new();
        if let Some(folder) = config.places.graphs.clone().filter(|_| duty != Duty::Answers) {
            let (current, catalog) = (app.library.clone(), app.catalog.clone());
            let following = library::follow(current, folder, catalog, stop.clone());
            parts.push(("graphs", tokio::spawn(following)));
        }
        parts.push(("requests", tokio::spawn(answer(listener, app.clone(), stop.clone()))));
        let runs = drive(app.clone(), stop.clone(), duty != Duty::Answers);
        parts.push(("runs", tokio::spawn(runs)));
        if duty == Duty::Everything {
            let keep = (config.keep_records, config.keep_usage);
            parts.push((
                "retention",
                tokio::spawn(retention::serve(
                    (app.store.clone(), app.env.clone()),
                    keep,
                    stop.clone(),
                )),
            ));
        }
        let closing = CancellationToken::new();
        let usage_writer = tokio::spawn(app.usage.clone().serve(closing.clone()));
        let is_open_to_others = !address.ip().is_loopback();
        let usage_writer = (closing, usage_writer);
        Ok(Self { url, is_open_to_others, app, admin, held, stop, usage_writer, parts })
    }

    /// Where it listens, as this machine reaches it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A link that signs an administrator in, once.
    pub async fn sign_in_link(&self) -> Result<String, StoreError> {
        let (token, _) = self.app.store.create_sign_in(&self.admin, None).await?;
        Ok(format!("{}/sign-in?token={token}", self.app.settings.url))
    }

    /// Logs what an operator should know.
    pub fn report(&self) {
        let aliases = self.app.catalog.models.aliases().iter();
        let mocked = aliases.filter(|(_, alias)| &*alias.model.provider == "mock");
        let mocked: Vec<&str> = mocked.map(|(name, _)| name.as_str()).collect();
        if !mocked.is_empty() {
            let mocked = mocked.join(", ");
            tracing::warn!(
                "no provider has a key: the mock answers for {mocked}; set e.g. DEEPSEEK_API_KEY"
            );
        }
        let url = &self.app.settings.url;
        if !origin::can_hold_sessions(url) || (*url == self.url && self.is_open_to_others) {
            tracing::warn!(
                "browsers elsewhere stay signed in only by https: set public_url to the address of \
                 a proxy that speaks it, or let them come through a tunnel to 127.0.0.1"
            );
        }
        for finding in self.app.library.now().findings() {
            tracing::warn!("{finding}");
        }
    }

    /// Returns when the server has ended by itself, which it does only by a fault.
    pub async fn ended(&self) {
        self.stop.cancelled().await;
    }

    /// Takes nothing new, lets what is in flight go on for at most `limits.shutdown`, gives back
    /// the runs that have not ended by then, closes the home.
    pub async fn stop(self) {
        self.stop.cancel();
        let (closing, usage_writer) = self.usage_writer;
        for (part, task) in self.parts {
            ended(part, task).await;
        }
        self.app.cut.cancel();
        self.app.usage.settled().await;
        closing.cancel();
        ended("usage", usage_writer).await;
        if let Err(error) = self.app.store.close().await {
            tracing::error!(%error, "the database did not close; nothing stored is lost");
        }
        drop(self.held);
    }
}

async fn ended(part: &str, task: JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::error!(%error, part, "a part of the server ended badly");
    }
}

/// Answers requests; if that ends by itself, so does the server.
async fn answer(listener: TcpListener, app: Arc<App>, stop: CancellationToken) {
    serve::serve(listener, app, stop.clone()).await;
    stop.cancel();
}

/// Drives runs, if it is for this process to do so. Once none goes on, nobody has anything to wait
/// for here.
async fn drive(app: Arc<App>, stop: CancellationToken, drives: bool) {
    if drives {
        app.engine.clone().serve(stop, app.settings.limits.transport.shutdown).await;
    } else {
        stop.cancelled().await;
    }
    app.transport.readers.cancel();
}

async fn app(
    config: &Config,
    held: &HeldHome,
    trace: Arc<dyn TraceLink>,
    env: Arc<dyn Env>,
    url: String,
) -> Result<App, ComposeError> {
    let catalog = catalog(config, &trace, &env)?;
    assemble(config, held.home(), catalog, (trace, env), url).await
}

/// All that a request can reach: the rows of a home, and what a catalog has to run. `url`: where
/// this machine reaches the server.
pub async fn assemble(
    config: &Config,
    home: &Home,
    mut catalog: Catalog,
    (trace, env): (Arc<dyn TraceLink>, Arc<dyn Env>),
    url: String,
) -> Result<App, ComposeError> {
    // Side by side: one waits for the disk where the other one works.
    let database = home.database();
    let (store, library) =
        tokio::join!(Store::open(&database, env.clone()), first_library(config, &catalog));
    let store = store?;
    let metrics = Arc::new(Metrics::new()?);
    let aliased = catalog.models.aliases().values();
    let aliased =
        aliased.flat_map(|a| a.fallback.iter().chain(a.business.values()).chain([&a.model]));
    let named = catalog.models.catalogue().named();
    metrics.know(named.chain(aliased.cloned()).map(|model| model.model.to_string()));
    let rules = Rules {
        quotas: config.quotas.clone(),
        money: Money::new(&config.currency),
        zone: config.timezone.clone(),
        catalogue: catalog.models.catalogue().clone(),
    };
    let usage = UsageMeter::open(store.clone(), env.clone(), metrics.clone(), rules).await?;
    let models = Models::clone(&catalog.models).with_meter(Arc::new(SharedMeter(usage.clone())));
    catalog.models = Arc::new(models);
    let library = Current::new(library);
    let services = Services {
        env: env.clone(),
        models: catalog.models.clone(),
        tools: catalog.tools.clone(),
        trace: trace.clone(),
        observer: metrics.clone(),
    };
    let journal = Arc::new(store.clone());
    let engine = Engine::new(journal, live::memory(), Arc::new(services), catalog.clone());
    let settings = Settings {
        environment: config.environment,
        url: config.public_url.clone().unwrap_or_else(|| url.clone()),
        listening: url,
        trusted_proxies: config.trusted_proxies.clone(),
        default_graph: config.default_graph.clone(),
        limits: config.limits.clone(),
    };
    let cut = CancellationToken::new();
    let local_key = LocalKey::of(home);
    let transport = Arc::new(Transport::new(&config.limits.transport));
    Ok(App {
        store,
        engine,
        library,
        catalog,
        env,
        usage,
        cut,
        metrics,
        transport,
        trace,
        settings,
        local_key,
        guesses: Arc::default(),
    })
}

/// The address as this machine reaches it: a server that listens everywhere also does so here.
fn url(address: SocketAddr) -> String {
    let host = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    format!("http://{}", SocketAddr::new(host, address.port()))
}
