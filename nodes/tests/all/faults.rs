//! Bad upstreams: every failure is typed, names its provider and model, and holds no key.

use std::sync::Arc;
use std::time::Duration;

use exile_engine::limits::AnswerLimits;
use exile_engine::model::Provider;
use exile_nodes::providers::Secret;
use futures_util::future::join_all;
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

/// Milliseconds of silence; long enough for a machine that is busy with other tests.
const IDLE: u64 = 1000;

/// A provider that is patient for `idle` between two bytes and for `total` altogether.
fn hasty(upstream: &Upstream, name: &str, idle: u64, total: u64) -> Arc<dyn Provider> {
    configured(upstream, name, |config| {
        config.first_byte_timeout = Duration::from_millis(idle);
        config.idle_timeout = Duration::from_millis(idle);
        config.total_timeout = Duration::from_millis(total);
    })
}

/// The fault of a stream that never ends.
async fn endless(name: &str, answer: Answer, idle: u64, total: u64) -> String {
    let upstream = Upstream::start([answer]).await;
    let error = stream(&hasty(&upstream, name, idle, total), &hello("m")).await.0.unwrap_err();
    assert_eq!(error.fault.code(), "provider_timeout");
    error.fault.to_string()
}

#[tokio::test]
async fn endless_signs_of_life_end_after_ten_times_the_silence() {
    let ping = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
    let empty = format!("data: {}\n\n", delta(json!({ "content": "" })));
    let signs = [
        ("deepseek", ": keep-alive\n\n"),
        ("anthropic", ping),
        ("openai", empty.as_str()),
        ("lab", "\n"),
        // A line that drips.
        ("vllm", "x"),
    ];
    let begun = signs.map(|(name, sign)| endless(name, Answer::new(200).drip(sign), IDLE, 60_000));
    for (fault, (name, sign)) in join_all(begun).await.into_iter().zip(signs) {
        assert_eq!(fault, "idle timed out after 10000 ms", "{name} {sign:?}");
    }
}

#[tokio::test]
async fn a_refusal_whose_body_never_ends_is_a_refusal_all_the_same() {
    let upstream = Upstream::start([Answer::new(503).then("bus").drip("y")]).await;
    let error = stream(&hasty(&upstream, "openai", 100, 60_000), &hello("m")).await.0.unwrap_err();
    assert_eq!(error.fault.code(), "provider_unavailable");
}

#[tokio::test]
async fn an_answer_that_never_ends_ends_with_the_whole_time() {
    let words = format!("data: {}\n\n", delta(json!({ "content": "na " })));
    let fault = endless("openai", Answer::new(200).drip(&words), 10_000, 1000).await;
    assert_eq!(fault, "total timed out after 1000 ms");
    let fault = endless("lab", Answer::new(200).then("{\"a\": \"").drip("x"), 10_000, 1000).await;
    assert_eq!(fault, "total timed out after 1000 ms");
}

#[tokio::test]
async fn sixty_four_megabytes_in_one_line_are_never_held() {
    let piece = "x".repeat(1024 * 1024);
    for start in ["data: ", "{\"choices\": \"", ": comment ", "garbage "] {
        let huge = (0..64).fold(Answer::new(200).then(start), |a, _| a.then(&piece));
        let (code, text) = fault(huge).await;
        assert_eq!(code, "provider_garbage", "{start}");
        assert!(text.contains("longer than") && text.len() < 1000, "{text}");
    }
}

#[tokio::test]
async fn an_answer_of_many_small_pieces_is_bounded_too() {
    let words = format!("data: {}\n\n", delta(json!({ "content": "x".repeat(900_000) })));
    let (code, text) = fault((0..32).fold(Answer::new(200), |a, _| a.then(&words))).await;
    assert_eq!((code, text.contains("16777216 bytes")), ("provider_garbage", true), "{text}");
    let call = |i: usize| json!({ "index": i, "id": i.to_string(), "function": { "name": "f" } });
    let calls: Vec<_> = (0..600).map(call).collect();
    let many = format!("data: {}\n\n", delta(json!({ "tool_calls": calls })));
    let (code, text) = fault(Answer::new(200).then(&many)).await;
    assert_eq!((code, text.contains("512 tool calls")), ("provider_garbage", true), "{text}");
}

#[tokio::test]
async fn an_answer_has_no_more_pieces_and_bytes_than_the_installation_admits() {
    let words = format!("data: {}\n\n", delta(json!({ "content": "na " })));
    for (limits, why) in [
        (AnswerLimits { bytes: 20, pieces: 100 }, "longer than 20 bytes"),
        (AnswerLimits { bytes: 2000, pieces: 5 }, "more than 5 pieces"),
    ] {
        let upstream = Upstream::start([Answer::new(200).then(&words.repeat(10))]).await;
        let provider = configured(&upstream, "openai", |config| config.limits = limits);
        let (answer, text, _) = stream(&provider, &hello("m")).await;
        let error = answer.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(text.len() < 30, "{text}");
    }
}

#[tokio::test]
async fn what_could_forge_a_line_is_never_sent() {
    let upstream = Upstream::start([]).await;
    let provider = at(&upstream, "openai");
    let mut tool = hello("m");
    tool.tools[0].name = "add\r\nx-evil: 1".into();
    for request in [hello("m\r\nx-evil: 1"), hello(""), tool] {
        let error = stream(&provider, &request).await.0.unwrap_err();
        assert_eq!(error.fault.code(), "provider_request_invalid", "{error}");
    }
    for (name, value) in [("x-a", "b\r\nx-evil: 1"), ("x-a\r\nx-evil", "1")] {
        let provider = configured(&upstream, "openai", |config| {
            config.headers = vec![(name.into(), Secret::new(value))];
        });
        let error = stream(&provider, &hello("m")).await.0.unwrap_err();
        assert!(error.to_string().contains("forbidden character"), "{error}");
    }
    assert_eq!(upstream.connections(), 0);
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

/// Whether the upstream sees its client go within 100 ms of a dropped call.
async fn leaves_at_once() -> bool {
    let half = format!("data: {}\n\n", delta(json!({ "content": "ha" })));
    let upstream = Upstream::start([Answer::new(200).then(&half).silence()]).await;
    let provider = at(&upstream, "openai");
    let (sender, mut deltas) = tokio::sync::mpsc::channel(8);
    let call = tokio::spawn(async move { provider.stream(&hello("m"), &sender).await });
    assert!(deltas.recv().await.is_some());
    call.abort();
    let gone = upstream.gone.notified();
    tokio::time::timeout(Duration::from_millis(100), gone).await.is_ok()
}

#[tokio::test]
async fn dropping_the_call_closes_the_upstream_within_100_ms() {
    // A machine that is busy with other tests may miss it now and then, never always.
    for _ in 0..5 {
        if leaves_at_once().await {
            return;
        }
    }
    panic!("the upstream still has its client");
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
