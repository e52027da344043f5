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

use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::idempotency::Once;
use crate::http::problem::Problem;
use crate::http::trace::Trace;
use crate::runs::input;
use crate::runs::resume;
use crate::store::RunRow;

/// A run as it is asked for.
pub struct Wish {
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
}

/// Begins a run and gives its id.
pub async fn start(
    app: &App,
    caller: &Caller,
    (trace, once): (&Trace, &Once),
    mut wish: Wish,
) -> Result<RunId, Problem> {
    let library = app.library.now();
    let graph = program(&library, &wish.graph)?.graph.clone();
    names(app, &library, &wish.options)?;
    let input = input::check(&graph, wish.input, &*app.env)?;
    wish.options.business = caller.business(app, wish.options.business)?;
    app.ledger.check(&caller.payer(wish.options.business.clone())).await?;
    wish.options.key = caller.quota_key();
    let (_, bundle) = pinned(app, &library, &wish.graph, wish.options.skill.as_deref()).await?;
    let run = once.run_id(&*app.env);
    let log = wish.conversation.as_ref().map_or_else(|| LogId::from(&run), LogId::from);
    let start = StartRun {
        run: run.clone(),
        graph: wish.graph.into(),
        bundle,
        owner: caller.id().clone(),
        conversation: wish.conversation,
        options: wish.options,
        input,
        traceparent: trace.traceparent.clone(),
        if_active: wish.if_active,
        durability: wish.durability,
    };
    match app.engine.start(&log, &InputId::from(format!("start_{run}")), start).await? {
        Sent::New | Sent::Known => Ok(run),
        Sent::Busy => Err(Problem::RunActive),
    }
}

/// The graph of that name as it is now, and the address of the bundle that a run of it is pinned
/// to; the bundle is stored. `skill`: the one for nodes that name none.
pub async fn pinned(
    app: &App,
    library: &Library,
    graph: &str,
    skill: Option<&str>,
) -> Result<(Arc<Program>, BlobId), Problem> {
    let program = program(library, graph)?;
    let missing = || Problem::Internal(format!("graph `{graph}` has no bundle"));
    let bytes = library.bundle(graph, skill).ok_or_else(missing)?.to_bytes();
    let bundle = if BlobId::of(&bytes) == program.id {
        app.engine.pin(program.clone(), &bytes).await?
    } else {
        // The conversation's skill makes another bundle of it; the engine compiles it when it is
        // first run.
        app.engine.pin_bytes(&bytes).await?
    };
    Ok((program, bundle))
}

/// The run of a conversation that waits for its owner, if one does.
pub async fn waiting_in(
    app: &App,
    owner: &UserId,
    conversation: &ConversationId,
) -> Result<Option<RunRow>, Problem> {
    Ok(app.store.waiting_run(owner, conversation).await?)
}

/// The graph of that name, if it serves.
pub fn program(library: &Library, name: &str) -> Result<Arc<Program>, Problem> {
    let Some(graph) = library.graph(name) else {
        let known = library.graphs().iter().map(|g| g.name.clone()).collect();
        return Err(Problem::UnknownName { what: "graph", name: name.to_owned(), known });
    };
    graph.program.clone().ok_or_else(|| {
        let error = graph.findings.iter().find(|f| f.severity == Severity::Error);
        let first =
            error.map_or_else(String::new, |f| format!("{}:{}: {}", f.path, f.line, f.message));
        Problem::GraphBroken { graph: name.to_owned(), first }
    })
}

/// Whether a graph can hold a conversation.
pub fn conversational(library: &Library, graph: &str) -> Result<(), Problem> {
    let takes = program(library, graph)?.graph.input.iter().any(|channel| &**channel == "messages");
    if takes { Ok(()) } else { Err(Problem::NotConversational(graph.to_owned())) }
}

/// Checks the names that a conversation or a caller gives for a whole run.
pub fn names(app: &App, library: &Library, options: &RunOptions) -> Result<(), Problem> {
    if let Some(name) = &options.skill
        && library.skill(name).is_none_or(|skill| skill.skill.is_none())
    {
        let skills = library.skills().iter().filter(|skill| skill.skill.is_some());
        let known = skills.map(|skill| skill.name.clone()).collect();
        return Err(Problem::UnknownName { what: "skill", name: name.clone(), known });
    }
    if let Some(name) = &options.model
        && !app.catalog.models.knows(name)
    {
        let known = app.catalog.models.names();
        return Err(Problem::UnknownName { what: "model", name: name.clone(), known });
    }
    Ok(())
}

/// Waits until a run has finished, or waits for answers, beyond a number. A run that ends
/// otherwise, that needs attention, or that is queued behind one that waits, is a problem that
/// carries its id.
pub async fn stopped(app: &App, run: &RunId, after: Number) -> Result<(), Problem> {
    let error = match app.engine.wait_beyond(run, after).await? {
        Stopped::Ended(ended) => match ended.status {
            EndStatus::Finished => return Ok(()),
            EndStatus::Cancelled => return Err(Problem::RunCancelled(run.clone())),
            EndStatus::Failed => ended.error,
        },
        Stopped::Waiting(waiting) => match waiting.attention {
            None => return Ok(()),
            attention => attention,
        },
        Stopped::Behind(ahead) => return Err(resume::behind(app, run, ahead).await?),
    };
    let silent = || RunError::new("run_failed", "the run failed without saying why");
    let error = error.unwrap_or_else(silent);
    Err(Problem::RunFailed { run: run.clone(), error: Box::new(error) })
}
