//! What of an answer is kept, so that it can be given again as it was.
//!
//! Invariants:
//! - A stream of a run's events is not kept: it is made again from the run's records. Every other
//!   answer is kept byte for byte, a stream while it is sent, up to `limits.kept_answer`.
//! - Whoever has read an answer to its end finds it kept.
//! - A stream with a key is read to its end even if its reader leaves.
//! - A secret is never kept.

use std::panic::AssertUnwindSafe;

use axum::body::{Body, Bytes};
use axum::http::response::Parts;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::Slot;
use crate::http::problem::Problem;
use crate::http::sse;
use crate::store::StoredAnswer;

/// Pieces of a stream that wait for a slow reader.
const PIECES: usize = 16;

/// Headers that are not repeated: they are made anew with each answer, or hold a secret.
const LEFT_OUT: [HeaderName; 5] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::DATE,
    header::SET_COOKIE,
];

/// How an answer is given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not at all.
    Secret,
    /// From the records of its run.
    Events,
    /// From the bytes that were kept.
    Bytes,
}

impl Kind {
    pub(super) fn of(headers: &[(String, String)]) -> Self {
        let find = |name: &HeaderName| headers.iter().find(|(n, _)| *n == name.as_str());
        let says = |name, what: &str| find(name).is_some_and(|(_, v)| v.starts_with(what));
        if says(&header::CACHE_CONTROL, "no-store") {
            Self::Secret
        } else if says(&header::CONTENT_TYPE, "text/event-stream")
            && find(&sse::AFTER_HEADER).is_some()
        {
            Self::Events
        } else {
            Self::Bytes
        }
    }
}

/// A header of a kept answer.
pub(super) fn header<'a>(answer: &'a StoredAnswer, name: &HeaderName) -> Option<&'a str> {
    answer.headers.iter().find(|(n, _)| *n == name.as_str()).map(|(_, v)| v.as_str())
}

/// Keeps an answer, and gives it.
pub(super) async fn keep(slot: Slot, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let (status, headers) = (parts.status.as_u16(), kept_headers(&parts));
    let answer = StoredAnswer { status, headers, body: None };
    let streams = header(&answer, &header::CONTENT_TYPE)
        .is_some_and(|kind| kind.starts_with("text/event-stream"));
    let body = match Kind::of(&answer.headers) {
        Kind::Secret | Kind::Events => slot.keep(answer).await.map(|()| body),
        Kind::Bytes if streams => Ok(keep_while_sent(slot, answer, body)),
        Kind::Bytes => keep_whole(&slot, answer, body).await,
    };
    match body {
        Ok(body) => Response::from_parts(parts, body),
        Err(problem) => problem.into_response(),
    }
}

fn kept_headers(parts: &Parts) -> Vec<(String, String)> {
    let kept = parts.headers.iter().filter(|(name, _)| !LEFT_OUT.contains(name));
    kept.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}

/// The bytes of a body, as far as they are kept.
struct Kept {
    /// `None`: there were more than are kept.
    bytes: Option<Vec<u8>>,
    limit: usize,
}

impl Kept {
    fn new(slot: &Slot) -> Self {
        Self { bytes: Some(Vec::new()), limit: slot.app.settings.limits.kept_answer }
    }

    fn add(&mut self, piece: &[u8]) {
        let limit = self.limit;
        self.bytes = self.bytes.take().filter(|bytes| bytes.len() + piece.len() <= limit);
        if let Some(bytes) = &mut self.bytes {
            bytes.extend_from_slice(piece);
        }
    }
}

/// Keeps a body before any of it is sent. One that is too long to be kept is sent all the same.
async fn keep_whole(slot: &Slot, answer: StoredAnswer, body: Body) -> Result<Body, Problem> {
    let mut rest = body.into_data_stream();
    let (mut kept, mut read) = (Kept::new(slot), Vec::new());
    while kept.bytes.is_some() {
        match rest.next().await {
            Some(Ok(piece)) => {
                kept.add(&piece);
                read.push(piece);
            }
            Some(Err(error)) => {
                slot.release().await?;
                return Err(Problem::Internal(format!("an answer broke off: {error}")));
            }
            None => break,
        }
    }
    let whole = kept.bytes.is_some();
    slot.keep(StoredAnswer { body: kept.bytes, ..answer }).await?;
    Ok(match read.pop() {
        Some(only) if whole && read.is_empty() => Body::from(only),
        last => {
            read.extend(last);
            let read = stream::iter(read.into_iter().map(Ok));
            Body::from_stream(read.chain(rest))
        }
    })
}

/// Keeps a stream while it is sent.
fn keep_while_sent(slot: Slot, answer: StoredAnswer, body: Body) -> Body {
    let (sender, receiver) = mpsc::channel(PIECES);
    let work = async move {
        let reading = AssertUnwindSafe(forward(body, &sender, Kept::new(&slot)));
        let settled = match reading.catch_unwind().await {
            Ok(Some(kept)) => slot.keep(StoredAnswer { body: kept.bytes, ..answer }).await,
            Ok(None) | Err(_) => slot.release().await,
        };
        if let Err(error) = settled {
            tracing::warn!(%error, "the answer to an Idempotency-Key was not kept");
        }
        // Only now does the stream end: whoever repeats the request at once finds it kept.
        drop(sender);
    };
    tokio::spawn(work.in_current_span());
    Body::from_stream(stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    }))
}

/// Sends a stream on, to its end; `None`: it broke off.
async fn forward(
    body: Body,
    sender: &mpsc::Sender<Result<Bytes, axum::Error>>,
    mut kept: Kept,
) -> Option<Kept> {
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let broken = piece.is_err();
        if let Ok(piece) = &piece {
            kept.add(piece);
        }
        // A reader that left does not end the answer.
        let _ = sender.send(piece).await;
        if broken {
            return None;
        }
    }
    Some(kept)
}
