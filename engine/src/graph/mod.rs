//! Graphs: read from YAML, checked all at once, compiled to flat index arrays.
//!
//! | file | what it does |
//! |---|---|
//! | `spec.rs` | the YAML's shape, as types; the JSON Schema comes from them |
//! | `reading.rs` | from a document to those types, as far as it can be understood |
//! | `channels.rs` | from `state` to channels |
//! | `build.rs` | what a node kind may ask for while it is built from its YAML |
//! | `text.rs` | expressions and templates, with findings at their places |
//! | `lines.rs` | from `edges` or `order` to lines, each checked by itself |
//! | `check.rs` | what all lines together say: reachability, conditions, cycles |
//! | `parallel.rs` | parallel writes, and lines that should be a join |
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
mod lines;
mod parallel;
pub mod picture;
mod reading;
pub(crate) mod spec;
mod text;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use crate::expr::Expression;
use crate::node::Work;
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
    /// When a run must stop.
    pub limits: Limits,
    /// Channels that a caller may set.
    pub input: Vec<Arc<str>>,
    /// Channels that a caller receives.
    pub output: Vec<Arc<str>>,
    /// Whether messages written here are the conversation's, to be seen by its user.
    pub shown: bool,
    /// Where each name stands; made on first use.
    pub names: Names,
}

/// Node names by place: `Names::default()` in a new [`Graph`].
#[derive(Debug, Default)]
pub struct Names(std::sync::OnceLock<std::collections::HashMap<Arc<str>, NodeIndex>>);

impl Graph {
    /// Where the node of that name stands.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<NodeIndex> {
        let index = || self.nodes.iter().enumerate().map(|(i, n)| (n.name.clone(), i)).collect();
        self.names.0.get_or_init(index).get(name).copied()
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

/// A line with several sources: fires `target` when every slot is filled or dead and at least
/// one is filled.
#[derive(Debug)]
pub struct Join {
    /// The node it fires.
    pub target: NodeIndex,
    /// One per source.
    pub slots: Vec<Slot>,
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

/// When a run must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps of the whole run, subgraphs included.
    pub steps: u32,
    /// From start to end, waiting included.
    pub timeout: Option<Duration>,
    /// Tokens of all model calls, input and output.
    pub tokens: Option<u64>,
}

impl Default for Limits {
    /// 100 steps, ten minutes, no limit of tokens.
    fn default() -> Self {
        Self { steps: 100, timeout: Some(Duration::from_mins(10)), tokens: None }
    }
}
