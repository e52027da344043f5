//! The outbound guard, over sockets.

use std::sync::Arc;
use std::time::Duration;

use exile_engine::http::{Http, HttpError, HttpRequest, HttpResponse};
use exile_engine::span::{NoTrace, TraceLink};
use exile_nodes::guard::Allow;
use exile_nodes::http::{Client, Outbound};
use futures_util::StreamExt as _;

use crate::upstream::{Answer, Upstream};

fn client(allow: &[&str]) -> Arc<dyn Http> {
    let allow = allow.iter().map(|a| Allow::parse(a)).collect();
    Client::new(Outbound { allow, proxy: None }, Arc::new(NoTrace)).unwrap()
}

fn get(url: &str) -> HttpRequest {
    HttpRequest {
        method: "GET".into(),
        url: url.into(),
        headers: Vec::new(),
        body: None,
        redirects: 5,
        head_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
    }
}

async fn text(mut response: HttpResponse) -> String {
    let mut bytes = Vec::new();
    while let Some(piece) = response.body.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

/// The port of an upstream.
fn port(upstream: &Upstream) -> &str {
    upstream.url.rsplit(':').next().unwrap()
}

/// Spellings of addresses that are not public, each of which some parser somewhere takes.
const DENIED: &[&str] = &[
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "127.255.255.254",
    "0.0.0.0",
    "0",
    "0x0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::a00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "[fd00:ec2::254]",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "10.0.0.1",
    "10.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.257",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
    "240.0.0.1",
    "[fc00::1]",
    "[fd12:3456::1]",
    "[fe80::1]",
    "[febf::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[100::1]",
    "１２７.0.0.1",
    "127。0。0。1",
    "user:pass@127.0.0.1",
    "%31%32%37.0.0.1",
];

#[tokio::test]
async fn no_spelling_of_a_private_address_is_connected_to() {
    let upstream = Upstream::start([]).await;
    let client = client(&[]);
    assert!(DENIED.len() >= 40);
    for host in DENIED {
        let url = format!("http://{host}:{}/", port(&upstream));
        let outcome = client.send(get(&url)).await;
        assert!(matches!(outcome, Err(HttpError::Denied { .. })), "{host}: {:?}", outcome.err());
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn the_refusal_says_what_to_do() {
    let error = client(&[]).send(get("http://10.1.2.3/")).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "10.1.2.3 is a private address (10.1.2.3); name it under outbound.allow in exile.yaml to \
         reach it"
    );
}

#[tokio::test]
async fn what_is_named_is_reached_and_nothing_beside_it() {
    let upstream =
        Upstream::start([Answer::new(200).then("in"), Answer::new(200).then("in")]).await;
    let exact = format!("127.0.0.1:{}", port(&upstream));
    for allow in ["127.0.0.1", exact.as_str()] {
        let response = client(&[allow]).send(get(&upstream.url)).await.unwrap();
        assert_eq!(text(response).await, "in");
    }
    for allow in ["127.0.0.1:1", "127.0.0.2", "localhost"] {
        let denied = client(&[allow]).send(get(&upstream.url)).await.err().unwrap();
        assert!(matches!(denied, HttpError::Denied { .. }), "{allow}: {denied}");
    }
}

#[tokio::test]
async fn a_name_may_be_allowed() {
    let upstream = Upstream::start([Answer::new(200).then("in")]).await;
    let url = format!("http://localhost:{}/", port(&upstream));
    assert_eq!(text(client(&["localhost"]).send(get(&url)).await.unwrap()).await, "in");
}

#[tokio::test]
async fn every_redirect_is_checked_again() {
    for target in ["http://169.254.169.254/latest/meta-data", "http://localhost:1/", "//10.0.0.1/"]
    {
        let hop = Answer::new(302).header("location", target);
        let upstream = Upstream::start([hop]).await;
        let allow = upstream.url.trim_start_matches("http://").to_owned();
        let denied = client(&[&allow]).send(get(&upstream.url)).await.err().unwrap();
        assert!(matches!(denied, HttpError::Denied { .. }), "{target}: {denied}");
    }
    let hop = Answer::new(302).header("location", "file:///etc/passwd");
    let upstream = Upstream::start([hop]).await;
    let refused = client(&["127.0.0.1"]).send(get(&upstream.url)).await.err().unwrap();
    assert!(matches!(refused, HttpError::Invalid(_)), "{refused}");
}

#[tokio::test]
async fn another_origin_gets_no_header_and_no_body() {
    let other = Upstream::start([Answer::new(200).then("there")]).await;
    let to = |status, path: &str| Answer::new(status).header("location", path);
    let upstream =
        Upstream::start([to(307, "/again"), to(302, &other.url), to(307, &other.url)]).await;
    let client = client(&["127.0.0.1"]);
    let request = HttpRequest {
        headers: vec![("authorization".into(), "Bearer k".into()), ("cookie".into(), "c".into())],
        ..get(&upstream.url)
    };
    let response = client.send(request.clone()).await.unwrap();
    assert_eq!(response.url, format!("{}/", other.url));
    assert_eq!(text(response).await, "there");
    assert_eq!(upstream.seen()[1].header("authorization"), Some("Bearer k"), "the same origin");
    let there = &other.seen()[0];
    assert_eq!((there.header("authorization"), there.header("cookie")), (None, None));
    let post = HttpRequest { method: "POST".into(), body: Some("secret".into()), ..request };
    assert_eq!(client.send(post).await.unwrap().status, 307, "handed back, not followed");
    assert_eq!(other.seen().len(), 1);
}

#[tokio::test]
async fn redirects_are_counted_and_change_the_method_as_browsers_do() {
    let hop = |status| Answer::new(status).header("location", "/next");
    let upstream =
        Upstream::start([hop(303), Answer::new(200), hop(302), hop(302), hop(302)]).await;
    let client = client(&["127.0.0.1"]);
    let post = HttpRequest { method: "POST".into(), body: Some("x".into()), ..get(&upstream.url) };
    assert_eq!(client.send(post).await.unwrap().status, 200);
    assert_eq!((&*upstream.seen()[1].line, &*upstream.seen()[1].text), ("GET /next", ""));
    let once = HttpRequest { redirects: 1, ..get(&upstream.url) };
    assert_eq!(client.send(once).await.unwrap().status, 302);
    let never = HttpRequest { redirects: 0, ..get(&upstream.url) };
    assert_eq!(client.send(never).await.unwrap().status, 302);
    assert_eq!(upstream.seen().len(), 5);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before_any_connection() {
    let upstream = Upstream::start([]).await;
    let client = client(&["127.0.0.1"]);
    let header = |name: &str, value: &str| HttpRequest {
        headers: vec![(name.into(), value.into())],
        ..get(&upstream.url)
    };
    for request in [
        header("x", "a\r\nevil: 1"),
        header("x", "a\nb"),
        header("x", "a\0b"),
        header("x\r\ny", "a"),
        header("", "a"),
        HttpRequest { method: "GET / HTTP/1.1\r\nx: y".into(), ..get(&upstream.url) },
        get("ftp://127.0.0.1/"),
        get("file:///etc/passwd"),
        get("data:text/plain,x"),
        get("/relative"),
        get("http://"),
        get("http://exa mple/"),
    ] {
        let refused = client.send(request.clone()).await.err().unwrap();
        assert!(matches!(refused, HttpError::Invalid(_)), "{request:?}: {refused}");
        assert!(!refused.to_string().contains("evil"), "{refused}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn dropping_the_body_closes_the_connection() {
    let upstream = Upstream::start([Answer::new(200).then("a").silence()]).await;
    let mut response = client(&["127.0.0.1"]).send(get(&upstream.url)).await.unwrap();
    assert_eq!(response.body.next().await.unwrap().unwrap(), "a");
    drop(response);
    let closed = tokio::time::timeout(Duration::from_secs(5), upstream.gone.notified()).await;
    assert!(closed.is_ok(), "the server still has its client");
}

#[tokio::test]
async fn a_body_that_breaks_or_idles_ends_with_an_error() {
    let upstream = Upstream::start([
        Answer::new(200).then("a").broken(),
        Answer::new(200).then("a").silence(),
    ])
    .await;
    let client = client(&["127.0.0.1"]);
    let request = HttpRequest { idle_timeout: Duration::from_millis(200), ..get(&upstream.url) };
    let mut ends = Vec::new();
    for _ in 0..2 {
        let response = client.send(request.clone()).await.unwrap();
        let pieces: Vec<_> = response.body.collect().await;
        assert_eq!(pieces.len(), 2);
        ends.push(pieces[1].clone().unwrap_err());
    }
    assert!(matches!(ends[0], HttpError::Broken(_)), "{:?}", ends[0]);
    let timeout = HttpError::Timeout { phase: "idle", after: Duration::from_millis(200) };
    assert_eq!(ends[1], timeout);
}

struct Fixed;

impl TraceLink for Fixed {
    fn adopt(&self, _: &tracing::Span, _: &str) {}

    fn traceparent(&self, _: &tracing::Span) -> Option<String> {
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into())
    }
}

#[tokio::test]
async fn the_trace_goes_along() {
    let upstream = Upstream::start([Answer::new(200)]).await;
    let policy = Outbound { allow: vec![Allow::parse("127.0.0.1")], proxy: None };
    let client = Client::new(policy, Arc::new(Fixed)).unwrap();
    client.send(get(&upstream.url)).await.unwrap();
    let seen = &upstream.seen()[0];
    assert!(seen.header("traceparent").unwrap().starts_with("00-0af7"));
    assert!(seen.header("user-agent").unwrap().starts_with("exile/"));
}

#[test]
fn a_proxy_that_is_no_url_is_refused() {
    let policy = Outbound { allow: Vec::new(), proxy: Some("::::".into()) };
    assert!(Client::new(policy, Arc::new(NoTrace)).is_err());
}
