//! Bodies of requests: bounded, declared as JSON, not too deep, without NUL and unknown fields.
//!
//! Invariants:
//! - Nothing is read beyond [`LIMIT`] ([`PICTURES_LIMIT`] where pictures may stand) into memory,
//!   whatever the headers say.
//! - A refused body stores nothing: handlers run only once the whole body is a value of their
//!   type.
//! - Every type that stands in [`JsonBody`] denies unknown fields; a bare value under `/v1` is read
//!   field by field (`openai/fields.rs`).

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::problem::Problem;

/// Longest body, in bytes.
pub const LIMIT: usize = 1024 * 1024;
/// Longest body that may hold pictures, in bytes.
pub const PICTURES_LIMIT: usize = 32 * 1024 * 1024;
/// Deepest nesting of JSON.
pub const DEPTH: usize = 64;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of a body that is refused for its length is read and thrown away, so that the client
/// gets to read the refusal instead of a broken connection.
const DRAIN: usize = 64 * 1024 * 1024;

/// A body of JSON.
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(limit(parts.uri.path()), &parts.headers, body).await?;
        let declared = parts.headers.get(header::CONTENT_TYPE);
        match declared.map(|v| v.to_str().unwrap_or_default()) {
            None if bytes.is_empty() => return parse(b"{}").map(Self),
            Some(declared) if is_json(declared) => {}
            other => return Err(Problem::MediaType(other.unwrap_or_default().to_owned())),
        }
        parse(&bytes).map(Self)
    }
}

fn is_json(declared: &str) -> bool {
    let essence = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// How long the body of a request to `path` may be, in bytes.
#[must_use]
pub fn limit(path: &str) -> usize {
    if path.starts_with("/v1/") { PICTURES_LIMIT } else { LIMIT }
}

/// Reads a whole body of at most `limit` bytes.
pub async fn read(limit: usize, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let number = |v: &header::HeaderValue| v.to_str().ok().and_then(|v| v.parse::<u64>().ok());
    let declared = headers.get(header::CONTENT_LENGTH).and_then(number);
    let too_long = declared.is_some_and(|n| n > limit as u64);
    if too_long && headers.contains_key(header::EXPECT) {
        // The client asked first and has sent nothing yet.
        return Err(Problem::TooLarge { limit });
    }
    let reading = collect(limit, body.into_data_stream());
    let late = |_| Problem::BodyTimeout(PATIENCE.as_secs());
    tokio::time::timeout(PATIENCE, reading).await.map_err(late)?
}

async fn collect(limit: usize, mut stream: BodyDataStream) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|e| Problem::Unreadable(format!("the body broke off: {e}")))?;
        if bytes.len() + piece.len() > limit {
            drain(stream).await;
            return Err(Problem::TooLarge { limit });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

async fn drain(mut stream: BodyDataStream) {
    let mut left = DRAIN;
    while let Some(Ok(piece)) = stream.next().await {
        match left.checked_sub(piece.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Reads one JSON object of a type.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    check_text(bytes)?;
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
            Category::Data => Problem::Field {
                what: if field == "." { error.to_string() } else { format!("{field}: {error}") },
                field: if field == "." { String::new() } else { field },
            },
            Category::Io | Category::Syntax | Category::Eof => {
                Problem::Malformed(error.to_string())
            }
        }
    })?;
    json.end().map_err(|error| Problem::Malformed(error.to_string()))?;
    Ok(value)
}

/// Counts brackets outside strings and looks for NUL inside: C libraries, terminals and PostgreSQL
/// end a text there. What is no JSON at all is found by the parser afterwards.
fn check_text(bytes: &[u8]) -> Result<(), Problem> {
    let (mut depth, mut line, mut start) = (0_usize, 1, 0);
    let (mut quoted, mut escaped) = (false, false);
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            b'u' if escaped && bytes[i + 1..].starts_with(b"0000") => {
                return Err(Problem::Nul { line, column: i - start });
            }
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            b'\n' => (line, start) = (line + 1, i + 1),
            _ => {}
        }
        if depth > DEPTH {
            return Err(Problem::TooDeep { limit: DEPTH, line, column: i - start + 1 });
        }
    }
    Ok(())
}
