//! From a request to a run: names are resolved, the input is checked, the graph is pinned, and
//! only then is anything stored.

use std::sync::Arc;

use exile_engine::bundle::Program;
use exile_engine::diagnostic::Severity;
use exile_engine::id::{ConversationId, InputId, LogId, RunId, UserId};
use exile_engine::journal::{BlobId, IfActive, Sent, StartRun};
use exile_engine::library::Library;
use exile_engine::run::engine::Stopped;
use exile_engine::run::record::{Durability, EndStatus, Number, RunError, RunOptions};
use serde_json::{Map, Value};

use super::input;
use super::resume;
use super::{IdempotencyKey, Requester, Runs, RunsError};
use crate::store::RunRow;

/// A run as it is asked for.
pub struct NewRun {
    /// The graph's name.
    pub graph: String,
    /// The conversation it is a turn of; it belongs to the owner.
    pub conversation: Option<ConversationId>,
    /// What nodes without keys of their own use.
    pub options: RunOptions,
    /// Channel → value, as sent.
    pub input: Map<String, Value>,
    /// What becomes of it while another run of the conversation goes on.
    pub if_active: IfActive,
    /// When its records are stored; else as its graph says.
    pub durability: Option<Durability>,
    /// The W3C `traceparent` of the request; `None` if it belongs to no trace.
    pub traceparent: Option<String>,
}

/// Stores that a run begins, and gives its id: that of `key`, if the request may be a repetition.
///
/// # Errors
/// A name stands for nothing, the input does not fit the graph, the business is not `by`'s to name,
/// a quota is used up, or another run stands in the way. Then nothing is stored.
pub async fn start(
    runs: Runs<'_>,
    by: &Requester<'_>,
    key: &IdempotencyKey,
    mut new: NewRun,
) -> Result<RunId, RunsError> {
    let library = runs.library.now();
    let graph = program(&library, &new.graph)?.graph.clone();
    check_names(runs, &library, &new.options)?;
    let input = input::check(&graph, new.input, runs.env)?;
    new.options.business = runs.business(by, new.options.business)?;
    runs.usage.check(&by.payer(new.options.business.clone())).await?;
    new.options.key.clone_from(&by.quota_key);
    let (_, bundle) = pinned(runs, &library, &new.graph, new.options.skill.as_deref()).await?;
    let run = key.run_id(runs.env);
    let log = new.conversation.as_ref().map_or_else(|| LogId::from(&run), LogId::from);
    let start = StartRun {
        run: run.clone(),
        graph: new.graph.into(),
        bundle,
        owner: by.owner.clone(),
        conversation: new.conversation,
        options: new.options,
        input,
        traceparent: new.traceparent,
        if_active: new.if_active,
        durability: new.durability,
    };
    match runs.engine.start(&log, &InputId::from(format!("start_{run}")), start).await? {
        Sent::New | Sent::Known => Ok(run),
        Sent::Busy => Err(RunsError::Active),
    }
}

/// The graph of that name as it is now, and the address of the bundle that a run of it is pinned
/// to; the bundle is stored. `skill`: the one for nodes that name none.
pub async fn pinned(
    runs: Runs<'_>,
    library: &Library,
    graph: &str,
    skill: Option<&str>,
) -> Result<(Arc<Program>, BlobId), RunsError> {
    let program = program(library, graph)?;
    let missing = || RunsError::Internal(format!("graph `{graph}` has no bundle"));
    let bytes = library.bundle(graph, skill).ok_or_else(missing)?.to_bytes();
    let bundle = if BlobId::of(&bytes) == program.id {
        runs.engine.pin(program.clone(), &bytes).await?
    } else {
        // The conversation's skill makes another bundle of it; the engine compiles it when it is
        // first run.
        runs.engine.pin_bytes(&bytes).await?
    };
    Ok((program, bundle))
}

/// The run of a conversation that waits for its owner, if one does.
pub async fn waiting_in(
    runs: Runs<'_>,
    owner: &UserId,
    conversation: &ConversationId,
) -> Result<Option<RunRow>, RunsError> {
    Ok(runs.store.waiting_run(owner, conversation).await?)
}

/// The graph of that name, if it serves.
pub fn program(library: &Library, name: &str) -> Result<Arc<Program>, RunsError> {
    let Some(graph) = library.graph(name) else {
        let known = library.graphs().iter().map(|g| g.name.clone()).collect();
        return Err(RunsError::UnknownName { what: "graph", name: name.to_owned(), known });
    };
    graph.program.clone().ok_or_else(|| {
        let error = graph.findings.iter().find(|f| f.severity == Severity::Error);
        let first =
            error.map_or_else(String::new, |f| format!("{}:{}: {}", f.path, f.line, f.message));
        RunsError::GraphBroken { graph: name.to_owned(), first }
    })
}

/// Checks that a graph takes messages, so that it can hold a conversation.
///
/// # Errors
/// It takes none, or does not serve.
pub fn check_conversational(library: &Library, graph: &str) -> Result<(), RunsError> {
    let takes = program(library, graph)?.graph.input.iter().any(|channel| &**channel == "messages");
    if takes { Ok(()) } else { Err(RunsError::NotConversational(graph.to_owned())) }
}

/// Checks the skill and the model that are named for a whole run.
///
/// # Errors
/// [`RunsError::UnknownName`]: there is none of that name.
pub fn check_names(
    runs: Runs<'_>,
    library: &Library,
    options: &RunOptions,
) -> Result<(), RunsError> {
    if let Some(name) = &options.skill
        && library.skill(name).is_none_or(|skill| skill.skill.is_none())
    {
        let skills = library.skills().iter().filter(|skill| skill.skill.is_some());
        let known = skills.map(|skill| skill.name.clone()).collect();
        return Err(RunsError::UnknownName { what: "skill", name: name.clone(), known });
    }
    if let Some(name) = &options.model
        && !runs.catalog.models.knows(name)
    {
        let known = runs.catalog.models.names();
        return Err(RunsError::UnknownName { what: "model", name: name.clone(), known });
    }
    Ok(())
}

/// Waits until a run has finished, or waits for answers, beyond a number. A run that ends
/// otherwise, that needs attention, or that is queued behind one that waits, is a problem that
/// carries its id.
pub async fn wait_until_stopped(
    runs: Runs<'_>,
    run: &RunId,
    after: Number,
) -> Result<(), RunsError> {
    let error = match runs.engine.wait_beyond(run, after).await? {
        Stopped::Ended(ended) => match ended.status {
            EndStatus::Finished => return Ok(()),
            EndStatus::Cancelled => return Err(RunsError::Cancelled(run.clone())),
            EndStatus::Failed => ended.error,
        },
        Stopped::Waiting(waiting) => match waiting.attention {
            None => return Ok(()),
            attention => attention,
        },
        Stopped::Behind(ahead) => return Err(resume::behind(runs, run, ahead).await?),
    };
    let silent = || RunError::new("run_failed", "the run failed without saying why");
    let error = error.unwrap_or_else(silent);
    Err(RunsError::Failed { run: run.clone(), error: Box::new(error) })
}
