//! What is asked of the client, what becomes of its answers, and every way to be refused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use exile_engine::http::{Http, HttpError, HttpRequest, HttpResponse};
use exile_engine::limits::Limits;
use exile_engine::tool::{ToolAnswer, ToolErrorKind};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::{call, failure};

/// A network on which nothing answers.
pub(crate) struct Silent;

#[async_trait]
impl Http for Silent {
    async fn send(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
        std::future::pending().await
    }
}

/// A network that gives one answer and keeps what it was asked.
#[derive(Clone)]
struct Scripted {
    head: Result<(u16, &'static str), HttpError>,
    body: Vec<Result<Bytes, HttpError>>,
    /// See [`drip`].
    drips: bool,
    asked: Arc<Mutex<Vec<HttpRequest>>>,
}

impl Scripted {
    fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let (head, body) = (Ok((status, content_type)), vec![Ok(body.into())]);
        Self { head, body, drips: false, asked: Arc::default() }
    }

    fn failing(error: HttpError) -> Self {
        Self { head: Err(error), ..Self::new(200, "text/plain", "") }
    }
}

#[async_trait]
impl Http for Scripted {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let url = request.url.clone();
        self.asked.lock().unwrap().push(request);
        let (status, content_type) = self.head.clone()?;
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        let pieces = stream::iter(self.body.clone());
        let body = if self.drips { drip(self.body.clone()) } else { pieces.boxed() };
        Ok(HttpResponse { status, headers, url, body })
    }
}

/// One piece a second, for longer than anyone waits.
fn drip(pieces: Vec<Result<Bytes, HttpError>>) -> BoxStream<'static, Result<Bytes, HttpError>> {
    let endless = stream::iter(std::iter::repeat_n(pieces, 1000).flatten());
    let slowly = |piece| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        piece
    };
    endless.then(slowly).boxed()
}

async fn get(http: &Scripted) -> ToolAnswer {
    call(http.clone(), "http_get", json!({ "url": "https://example.com/page" })).await
}

async fn done(http: &Scripted) -> Value {
    match get(http).await {
        ToolAnswer::Done(value) => value,
        ToolAnswer::Failed(error) => panic!("{error}"),
        ToolAnswer::Ask(question) => panic!("asked {question:?}"),
    }
}

#[tokio::test]
async fn a_page_comes_with_status_type_and_text() {
    let http = Scripted::new(404, "text/html; charset=utf-8", "<p>没有 this page</p>");
    let expected = json!({
        "status": 404,
        "url": "https://example.com/page",
        "content_type": "text/html; charset=utf-8",
        "text": "<p>没有 this page</p>",
        "truncated": false,
    });
    assert_eq!(done(&http).await, expected);
    let asked = http.asked.lock().unwrap();
    assert_eq!((asked[0].method.as_str(), asked[0].redirects), ("GET", 5));
    assert_eq!(asked[0].head_timeout, Duration::from_secs(10));
    assert!(asked[0].body.is_none());
}

#[tokio::test]
async fn bytes_that_are_no_utf8_are_replaced() {
    let http = Scripted::new(200, "text/plain", &b"caf\xe9!"[..]);
    assert_eq!(done(&http).await["text"], "caf\u{fffd}!");
}

#[tokio::test]
async fn a_long_page_is_cut_and_still_an_object_within_the_result_limit() {
    for page in ["好".repeat(100_000), "\"\n".repeat(100_000), "\u{1}".repeat(100_000)] {
        let value = done(&Scripted::new(200, "text/plain", page.clone())).await;
        assert_eq!(value["truncated"], true);
        let text = value["text"].as_str().unwrap();
        assert!(page.starts_with(text) && text.len() > 5000, "{} bytes", text.len());
        assert!(value.to_string().len() <= Limits::default().tool_result);
    }
}

#[tokio::test]
async fn an_endless_page_is_not_read_to_its_end() {
    let mut http = Scripted::new(200, "text/plain", "");
    http.body = vec![Ok(Bytes::from(vec![b'x'; 60_000])), Err(HttpError::Broken("read on".into()))];
    assert_eq!(done(&http).await["truncated"], true);
}

#[tokio::test]
async fn what_is_no_text_is_named() {
    let http = Scripted::new(200, "image/png", &b"\x89PNG\0\0"[..]);
    let (kind, message) = failure(get(&http).await);
    assert_eq!(kind, ToolErrorKind::Upstream);
    assert_eq!(message, "https://example.com/page sent no text (image/png)");
}

#[tokio::test]
async fn a_refused_address_is_denied_with_the_remedy() {
    let denied = HttpError::Denied {
        host: "shop.internal".into(),
        why: "a private address (10.0.0.7)".into(),
    };
    let (kind, message) = failure(get(&Scripted::failing(denied)).await);
    assert_eq!(kind, ToolErrorKind::Denied);
    assert_eq!(
        message,
        "shop.internal is a private address (10.0.0.7); name it under outbound.allow in \
         exile.yaml to reach it"
    );
}

#[tokio::test]
async fn every_failure_of_the_network_has_its_kind() {
    let after = Duration::from_secs(10);
    let connect = HttpError::Connect { host: "example.com".into(), why: "refused".into() };
    for (error, expected) in [
        (HttpError::Invalid("no scheme".into()), ToolErrorKind::InvalidArgs),
        (HttpError::Timeout { phase: "first byte", after }, ToolErrorKind::Timeout),
        (connect, ToolErrorKind::Upstream),
        (HttpError::Broken("reset".into()), ToolErrorKind::Upstream),
    ] {
        assert_eq!(failure(get(&Scripted::failing(error)).await).0, expected);
    }
    let mut half = Scripted::new(200, "text/plain", "half");
    half.body.push(Err(HttpError::Broken("reset".into())));
    assert_eq!(failure(get(&half).await).0, ToolErrorKind::Upstream);
}

#[tokio::test]
async fn a_url_too_long_to_give_back_is_never_sent() {
    let http = Scripted::new(200, "text/plain", "");
    let url = format!("https://example.com/{}", "x".repeat(3000));
    let answer = call(http.clone(), "http_get", json!({ "url": url })).await;
    assert_eq!(failure(answer).0, ToolErrorKind::InvalidArgs);
    assert!(http.asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_dripping_or_silent_server_ends_in_a_timeout() {
    let mut http = Scripted::new(200, "text/plain", ".");
    http.drips = true;
    let (kind, message) = failure(get(&http).await);
    assert_eq!(
        (kind, message.as_str()),
        (ToolErrorKind::Timeout, "the answer took longer than 30s")
    );
    let args = json!({ "url": "https://example.com/" });
    assert_eq!(failure(call(Silent, "http_get", args).await).0, ToolErrorKind::Timeout);
}
