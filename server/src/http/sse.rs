//! A run's events as server-sent events.
//!
//! Invariants:
//! - `id` is the event's number and rises; `event` its name; `data` one line of JSON.
//! - A reader that leaves stops nothing: the stream only reads.
//! - A stream that cannot go on, because the store or the server ends, breaks the connection, so
//!   that the reader comes back with `Last-Event-ID`; it never ends as if the run had.
//! - An event is made when its reader has taken the one before: nothing is kept for who is slow.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use exile_engine::id::RunId;
use exile_engine::journal::JournalError;
use exile_engine::run::engine::Engine;
use exile_engine::run::event::Event;
use exile_engine::run::record::Number;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio_util::sync::CancellationToken;

use crate::http::app::App;
use crate::http::problem::{Problem, RUN_HEADER};
use crate::runs::disconnect::CancelOnDisconnect;
use crate::runs::events::with_output;

/// The header that names the number beyond which a stream begins.
pub const AFTER_HEADER: HeaderName = HeaderName::from_static("x-exile-after");

/// How often a silent stream shows that it is alive.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Why a stream breaks off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the server ends")]
    Stopping,
}

/// A run's events on their way to a reader.
struct Reading {
    events: BoxStream<'static, Result<Event, JournalError>>,
    engine: Arc<Engine>,
    run: RunId,
    /// No run goes on here any more.
    readers: CancellationToken,
    on_leave: CancelOnDisconnect,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Frame, Broken>> {
        let event = tokio::select! {
            biased;
            event = self.events.next() => event?,
            () = self.readers.cancelled() => return Some(Err(Broken::Stopping)),
        };
        if event.as_ref().is_ok_and(Event::ends_stream) {
            self.on_leave.over();
        }
        let event = match event {
            Ok(event) => with_output(&self.engine, &self.run, event).await,
            Err(error) => Err(error),
        };
        let event = event.inspect_err(|e| tracing::error!(error = %e, "a stream broke off"));
        Some(event.map(|event| frame(&event)).map_err(Broken::from))
    }
}

/// The run's events after a number, until it ends or waits. `on_leave`: what the reader wants of
/// the run if it leaves before.
pub fn stream(app: &App, run: RunId, after: Number, on_leave: CancelOnDisconnect) -> Response {
    let location = format!("/api/runs/{run}");
    let name = run.to_string();
    let readers = app.transport.readers.clone();
    let (engine, events) = (app.engine.clone(), app.engine.events(run.clone(), after));
    let reading = Reading { events, engine, run, readers, on_leave };
    let events = stream::unfold(reading, |mut reading| async move {
        let frame = reading.next().await?;
        Some((frame, reading))
    });
    let alive = KeepAlive::new().interval(HEARTBEAT);
    let mut response = Sse::new(events).keep_alive(alive).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    let all = [(header::LOCATION, location), (RUN_HEADER, name), (AFTER_HEADER, after.to_string())];
    for (header, value) in all {
        // An id from a path may hold what no header can; the caller knows it then.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(header, value);
        }
    }
    response
}

fn frame(event: &Event) -> Frame {
    Frame::default().id(event.number.to_string()).event(event.name).data(event.data.to_string())
}

/// A comment, which readers pass over.
pub const COMMENT: Bytes = Bytes::from_static(b": alive\n\n");

/// Events that are written already, as an answer.
#[must_use]
pub fn raw(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

/// Whether the request asks for a stream (`Accept: text/event-stream`).
pub struct Accepts(pub bool);

impl<S: Send + Sync> FromRequestParts<S> for Accepts {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let all = parts.headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
        let mut kinds = all.flat_map(|v| v.split(',')).filter_map(|k| k.split(';').next());
        Ok(Self(kinds.any(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))))
    }
}

/// Where a returning reader stands: `Last-Event-ID`, else `?after=`, else the beginning.
pub fn position(headers: &HeaderMap, after: Option<Number>) -> Result<Number, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(after.unwrap_or(0)) };
    let number = value.to_str().ok().and_then(|v| v.trim().parse().ok());
    number.ok_or_else(|| Problem::Unreadable("Last-Event-ID is not a number".into()))
}
