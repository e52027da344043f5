//! The OpenAI-compatible chat protocol: one adapter for every provider that speaks it.
//!
//! | file | what it does |
//! |---|---|
//! | `profile.rs` | what sets providers apart, as data |
//! | `request.rs` | from a [`ModelRequest`] to a body |
//! | `sse.rs` | from bytes to events |
//! | `assemble.rs` | from chunks to deltas and a [`ModelReply`] |
//! | `error.rs` | from status, body or broken connection to a [`ProviderFault`] |
//!
//! Invariants:
//! - A fault names no key: whatever an upstream echoes of our secrets is blotted out.
//! - An answer ends with a finish reason or an end mark; anything else is a fault (wire fact 2).
//! - Nothing is retried here, but for signatures that were refused before any output.

mod assemble;
mod error;
pub mod profile;
mod request;
mod sse;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use exile_engine::env::Env;
use exile_engine::http::{Http, HttpError, HttpRequest, HttpResponse};
use exile_engine::model::{
    Capabilities, Delta, DeltaSender, ModelReply, ModelRequest, Provider, ProviderError,
    ProviderFault,
};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde_json::Value;

use assemble::Assembler;
use error::Refusal;
use profile::{Profile, Rules};
use request::Wire;
use sse::Events;

use super::secret::{self, Secret};

/// Longest answer that is read, in bytes on the wire.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;
/// Longest part of an error's body that is read.
const ERROR_LIMIT: usize = 64 * 1024;
/// How long the end of the connection's answer is waited for after the end mark.
const LINGER: Duration = Duration::from_millis(50);
/// An answer in one piece has its head only when the model is done: it may take so much longer.
const WHOLE_ANSWER: u32 = 10;

/// One provider of the chat protocol.
pub(crate) struct Chat {
    pub name: String,
    pub profile: Profile,
    /// Whole address of the completions endpoint.
    pub url: String,
    /// Holds the key, for error texts.
    pub key_variable: String,
    /// `None`: not configured; the provider is not ready.
    pub headers: Option<Vec<(String, Secret)>>,
    /// What must never be seen in a text.
    pub secrets: Vec<Secret>,
    pub http: Arc<dyn Http>,
    pub env: Arc<dyn Env>,
    pub first_byte_timeout: Duration,
    pub idle_timeout: Duration,
    pub retries: u32,
}

type Body = BoxStream<'static, Result<Bytes, HttpError>>;

#[async_trait]
impl Provider for Chat {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self, model: &str) -> Capabilities {
        self.rules(model).capabilities
    }

    fn retries(&self) -> u32 {
        self.retries
    }

    fn ready(&self) -> Result<(), ProviderError> {
        self.headers().map(|_| ()).map_err(|fault| self.blame("", fault))
    }

    async fn complete(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        let whole = async {
            let response = self.ask(request, false).await?;
            self.whole(request, response.body, Vec::new(), None).await
        };
        whole.await.map_err(|fault| self.blame(&request.model, fault))
    }

    async fn stream(
        &self,
        request: &ModelRequest,
        deltas: &DeltaSender,
    ) -> Result<ModelReply, ProviderError> {
        let pieces = async {
            let response = self.ask(request, true).await?;
            self.pieces(request, response.body, deltas).await
        };
        pieces.await.map_err(|fault| self.blame(&request.model, fault))
    }
}

impl Chat {
    fn rules(&self, model: &str) -> Rules {
        (self.profile.rules)(model)
    }

    fn headers(&self) -> Result<&Vec<(String, Secret)>, ProviderFault> {
        let missing = || ProviderFault::KeyMissing { variable: self.key_variable.clone() };
        self.headers.as_ref().ok_or_else(missing)
    }

    /// Sends the request; once more without signatures if those were refused (wire fact 21).
    async fn ask(
        &self,
        request: &ModelRequest,
        stream: bool,
    ) -> Result<HttpResponse, ProviderFault> {
        let rules = self.rules(&request.model);
        let mut wire = Wire { provider: &self.name, rules, stream, signed: true };
        let answer = self.post(&wire.body(request), stream).await;
        match answer {
            Err(ProviderFault::BadRequest { detail, .. })
                if rules.foreign_signature.is_some() && is_about_signatures(&detail) =>
            {
                wire.signed = false;
                self.post(&wire.body(request), stream).await
            }
            answer => answer,
        }
    }

    async fn post(&self, body: &Value, stream: bool) -> Result<HttpResponse, ProviderFault> {
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        headers.extend(self.headers()?.iter().map(|(n, v)| (n.clone(), v.expose().to_owned())));
        let patience = if stream { 1 } else { WHOLE_ANSWER };
        let request = HttpRequest {
            method: "POST".into(),
            url: self.url.clone(),
            headers,
            body: Some(body.to_string().into()),
            redirects: 0,
            head_timeout: self.first_byte_timeout * patience,
            idle_timeout: self.idle_timeout,
        };
        let send = self.http.send(request).await;
        let response = send.map_err(|e| error::transport(e, false))?;
        if (200..300).contains(&response.status) {
            return Ok(response);
        }
        // What can be read of the body is enough: the status alone is already an answer.
        let (status, headers, mut body) = (response.status, response.headers, response.body);
        let mut text = Vec::new();
        while let Some(Ok(piece)) = body.next().await {
            text.extend_from_slice(&piece);
            if text.len() > ERROR_LIMIT {
                text.truncate(ERROR_LIMIT);
                break;
            }
        }
        let (key_variable, now) = (&self.key_variable, self.env.now());
        Err(Refusal { status, headers: &headers, body: &text, key_variable, now }.fault())
    }

    /// Reads an answer that comes in pieces.
    async fn pieces(
        &self,
        request: &ModelRequest,
        mut body: Body,
        deltas: &DeltaSender,
    ) -> Result<ModelReply, ProviderFault> {
        let mut start = Vec::new();
        // A server that knows no streams answers in one piece, whatever its type header says.
        while start.iter().all(u8::is_ascii_whitespace) {
            match body.next().await {
                Some(piece) => start.extend_from_slice(&read(piece)?),
                None => return Err(error::garbage("no event came")),
            }
        }
        let first = start.iter().find(|b| !b.is_ascii_whitespace());
        if matches!(first, Some(b'{' | b'[' | b'<')) {
            return self.whole(request, body, start, Some(deltas)).await;
        }
        let mut stream = Stream { events: Events::default(), answer: Assembler::default() };
        let mut length = 0;
        let mut next = Some(Ok(Bytes::from(start)));
        while let Some(piece) = next {
            let piece = match read(piece) {
                Ok(piece) => piece,
                // What is missing after the finish reason is at most the usage.
                Err(_) if stream.answer.finished() => break,
                Err(fault) => return Err(fault),
            };
            length += piece.len();
            if length > ANSWER_LIMIT {
                return Err(too_long());
            }
            if stream.feed(&piece, deltas).await? {
                // Read to its end the connection can serve the next call; how it ends is no matter.
                let _ = tokio::time::timeout(LINGER, body.next()).await;
                return self.reply(request, stream.answer);
            }
            next = body.next().await;
        }
        let answer = stream.close(deltas).await?;
        self.reply(request, answer)
    }

    /// Reads an answer in one piece, of which `start` has been read.
    async fn whole(
        &self,
        request: &ModelRequest,
        mut body: Body,
        mut start: Vec<u8>,
        deltas: Option<&DeltaSender>,
    ) -> Result<ModelReply, ProviderFault> {
        while let Some(piece) = body.next().await {
            start.extend_from_slice(&read(piece)?);
            if start.len() > ANSWER_LIMIT {
                return Err(too_long());
            }
        }
        let text = String::from_utf8_lossy(&start);
        let json: Value = serde_json::from_str(text.trim())
            .map_err(|e| error::garbage(format!("not JSON ({e}): {text}")))?;
        let mut answer = Assembler::default();
        let shown = answer.take(&json)?;
        if !answer.answered() {
            return Err(error::garbage(format!("no choice in {text}")));
        }
        if let Some(deltas) = deltas {
            show(shown, deltas).await;
        }
        self.reply(request, answer)
    }

    fn reply(
        &self,
        request: &ModelRequest,
        answer: Assembler,
    ) -> Result<ModelReply, ProviderFault> {
        if !answer.answered() {
            return Err(error::garbage("no choice in the answer"));
        }
        let mut mint = || format!("call_{}", self.env.uuid().simple());
        Ok(answer.reply(&request.model, &mut mint))
    }

    /// The fault with whom it is to be blamed on, and without our secrets.
    fn blame(&self, model: &str, fault: ProviderFault) -> ProviderError {
        let fault = secret::without(fault, &self.secrets);
        ProviderError { provider: self.name.clone(), model: model.to_owned(), fault }
    }
}

/// An answer that comes in pieces.
struct Stream {
    events: Events,
    answer: Assembler,
}

impl Stream {
    /// Takes a piece of the wire, shows what it holds; `true` at the end mark.
    async fn feed(&mut self, piece: &[u8], deltas: &DeltaSender) -> Result<bool, ProviderFault> {
        let events = self.events.feed(piece);
        for event in events.map_err(error::garbage)? {
            if event.trim() == "[DONE]" {
                return Ok(true);
            }
            if !event.trim().is_empty() {
                self.event(&event, deltas).await?;
            }
        }
        Ok(false)
    }

    async fn event(&mut self, event: &str, deltas: &DeltaSender) -> Result<(), ProviderFault> {
        let chunk: Value = serde_json::from_str(event)
            .map_err(|e| error::garbage(format!("an event is not JSON ({e}): {event}")))?;
        show(self.answer.take(&chunk)?, deltas).await;
        Ok(())
    }

    /// The connection ended: with the answer, if the model has said so.
    async fn close(mut self, deltas: &DeltaSender) -> Result<Assembler, ProviderFault> {
        let rest = std::mem::take(&mut self.events).finish();
        let rest = rest.map_err(error::garbage)?.unwrap_or_default();
        let marked = rest.trim() == "[DONE]";
        // An event without its blank line counts if it is whole.
        if !marked && serde_json::from_str::<Value>(&rest).is_ok() {
            self.event(&rest, deltas).await?;
        }
        if marked || self.answer.finished() {
            return Ok(self.answer);
        }
        let detail = "the stream ended without a finish reason and without [DONE]".to_owned();
        Err(ProviderFault::Truncated { detail })
    }
}

async fn show(shown: Vec<Delta>, deltas: &DeltaSender) {
    for delta in shown {
        // Nobody listening is no failure: the reply holds everything.
        let _ = deltas.send(delta).await;
    }
}

fn read(piece: Result<Bytes, HttpError>) -> Result<Bytes, ProviderFault> {
    piece.map_err(|e| error::transport(e, true))
}

fn too_long() -> ProviderFault {
    error::garbage(format!("longer than {ANSWER_LIMIT} bytes"))
}

fn is_about_signatures(detail: &str) -> bool {
    let words = detail.to_lowercase().replace('_', " ");
    words.contains("thought signature")
}
