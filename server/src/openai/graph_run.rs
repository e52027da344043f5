//! A graph answers: a run of it, its tools executed by exile, told as a chat completion.
//!
//! Invariants:
//! - The texts of all messages that a run shows are one answer, one after the other, a blank line
//!   between two; it ends for the reason for which the last one did.
//! - A client that leaves cancels the run: nobody else can ask for its answer in this form. A server
//!   that ends does not: the run goes on at the next start.
//! - A run that asks a person or fails ends the answer with an error; so does one that takes back
//!   what was streamed of it already.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::response::{IntoResponse as _, Response};
use exile_engine::id::{LogId, RunId};
use exile_engine::journal::{IfActive, JournalError};
use exile_engine::model::{Finish, Usage};
use exile_engine::run::event::Event;
use exile_engine::run::record::{RunError, RunOptions};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::answer::{self, Head, Piece, Said};
use super::request::Completion;
use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::problem::{Problem, RUN_HEADER};
use crate::http::sse;
use crate::http::trace::Trace;
use crate::runs::IdempotencyKey;
use crate::runs::create::{self, NewRun};
use crate::runs::disconnect::{CancelOnDisconnect, OnDisconnect};
use crate::runs::speakers::{Chunk, Speakers};

/// Runs `graph`, for a caller, and answers.
///
/// # Errors
/// The graph cannot hold a conversation, or its run ended otherwise than well before it said
/// anything.
pub async fn run(
    app: &Arc<App>,
    caller: &Caller,
    (trace, key): (&Trace, &IdempotencyKey),
    (graph, options): (String, RunOptions),
    completion: Completion,
) -> Result<Response, Problem> {
    create::check_conversational(&app.library.now(), &graph)?;
    let (streams, usage) = (completion.stream, completion.usage);
    let model = completion.model.clone();
    let messages = serde_json::to_value(completion.for_graph(app)?)
        .map_err(|error| Problem::Internal(error.to_string()))?;
    let messages = given(messages);
    let input: Map<String, Value> = [("messages".to_owned(), messages)].into_iter().collect();
    let new = NewRun {
        graph,
        conversation: None,
        options,
        input,
        if_active: IfActive::default(),
        durability: None,
        traceparent: trace.traceparent.clone(),
    };
    let run = create::start(app.runs(), &caller.requester(), key, new).await?;
    let on_leave = app.on_disconnect(LogId::from(&run), &run, OnDisconnect::Cancel);
    let id = format!("chatcmpl-{run}");
    let head = Head { id, created: app.env.now().as_second(), model };
    let events = app.engine.events(run.clone(), 0);
    let mut run_stream = RunStream {
        run: run.clone(),
        events,
        head,
        usage,
        on_leave,
        cut: app.cut.clone(),
        speakers: Speakers::default(),
        pending: VecDeque::new(),
        said: (false, false),
        finish: None,
        ready: VecDeque::new(),
        void: false,
        over: false,
    };
    let mut response = if streams {
        // What fails before anything was said has its HTTP status.
        let first = loop {
            match run_stream.next().await? {
                Next::Chunk(Chunk::Begins) => {}
                next => break next,
            }
        };
        run_stream.push(&json!({ "role": "assistant", "content": "" }), None);
        run_stream.shows(first);
        let chunks = stream::unfold(run_stream, |mut run_stream| async move {
            let chunk = run_stream.chunk().await?;
            Some((Ok::<_, std::convert::Infallible>(chunk), run_stream))
        });
        sse::raw(Body::from_stream(chunks))
    } else {
        Json(run_stream.whole().await?).into_response()
    };
    if let Ok(value) = HeaderValue::from_str(run.as_str()) {
        response.headers_mut().insert(RUN_HEADER, value);
    }
    Ok(response)
}

/// Messages as callers may write them: who wrote one is not theirs to say.
fn given(mut messages: Value) -> Value {
    for message in messages.as_array_mut().into_iter().flatten() {
        if let Some(message) = message.as_object_mut() {
            message.remove("opaque");
            message.remove("model");
        }
    }
    messages
}

/// What a run took, from its last event.
fn tokens(usage: &Value) -> Usage {
    let count = |name: &str| usage[name].as_u64().unwrap_or_default();
    Usage {
        input: count("input_tokens"),
        cached: count("cached_tokens"),
        written: count("written_tokens"),
        output: count("output_tokens"),
        reasoning: count("reasoning_tokens"),
    }
}

/// A run, told.
struct RunStream {
    run: RunId,
    events: BoxStream<'static, Result<Event, JournalError>>,
    head: Head,
    usage: bool,
    on_leave: CancelOnDisconnect,
    /// The server ends.
    cut: CancellationToken,
    speakers: Speakers,
    /// What is told next.
    pending: VecDeque<Chunk>,
    /// Some message has said a text, and whether the one that speaks has.
    said: (bool, bool),
    /// Why the model stopped that spoke last.
    finish: Option<Finish>,
    /// Chunks to be sent.
    ready: VecDeque<Bytes>,
    /// Something that was sent is void.
    void: bool,
    over: bool,
}

/// What stands between two messages.
const BETWEEN: &str = "\n\n";

/// What comes next of a run.
enum Next {
    Chunk(Chunk),
    End(Usage),
}

impl RunStream {
    /// What the run says next.
    async fn next(&mut self) -> Result<Next, Problem> {
        loop {
            if let Some(chunk) = self.pending.pop_front() {
                return Ok(Next::Chunk(self.spaced(chunk)));
            }
            let Some(event) = self.events.next().await else {
                return Err(Problem::Internal(format!("the stream of {} broke off", self.run)));
            };
            let event = event?;
            if event.ends_stream() {
                self.on_leave.over();
            }
            match event.name {
                "run.waiting" => return Err(Problem::RunWaits(self.run.clone())),
                "run.cancelled" => return Err(Problem::RunCancelled(self.run.clone())),
                "run.failed" => {
                    let error: RunError = serde_json::from_value(event.data["error"].clone())
                        .map_err(|error| Problem::Internal(error.to_string()))?;
                    return Err(Problem::RunFailed { run: self.run.clone(), error: error.into() });
                }
                "run.finished" => return Ok(Next::End(tokens(&event.data["usage"]))),
                name => self.pending.extend(self.speakers.take(name, &event.data)),
            }
        }
    }

    /// With a blank line before the text of every message but the first.
    fn spaced(&mut self, chunk: Chunk) -> Chunk {
        match chunk {
            Chunk::Begins => self.said.1 = false,
            Chunk::Text(text) => {
                let between = if self.said == (true, false) { BETWEEN } else { "" };
                self.said = (true, true);
                return Chunk::Text(between.to_owned() + &text);
            }
            Chunk::Ends(finish) => self.finish = finish,
            Chunk::Reasoning(_) | Chunk::Void => {}
        }
        chunk
    }

    /// Why the answer ends. Tools that were called are executed by exile, and so called to nobody.
    fn finish(&self) -> &'static str {
        self.finish.map_or("stop", answer::stopped)
    }

    /// All that the run says.
    async fn whole(mut self) -> Result<Value, Problem> {
        let (mut content, mut thought) = (String::new(), String::new());
        let mut last = (0, 0);
        loop {
            match self.next().await? {
                Next::Chunk(Chunk::Begins) => last = (content.len(), thought.len()),
                Next::Chunk(Chunk::Text(text)) => content.push_str(&text),
                Next::Chunk(Chunk::Void) => {
                    content.truncate(last.0);
                    thought.truncate(last.1);
                    self.said.0 = !content.is_empty();
                }
                Next::Chunk(Chunk::Reasoning(text)) => thought.push_str(&text),
                Next::Chunk(Chunk::Ends(_)) => {}
                Next::End(usage) => {
                    let reasoning = Some(thought).filter(|thought| !thought.is_empty());
                    let said = Said { content, reasoning, ..Said::default() };
                    return Ok(self.head.completion(said, self.finish(), Some(usage)));
                }
            }
        }
    }

    /// The next chunk; `None`: that was all.
    async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(chunk);
            }
            if self.over {
                return None;
            }
            let cut = self.cut.clone();
            let next = tokio::select! {
                biased;
                next = tokio::time::timeout(sse::HEARTBEAT, self.next()) => next,
                () = cut.cancelled() => Ok(Err(Problem::stopping())),
            };
            match next {
                Ok(Ok(next)) => self.shows(next),
                Ok(Err(problem)) => {
                    self.ready.push_back(answer::failure(&problem));
                    self.over = true;
                }
                Err(_) => return Some(sse::COMMENT),
            }
        }
    }

    fn push(&mut self, delta: &impl Serialize, finish: Option<&str>) {
        self.ready.push_back(self.head.chunk(delta, finish, self.usage));
    }

    fn shows(&mut self, next: Next) {
        match next {
            Next::Chunk(Chunk::Begins | Chunk::Ends(_)) => {}
            // If the run fails now, that is what its reader is told.
            Next::Chunk(Chunk::Void) => self.void = true,
            _ if self.void => {
                self.over = true;
                self.ready.push_back(answer::failure(&Problem::TakenBack(self.run.clone())));
            }
            Next::Chunk(Chunk::Text(text)) => self.push(&Piece::Text(&text), None),
            Next::Chunk(Chunk::Reasoning(text)) => self.push(&Piece::Reasoning(&text), None),
            Next::End(usage) => {
                self.over = true;
                self.push(&json!({}), Some(self.finish()));
                if self.usage {
                    self.ready.push_back(self.head.usage(Some(usage)));
                }
                self.ready.push_back(answer::DONE);
            }
        }
    }
}
