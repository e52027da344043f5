//! What is sent to a run, and what its engine says to it.
//!
//! Invariant: whoever is told that something is done was told so by the one writer of the run's
//! log, after it was stored; of two requests that exclude each other one is refused.

use exile_engine::journal::{Input, Refusal, Resolution, ResolveRun, Verdict};
use exile_engine::run::record::RunError;
use serde_json::json;

use crate::http::app::App;
use crate::http::idempotency::Once;
use crate::http::problem::Problem;
use crate::runs::conflict::RunConflict;
use crate::store::RunRow;

/// Sends an input to a run; what was done with it stands there for the next read.
///
/// # Errors
/// [`RunConflict`]: it came too late, or does not fit.
pub async fn submit(app: &App, once: &Once, row: &RunRow, input: &Input) -> Result<(), Problem> {
    match decision(app, once, row, input).await? {
        None => Ok(()),
        Some(why) => Err(conflict(app, row, why).await?),
    }
}

/// Sends an input to a run; gives why it was refused, if it was.
pub async fn decision(
    app: &App,
    once: &Once,
    row: &RunRow,
    input: &Input,
) -> Result<Option<Refusal>, Problem> {
    let verdict = app.engine.submit(&row.log, &once.input_id(&*app.env), input).await?;
    refusal(app, row, verdict)
}

/// Ends a run, whether it has begun or not.
///
/// # Errors
/// [`RunConflict`]: it has ended.
pub async fn cancel(app: &App, row: &RunRow) -> Result<(), Problem> {
    let verdict = app.engine.submit_cancel(&row.log, &row.id).await?;
    match refusal(app, row, verdict)? {
        None => Ok(()),
        Some(why) => Err(conflict(app, row, why).await?),
    }
}

/// A run whose log cannot be read, as a problem. The engine looks at it, so that it is left to people.
pub async fn unreadable(app: &App, row: &RunRow, why: String) -> Result<Problem, Problem> {
    let (run, by, action) = (row.id.clone(), row.owner.clone(), Resolution::Retry);
    let look = Input::Resolve(ResolveRun { run, call: None, action, by });
    let decided = decision(app, &Once::default(), row, &look).await?;
    conflict(app, row, decided.unwrap_or(Refusal::Unreadable { why })).await
}

fn refusal(app: &App, row: &RunRow, verdict: Option<Verdict>) -> Result<Option<Refusal>, Problem> {
    match verdict {
        Some(Verdict::Taken) => Ok(None),
        Some(Verdict::Refused(why)) => Ok(Some(why)),
        // A command without a server beside it: who drives runs next decides.
        None if !app.engine.drives() => Ok(None),
        None => Err(Problem::Undecided(row.id.clone())),
    }
}

/// A refusal, as the run stands now.
pub async fn conflict(app: &App, row: &RunRow, why: Refusal) -> Result<Problem, Problem> {
    let run = row.id.clone();
    let now = app.store.run(&row.owner, &row.id).await?.ok_or(Problem::NotFound)?;
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
