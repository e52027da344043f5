//! Over a real socket: what the router alone cannot show.

use std::net::SocketAddr;
use std::time::Duration;

use exile_engine::id::RunId;
use exile_engine::run::engine::Stopped;
use exile_engine::run::record::EndStatus;
use exile_server::config::TransportLimits;
use exile_server::process::serve;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fixture::Exile;

/// A server that listens.
pub(super) struct Socket {
    pub(super) address: SocketAddr,
    pub(super) stop: CancellationToken,
    pub(super) serving: JoinHandle<()>,
}

pub(super) async fn listen(exile: &Exile) -> Socket {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve::serve(listener, exile.app.clone(), stop.clone()));
    Socket { address, stop, serving }
}

/// How long requests in flight may go on.
fn shutdown(shutdown: Duration) -> TransportLimits {
    TransportLimits { shutdown, ..TransportLimits::default() }
}

pub(super) fn head(exile: &Exile, request: &str, length: usize) -> String {
    format!(
        "{request} HTTP/1.1\r\nhost: exile.test\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n",
        exile.alice
    )
}

pub(super) async fn read_until(stream: &mut TcpStream, text: &mut String, part: &str) {
    let mut buffer = [0; 4096];
    while !text.contains(part) {
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "closed before {part:?}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
}

#[tokio::test]
async fn a_client_that_sends_too_much_gets_to_read_why() {
    let exile = Exile::start().await;
    let socket = listen(&exile).await;
    let mut stream = TcpStream::connect(socket.address).await.unwrap();
    let body = vec![b' '; 20 << 20];
    let head = head(&exile, "POST /api/conversations", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("body_too_large"));
}

#[tokio::test]
async fn a_client_that_leaves_stops_nothing() {
    let exile = Exile::start().await;
    let socket = listen(&exile).await;
    let conversation = exile.conversation("gate/any").await;
    let body = r#"{"content": "hi", "stream": true}"#;
    let mut stream = TcpStream::connect(socket.address).await.unwrap();
    let head = head(&exile, &format!("POST {conversation}/messages"), body.len());
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut text = String::new();
    read_until(&mut stream, &mut text, "node.started").await;
    drop(stream);
    exile.gate.add_permits(1);
    let runs = exile.call("GET", "/api/runs", None).await.json();
    let run = runs["items"][0]["id"].as_str().unwrap().to_owned();
    let events = exile.call("GET", &format!("/api/runs/{run}/stream"), None).await.events();
    assert_eq!(events.last().unwrap().name, "run.finished");
}

#[tokio::test]
async fn draining_answers_what_is_in_flight_and_takes_nothing_new() {
    let exile = Exile::start().await;
    let socket = listen(&exile).await;
    let conversation = exile.conversation("gate/any").await;
    let body = r#"{"content": "hi", "stream": true}"#;
    let mut stream = TcpStream::connect(socket.address).await.unwrap();
    let head = head(&exile, &format!("POST {conversation}/messages"), body.len());
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut text = String::new();
    read_until(&mut stream, &mut text, "run.started").await;
    socket.stop.cancel();
    while TcpStream::connect(socket.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    exile.gate.add_permits(1);
    read_until(&mut stream, &mut text, "run.finished").await;
    drop(stream);
    socket.serving.await.unwrap();
}

#[tokio::test]
async fn a_stream_that_outlasts_the_drain_is_cut_off() {
    let exile = Exile::limited(shutdown(Duration::ZERO)).await;
    let socket = listen(&exile).await;
    let run = exile.waiting_run().await;
    let mut stream = TcpStream::connect(socket.address).await.unwrap();
    let head = head(&exile, &format!("GET {run}/stream"), 0);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    read_until(&mut stream, &mut text, "run.started").await;
    socket.stop.cancel();
    socket.serving.await.unwrap();
    assert!(!ends_as_if_the_run_had(&mut stream).await);
}

/// Reads on to the end; whether that was the end of the answer.
async fn ends_as_if_the_run_had(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    // A connection that is reset has ended, too.
    let _ = stream.read_to_end(&mut rest).await;
    rest.ends_with(b"0\r\n\r\n")
}

#[tokio::test]
async fn readers_are_sent_away_once_no_run_goes_on() {
    let exile = Exile::limited(shutdown(Duration::from_hours(1))).await;
    let socket = listen(&exile).await;
    let run = exile.waiting_run().await;
    let mut stream = TcpStream::connect(socket.address).await.unwrap();
    stream.write_all(head(&exile, &format!("GET {run}/stream"), 0).as_bytes()).await.unwrap();
    read_until(&mut stream, &mut String::new(), "run.started").await;
    socket.stop.cancel();
    exile.app.transport.readers.cancel();
    socket.serving.await.unwrap();
    assert!(!ends_as_if_the_run_had(&mut stream).await);
}

#[tokio::test]
async fn whoever_waits_when_time_is_over_is_told_and_no_run_is_cancelled_for_it() {
    let exile = Exile::limited(shutdown(Duration::ZERO)).await;
    let socket = listen(&exile).await;
    let body = r#"{"graph": "chat", "model": "gate/any", "input": {"messages": "hi"},
                   "on_disconnect": "cancel"}"#;
    let mut stream = TcpStream::connect(socket.address).await.unwrap();
    let head = head(&exile, "POST /api/runs/wait", body.len());
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let run = loop {
        let runs = exile.call("GET", "/api/runs?status=running", None).await.json();
        if let Some(run) = runs["items"][0]["id"].as_str() {
            break run.to_owned();
        }
    };
    socket.stop.cancel();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("the server ends"), "{answer}");
    socket.serving.await.unwrap();
    exile.gate.add_permits(1);
    let stopped = exile.app.engine.wait(&RunId::from(run)).await.unwrap();
    let Stopped::Ended(ended) = stopped else { panic!("{stopped:?}") };
    assert_eq!(ended.status, EndStatus::Finished);
}
