//! What is sent to a run, and what its engine says to it.
//!
//! Invariant: whoever is told that something is done was told so by the one writer of the run's
//! log, after it was stored; of two requests that exclude each other one is refused.

use exile_engine::journal::{Input, Refusal, Resolution, ResolveRun, Verdict};
use exile_engine::run::record::RunError;
use serde_json::json;

use super::{IdempotencyKey, RunConflict, Runs, RunsError};
use crate::store::RunRow;

/// Sends an input to a run; what was done with it stands there for the next read.
///
/// # Errors
/// [`RunConflict`]: it came too late, or does not fit.
pub async fn submit(
    runs: Runs<'_>,
    key: &IdempotencyKey,
    row: &RunRow,
    input: &Input,
) -> Result<(), RunsError> {
    match decision(runs, key, row, input).await? {
        None => Ok(()),
        Some(why) => Err(conflict(runs, row, why).await?),
    }
}

/// Sends an input to a run; gives why it was refused, if it was.
pub async fn decision(
    runs: Runs<'_>,
    key: &IdempotencyKey,
    row: &RunRow,
    input: &Input,
) -> Result<Option<Refusal>, RunsError> {
    let verdict = runs.engine.submit(&row.log, &key.input_id(runs.env), input).await?;
    refusal(runs, row, verdict)
}

/// Ends a run, whether it has begun or not.
///
/// # Errors
/// [`RunConflict`]: it has ended.
pub async fn cancel(runs: Runs<'_>, row: &RunRow) -> Result<(), RunsError> {
    let verdict = runs.engine.submit_cancel(&row.log, &row.id).await?;
    match refusal(runs, row, verdict)? {
        None => Ok(()),
        Some(why) => Err(conflict(runs, row, why).await?),
    }
}

/// A run whose log cannot be read, as a problem. The engine looks at it, so that it is left to people.
pub async fn unreadable(runs: Runs<'_>, row: &RunRow, why: String) -> Result<RunsError, RunsError> {
    let (run, by, action) = (row.id.clone(), row.owner.clone(), Resolution::Retry);
    let look = Input::Resolve(ResolveRun { run, call: None, action, by });
    let decided = decision(runs, &IdempotencyKey::default(), row, &look).await?;
    conflict(runs, row, decided.unwrap_or(Refusal::Unreadable { why })).await
}

fn refusal(
    runs: Runs<'_>,
    row: &RunRow,
    verdict: Option<Verdict>,
) -> Result<Option<Refusal>, RunsError> {
    match verdict {
        Some(Verdict::Taken) => Ok(None),
        Some(Verdict::Refused(why)) => Ok(Some(why)),
        // A command without a server beside it: who drives runs next decides.
        None if !runs.engine.drives() => Ok(None),
        None => Err(RunsError::Undecided(row.id.clone())),
    }
}

/// A refusal, as the run stands now.
pub async fn conflict(runs: Runs<'_>, row: &RunRow, why: Refusal) -> Result<RunsError, RunsError> {
    let run = row.id.clone();
    let now = runs.store.run(&row.owner, &row.id).await?.ok_or(RunsError::NotFound)?;
    let status = now.status.as_str();
    let conflict = match why {
        Refusal::Ended => RunConflict::Over { run, status },
        Refusal::GoesOn => RunConflict::GoesOn { run, status },
        Refusal::Answered { interrupt } => RunConflict::Answered { interrupt },
        Refusal::Unreadable { why } => {
            let why = Box::new(RunError::new(RunError::UNREADABLE, why));
            RunConflict::NeedsAttention { run, why }
        }
        Refusal::NoAttention => RunConflict::NotInAttention { run, status },
        Refusal::CallClosed { call } => RunConflict::CallClosed { run, call },
        Refusal::Edit { why } => RunConflict::Edit { run, why },
        Refusal::Migration { why } => {
            RunConflict::Migration { run, problems: vec![json!({ "path": "", "message": why })] }
        }
    };
    Ok(conflict.into())
}
