//! A scripted HTTP/1.1 server on a loopback port. It records what it is asked, answers what it is
//! told to, and refuses what its rule refuses.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What the server was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// `POST /v1/chat/completions?x=1`.
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
    /// Null if it is no JSON.
    pub(crate) body: Value,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// What the server answers.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Bytes(Vec<u8>),
    /// Nothing more until the client goes away.
    Silence,
    /// The connection breaks inside the body.
    Break,
    /// The same bytes until the client goes away, with a pause after each.
    Drip(Vec<u8>),
}

impl Answer {
    pub(crate) fn json(body: impl ToString) -> Self {
        Self::new(200).header("content-type", "application/json").then(&body.to_string())
    }

    /// A stream of events, one piece each, ended by `[DONE]`.
    pub(crate) fn events(events: &[Value]) -> Self {
        let stream = Self::new(200).header("content-type", "text/event-stream");
        let stream = events.iter().fold(stream, |s, e| s.then(&format!("data: {e}\n\n")));
        stream.then("data: [DONE]\n\n")
    }

    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), pieces: Vec::new() }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn then(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.pieces.push(Piece::Bytes(bytes.to_vec()));
        self
    }

    /// Everything that it says.
    fn text(&self) -> String {
        let bytes = self.pieces.iter().flat_map(|piece| match piece {
            Piece::Bytes(bytes) => bytes.as_slice(),
            Piece::Silence | Piece::Break | Piece::Drip(_) => &[],
        });
        String::from_utf8_lossy(&bytes.copied().collect::<Vec<u8>>()).into_owned()
    }

    /// This again and again, without an end.
    pub(crate) fn drip(mut self, text: &str) -> Self {
        self.pieces.push(Piece::Drip(text.as_bytes().to_vec()));
        self
    }

    pub(crate) fn silence(mut self) -> Self {
        self.pieces.push(Piece::Silence);
        self
    }

    pub(crate) fn broken(mut self) -> Self {
        self.pieces.push(Piece::Break);
        self
    }
}

/// What a rule says to a request: an answer in place of the scripted one.
pub(crate) type Rule = fn(&Seen) -> Option<Answer>;

/// The server.
pub(crate) struct Upstream {
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    /// Requests that the rule refused, and why.
    refused: Arc<Mutex<Vec<String>>>,
    /// A client went away while the server was silent.
    pub(crate) gone: Arc<Notify>,
}

impl Upstream {
    /// Answers the given answers in order; whoever asks more often gets a 599.
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::strict(|_| None, answers).await
    }

    /// Like [`start`](Self::start), but a request that the rule refuses uses up no answer.
    pub(crate) async fn strict(rule: Rule, answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(answers.into_iter().collect()));
        let (seen, gone) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(Notify::new()));
        let server = (seen.clone(), gone.clone());
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let refused = Arc::<Mutex<Vec<String>>>::default();
        let complaints = refused.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (seen, gone) = server.clone();
                let (answers, complaints) = (answers.clone(), complaints.clone());
                tokio::spawn(async move {
                    let mut socket = socket;
                    while let Some(request) = read(&mut socket).await {
                        let refused = rule(&request);
                        let why = refused.as_ref().map(Answer::text);
                        complaints.lock().unwrap().extend(why);
                        seen.lock().unwrap().push(request);
                        let next = || answers.lock().unwrap().pop_front();
                        let answer = refused.or_else(next).unwrap_or(Answer::new(599));
                        if !write(&mut socket, answer, &gone).await {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, seen, connections, refused, gone }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// What the rule refused so far.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap().clone()
    }

    /// How many connections clients have made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// The last request's body.
    pub(crate) fn body(&self) -> Value {
        self.seen().last().map(|s| s.body.clone()).unwrap_or_default()
    }
}

async fn read(socket: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let header = |l: &str| l.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned()));
    let headers: Vec<(String, String)> = lines.filter_map(header).collect();
    let mut seen = Seen { line, headers, ..Seen::default() };
    let length = seen.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = bytes.split_off(head + 4);
    while body.len() < length {
        if socket.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    seen.text = String::from_utf8_lossy(&body).into_owned();
    seen.body = serde_json::from_slice(&body).unwrap_or_default();
    Some(seen)
}

/// Whether the connection can be used again.
async fn write(socket: &mut TcpStream, answer: Answer, gone: &Notify) -> bool {
    let mut head = format!("HTTP/1.1 {} x\r\ntransfer-encoding: chunked\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    let silent_head = matches!(answer.pieces.first(), Some(Piece::Silence));
    if !silent_head && socket.write_all(head.as_bytes()).await.is_err() {
        return false;
    }
    for piece in answer.pieces {
        match piece {
            Piece::Bytes(bytes) => {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend_from_slice(&bytes);
                chunk.extend_from_slice(b"\r\n");
                if socket.write_all(&chunk).await.is_err() {
                    gone.notify_one();
                    return false;
                }
            }
            Piece::Silence => {
                let mut rest = [0; 64];
                while matches!(socket.read(&mut rest).await, Ok(n) if n > 0) {}
                gone.notify_one();
                return false;
            }
            Piece::Break => return false,
            Piece::Drip(bytes) => {
                let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat();
                // The pause is what makes the sender slow; nothing waits for it.
                while socket.write_all(&chunk).await.is_ok() {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                gone.notify_one();
                return false;
            }
        }
    }
    socket.write_all(b"0\r\n\r\n").await.is_ok()
}
