//! Why a run cannot do what is asked of it now: it stands elsewhere.

use exile_engine::id::{InterruptId, RunId};
use exile_engine::run::record::RunError;
use serde_json::Value;

use super::interrupts::InterruptView;

/// Why a run cannot do what is asked of it now.
#[derive(Debug, thiserror::Error)]
pub enum RunConflict {
    /// Only a run with open questions takes answers.
    #[error("run {run} is {status} and waits for no answer")]
    NotWaiting {
        /// Which.
        run: RunId,
        /// How far it has come.
        status: &'static str,
    },
    /// The question has its answer.
    #[error("interrupt {interrupt} is open no more: it is answered, or its task has ended")]
    Answered {
        /// Which.
        interrupt: InterruptId,
    },
    /// Only a run that needs attention is resolved.
    #[error("run {run} is {status} and needs no attention")]
    NotInAttention {
        /// Which.
        run: RunId,
        /// How far it has come.
        status: &'static str,
    },
    /// The run has not begun or goes on.
    #[error("run {run} is {status}")]
    GoesOn {
        /// Which.
        run: RunId,
        /// How far it has come.
        status: &'static str,
    },
    /// The run has ended.
    #[error("run {run} has ended: it is {status}")]
    Over {
        /// Which.
        run: RunId,
        /// How it ended.
        status: &'static str,
    },
    /// A run of the conversation waits for answers that a message cannot give.
    #[error("run {run} waits for {}", questions(interrupts))]
    Waiting {
        /// Which.
        run: RunId,
        /// What it asked.
        interrupts: Vec<InterruptView>,
    },
    /// The run is queued behind one of its conversation that came to wait for somebody.
    #[error("run {run} is queued behind {ahead}, which waits for {}", questions(interrupts))]
    Behind {
        /// Which.
        run: RunId,
        /// The one that waits.
        ahead: RunId,
        /// What that one asked; nothing if it needs attention.
        interrupts: Vec<InterruptView>,
    },
    /// A run of the conversation waits for a person to say what becomes of it.
    #[error("run {run} needs attention ({}): {}", why.code, why.message)]
    NeedsAttention {
        /// Which.
        run: RunId,
        /// Why.
        why: Box<RunError>,
    },
    /// The call has ended.
    #[error("the call {call} of run {run} is not open")]
    CallClosed {
        /// Which run.
        run: RunId,
        /// Which call, as `task#call`.
        call: String,
    },
    /// A change of the state does not fit it.
    #[error("the state of run {run} cannot be changed like that: {why}")]
    Edit {
        /// Which.
        run: RunId,
        /// What does not fit.
        why: String,
    },
    /// The run's state does not fit the graph as it is now.
    #[error("run {run} does not fit the graph as it is now: {}", first(problems))]
    Migration {
        /// Which.
        run: RunId,
        /// All that does not fit.
        problems: Vec<Value>,
    },
}

fn questions(interrupts: &[InterruptView]) -> String {
    if interrupts.is_empty() {
        return "a person to say what becomes of it".to_owned();
    }
    let one = |i: &InterruptView| format!("an answer to {} ({})", i.id, i.text);
    interrupts.iter().map(one).collect::<Vec<_>>().join(" and ")
}

fn first(problems: &[Value]) -> &str {
    problems.first().and_then(|p| p["message"].as_str()).unwrap_or("see `problems`")
}
