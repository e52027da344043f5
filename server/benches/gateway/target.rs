//! Whom the load asks, and what.

use std::io;

use serde_json::json;

use crate::arguments::Arguments;

/// What a person says, so often that a body has a usual size: about 400 bytes.
const PROMPT: &str = "Good morning. ";
const TIMES: usize = 28;

/// One address.
pub struct Target {
    /// Host and port.
    pub address: String,
    path: String,
    key: String,
}

impl Target {
    /// From `--direct` or `--via`, whichever name that is.
    pub fn of(arguments: &Arguments, name: &str) -> io::Result<Self> {
        let url = arguments.needed(name)?;
        let plain = url.strip_prefix("http://");
        let plain = plain.ok_or_else(|| io::Error::other(format!("--{name}: no http:// URL")))?;
        let (address, path) = plain.split_once('/').unwrap_or((plain, ""));
        let path = format!("/{path}").trim_end_matches('/').to_owned();
        let key = arguments.text("key").unwrap_or("none").to_owned();
        Ok(Self { address: address.to_owned(), path: format!("{path}/chat/completions"), key })
    }

    /// A request's bytes.
    pub fn request(&self, model: &str, stream: bool) -> Vec<u8> {
        let message = json!({ "role": "user", "content": PROMPT.repeat(TIMES) });
        let mut body = json!({ "model": model, "messages": [message] });
        if stream {
            body["stream"] = json!(true);
            body["stream_options"] = json!({ "include_usage": true });
        }
        let body = body.to_string();
        let Self { address, path, key } = self;
        format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// Both or one, by name, in the order in which they are measured.
pub fn given(arguments: &Arguments) -> io::Result<Vec<(&'static str, Target)>> {
    let names = ["direct", "via"].into_iter().filter(|name| arguments.text(name).is_some());
    let targets: io::Result<Vec<_>> =
        names.map(|name| Ok((name, Target::of(arguments, name)?))).collect();
    let targets = targets?;
    if targets.is_empty() {
        return Err(io::Error::other("neither --direct nor --via"));
    }
    Ok(targets)
}
