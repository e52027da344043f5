//! What is sent to a log, taken in: while a run goes on, while it waits, and between runs.
//!
//! Invariants:
//! - An input is decided by the append that holds what it changed: done as a whole, or refused
//!   with nothing of it done. Its sender is told which.
//! - Inputs are taken in the order in which they were sent, so that of two that exclude each other
//!   the first is done. A run that is to begin later stays unread until it begins.

use std::sync::Arc;

use serde_json::Value;

use crate::id::{InputId, LogId, RunId};
use crate::journal::{
    BlobId, ForkRun, IfActive, Input, JournalError, Refusal, ResumeRun, StartRun, Verdict,
};
use crate::run::checkpoint::{CheckpointKind, kind};
use crate::run::edit::edit;
use crate::run::end;
use crate::run::instance::GraphInstance;
use crate::run::record::{Answered, Asked, EndStatus, Fact, Forked, RunError};
use crate::run::resolve::resolve;
use crate::run::shared::Shared;
use crate::run::start::{self, Cancelled};
use crate::run::task::split;
use crate::run::writer::Writer;

/// What the inbox makes of a run that goes on.
pub(crate) enum Course {
    /// It goes on; tasks that got an answer run again.
    On,
    /// It ends.
    End(EndStatus, Option<RunError>, Option<RunId>),
}

/// What is in a log's inbox, oldest first.
type Inbox = Vec<(InputId, Input)>;

/// Takes in what there is while a run goes on.
pub(crate) async fn while_running(
    shared: &Arc<Shared>,
    writer: &mut Writer,
) -> Result<Course, JournalError> {
    let inbox = shared.journal.inbox(&writer.lease().log).await?;
    let inbox = cancel_queued(writer, inbox)?;
    let course = take_all(shared, writer, inbox).await?;
    if matches!(course, Course::On) {
        expire(shared, writer)?;
    }
    Ok(course)
}

/// Takes in what there is for a run that waits, or between two runs; `true` if something can go
/// on then. `seen` becomes the newest input that was looked at.
pub(crate) async fn take(
    shared: &Arc<Shared>,
    writer: &mut Writer,
    seen: &mut Option<InputId>,
) -> Result<bool, JournalError> {
    let inbox = shared.journal.inbox(&writer.lease().log).await?;
    *seen = inbox.last().map(|(id, _)| id.clone());
    let inbox = cancel_queued(writer, inbox)?;
    if writer.log.run.is_none() {
        return between(shared, writer, inbox).await;
    }
    if let Course::End(status, error, by) = take_all(shared, writer, inbox).await? {
        end::close(shared, writer, status, error, by)?;
        writer.store_all().await?;
        return Ok(true);
    }
    expire(shared, writer)?;
    writer.store_all().await?;
    Ok(writer.log.run.as_ref().is_none_or(|run| run.waiting.is_none()))
}

/// Ends the runs that were cancelled before they began; gives what is left.
fn cancel_queued(writer: &mut Writer, inbox: Inbox) -> Result<Inbox, JournalError> {
    let mut left = Inbox::with_capacity(inbox.len());
    let mut cancelled = false;
    for (id, input) in inbox {
        let begins = |(_, queued): &(InputId, Input)| matches!((queued, &input), (Input::Start(start), Input::Cancel { run }) if start.run == *run);
        let Some(place) = left.iter().position(begins) else {
            left.push((id, input));
            continue;
        };
        let (start, _) = left.remove(place);
        writer.decide(start, Verdict::Taken);
        writer.decide(id, Verdict::Taken);
        end::unbegun(writer, input.run().clone())?;
        cancelled = true;
    }
    let waiting = writer.log.run.as_ref().and_then(|run| run.waiting.clone());
    if let Some(waiting) = waiting.filter(|_| cancelled) {
        // The log's last record says whether it waits.
        writer.waiting(&waiting)?;
    }
    Ok(left)
}

/// Takes in what was sent to a log whose run goes on or waits.
async fn take_all(
    shared: &Arc<Shared>,
    writer: &mut Writer,
    inbox: Inbox,
) -> Result<Course, JournalError> {
    let queued: Vec<RunId> =
        inbox.iter().filter(|(_, i)| i.owner().is_some()).map(|(_, i)| i.run().clone()).collect();
    for (id, input) in inbox {
        let Some(active) = writer.log.run.as_ref().map(|run| run.started.run.clone()) else {
            // It ended with the one before: what is left is looked at between runs.
            break;
        };
        if displaces(&input, &writer.lease().log) {
            // The input itself stays, and its run begins once this one has ended.
            return Ok(Course::End(EndStatus::Cancelled, None, Some(input.run().clone())));
        }
        let own = *input.run() == active;
        let verdict = match input {
            Input::Start(_) | Input::Fork(_) => continue,
            input if !own && queued.contains(input.run()) => Verdict::Refused(Refusal::GoesOn),
            _ if !own => Verdict::Refused(Refusal::Ended),
            Input::Cancel { .. } => {
                writer.decide(id, Verdict::Taken);
                return Ok(Course::End(EndStatus::Cancelled, None, None));
            }
            Input::Resume(resume) => answer(writer, *resume)?,
            Input::Resolve(resolved) => resolve(shared, writer, resolved)?,
            Input::Edit(_) | Input::Migrate { .. } if goes_on(writer) => {
                Verdict::Refused(Refusal::GoesOn)
            }
            Input::Edit(change) => edit(writer, change)?,
            Input::Migrate { bundle, .. } => migrate(shared, writer, bundle).await?,
        };
        writer.decide(id, verdict);
    }
    Ok(Course::On)
}

/// Whether the run does not wait.
fn goes_on(writer: &Writer) -> bool {
    writer.log.run.as_ref().is_some_and(|run| run.waiting.is_none())
}

/// Whether the run of the log that goes on or waits is cancelled for an input.
fn displaces(input: &Input, log: &LogId) -> bool {
    match input {
        Input::Start(start) => {
            matches!(start.if_active, IfActive::Interrupt | IfActive::Rollback)
        }
        Input::Fork(fork) => fork.log == *log,
        Input::Cancel { .. }
        | Input::Resume(_)
        | Input::Resolve(_)
        | Input::Edit(_)
        | Input::Migrate { .. } => false,
    }
}

/// Begins the next run, or changes what the last one left.
async fn between(
    shared: &Arc<Shared>,
    writer: &mut Writer,
    inbox: Inbox,
) -> Result<bool, JournalError> {
    let mut next: Option<(InputId, Input)> = None;
    let mut cancelled: Option<Cancelled> = None;
    for (id, input) in inbox {
        match (input, &next) {
            (input @ (Input::Start(_) | Input::Fork(_)), None) => next = Some((id, input)),
            (Input::Edit(change), None) => {
                let verdict = edit(writer, change)?;
                writer.decide(id, verdict);
            }
            (Input::Cancel { run }, Some((_, begins))) if *begins.run() == run => {
                writer.decide(id, Verdict::Taken);
                cancelled.get_or_insert_default();
            }
            // Nothing is begun for a run that makes way for one that is there already.
            (input, Some(_)) if displaces(&input, &writer.lease().log) => {
                let by = Some(input.run().clone());
                cancelled.get_or_insert(Cancelled { by });
            }
            // Before its start, it is for a run that has ended or that never was.
            (_, None) => writer.decide(id, Verdict::Refused(Refusal::Ended)),
            (_, Some(_)) => {}
        }
    }
    let Some((id, next)) = next else {
        writer.store_all().await?;
        return Ok(false);
    };
    match next {
        Input::Start(start) => {
            writer.decide(id, Verdict::Taken);
            let rewind = rewind(writer, &start);
            start::begin(shared, writer, *start, cancelled, rewind).await?;
        }
        Input::Fork(fork) => begin_fork(shared, writer, id, *fork, cancelled).await?,
        _ => {}
    }
    Ok(true)
}

/// Where a run begins that takes the place of the one that was just cancelled for it.
fn rewind(writer: &Writer, start: &StartRun) -> Option<(RunId, u64)> {
    let last = writer.log.last.as_ref()?;
    let for_it = start.if_active == IfActive::Rollback && last.by.as_ref() == Some(&start.run);
    for_it.then(|| (last.run.clone(), last.before))
}

async fn begin_fork(
    shared: &Arc<Shared>,
    writer: &mut Writer,
    id: InputId,
    fork: ForkRun,
    cancelled: Option<Cancelled>,
) -> Result<(), JournalError> {
    let history = shared.journal.load(&fork.log, Some(fork.at)).await?;
    let (programs, _) = start::programs(shared, &history).await?;
    let run = start::live(&history.records).map(|_| fork.run.clone());
    let ended = run.is_none();
    let last = history.records.last().and_then(|record| kind(&record.record.fact));
    let again = last == Some(CheckpointKind::Failure);
    let forked = Forked { run, from: fork.from, at: fork.at, again };
    writer.fork(forked, history, programs).await?;
    let verdict = match fork.edit {
        Some(change) => edit(writer, *change)?,
        None => Verdict::Taken,
    };
    match (&verdict, cancelled) {
        _ if ended => {}
        (Verdict::Refused(why), _) => {
            let error = RunError::new("edit_refused", why.to_string());
            end::close(shared, writer, EndStatus::Failed, Some(error), None)?;
        }
        (_, Some(Cancelled { by })) => {
            end::close(shared, writer, EndStatus::Cancelled, None, by)?;
        }
        (_, None) => start::attention(writer)?,
    }
    writer.decide(id, verdict);
    writer.store_all().await
}

/// Gives answers to questions, all of them or none.
fn answer(writer: &mut Writer, resume: ResumeRun) -> Result<Verdict, JournalError> {
    let open = open_questions(writer);
    let closed = resume.answers.keys().find(|id| !open.iter().any(|asked| asked.id == **id));
    if let Some(interrupt) = closed.cloned() {
        return Ok(Verdict::Refused(Refusal::Answered { interrupt }));
    }
    let mut message = resume.message;
    for asked in open {
        let Some(value) = resume.answers.get(&asked.id) else { continue };
        let message = message.take().map(|message| {
            let id = message.id.clone();
            let shown = shown_at(writer, &asked.task);
            writer.message(Arc::new(*message), shown);
            id
        });
        writer.push(Fact::Answered(Answered {
            interrupt: asked.id.clone(),
            value: value.clone(),
            by: Some(resume.by.clone()),
            message,
            expired: false,
        }))?;
    }
    Ok(Verdict::Taken)
}

/// Whether the graph that a task belongs to talks to the user.
pub(crate) fn shown_at(writer: &Writer, task: &str) -> bool {
    let root = writer.log.run.as_ref().and_then(|run| run.root.as_ref());
    root.and_then(|root| root.instance(split(task).0)).is_some_and(|i| i.graph.shown)
}

fn open_questions(writer: &Writer) -> Vec<Arc<Asked>> {
    let root = writer.log.run.as_ref().and_then(|run| run.root.as_ref());
    root.map(GraphInstance::open_questions).unwrap_or_default()
}

/// Answers questions whose time is over.
pub(crate) fn expire(shared: &Shared, writer: &mut Writer) -> Result<(), JournalError> {
    let now = shared.services.env.now().as_millisecond();
    for asked in open_questions(writer) {
        if asked.expires_ms.is_none_or(|at| at > now) {
            continue;
        }
        writer.push(Fact::Answered(Answered {
            interrupt: asked.id.clone(),
            value: asked.otherwise.clone().unwrap_or(Value::Null),
            by: None,
            message: None,
            expired: true,
        }))?;
    }
    Ok(())
}

/// When the next question expires, in milliseconds since 1970.
pub(crate) fn next_expiry(writer: &Writer) -> Option<i64> {
    open_questions(writer).iter().filter_map(|asked| asked.expires_ms).min()
}

/// Moves a run that waits to another bundle. What it asked it goes on waiting for; what made it need
/// attention is looked at anew.
async fn migrate(
    shared: &Shared,
    writer: &mut Writer,
    bundle: BlobId,
) -> Result<Verdict, JournalError> {
    let refused = |why: String| Ok(Verdict::Refused(Refusal::Migration { why }));
    let run = writer.log.run.as_ref();
    let waiting = run.and_then(|run| run.waiting.clone());
    let program = match shared.program(&bundle).await? {
        Ok(program) => program,
        Err(error) => return refused(error.message),
    };
    let Some(root) = run.and_then(|run| run.root.as_ref()) else {
        return refused("the graph that it stands on cannot be compiled here any more".to_owned());
    };
    // It was checked when it was sent; the run may have come elsewhere since then.
    if let Some(problem) = super::migrate::check(root, &program.graph).into_iter().next() {
        return refused(problem.message);
    }
    writer.add_program(program);
    writer.push(Fact::Migrated { bundle })?;
    match waiting {
        Some(waiting) if waiting.attention.is_none() => writer.waiting(&waiting)?,
        _ => start::attention(writer)?,
    }
    Ok(Verdict::Taken)
}
