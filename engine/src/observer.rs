//! Whoever measures tools and runs. Calls to models are told to their
//! [`Meter`](crate::model::meter::Meter).

use std::time::Duration;

/// A task of a node that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEnd<'a> {
    /// The run's graph.
    pub graph: &'a str,
    /// The node's name.
    pub node: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// How long its last attempt took.
    pub took: Duration,
    /// Calls of models that ended in this process, inside of it, at any depth.
    pub model_calls: u32,
    /// Calls of tools, likewise.
    pub tool_calls: u32,
    /// The code of its failure.
    pub error: Option<&'a str>,
}

/// Told of what has ended. Must not wait.
pub trait Observer: Send + Sync {
    /// A call of a tool, by a run of `graph`; `error`: what kind of failure it was.
    fn tool(&self, graph: &str, tool: &str, took: Duration, error: Option<&str>);

    /// A task of a node.
    fn node(&self, end: &NodeEnd<'_>);

    /// A run; `took`: since this process began or took it up. `error`: the code of its failure, or
    /// `cancelled`.
    fn run(&self, graph: &str, took: Duration, error: Option<&str>);
}

/// Nobody measures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn tool(&self, _: &str, _: &str, _: Duration, _: Option<&str>) {}

    fn node(&self, _: &NodeEnd<'_>) {}

    fn run(&self, _: &str, _: Duration, _: Option<&str>) {}
}
