//! What a connection may take of the server, over real sockets: how long it may be silent, how
//! many there may be, and what it may say.

use std::net::SocketAddr;
use std::time::Duration;

use exile_server::config::TransportLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::fixture::Exile;
use super::room::seen;
use super::socket::{Socket, head, listen, read_until};

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_hours(1);

/// No limit of time ends anything.
fn patient() -> TransportLimits {
    TransportLimits {
        header_timeout: LONG,
        idle_timeout: LONG,
        write_timeout: LONG,
        ..TransportLimits::default()
    }
}

async fn open(socket: &Socket, said: &str) -> TcpStream {
    let mut stream = TcpStream::connect(socket.address).await.unwrap();
    stream.write_all(said.as_bytes()).await.unwrap();
    stream
}

/// What came until the server ended the connection.
async fn ended(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A connection that is reset has ended, too.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The whole answer to bytes that nobody follows up.
async fn answer(socket: &Socket, said: &str) -> String {
    ended(open(socket, said).await).await
}

const ALIVE: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\n";

async fn is_answered(socket: &Socket) -> bool {
    let answer = answer(socket, &format!("{ALIVE}connection: close\r\n\r\n")).await;
    answer.starts_with("HTTP/1.1 200")
}

#[tokio::test]
async fn a_connection_that_sends_no_head_is_cut() {
    let exile = Exile::limited(TransportLimits { header_timeout: SHORT, ..patient() }).await;
    let socket = listen(&exile).await;
    for said in ["", "G", "GET /healthz HTTP/1.1\r\nhost: x\r\n", "PRI * HT"] {
        assert_eq!(answer(&socket, said).await, "", "{said:?}");
    }
    assert!(is_answered(&socket).await);
}

#[tokio::test]
async fn a_connection_that_asks_nothing_more_is_cut() {
    let exile = Exile::limited(TransportLimits { idle_timeout: SHORT, ..patient() }).await;
    let socket = listen(&exile).await;
    let answer = answer(&socket, &format!("{ALIVE}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (first, rest) = (format!("{ALIVE}\r\n"), "GET /healthz HTTP/1.1\r\n");
    let exile = Exile::limited(TransportLimits { header_timeout: SHORT, ..patient() }).await;
    let socket = listen(&exile).await;
    let mut stream = open(&socket, &first).await;
    read_until(&mut stream, &mut String::new(), "\"ok\"").await;
    stream.write_all(rest.as_bytes()).await.unwrap();
    assert_eq!(ended(stream).await, "");
}

#[tokio::test]
async fn a_head_beyond_its_limit_is_refused() {
    let exile = Exile::limited(TransportLimits { head: 10_000, ..patient() }).await;
    let socket = listen(&exile).await;
    let with = |bytes| format!("{ALIVE}x: {}\r\nconnection: close\r\n\r\n", "y".repeat(bytes));
    assert!(answer(&socket, &with(9_000)).await.starts_with("HTTP/1.1 200"));
    assert!(answer(&socket, &with(20_000)).await.starts_with("HTTP/1.1 431"));
    let many = "x: y\r\n".repeat(200);
    let many = answer(&socket, &format!("{ALIVE}{many}\r\n")).await;
    assert!(many.starts_with("HTTP/1.1 431"), "{many}");
}

/// A connection on which a run is waited for.
async fn busy(exile: &Exile, socket: &Socket) -> TcpStream {
    let run = exile.waiting_run().await;
    let mut stream = open(socket, &head(exile, &format!("GET {run}/stream"), 0)).await;
    read_until(&mut stream, &mut String::new(), "run.started").await;
    stream
}

#[tokio::test]
async fn the_oldest_silent_connection_makes_way_and_a_busy_one_never() {
    let exile = Exile::limited(TransportLimits { connections: 3, ..patient() }).await;
    let socket = listen(&exile).await;
    let mut reading = busy(&exile, &socket).await;
    let mut silent = Vec::new();
    for said in ["", "GET /half"] {
        silent.push(open(&socket, said).await);
    }
    assert!(is_answered(&socket).await);
    for stream in silent.drain(..1) {
        assert_eq!(ended(stream).await, "");
    }
    exile.gate.add_permits(1);
    read_until(&mut reading, &mut String::new(), "run.finished").await;
}

#[tokio::test]
async fn whoever_finds_nobody_who_can_make_way_is_told_so() {
    let exile = Exile::limited(TransportLimits { connections: 1, ..patient() }).await;
    let socket = listen(&exile).await;
    let reading = busy(&exile, &socket).await;
    let refused = answer(&socket, "").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after"), "{refused}");
    drop(reading);
    while !is_answered(&socket).await {}
}

#[tokio::test]
async fn one_address_leaves_places_to_others() {
    let limits = TransportLimits { connections: 10, connections_per_address: Some(1), ..patient() };
    let exile = Exile::limited(limits).await;
    let socket = listen(&exile).await;
    let _reading = busy(&exile, &socket).await;
    assert!(answer(&socket, "").await.starts_with("HTTP/1.1 503"));
    let other = TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse::<SocketAddr>().unwrap()).unwrap();
    let mut other = other.connect(socket.address).await.unwrap();
    other.write_all(format!("{ALIVE}connection: close\r\n\r\n").as_bytes()).await.unwrap();
    assert!(ended(other).await.starts_with("HTTP/1.1 200"));
}

/// A connection that asks for megabytes and has room for few.
async fn narrow_reader(exile: &Exile, socket: &Socket, conversation: &str) -> TcpStream {
    let stream = TcpSocket::new_v4().unwrap();
    stream.set_recv_buffer_size(4096).unwrap();
    let mut stream = stream.connect(socket.address).await.unwrap();
    let head = head(exile, &format!("GET {conversation}/messages"), 0);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

/// A conversation whose messages are megabytes long.
async fn long_conversation(exile: &Exile) -> String {
    let conversation = exile.conversation("mock/any").await;
    let body = serde_json::from_str(&seen(750_000)).unwrap();
    let said = exile.call("POST", &format!("{conversation}/messages"), Some(body)).await;
    assert_eq!(said.status, 200, "{}", said.text);
    conversation
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_others_are_answered() {
    let limits = TransportLimits { write_timeout: SHORT, connections: 1, ..patient() };
    let exile = Exile::limited(limits).await;
    let conversation = long_conversation(&exile).await;
    let socket = listen(&exile).await;
    let stuck = narrow_reader(&exile, &socket, &conversation).await;
    // Its place is free only once it was cut: an answer that is read on is never sent away.
    while !is_answered(&socket).await {}
    assert!(ended(stuck).await.len() < 1_000_000);
}

#[tokio::test]
async fn a_reader_that_takes_its_time_gets_everything() {
    let exile = Exile::limited(patient()).await;
    let conversation = long_conversation(&exile).await;
    let socket = listen(&exile).await;
    let slow = narrow_reader(&exile, &socket, &conversation).await;
    assert!(ended(slow).await.len() > 1_000_000);
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused_with_all_behind_it() {
    let exile = Exile::start().await;
    let socket = listen(&exile).await;
    let smuggled = format!("0\r\n\r\n{}", head(&exile, "POST /api/conversations", 0));
    let post = "POST /api/conversations HTTP/1.1\r\nhost: x\r\n";
    let heads = [
        format!("{post}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"),
        format!("{post}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n"),
        format!("{post}transfer-encoding: gzip, chunked\r\n\r\n"),
        format!("{post}content-length: 5\r\ncontent-length: 5\r\n\r\n"),
        format!("{post}host: y\r\ncontent-length: 5\r\n\r\n"),
        "POST /api/conversations HTTP/1.1\r\ncontent-length: 5\r\n\r\n".to_owned(),
        format!("{post}x: y\ntransfer-encoding: chunked\r\n\r\n"),
    ];
    for head in heads {
        for before in ["", &format!("{ALIVE}\r\n")] {
            let answer = answer(&socket, &format!("{before}{head}{smuggled}")).await;
            let (good, bad) =
                (answer.matches(" 200 OK").count(), answer.matches(" 400 Bad").count());
            assert_eq!((good, bad), (usize::from(!before.is_empty()), 1), "{head:?}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), good + bad, "{head:?}: {answer}");
        }
    }
    let made = exile.call("GET", "/api/conversations", None).await.json();
    assert_eq!(made["items"], serde_json::json!([]));
}

/// Frames of HTTP/2: a type, flags, a stream, a payload.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// The beginning of an HTTP/2 connection whose reader has no room, and a request on it.
fn http2() -> Vec<u8> {
    let no_room = [0, 4, 0, 0, 0, 0];
    // `:method: GET`, `:scheme: http`, and two fields written out.
    let mut fields = vec![0x82, 0x86];
    for (name, value) in [(":path", "/healthz"), (":authority", "x")] {
        for text in [name, value] {
            if text == name {
                fields.push(0);
            }
            fields.push(u8::try_from(text.len()).unwrap());
            fields.extend_from_slice(text.as_bytes());
        }
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    [&preface[..], &frame(4, 0, 0, &no_room), &frame(1, 5, 1, &fields)].concat()
}

async fn over_http2(exile: &Exile) -> Vec<u8> {
    let socket = listen(exile).await;
    let mut stream = TcpStream::connect(socket.address).await.unwrap();
    stream.write_all(&http2()).await.unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

#[tokio::test]
async fn http2_is_off_unless_it_is_asked_for() {
    let exile = Exile::limited(patient()).await;
    let answer = over_http2(&exile).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
}

#[tokio::test]
async fn a_reader_of_http2_without_room_is_cut() {
    let limits = TransportLimits { http2_streams: 3, write_timeout: SHORT, ..patient() };
    let exile = Exile::limited(limits).await;
    let answer = over_http2(&exile).await;
    assert_eq!(answer[3], 4, "its settings come first");
    let three_streams = [0, 3, 0, 0, 0, 3];
    assert!(answer.windows(6).any(|setting| setting == three_streams), "{answer:?}");
    let text = String::from_utf8_lossy(&answer);
    assert!(!text.contains("\"ok\""), "there was no room for the body: {text}");
}
