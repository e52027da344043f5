//! What others hold open neither keeps the server from ending nor from answering.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::installation::{Installation, Serving};
use super::upstream::{Say, Upstream};

fn config(upstream: &Upstream) -> String {
    format!(
        "models: {{ default: lab/m }}\nproviders: {{ lab: {{ base_url: {}/v1, retries: 0 }} }}\n",
        upstream.url
    )
}

fn connect(server: &Serving) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap()
}

/// Posts, and leaves the connection open.
fn post(server: &Serving, path: &str, body: &str) -> TcpStream {
    let mut stream = connect(server);
    let (authorization, length) = (server.authorization(), body.len());
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\n{authorization}content-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// What came to the end of the connection, or to its break.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_stop_among_readers_half_heads_and_calls_is_short_and_the_runs_go_on() {
    let again = Arc::new(AtomicBool::new(false));
    let answers = again.clone();
    let upstream = Upstream::start(move |_| {
        if answers.load(Ordering::SeqCst) { Say::Text("fine") } else { Say::Nothing }
    });
    let config = config(&upstream) + "limits: { shutdown: 100ms, header_timeout: 1h }\n";
    let place = Installation::bare().with("exile.yaml", &config);
    let server = place.serve();
    let body = r#"{"graph": "chat", "input": {"messages": "one"}, "on_disconnect": "cancel"}"#;
    let reading = post(&server, "/api/runs/stream", body);
    let body = r#"{"model": "lab/m", "messages": [{"role": "user", "content": "two"}]}"#;
    let calling = post(&server, "/v1/chat/completions", body);
    let body = r#"{"model": "chat", "messages": [{"role": "user", "content": "three"}]}"#;
    let running = post(&server, "/v1/chat/completions", body);
    connect(&server).write_all(b"GET /half").unwrap();
    let mut half = connect(&server);
    half.write_all(b"POST /api/conversations HTTP/1.1\r\nhost: x\r\n").unwrap();
    let half_body = post(&server, "/api/conversations", "{}{").try_clone().unwrap();
    upstream.wait_for_all(&["one", "two", "three"]);
    let ended = server.terminate();
    assert_eq!(ended.code, 0, "{ended:?}");
    let read = rest(reading);
    assert!(read.contains("run.started") && !read.ends_with("0\r\n\r\n"), "{read}");
    for stopped in [calling, running] {
        let told = rest(stopped);
        assert!(told.starts_with("HTTP/1.1 503") && told.contains("the server ends"), "{told}");
    }
    assert_eq!(rest(half), "");
    drop(half_body);

    again.store(true, Ordering::SeqCst);
    let server = place.serve();
    let runs = server.ask("GET", "/api/runs", "").json();
    let runs = runs["items"].as_array().unwrap();
    assert_eq!(runs.len(), 2, "{runs:?}");
    for run in runs {
        let path = format!("/api/runs/{}/stream", run["id"].as_str().unwrap());
        let stream = server.ask("GET", &path, "");
        assert!(stream.body.contains("event: run.finished"), "{stream:?}");
    }
}

#[test]
fn silent_connections_beyond_the_descriptors_keep_nobody_out() {
    let upstream = Upstream::start(|_| Say::Text("fine"));
    let place = Installation::bare().with("exile.yaml", &config(&upstream)).descriptors(200);
    let server = place.serve();
    let silent: Vec<TcpStream> = (0..400).map(|_| connect(&server)).collect();
    for _ in 0..3 {
        let body = r#"{"graph": "chat", "input": {"messages": "hi"}}"#;
        let answer = server.ask("POST", "/api/runs/wait", body);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    drop(silent);
    let said = server.terminate().err;
    let expected = "takes up to 68 connections: the process may open 200 files and sockets";
    assert!(said.contains(expected) && said.contains("LimitNOFILE"), "{said}");
}
