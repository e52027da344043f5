//! How much of what callers send is held: limits of one body, room for all of them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use exile_server::config::TransportLimits;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use super::bodies::{JSON, check, nothing_is_stored, post};
use super::fixture::{Answer, Exile, with_json};

/// A body that says how long it is, and comes as this stream.
async fn announced(exile: &Exile, path: &str, length: usize, body: Body) -> Answer {
    let request = Request::builder()
        .method("POST")
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {}", exile.alice))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, length);
    exile.send(request.body(body).unwrap()).await
}

/// A body in pieces, which does not say how long it is.
fn pieces(text: &str) -> Body {
    let pieces: Vec<_> = text.as_bytes().chunks(16 << 10).map(<[u8]>::to_vec).collect();
    Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)))
}

/// A body whose last byte comes when the test says so.
struct HeldBack {
    body: Body,
    /// Told when the reading begins: there is room.
    begun: oneshot::Receiver<()>,
    /// Dropped: the last byte may come.
    last: oneshot::Sender<()>,
}

fn held_back(text: &str) -> HeldBack {
    let ((begins, begun), (last, end)) = (oneshot::channel(), oneshot::channel::<()>());
    let (head, tail) = text.split_at(text.len() - 1);
    let (head, tail) = (head.to_owned(), tail.to_owned());
    let head = stream::once(async move {
        begins.send(()).unwrap();
        head
    });
    let tail = stream::once(async move {
        end.await.unwrap_err();
        tail
    });
    let body = Body::from_stream(head.chain(tail).map(Ok::<_, std::io::Error>));
    HeldBack { body, begun, last }
}

/// A message with a picture of so many bytes.
pub(super) fn seen(bytes: usize) -> String {
    let picture = format!("data:image/png;base64,{}", BASE64.encode(vec![7; bytes]));
    json!({ "content": "What is this?", "images": [picture] }).to_string()
}

fn title_of(bytes: usize) -> String {
    json!({ "title": "x".repeat(bytes) }).to_string()
}

#[tokio::test]
async fn a_body_beyond_its_limit_is_refused_whether_it_is_announced_or_not() {
    let limits =
        TransportLimits { body: 300_000, small_body: 100_000, ..TransportLimits::default() };
    let exile = Exile::limited(limits).await;
    let conversation = exile.conversation("mock/any").await;
    let messages = format!("{conversation}/messages");
    for (path, length) in [(&*messages, 300_000), ("/api/conversations", 100_000)] {
        let large = json!({ "content": "x".repeat(length) }).to_string();
        let whole = announced(&exile, path, large.len(), Body::from(large.clone())).await;
        for answer in [whole, post(&exile, path, JSON, pieces(&large)).await] {
            assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
        }
    }
    nothing_is_stored(&exile, &conversation).await;
}

#[tokio::test]
async fn documents_and_pictures_of_megabytes_are_taken_in() {
    let exile = Exile::start().await;
    let messages = format!("{}/messages", exile.conversation("mock/any").await);
    let document = "A line of a real document.\n".repeat(42_000);
    assert!(document.len() > 1_100_000);
    let said = json!([{ "role": "system", "content": document }, "What is it about?"]);
    let body = json!({ "graph": "chat", "input": { "messages": said } });
    let answer = exile.call("POST", "/api/runs/wait", Some(body)).await;
    assert_eq!(answer.status, 200, "{}", &answer.text[..300]);
    let body = seen(1_500_000);
    let answer = post(&exile, &messages, JSON, body.clone()).await;
    assert_eq!(answer.status, 200, "{}", &answer.text[..300]);
    let said = exile.call("GET", &messages, None).await.json();
    let sent: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(said["items"][0]["images"], sent["images"]);
}

#[tokio::test]
async fn a_body_that_never_comes_is_given_up() {
    let body_timeout = Duration::from_millis(20);
    let exile =
        Exile::limited(TransportLimits { body_timeout, ..TransportLimits::default() }).await;
    let silence = stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let answer = post(&exile, "/api/conversations", JSON, Body::from_stream(silence)).await;
    check(&answer, 408, "body_timeout", "within 20ms");
}

#[tokio::test]
async fn values_and_digits_are_counted_before_anything_is_parsed() {
    let exile = Exile::start().await;
    let many = format!("{{\"x\":[{}0]}}", "0,".repeat(1_000_000));
    let list = format!("{{\"x\":[{}1]}}", "{},".repeat(1_000_000));
    let cases = [
        (&*many, "json_too_many_values", "more than 1000000 values"),
        (&list, "json_too_many_values", "more than 1000000 values"),
        (r#"{"n": 18446744073709551616}"#, "number_too_long", "line 1, column 7"),
        (r#"{"n": 0.1000000000000000055}"#, "number_too_long", "0.1000000000000000055"),
    ];
    for (body, code, detail) in cases {
        check(&post(&exile, "/api/runs", JSON, body.to_owned()).await, 400, code, detail);
        let answer = post(&exile, "/v1/chat/completions", JSON, body.to_owned()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code));
    }
}

/// Room for one large body and one of middle size.
fn narrow() -> TransportLimits {
    TransportLimits {
        bodies: 2 << 20,
        body_wait: Duration::from_millis(20),
        ..TransportLimits::default()
    }
}

#[tokio::test]
async fn large_bodies_come_in_one_by_one_and_smaller_ones_pass_them() {
    let exile = Arc::new(Exile::limited(narrow()).await);
    let messages = format!("{}/messages", exile.conversation("mock/any").await);
    let large = seen(900_000);
    let HeldBack { body, begun, last } = held_back(&large);
    let first = tokio::spawn({
        let (exile, messages, length) = (exile.clone(), messages.clone(), large.len());
        async move { announced(&exile, &messages, length, body).await }
    });
    begun.await.unwrap();
    for body in [Body::from(large.clone()), pieces(&large)] {
        let second = post(&exile, &messages, JSON, body).await;
        check(&second, 503, "overloaded", "as many large bodies as it may");
        assert_eq!(second.header("retry-after"), "1");
    }
    for length in [100, 500_000] {
        let passes = post(&exile, "/api/conversations", JSON, title_of(length)).await;
        assert_eq!(passes.status, 201, "{}", passes.text);
    }
    drop(last);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(post(&exile, &messages, JSON, large).await.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_say_its_length_gives_back_what_it_did_not_need() {
    let usual = TransportLimits::default();
    let limits = TransportLimits { body_wait: usual.body_wait, ..narrow() };
    let exile = Exile::limited(limits).await;
    let body = json!({ "model": "gate/any", "stream": true,
        "messages": [{ "role": "user", "content": "x".repeat(200_000) }] });
    let both = tokio::sync::Barrier::new(2);
    let send = async |held: HeldBack| {
        let sent = post(&exile, "/v1/chat/completions", JSON, held.body);
        let (answer, begun) = tokio::join!(sent, async {
            held.begun.await?;
            drop(held.last);
            // Neither model answers before there was room for both.
            both.wait().await;
            exile.gate.add_permits(1);
            Ok::<_, oneshot::error::RecvError>(())
        });
        assert_eq!((answer.status, begun), (200, Ok(())), "{}", answer.text);
    };
    let text = body.to_string();
    tokio::join!(send(held_back(&text)), send(held_back(&text)));
}

#[tokio::test]
async fn room_is_held_until_the_answer_is_read() {
    let exile = Exile::limited(narrow()).await;
    let body = json!({ "model": "mock/any", "stream": true, "messages": [
        { "role": "system", "content": "x".repeat(1_200_000) }, { "role": "user", "content": "hi" },
    ] });
    let request = || {
        let request = Request::builder()
            .method("POST")
            .uri("/v1/chat/completions")
            .header(header::AUTHORIZATION, format!("Bearer {}", exile.alice));
        with_json(request, Some(body.clone()))
    };
    let unread = exile.router.clone().oneshot(request()).await.unwrap();
    assert_eq!(unread.status().as_u16(), 200);
    assert_eq!(exile.send(request()).await.code(), "overloaded");
    drop(unread);
    assert_eq!(exile.send(request()).await.status, 200);
}

#[tokio::test]
async fn a_keyed_request_takes_its_room_once() {
    let exile = Exile::limited(narrow()).await;
    let conversation = exile.conversation("mock/any").await;
    let large = seen(900_000);
    for _ in 0..2 {
        let request = Request::builder()
            .method("POST")
            .uri(format!("{conversation}/messages"))
            .header(header::AUTHORIZATION, format!("Bearer {}", exile.alice))
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", "a");
        let answer = exile.send(request.body(pieces(&large)).unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}
