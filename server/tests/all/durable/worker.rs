//! The role that runs graphs: the real store, engine, node kinds and provider, without a home, so
//! that two of them can open one file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::bundle::Catalog;
use exile_engine::env::{Env, SystemEnv};
use exile_engine::id::{InputId, LogId, RunId, UserId, WorkerId};
use exile_engine::journal::{
    Batch, BlobId, ForkRun, History, Input, Journal, JournalError, Lease, Place, ReleaseInfo,
    ResolveRun, ResumeRun, Sent, StartRun, Verdict,
};
use exile_engine::library::Library;
use exile_engine::model::{Aliases, ModelAlias, ModelRef, Models};
use exile_engine::run::context::Services;
use exile_engine::run::engine::Engine;
use exile_engine::run::live;
use exile_engine::run::record::{Number, Numbered, Record, RunError, RunOptions};
use exile_engine::span::NoTrace;
use exile_engine::tool::ToolRegistry;
use exile_nodes::guard::Allow;
use exile_nodes::http::{Client, Outbound};
use exile_nodes::providers::{self, ProviderConfig, Secret};
use exile_server::store::{Role, Store};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::caller::{Callers, Signed};
use super::process::{self, Process};
use super::protocol::{Order, Told, start_of};
use super::tools::Counted;

/// What a worker is given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Worker {
    /// Holds `exile.db` and `graphs/`.
    pub(super) folder: PathBuf,
    pub(super) upstream: String,
    /// Counts the workers over one file, from 1.
    pub(super) life: u32,
    pub(super) lease_ms: Option<u64>,
    /// Where in the store it kills itself, and at which time of passing there.
    pub(super) dies_at: Option<(String, u32)>,
}

impl Worker {
    /// Starts it, and waits until it has opened the store.
    pub(super) fn start(&self) -> Process {
        Process::start("durable::worker::process", "worker", self)
    }
}

/// The role.
#[test]
fn process() {
    let Some(worker) = process::role::<Worker>("worker") else { return };
    // What the engine complains of stands beside what the test does.
    let complaints = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(Callers)
        .with(complaints.with_filter(LevelFilter::ERROR))
        .init();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(work(worker));
}

async fn work(worker: Worker) {
    let env: Arc<dyn Env> = Arc::new(SystemEnv::new());
    let store = Store::open(&worker.folder.join("exile.db"), env.clone()).await.unwrap();
    // Opening the file reads the points that the environment names: these come after.
    if let Some((point, times)) = &worker.dies_at {
        die_at(point, *times);
    }
    let owner = match store.user_by_name("owner").await.unwrap() {
        Some(user) => user.id,
        None => store.create_user("owner", Role::Admin).await.unwrap().id,
    };
    let catalog = catalog(&worker, &env);
    let library = Library::load(&worker.folder.join("graphs"), &catalog);
    for finding in library.findings() {
        eprintln!("{finding}");
    }
    let journal = Arc::new(Telling(store.clone()));
    let services = Services {
        env,
        models: catalog.models.clone(),
        tools: catalog.tools.clone(),
        trace: Arc::new(NoTrace),
        observer: Arc::new(exile_engine::observer::Unobserved),
    };
    let (live, services) = (live::memory(), Arc::new(services));
    let engine = match worker.lease_ms.map(Duration::from_millis) {
        Some(lease) => Engine::with_lease(journal.clone(), live, services, catalog, lease),
        None => Engine::new(journal.clone(), live, services, catalog),
    };
    let desk = Desk { engine, journal, library, owner };
    process::tell(&Told::Ready);
    let stop = CancellationToken::new();
    let mut serving = None;
    let mut orders = process::orders();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Serve => {
                let engine = desk.engine.clone();
                serving = Some(tokio::spawn(engine.serve(stop.clone(), Duration::ZERO)));
            }
            order => desk.obey(order).await,
        }
    }
    stop.cancel();
    if let Some(serving) = serving {
        serving.await.unwrap();
    }
    store.close().await.unwrap();
}

/// `kill -9`, by the process itself, in the middle of the store's work.
#[cfg(feature = "failpoints")]
fn die_at(point: &str, times: u32) {
    use std::sync::atomic::{AtomicU32, Ordering};
    let passed = AtomicU32::new(0);
    let die = move || {
        if passed.fetch_add(1, Ordering::SeqCst) + 1 == times {
            let this = rustix::process::getpid();
            rustix::process::kill_process(this, rustix::process::Signal::KILL).unwrap();
        }
    };
    fail::cfg_callback(point, die).unwrap();
}

#[cfg(not(feature = "failpoints"))]
fn die_at(point: &str, _: u32) {
    panic!("`{point}` is compiled in only with the feature `failpoints`");
}

fn catalog(worker: &Worker, env: &Arc<dyn Env>) -> Catalog {
    let trace = Arc::new(NoTrace);
    let lab = ProviderConfig {
        base_url: Some(format!("{}/v1", worker.upstream)),
        headers: vec![("x-life".into(), Secret::new(worker.life.to_string()))],
        keyless: true,
        ..ProviderConfig::new("lab")
    };
    let provider = providers::provider(lab, trace.clone(), env.clone()).unwrap();
    let model = ModelRef::parse("lab/m").unwrap();
    let aliases: Aliases = [("default".to_owned(), ModelAlias::from(model))].into();
    let allow = vec![Allow::parse(worker.upstream.strip_prefix("http://").unwrap())];
    let http = Client::new(Outbound { allow, proxy: None }, trace).unwrap();
    let tools = Counted { upstream: worker.upstream.clone(), life: worker.life, http };
    Catalog {
        kinds: exile_nodes::kinds::all(),
        tools: Arc::new(ToolRegistry::new(&[&tools]).unwrap()),
        models: Arc::new(Models::new(vec![Arc::new(Signed(provider))], aliases)),
        limits: Arc::default(),
    }
}

/// What orders are given to.
struct Desk {
    engine: Arc<Engine>,
    journal: Arc<Telling>,
    library: Library,
    owner: UserId,
}

impl Desk {
    async fn obey(&self, order: Order) {
        match order {
            Order::Read(logs) => self.read(logs).await,
            Order::Serve => {}
            Order::Watch(run) => self.watch(run),
            Order::Start { log, run, graph, input, durability, if_active } => {
                let start = StartRun {
                    run: run.clone(),
                    bundle: self.bundle(&graph).await,
                    graph: graph.into(),
                    owner: self.owner.clone(),
                    conversation: None,
                    options: RunOptions::default(),
                    input,
                    traceparent: None,
                    if_active,
                    durability: Some(durability),
                };
                self.send(&log, start_of(&run), Input::Start(Box::new(start))).await;
            }
            Order::Fork { log, run, graph, from, at } => {
                let fork = ForkRun {
                    run: run.clone(),
                    log: self.log_of(&from).await,
                    from,
                    at,
                    bundle: self.bundle(&graph).await,
                    graph: graph.into(),
                    owner: self.owner.clone(),
                    conversation: None,
                    edit: None,
                    traceparent: None,
                };
                self.send(&log, start_of(&run), Input::Fork(Box::new(fork))).await;
            }
            Order::Answer { run, id, interrupt, value } => {
                let (log, by) = (self.log_of(&run).await, self.owner.clone());
                let answers = [(interrupt, value)].into();
                let resume = ResumeRun { run, answers, by, message: None };
                self.send(&log, id, Input::Resume(Box::new(resume))).await;
            }
            Order::Resolve { run, id, call, action } => {
                let (log, by) = (self.log_of(&run).await, self.owner.clone());
                let resolve = ResolveRun { run, call, action, by };
                self.send(&log, id, Input::Resolve(resolve)).await;
            }
        }
    }

    async fn send(&self, log: &LogId, id: InputId, input: Input) {
        process::tell(&match self.engine.send(log, &id, &input).await.unwrap() {
            Sent::New | Sent::Known => Told::Sent(id),
            Sent::Busy => Told::Busy(input.run().clone()),
        });
    }

    async fn bundle(&self, graph: &str) -> BlobId {
        let bundle = self.library.bundle(graph, None).unwrap();
        self.engine.pin_bytes(&bundle.to_bytes()).await.unwrap()
    }

    async fn log_of(&self, run: &RunId) -> LogId {
        self.journal.find(run).await.unwrap().unwrap().log
    }

    async fn read(&self, logs: Vec<(LogId, Number)>) {
        for (log, from) in logs {
            let history = self.journal.read(&log, from, usize::MAX).await.unwrap();
            process::tell(&Told::Holds { log, records: told(&history.records) });
        }
        process::tell(&Told::HasRead);
    }

    fn watch(&self, run: RunId) {
        let mut events = self.engine.events(run, 0);
        tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                let text = event.data["text"].as_str().map(str::to_owned);
                let (number, name) = (event.number, event.name.to_owned());
                process::tell(&Told::Seen { number, name, text });
            }
        });
    }
}

fn told(records: &[Numbered]) -> Vec<(Number, Record)> {
    records.iter().map(|r| (r.number, Record::clone(&r.record))).collect()
}

/// The store, telling the test what it acknowledged and what it refused.
struct Telling(Store);

fn fenced<T>(log: &LogId, answer: &Result<T, JournalError>) {
    if matches!(answer, Err(JournalError::Fenced(_))) {
        process::tell(&Told::Fenced(log.clone()));
    }
}

#[async_trait]
impl Journal for Telling {
    async fn find(&self, run: &RunId) -> Result<Option<Place>, JournalError> {
        self.0.find(run).await
    }

    async fn send(&self, log: &LogId, id: &InputId, input: &Input) -> Result<Sent, JournalError> {
        self.0.send(log, id, input).await
    }

    async fn claim(
        &self,
        worker: &WorkerId,
        lease: Duration,
        but: &[UserId],
    ) -> Result<Option<Lease>, JournalError> {
        self.0.claim(worker, lease, but).await
    }

    async fn renew(&self, leases: &[Lease], by: Duration) -> Result<Vec<LogId>, JournalError> {
        let lost = self.0.renew(leases, by).await?;
        for log in &lost {
            fenced(log, &Err::<(), _>(JournalError::Fenced(log.clone())));
        }
        Ok(lost)
    }

    async fn release(&self, lease: &Lease, rest: &ReleaseInfo) -> Result<(), JournalError> {
        self.0.release(lease, rest).await
    }

    async fn park(&self, lease: &Lease, why: &RunError) -> Result<(), JournalError> {
        self.0.park(lease, why).await
    }
    async fn inbox(&self, log: &LogId) -> Result<Vec<(InputId, Input)>, JournalError> {
        self.0.inbox(log).await
    }

    async fn verdict(&self, log: &LogId, id: &InputId) -> Result<Option<Verdict>, JournalError> {
        self.0.verdict(log, id).await
    }

    async fn append(&self, lease: &Lease, batch: &Batch) -> Result<(), JournalError> {
        let answer = self.0.append(lease, batch).await;
        fenced(&lease.log, &answer);
        if answer.is_ok() {
            let records = told(&batch.records);
            process::tell(&Told::Stored { log: lease.log.clone(), records });
        }
        answer
    }

    async fn load(&self, log: &LogId, at: Option<Number>) -> Result<History, JournalError> {
        self.0.load(log, at).await
    }

    async fn read(&self, log: &LogId, from: Number, limit: usize) -> Result<History, JournalError> {
        self.0.read(log, from, limit).await
    }

    async fn put_blob(&self, bytes: &[u8]) -> Result<BlobId, JournalError> {
        self.0.put_blob(bytes).await
    }

    async fn get_blob(&self, id: &BlobId) -> Result<Option<Vec<u8>>, JournalError> {
        self.0.get_blob(id).await
    }
}
