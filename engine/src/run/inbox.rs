//! What is sent to a log, taken in: while a run goes on, while it waits, and between runs.
//!
//! Invariants:
//! - An input is consumed by the append that holds what it changed. One that changes nothing any
//!   more (its run has ended, its question is answered) is consumed all the same.
//! - Inputs are taken in the order in which they were sent; one whose time has not come stays.
//! - Who sends an input checks it before; here what cannot be done is passed over, never half
//!   done.

use std::sync::Arc;

use serde_json::Value;

use crate::id::{InputId, LogId, RunId};
use crate::journal::{
    EditRun, ForkRun, IfActive, Input, JournalError, Resolution, ResolveRun, ResumeRun, StartRun,
};
use crate::message::{Message, ToolCall};
use crate::run::end;
use crate::run::fold::RunState;
use crate::run::instance::GraphInstance;
use crate::run::joins::JoinState;
use crate::run::marks::Marks;
use crate::run::record::{
    Activation, Answered, Asked, Called, Callee, Edited, EndStatus, Fact, Forked, Intent, Reply,
    Resolved, RunError, Waiting,
};
use crate::run::schedule::{self, EndedNode, LiveNodes, Transition};
use crate::run::shared::Shared;
use crate::run::start::{self, Cancelled};
use crate::run::task::split;
use crate::run::writer::Writer;
use crate::run::writes::messages_in;
use crate::state::Writes;
use crate::tool::{ToolAnswer, ToolError, ToolErrorKind};

/// What an input makes of a run that goes on.
pub(crate) enum Verdict {
    /// It goes on; tasks that got an answer run again.
    On,
    /// It ends.
    End(EndStatus, Option<RunError>, Option<RunId>),
}

/// Takes in what concerns a run that goes on.
pub(crate) async fn while_running(
    shared: &Shared,
    writer: &mut Writer,
) -> Result<Verdict, JournalError> {
    let Some(run) = writer.log.run.as_ref().map(|r| r.started.run.clone()) else {
        return Ok(Verdict::On);
    };
    for (id, input) in shared.journal.inbox(&writer.lease().log).await? {
        match input {
            Input::Cancel { run: whom } if whom == run => {
                writer.consume(id);
                return Ok(Verdict::End(EndStatus::Cancelled, None, None));
            }
            Input::Resume(resume) if resume.run == run => {
                writer.consume(id);
                answer(writer, *resume)?;
            }
            // The input itself stays, and its run begins once this one has ended.
            input if displaces(&input, &writer.lease().log) => {
                let by = Some(input.run().clone());
                return Ok(Verdict::End(EndStatus::Cancelled, None, by));
            }
            _ => {}
        }
    }
    expire(shared, writer)?;
    Ok(Verdict::On)
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

/// Takes in what there is for a run that waits, or between two runs; `true` if something can go
/// on then. `seen` becomes the newest input that was looked at.
pub(crate) async fn take(
    shared: &Arc<Shared>,
    writer: &mut Writer,
    seen: &mut Option<InputId>,
) -> Result<bool, JournalError> {
    let inbox = shared.journal.inbox(&writer.lease().log).await?;
    *seen = inbox.last().map(|(id, _)| id.clone());
    if writer.log.run.is_some() {
        while_waiting(shared, writer, inbox).await
    } else {
        between(shared, writer, inbox).await
    }
}

async fn while_waiting(
    shared: &Arc<Shared>,
    writer: &mut Writer,
    inbox: Vec<(InputId, Input)>,
) -> Result<bool, JournalError> {
    let Some(run) = writer.log.run.as_ref().map(|r| r.started.run.clone()) else {
        return Ok(false);
    };
    for (id, input) in inbox {
        if *input.run() != run {
            match input {
                input if displaces(&input, &writer.lease().log) => {
                    cancel(shared, writer, Some(input.run().clone()))?;
                }
                // They come after this run; a cancel may be of one that is queued.
                Input::Start(_) | Input::Fork(_) | Input::Cancel { .. } => continue,
                _ => {
                    writer.consume(id);
                    continue;
                }
            }
            writer.store_all().await?;
            return Ok(true);
        }
        writer.consume(id);
        match input {
            Input::Cancel { .. } => cancel(shared, writer, None)?,
            Input::Resume(resume) => answer(writer, *resume)?,
            Input::Resolve(resolve) => self::resolve(shared, writer, resolve)?,
            Input::Edit(edit) => self::edit(writer, edit)?,
            Input::Migrate { bundle, .. } => migrate(shared, writer, bundle).await?,
            Input::Start(_) | Input::Fork(_) => {}
        }
        if writer.log.run.is_none() {
            break;
        }
    }
    expire(shared, writer)?;
    writer.store_all().await?;
    Ok(writer.log.run.as_ref().is_none_or(|run| run.waiting.is_none()))
}

/// Begins the next run, or changes what the last one left.
async fn between(
    shared: &Arc<Shared>,
    writer: &mut Writer,
    inbox: Vec<(InputId, Input)>,
) -> Result<bool, JournalError> {
    let mut next: Option<(InputId, Input)> = None;
    let mut cancelled: Option<Cancelled> = None;
    for (id, input) in inbox {
        match (input, &next) {
            (input @ (Input::Start(_) | Input::Fork(_)), None) => next = Some((id, input)),
            (Input::Edit(change), None) => {
                writer.consume(id);
                edit(writer, change)?;
            }
            (Input::Cancel { run }, Some((_, begins))) if *begins.run() == run => {
                writer.consume(id);
                cancelled.get_or_insert_default();
            }
            // Nothing is begun for a run that makes way for one that is there already.
            (input, Some(_)) if displaces(&input, &writer.lease().log) => {
                let by = Some(input.run().clone());
                cancelled.get_or_insert(Cancelled { by });
            }
            // Before its start, it is for a run that has ended or that never was.
            (_, None) => writer.consume(id),
            (_, Some(_)) => {}
        }
    }
    let Some((id, next)) = next else {
        writer.store_all().await?;
        return Ok(false);
    };
    writer.consume(id);
    match next {
        Input::Start(start) => {
            let rewind = rewind(writer, &start);
            start::begin(shared, writer, *start, cancelled, rewind).await?;
        }
        Input::Fork(fork) => begin_fork(shared, writer, *fork, cancelled).await?,
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
    fork: ForkRun,
    cancelled: Option<Cancelled>,
) -> Result<(), JournalError> {
    let history = shared.journal.load(&fork.log, Some(fork.at)).await?;
    let (programs, _) = start::programs(shared, &history).await?;
    let goes_on = history.records.iter().rev().find_map(|r| match &r.record.fact {
        Fact::Started(_) => Some(true),
        Fact::Ended(_) => Some(false),
        _ => None,
    });
    let run = goes_on.unwrap_or(false).then(|| fork.run.clone());
    let ended = run.is_none();
    writer.fork(Forked { run, from: fork.from, at: fork.at }, history, programs).await?;
    if let Some(change) = fork.edit {
        edit(writer, *change)?;
    }
    match cancelled {
        _ if ended => {}
        Some(Cancelled { by }) => end::close(shared, writer, EndStatus::Cancelled, None, by)?,
        None => start::attention(writer)?,
    }
    writer.store_all().await
}

fn cancel(shared: &Shared, writer: &mut Writer, by: Option<RunId>) -> Result<(), JournalError> {
    end::close(shared, writer, EndStatus::Cancelled, None, by)
}

/// Gives answers to the questions that are still open.
fn answer(writer: &mut Writer, resume: ResumeRun) -> Result<(), JournalError> {
    let open = open_questions(writer);
    let mut message = resume.message;
    for asked in open {
        let Some(value) = resume.answers.get(&asked.id) else { continue };
        let message = message.take().map(|message| {
            let id = message.id.clone();
            let shown = shown_at(writer, &asked.task);
            writer.message(*message, shown);
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
    Ok(())
}

/// Whether the graph that a task belongs to talks to the user.
fn shown_at(writer: &Writer, task: &str) -> bool {
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

/// Does what a person says of a run that needs attention.
fn resolve(shared: &Shared, writer: &mut Writer, resolve: ResolveRun) -> Result<(), JournalError> {
    let Some(run) = writer.log.run.as_ref() else { return Ok(()) };
    let Some(waiting) = run.waiting.clone().filter(|w| w.attention.is_some()) else {
        return Ok(());
    };
    let named = |intent: &&Intent| {
        resolve.call.as_ref().is_none_or(|call| *call == format!("{}#{}", intent.task, intent.call))
    };
    let calls: Vec<Intent> = waiting.open.iter().filter(named).cloned().collect();
    if waiting.open.is_empty() {
        return resolve_run(shared, writer, &waiting, resolve);
    }
    for intent in calls {
        resolve_call(shared, writer, &intent, &resolve)?;
    }
    start::attention(writer)
}

/// A run without open calls: it goes on, or it fails.
fn resolve_run(
    shared: &Shared,
    writer: &mut Writer,
    waiting: &Waiting,
    resolve: ResolveRun,
) -> Result<(), JournalError> {
    if let Resolution::Failed { message } = resolve.action {
        let code = waiting.attention.as_ref().map_or("poison", |why| why.code.as_str()).to_owned();
        let error = RunError::new(code, message);
        return end::close(shared, writer, EndStatus::Failed, Some(error), None);
    }
    let (task, call) = ("".into(), "".into());
    writer.push(Fact::Resolved(Resolved { task, call, by: resolve.by }))
}

fn resolve_call(
    shared: &Shared,
    writer: &mut Writer,
    intent: &Intent,
    resolve: &ResolveRun,
) -> Result<(), JournalError> {
    let answer = match &resolve.action {
        Resolution::Retry => {
            let (task, call) = (intent.task.clone(), intent.call.clone());
            return writer.push(Fact::Resolved(Resolved { task, call, by: resolve.by.clone() }));
        }
        Resolution::Done { output } => ToolAnswer::Done(output.clone()),
        Resolution::Failed { message } => {
            ToolAnswer::Failed(ToolError::new(ToolErrorKind::NotRun, message.clone()))
        }
    };
    let called = settled(shared, writer, intent, &answer, 0);
    writer.called(called)
}

/// The end of a call that was not brought about by the call itself: its record, and the message
/// that answers a model.
pub(crate) fn settled(
    shared: &Shared,
    writer: &mut Writer,
    intent: &Intent,
    answer: &ToolAnswer,
    took_ms: u64,
) -> Called {
    let error = match answer {
        ToolAnswer::Failed(error) => Some(error.clone()),
        ToolAnswer::Done(_) | ToolAnswer::Ask(_) => None,
    };
    let (tool, reply) = match &intent.to {
        Callee::Tool { name, id: Some(id), args, .. } => {
            let call = ToolCall {
                id: id.clone(),
                name: name.clone(),
                arguments: args.to_string(),
                opaque: None,
            };
            let id = crate::id::MessageId::new(&*shared.services.env);
            let message = Message::tool(id.clone(), &call, answer.to_text());
            let shown = shown_at(writer, &intent.task);
            writer.message(message, shown);
            (Some(name), Reply::Message { id, failed: error })
        }
        Callee::Tool { name, .. } => {
            let reply = match (answer, error) {
                (_, Some(error)) => Reply::ToolFailed(error),
                (ToolAnswer::Done(value), None) => Reply::Value(value.clone()),
                (_, None) => Reply::Value(Value::Null),
            };
            (Some(name), reply)
        }
        Callee::Model(_) => {
            let text = error.map(|e| e.message).unwrap_or_default();
            let error = crate::node::NodeError::Limit(text);
            (None, Reply::ModelFailed { error, text: String::new(), reasoning: String::new() })
        }
    };
    Called {
        task: intent.task.clone(),
        call: intent.call.clone(),
        took_ms,
        tool: tool.map(|name| name.as_str().into()),
        reply,
        model: None,
        attempts: Vec::new(),
        marks: Marks::default(),
        shown: false,
        taints: false,
    }
}

/// Changes the state as a node would, or as the caller of a run would.
fn edit(writer: &mut Writer, change: EditRun) -> Result<(), JournalError> {
    let writes: Writes = change.writes.into_iter().map(|(k, v)| (k.into(), v)).collect();
    let Some(RunState { root: Some(root), started, .. }) = writer.log.run.as_ref() else {
        return edit_values(writer, &writes, change.run, change.by);
    };
    let Some(instance) = root.instance(&change.path) else { return Ok(()) };
    let run = started.run.clone();
    let graph = instance.graph.clone();
    let (mut state, scope) = (crate::state::State::clone(&instance.state), instance.scope.clone());
    let refused = |why: String| {
        tracing::warn!(%run, why, "an edit of the state was refused");
        Ok(())
    };
    let delta = match state.merge([&writes]) {
        Ok(delta) => delta,
        Err(error) => return refused(error.to_string()),
    };
    let node = change.as_node.as_ref().map(|name| graph.position(name));
    let place = instance.path.clone();
    // Whether the edit can be made is known before anything of it is kept.
    let messages = messages_in(&graph, &writes);
    let said = messages.iter().map(|m| (m.id.clone(), Arc::new(m.clone())));
    let mut known = writer.log.messages.clone();
    known.extend(said);
    if let Err(error) = state.apply(&delta, &known) {
        return refused(error.to_string());
    }
    let successors = match node {
        None => None,
        Some(None) => return refused("no such node".to_owned()),
        Some(Some(node)) => {
            let ended = std::iter::once(EndedNode { node, transition: Transition::Lines });
            let (joins, running) = (JoinState::default(), LiveNodes::default());
            match schedule::after(&graph, &state, &scope, ended, &joins, &running) {
                Ok(successors) => Some(successors),
                Err(error) => return refused(error.to_string()),
            }
        }
    };
    let activation = successors.map(|successors| Activation {
        toggled: None,
        filled: successors.joins.filled(&graph),
        owed: successors.joins.owed(&graph),
        ..instance.activation(&successors)
    });
    for message in messages {
        writer.message(message, graph.shown);
    }
    let (as_node, by) = (change.as_node, change.by);
    writer.push(Fact::Edited(Box::new(Edited { path: place, as_node, by, delta, activation })))?;
    Ok(())
}

/// Changes the channels that the last run of a log left.
fn edit_values(
    writer: &mut Writer,
    writes: &Writes,
    run: RunId,
    by: crate::id::UserId,
) -> Result<(), JournalError> {
    let (delta, messages) = writer.log.edit(writes);
    let run = writer.log.last.as_ref().map_or(run, |last| last.run.clone());
    for message in messages {
        writer.first_message(message, true, &run);
    }
    let edited = Edited { path: "".into(), as_node: None, by, delta, activation: None };
    writer.push(Fact::Edited(Box::new(edited)))
}

async fn migrate(
    shared: &Shared,
    writer: &mut Writer,
    bundle: crate::journal::BlobId,
) -> Result<(), JournalError> {
    let run = writer.log.run.as_ref();
    let Some(root) = run.and_then(|run| run.root.as_ref()) else { return Ok(()) };
    match shared.program(&bundle).await? {
        Ok(program) if super::migrate::check(root, &program.graph).is_empty() => {
            writer.add_program(program);
            writer.push(Fact::Migrated { bundle })
        }
        // It was checked when it was sent; a graph that changed since then is not forced upon it.
        Ok(_) | Err(_) => {
            tracing::warn!(log = %writer.lease().log, "a migration no longer fits and was dropped");
            Ok(())
        }
    }
}
