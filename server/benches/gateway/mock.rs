//! A model provider that costs next to nothing: it stands behind the gateway.
//!
//! The model's name says what comes: `plain` answers at once, `stream-64-20` in 64 deltas that are
//! 20 ms apart, the first at once. Each of these holds its number and the time at which it was
//! sent, `NUMBER:MICROSECONDS;`, on the clock of `clock.rs`.

use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::arguments::Arguments;
use crate::clock;
use crate::wire::{Head, Wire};

const STREAMS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                       cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

#[derive(Deserialize)]
struct Request {
    model: String,
    #[serde(default)]
    stream: bool,
}

/// How a model answers.
#[derive(Clone, Copy)]
struct Manner {
    deltas: u32,
    apart: Duration,
    /// Whether a delta tells when it was sent.
    stamped: bool,
}

/// Accepts until the process is ended; `--port 0` takes a free one. Tells where it listens.
pub async fn serve(arguments: &Arguments) -> io::Result<Value> {
    let port = u16::try_from(arguments.number("port", 0)?).map_err(io::Error::other)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("{}", json!({ "listening": listener.local_addr()?.to_string() }));
    loop {
        let (stream, _) = listener.accept().await?;
        // Who leaves in the middle of an answer has reasons of his own.
        tokio::spawn(connection(stream));
    }
}

async fn connection(stream: TcpStream) -> io::Result<()> {
    let mut wire = Wire::new(stream)?;
    while let Some(head) = wire.head().await? {
        answer(&mut wire, &head).await?;
        if head.close {
            break;
        }
    }
    Ok(())
}

async fn answer(wire: &mut Wire, head: &Head) -> io::Result<()> {
    if head.chunked {
        refuse(wire, "411 Length Required").await?;
        return Err(io::Error::other("a body of unknown length"));
    }
    let body = wire.exactly(head.length.unwrap_or(0)).await?;
    if !head.line.contains("/chat/completions ") {
        return refuse(wire, "404 Not Found").await;
    }
    let request = serde_json::from_slice::<Request>(&body).ok();
    match request.and_then(|request| Some((Manner::of(&request.model)?, request))) {
        Some((manner, request)) if request.stream => stream(wire, &request.model, manner).await,
        Some((_, request)) => wire.write(&whole(&request.model)).await,
        None => refuse(wire, "400 Bad Request").await,
    }
}

impl Manner {
    fn of(model: &str) -> Option<Self> {
        if model == "plain" {
            return Some(Self { deltas: 1, apart: Duration::ZERO, stamped: false });
        }
        let (deltas, apart) = model.strip_prefix("stream-")?.split_once('-')?;
        let apart = Duration::from_millis(apart.parse().ok()?);
        Some(Self { deltas: deltas.parse().ok()?, apart, stamped: true })
    }
}

async fn stream(wire: &mut Wire, model: &str, manner: Manner) -> io::Result<()> {
    let mut out = STREAMS.to_owned();
    event(&mut out, &chunk(model, r#"{"role":"assistant","content":""}"#, "null"));
    let began = clock::now();
    for number in 0..manner.deltas {
        if number > 0 {
            clock::sleep_until(began + manner.apart * number).await;
        }
        let delta = if manner.stamped {
            format!(r#"{{"content":"{number}:{};"}}"#, clock::now().as_micros())
        } else {
            r#"{"content":"Good morning."}"#.to_owned()
        };
        event(&mut out, &chunk(model, &delta, "null"));
        if number + 1 < manner.deltas {
            wire.write(out.as_bytes()).await?;
            out.clear();
        }
    }
    event(&mut out, &chunk(model, "{}", r#""stop""#));
    event(&mut out, &end(model));
    event(&mut out, "[DONE]");
    out.push_str("0\r\n\r\n");
    wire.write(out.as_bytes()).await
}

/// One event, which is one chunk of the body.
fn event(out: &mut String, data: &str) {
    // Formatting into a string cannot fail.
    let _ = write!(out, "{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8);
}

fn chunk(model: &str, delta: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"{model}","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
    )
}

fn end(model: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"{model}","choices":[],"usage":{}}}"#,
        usage()
    )
}

fn usage() -> &'static str {
    r#"{"prompt_tokens":100,"completion_tokens":64,"total_tokens":164}"#
}

fn whole(model: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"{model}","choices":[{{"index":0,"message":{{"role":"assistant","content":"Good morning."}},"finish_reason":"stop"}}],"usage":{}}}"#,
        usage()
    );
    message("200 OK", &body)
}

async fn refuse(wire: &mut Wire, status: &str) -> io::Result<()> {
    let error = json!({ "error": { "message": status, "type": "invalid_request_error" } });
    wire.write(&message(status, &error.to_string())).await
}

fn message(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("content-type: application/json\r\ncontent-length: {length}");
    format!("HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}").into_bytes()
}
