//! How a log is taken up, and how its next run begins.

use std::sync::Arc;

use serde_json::Value;

use crate::bundle::Program;
use crate::id::InputId;
use crate::journal::{History, Input, JournalError, Lease, StartRun};
use crate::node::NodeError;
use crate::run::end;
use crate::run::fold::{LogState, scope_of};
use crate::run::record::{EndStatus, Fact, Numbered, Started};
use crate::run::schedule;
use crate::run::shared::Shared;
use crate::run::writer::Writer;
use crate::state::{Delta, Writes};

/// Loads a log as it stands. A run that another process left in the middle is taken over.
pub(crate) async fn open(shared: &Arc<Shared>, lease: &Lease) -> Result<Writer, JournalError> {
    let history = shared.journal.load(&lease.log).await?;
    let reserved = history.reserved;
    let program = match unfinished(&history) {
        Some(started) => Some(shared.program(&started.bundle).await?),
        None => None,
    };
    let (program, broken) = match program {
        Some(Ok(program)) => (Some(program), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let log = replay(history, program.as_ref())?;
    let mut writer = Writer::new(shared.clone(), lease.clone(), log, reserved, program);
    if writer.log.run.is_some() {
        shared.live.reset(&lease.log).await;
        writer.push(Fact::Resumed { epoch: lease.epoch })?;
        if let Some(error) = broken {
            end::close(shared, &mut writer, EndStatus::NeedsAttention, Some(error))?;
        }
        writer.flush().await?;
    }
    Ok(writer)
}

/// The start of the run that goes on, if one does.
fn unfinished(history: &History) -> Option<&Started> {
    let begun = |r: &Numbered| matches!(r.record.fact, Fact::Started(_) | Fact::Ended(_));
    match &history.records.iter().rfind(|r| begun(r))?.record.fact {
        Fact::Started(started) => Some(started),
        _ => None,
    }
}

/// Begins the next run that was sent to the log; `false` if there is none.
pub(crate) async fn next(shared: &Arc<Shared>, writer: &mut Writer) -> Result<bool, JournalError> {
    let inbox = shared.journal.inbox(&writer.lease.log).await?;
    let mut start: Option<(InputId, Box<StartRun>)> = None;
    let mut cancelled = false;
    for (id, input) in inbox {
        match input {
            Input::Start(run) if start.is_none() => start = Some((id, run)),
            Input::Start(_) => {}
            Input::Cancel { run } => match &start {
                // A run that has ended, or that never was, needs no cancelling.
                None => writer.consume(id),
                Some((_, next)) if next.run == run => {
                    writer.consume(id);
                    cancelled = true;
                }
                Some(_) => {}
            },
        }
    }
    let Some((id, start)) = start else {
        writer.flush().await?;
        return Ok(false);
    };
    writer.consume(id);
    begin(shared, writer, *start, cancelled).await?;
    writer.flush().await?;
    Ok(true)
}

async fn begin(
    shared: &Arc<Shared>,
    writer: &mut Writer,
    start: StartRun,
    cancelled: bool,
) -> Result<(), JournalError> {
    let mut started = Started {
        run: start.run,
        graph: start.graph,
        bundle: start.bundle,
        owner: start.owner,
        conversation: start.conversation,
        options: start.options,
        delta: Delta::new(),
        base: std::collections::BTreeMap::new(),
        next: Vec::new(),
        filled: Vec::new(),
        traceparent: start.traceparent,
    };
    let program = match shared.program(&started.bundle).await? {
        Ok(program) => program,
        Err(error) => {
            writer.program = None;
            writer.push(Fact::Started(Box::new(started)))?;
            return end::close(shared, writer, EndStatus::Failed, Some(error));
        }
    };
    writer.program = Some(program.clone());
    let writes: Writes = start.input.into_iter().map(|(k, v)| (k.into(), v)).collect();
    let ready = prepare(shared, writer, &program, &mut started, &writes);
    writer.push(Fact::Started(Box::new(started)))?;
    match ready {
        Err(error) => {
            let error = end::explain(None, &error);
            end::close(shared, writer, EndStatus::Failed, Some(error))
        }
        Ok(()) if cancelled => end::close(shared, writer, EndStatus::Cancelled, None),
        Ok(()) => Ok(()),
    }
}

/// Works out what the input changes and what START fires.
fn prepare(
    shared: &Shared,
    writer: &mut Writer,
    program: &Program,
    started: &mut Started,
    writes: &Writes,
) -> Result<(), NodeError> {
    let graph = &program.graph;
    let mut state = writer.log.entry(graph);
    started.base = writer.log.base(graph);
    let of_messages = |(name, _): &(&Arc<str>, &Value)| super::frame::holds_messages(graph, name);
    let messages = end::parse_messages(writes.iter().filter(of_messages));
    let delta = state.merge([writes])?;
    for message in messages {
        writer.first_message(message, graph.shown, &started.run);
    }
    state.apply(&delta, &writer.log.messages)?;
    let now = shared.services.env.now().as_millisecond();
    let fired = schedule::start(graph, &state, &scope_of(started, now))?;
    started.delta = delta;
    started.next = fired.next.iter().map(|&n| format!("{}:1", graph.nodes[n].name)).collect();
    started.filled = fired.filled;
    Ok(())
}

/// The state of a log, from its history, with the program of a run that goes on.
fn replay(history: History, program: Option<&Arc<Program>>) -> Result<LogState, JournalError> {
    LogState::replay(&history.records, history.messages, program)
        .map_err(|illegal| JournalError::Corrupt(illegal.to_string()))
}
