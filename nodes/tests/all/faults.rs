//! Bad upstreams: every failure is typed, names its provider and model, and holds no key.

use std::time::Duration;

use exile_nodes::providers::Secret;
use serde_json::json;

use crate::facts::{KEY, at, configured, delta, end, hello, stream};
use crate::upstream::{Answer, Upstream};

/// Streams from an upstream that answers so; gives the fault's code and text.
async fn fault(answer: Answer) -> (&'static str, String) {
    let upstream = Upstream::start([answer]).await;
    let error = stream(&at(&upstream, "openai"), &hello("gpt-x")).await.0.unwrap_err();
    assert!(error.to_string().starts_with("openai/gpt-x: "), "{error}");
    (error.fault.code(), error.to_string())
}

#[tokio::test]
async fn statuses_become_typed_faults() {
    for (status, code) in [
        (400, "provider_refused_request"),
        (401, "provider_unauthorized"),
        (402, "provider_no_balance"),
        (403, "provider_unauthorized"),
        (404, "provider_refused_request"),
        (429, "provider_rate_limited"),
        (500, "provider_unavailable"),
        (503, "provider_unavailable"),
        (529, "provider_unavailable"),
    ] {
        assert_eq!(fault(Answer::new(status).then("{}")).await.0, code, "{status}");
    }
}

#[tokio::test]
async fn garbage_is_a_typed_fault() {
    let page = Answer::new(200).then("<html><body>Welcome to the hotel wifi</body></html>");
    let (code, text) = fault(page).await;
    assert_eq!(code, "provider_garbage");
    assert!(text.contains("hotel wifi"), "{text}");
    for wire in [
        "data: {\"choices\": [\n\n",
        "data: \u{0}\u{1}\n\n",
        "{\"choices\": []}",
        "",
        "data: [DONE]\n\n",
    ] {
        assert_eq!(fault(Answer::new(200).then(wire)).await.0, "provider_garbage", "{wire:?}");
    }
    let bytes = Answer::new(200).bytes(b"data: {\"a\":\"\xff\xfe\"}\n\n");
    assert_eq!(fault(bytes).await.0, "provider_garbage");
}

#[tokio::test]
async fn an_event_without_an_end_is_refused_at_one_megabyte() {
    let piece = "x".repeat(64 * 1024);
    let endless = (0..64).fold(Answer::new(200).then("data: "), |a, _| a.then(&piece));
    let (code, text) = fault(endless).await;
    assert_eq!(code, "provider_garbage");
    assert!(text.contains("1048576 bytes"), "{text}");
}

#[tokio::test]
async fn a_server_without_streams_is_understood() {
    let whole = json!({ "choices": [{ "message": { "content": "hi" }, "finish_reason": "stop" }] });
    let upstream = Upstream::start([Answer::json(whole)]).await;
    let (reply, said, _) = stream(&at(&upstream, "local"), &hello("m")).await;
    assert_eq!((reply.unwrap().content.as_str(), said.as_str()), ("hi", "hi"));
}

#[tokio::test]
async fn silence_ends_at_the_first_byte_and_between_bytes() {
    let half = format!("data: {}\n\n", delta(json!({ "content": "ha" })));
    let upstream =
        Upstream::start([Answer::new(200).silence(), Answer::new(200).then(&half).silence()]).await;
    let provider = configured(&upstream, "openai", |config| {
        config.first_byte_timeout = Duration::from_millis(300);
        config.idle_timeout = Duration::from_millis(300);
    });
    let (reply, ..) = stream(&provider, &hello("m")).await;
    assert_eq!(reply.unwrap_err().to_string(), "openai/m: first byte timed out after 300 ms");
    upstream.gone.notified().await;
    let (reply, said, _) = stream(&provider, &hello("m")).await;
    assert_eq!(reply.unwrap_err().to_string(), "openai/m: idle timed out after 300 ms");
    assert_eq!(said, "ha");
    upstream.gone.notified().await;
}

#[tokio::test]
async fn nothing_listens_at_the_address() {
    let upstream = Upstream::start([]).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let provider = configured(&upstream, "local", |config| config.base_url = Some(free));
    let error = stream(&provider, &hello("m")).await.0.unwrap_err();
    assert_eq!(error.fault.code(), "provider_unreachable");
}

#[tokio::test]
async fn dropping_the_call_closes_the_upstream() {
    let half = format!("data: {}\n\n", delta(json!({ "content": "ha" })));
    let upstream = Upstream::start([Answer::new(200).then(&half).silence()]).await;
    let provider = at(&upstream, "openai");
    let (sender, mut deltas) = tokio::sync::mpsc::channel(8);
    let call = tokio::spawn(async move { provider.stream(&hello("m"), &sender).await });
    assert!(deltas.recv().await.is_some());
    call.abort();
    let closed = tokio::time::timeout(Duration::from_secs(5), upstream.gone.notified()).await;
    assert!(closed.is_ok(), "the upstream still has its client");
}

#[tokio::test]
async fn calls_that_ended_well_leave_their_connection_to_others() {
    let answer = || Answer::events(&[delta(json!({ "content": "x" })), end("stop")]);
    let upstream = Upstream::start((0..10).map(|_| answer())).await;
    let provider = at(&upstream, "openai");
    for _ in 0..10 {
        stream(&provider, &hello("m")).await.0.unwrap();
        // The pool takes a connection back in a task of its own; that it may lose a race now and
        // then is no matter.
        tokio::task::yield_now().await;
    }
    assert_eq!(upstream.seen().len(), 10);
    assert!(upstream.connections() < 10, "every call made a connection");
}

#[tokio::test]
async fn a_key_that_an_upstream_echoes_is_blotted_out() {
    let echo = format!("key {KEY} is not a key; header azure-canary; try sig-canary");
    let body = json!({ "error": { "message": echo } }).to_string();
    let inside = json!({ "error": { "message": echo } });
    let long = format!("{} {KEY}", "x".repeat(490));
    let upstream = Upstream::start([
        Answer::new(401).then(&body),
        Answer::new(500).then(&echo),
        Answer::events(&[inside]),
        Answer::new(200).then(&format!("<p>{echo}</p>")),
        Answer::new(500).then(&long),
    ])
    .await;
    let provider = configured(&upstream, "openai", |config| {
        config.headers = vec![("X-Tenant".into(), Secret::new("azure-canary"))];
        config.query = vec![("sig".into(), Secret::new("sig-canary"))];
    });
    for _ in 0..5 {
        let error = stream(&provider, &hello("m")).await.0.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("[secret]") && !shown.contains("canary"), "{shown}");
        assert!(!shown.contains("sk-"), "{shown}");
    }
}

#[tokio::test]
async fn headers_and_query_are_sent_and_empty_ones_are_not() {
    let ok = Answer::events(&[delta(json!({ "content": "x" })), end("stop")]);
    let upstream = Upstream::start([ok]).await;
    let provider = configured(&upstream, "openai", |config| {
        config.api_key = None;
        config.headers =
            vec![("api-key".into(), Secret::new("azure")), ("x-empty".into(), Secret::new(""))];
        config.query = vec![("api-version".into(), Secret::new("a b"))];
    });
    stream(&provider, &hello("m")).await.0.unwrap();
    let seen = &upstream.seen()[0];
    assert_eq!(seen.line, "POST /v1/chat/completions?api-version=a+b");
    assert_eq!((seen.header("api-key"), seen.header("authorization")), (Some("azure"), None));
    assert_eq!(seen.header("x-empty"), None);
}

#[tokio::test]
async fn a_proxy_is_used_if_configured() {
    let ok = Answer::events(&[delta(json!({ "content": "x" })), end("stop")]);
    let proxy = Upstream::start([ok]).await;
    let provider = configured(&proxy, "gemini", |config| {
        config.base_url = Some("http://models.invalid/v1".into());
        config.proxy = Some(proxy.url.clone());
    });
    stream(&provider, &hello("m")).await.0.unwrap();
    assert_eq!(proxy.seen()[0].line, "POST http://models.invalid/v1/chat/completions");
}
