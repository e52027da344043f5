//! One HTTP request at a time, without a library that could hide what goes over the wire.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Asks, and reads the answer to its end.
pub(crate) fn ask(url: &str, method: &str, path: &str, key: Option<&str>, body: &str) -> Answer {
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    ask_with(url, method, path, &key, body)
}

/// The same with these header lines.
pub(crate) fn ask_with(url: &str, method: &str, path: &str, lines: &str, body: &str) -> Answer {
    let host = url.strip_prefix("http://").unwrap();
    let length = match body.len() {
        0 => String::new(),
        n => format!("content-type: application/json\r\ncontent-length: {n}\r\n"),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{lines}{length}\r\n{body}"
    );
    send(url, request.as_bytes())
}

/// Sends these bytes and reads what comes to its end.
pub(crate) fn send(url: &str, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    // A server may refuse before it has read everything: what it says then is what counts.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    read(&bytes)
}

fn read(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let head = head.to_ascii_lowercase();
    let body =
        if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    Answer { status, head, body }
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        body += &tail[..size];
        rest = tail[size..].trim_start_matches("\r\n");
    }
    body
}
