//! How a log is taken up, and how its next run begins.

use std::sync::Arc;

use crate::bundle::Program;
use crate::id::RunId;
use crate::journal::{History, Input, JournalError, Lease, StartRun};
use crate::node::NodeError;
use crate::run::end;
use crate::run::fold::{CRASHES_MAX, LogState, Programs, scope_of};
use crate::run::leases::HeldLease;
use crate::run::record::{
    Activation, Durability, EndStatus, Fact, Forked, Number, Numbered, RunError, Started, Waiting,
};
use crate::run::schedule;
use crate::run::shared::Shared;
use crate::run::task::{Failure, task_id};
use crate::run::trials::Arrival;
use crate::run::writer::Writer;
use crate::run::writes::{admit, messages_in, too_heavy};
use crate::state::{Delta, Writes};

/// Loads a log as it stands. A run that another process left in the middle is taken over.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    held: &Arc<HeldLease>,
    arrival: Arrival,
) -> Result<Writer, JournalError> {
    let lease = &held.lease;
    if let Some(log) = shared.kept.take(lease) {
        shared.live.begin(lease, lease.reserved).await;
        arrival.admitted(None).await;
        let programs = Programs::default();
        return Ok(Writer::new(shared.clone(), held.clone(), log, lease.reserved, programs));
    }
    let history = shared.journal.load(&lease.log, None).await?;
    let reserved = history.reserved;
    let (programs, broken) = programs(shared, &history).await?;
    let mut log = LogState::replay(&history.records, history.messages, &programs)
        .map_err(|illegal| JournalError::Corrupt(illegal.to_string()))?;
    if log.run.is_some() && begins_as_fork(shared, lease).await? {
        // What goes on there goes on in the log that this one is a fork of.
        log.run = None;
    }
    let mut writer = Writer::new(shared.clone(), held.clone(), log, reserved, programs);
    shared.live.begin(lease, reserved).await;
    let Some(run) = &writer.log.run else {
        arrival.admitted(None).await;
        return Ok(writer);
    };
    if let (Some(waiting), None) = (run.waiting.clone(), &broken) {
        if was_left(shared, &waiting.run).await? {
            // It can be read again, and stands where it stood.
            writer.waiting(&waiting)?;
            writer.store_all().await?;
        }
        arrival.admitted(None).await;
        return Ok(writer);
    }
    if run.waiting.is_none() {
        let admission = arrival.admitted(run.suspicion()).await;
        writer.trial = admission.trial;
        writer.push(Fact::Resumed { epoch: lease.epoch, trial: admission.group })?;
    }
    match broken {
        Some(error) => attend(&mut writer, error)?,
        None => attention(&mut writer)?,
    }
    writer.store_all().await?;
    Ok(writer)
}

/// Whether the run was left to people because its log could not be read.
async fn was_left(shared: &Shared, run: &RunId) -> Result<bool, JournalError> {
    let place = shared.journal.find(run).await?;
    Ok(place.is_some_and(|place| place.unreadable.is_some()))
}

/// Whether the log is a fork of another one that is yet to begin: all that stands in it is the
/// other's.
async fn begins_as_fork(shared: &Shared, lease: &Lease) -> Result<bool, JournalError> {
    let inbox = shared.journal.inbox(&lease.log).await?;
    let elsewhere = |input: &Input| matches!(input, Input::Fork(fork) if fork.log != lease.log);
    Ok(inbox.iter().any(|(_, input)| elsewhere(input)))
}

/// Leaves the run to a person if it cannot go on by itself.
pub(crate) fn attention(writer: &mut Writer) -> Result<(), JournalError> {
    let Some(run) = &writer.log.run else { return Ok(()) };
    let open = run.root.as_ref().map(end::open_unsafe_calls).unwrap_or_default();
    if !open.is_empty() {
        return attend(writer, end::open_calls(&open));
    }
    if run.crashes >= CRASHES_MAX && run.died_alone {
        let crashes = run.crashes;
        return attend(writer, end::poison(crashes));
    }
    Ok(())
}

fn attend(writer: &mut Writer, why: RunError) -> Result<(), JournalError> {
    let Some(run) = &writer.log.run else { return Ok(()) };
    if run.waiting.as_ref().is_some_and(|w| w.attention.as_ref() == Some(&why)) {
        return Ok(());
    }
    let open = run.root.as_ref().map(end::open_unsafe_calls).unwrap_or_default();
    let run = run.started.run.clone();
    let waiting = Waiting { run, asked: Vec::new(), attention: Some(why), open };
    writer.push(Fact::Waiting(Box::new(waiting)))
}

/// What the run that goes on is and was pinned to; why it cannot be had, if so.
pub(crate) async fn programs(
    shared: &Shared,
    history: &History,
) -> Result<(Programs, Option<RunError>), JournalError> {
    let (mut programs, mut broken) = (Programs::default(), None);
    let records = &history.records;
    let Some(begins) = live(records) else { return Ok((programs, broken)) };
    for record in &records[begins..] {
        let bundle = match &record.record.fact {
            Fact::Started(started) => &started.bundle,
            Fact::Migrated { bundle } => bundle,
            _ => continue,
        };
        match shared.program(bundle).await? {
            Ok(program) => programs.add(program),
            Err(error) => broken = Some(error),
        }
    }
    Ok((programs, broken))
}

/// Where the run begins that goes on or waits at the end of these records, if one does.
pub(crate) fn live(records: &[Numbered]) -> Option<usize> {
    let mut live: Option<(usize, &RunId)> = None;
    for (place, numbered) in records.iter().enumerate() {
        live = match (&numbered.record.fact, live) {
            (Fact::Started(started), _) => Some((place, &started.run)),
            (Fact::Forked(forked), Some((begins, _))) => {
                forked.run.as_ref().map(|run| (begins, run))
            }
            // A run that was cancelled before it began ends beside the one that goes on.
            (Fact::Ended(ended), Some((_, run))) if ended.run == *run => None,
            (_, live) => live,
        };
    }
    live.map(|(place, _)| place)
}

/// Goes back in the log, as a fork of `from` at `at`; `run` goes on there, if one did.
pub(crate) async fn fork(
    shared: &Arc<Shared>,
    writer: &mut Writer,
    forked: Forked,
) -> Result<(), JournalError> {
    let history = shared.journal.load(&writer.lease().log, Some(forked.at)).await?;
    let (programs, _) = programs(shared, &history).await?;
    writer.fork(forked, history, programs).await
}

/// That a run ends as it begins: it was cancelled while it was queued.
#[derive(Default)]
pub(crate) struct Cancelled {
    /// The run that it makes way for.
    pub(crate) by: Option<RunId>,
}

/// Begins a run. `rewind`: the number that is gone back to first.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    writer: &mut Writer,
    start: StartRun,
    cancelled: Option<Cancelled>,
    rewind: Option<(RunId, Number)>,
) -> Result<(), JournalError> {
    if let Some((from, at)) = rewind {
        fork(shared, writer, Forked { run: None, from, at, again: false }).await?;
    }
    let mut started = Started {
        run: start.run,
        graph: start.graph,
        bundle: start.bundle,
        owner: start.owner,
        conversation: start.conversation,
        options: start.options,
        delta: Delta::new(),
        base: std::collections::BTreeMap::new(),
        activation: Activation::default(),
        traceparent: start.traceparent,
        durability: start.durability.unwrap_or_default(),
    };
    let program = match shared.program(&started.bundle).await? {
        Ok(program) => program,
        Err(error) => {
            writer.push(Fact::Started(Box::new(started)))?;
            end::close(shared, writer, EndStatus::Failed, Some(error), None)?;
            return writer.store_all().await;
        }
    };
    started.durability = start.durability.unwrap_or(program.graph.durability);
    writer.add_program(program.clone());
    let writes: Writes = start.input.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
    let ready = prepare(shared, writer, &program, &mut started, writes);
    let durability = started.durability;
    writer.push(Fact::Started(Box::new(started)))?;
    match (ready, cancelled) {
        (Err(error), _) => {
            end::close(shared, writer, EndStatus::Failed, Some(*error), None)?;
        }
        (Ok(()), Some(Cancelled { by })) => {
            end::close(shared, writer, EndStatus::Cancelled, None, by)?;
        }
        (Ok(()), None) if durability == Durability::Sync => {
            // It is stored with its first steps, if they call nobody.
            writer.at_once();
            return Ok(());
        }
        (Ok(()), None) => {}
    }
    // That it began is stored whatever its durability: a crash then starts it over.
    writer.store_all().await
}

/// Works out what the input changes and what START fires.
fn prepare(
    shared: &Shared,
    writer: &mut Writer,
    program: &Program,
    started: &mut Started,
    writes: Writes,
) -> Result<(), Box<RunError>> {
    let explain = |error: NodeError| Box::new(end::explain(&Failure { error, path: "".into() }));
    let graph = &program.graph;
    let mut state = writer.log.entry(graph);
    started.base = writer.log.base(graph);
    let writes = admit(writes, &graph.channels, (&started.run, "START"), shared.limits());
    let writes = writes.map_err(explain)?;
    let messages = messages_in(graph, &writes);
    let delta = state.merge([&writes]).map_err(|error| explain(error.into()))?;
    if let Some(why) = too_heavy(shared.limits().state, &state, &delta, &messages) {
        return Err(Box::new(RunError::new("state_full", why)));
    }
    for message in messages {
        writer.first_message(message, graph.shown, &started.run);
    }
    state.apply(&delta, &writer.log.messages).map_err(|error| explain(error.into()))?;
    let now = shared.services.env.now().as_millisecond();
    let successors = schedule::start(graph, &state, &scope_of(started, now)).map_err(explain)?;
    started.delta = delta;
    started.activation = Activation {
        next: successors.next.iter().map(|&n| task_id(&graph.nodes[n].name, 1)).collect(),
        filled: successors.joins.filled(graph),
        owed: successors.joins.owed(graph),
        toggled: None,
    };
    Ok(())
}
