//! A home as `serve` opens it, an engine that drives its runs, and the runs that are measured.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use exile_engine::bundle::{Bundle, Catalog, Program, Source};
use exile_engine::env::{Env, SystemEnv};
use exile_engine::id::{ConversationId, InputId, LogId, RunId, UserId};
use exile_engine::journal::{IfActive, StartRun};
use exile_engine::model::{Aliases, ModelAlias, ModelRef, Models, Provider};
use exile_engine::run::context::Services;
use exile_engine::run::engine::{Engine, Stopped};
use exile_engine::run::live;
use exile_engine::run::record::{Durability, EndStatus, RunOptions};
use exile_engine::span::NoTrace;
use exile_engine::tool::ToolRegistry;
use exile_nodes::providers::mock::{Mock, Script};
use exile_server::config::home::{HeldHome, Home};
use exile_server::runs::input;
use exile_server::store::{NewConversation, Store};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Counts: one step for each number, a small state, no calls.
const COUNT: &str = "
graph: count
limits: { steps: 4000000000, timeout: 24h }
state:
  n: { type: integer, default: 0, scope: run }
  until: { type: integer, default: 0, scope: run }
nodes: { count: { kind: set, set: { n: n + 1 } } }
edges:
  - { from: START, to: count }
  - { from: count, to: count, when: n < until }
  - { from: count, to: END, otherwise: true }
";

/// Answers: one step for each turn, one call of a model.
const CHAT: &str = "
graph: chat
mode: linear
state: { messages: { reduce: messages } }
nodes: { answer: { kind: llm } }
order: [answer]
";

/// Characters of a user's message, and of an answer.
const SAID: usize = 400;
/// What the mock puts before every answer.
const MARK: &str = "[mock] ";

/// What one process holds of a home.
pub struct World {
    pub store: Store,
    pub env: Arc<dyn Env>,
    engine: Arc<Engine>,
    count: Pinned,
    chat: Pinned,
    held: HeldHome,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

/// A graph and the bytes of what its runs are pinned to.
struct Pinned {
    program: Arc<Program>,
    bytes: Vec<u8>,
}

/// A folder on the disk that is built on, since `/tmp` may be memory.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

impl World {
    pub async fn open(folder: &Path) -> Self {
        let env: Arc<dyn Env> = Arc::new(SystemEnv::new());
        let held = Home::at(&folder.join("home")).unwrap().hold().unwrap().unwrap();
        let store = Store::open(&held.home().database(), env.clone()).await.unwrap();
        let catalog = catalog();
        let services = Arc::new(Services {
            env: env.clone(),
            models: catalog.models.clone(),
            tools: catalog.tools.clone(),
            trace: Arc::new(NoTrace),
            observer: Arc::new(exile_engine::observer::Unobserved),
        });
        let journal = Arc::new(store.clone());
        let engine = Engine::new(journal, live::memory(), services, catalog.clone());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(engine.clone().serve(stop.clone(), Duration::ZERO));
        let [count, chat] = [COUNT, CHAT].map(|text| Pinned::of(text, &catalog));
        Self { store, env, engine, count, chat, held, stop, serving }
    }

    /// One run of that many steps, on a log of its own.
    pub async fn count(&self, steps: u64) -> LogId {
        let log = LogId::from(&RunId::new(&*self.env));
        self.run(&self.count, &log, None, json!({ "until": steps })).await;
        log
    }

    /// A conversation of that many turns.
    pub async fn conversation(&self, turns: usize) -> ConversationId {
        let new = NewConversation {
            owner: owner(),
            title: None,
            graph: "chat".into(),
            skill: None,
            model: None,
            provider: None,
            business: None,
            system_prompt: None,
        };
        let conversation = self.store.create_conversation(new).await.unwrap().id;
        for _ in 0..turns {
            self.turn(&conversation).await;
        }
        conversation
    }

    /// A message of a user, and its answer.
    pub async fn turn(&self, conversation: &ConversationId) {
        let log = LogId::from(conversation);
        let said = json!({ "messages": "q".repeat(SAID) });
        self.run(&self.chat, &log, Some(conversation.clone()), said).await;
    }

    /// What the log of a conversation has come to.
    pub async fn state(&self, log: &LogId) -> Map<String, Value> {
        self.engine.state(log).await.unwrap()
    }

    async fn run(
        &self,
        graph: &Pinned,
        log: &LogId,
        conversation: Option<ConversationId>,
        given: Value,
    ) {
        let Value::Object(given) = given else { panic!("an input is an object") };
        let run = RunId::new(&*self.env);
        let start = StartRun {
            run: run.clone(),
            graph: graph.program.graph.name.clone(),
            bundle: self.engine.pin(graph.program.clone(), &graph.bytes).await.unwrap(),
            owner: owner(),
            conversation,
            options: RunOptions::default(),
            input: input::check(&graph.program.graph, given, &*self.env).unwrap(),
            traceparent: None,
            if_active: IfActive::Enqueue,
            durability: Some(Durability::Sync),
        };
        let id = InputId::from(format!("start_{run}"));
        self.engine.start(log, &id, start).await.unwrap();
        let stopped = self.engine.wait(&run).await.unwrap();
        let finished =
            matches!(&stopped, Stopped::Ended(ended) if ended.status == EndStatus::Finished);
        assert!(finished, "{stopped:?}");
    }

    /// Ends as a server does: what is in the log of writes moves into the file.
    pub async fn close(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
        self.store.close().await.unwrap();
        drop(self.held);
    }
}

impl Pinned {
    fn of(text: &str, catalog: &Catalog) -> Self {
        let graph = Source { path: "bench.yaml".into(), text: text.into() };
        let aliases = catalog.models.aliases().clone();
        let bundle = Bundle { graph, graphs: BTreeMap::new(), skills: BTreeMap::new(), aliases };
        let bytes = bundle.to_bytes();
        Self { program: Arc::new(bundle.compile(catalog).unwrap()), bytes }
    }
}

fn catalog() -> Catalog {
    let reply = "a".repeat(SAID - MARK.len());
    let script = json!([{ "match": "*", "reply": reply }]);
    let script: Script = serde_json::from_value(script).unwrap();
    let providers: Vec<Arc<dyn Provider>> = vec![Arc::new(Mock::new(script))];
    let model = ModelRef::parse("mock/any").unwrap();
    let alias = ModelAlias::from(model);
    let aliases = Aliases::from([("default".to_owned(), alias)]);
    Catalog {
        kinds: exile_nodes::kinds::all(),
        tools: Arc::new(ToolRegistry::default()),
        models: Arc::new(Models::new(providers, aliases)),
        limits: Arc::default(),
    }
}

fn owner() -> UserId {
    UserId::from("user_bench")
}
