//! The engine's [`Http`] over reqwest, behind the outbound guard: the only file that names
//! reqwest and rustls.
//!
//! Invariants:
//! - A host that [`Outbound::allow`] names goes to the *open* connector, every other to the
//!   *guarded* one, whose resolver hands out an address only after it was checked: what is
//!   connected to is what was checked. The two share no pooled connection.
//! - Redirects are walked here, hop by hop, each through the same door.
//! - Only a configured proxy is used; the environment's proxy variables are not read. Behind a
//!   proxy names are resolved by the proxy, which its operator answers for.
//! - No error text holds a URL or a header's value: both may hold keys.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use exile_engine::http::{Http, HttpError, HttpRequest, HttpResponse};
use exile_engine::span::{self, TraceLink};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};

use crate::guard::{self, Allow};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What one client may reach besides public addresses.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    /// Hosts whose address is not checked.
    pub allow: Vec<Allow>,
    /// `http://` or `https://` proxy for every request.
    pub proxy: Option<String>,
}

/// Sends requests. Connectors are made with the first request that needs them, so that a start
/// does not read certificates for providers nobody calls.
pub struct Client {
    policy: Outbound,
    trace: Arc<dyn TraceLink>,
    guarded: OnceLock<Result<reqwest::Client, String>>,
    open: OnceLock<Result<reqwest::Client, String>>,
}

impl Client {
    /// A client under that policy.
    ///
    /// # Errors
    /// [`HttpError::Invalid`]: the proxy is no URL.
    #[allow(clippy::new_ret_no_self, reason = "callers know the trait alone")]
    pub fn new(policy: Outbound, trace: Arc<dyn TraceLink>) -> Result<Arc<dyn Http>, HttpError> {
        if let Some(proxy) = &policy.proxy {
            reqwest::Proxy::all(proxy).map_err(|_| invalid("the proxy is no URL"))?;
        }
        let (guarded, open) = (OnceLock::new(), OnceLock::new());
        Ok(Arc::new(Self { policy, trace, guarded, open }))
    }

    /// The connector for `url`; refuses an address that is written out and not allowed.
    fn connector(&self, url: &Url) -> Result<&reqwest::Client, HttpError> {
        let (host, port) = host_and_port(url)?;
        let allowed = self.policy.allow.iter().any(|a| a.names(&host, port));
        if !allowed && let Some(why) = refused(&host) {
            return Err(HttpError::Denied { why, host });
        }
        // A proxied connector resolves nothing but the proxy's own name.
        let open = allowed || self.policy.proxy.is_some();
        let slot = if open { &self.open } else { &self.guarded };
        let built = slot.get_or_init(|| build(open, self.policy.proxy.as_deref()));
        built.as_ref().map_err(|why| HttpError::Connect { host, why: why.clone() })
    }

    /// One hop.
    async fn hop(&self, hop: &Hop, head_timeout: Duration) -> Result<reqwest::Response, HttpError> {
        let (host, port) = host_and_port(&hop.url)?;
        span::reached(&host, port);
        let mut request = reqwest::Request::new(hop.method.clone(), hop.url.clone());
        *request.headers_mut() = hop.headers.clone();
        if let Some(traceparent) = self.trace.traceparent(&tracing::Span::current())
            && let Ok(value) = HeaderValue::from_str(&traceparent)
        {
            request.headers_mut().entry("traceparent").or_insert(value);
        }
        *request.body_mut() = hop.body.clone().map(reqwest::Body::from);
        let sending = self.connector(&hop.url)?.execute(request);
        match tokio::time::timeout(head_timeout, sending).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failure(&hop.url, &error)),
            Err(_) => Err(HttpError::Timeout { phase: "first byte", after: head_timeout }),
        }
    }
}

#[async_trait]
impl Http for Client {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut hop = Hop::first(&request)?;
        for left in (0..=request.redirects).rev() {
            let response = self.hop(&hop, request.head_timeout).await?;
            let next = if left > 0 { hop.redirected(&response)? } else { None };
            match next {
                Some(next) => hop = next,
                None => return Ok(answer(&hop.url, response, request.idle_timeout)),
            }
        }
        Err(invalid("unreachable: the last hop answers"))
    }
}

/// One request on the wire.
struct Hop {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
}

impl Hop {
    /// The request as asked for, every part of it checked before any I/O.
    fn first(request: &HttpRequest) -> Result<Self, HttpError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let key = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| invalid("a header's name holds a forbidden character"))?;
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| invalid(&format!("header {key} holds a forbidden character")))?;
            value.set_sensitive(true);
            headers.append(key, value);
        }
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|_| invalid("the method holds a forbidden character"))?;
        Ok(Self { method, url: parse(&request.url)?, headers, body: request.body.clone() })
    }

    /// Where the answer sends us; `None` if it is no redirect, or one that would carry a body to
    /// another origin: that one is the caller's to judge.
    fn redirected(&self, response: &reqwest::Response) -> Result<Option<Self>, HttpError> {
        let status = response.status();
        let keeps_method = match status {
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method != Method::POST,
            StatusCode::SEE_OTHER => self.method == Method::HEAD,
            _ => return Ok(None),
        };
        let Some(location) = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()) else {
            return Ok(None);
        };
        let url = self.url.join(location).map_err(|_| invalid("the redirect is no URL"))?;
        let url = parse(url.as_str())?;
        let same_origin = url.origin() == self.url.origin();
        let body = if keeps_method { self.body.clone() } else { None };
        if body.is_some() && !same_origin {
            return Ok(None);
        }
        let method = if keeps_method { self.method.clone() } else { Method::GET };
        let headers = if same_origin { self.headers.clone() } else { HeaderMap::new() };
        Ok(Some(Self { method, url, headers, body }))
    }
}

/// A checked `http` or `https` URL with a host.
fn parse(url: &str) -> Result<Url, HttpError> {
    let url = Url::parse(url).map_err(|e| invalid(&format!("no URL: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("only http and https URLs can be fetched"));
    }
    host_and_port(&url)?;
    Ok(url)
}

fn host_and_port(url: &Url) -> Result<(String, u16), HttpError> {
    match (url.host_str(), url.port_or_known_default()) {
        (Some(host), Some(port)) => Ok((host.to_owned(), port)),
        _ => Err(invalid("the URL has no host")),
    }
}

/// Why a host is refused as it is written.
fn refused(host: &str) -> Option<String> {
    match host.trim_matches(['[', ']']).parse() {
        Ok(ip) => guard::refusal(ip).map(|kind| format!("{kind} ({ip})")),
        Err(_) => guard::refused_name(host).map(str::to_owned),
    }
}

/// An entry that allows exactly the host and port of `url`.
pub(crate) fn allow_for(url: &str) -> Result<Allow, HttpError> {
    let (host, port) = host_and_port(&parse(url)?)?;
    Ok(Allow::exactly(&host, port))
}

/// `base` with a path appended and a query, each part percent-encoded.
pub(crate) fn endpoint(
    base: &str,
    path: &str,
    query: &[(String, String)],
) -> Result<String, HttpError> {
    let mut url = parse(&format!("{}/{path}", base.trim_end_matches('/')))?;
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url.into())
}

fn invalid(why: &str) -> HttpError {
    HttpError::Invalid(why.to_owned())
}

/// Gives the process its TLS. Whoever else makes a client over the same library (the exporter of
/// spans does) calls it first.
pub fn install_tls() {
    // It may have been installed before: either way one is there.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Makes a connector, or says why none can be made.
#[allow(clippy::disallowed_methods, reason = "the one place that may")]
fn build(open: bool, proxy: Option<&str>) -> Result<reqwest::Client, String> {
    install_tls();
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("exile/", env!("CARGO_PKG_VERSION")));
    if let Some(proxy) = proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(|e| causes(&e))?);
    }
    if !open {
        builder = builder.dns_resolver(Resolver);
    }
    match builder.build() {
        Ok(client) => Ok(client),
        Err(error) => Err(format!("no TLS ({}); install ca-certificates", causes(&error))),
    }
}

/// Resolves a name once and gives its addresses only if every one is public.
#[derive(Clone, Copy, Debug)]
struct Resolver;

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.collect();
            let refused = addresses.iter().find_map(|a| Some((a.ip(), guard::refusal(a.ip())?)));
            if let Some((ip, kind)) = refused {
                return Err(Refused(format!("{kind} ({ip})")).into());
            }
            Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

/// The resolver's refusal, found again among the causes of reqwest's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// What reqwest's failure means before there is an answer.
fn failure(url: &Url, error: &reqwest::Error) -> HttpError {
    let host = url.host_str().unwrap_or_default().to_owned();
    if let Some(Refused(why)) = chain(error).find_map(|e| e.downcast_ref()) {
        return HttpError::Denied { host, why: why.clone() };
    }
    if error.is_connect() {
        return HttpError::Connect { host, why: causes(error) };
    }
    if error.is_builder() {
        return HttpError::Invalid(causes(error));
    }
    HttpError::Broken(causes(error))
}

fn chain<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |e| e.source())
}

/// The innermost cause: the outer ones repeat the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut inner = chain(error).skip(1).map(ToString::to_string).collect::<Vec<_>>();
    inner.pop().unwrap_or_else(|| "no reason given".to_owned())
}

fn answer(url: &Url, response: reqwest::Response, idle: Duration) -> HttpResponse {
    let text = |v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    let headers = response.headers().iter().map(|(n, v)| (n.to_string(), text(v))).collect();
    HttpResponse {
        status: response.status().as_u16(),
        headers,
        url: url.to_string(),
        body: body(response.bytes_stream(), idle),
    }
}

/// The body, ended by an error if nothing comes for `idle`.
fn body(
    pieces: impl Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
    idle: Duration,
) -> BoxStream<'static, Result<Bytes, HttpError>> {
    stream::unfold(Some(pieces.boxed()), move |pieces| async move {
        let mut pieces = pieces?;
        match tokio::time::timeout(idle, pieces.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(pieces))),
            Ok(Some(Err(error))) => Some((Err(HttpError::Broken(causes(&error))), None)),
            Err(_) => Some((Err(HttpError::Timeout { phase: "idle", after: idle }), None)),
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests;
