//! Why a run cannot do what is asked of it now: it stands elsewhere.

use std::borrow::Cow;

use exile_engine::id::{InterruptId, RunId};
use exile_engine::run::record::RunError;
use serde_json::{Value, json};

use crate::runs::interrupts::InterruptView;

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

impl RunConflict {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotWaiting { .. } => "run_not_waiting",
            Self::Answered { .. } => "already_answered",
            Self::NotInAttention { .. } => "run_not_in_attention",
            Self::GoesOn { .. } => "run_running",
            Self::Over { .. } => "run_ended",
            Self::Waiting { .. } => "run_waiting",
            Self::Behind { .. } => "run_queued",
            Self::NeedsAttention { .. } => "run_needs_attention",
            Self::CallClosed { .. } => "call_closed",
            Self::Edit { .. } => "edit_refused",
            Self::Migration { .. } => "migration_refused",
        }
    }

    pub(crate) fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::NotWaiting { run, .. }
            | Self::NotInAttention { run, .. }
            | Self::CallClosed { run, .. }
            | Self::Over { run, .. } => {
                format!("GET /api/runs/{run} shows how far it has come").into()
            }
            Self::Answered { .. } => "leave it out; an answer is not taken back".into(),
            Self::GoesOn { run, .. } => {
                format!("wait until it waits or ends, or POST /api/runs/{run}/cancel").into()
            }
            Self::Waiting { run, .. } => format!(
                "POST /api/runs/{run}/resume answers; a message with `if_active` `interrupt` or \
                 `rollback` ends it"
            )
            .into(),
            Self::Behind { run, ahead, .. } => format!(
                "it begins once {ahead} has ended: POST /api/runs/{ahead}/resume (or /resolve, or \
                 /cancel); GET /api/runs/{run}/stream waits on"
            )
            .into(),
            Self::NeedsAttention { run, .. } => format!(
                "POST /api/runs/{run}/resolve says what becomes of it; a message with \
                 `if_active` `interrupt` or `rollback` ends it"
            )
            .into(),
            Self::Edit { run, .. } => {
                format!("GET /api/runs/{run}/state shows what its channels hold").into()
            }
            Self::Migration { .. } => {
                "give the graph back what the run stands on, or let the run end as it began".into()
            }
        }
    }

    pub(crate) fn extra(&self) -> Value {
        match self {
            Self::NotWaiting { run, status }
            | Self::NotInAttention { run, status }
            | Self::GoesOn { run, status }
            | Self::Over { run, status } => json!({ "run": run, "run_status": status }),
            Self::Answered { interrupt } => json!({ "interrupt": interrupt }),
            Self::Waiting { run, interrupts } => json!({ "run": run, "interrupts": interrupts }),
            Self::Behind { run, ahead, interrupts } => {
                json!({ "run": run, "ahead": ahead, "interrupts": interrupts })
            }
            Self::NeedsAttention { run, why } => json!({ "run": run, "error": why }),
            Self::CallClosed { run, call } => json!({ "run": run, "call": call }),
            Self::Edit { run, .. } => json!({ "run": run }),
            Self::Migration { run, problems } => json!({ "run": run, "problems": problems }),
        }
    }
}
