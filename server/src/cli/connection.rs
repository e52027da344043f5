//! The server that a command talks to.
//!
//! Invariants:
//! - If a server holds the home, that one is used; else this process takes the home and serves
//!   itself on a free port of the loopback interface until the command is done.
//! - The key is the home's `local.key`; it leaves this machine never, and it is sent to nobody but
//!   the process that has proved that it holds the home (`local_key.rs`): an address that a killed
//!   server left behind may be anybody's by now.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use exile_engine::env::{Env as _, SystemEnv};
use exile_engine::http::{Http, HttpRequest, HttpResponse};
use exile_engine::span::TraceLink;
use exile_nodes::guard::Allow;
use exile_nodes::http::{Client, Outbound};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::CliError;
use super::events::Events;
use crate::config::home::{Home, Listening};
use crate::config::local_key::proves;
use crate::config::{Config, Secret};
use crate::process::compose::{Duty, Server};

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

/// How long an address may prove nothing. Whoever takes the home removes the address of an earlier
/// holder at once, so that a wrong one stays only if somebody else writes it.
const DOUBT: Duration = Duration::from_secs(1);

/// How often a starting server is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long a process may take to prove that it holds the home.
const PROOF: Duration = Duration::from_secs(2);

/// Longest answer that can be a proof, in bytes.
const PROOF_LENGTH: usize = 4096;

/// A way to a server.
pub(super) struct Connection {
    url: String,
    key: Secret,
    http: Arc<dyn Http>,
    own: Option<Server>,
}

/// An answer, or an item of one, as the API declares it.
///
/// # Errors
/// The server that holds the home is of another version and declares it otherwise.
pub(super) fn view<T: DeserializeOwned>(answer: &Value) -> Result<T, CliError> {
    T::deserialize(answer).map_err(|error| CliError::Answer(error.to_string()))
}

/// The items of a list as the API declares them.
///
/// # Errors
/// As for [`view`].
pub(super) fn views<T: DeserializeOwned>(items: &[Value]) -> Result<Vec<T>, CliError> {
    items.iter().map(view).collect()
}

impl Connection {
    /// Finds the server of the home, or becomes it, with this duty.
    pub(super) async fn open(
        config: &Config,
        trace: Arc<dyn TraceLink>,
        duty: Duty,
    ) -> Result<Self, CliError> {
        let home = Home::at(&config.places.home)?;
        if let Some(held) = home.hold()? {
            let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
            let server = Server::start(config, held, trace.clone(), (free, duty)).await?;
            let (url, key) = (server.url().to_owned(), local_key(&home)?);
            let http = client(&url, trace)?;
            return Ok(Self { url, key, http, own: Some(server) });
        }
        let (url, key, http) = of_holder(&home, &trace).await?;
        Ok(Self { url, key, http, own: None })
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

fn local_key(home: &Home) -> Result<Secret, CliError> {
    let missing = || CliError::Held(format!("{} has no local.key", home.path().display()));
    home.local_key()?.ok_or_else(missing)
}

/// A client that reaches this address and no other.
fn client(url: &str, trace: Arc<dyn TraceLink>) -> Result<Arc<dyn Http>, CliError> {
    let host = url.strip_prefix("http://").unwrap_or(url);
    let outbound = Outbound { allow: vec![Allow::parse(host)], proxy: None };
    Ok(Client::new(outbound, trace)?)
}

/// The process that holds the home, once it has proved that; waits for one that is just starting.
async fn of_holder(
    home: &Home,
    trace: &Arc<dyn TraceLink>,
) -> Result<(String, Secret, Arc<dyn Http>), CliError> {
    let mut doubt = DOUBT;
    let found = async {
        loop {
            if let Some(Listening { url, .. }) = home.listening()
                && let Some(key) = home.local_key()?
            {
                let http = client(&url, trace.clone())?;
                if holds(&*http, &url, &key).await {
                    return Ok((url, key, http));
                }
                doubt = doubt.saturating_sub(LOOK);
                if doubt.is_zero() {
                    return Err(unproved(home, &url));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(STARTING, found).await.unwrap_or_else(|_| {
        let home = home.path().display();
        let what = format!("another process holds {home} and does not say where it listens");
        Err(CliError::Held(what))
    })
}

fn unproved(home: &Home, url: &str) -> CliError {
    let home = home.path().display();
    CliError::Held(format!(
        "another process holds {home}, but who answers at {url} does not prove to be that process, \
         so no key was sent there; see which process listens there, or start exile anew"
    ))
}

/// Whether whoever listens at `url` proves that they have the home's key. They are not sent it.
async fn holds(http: &dyn Http, url: &str, key: &Secret) -> bool {
    let mut random = [0; 32];
    SystemEnv::new().fill(&mut random);
    let nonce = URL_SAFE_NO_PAD.encode(random);
    let request = HttpRequest {
        method: "GET".to_owned(),
        url: format!("{url}/api/holder?nonce={nonce}"),
        headers: vec![("accept".to_owned(), JSON.to_owned())],
        body: None,
        redirects: 0,
        head_timeout: PROOF,
        idle_timeout: PROOF,
    };
    let answer = async {
        let mut response = http.send(request).await.ok()?;
        let mut bytes = Vec::new();
        while let Some(piece) = response.body.next().await {
            bytes.extend_from_slice(&piece.ok()?);
            if bytes.len() > PROOF_LENGTH {
                return None;
            }
        }
        let answer: Value = serde_json::from_slice(&bytes).ok()?;
        answer["proof"].as_str().map(|answer| proves(answer, key, &nonce, url))
    };
    tokio::time::timeout(PROOF, answer).await.ok().flatten() == Some(true)
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
