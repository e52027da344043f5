//! Whoever measures tools and runs. Calls to models are told to their
//! [`Meter`](crate::model::meter::Meter).

use std::time::Duration;

/// Told of what has ended. Must not wait.
pub trait Observer: Send + Sync {
    /// A call of a tool, by a run of `graph`; `error`: what kind of failure it was.
    fn tool(&self, graph: &str, tool: &str, took: Duration, error: Option<&str>);

    /// A run; `took`: since this process began or took it up. `error`: the code of its failure, or
    /// `cancelled`.
    fn run(&self, graph: &str, took: Duration, error: Option<&str>);
}

/// Nobody measures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn tool(&self, _: &str, _: &str, _: Duration, _: Option<&str>) {}

    fn run(&self, _: &str, _: Duration, _: Option<&str>) {}
}
