//! `Idempotency-Key`: sending a POST twice does it once.
//!
//! Invariants:
//! - The same owner, key and path is answered once; later requests get that answer again, 409
//!   while it is being made, 422 if their body differs.
//! - A request with a key is answered to its end even if its caller leaves.
//! - The run that such a request begins takes its id from the key ([`Once::run_id`]), so that a
//!   process that dies before the answer is kept begins no second run.
//! - Refusals that began nothing are not kept: the corrected request may use the key again.
//! - A secret is never kept: see [`Problem::SecretShown`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use exile_engine::env::Env;
use exile_engine::id::{InputId, MessageId, RunId, UserId};
use exile_engine::journal::BlobId;
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use crate::access::Caller;
use crate::app::App;
use crate::body;
use crate::leaving::Leaving;
use crate::problem::{Problem, RUN_HEADER};
use crate::sse;
use crate::store::{Idempotent, StoredAnswer};

const HEADER: &str = "idempotency-key";
/// Longest answer that is kept, in bytes; far above any that a POST gives.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// What makes a request the same as an earlier one; empty without a key.
#[derive(Clone, Debug, Default)]
pub struct Once(Option<Arc<str>>);

impl Once {
    /// A new run's id: derived from the key, if there is one.
    #[must_use]
    pub fn run_id(&self, env: &dyn Env) -> RunId {
        match &self.0 {
            None => RunId::new(env),
            Some(digest) => RunId::from(format!("{}_{}", RunId::PREFIX, &digest[..32])),
        }
    }

    /// The id of what is sent to a run: derived from the key, if there is one.
    #[must_use]
    pub fn input_id(&self, env: &dyn Env) -> InputId {
        match &self.0 {
            None => InputId::new(env),
            Some(digest) => InputId::from(format!("{}_{}", InputId::PREFIX, &digest[..32])),
        }
    }

    /// The id of the message that the request sends: derived from the key, if there is one.
    #[must_use]
    pub fn message_id(&self, env: &dyn Env) -> MessageId {
        match &self.0 {
            None => MessageId::new(env),
            Some(digest) => MessageId::from(format!("{}_{}", MessageId::PREFIX, &digest[..32])),
        }
    }

    /// Whether the request may be a repetition.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        self.0.is_some()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Once {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// One request's place among the kept answers.
#[derive(Clone)]
struct Slot {
    app: Arc<App>,
    owner: UserId,
    key: String,
    route: String,
}

/// Answers a POST with a key once.
pub async fn once(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let keyed = request.method() == Method::POST && request.headers().contains_key(HEADER);
    let caller = request.extensions().get::<Caller>().map(|c| c.user.id.clone());
    match caller {
        Some(owner) if keyed => {
            let answer = answer(app, owner, request, next).await;
            answer.unwrap_or_else(Problem::into_response)
        }
        _ => next.run(request).await,
    }
}

async fn answer(
    app: Arc<App>,
    owner: UserId,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let key = key(request.headers())?;
    let route = format!("{} {}", request.method(), request.uri().path());
    let (mut parts, body) = request.into_parts();
    let bytes = body::read(body::limit(parts.uri.path()), &parts.headers, body).await?;
    let slot = Slot { app, owner, key, route };
    let store = &slot.app.store;
    let digest = BlobId::of(&bytes).0;
    match store.begin_idempotent(&slot.owner, &slot.key, &slot.route, &digest).await? {
        Idempotent::Replay(answer) => replay(&slot, answer).await,
        Idempotent::InFlight => Err(Problem::InFlight),
        Idempotent::Mismatch => Err(Problem::KeyReused),
        Idempotent::Fresh => {
            parts.extensions.insert(slot.once());
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
    fn once(&self) -> Once {
        let text = format!("{}\0{}\0{}", self.owner, self.route, self.key);
        let digest = BlobId::of(text.as_bytes()).0;
        Once(Some(digest.trim_start_matches("sha256:").into()))
    }

    /// Keeps the answer, or gives the key free.
    async fn settle(&self, response: Response) -> Response {
        let kept = match split(response).await {
            Ok((Some(answer), response)) => (self.keep(answer).await, response),
            Ok((None, response)) => (self.abandon().await, response),
            Err(problem) => (self.abandon().await, problem.into_response()),
        };
        match kept {
            (Ok(()), response) => response,
            (Err(problem), _) => problem.into_response(),
        }
    }

    async fn keep(&self, answer: StoredAnswer) -> Result<(), Problem> {
        let Self { app, owner, key, route } = self;
        Ok(app.store.finish_idempotent(owner, key, route, answer).await?)
    }

    async fn abandon(&self) -> Result<(), Problem> {
        let Self { app, owner, key, route } = self;
        Ok(app.store.abandon_idempotent(owner, key, route).await?)
    }
}

/// What of a response is kept, and the response itself.
async fn split(response: Response) -> Result<(Option<StoredAnswer>, Response), Problem> {
    let (parts, body) = response.into_parts();
    let status = parts.status.as_u16();
    if !parts.status.is_success() && !parts.headers.contains_key(RUN_HEADER) {
        return Ok((None, Response::from_parts(parts, body)));
    }
    let kept = [
        header::CONTENT_TYPE,
        header::LOCATION,
        RUN_HEADER,
        sse::AFTER_HEADER,
        header::CACHE_CONTROL,
    ];
    let text = |name: &header::HeaderName| {
        let value = parts.headers.get(name)?.to_str().ok()?;
        Some((name.to_string(), value.to_owned()))
    };
    let headers: Vec<(String, String)> = kept.iter().filter_map(text).collect();
    if is_stream(&headers) || is_secret(&headers) {
        // A stream is made again from its run; a secret is not made again.
        let answer = StoredAnswer { status, headers, body: Vec::new() };
        return Ok((Some(answer), Response::from_parts(parts, body)));
    }
    let bytes = axum::body::to_bytes(body, ANSWER_LIMIT)
        .await
        .map_err(|e| Problem::Internal(format!("an answer cannot be kept: {e}")))?;
    let answer = StoredAnswer { status, headers, body: bytes.to_vec() };
    Ok((Some(answer), Response::from_parts(parts, Body::from(bytes))))
}

fn is_stream(headers: &[(String, String)]) -> bool {
    headers.iter().any(|(n, v)| n == "content-type" && v.starts_with("text/event-stream"))
}

fn is_secret(headers: &[(String, String)]) -> bool {
    headers.iter().any(|(n, v)| n == "cache-control" && v == "no-store")
}

async fn replay(slot: &Slot, answer: StoredAnswer) -> Result<Response, Problem> {
    if is_secret(&answer.headers) {
        return Err(Problem::SecretShown);
    }
    if is_stream(&answer.headers) {
        let header = |name: &header::HeaderName| {
            answer.headers.iter().find(|(n, _)| *n == name.as_str()).map(|(_, v)| v.as_str())
        };
        let run = header(&RUN_HEADER).map(RunId::from).ok_or(Problem::NotFound)?;
        let after = header(&sse::AFTER_HEADER).and_then(|after| after.parse().ok()).unwrap_or(0);
        let row = slot.app.store.run(&slot.owner, &run).await?.ok_or(Problem::NotFound)?;
        return Ok(sse::stream(&slot.app, row.id, after, Leaving::free()));
    }
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response
        .body(Body::from(answer.body))
        .map_err(|e| Problem::Internal(format!("a kept answer cannot be read: {e}")))
}
