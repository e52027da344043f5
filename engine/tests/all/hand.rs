//! Graphs made by hand, for tests and benches of running that need no YAML.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::bundle::{Catalog, Program};
use exile_engine::env::{Env, StepEnv};
use exile_engine::expr::{Expression, Scope};
use exile_engine::graph::{
    Branch, Graph, GraphNode, Guard, Join, Line, Names, Needs, Policy, Schedule, Slot, Target,
};
use exile_engine::id::{InputId, LogId, RunId, UserId};
use exile_engine::journal::{BlobId, IfActive, Journal, MemoryJournal, StartRun};
use exile_engine::limits::Limits;
use exile_engine::model::{Aliases, Models};
use exile_engine::node::{
    Done, ForEach, Node, NodeError, NodeKinds, Outcome, PureNode, Subgraph, Work,
};
use exile_engine::run::context::{Cx, Services};
use exile_engine::run::engine::{Engine, Stopped};
use exile_engine::run::live::{self, Live};
use exile_engine::run::record::{Durability, Ended, RunOptions};
use exile_engine::span::NoTrace;
use exile_engine::state::{Channel, ChannelType, Channels, Reducer, State, Writes};
use exile_engine::tool::ToolRegistry;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

/// From the state to writes.
pub type Deed = dyn Fn(&State) -> Result<Writes, NodeError> + Send + Sync;

/// A node that does what a function says.
pub struct Does(pub Box<Deed>);

impl std::fmt::Debug for Does {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Does")
    }
}

#[async_trait]
impl Node for Does {
    async fn run(&self, _: &Cx, state: &State) -> Result<Outcome, NodeError> {
        Ok(Outcome::writes((self.0)(state)?))
    }
}

impl PureNode for Does {
    fn compute(&self, state: &State, _: &Scope) -> Result<Done, NodeError> {
        Ok(Done { writes: (self.0)(state)?, goto: None })
    }
}

/// Writes these values, as a node that reaches nothing.
pub fn writes(values: &[(&str, Value)]) -> Work {
    let writes: Writes = values.iter().map(|(k, v)| ((*k).into(), v.clone().into())).collect();
    Work::Pure(Arc::new(Does(Box::new(move |_| Ok(writes.clone())))))
}

/// Any node.
pub fn leaf(node: impl Node + 'static) -> Work {
    Work::Leaf(Arc::new(node))
}

/// A graph inside a node, with inner channels that start as the outer ones of the same name and
/// end as them.
#[derive(Debug)]
pub struct Inner(pub Arc<Graph>);

impl Subgraph for Inner {
    fn graph(&self) -> &Arc<Graph> {
        &self.0
    }

    fn enter(&self, outer: &State, _: &Scope, _: &str) -> Result<Writes, NodeError> {
        let value = |c: &Channel| outer.get(&c.name).map(|v| (c.name.clone(), v.clone()));
        Ok(self.0.channels.iter().filter_map(value).collect())
    }

    fn exit(&self, before: &State, inner: &State) -> Result<Done, NodeError> {
        let changed = inner.iter().filter(|(name, value)| before.get(name) != Some(value));
        let writes = changed.map(|(name, value)| (name.clone(), value.clone()));
        Ok(Done { writes: writes.collect(), goto: None })
    }
}

/// A node once for each of so many items, which begin with `item`, their number from 0, and may
/// write `result`; the numbers of those that wrote one become an `append` to `log`.
#[derive(Debug)]
#[allow(dead_code, reason = "the benches share this file")]
pub struct Each {
    graph: Arc<Graph>,
    items: usize,
    concurrency: usize,
}

#[allow(dead_code, reason = "the benches share this file")]
impl Each {
    pub fn new(items: usize, concurrency: usize, node: Work) -> Self {
        let channel = |hand: Hand, name| hand.channel(name, Reducer::Replace, Value::Null);
        let hand = channel(channel(Hand::default(), "result"), "item");
        let hand = hand.channel("n", Reducer::Sum, Value::from(0));
        let hand = hand.channel("log", Reducer::Append, Value::Array(Vec::new()));
        let graph = hand.node("item", node).edge("START", "item").graph();
        Self { graph: Arc::new(graph), items, concurrency }
    }

    pub fn work(self) -> Work {
        Work::Each(Arc::new(self))
    }
}

impl ForEach for Each {
    fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    fn enter(&self, _: &State, _: &Scope) -> Result<Vec<Writes>, NodeError> {
        let item = |n: usize| std::iter::once(("item".into(), n.into())).collect();
        Ok((0..self.items).map(item).collect())
    }

    fn exit(&self, items: Vec<Result<Writes, NodeError>>) -> Result<Done, NodeError> {
        let mut log = Vec::new();
        for item in items {
            log.extend(item?.get("result").map(|value| value.to_json().into_owned()));
        }
        let writes = std::iter::once(("log".into(), log.into())).collect();
        Ok(Done { writes, goto: None })
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }
}

/// Collects a graph's parts by name.
#[derive(Default)]
pub struct Hand {
    channels: Vec<Channel>,
    nodes: Vec<(String, Work)>,
    policies: Vec<(String, Policy)>,
    edges: Vec<(String, Guard, String)>,
    joins: Vec<(Vec<String>, String, Needs)>,
    pub schedule: Schedule,
    pub durability: Durability,
    pub limits: exile_engine::graph::Limits,
}

impl Hand {
    pub fn channel(mut self, name: &str, reduce: Reducer, initial: Value) -> Self {
        self.channels.push(Channel {
            name: name.into(),
            kind: ChannelType::Any,
            reduce,
            initial: Arc::new(initial),
            scope: exile_engine::state::Scope::Log,
        });
        self
    }

    pub fn node(mut self, name: &str, work: Work) -> Self {
        self.nodes.push((name.into(), work));
        self
    }

    /// What happens around a node's work.
    #[allow(dead_code, reason = "the benches share this file")]
    pub fn policy(mut self, name: &str, policy: Policy) -> Self {
        self.policies.push((name.into(), policy));
        self
    }

    /// Where a node of that name will stand, for policies that lead there.
    #[allow(dead_code, reason = "the benches share this file")]
    pub fn place(&self, name: &str) -> usize {
        self.nodes.iter().position(|(n, _)| n == name).unwrap()
    }

    pub fn edge(mut self, from: &str, to: &str) -> Self {
        self.edges.push((from.into(), Guard::Always, to.into()));
        self
    }

    pub fn when(mut self, from: &str, condition: &str, to: &str) -> Self {
        let condition = Expression::compile(condition).unwrap();
        self.edges.push((from.into(), Guard::When(condition), to.into()));
        self
    }

    pub fn otherwise(mut self, from: &str, to: &str) -> Self {
        self.edges.push((from.into(), Guard::Otherwise, to.into()));
        self
    }

    pub fn join(self, from: &[&str], to: &str) -> Self {
        self.join_of(from, to, Needs::All)
    }

    pub fn join_of(mut self, from: &[&str], to: &str, needs: Needs) -> Self {
        self.joins.push((from.iter().map(ToString::to_string).collect(), to.into(), needs));
        self
    }

    /// Each task is a step of its own.
    #[allow(dead_code, reason = "the benches share this file")]
    pub fn flowing(mut self) -> Self {
        self.schedule = Schedule::Dataflow;
        self
    }

    pub fn graph(self) -> Graph {
        let at = |name: &str| self.nodes.iter().position(|(n, _)| n == name);
        let target = |to: &str| at(to).map_or(Target::End, Target::Node);
        // `alive`: everything that can reach the slot's source over plain edges and other joins.
        let mut arcs: Vec<(usize, usize, Option<usize>)> = Vec::new();
        for (from, _, to) in &self.edges {
            if let (Some(from), Some(to)) = (at(from), at(to)) {
                arcs.push((from, to, None));
            }
        }
        for (j, (from, to, _)) in self.joins.iter().enumerate() {
            arcs.extend(from.iter().map(|f| (at(f).unwrap(), at(to).unwrap(), Some(j))));
        }
        let alive = |source: usize, join: usize| {
            let mut alive = vec![false; self.nodes.len()];
            alive[source] = true;
            loop {
                let more =
                    arcs.iter().find(|(a, b, j)| alive[*b] && !alive[*a] && *j != Some(join));
                let Some((a, ..)) = more else { return alive };
                alive[*a] = true;
            }
        };
        let joins: Vec<Join> = (0..)
            .zip(&self.joins)
            .map(|(j, (from, to, needs))| Join {
                target: at(to).unwrap(),
                needs: *needs,
                slots: from
                    .iter()
                    .map(|f| Slot { from: at(f).unwrap(), alive: alive(at(f).unwrap(), j) })
                    .collect(),
            })
            .collect();
        let mut lines: BTreeMap<String, Vec<Line>> = BTreeMap::new();
        for (j, (from, ..)) in self.joins.iter().enumerate() {
            for (slot, from) in from.iter().enumerate() {
                let to = Target::Slot { join: j, slot };
                lines.entry(from.clone()).or_default().push(Line { guard: Guard::Always, to });
            }
        }
        let targets: Vec<Target> = self.edges.iter().map(|(_, _, to)| target(to)).collect();
        for ((from, guard, _), to) in self.edges.into_iter().zip(targets) {
            lines.entry(from).or_default().push(Line { guard, to });
        }
        let start = lines.remove("START").unwrap_or_default();
        let nodes = self.nodes.into_iter().map(|(name, work)| GraphNode {
            lines: lines.remove(&name).unwrap_or_default(),
            name: name.into(),
            kind: "test",
            work,
            branch: Branch::First,
            policy: Policy::default(),
        });
        let mut nodes: Vec<GraphNode> = nodes.collect();
        for (name, policy) in self.policies {
            nodes.iter_mut().find(|node| *node.name == *name).unwrap().policy = policy;
        }
        let channels = Channels::new(self.channels);
        let output = channels.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        Graph {
            name: "hand".into(),
            nodes,
            channels: Arc::new(channels),
            start,
            start_branch: Branch::First,
            joins,
            schedule: self.schedule,
            durability: self.durability,
            limits: self.limits,
            input: output.clone(),
            output,
            shown: true,
            names: Names::default(),
        }
    }
}

/// What an engine has besides its journal and its clock.
pub struct Around {
    pub models: Models,
    pub tools: Arc<ToolRegistry>,
    pub limits: Limits,
    pub live: Arc<dyn Live>,
    pub lease: Duration,
}

impl Default for Around {
    fn default() -> Self {
        Self {
            models: Models::default(),
            tools: Arc::default(),
            limits: Limits::default(),
            live: live::memory(),
            lease: Duration::from_secs(15),
        }
    }
}

/// An engine over one hand-made graph.
pub struct Bench {
    pub engine: Arc<Engine>,
    pub journal: Arc<dyn Journal>,
    pub bundle: BlobId,
    /// What is pinned.
    #[allow(dead_code, reason = "the benches share this file")]
    pub graph: Arc<Graph>,
    aliases: Aliases,
    stop: CancellationToken,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Bench {
    /// Ends the engine in good order.
    #[allow(dead_code, reason = "the benches share this file")]
    pub async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(serving) = self.serving.take() {
            serving.await.unwrap();
        }
    }

    /// Starts an engine that drives runs of `graph` over `journal`.
    pub async fn over(
        journal: Arc<dyn Journal>,
        env: Arc<dyn Env>,
        graph: impl Into<Arc<Graph>>,
        models: Models,
    ) -> Self {
        let tools = Arc::new(ToolRegistry::default());
        Self::with(journal, env, graph, models, tools).await
    }

    pub async fn with(
        journal: Arc<dyn Journal>,
        env: Arc<dyn Env>,
        graph: impl Into<Arc<Graph>>,
        models: Models,
        tools: Arc<ToolRegistry>,
    ) -> Self {
        let around = Around { models, tools, ..Around::default() };
        Self::whole(journal, env, graph, around).await
    }

    /// In memory, with the stepping clock and these limits.
    #[allow(dead_code, reason = "the benches share this file")]
    pub async fn limited(graph: impl Into<Arc<Graph>>, limits: Limits) -> Self {
        let env: Arc<dyn Env> = Arc::new(StepEnv::new());
        let journal = Arc::new(MemoryJournal::new(env.clone()));
        Self::whole(journal, env, graph, Around { limits, ..Around::default() }).await
    }

    /// With leases of that length.
    #[allow(dead_code, reason = "the benches share this file")]
    pub async fn leasing(
        journal: Arc<dyn Journal>,
        env: Arc<dyn Env>,
        graph: impl Into<Arc<Graph>>,
        lease: Duration,
    ) -> Self {
        Self::whole(journal, env, graph, Around { lease, ..Around::default() }).await
    }

    pub async fn whole(
        journal: Arc<dyn Journal>,
        env: Arc<dyn Env>,
        graph: impl Into<Arc<Graph>>,
        around: Around,
    ) -> Self {
        let Around { models, tools, limits, live, lease } = around;
        let aliases = models.aliases().clone();
        let models = Arc::new(models);
        let services = Arc::new(Services {
            env: env.clone(),
            models: models.clone(),
            tools: tools.clone(),
            trace: Arc::new(NoTrace),
            observer: Arc::new(exile_engine::observer::Unobserved),
        });
        let catalog =
            Catalog { kinds: NodeKinds::default(), tools, models, limits: Arc::new(limits) };
        let engine = Engine::with_lease(journal.clone(), live, services, catalog, lease);
        let stop = CancellationToken::new();
        let serving = tokio::spawn(engine.clone().serve(stop.clone(), Duration::ZERO));
        let serving = Some(serving);
        let (bundle, graph) = (BlobId::of(b""), graph.into());
        let mut bench =
            Self { engine, journal, bundle, graph: graph.clone(), aliases, stop, serving };
        bench.use_graph(graph, b"hand").await;
        bench
    }

    /// Pins a graph under the address of `bytes`: runs that start from now on run it.
    pub async fn use_graph(&mut self, graph: impl Into<Arc<Graph>>, bytes: &[u8]) {
        self.graph = graph.into();
        let program = Program {
            id: BlobId::of(bytes),
            graph: self.graph.clone(),
            skills: BTreeMap::new(),
            aliases: self.aliases.clone(),
        };
        self.bundle = self.engine.pin(Arc::new(program), bytes).await.unwrap();
    }

    /// In memory, with the stepping clock.
    pub async fn new(graph: impl Into<Arc<Graph>>) -> Self {
        let env: Arc<dyn Env> = Arc::new(StepEnv::new());
        let journal = Arc::new(MemoryJournal::new(env.clone()));
        Self::over(journal, env, graph, Models::default()).await
    }

    pub async fn start(&self, log: &LogId, run: &RunId, input: Map<String, Value>) {
        self.start_as(log, run, input, IfActive::Enqueue).await;
    }

    /// A run of the graph, to be started.
    pub fn run(&self, run: &RunId, input: Map<String, Value>) -> StartRun {
        StartRun {
            run: run.clone(),
            graph: "hand".into(),
            bundle: self.bundle.clone(),
            owner: UserId::from("user_1"),
            conversation: None,
            options: RunOptions::default(),
            input,
            traceparent: None,
            if_active: IfActive::Enqueue,
            durability: None,
        }
    }

    /// `if_active`: what becomes of a run of the log that goes on.
    pub async fn start_as(
        &self,
        log: &LogId,
        run: &RunId,
        input: Map<String, Value>,
        if_active: IfActive,
    ) {
        let start = StartRun { if_active, ..self.run(run, input) };
        let id = InputId::from(format!("start_{run}"));
        self.engine.start(log, &id, start).await.unwrap();
    }

    /// Waits for a run that does not wait for anybody.
    #[allow(dead_code, clippy::panic, reason = "the benches share this file")]
    pub async fn ended(&self, run: &RunId) -> Ended {
        match self.engine.wait(run).await.unwrap() {
            Stopped::Ended(ended) => ended,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A journal that is another one but for its `append`, or its `renew`.
#[allow(unused_macros, reason = "the benches share this file")]
macro_rules! journal_over {
    ($name:ty, $store:ident, append: |$this:ident, $lease:ident, $batch:ident| $append:block) => {
        $crate::hand::journal_over!($name, $store,
            append: |$this, $lease, $batch| $append,
            renew: |this, leases, by| { this.$store.renew(leases, by).await });
    };
    ($name:ty, $store:ident, renew: |$this:ident, $lease:ident, $by:ident| $renew:block) => {
        $crate::hand::journal_over!($name, $store,
            append: |this, lease, batch| { this.$store.append(lease, batch).await },
            renew: |$this, $lease, $by| $renew);
    };
    ($name:ty, $store:ident,
     append: |$this:ident, $lease:ident, $batch:ident| $append:block,
     renew: |$same:ident, $held:ident, $by:ident| $renew:block) => {
        const _: () = {
            use exile_engine::id::{InputId, LogId, RunId, UserId, WorkerId};
            use exile_engine::journal::{
                Batch, BlobId, History, Input, Journal, JournalError, Lease, Place, ReleaseInfo, Sent,
                Verdict,
            };
            use exile_engine::run::record::RunError;
            use std::time::Duration;

            #[async_trait::async_trait]
            impl Journal for $name {
                async fn find(&self, run: &RunId) -> Result<Option<Place>, JournalError> {
                    self.$store.find(run).await
                }
                async fn send(
                    &self,
                    log: &LogId,
                    id: &InputId,
                    input: &Input,
                ) -> Result<Sent, JournalError> {
                    self.$store.send(log, id, input).await
                }
                async fn claim(
                    &self,
                    worker: &WorkerId,
                    lease: Duration,
                    but: &[UserId],
                ) -> Result<Option<Lease>, JournalError> {
                    self.$store.claim(worker, lease, but).await
                }
                async fn renew(
                    &self,
                    $held: &[Lease],
                    $by: Duration,
                ) -> Result<Vec<LogId>, JournalError> {
                    let $same = self;
                    $renew
                }
                async fn release(&self, lease: &Lease, rest: &ReleaseInfo) -> Result<(), JournalError> {
                    self.$store.release(lease, rest).await
                }
                async fn park(&self, lease: &Lease, why: &RunError) -> Result<(), JournalError> {
                    self.$store.park(lease, why).await
                }
                async fn inbox(&self, log: &LogId) -> Result<Vec<(InputId, Input)>, JournalError> {
                    self.$store.inbox(log).await
                }
                async fn verdict(
                    &self,
                    log: &LogId,
                    id: &InputId,
                ) -> Result<Option<Verdict>, JournalError> {
                    self.$store.verdict(log, id).await
                }
                async fn append(&self, $lease: &Lease, $batch: &Batch) -> Result<(), JournalError> {
                    let $this = self;
                    $append
                }
                async fn load(
                    &self,
                    log: &LogId,
                    at: Option<u64>,
                ) -> Result<History, JournalError> {
                    self.$store.load(log, at).await
                }
                async fn read(
                    &self,
                    log: &LogId,
                    from: u64,
                    limit: usize,
                ) -> Result<History, JournalError> {
                    self.$store.read(log, from, limit).await
                }
                async fn put_blob(&self, bytes: &[u8]) -> Result<BlobId, JournalError> {
                    self.$store.put_blob(bytes).await
                }
                async fn get_blob(&self, id: &BlobId) -> Result<Option<Vec<u8>>, JournalError> {
                    self.$store.get_blob(id).await
                }
            }
        };
    };
}
#[allow(unused_imports, reason = "the benches share this file")]
pub(crate) use journal_over;
