//! The upstream, a process of its own: answers a model and three tools, and writes down every
//! call that arrives before it answers it.
//!
//! What it answers depends on what is asked alone, so that a run that was killed and one that was
//! not come to the same end; what is to fail at first does so a number of times, whoever asks. The
//! arrival's number stands in a model's answer as its token count, which a record keeps and no
//! channel holds.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use futures_util::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::graphs;
use super::process::{self, Process};

/// One call that arrived.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Call {
    /// Counts from 1.
    pub(super) number: u64,
    /// `model`, or a tool's effect.
    pub(super) effect: String,
    /// `RUN/TASK/CALL`, the tool call's idempotency key; of a model's call `RUN/TASK/` and how many
    /// messages it was sent.
    pub(super) key: String,
    /// Which life of the worker made it.
    pub(super) life: u32,
    /// It was answered with an error after which it may be made again.
    pub(super) fails: bool,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    Came(Call),
    Answered(u64),
}

/// The test's end of the upstream.
pub(super) struct Counter {
    process: Process,
    file: PathBuf,
    /// `http://127.0.0.1:PORT`.
    pub(super) url: String,
}

impl Counter {
    /// Starts it; it writes to that file.
    pub(super) fn start(file: PathBuf) -> Self {
        let process = Process::start("durable::counter::process", "counter", &file);
        let url = process.hear_until(Some::<String>);
        Self { process, file, url }
    }

    /// Every call that arrived so far.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.lines()
            .into_iter()
            .filter_map(|line| match line {
                Line::Came(call) => Some(call),
                Line::Answered(_) => None,
            })
            .collect()
    }

    /// How many of them were answered to the end.
    pub(super) fn answered(&self) -> usize {
        self.lines().iter().filter(|line| matches!(line, Line::Answered(_))).count()
    }

    /// Lets an answer that is held back go on.
    pub(super) fn release(&mut self) {
        self.process.order(&());
    }

    fn lines(&self) -> Vec<Line> {
        let text = std::fs::read_to_string(&self.file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

struct Shared {
    file: Mutex<File>,
    count: AtomicU64,
    /// How often each thing that was asked has failed.
    failed: Mutex<HashMap<String, u32>>,
    held: Semaphore,
}

impl Shared {
    fn write(&self, line: &Line) {
        let line = serde_json::to_string(line).unwrap() + "\n";
        self.file.lock().unwrap().write_all(line.as_bytes()).unwrap();
    }

    /// Writes down a call, takes a moment over it, and writes down that it is answered.
    async fn take(&self, effect: &str, key: String, asked: &str, headers: &HeaderMap) -> Call {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let life = text(headers, "x-life").parse().unwrap();
        let fails = self.fails(asked);
        let call = Call { number, effect: effect.to_owned(), key, life, fails };
        self.write(&Line::Came(call.clone()));
        // A moment in which the caller may die: between nothing and some milliseconds.
        tokio::time::sleep(Duration::from_millis(number % 5)).await;
        self.write(&Line::Answered(number));
        call
    }

    /// Whether what is asked fails this time. A fork asks what its origin asked, and has as many
    /// attempts left as that one had.
    fn fails(&self, asked: &str) -> bool {
        let mut failed = self.failed.lock().unwrap();
        let failed = failed.entry(asked.to_owned()).or_default();
        let fails = *failed < graphs::failures(asked);
        *failed += u32::from(fails);
        fails
    }
}

/// The role.
#[test]
fn process() {
    let Some(file) = process::role::<PathBuf>("counter") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(file));
}

async fn serve(file: PathBuf) {
    let file = OpenOptions::new().create(true).append(true).open(file).unwrap();
    let shared = Arc::new(Shared {
        file: Mutex::new(file),
        count: AtomicU64::new(0),
        failed: Mutex::default(),
        held: Semaphore::new(0),
    });
    let router = Router::new()
        .route("/tool", post(tool))
        .route("/v1/chat/completions", post(chat))
        .with_state(shared.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    process::tell(&format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut releases = process::orders::<()>();
    while releases.recv().await.is_some() {
        shared.held.add_permits(1);
    }
}

async fn tool(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let (effect, key) = (text(&headers, "x-effect"), text(&headers, "idempotency-key"));
    let args: Value = serde_json::from_slice(&body).unwrap();
    if shared.take(&effect, key, args["what"].as_str().unwrap(), &headers).await.fails {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    graphs::output(&args).to_string().into_response()
}

async fn chat(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let messages = body["messages"].as_array().unwrap();
    let asked = messages.iter().rev().find(|m| m["role"] == "user").unwrap();
    let asked = asked["content"].as_str().unwrap();
    let key = format!("{}/{}", body["model"].as_str().unwrap(), messages.len());
    let call = shared.take("model", key, asked, &headers).await;
    if call.fails {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if let Some(why) = invalid(messages) {
        let error = json!({ "error": { "message": why } }).to_string();
        return (StatusCode::BAD_REQUEST, error).into_response();
    }
    let over = messages.last().unwrap()["role"] == "tool";
    let (pieces, held) = match asked {
        graphs::HELD if call.life == 1 => (words(graphs::STALE), true),
        graphs::HELD => (words(graphs::FRESH), false),
        _ if body["tools"].is_array() && !over => (vec![wanted(asked)], false),
        _ => (vec![json!({ "content": format!("thought about {asked}") })], false),
    };
    let finish = if pieces[0]["tool_calls"].is_array() { "tool_calls" } else { "stop" };
    let usage = json!({ "prompt_tokens": call.number, "completion_tokens": 1,
        "total_tokens": call.number + 1 });
    let mut events: Vec<String> = pieces.iter().map(|p| chunk(p, &Value::Null)).collect();
    events.push(chunk(&json!({}), &json!(finish)));
    events.push(event(&json!({ "id": "reply", "model": "m", "choices": [], "usage": usage })));
    events.push("data: [DONE]\n\n".into());
    let sent = stream::iter(events.into_iter().enumerate()).then(move |(n, event)| {
        let shared = shared.clone();
        async move {
            if held && n == graphs::SHOWN {
                shared.held.acquire().await.unwrap().forget();
            }
            Ok::<_, std::convert::Infallible>(event)
        }
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(sent)).into_response()
}

fn words(text: &str) -> Vec<Value> {
    text.split_inclusive(' ').map(|word| json!({ "content": word })).collect()
}

/// Why no provider would take these messages: calls of tools must be answered before anything
/// else is said.
fn invalid(messages: &[Value]) -> Option<String> {
    let mut open: Vec<&str> = Vec::new();
    for message in messages {
        match message["role"].as_str()? {
            "tool" => {
                let answers = message["tool_call_id"].as_str()?;
                match open.iter().position(|id| *id == answers) {
                    Some(place) => _ = open.remove(place),
                    None => return Some(format!("nobody called {answers}")),
                }
            }
            _ if !open.is_empty() => return Some(format!("{open:?} is not answered")),
            _ => {
                let calls = message["tool_calls"].as_array().into_iter().flatten();
                open = calls.filter_map(|call| call["id"].as_str()).collect();
            }
        }
    }
    (!open.is_empty()).then(|| format!("{open:?} is not answered"))
}

/// Calls of all three tools at once.
fn wanted(asked: &str) -> Value {
    let (name, _) = asked.split_once(' ').unwrap();
    let call = |(index, tool): (usize, &str)| {
        let arguments = json!({ "what": format!("{asked} {tool}") }).to_string();
        json!({ "index": index, "id": format!("call_{tool}_{name}"), "type": "function",
            "function": { "name": tool, "arguments": arguments } })
    };
    let calls: Vec<Value> = ["looks", "puts", "acts"].into_iter().enumerate().map(call).collect();
    json!({ "role": "assistant", "content": "", "tool_calls": calls })
}

fn chunk(delta: &Value, finish: &Value) -> String {
    let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
    event(&json!({ "id": "reply", "model": "m", "choices": [choice] }))
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers[name].to_str().unwrap().to_owned()
}
