//! A model is asked, and its answer passed on: no run, no journal.
//!
//! Invariants:
//! - Until the first piece of an answer nothing is sent, so that a failure has its HTTP status.
//! - A server that has waited for a call for long enough at its end drops it, and settles what it spent.
//! - A piece without text is not passed on, and nobody waits for one.
//! - A client that leaves drops the call, which closes the connection to the model.
//! - A stream never begins an answer anew: what `after_first_token: restart` asks for is done only
//!   where nobody has seen the beginning.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use exile_engine::model::asking::{Asked, Asker};
use exile_engine::model::meter::Payer;
use exile_engine::model::{AfterFirstToken, Chain, Delta, ModelRef, ModelRequest};
use futures_util::future::BoxFuture;
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Head, Piece, Said};
use crate::http::app::App;
use crate::http::problem::Problem;
use crate::http::sse;

/// Pieces that wait for a slow client before the reading of the model stops.
const PIECES: usize = 16;

/// Whoever asks for a client.
struct Client {
    payer: Payer,
    /// `None`: the answer is wanted whole.
    pieces: Option<mpsc::Sender<Delta>>,
    /// Pieces without text that came one after the other.
    empty: AtomicU32,
}

impl Client {
    fn new(payer: Payer, pieces: Option<mpsc::Sender<Delta>>) -> Self {
        Self { payer, pieces, empty: AtomicU32::new(0) }
    }
}

/// Pieces without text that are passed over at once. Models send a few; one that sends nothing
/// else is read slowly, so that it keeps no core busy.
const EMPTY: u32 = 64;
/// How long the reading rests at each further one.
const REST: Duration = Duration::from_millis(10);

#[async_trait]
impl Asker for Client {
    fn conversation(&self) -> Option<&str> {
        None
    }

    fn payer(&self) -> Payer {
        self.payer.clone()
    }

    fn has_time(&self, _: Duration, _: Duration) -> bool {
        true
    }

    async fn again(&self, _: &ModelRef) {}

    async fn piece(&self, delta: Delta) {
        if text(&delta).is_empty() {
            if self.empty.fetch_add(1, Ordering::Relaxed) >= EMPTY {
                tokio::time::sleep(REST).await;
            }
            return;
        }
        self.empty.store(0, Ordering::Relaxed);
        if let Some(pieces) = &self.pieces
            && pieces.send(delta).await.is_err()
        {
            // The client is gone, and this call with it.
            std::future::pending::<()>().await;
        }
    }
}

/// What a piece says.
fn text(delta: &Delta) -> &str {
    match delta {
        Delta::Text(text) | Delta::Reasoning(text) | Delta::Refusal(text) => text,
    }
}

/// Asks and answers. `streams`: in chunks; `usage`: whether these tell the tokens.
///
/// # Errors
/// No model of the chain can do what the request needs, or all that were asked failed before the
/// first piece.
pub async fn pass(
    app: &Arc<App>,
    payer: Payer,
    chain: Chain,
    request: ModelRequest,
    (streams, usage): (bool, bool),
) -> Result<Response, Problem> {
    let models = app.catalog.models.able(chain.models, &request).map_err(Problem::Model)?;
    let created = app.env.now().as_second();
    let id = format!("chatcmpl-{}", app.env.uuid().simple());
    let named = |model: String| Head { id, created, model };
    if !streams {
        let chain = Chain { models, ..chain };
        let client = Client::new(payer, None);
        let asked = app.catalog.models.ask(&*app.env, &client, chain, request).await;
        let answered = asked.outcome.map_err(|failed| Problem::Model(failed.error))?;
        let (said, reply) = (Said::from(&answered.reply), &answered.reply);
        let head = named(answered.model.to_string());
        let body = head.completion(said, answer::finish(reply), reply.usage);
        return Ok(Json(body).into_response());
    }
    let head = named(models.first().map(ToString::to_string).unwrap_or_default());
    let chain = Chain { models, after_first_token: AfterFirstToken::Fail };
    let (sender, pieces) = mpsc::channel(PIECES);
    let asking: Asking = Box::pin({
        let (app, client) = (app.clone(), Client::new(payer, Some(sender)));
        async move { app.catalog.models.ask(&*app.env, &client, chain, request).await }
    });
    let (ready, cut) = (VecDeque::new(), app.cut.clone());
    let mut passing = Passing { asking: Some(asking), pieces, head, usage, ready, cut };
    match passing.next().await {
        Came::Piece(delta) => {
            passing.begins();
            passing.shows(&delta);
        }
        Came::End(asked) => {
            if passing.ready.is_empty()
                && let Err(failed) = asked.outcome
            {
                return Err(Problem::Model(failed.error));
            }
            passing.begins();
            passing.ends(*asked);
        }
        Came::Cut => return Err(Problem::stopping()),
    }
    let chunks = stream::unfold(passing, |mut passing| async move {
        let chunk = passing.chunk().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), passing))
    });
    Ok(sse::raw(Body::from_stream(chunks)))
}

type Asking = BoxFuture<'static, Asked>;

/// A stream on its way.
struct Passing {
    /// `None` once it is over.
    asking: Option<Asking>,
    pieces: mpsc::Receiver<Delta>,
    head: Head,
    usage: bool,
    /// Chunks to be sent.
    ready: VecDeque<Bytes>,
    cut: CancellationToken,
}

/// What came next.
enum Came {
    Piece(Delta),
    End(Box<Asked>),
    /// The server ends.
    Cut,
}

impl Passing {
    /// The next piece; the end once every piece was taken.
    async fn next(&mut self) -> Came {
        let Some(asking) = &mut self.asking else { std::future::pending().await };
        let asked = tokio::select! {
            biased;
            Some(delta) = self.pieces.recv() => return Came::Piece(delta),
            asked = asking => asked,
            () = self.cut.cancelled() => {
                self.asking = None;
                return Came::Cut;
            }
        };
        self.asking = None;
        while let Ok(delta) = self.pieces.try_recv() {
            self.shows(&delta);
        }
        Came::End(Box::new(asked))
    }

    /// The next chunk; `None`: that was all.
    async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(chunk);
            }
            self.asking.as_ref()?;
            // Whether anybody still reads shows only in what is sent.
            match tokio::time::timeout(sse::HEARTBEAT, self.next()).await {
                Ok(Came::Piece(delta)) => self.shows(&delta),
                Ok(Came::End(asked)) => self.ends(*asked),
                Ok(Came::Cut) => self.ready.push_back(answer::failure(&Problem::stopping())),
                Err(_) => return Some(sse::COMMENT),
            }
        }
    }

    fn push(&mut self, delta: &impl Serialize, finish: Option<&str>) {
        self.ready.push_back(self.head.chunk(delta, finish, self.usage));
    }

    fn begins(&mut self) {
        let first =
            self.head.chunk(&json!({ "role": "assistant", "content": "" }), None, self.usage);
        // Pieces that came together with the end are there already.
        self.ready.push_front(first);
    }

    fn shows(&mut self, delta: &Delta) {
        self.push(&Piece::from(delta), None);
    }

    fn ends(&mut self, asked: Asked) {
        let answered = match asked.outcome {
            Ok(answered) => answered,
            Err(failed) => {
                self.ready.push_back(answer::failure(&Problem::Model(failed.error)));
                return;
            }
        };
        self.head.model = answered.model.to_string();
        if let Some(rest) = answer::rest(&answered.reply) {
            self.push(&rest, None);
        }
        self.push(&json!({}), Some(answer::finish(&answered.reply)));
        if self.usage {
            self.ready.push_back(self.head.usage(answered.reply.usage));
        }
        self.ready.push_back(answer::DONE);
    }
}
