//! `exile serve` on a home, and a client with one connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A server and a conversation on it.
pub struct Server {
    child: Child,
    address: String,
    key: String,
    wire: BufReader<TcpStream>,
    conversation: String,
}

impl Server {
    /// Starts the server, and a conversation.
    pub fn start(home: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_exile"))
            .args(["--home".as_ref(), home.as_os_str()])
            .args(["--bind", "127.0.0.1:0", "--json", "serve"])
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let url = ready["listening"].as_str().unwrap();
        let address = url.strip_prefix("http://").unwrap().to_owned();
        let key = std::fs::read_to_string(home.join("local.key")).unwrap().trim().to_owned();
        let wire = TcpStream::connect(&address).unwrap();
        wire.set_nodelay(true).unwrap();
        let wire = BufReader::new(wire);
        let mut server = Self { child, address, key, wire, conversation: String::new() };
        let made = server.ask("POST", "/api/conversations", "{}");
        made["id"].as_str().unwrap().clone_into(&mut server.conversation);
        server
    }

    /// A turn of the conversation.
    pub fn say(&mut self, content: &str) {
        let path = format!("/api/conversations/{}/messages", self.conversation);
        let answer = self.ask("POST", &path, &json!({ "content": content }).to_string());
        assert_eq!(answer["run"]["status"], "finished", "{answer}");
    }

    pub fn get(&mut self, path: &str) {
        assert!(self.ask("GET", path, "")["items"].is_array());
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> Value {
        let (address, key, length) = (&self.address, &self.key, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.wire.get_mut().write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.wire.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        self.wire.read_exact(&mut answer).unwrap();
        serde_json::from_slice(&answer).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
