//! The one adapter: a [`Provider`] of either protocol. HTTP, timeouts, secrets and the reading of
//! answers are the same for all; bodies and the meaning of events are the protocols' own.
//!
//! Invariants:
//! - A fault names no key: whatever an upstream echoes of our secrets is blotted out.
//! - Every wait has an end: for the first byte, between two bytes, between two pieces that say
//!   something, and for the whole call.
//! - Nothing is retried here, but for signatures that were refused before any output.
//! - Dropping a call closes its connection.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use exile_engine::env::Env;
use exile_engine::http::{Http, HttpError, HttpRequest, HttpResponse};
use exile_engine::limits::AnswerLimits;
use exile_engine::model::{
    Delta, DeltaSender, Embeddings, ModelReply, ModelRequest, Provider, ProviderError,
    ProviderFault,
};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde_json::{Map, Value};

use super::anthropic;
use super::chat::request::Wire;
use super::chat::{REASONING_FIELD, embed};
use super::error::{self, Refusal};
use super::profile::{Echo, Profile, Protocol, Rules};
use super::reader::{Read, Reader};
use super::secret::{self, Secret};
use super::turns;

/// Longest part of an error's body that is read.
const ERROR_LIMIT: usize = 64 * 1024;
/// How long the end of the connection's answer is waited for after the end mark.
const LINGER: Duration = Duration::from_millis(50);
/// An answer in one piece has its head only when the model is done, and a server that keeps the
/// connection alive has said nothing yet: both may take so much longer.
const PATIENT: u32 = 10;

/// One provider.
pub(crate) struct Adapter {
    pub name: String,
    pub profile: Profile,
    /// Whole address where answers are asked for.
    pub url: String,
    /// Whole address where embeddings are asked for.
    pub embeddings_url: String,
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
    pub total_timeout: Duration,
    pub retries: u32,
    pub limits: AnswerLimits,
}

type Body = BoxStream<'static, Result<Bytes, HttpError>>;

#[async_trait]
impl Provider for Adapter {
    fn name(&self) -> &str {
        &self.name
    }

    fn retries(&self) -> u32 {
        self.retries
    }

    fn ready(&self) -> Result<(), ProviderError> {
        self.headers().map(|_| ()).map_err(|fault| self.blame("", fault))
    }

    async fn complete(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        self.answer(request, None).await
    }

    async fn stream(
        &self,
        request: &ModelRequest,
        deltas: &DeltaSender,
    ) -> Result<ModelReply, ProviderError> {
        self.answer(request, Some(deltas)).await
    }

    async fn embed(
        &self,
        model: &str,
        texts: &[String],
        further: &Map<String, Value>,
    ) -> Result<Embeddings, ProviderError> {
        let vectors = async {
            if self.profile.protocol == Protocol::Anthropic {
                let detail = "this provider has no embeddings".to_owned();
                return Err(ProviderFault::NotSent { detail });
            }
            let body = embed::body(model, texts, further);
            let response = self.post(&self.embeddings_url, &body, PATIENT).await?;
            embed::read(&all(response.body, self.limits).await?, model, texts.len())
        };
        self.within_total(vectors).await.map_err(|fault| self.blame(model, fault))
    }
}

impl Adapter {
    fn rules(&self, model: &str) -> Rules {
        (self.profile.rules)(model)
    }

    fn headers(&self) -> Result<&Vec<(String, Secret)>, ProviderFault> {
        let missing = || ProviderFault::KeyMissing { variable: self.key_variable.clone() };
        self.headers.as_ref().ok_or_else(missing)
    }

    /// Asks and reads; streams if somebody wants the deltas.
    async fn answer(
        &self,
        request: &ModelRequest,
        deltas: Option<&DeltaSender>,
    ) -> Result<ModelReply, ProviderError> {
        let answer = async {
            if let Some(detail) = turns::unsendable(request) {
                return Err(ProviderFault::NotSent { detail });
            }
            if self.profile.protocol == Protocol::Anthropic
                && let Some(detail) = anthropic::request::untold(&request.further)
            {
                return Err(ProviderFault::NotSent { detail });
            }
            let response = self.ask(request, deltas.is_some()).await?;
            let read = self.read(response.body, deltas).await?;
            let mut mint = || format!("call_{}", self.env.uuid().simple());
            let mut reply = read.reply(&request.model, &mut mint);
            self.forget(&request.model, &mut reply);
            Ok(reply)
        };
        self.within_total(answer).await.map_err(|fault| self.blame(&request.model, fault))
    }

    /// Takes out of a reply what this model is never sent back.
    fn forget(&self, model: &str, reply: &mut ModelReply) {
        if self.rules(model).reasoning != Echo::AsReceived
            && let Some(Value::Object(opaque)) = &mut reply.opaque
        {
            opaque.remove(REASONING_FIELD);
            if opaque.is_empty() {
                reply.opaque = None;
            }
        }
    }

    async fn within_total<T>(
        &self,
        call: impl Future<Output = Result<T, ProviderFault>>,
    ) -> Result<T, ProviderFault> {
        let late = |_| error::timeout("total", self.total_timeout);
        tokio::time::timeout(self.total_timeout, call).await.map_err(late)?
    }

    /// Sends the request; once more without signatures if those were refused (wire fact 21).
    async fn ask(
        &self,
        request: &ModelRequest,
        stream: bool,
    ) -> Result<HttpResponse, ProviderFault> {
        let rules = self.rules(&request.model);
        let mut wire = Wire { provider: &self.name, rules, stream, signed: true };
        let patience = if stream { 1 } else { PATIENT };
        match self.post(&self.url, &self.body(&wire, request), patience).await {
            Err(ProviderFault::BadRequest { detail, .. }) if is_about_signatures(&detail) => {
                wire.signed = false;
                self.post(&self.url, &self.body(&wire, request), patience).await
            }
            answer => answer,
        }
    }

    fn body(&self, wire: &Wire<'_>, request: &ModelRequest) -> Value {
        match self.profile.protocol {
            Protocol::Chat => wire.body(request),
            Protocol::Anthropic => wire.anthropic_body(request),
        }
    }

    /// Sends a body and waits for the head of an answer of status 2xx.
    async fn post(
        &self,
        url: &str,
        body: &Value,
        patience: u32,
    ) -> Result<HttpResponse, ProviderFault> {
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        headers.extend(self.headers()?.iter().map(|(n, v)| (n.clone(), v.expose().to_owned())));
        let request = HttpRequest {
            method: "POST".into(),
            url: url.to_owned(),
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
        let (status, headers) = (response.status, response.headers);
        // What can be read of the body in time is enough: the status alone is already an answer.
        let mut text = Vec::new();
        let _ = tokio::time::timeout(self.idle_timeout, start(response.body, &mut text)).await;
        let (key_variable, now) = (&self.key_variable, self.env.now());
        Err(Refusal { status, headers: &headers, body: &text, key_variable, now }.fault())
    }

    /// Reads an answer, handing deltas on as they come.
    async fn read(
        &self,
        mut body: Body,
        deltas: Option<&DeltaSender>,
    ) -> Result<Read, ProviderFault> {
        let mut reader = Reader::new(self.profile.protocol, self.limits);
        let mut shown = Vec::new();
        let quiet = self.idle_timeout * PATIENT;
        let mut ended = false;
        while !ended {
            let said = tokio::time::timeout(quiet, progress(&mut reader, &mut body, &mut shown));
            let said = said.await.unwrap_or_else(|_| Err(error::timeout("idle", quiet)));
            // What came before a fault is shown too.
            show(&mut shown, deltas).await;
            match said {
                Ok(Said::More) => {}
                Ok(Said::Marked) => {
                    // Read to its end the connection can serve the next call; how it ends is no
                    // matter.
                    let _ = tokio::time::timeout(LINGER, body.next()).await;
                    ended = true;
                }
                Ok(Said::Ended) => ended = true,
                // What is missing after the finish reason is at most the usage.
                Err(fault) if reader.finished() && is_on_the_way(&fault) => ended = true,
                Err(fault) => return Err(fault),
            }
        }
        let read = reader.close(&mut shown);
        show(&mut shown, deltas).await;
        read
    }

    /// The fault with whom it is to be blamed on, and without our secrets.
    fn blame(&self, model: &str, fault: ProviderFault) -> ProviderError {
        let fault = secret::without(fault, &self.secrets);
        ProviderError { provider: self.name.clone(), model: model.to_owned(), fault }
    }
}

/// What reading on came to.
enum Said {
    /// More of the answer.
    More,
    /// The end mark.
    Marked,
    /// The end of the body.
    Ended,
}

/// Reads until something of the answer has come, however many comments and pings come before.
async fn progress(
    reader: &mut Reader,
    body: &mut Body,
    shown: &mut Vec<Delta>,
) -> Result<Said, ProviderFault> {
    let before = reader.progress();
    loop {
        let Some(piece) = body.next().await else { return Ok(Said::Ended) };
        let piece = piece.map_err(|e| error::transport(e, true))?;
        if reader.feed(&piece, shown)? {
            return Ok(Said::Marked);
        }
        if reader.progress() > before {
            return Ok(Said::More);
        }
    }
}

async fn show(shown: &mut Vec<Delta>, deltas: Option<&DeltaSender>) {
    for delta in shown.drain(..) {
        if let Some(deltas) = deltas {
            // Nobody listening is no failure: the reply holds everything.
            let _ = deltas.send(delta).await;
        }
    }
}

/// Reads the start of an error's body.
async fn start(mut body: Body, text: &mut Vec<u8>) {
    while let Some(Ok(piece)) = body.next().await {
        text.extend_from_slice(&piece);
        if text.len() > ERROR_LIMIT {
            return text.truncate(ERROR_LIMIT);
        }
    }
}

/// Reads a body that is one piece of JSON.
async fn all(mut body: Body, limits: AnswerLimits) -> Result<Vec<u8>, ProviderFault> {
    let mut text = Vec::new();
    while let Some(piece) = body.next().await {
        text.extend_from_slice(&piece.map_err(|e| error::transport(e, true))?);
        if text.len() > limits.bytes {
            return Err(error::too_long(limits));
        }
    }
    Ok(text)
}

/// Whether the connection is at fault, not what came over it.
fn is_on_the_way(fault: &ProviderFault) -> bool {
    matches!(fault, ProviderFault::Truncated { .. } | ProviderFault::Timeout { .. })
}

/// Gemini's words and Anthropic's.
fn is_about_signatures(detail: &str) -> bool {
    let words = detail.to_lowercase().replace(['_', '`'], " ");
    words.contains("thought signature") || words.contains("invalid  signature ")
}
