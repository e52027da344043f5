//! Readers that come and go, and readers that never read, over real sockets.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use super::installation::{Installation, Serving};
use super::upstream::{Say, Upstream};
use crate::durable::Seeded;

const GRAPH: &str = r"graph: says
state: { messages: { reduce: messages }, log: { reduce: append } }
nodes:
  say: { kind: llm, prompt: say it }
  last: { kind: set, set: { log: 1 } }
edges:
  - { from: START, to: say }
  - { from: say, to: last }
  - { from: last, to: END }
";

/// A run whose model says what the test hands it.
struct Talk {
    server: Serving,
    run: String,
    mouth: Option<Sender<String>>,
    _upstream: Upstream,
    _place: Installation,
}

impl Talk {
    fn start() -> Self {
        let (mouth, ear) = channel();
        let ear = Mutex::new(Some(ear));
        let upstream = Upstream::start(move |_| Say::Pieces(ear.lock().unwrap().take().unwrap()));
        let config = format!(
            "models: {{ default: lab/m }}\nproviders: {{ lab: {{ base_url: {}/v1 }} }}\n",
            upstream.url
        );
        let place =
            Installation::bare().with("exile.yaml", &config).with("graphs/says.yaml", GRAPH);
        let server = place.serve();
        let started = server.ask("POST", "/api/runs", r#"{"graph": "says", "input": {}}"#);
        assert_eq!(started.status, 202, "{started:?}");
        let run = started.json()["id"].as_str().unwrap().to_owned();
        upstream.wait_for("say it");
        Self { server, run, mouth: Some(mouth), _upstream: upstream, _place: place }
    }

    fn say(&self, piece: String) {
        self.mouth.as_ref().unwrap().send(piece).unwrap();
    }

    fn finish(&mut self) {
        self.mouth = None;
    }

    fn reader(&self, after: Option<&str>) -> Reader {
        let host = self.server.url.strip_prefix("http://").unwrap();
        let mut socket = TcpStream::connect(host).unwrap();
        let after = after.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /api/runs/{}/stream HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{}{after}\r\n",
            self.run,
            self.server.authorization()
        );
        socket.write_all(request.as_bytes()).unwrap();
        Reader { socket, bytes: Vec::new() }
    }
}

/// One connection to a stream.
struct Reader {
    socket: TcpStream,
    bytes: Vec<u8>,
}

impl Reader {
    /// Reads to the end.
    fn whole(mut self) -> String {
        self.socket.read_to_end(&mut self.bytes).unwrap();
        events(&self.bytes)
    }

    /// Reads that many bytes at most, or until nothing comes, and leaves.
    fn leave_after(mut self, bytes: usize, patience: Duration) -> String {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut piece = vec![0; bytes];
        while self.bytes.len() < bytes {
            match self.socket.read(&mut piece[self.bytes.len()..]) {
                Ok(0) => break,
                Ok(n) => {
                    let at = self.bytes.len();
                    self.bytes.extend_from_slice(&piece[at..at + n]);
                }
                Err(error) => {
                    let silent = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
                    assert!(silent.contains(&error.kind()), "{error}");
                    break;
                }
            }
        }
        events(&self.bytes)
    }
}

/// The whole events of an answer that may have been cut, without comments.
fn events(bytes: &[u8]) -> String {
    let end = b"\r\n\r\n";
    let Some(head) = bytes.windows(4).position(|w| w == end) else { return String::new() };
    let mut rest = &bytes[head + 4..];
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let Some(chunk) = rest.get(line + 2..line + 2 + size) else { break };
        body.extend_from_slice(chunk);
        rest = rest.get(line + 4 + size..).unwrap_or_default();
    }
    let text = String::from_utf8(body).unwrap();
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end + 2]);
    whole.split_inclusive("\n\n").filter(|event| !event.starts_with(':')).collect()
}

fn last_id(events: &str) -> Option<&str> {
    events.lines().rev().find_map(|line| line.strip_prefix("id:")).map(str::trim)
}

#[test]
fn two_hundred_disconnects_lose_and_repeat_nothing() {
    let mut talk = Talk::start();
    let mut random = Seeded(1);
    let unbroken = talk.reader(None);
    let unbroken = std::thread::spawn(move || unbroken.whole());
    let mut seen = String::new();
    for n in 0..200 {
        for m in 0..10 {
            talk.say(format!("{n}.{m} 说 "));
        }
        let bytes = usize::try_from(1 + random.below(4000)).unwrap();
        let reader = talk.reader(last_id(&seen));
        seen += &reader.leave_after(bytes, Duration::from_millis(20));
    }
    talk.finish();
    seen += &talk.reader(last_id(&seen)).whole();
    let unbroken = unbroken.join().unwrap();
    assert!(seen == unbroken, "{} bytes came, {} were sent", seen.len(), unbroken.len());
    assert_eq!(seen, talk.reader(None).whole(), "read once more when all is over");
    let deltas = seen.matches("event: message.delta").count();
    assert!(deltas >= 1000, "only {deltas} deltas");
    assert!(seen.contains("event: run.finished"));
}

/// Readers that never read.
const LAZY: usize = 20;
/// What the model says, in pieces of a kilobyte.
const KILOBYTES: usize = 8000;
/// What they are owed together.
const OWED_KB: u64 = (LAZY * KILOBYTES) as u64;

/// How much a server grows while a model says all that and so many readers never read.
fn growth_kb(lazy: usize) -> u64 {
    let mut talk = Talk::start();
    let before = talk.server.memory_kb();
    let lazy: Vec<Reader> = (0..lazy).map(|_| talk.reader(None)).collect();
    for n in 0..KILOBYTES {
        talk.say(format!("{n:>1023} "));
    }
    talk.finish();
    let read = talk.reader(None).whole();
    assert!(read.contains("event: run.finished"), "a reader that reads comes to the end");
    let grown = talk.server.memory_kb().saturating_sub(before);
    drop(lazy);
    grown
}

#[test]
fn readers_that_never_read_slow_nobody_and_cost_no_memory() {
    let (alone, together) = (growth_kb(0), growth_kb(LAZY));
    let for_them = together.saturating_sub(alone);
    println!(
        "{KILOBYTES} kB said: the server grew by {alone} kB; \
         with {LAZY} readers that never read, owed {OWED_KB} kB, by {together} kB"
    );
    assert!(for_them < OWED_KB / 3, "{LAZY} readers that never read cost {for_them} kB");
    assert!(together < OWED_KB, "the server grew by {together} kB");
}

#[test]
fn memory_does_not_grow_with_runs() {
    let place = Installation::bare();
    let server = place.serve();
    let run = |times: usize| {
        for _ in 0..times {
            let body = r#"{"graph": "chat", "input": {"messages": "hello"}}"#;
            let ended = server.ask("POST", "/api/runs/wait", body);
            assert_eq!(ended.status, 200, "{ended:?}");
        }
        server.memory_kb()
    };
    // Caches and pools fill first.
    let (early, late) = (run(50), run(200));
    let grown = late.saturating_sub(early);
    println!("200 more runs: the server grew by {grown} kB");
    assert!(grown < 8 * 1024, "200 runs cost {grown} kB");
}
