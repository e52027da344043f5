//! A model provider and web page in this process: answers by script and counts what is asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// What came in.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `POST /v1/chat/completions`.
    pub(crate) line: String,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Asked {
    /// The content of the last message; the request line for what is no chat.
    pub(crate) fn last(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        match messages.last().and_then(|m| m["content"].as_str()) {
            Some(text) => text.to_owned(),
            None => self.line.clone(),
        }
    }
}

/// What goes out.
pub(crate) enum Say {
    /// An answer of a model, streamed.
    Text(&'static str),
    /// An answer of a model, streamed in these pieces, each when it is there.
    Pieces(Receiver<String>),
    /// Any answer: status and body.
    Plain(u16, String),
    /// Nothing, with the connection open.
    Nothing,
    /// The beginning of an answer, then the end of the connection.
    Half(&'static str),
    /// The beginning of an answer, then nothing, with the connection open.
    Stall(&'static str),
}

/// The upstream; its threads end with the test process.
pub(crate) struct Upstream {
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    came: Mutex<Receiver<Asked>>,
    left: Mutex<Receiver<()>>,
}

impl Upstream {
    /// Answers every request as `script` says.
    pub(crate) fn start(script: impl Fn(&Asked) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (sender, came) = channel();
        let (leaving, left) = channel();
        let (script, list) = (Arc::new(script), asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (script, list) = (script.clone(), list.clone());
                let (sender, leaving) = (sender.clone(), leaving.clone());
                thread::spawn(move || {
                    if answer(stream, &*script, &list, &sender) == Some(Left) {
                        // A test that waits for nothing has dropped the other end.
                        let _ = leaving.send(());
                    }
                });
            }
        });
        Self { url, asked, came: Mutex::new(came), left: Mutex::new(left) }
    }

    /// Waits until something like this has been asked.
    pub(crate) fn wait_for(&self, last: &str) {
        let came = self.came.lock().unwrap();
        while came.recv().unwrap().last() != last {}
    }

    /// Waits until each of these has been asked, in any order.
    pub(crate) fn wait_for_all(&self, lasts: &[&str]) {
        let came = self.came.lock().unwrap();
        while lasts.iter().any(|last| self.count(last) == 0) {
            came.recv().unwrap();
        }
    }

    /// Waits until a client has closed a connection on which it was still owed an answer.
    pub(crate) fn wait_for_departure(&self) {
        let left = self.left.lock().unwrap().recv_timeout(Duration::from_secs(20));
        assert!(left.is_ok(), "the connection is still open");
    }

    /// How often this was asked.
    pub(crate) fn count(&self, last: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|a| a.last() == last).count()
    }

    /// Everything asked so far.
    pub(crate) fn all(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    script: &dyn Fn(&Asked) -> Say,
    list: &Mutex<Vec<Asked>>,
    sender: &Sender<Asked>,
) -> Option<Left> {
    let asked = read(&stream)?;
    list.lock().unwrap().push(asked.clone());
    // A test that waits for nothing has dropped the other end.
    let _ = sender.send(asked.clone());
    let say = script(&asked);
    let (status, kind, body) = match say {
        Say::Text(text) => (200, "text/event-stream", streamed(text)),
        Say::Plain(status, body) => (status, "application/json", body),
        Say::Pieces(pieces) => {
            let _ = stream.write_all(HEAD.as_bytes());
            for piece in pieces {
                let _ = stream
                    .write_all(data(&chunk(&json!({ "content": piece }), &Value::Null)).as_bytes());
            }
            let end = data(&chunk(&json!({}), &json!("stop"))) + "data: [DONE]\n\n";
            let _ = stream.write_all(end.as_bytes());
            return None;
        }
        Say::Nothing => return Some(until_left(stream)),
        Say::Half(text) => {
            let _ = stream.write_all(begun(text).as_bytes());
            return None;
        }
        Say::Stall(text) => {
            let _ = stream.write_all(begun(text).as_bytes());
            return Some(until_left(stream));
        }
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n",
        body.len()
    );
    // A client that was killed reads no answer.
    let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes());
    None
}

/// The client closed the connection without its answer.
#[derive(PartialEq)]
struct Left;

fn until_left(mut stream: TcpStream) -> Left {
    // A reset is as much a departure as an orderly end.
    let _ = stream.read(&mut [0]);
    Left
}

/// The head of a streamed answer that ends with its connection.
const HEAD: &str = "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// The head of a streamed answer and its first words.
fn begun(text: &str) -> String {
    HEAD.to_owned() + &data(&chunk(&json!({ "content": text }), &Value::Null))
}

fn data(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}

fn chunk(delta: &Value, finish: &Value) -> Value {
    let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
    json!({ "id": "reply-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice] })
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut head = String::new();
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok()?;
        if field.trim().is_empty() {
            break;
        }
        head += &field.to_ascii_lowercase();
    }
    let length = head.lines().find_map(|l| l.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(0, |l| l.trim().parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Asked { line, head, body: String::from_utf8_lossy(&body).into_owned() })
}

/// An answer as providers stream it.
fn streamed(text: &str) -> String {
    let usage = json!({ "id": "reply-1", "object": "chat.completion.chunk", "model": "m",
        "choices": [], "usage": { "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7 } });
    let chunks = [
        chunk(&json!({ "role": "assistant", "content": text }), &Value::Null),
        chunk(&json!({}), &json!("stop")),
        usage,
    ];
    let mut lines: Vec<String> = chunks.iter().map(Value::to_string).collect();
    lines.push("[DONE]".into());
    format!("data: {}\n\n", lines.join("\n\ndata: "))
}
