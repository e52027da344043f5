//! Bodies of requests: bounded, declared as JSON, not too deep, without NUL and unknown fields.
//!
//! Invariants:
//! - Nothing is read beyond the limit of its path into memory, whatever the headers say, and
//!   nothing above [`FREE`] before there is room for it.
//! - What a body holds is counted before it is parsed, and a large one is parsed apart from the
//!   threads that answer others.
//! - A refused body stores nothing: handlers run only once the whole body is a value of their
//!   type.
//! - Every type that stands in [`JsonBody`] denies unknown fields; a bare value under `/v1` is read
//!   field by field (`openai/fields.rs`).

use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use exile_engine::json::{self, Bounds, Scanned};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::config::TransportLimits;
use crate::http::admission::{FREE, Room};
use crate::http::app::App;
use crate::http::problem::Problem;
use crate::runs::input::mistake;

/// A body of JSON.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(app, &parts, body).await?;
        let declared = parts.headers.get(header::CONTENT_TYPE);
        match declared.map(|v| v.to_str().unwrap_or_default()) {
            None if bytes.is_empty() => return parse(b"{}").map(Self),
            Some(declared) if is_json(declared) => {}
            other => return Err(Problem::MediaType(other.unwrap_or_default().to_owned())),
        }
        let bounds = app.catalog.limits.json;
        let (bytes, scanned) = apart(bytes, move |bytes| scan(bytes, bounds)).await?;
        let room = room_of(&parts);
        app.transport.admission.hold_values(&room, bytes.len(), scanned.values).await?;
        let (_, value) = apart(bytes, parse).await?;
        Ok(Self(value))
    }
}

fn is_json(declared: &str) -> bool {
    let essence = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The room that a request may take.
fn room_of(parts: &Parts) -> Room {
    parts.extensions.get::<Room>().cloned().unwrap_or_default()
}

/// Works on bytes: on a thread of its own if there are many, so that others are answered meanwhile.
pub async fn apart<T: Send + 'static>(
    bytes: Bytes,
    work: impl FnOnce(&[u8]) -> Result<T, Problem> + Send + 'static,
) -> Result<(Bytes, T), Problem> {
    if bytes.len() <= FREE {
        let done = work(&bytes)?;
        return Ok((bytes, done));
    }
    let done = tokio::task::spawn_blocking(move || work(&bytes).map(|done| (bytes, done))).await;
    done.map_err(|error| Problem::Internal(format!("a body could not be worked on: {error}")))?
}

/// How long the body of a request to `path` may be, in bytes.
fn limit(path: &str, limits: &TransportLimits) -> usize {
    let within = |before: &str, after: &str| {
        path.strip_prefix(before).is_some_and(|rest| rest.ends_with(after))
    };
    let holds_documents = within("/v1/", "")
        || within("/api/runs", "")
        || within("/api/conversations/", "/messages")
        || within("/api/tools/", "/call");
    if holds_documents { limits.body } else { limits.small_body }
}

/// Reads the whole body of a request, once there is room for it.
///
/// # Errors
/// It is too long, there was no room for it in time, or it did not come in time.
pub async fn read(app: &App, parts: &Parts, body: Body) -> Result<Bytes, Problem> {
    let limits = &app.settings.limits.transport;
    let limit = limit(parts.uri.path(), limits);
    let declared = declared_length(&parts.headers);
    let mut stream = body.into_data_stream();
    let room = room_of(parts);
    let refused = match declared {
        Some(length) if length > limit => Err(Problem::TooLarge { limit }),
        Some(length) => app.transport.admission.hold_bytes(&room, length).await,
        None => Ok(()),
    };
    if let Err(problem) = refused {
        // A client that asked first has sent nothing yet.
        if !parts.headers.contains_key(header::EXPECT) {
            drain(limits, stream).await;
        }
        return Err(problem);
    }
    let reading = async {
        let mut collected = Collected::default();
        while let Some(piece) = stream.next().await {
            let piece =
                piece.map_err(|e| Problem::Unreadable(format!("the body broke off: {e}")))?;
            let length = collected.len() + piece.len();
            if length > limit {
                return Err(Problem::TooLarge { limit });
            }
            if declared.is_none() && collected.len() <= FREE && length > FREE {
                // It does not say how long it will be: room for the longest, until it has ended.
                app.transport.admission.hold_bytes(&room, limit).await?;
            }
            collected.push(piece, declared.unwrap_or(0).max(length));
        }
        if declared.is_none() && collected.len() > FREE {
            room.shrink(collected.len());
        }
        Ok(collected.into_bytes())
    };
    let late = |_| Problem::BodyTimeout(limits.body_timeout);
    let read = tokio::time::timeout(limits.body_timeout, reading).await.map_err(late)?;
    if read.is_err() {
        drain(limits, stream).await;
    }
    read
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What came of a body. A body in one piece is not copied.
#[derive(Default)]
struct Collected {
    first: Bytes,
    all: Vec<u8>,
}

impl Collected {
    fn len(&self) -> usize {
        self.first.len().max(self.all.len())
    }

    /// `expected`: how long the whole will be, as far as that is known.
    fn push(&mut self, piece: Bytes, expected: usize) {
        if self.len() == 0 {
            self.first = piece;
            return;
        }
        if self.all.is_empty() {
            self.all.reserve_exact(expected);
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&piece);
    }

    fn into_bytes(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.into() }
    }
}

/// Reads what is left of a refused body and throws it away, so that its sender gets to read the
/// refusal instead of a broken connection.
async fn drain(limits: &TransportLimits, mut stream: BodyDataStream) {
    let mut left = limits.refused_body;
    let draining = async {
        while let Some(Ok(piece)) = stream.next().await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // A body that does not come to its end is left alone.
    let _ = tokio::time::timeout(limits.body_timeout, draining).await;
}

/// Reads one JSON object of a type.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        // Without this a list would be read as the fields of an object, in their order.
        let what = "the body must be an object, not a list".into();
        return Err(Problem::Field { field: String::new(), what });
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let error = error.into_inner();
        match error.classify() {
            Category::Data => {
                let (field, what) = match &*field {
                    "." => (String::new(), mistake(&error)),
                    _ => (field.clone(), format!("{field}: {}", mistake(&error))),
                };
                Problem::Field { field, what }
            }
            Category::Io | Category::Syntax | Category::Eof => {
                Problem::Malformed(error.to_string())
            }
        }
    })?;
    json.end().map_err(|error| Problem::Malformed(error.to_string()))?;
    Ok(value)
}

/// Looks for what is refused before it is parsed. NUL is: C libraries, terminals and PostgreSQL end
/// a text there.
fn scan(bytes: &[u8], bounds: Bounds) -> Result<Scanned, Problem> {
    let scanned = json::scan(bytes, bounds)?;
    match scanned.nul {
        Some(place) => Err(Problem::Nul(place)),
        None => Ok(scanned),
    }
}
