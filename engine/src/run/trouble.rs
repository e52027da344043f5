//! What operators read in the log of runs: one line for each run that failed, and for each that came
//! to need a person.
//!
//! A line holds names and codes, never what users or models said: `exile runs show` and the API give
//! the message of an error to those who may read it.

use std::sync::Arc;

use crate::id::RunId;
use crate::run::fold::LogState;
use crate::run::record::{EndStatus, Fact, RunError};

/// What is told of a run, once it is stored.
pub(crate) struct Trouble {
    run: RunId,
    graph: Arc<str>,
    /// W3C `traceparent` of the run's root span.
    traceparent: Option<String>,
    error: RunError,
    needs_attention: bool,
}

impl Trouble {
    /// What a fact tells of the run that goes on in a log; `None` if it is no trouble.
    pub(crate) fn of(fact: &Fact, log: &LogState) -> Option<Self> {
        let (run, error, needs_attention) = match fact {
            Fact::Ended(ended) if ended.status == EndStatus::Failed => {
                (&ended.run, ended.error.as_ref()?, false)
            }
            Fact::Waiting(waiting) => (&waiting.run, waiting.attention.as_ref()?, true),
            _ => return None,
        };
        let started = log.run.as_ref().map(|run| &run.started).filter(|it| it.run == *run)?;
        Some(Self {
            run: run.clone(),
            graph: started.graph.clone(),
            traceparent: started.traceparent.clone(),
            error: error.clone(),
            needs_attention,
        })
    }

    /// Writes the line.
    pub(crate) fn log(&self) {
        let Self { run, graph, traceparent, error, needs_attention } = self;
        let (code, node) = (&*error.code, error.node.as_deref().unwrap_or_default());
        let trace = traceparent.as_deref().and_then(|parent| parent.split('-').nth(1));
        let trace = trace.unwrap_or_default();
        if *needs_attention {
            tracing::warn!(%run, %graph, node, code, trace, "a run needs attention");
        } else {
            tracing::warn!(%run, %graph, node, code, trace, "a run failed");
        }
    }
}
