//! What a problem says of a run that cannot do what is asked of it: code, remedy, members.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::runs::RunConflict;

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
