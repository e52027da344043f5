//! Graphs: read from YAML, checked all at once, compiled to flat index arrays.
//!
//! | file | what it does |
//! |---|---|
//! | `spec.rs` | the YAML's shape, as types; the JSON Schema comes from them |
//! | `reading.rs` | from a document to those types, as far as it can be understood |
//! | `channels.rs` | from `state` to channels |
//! | `build.rs` | what a node kind may ask for while it is built from its YAML |
//! | `inside.rs` | the same for kinds that hold a graph or another node |
//! | `text.rs` | expressions and templates, with findings at their places |
//! | `policy.rs` | the keys that every kind has: retries, timeouts, `on_error`, `cache`, `goto` |
//! | `lines.rs` | from `edges` or `order` to lines, each checked by itself |
//! | `nesting.rs` | graphs inside graphs: order, cycles, depth |
//! | `effort.rs` | how much is spent on looking at a graph as a whole |
//! | `check.rs` | what all lines together say: reachability, conditions, cycles |
//! | `meeting.rs` | which nodes can run at the same time, under either schedule |
//! | `parallel.rs` | parallel reads and writes, and lines that should be a join |
//! | `topology.rs` | the petgraph side of it |
//! | `compile.rs` | all of this in turn: from a document to a [`Graph`] |
//! | `picture.rs` | Mermaid, DOT and JSON |
//!
//! Invariants:
//! - petgraph holds the topology for analysis and pictures; running reads only the arrays below.
//! - A [`Graph`] never changes; an edited file makes another one.

pub mod build;
mod channels;
mod check;
pub mod compile;
mod effort;
pub mod inside;
mod lines;
mod meeting;
pub mod nesting;
mod parallel;
pub mod picture;
mod policy;
mod reading;
pub(crate) mod spec;
mod text;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use crate::expr::Expression;
use crate::node::Work;
use crate::run::record::Durability;
use crate::state::Channels;

/// A node's place in [`Graph::nodes`].
pub type NodeIndex = usize;

/// A compiled graph.
#[derive(Debug)]
pub struct Graph {
    /// As in the YAML; a subgraph made by a kind is named after its node.
    pub name: Arc<str>,
    /// What the state holds.
    pub channels: Arc<Channels>,
    /// In the order of the YAML, which is task-path order.
    pub nodes: Vec<GraphNode>,
    /// What START fires.
    pub start: Vec<Line>,
    /// Whether START takes the first true `when` or every one.
    pub start_branch: Branch,
    /// Joins, one per line with a list in `from`.
    pub joins: Vec<Join>,
    /// How steps follow each other.
    pub schedule: Schedule,
    /// When the records of its runs are stored, where the caller does not say.
    pub durability: Durability,
    /// When a run must stop.
    pub limits: Limits,
    /// Channels that a caller may set.
    pub input: Vec<Arc<str>>,
    /// Channels that a caller receives.
    pub output: Vec<Arc<str>>,
    /// Whether messages written here are the conversation's, to be seen by its user.
    pub shown: bool,
    /// Where each name and each slot stands; made on first use.
    pub names: Names,
}

/// Places of nodes by name, and of the joins' slots: `Names::default()` in a new [`Graph`].
#[derive(Debug, Default)]
pub struct Names {
    nodes: std::sync::OnceLock<foldhash::HashMap<Arc<str>, NodeIndex>>,
    slots: std::sync::OnceLock<Vec<usize>>,
}

impl Graph {
    /// Where the node of that name stands.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<NodeIndex> {
        let index = || self.nodes.iter().enumerate().map(|(i, n)| (n.name.clone(), i)).collect();
        self.names.nodes.get_or_init(index).get(name).copied()
    }

    /// The place of a join's first slot among the slots of all joins, one join after the other.
    #[must_use]
    pub fn first_slot(&self, join: usize) -> usize {
        let places = || {
            let counts = self.joins.iter().map(|join| join.slots.len());
            counts.scan(0, |next, slots| Some(std::mem::replace(next, *next + slots))).collect()
        };
        self.names.slots.get_or_init(places).get(join).copied().unwrap_or(usize::MAX)
    }
}

/// One vertex.
#[derive(Debug)]
pub struct GraphNode {
    /// As in the YAML.
    pub name: Arc<str>,
    /// Its kind, e.g. `llm`.
    pub kind: &'static str,
    /// What it does.
    pub work: Work,
    /// Whether its `when` lines are alternatives.
    pub branch: Branch,
    /// Lines that leave it, in the order of the YAML.
    pub lines: Vec<Line>,
    /// What happens around its work.
    pub policy: Policy,
}

impl GraphNode {
    /// Whether what follows the node depends on the state.
    #[must_use]
    pub fn reads_where_to_go(&self) -> bool {
        let reads = |line: &Line| matches!(line.guard, Guard::When(_));
        self.policy.goto.is_some() || self.lines.iter().any(reads)
    }
}

/// What happens around a node's work: the keys that every kind has.
///
/// Order of failure: an attempt ends by itself or by a timeout; `retry` begins another one; then
/// `on_error`; then the run fails.
#[derive(Debug, Default)]
pub struct Policy {
    /// Longest attempt.
    pub timeout: Option<Duration>,
    /// Longest silence of an attempt: no delta, no call that begins or ends.
    pub idle_timeout: Option<Duration>,
    /// When it is tried again.
    pub retry: Retry,
    /// What follows its failure.
    pub on_error: OnError,
    /// How long a result may stand for the same inputs of the same owner.
    pub cache: Option<Cache>,
    /// Which nodes it may fire in place of its lines.
    pub goto: Option<Goto>,
}

/// When a failed attempt is followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts at most, the first included.
    pub attempts: u32,
    /// Before the second attempt; doubled before each one after it, spread at random by half.
    pub wait: Duration,
    /// Longest wait, unless a provider asks for a longer one.
    pub wait_max: Duration,
}

impl Default for Retry {
    /// One attempt.
    fn default() -> Self {
        Self { attempts: 1, wait: Duration::from_millis(500), wait_max: Duration::from_secs(30) }
    }
}

/// What follows a node that failed for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Its siblings finish, then the run fails.
    #[default]
    Fail,
    /// It writes nothing, and its lines are followed.
    Continue,
    /// It writes nothing, and fires this node in place of its lines.
    Node(NodeIndex),
}

/// What a node's result may be taken for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// How long.
    pub keep: Duration,
    /// Hash of the node as it is written, its skill included.
    pub node: Arc<str>,
    /// The channels that it reads.
    pub reads: Vec<Arc<str>>,
    /// What it reads besides, in order, of [`SCOPE_NAMES`](crate::expr::SCOPE_NAMES) and
    /// [`ERROR_NAME`](crate::expr::ERROR_NAME): `conversation`, `error`, `user`. Its result stands for
    /// these too. `now` and `run` are never among them: they are never the same twice.
    pub scope: Vec<&'static str>,
}

/// What a node may fire in place of its lines.
#[derive(Debug)]
pub struct Goto {
    /// Read after the node's writes: a node's name, a list of them, or null for its lines.
    pub to: Expression,
    /// Those that it may name.
    pub among: Vec<Target>,
    /// Their names, in the same order.
    pub names: Vec<Arc<str>>,
}

/// How steps follow each other.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// All tasks of a step read one snapshot; their writes merge when all have ended.
    #[default]
    Superstep,
    /// A task reads the state at its start and is a step of its own: what follows it begins at
    /// once.
    Dataflow,
}

/// How the `when` lines of one node are taken.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Branch {
    /// The first true one, else `otherwise`.
    #[default]
    First,
    /// Every true one; `otherwise` if none is.
    All,
}

/// One edge, or one source's part of a join.
#[derive(Debug)]
pub struct Line {
    /// When it is taken.
    pub guard: Guard,
    /// What it fires.
    pub to: Target,
}

/// When a line is taken.
#[derive(Debug)]
pub enum Guard {
    /// Always.
    Always,
    /// If this gives `true`; anything but a boolean fails the step.
    When(Expression),
    /// If no `when` of the node was true.
    Otherwise,
}

/// What a line fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A task of this node.
    Node(NodeIndex),
    /// One slot of a join.
    Slot {
        /// Place in [`Graph::joins`].
        join: usize,
        /// Place in [`Join::slots`].
        slot: usize,
    },
    /// Nothing more.
    End,
}

/// A line with several sources, one slot each.
#[derive(Debug)]
pub struct Join {
    /// The node it fires.
    pub target: NodeIndex,
    /// When it fires.
    pub needs: Needs,
    /// One per source.
    pub slots: Vec<Slot>,
}

/// When a join fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// When every slot is filled or dead, and at least one is filled.
    All,
    /// At the n-th filled slot; a run fails as `join_starved` once that cannot be. `any` is 1.
    Count(usize),
}

/// One source of a join.
#[derive(Debug)]
pub struct Slot {
    /// The node whose arrival fills it.
    pub from: NodeIndex,
    /// `alive[n]`: a live task of node `n` can still reach `from` without passing this join
    /// (`alive[from]` is true). A slot is dead when no live task stands on such a node.
    pub alive: Vec<bool>,
}

/// When a graph must stop, as its file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Its own steps; those of graphs inside it count there. Default 100.
    pub steps: Option<u32>,
    /// From start to end, without the time that a run waits for a person. Default ten minutes for
    /// a run, and none for a graph inside another.
    pub timeout: Option<Duration>,
    /// Tokens of all model calls in it and further in, input and output. Default none.
    pub tokens: Option<u64>,
}

impl Limits {
    /// Most steps.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.steps.unwrap_or(100)
    }

    /// How long a run of the graph may take.
    #[must_use]
    pub fn run_timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_mins(10))
    }
}
