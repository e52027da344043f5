//! Who is sent the home's key, and what a command does to runs that a killed server left behind.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::installation::{Ended, Installation};
use super::upstream::{Say, Upstream};
use super::web;

/// Listens where somebody believes the server to be, answers as it is told and keeps what it was
/// sent.
struct Stranger {
    url: String,
    heard: Arc<Mutex<String>>,
}

impl Stranger {
    /// `answer`: the body for the path that was asked for.
    fn start(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(String::new()));
        let hears = heard.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut head) = (stream.unwrap(), Vec::new());
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        break;
                    }
                    head.extend(byte);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                hears.lock().unwrap().push_str(&head);
                let body = answer(head.split(' ').nth(1).unwrap_or_default());
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { url, heard }
    }

    fn heard(&self) -> String {
        self.heard.lock().unwrap().clone()
    }

    /// Makes the home say that its holder listens here.
    fn instead_of_the_holder(&self, place: &Installation) {
        let listening = json!({ "url": self.url, "pid": 1 });
        fs::write(place.path(".exile/server.json"), listening.to_string()).unwrap();
    }
}

#[track_caller]
fn check_no_key_was_sent(place: &Installation, ended: &Ended, stranger: &Stranger) {
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("no key was sent"), "{ended:?}");
    let heard = stranger.heard();
    assert!(heard.contains("GET /api/holder?nonce="), "{heard}");
    assert!(!heard.contains(&place.key()) && !heard.contains("authorization"), "{heard}");
}

#[test]
fn a_stranger_at_a_stale_address_is_sent_no_key() {
    let place = Installation::bare();
    assert_eq!(place.run(&["user", "list"]).code, 0);
    let stranger = Stranger::start(|_| json!({ "url": "x", "proof": "y" }).to_string());
    // Nobody holds the home: what an earlier holder left behind is not even read.
    stranger.instead_of_the_holder(&place);
    assert_eq!(place.run(&["user", "list"]).code, 0);
    assert_eq!(stranger.heard(), "");
    assert!(!place.path(".exile/server.json").exists());
    // Somebody holds it who has not said yet where they listen.
    let lock = File::options().write(true).open(place.path(".exile/lock")).unwrap();
    lock.lock().unwrap();
    stranger.instead_of_the_holder(&place);
    let ended = place.run(&["user", "list"]);
    check_no_key_was_sent(&place, &ended, &stranger);
}

#[test]
fn a_stranger_who_asks_the_real_server_proves_nothing() {
    let place = Installation::bare();
    let server = place.serve();
    let real = server.url.clone();
    let stranger = Stranger::start(move |path| web::ask(&real, "GET", path, None, "").body);
    stranger.instead_of_the_holder(&place);
    let ended = place.run(&["user", "list"]);
    check_no_key_was_sent(&place, &ended, &stranger);
}

#[test]
fn a_challenge_is_answered_to_everybody_and_says_nothing() {
    let place = Installation::bare();
    let server = place.serve();
    let ask =
        |nonce: &str| web::ask(&server.url, "GET", &format!("/api/holder?nonce={nonce}"), None, "");
    let answer = ask(&"n".repeat(43));
    assert_eq!((answer.status, &answer.json()["url"]), (200, &json!(server.url)));
    assert_ne!(answer.json()["proof"], ask(&"m".repeat(43)).json()["proof"]);
    assert!(!answer.body.contains(&place.key()));
    for nonce in ["", "short", &"n".repeat(65), "spaces%20and%20more%20of%20them"] {
        assert_eq!(ask(nonce).status, 400, "{nonce}");
    }
}

#[test]
fn a_key_that_is_revoked_or_whose_user_goes_is_replaced_while_the_server_runs() {
    let place = Installation::bare();
    let server = place.serve();
    let first = place.key();
    let keys: Value = serde_json::from_str(&place.run(&["key", "list", "--json"]).out).unwrap();
    let id = keys["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(place.run(&["key", "revoke", &id]).code, 0);
    assert_ne!(place.key(), first);
    assert_eq!(web::ask(&server.url, "GET", "/api/users/me", Some(&first), "").status, 401);
    assert_eq!(place.run(&["user", "add", "root", "--role", "admin"]).code, 0);
    assert_eq!(place.run(&["user", "remove", "admin"]).code, 0);
    let users = place.run(&["user", "list"]);
    assert!(users.out.contains("root") && !users.out.contains(" admin  admin"), "{users:?}");
    server.terminate();
    let users = place.run(&["user", "list", "--json"]);
    let users: Value = serde_json::from_str(&users.out).unwrap();
    assert_eq!(users["items"].as_array().unwrap().len(), 1, "nobody came back: {users}");
}

#[test]
fn no_command_drives_runs_unless_it_runs_a_graph() {
    let upstream = Upstream::start(|_| Say::Nothing);
    let config = format!(
        "models: {{ default: lab/m }}\nproviders: {{ lab: {{ base_url: {}/v1 }} }}\n",
        upstream.url
    );
    let place = Installation::bare().with("exile.yaml", &config);
    let server = place.serve();
    let body = r#"{"graph": "chat", "input": {"messages": "hello"}}"#;
    let started = server.ask("POST", "/api/runs", body).json();
    let run = started["id"].as_str().unwrap().to_owned();
    upstream.wait_for("hello");
    server.kill();
    let other = place.run(&["tool", "call", "calculator", r#"{"expression": "1"}"#]);
    assert_eq!(other.code, 0, "{other:?}");
    let commands: [&[&str]; 10] = [
        &["user", "list"],
        &["user", "add", "bob"],
        &["key", "create", "--user", "bob"],
        &["key", "list"],
        &["tool", "list"],
        &["model", "list"],
        &["usage"],
        &["trace", &run],
        &["checkpoints", &run],
        &["doctor", "--offline"],
    ];
    for command in commands {
        let ended = place.run(command);
        assert_eq!(ended.code, 0, "{command:?}: {ended:?}");
        assert!(!ended.out.contains("run.finished") && !ended.out.contains("run.failed"));
    }
    assert_eq!(upstream.count("hello"), 1, "a command went on with the run");
    let server = place.serve();
    upstream.wait_for("hello");
    assert_eq!(server.ask("GET", &format!("/api/runs/{run}"), "").json()["status"], "running");
    server.kill();
}
