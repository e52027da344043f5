//! One server without a socket: a store in a temporary folder, two users, a scripted model
//! (`mock/any`), one that answers when the test says so (`gate/any`), and a tool that does
//! (`pay`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, header};
use exile_engine::bundle::Catalog;
use exile_engine::library::Library;
use exile_engine::model::{
    Aliases, Delta, DeltaSender, Finish, ModelAlias, ModelRef, ModelReply, ModelRequest, Models,
    Provider, ProviderError, ProviderFault,
};
use exile_engine::span::NoTrace;
use exile_engine::tool::ToolRegistry;
use exile_nodes::providers::mock::{Mock, Script};
use exile_server::config::home::Home;
use exile_server::config::{
    self, Config, Environment, Flags, Limits, Places, Surroundings, TransportLimits, Variables,
};
use exile_server::http::app::{App, Settings};
use exile_server::library::Current;
use exile_server::process::compose;
use exile_server::process::router;
use exile_server::store::{Role, Store};
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::clock::Clock;
use super::hollow::Hollow;
use super::refusals::Picky;
use super::tools::{Paid, Tools};

const CHAT: &str = "
graph: chat
mode: linear
input: [messages]
output: [messages]
state: { messages: { reduce: messages } }
nodes: { answer: { kind: agent, tools: [] } }
order: [answer]
";
const ADD: &str = "
graph: add
description: Adds up what it is given.
input: [n]
output: [total]
state:
  n: { type: number, default: 0, scope: run }
  total: { reduce: sum }
nodes: { add: { kind: set, set: { total: n } } }
edges: [{ from: START, to: add }, { from: add, to: END }]
";
const BROKEN: &str = "
graph: broken
nodes: { a: { kind: nothing } }
edges: [{ from: START, to: a }]
";
const SKILL: &str = "
skill: pirate
description: Talks like one.
system: Talk like a pirate.
";

/// A server and two people who use it.
pub(super) struct Exile {
    pub(super) app: Arc<App>,
    pub(super) router: Router,
    /// The administrator's key.
    pub(super) admin: String,
    /// A user's key.
    pub(super) alice: String,
    /// Another user's key.
    pub(super) bob: String,
    /// Lets `gate/any` and `pay` answer.
    pub(super) gate: Arc<Semaphore>,
    /// The keys under which `pay` was called.
    pub(super) paid: Paid,
    /// What the server takes for the time.
    pub(super) clock: Arc<Clock>,
    serving: Arc<JoinHandle<()>>,
    stop: CancellationToken,
    home: Arc<TempDir>,
}

impl Exile {
    pub(super) async fn start() -> Self {
        Self::in_environment(Environment::Development).await
    }

    pub(super) async fn in_environment(environment: Environment) -> Self {
        let home = tempfile::tempdir().unwrap();
        write_graphs(&home);
        Self::in_home(home, environment, Limits::default()).await
    }

    /// With other bounds of bodies and connections.
    pub(super) async fn limited(transport: TransportLimits) -> Self {
        let home = tempfile::tempdir().unwrap();
        write_graphs(&home);
        let limits = Limits { transport, ..Limits::default() };
        Self::in_home(home, Environment::Development, limits).await
    }

    /// With more graphs, by file name.
    pub(super) async fn serving(graphs: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        write_graphs(&home);
        for (name, text) in graphs {
            std::fs::write(home.path().join(format!("graphs/{name}.yaml")), text).unwrap();
        }
        Self::in_home(home, Environment::Development, Limits::default()).await
    }

    async fn in_home(home: TempDir, environment: Environment, limits: Limits) -> Self {
        let (gate, paid) = (Arc::new(Semaphore::new(0)), Paid::default());
        let (stop, home) = (CancellationToken::new(), Arc::new(home));
        let clock = Arc::new(Clock::default());
        let catalog = catalog(gate.clone(), paid.clone());
        let (app, serving) = serve(&home, catalog, environment, limits, &clock, &stop).await;
        let [admin, alice, bob] = [
            key(&app.store, "admin", Role::Admin).await,
            key(&app.store, "alice", Role::User).await,
            key(&app.store, "bob", Role::User).await,
        ];
        let router = router::router(app.clone());
        Self { app, router, admin, alice, bob, gate, paid, clock, serving, stop, home }
    }

    /// The next process: what this one was doing ends in the middle, and the file is opened again.
    pub(super) async fn after_death(self) -> Self {
        self.serving.abort();
        self.next_process().await
    }

    /// The next process opens the file although this one is not quite gone.
    pub(super) async fn next_process(&self) -> Self {
        let (environment, catalog) = (self.app.settings.environment, self.app.catalog.clone());
        let stop = CancellationToken::new();
        let (clock, limits) = (self.clock.clone(), self.app.settings.limits.clone());
        let (app, serving) = serve(&self.home, catalog, environment, limits, &clock, &stop).await;
        let router = router::router(app.clone());
        let [admin, alice, bob] = [&self.admin, &self.alice, &self.bob].map(Clone::clone);
        let (gate, paid, home) = (self.gate.clone(), self.paid.clone(), self.home.clone());
        Self { app, router, admin, alice, bob, gate, paid, clock, serving, stop, home }
    }

    /// The same rows, served by another process with another text of a graph.
    pub(super) fn with_graph(&self, name: &str, text: &str) -> Self {
        std::fs::write(self.home.path().join(format!("graphs/{name}.yaml")), text).unwrap();
        let catalog = self.app.catalog.clone();
        let library = Current::new(Library::load(&self.home.path().join("graphs"), &catalog));
        let mut app = App::clone(&self.app);
        (app.library, app.catalog) = (library, catalog);
        self.around(Arc::new(app))
    }

    /// The same server, which admits something else.
    pub(super) fn with_limits(&self, change: impl FnOnce(&mut Limits)) -> Self {
        let mut app = App::clone(&self.app);
        change(&mut app.settings.limits);
        self.around(Arc::new(app))
    }

    /// The same server, configured otherwise.
    pub(super) fn with_settings(&self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut app = App::clone(&self.app);
        change(&mut app.settings);
        self.around(Arc::new(app))
    }

    fn around(&self, app: Arc<App>) -> Self {
        let router = router::router(app.clone());
        let [admin, alice, bob] = [&self.admin, &self.alice, &self.bob].map(Clone::clone);
        let (gate, paid, home) = (self.gate.clone(), self.paid.clone(), self.home.clone());
        let (clock, serving, stop) = (self.clock.clone(), self.serving.clone(), self.stop.clone());
        Self { app, router, admin, alice, bob, gate, paid, clock, serving, stop, home }
    }

    /// The key of another user.
    pub(super) async fn user(&self, name: &str, role: Role) -> String {
        key(&self.app.store, name, role).await
    }

    /// Sends a request of Alice's.
    pub(super) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_as(&self.alice, method, path, body).await
    }

    /// Sends a request with a key.
    pub(super) async fn call_as(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {key}"));
        self.send(with_json(request, body)).await
    }

    /// Presses the button of the page that a sign-in link leads to.
    pub(super) async fn sign_in(&self, token: &str) -> Answer {
        let request = Request::builder().method("POST").uri("/sign-in");
        self.send(request.body(Body::from(format!("token={token}"))).unwrap()).await
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    /// A new conversation of Alice's with a model, and its path.
    pub(super) async fn conversation(&self, model: &str) -> String {
        let body = json!({ "model": model });
        let created = self.call("POST", "/api/conversations", Some(body)).await;
        assert_eq!(created.status, 201, "{}", created.text);
        created.header("location").to_owned()
    }

    /// A new conversation of whoever has the key, and its path.
    pub(super) async fn conversation_of(&self, key: &str, body: Value) -> String {
        let created = self.call_as(key, "POST", "/api/conversations", Some(body)).await;
        assert_eq!(created.status, 201, "{}", created.text);
        created.header("location").to_owned()
    }

    /// A run of Alice's that waits at the gate, and its path.
    pub(super) async fn waiting_run(&self) -> String {
        let body = json!({ "graph": "chat", "model": "gate/any", "input": { "messages": "hi" } });
        let accepted = self.call("POST", "/api/runs", Some(body)).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text);
        accepted.header("location").to_owned()
    }

    /// Runs a graph of Alice's until it ends or waits: the whole answer of `/api/runs/wait`.
    pub(super) async fn run(&self, graph: &str, input: Value) -> Value {
        let body = json!({ "graph": graph, "input": input });
        let answer = self.call("POST", "/api/runs/wait", Some(body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// A run of Alice's by its path, and its output.
    pub(super) async fn read(&self, path: &str) -> (Value, Value) {
        let mut run = self.call("GET", path, None).await.json();
        let output = run.as_object_mut().unwrap().remove("output").unwrap_or_default();
        (run, output)
    }

    /// Reads a stream of Alice's to its end.
    pub(super) async fn watch(&self, path: &str) -> Vec<Sent> {
        let answer = self.call("GET", path, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.events()
    }

    /// What a query that counts comes to.
    pub(super) async fn rows(&self, query: &'static str) -> i64 {
        let options = exile_server::store::options(&self.database());
        let mut connection = options.connect().await.unwrap();
        sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
    }

    /// Changes rows behind the server's back.
    pub(super) async fn change(&self, statement: &str) {
        let options = exile_server::store::options(&self.database());
        let mut connection = options.connect().await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    }

    pub(super) fn database(&self) -> std::path::PathBuf {
        self.home.path().join("exile.db")
    }
}

impl Drop for Exile {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) data: Value,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The body of a problem without its trace id, which differs between any two requests.
    pub(super) fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        let mut problem = self.json();
        let trace = problem.as_object_mut().unwrap().remove("trace_id");
        assert_eq!(trace.and_then(|t| t.as_str().map(str::len)), Some(32));
        assert_eq!(problem["status"], self.status);
        for member in ["type", "title", "code", "detail", "remedy"] {
            assert!(problem[member].as_str().is_some_and(|t| !t.is_empty()), "{member}: {problem}");
        }
        problem
    }

    /// The code of a problem, or of an error as OpenAI writes it.
    pub(super) fn code(&self) -> String {
        if self.header("content-type") == "application/json" {
            return self.json()["error"]["code"].as_str().unwrap().to_owned();
        }
        self.problem()["code"].as_str().unwrap().to_owned()
    }

    /// The code, if the answer is no good one.
    pub(super) fn code_if_any(&self) -> Option<String> {
        (self.status >= 400).then(|| self.code())
    }

    /// The stream's events, comments left out.
    pub(super) fn events(&self) -> Vec<Sent> {
        let field = |block: &str, name: &str| {
            let mut lines = block.lines();
            lines.find_map(|l| l.strip_prefix(name)).map(|v| v.trim_start().to_owned())
        };
        let event = |block: &str| {
            Some(Sent {
                id: field(block, "id:")?.parse().unwrap(),
                name: field(block, "event:")?,
                data: serde_json::from_str(&field(block, "data:")?).unwrap(),
            })
        };
        self.text.split("\n\n").filter_map(event).collect()
    }
}

pub(super) fn with_json(
    request: axum::http::request::Builder,
    body: Option<Value>,
) -> Request<Body> {
    match body {
        None => request.body(Body::empty()).unwrap(),
        Some(body) => request
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap(),
    }
}

/// Opens the file and begins to run what is due.
/// The server of a home, put together as every server is, but with other models and tools and the
/// clock of the test.
async fn serve(
    home: &TempDir,
    catalog: Catalog,
    environment: Environment,
    limits: Limits,
    clock: &Arc<Clock>,
    stop: &CancellationToken,
) -> (Arc<App>, Arc<JoinHandle<()>>) {
    let (flags, variables) = (Flags::default(), Variables::default());
    let folder = home.path().to_owned();
    let config = config::load(&Surroundings { flags, variables, folder }).unwrap();
    let graphs = Some(home.path().join("graphs"));
    let places = Places { graphs, ..config.places.clone() };
    let config = Config { environment, limits, places, ..config };
    let (home, trace, env) = (Home::at(home.path()).unwrap(), Arc::new(NoTrace), clock.clone());
    let url = String::from("http://127.0.0.1:8080");
    let app = compose::assemble(&config, &home, catalog, (trace, env), url).await.unwrap();
    let engine = app.engine.clone();
    let serving = tokio::spawn(engine.serve(stop.clone(), Duration::ZERO));
    (Arc::new(app), Arc::new(serving))
}

async fn key(store: &Store, name: &str, role: Role) -> String {
    let user = store.create_user(name, role).await.unwrap();
    store.create_key(&user.id, "test", &[], None).await.unwrap().1
}

fn write_graphs(home: &TempDir) {
    let folder = home.path().join("graphs");
    std::fs::create_dir_all(folder.join("skills")).unwrap();
    for (name, text) in [("chat", CHAT), ("add", ADD), ("broken", BROKEN), ("skills/pirate", SKILL)]
    {
        std::fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
    }
}

fn catalog(gate: Arc<Semaphore>, paid: Paid) -> Catalog {
    let script = json!([
        { "match": "no key", "fail": { "status": 401, "message": "wrong key" } },
        { "match": "too fast", "fail": { "status": 429, "message": "slow down" } },
        { "match": "silence", "fail": { "kind": "timeout" } },
        { "match": "half", "reply": "so f", "fail": { "kind": "truncated" } },
        { "match": "*", "reply": "you said: {{ last }}", "chunk": 4 },
    ]);
    let script: Script = serde_json::from_value(script).unwrap();
    let providers: Vec<Arc<dyn Provider>> = vec![
        Arc::new(Mock::new(script)),
        Arc::new(Gate(gate.clone())),
        Arc::new(Keyless),
        Arc::new(Hollow),
        Arc::new(Picky),
    ];
    let alias = |model: &str| ModelAlias {
        model: ModelRef::parse(model).unwrap(),
        business: std::iter::once(("closed".to_owned(), ModelRef::parse("keyless/any").unwrap()))
            .collect(),
        ..ModelAlias::from(ModelRef::parse(model).unwrap())
    };
    let aliases: Aliases = std::iter::once(("default".to_owned(), alias("mock/any"))).collect();
    Catalog {
        kinds: exile_nodes::kinds::all(),
        tools: Arc::new(ToolRegistry::new(&[&Tools { gate, paid }]).unwrap()),
        models: Arc::new(Models::new(providers, aliases)),
        limits: Arc::default(),
    }
}

/// Answers "through" once the test opens the gate; `gate/short` has no room for more.
struct Gate(Arc<Semaphore>);

/// Has no key.
struct Keyless;

#[async_trait]
impl Provider for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn ready(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn complete(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        self.0.acquire().await.unwrap().forget();
        let short = &*request.model == "short";
        Ok(ModelReply {
            content: "through".into(),
            reasoning: None,
            tool_calls: Vec::new(),
            finish: if short { Finish::Length } else { Finish::Stop },
            usage: None,
            model: request.model.to_string(),
            id: None,
            opaque: None,
        })
    }

    async fn stream(
        &self,
        request: &ModelRequest,
        deltas: &DeltaSender,
    ) -> Result<ModelReply, ProviderError> {
        let reply = self.complete(request).await?;
        deltas.send(Delta::Text(reply.content.clone())).await.unwrap();
        Ok(reply)
    }
}

#[async_trait]
impl Provider for Keyless {
    fn name(&self) -> &'static str {
        "keyless"
    }

    fn ready(&self) -> Result<(), ProviderError> {
        let fault = ProviderFault::KeyMissing { variable: "KEYLESS_API_KEY".into() };
        Err(ProviderError { provider: "keyless".into(), model: "any".into(), fault })
    }

    async fn complete(&self, _: &ModelRequest) -> Result<ModelReply, ProviderError> {
        self.ready().map(|()| unreachable!("it has no key"))
    }

    async fn stream(
        &self,
        request: &ModelRequest,
        _: &DeltaSender,
    ) -> Result<ModelReply, ProviderError> {
        self.complete(request).await
    }
}
