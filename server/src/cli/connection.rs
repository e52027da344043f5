//! The server that a command talks to.
//!
//! Invariants:
//! - If a server holds the home, that one is used; else this process takes the home and serves
//!   itself on a free port of the loopback interface until the command is done.
//! - The key is the home's `local.key`; it leaves this machine never.

use std::sync::Arc;
use std::time::Duration;

use exile_engine::http::{Http, HttpRequest, HttpResponse};
use exile_engine::span::TraceLink;
use exile_nodes::guard::Allow;
use exile_nodes::http::{Client, Outbound};
use futures_util::StreamExt as _;
use serde_json::Value;

use super::error::CliError;
use super::events::Events;
use crate::compose::Server;
use crate::config::{Config, Secret};
use crate::home::{Home, Listening};

/// How long the server may take to begin an answer.
const HEAD: Duration = Duration::from_secs(30);

/// How long a run may take: the graph's own limit comes first.
const RUN: Duration = Duration::from_hours(24);

/// What bodies are made of.
const JSON: &str = "application/json";

/// How long a stream may be silent; the server shows that it is alive every 15 seconds.
const SILENCE: Duration = Duration::from_mins(1);

/// How long a starting server may take until it says where it listens.
const STARTING: Duration = Duration::from_secs(10);

/// How often a starting server is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A way to a server.
pub(super) struct Connection {
    url: String,
    key: Secret,
    http: Arc<dyn Http>,
    own: Option<Server>,
}

impl Connection {
    /// Finds the server of the home, or becomes it.
    pub(super) async fn open(config: &Config, trace: Arc<dyn TraceLink>) -> Result<Self, CliError> {
        let home = Home::at(&config.places.home)?;
        let (url, own) = match home.hold()? {
            Some(held) => {
                let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
                let server = Server::start(config, held, trace.clone(), free).await?;
                (server.url().to_owned(), Some(server))
            }
            None => (of_holder(&home).await?.url, None),
        };
        let missing = || CliError::Held(format!("{} has no local.key", home.path().display()));
        let key = home.local_key()?.ok_or_else(missing)?;
        let host = url.strip_prefix("http://").unwrap_or(&url);
        let outbound = Outbound { allow: vec![Allow::parse(host)], proxy: None };
        let http = Client::new(outbound, trace)?;
        Ok(Self { url, key, http, own })
    }

    /// Where the server listens.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Whether another process serves.
    pub(super) fn is_remote(&self) -> bool {
        self.own.is_none()
    }

    /// Ends the server of our own, if there is one.
    pub(super) async fn close(self) {
        if let Some(server) = self.own {
            server.stop().await;
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, CliError> {
        json(self.send("GET", path, None, JSON, HEAD).await?).await
    }

    /// Every item of a list, page by page. `query`: empty, or what follows the path from `?` on.
    pub(super) async fn all(&self, path: &str, query: &str) -> Result<Vec<Value>, CliError> {
        let joint = if query.is_empty() { '?' } else { '&' };
        let whole = format!("{path}{query}{joint}limit=200");
        let mut items = Vec::new();
        let mut page = self.get(&whole).await?;
        loop {
            items.append(page["items"].as_array_mut().unwrap_or(&mut Vec::new()));
            let Some(next) = page["next"].as_str() else { return Ok(items) };
            page = self.get(&format!("{whole}&after={}", part(next))).await?;
        }
    }

    pub(super) async fn patch(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        json(self.send("PATCH", path, Some(body), JSON, HEAD).await?).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        json(self.send("POST", path, Some(body), JSON, HEAD).await?).await
    }

    /// Posts what is answered only when a run has ended.
    pub(super) async fn wait(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        json(self.send("POST", path, Some(body), JSON, RUN).await?).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), CliError> {
        json(self.send("DELETE", path, None, JSON, HEAD).await?).await.map(|_| ())
    }

    /// Posts and reads the stream of events that answers.
    pub(super) async fn stream(&self, path: &str, body: &Value) -> Result<Events, CliError> {
        let response = self.send("POST", path, Some(body), "text/event-stream", HEAD).await?;
        if response.status < 400 { Ok(Events::of(response)) } else { Err(refusal(response).await) }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        accept: &str,
        head_timeout: Duration,
    ) -> Result<HttpResponse, CliError> {
        let mut headers = vec![
            ("authorization".to_owned(), format!("Bearer {}", self.key.expose())),
            ("accept".to_owned(), accept.to_owned()),
        ];
        if body.is_some() {
            headers.push(("content-type".to_owned(), JSON.to_owned()));
        }
        let request = HttpRequest {
            method: method.to_owned(),
            url: format!("{}{path}", self.url),
            headers,
            body: body.map(|b| b.to_string().into()),
            redirects: 0,
            head_timeout,
            idle_timeout: SILENCE,
        };
        Ok(self.http.send(request).await?)
    }
}

/// A name as one part of a path.
pub(super) fn part(name: &str) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    let encoded = |b: u8| if safe(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    name.bytes().map(encoded).collect()
}

/// Where the process that holds the home listens; waits for one that is just starting.
async fn of_holder(home: &Home) -> Result<Listening, CliError> {
    let found = async {
        loop {
            if let Some(listening) = home.listening() {
                return listening;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(STARTING, found).await.map_err(|_| {
        let home = home.path().display();
        CliError::Held(format!("another process holds {home} and does not say where it listens"))
    })
}

/// The body of an answer; a problem becomes an error.
async fn json(response: HttpResponse) -> Result<Value, CliError> {
    if response.status >= 400 {
        return Err(refusal(response).await);
    }
    body(response).await
}

/// The problem that an answer is.
async fn refusal(response: HttpResponse) -> CliError {
    let status = response.status;
    let value = match body(response).await {
        Ok(value) => value,
        Err(error) => return error,
    };
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let detail =
        if text("detail").is_empty() { format!("status {status}") } else { text("detail") };
    CliError::Refused { code: text("code"), detail, remedy: text("remedy") }
}

async fn body(mut response: HttpResponse) -> Result<Value, CliError> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.body.next().await {
        bytes.extend_from_slice(&piece?);
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|error| CliError::Answer(error.to_string()))
}
