//! `Idempotency-Key`: sending a POST twice does it once.
//!
//! Invariants:
//! - The same owner, key and path is answered once; later requests get that answer again, 409
//!   while it is being made, 422 if their body differs. This lasts for 24 hours
//!   (`store/idempotency.rs`); a key that is used after that begins something new.
//! - A request with a key is answered to its end even if its caller leaves.
//! - What such a request begins takes its ids from the key, from this use of it and from the body
//!   ([`IdempotencyKey`]), so that a process that dies before the answer is kept begins no second run, and no
//!   other body and no later use of the key is ever taken for this one.
//! - Refusals that began nothing are not kept: the corrected request may use the key again. What
//!   failed for exile's own reasons may have begun something: the same body goes on from there.
//! - An answer is repeated as it was: byte for byte if it was kept (`kept.rs`), from the run's
//!   records if it was a stream of a run's events, and else refused by name
//!   ([`Problem::AnswerNotKept`], [`Problem::SecretShown`]).

mod kept;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use exile_engine::id::RunId;
use exile_engine::journal::BlobId;
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use crate::http::app::App;
use crate::http::auth::{Caller, reach};
use crate::http::body;
use crate::http::problem::{Problem, RUN_HEADER};
use crate::http::sse;
use crate::runs::IdempotencyKey;
use crate::runs::disconnect::CancelOnDisconnect;
use crate::store::{Idempotent, KeyUse, StoredAnswer};

const HEADER: &str = "idempotency-key";
/// A header that decides what a request does, as its body does.
const BUSINESS: &str = "x-exile-business";

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// One use of a key that is being answered.
#[derive(Clone)]
struct Slot {
    app: Arc<App>,
    used: KeyUse,
    generation: String,
}

/// Answers a POST with a key once.
pub async fn answer_once(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let keyed = request.method() == Method::POST && request.headers().contains_key(HEADER);
    let caller = request.extensions().get::<Caller>().cloned();
    match caller {
        Some(caller) if keyed => {
            let answer = answer(app, caller, request, next).await;
            answer.unwrap_or_else(Problem::into_response)
        }
        _ => next.run(request).await,
    }
}

async fn answer(
    app: Arc<App>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let key = key(request.headers())?;
    let route = format!("{} {}", request.method(), request.uri().path());
    let (mut parts, body) = request.into_parts();
    let bytes = body::read(&app, &parts, body).await?;
    let (bytes, id) = body::apart(bytes, |bytes| Ok(BlobId::of(bytes))).await?;
    let owner = caller.id().clone();
    let used = KeyUse { owner, key, route, body: digest(&parts, &id) };
    match app.store.begin_idempotent(&used).await? {
        Idempotent::Replay(answer) => repeat(&app, &caller, answer).await,
        Idempotent::InFlight => Err(Problem::InFlight),
        Idempotent::Mismatch => Err(Problem::KeyReused),
        Idempotent::Fresh { generation } => {
            parts.extensions.insert(IdempotencyKey::of(&used, &generation));
            let slot = Slot { app, used, generation };
            let request = Request::from_parts(parts, Body::from(bytes));
            let work = async move {
                let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
                let response = answered.unwrap_or_else(|_| {
                    Problem::Internal("a handler panicked".into()).into_response()
                });
                slot.settle(response).await
            };
            // A task of its own: a caller who leaves must not leave the key in flight.
            match tokio::spawn(work.in_current_span()).await {
                Ok(response) => Ok(response),
                Err(error) => Err(Problem::Internal(error.to_string())),
            }
        }
    }
}

/// The digest of all that decides what a request does: its body, and what may stand beside it.
fn digest(parts: &Parts, body: &BlobId) -> String {
    let business = parts.headers.get(BUSINESS).map(axum::http::HeaderValue::as_bytes);
    let (query, business) = (parts.uri.query().unwrap_or_default(), business.unwrap_or_default());
    if query.is_empty() && business.is_empty() {
        return body.0.to_string();
    }
    let all = [query.as_bytes(), business, body.0.as_bytes()].join(&0);
    BlobId::of(&all).0.to_string()
}

fn key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let value = values.next().and_then(|v| v.to_str().ok()).unwrap_or_default();
    if value.is_empty() || value.len() > 255 || values.next().is_some() {
        let what = "Idempotency-Key must be one value of 1 to 255 visible ASCII characters";
        return Err(Problem::Unreadable(what.into()));
    }
    Ok(value.to_owned())
}

impl Slot {
    /// Keeps the answer, or gives the key free. What is refused for the caller's reasons before a
    /// run has begun has begun nothing.
    async fn settle(self, response: Response) -> Response {
        let about_run = response.headers().contains_key(RUN_HEADER);
        if response.status().is_success() || about_run {
            return kept::keep(self, response).await;
        }
        let Self { app, used, generation } = &self;
        let given = if response.status().is_server_error() {
            app.store.release_idempotent(used, generation).await
        } else {
            app.store.abandon_idempotent(used, generation).await
        };
        match given {
            Ok(()) => response,
            Err(error) => Problem::from(error).into_response(),
        }
    }

    async fn keep(&self, answer: StoredAnswer) -> Result<(), Problem> {
        let Self { app, used, generation } = self;
        Ok(app.store.finish_idempotent(used, generation, answer).await?)
    }

    /// The answer broke off: the same request may be sent again.
    async fn release(&self) -> Result<(), Problem> {
        let Self { app, used, generation } = self;
        Ok(app.store.release_idempotent(used, generation).await?)
    }
}

/// Gives an answer again.
async fn repeat(app: &App, caller: &Caller, answer: StoredAnswer) -> Result<Response, Problem> {
    let run = kept::header(&answer, &RUN_HEADER).map(RunId::from);
    match kept::Kind::of(&answer.headers) {
        kept::Kind::Secret => return Err(Problem::SecretShown),
        kept::Kind::Events => {
            let run = run.ok_or(Problem::NotFound)?;
            let after = kept::header(&answer, &sse::AFTER_HEADER).and_then(|n| n.parse().ok());
            let row = reach::run_again(app, caller, &run).await?;
            return Ok(sse::stream(app, row.id, after.unwrap_or(0), CancelOnDisconnect::free()));
        }
        kept::Kind::Bytes => {}
    }
    let body = answer.body.ok_or(Problem::AnswerNotKept { run })?;
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response
        .body(Body::from(body))
        .map_err(|e| Problem::Internal(format!("a kept answer cannot be read: {e}")))
}
