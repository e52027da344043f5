//! From a request to a run: names are resolved, the input is checked, the graph is pinned, and
//! only then is anything stored.

use std::sync::Arc;

use exile_engine::bundle::Program;
use exile_engine::diagnostic::Severity;
use exile_engine::id::{ConversationId, InputId, LogId, RunId, UserId};
use exile_engine::journal::{BlobId, StartRun};
use exile_engine::library::Library;
use exile_engine::run::record::{EndStatus, Ended, RunError, RunOptions};
use serde_json::{Map, Value};

use crate::app::App;
use crate::idempotency::Once;
use crate::input;
use crate::problem::Problem;
use crate::trace::Trace;

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
}

/// Begins a run and gives its id.
pub async fn start(
    app: &App,
    owner: &UserId,
    (trace, once): (&Trace, &Once),
    wish: Wish,
) -> Result<RunId, Problem> {
    let library = app.library.now();
    let program = program(&library, &wish.graph)?;
    names(app, &library, &wish.options)?;
    let input = input::check(&program.graph, wish.input, &*app.env)?;
    let bundle = library
        .bundle(&wish.graph, wish.options.skill.as_deref())
        .ok_or_else(|| Problem::Internal(format!("graph `{}` has no bundle", wish.graph)))?;
    let bytes = bundle.to_bytes();
    let bundle = if BlobId::of(&bytes) == program.id {
        app.engine.pin(program, &bytes).await?
    } else {
        // The conversation's skill makes another bundle of it; the engine compiles it when it is
        // first run.
        app.engine.pin_bytes(&bytes).await?
    };
    let run = once.run_id(&*app.env);
    let log = wish.conversation.as_ref().map_or_else(|| LogId::from(&run), LogId::from);
    let start = StartRun {
        run: run.clone(),
        graph: wish.graph.into(),
        bundle,
        owner: owner.clone(),
        conversation: wish.conversation,
        options: wish.options,
        input,
        traceparent: trace.traceparent.clone(),
    };
    app.engine.start(&log, &InputId::from(format!("start_{run}")), start).await?;
    Ok(run)
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

/// Waits for a run to finish. One that ends otherwise is a problem that carries its id.
pub async fn finished(app: &App, run: &RunId) -> Result<Ended, Problem> {
    let ended = app.engine.wait(run).await?;
    match ended.status {
        EndStatus::Finished => Ok(ended),
        EndStatus::Cancelled => Err(Problem::RunCancelled(run.clone())),
        EndStatus::Failed | EndStatus::NeedsAttention => {
            let error = ended.error.unwrap_or_else(|| RunError {
                code: "run_failed".into(),
                message: "the run failed without saying why".into(),
                node: None,
                provider: None,
                model: None,
            });
            Err(Problem::RunFailed { run: run.clone(), error: Box::new(error) })
        }
    }
}
