//! The one way out to the network: a trait without an implementation.
//!
//! `nodes/src/http.rs` implements it with the outbound guard; `server` hands it to providers and
//! tools. Two clients exist side by side: the tools' one may reach only public addresses and the
//! hosts of `outbound.allow`; a provider's one may also reach the host of its own `base_url`.
//!
//! Invariants:
//! - Names are resolved once, the address is checked, and the checked address is connected to.
//! - Every redirect is checked again and carries no header of the first request to another origin.
//! - Header names and values with control characters are refused before any I/O.
//! - Dropping the future or the body closes the connection of a call in flight.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

/// One request.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// Absolute, `http` or `https`.
    pub url: String,
    /// In order, names in any case.
    pub headers: Vec<(String, String)>,
    /// Sent as it is.
    pub body: Option<Bytes>,
    /// How many redirects are followed; 0 hands the redirect itself back.
    pub redirects: u8,
    /// Until the head of the answer is there.
    pub head_timeout: Duration,
    /// Between two pieces of the body.
    pub idle_timeout: Duration,
}

/// The head of an answer and the body still to come.
pub struct HttpResponse {
    /// 100–599.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The address that answered, after redirects.
    pub url: String,
    /// Decoded from its transfer coding; ends with an error if the connection breaks or idles.
    pub body: BoxStream<'static, Result<Bytes, HttpError>>,
}

impl HttpResponse {
    /// The first header of that (lower-case) name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Sends requests under the outbound guard.
#[async_trait]
pub trait Http: Send + Sync {
    /// Sends one request and waits for the head of the answer. Any status is an answer.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError>;
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The guard refused the address.
    #[error("{host} is {why}; name it under outbound.allow in exile.yaml to reach it")]
    Denied {
        /// Host as written.
        host: String,
        /// What kind of address it is, e.g. `a private address (10.0.0.7)`.
        why: String,
    },
    /// URL, method or header cannot be sent.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// No address, no connection or no TLS: the request was not sent.
    #[error("cannot connect to {host}: {why}")]
    Connect {
        /// Host as written.
        host: String,
        /// The system's reason.
        why: String,
    },
    /// Nothing came for `after`.
    #[error("{phase} timed out after {after:?}")]
    Timeout {
        /// `first byte` or `idle`.
        phase: &'static str,
        /// The limit that passed.
        after: Duration,
    },
    /// The connection broke after the request may have been sent.
    #[error("connection broke: {0}")]
    Broken(String),
}
