//! Nodes: what a vertex of a graph does, and what it may reach while doing it.
//!
//! New kind: one file in `nodes/src/kinds/` that implements [`NodeKind`], one line in its `mod.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::expr::{ExprError, Scope};
use crate::graph::Graph;
use crate::graph::build::Build;
use crate::id::InterruptId;
use crate::model::ProviderError;
use crate::run::context::Cx;
use crate::state::{ChannelValue, State, WriteError, Writes};
use crate::tool::ToolError;

/// Does a node's work. Stateless: everything it knows is in its YAML, the state and [`Cx`].
#[async_trait]
pub trait Node: Send + Sync + std::fmt::Debug {
    /// Runs one task. `state` is the snapshot that all tasks of the step share. After a crash it
    /// is run again from its top; calls that have a recorded result are answered from the record.
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError>;
}

/// Computes what a task writes from the state alone: it calls nobody, asks nobody and never waits,
/// so the engine runs it in place, and again after a crash if its step was not stored yet.
pub trait PureNode: Send + Sync + std::fmt::Debug {
    /// Computes one task. `state` is the snapshot that all tasks of the step share; `scope` is what
    /// expressions may read besides.
    fn compute(&self, state: &State, scope: &Scope) -> Result<Done, NodeError>;
}

/// How a task's run came out.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is done.
    Done(Done),
    /// It waits for answers: it asked ([`Cx::ask`], [`Cx::call_tool`]) and is run again from its
    /// top once one of them is there.
    Suspend(Vec<InterruptId>),
}

/// What a task did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    /// What it writes.
    pub writes: Writes,
    /// Nodes that it fires in place of its lines: names that its graph's
    /// [`Goto`](crate::graph::Goto) allows, or `END`. `None`: its lines, or what its `goto` says.
    pub goto: Option<Vec<Arc<str>>>,
}

impl Outcome {
    /// Nothing to write.
    #[must_use]
    pub fn nothing() -> Self {
        Self::Done(Done::default())
    }

    /// One write.
    #[must_use]
    pub fn write(channel: &Arc<str>, value: impl Into<ChannelValue>) -> Self {
        Self::writes(std::iter::once((channel.clone(), value.into())).collect())
    }

    /// Several writes.
    #[must_use]
    pub fn writes(writes: Writes) -> Self {
        Self::Done(Done { writes, goto: None })
    }
}

/// A graph inside a node: it has channels of its own and shares nothing by name.
pub trait Subgraph: Send + Sync + std::fmt::Debug {
    /// What runs inside.
    fn graph(&self) -> &Arc<Graph>;

    /// What the inner state starts with, from the outer state. Pure: it is computed again when a
    /// run is recovered, and nothing of it is stored. `scope` is what templates may read besides
    /// the state; `path` is the task's, from which ids of new messages follow.
    fn enter(&self, outer: &State, scope: &Scope, path: &str) -> Result<Writes, NodeError>;

    /// What the node writes to the outer state once nothing is left to do inside. `before` is
    /// the inner state as [`enter`](Self::enter) made it.
    fn exit(&self, before: &State, inner: &State) -> Result<Done, NodeError>;

    /// What the outer state keeps of an inner run that was cut short: by default nothing.
    fn abandon(&self, before: &State, inner: &State) -> Writes {
        let _ = (before, inner);
        Writes::new()
    }
}

/// A node that is run once for each item of a list, each in a state of its own.
pub trait ForEach: Send + Sync + std::fmt::Debug {
    /// A graph of one node: what is done with an item.
    fn graph(&self) -> &Arc<Graph>;

    /// Per item, what its state begins with; channels of the same name have the outer state's
    /// values besides. Pure, as [`Subgraph::enter`] is.
    fn enter(&self, outer: &State, scope: &Scope) -> Result<Vec<Writes>, NodeError>;

    /// What the node writes once every item has ended, in the order of the items: what each
    /// wrote, or why it failed.
    fn exit(&self, items: Vec<Result<Writes, NodeError>>) -> Result<Done, NodeError>;

    /// Items that are worked on at the same time, at most.
    fn concurrency(&self) -> usize;
}

/// What a vertex holds.
#[derive(Clone, Debug)]
pub enum Work {
    /// One task, one [`PureNode::compute`].
    Pure(Arc<dyn PureNode>),
    /// One task, one [`Node::run`].
    Leaf(Arc<dyn Node>),
    /// One task, a whole graph inside.
    Sub(Arc<dyn Subgraph>),
    /// One task, and one inside it per item.
    Each(Arc<dyn ForEach>),
}

/// Makes nodes of one kind from their YAML.
pub trait NodeKind: Send + Sync {
    /// What stands behind `kind:`.
    fn name(&self) -> &'static str;

    /// JSON Schema of the keys of its own (an object without additional properties). Keys that
    /// every kind has are added by the graph's schema.
    fn schema(&self, generator: &mut SchemaGenerator) -> Schema;

    /// Builds one node. The YAML already meets the schema. What is wrong is reported to `build`,
    /// everything at once; `None` if that keeps the node from being built.
    fn build(&self, build: &mut Build<'_>) -> Option<Work>;
}

/// The kinds of the installation.
#[derive(Clone, Default)]
pub struct NodeKinds(pub Vec<Arc<dyn NodeKind>>);

impl NodeKinds {
    /// The kind of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn NodeKind>> {
        self.0.iter().find(|k| k.name() == name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|k| k.name())
    }
}

/// Why a task failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeError {
    /// A call to a model failed.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// A call to a tool failed (kind `tool`; the kind `tools` hands the error to the model).
    #[error("tool `{tool}`: {error}")]
    Tool {
        /// The tool.
        tool: String,
        /// Why.
        error: ToolError,
    },
    /// An expression or template failed.
    #[error("{place}: {error}")]
    Expression {
        /// Which key of the node.
        place: String,
        /// The expression language's words.
        error: String,
    },
    /// What the node wrote does not fit the channel.
    #[error("{0}")]
    Write(String),
    /// The model's answer does not meet the node's `output` schema.
    #[error("the model's answer does not meet the `output` schema: {0}")]
    Output(String),
    /// A name that was known when the graph was loaded is so no longer.
    #[error("{what} `{name}` is not available; {remedy}")]
    Missing {
        /// `model`, `tool` or `skill`.
        what: String,
        /// Its name.
        name: String,
        /// What to do.
        remedy: String,
    },
    /// A limit of the graph was reached.
    #[error("{0}")]
    Limit(String),
    /// An attempt took longer than the node's `timeout`, or was silent for longer than its
    /// `idle_timeout`.
    #[error("no result within `{key}: {after_ms}ms`")]
    Timeout {
        /// `timeout` or `idle_timeout`.
        key: String,
        /// Milliseconds.
        after_ms: u64,
    },
    /// Nobody answered in time.
    #[error("the question `{0}` expired without an answer")]
    Expired(String),
    /// A join can no longer get as many arrivals as it needs.
    #[error("the join before `{target}` needs {needs} arrivals and can only get {got}")]
    JoinStarved {
        /// The node that it would fire.
        target: String,
        /// Arrivals it needs.
        needs: usize,
        /// Arrivals it has.
        got: usize,
    },
    /// A node fired what it had not declared.
    #[error("`goto` gave {got}; `among` allows {allowed}")]
    Goto {
        /// What it gave.
        got: String,
        /// What was declared.
        allowed: String,
    },
    /// A defect of exile itself.
    #[error("internal error: {0}")]
    Internal(String),
}

impl NodeError {
    /// An expression's failure at a key of the node.
    #[must_use]
    pub fn expression(place: &str, error: &ExprError) -> Self {
        Self::Expression { place: place.to_owned(), error: error.to_string() }
    }

    /// The stable code that problems, events and logs carry.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Provider(error) => error.fault.code(),
            Self::Tool { .. } => "tool_failed",
            Self::Expression { .. } => "expression_failed",
            Self::Write(_) => "write_refused",
            Self::Output(_) => "output_invalid",
            Self::Missing { .. } => "not_available",
            Self::Limit(_) => "limit_reached",
            Self::Timeout { .. } => "node_timeout",
            Self::Expired(_) => "interrupt_expired",
            Self::JoinStarved { .. } => "join_starved",
            Self::Goto { .. } => "goto_refused",
            Self::Internal(_) => "internal",
        }
    }

    /// Whether a provider refused what the conversation holds.
    #[must_use]
    pub fn refuses_conversation(&self) -> bool {
        matches!(self, Self::Provider(error) if error.fault.refuses_conversation())
    }
}

impl From<WriteError> for NodeError {
    fn from(error: WriteError) -> Self {
        Self::Write(error.to_string())
    }
}
