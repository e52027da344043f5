//! `http_get`: reads a public web page or API.
//!
//! Invariants:
//! - The outbound guard behind [`Http`] decides what may be reached, redirects included.
//! - No more text is read than a tool's answer may hold; the rest is never downloaded.
//! - The answer comes within [`TOTAL_TIMEOUT`], however slowly the other side sends.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::http::{Http, HttpError, HttpRequest, HttpResponse};
use exile_engine::tool::{Effect, Tool, ToolCx, ToolError, ToolErrorKind};
use futures_util::StreamExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of the result, in its JSON form, that are left to its other fields.
const OTHER_FIELDS: usize = 8 * 1024;

/// Longest URL, in bytes: it comes back in the result.
const URL_LIMIT: usize = 2048;

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS: u8 = 5;

/// The tool.
pub(super) struct HttpGet {
    http: Arc<dyn Http>,
}

impl HttpGet {
    /// Reads through `http`.
    pub(super) fn new(http: Arc<dyn Http>) -> Self {
        Self { http }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// Absolute address, `https://…` or `http://…`.
    url: String,
}

#[derive(Serialize)]
pub(super) struct Output {
    /// HTTP status; 404 and 500 are answers too.
    status: u16,
    /// The address that answered, after redirects.
    url: String,
    /// As the other side names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// The body as UTF-8.
    text: String,
    /// Whether there was more.
    truncated: bool,
}

#[async_trait]
impl Tool for HttpGet {
    type Args = Args;
    type Output = Output;
    const NAME: &'static str = "http_get";
    const DESCRIPTION: &'static str = "Reads a web page or API by HTTP GET and gives its status, \
        content type and text (a long one is cut). Addresses of local networks are refused.";
    const EFFECT: Effect = Effect::Pure;

    async fn call(&self, cx: &ToolCx, args: Args) -> Result<Output, ToolError> {
        if args.url.len() > URL_LIMIT {
            let message = format!("the URL is longer than {URL_LIMIT} bytes");
            return Err(ToolError::new(ToolErrorKind::InvalidArgs, message));
        }
        let answer = async {
            let response = self.http.send(request(args.url)).await.map_err(|e| failed(&e))?;
            read(response, cx.limits.tool_result.saturating_sub(OTHER_FIELDS)).await
        };
        tokio::time::timeout(TOTAL_TIMEOUT, answer).await.unwrap_or_else(|_| {
            let message = format!("the answer took longer than {TOTAL_TIMEOUT:?}");
            Err(ToolError::new(ToolErrorKind::Timeout, message))
        })
    }
}

fn request(url: String) -> HttpRequest {
    HttpRequest {
        method: "GET".into(),
        url,
        headers: vec![("accept".into(), "text/*, application/json;q=0.9, */*;q=0.5".into())],
        body: None,
        redirects: REDIRECTS,
        head_timeout: HEAD_TIMEOUT,
        idle_timeout: IDLE_TIMEOUT,
    }
}

/// Reads at most `limit` bytes of text.
async fn read(mut response: HttpResponse, limit: usize) -> Result<Output, ToolError> {
    let content_type = response.header("content-type").map(|t| t.chars().take(200).collect());
    let mut bytes = Vec::new();
    while bytes.len() <= limit
        && let Some(piece) = response.body.next().await
    {
        bytes.extend_from_slice(&piece.map_err(|e| failed(&e))?);
    }
    if bytes.contains(&0) {
        let kind = content_type.as_deref().unwrap_or("no content type");
        let message = format!("{} sent no text ({kind})", response.url);
        return Err(ToolError::new(ToolErrorKind::Upstream, message));
    }
    let longer = bytes.len() > limit;
    bytes.truncate(limit);
    // A character that the cut went through is not the sender's mistake.
    if longer
        && let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    let fits = fitting(&text, limit);
    let truncated = longer || fits < text.len();
    text.truncate(fits);
    Ok(Output { status: response.status, url: response.url, content_type, text, truncated })
}

/// How many bytes of `text` take at most `limit` bytes as a JSON string.
fn fitting(text: &str, limit: usize) -> usize {
    let mut taken = 0;
    for (at, c) in text.char_indices() {
        taken += match c {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            _ => c.len_utf8(),
        };
        if taken > limit {
            return at;
        }
    }
    text.len()
}

/// No wildcard arm: a new error must choose its kind.
fn failed(error: &HttpError) -> ToolError {
    let kind = match error {
        HttpError::Denied { .. } => ToolErrorKind::Denied,
        HttpError::Invalid(_) => ToolErrorKind::InvalidArgs,
        HttpError::Timeout { .. } => ToolErrorKind::Timeout,
        HttpError::Connect { .. } | HttpError::Broken(_) => ToolErrorKind::Upstream,
    };
    ToolError::new(kind, error.to_string())
}
