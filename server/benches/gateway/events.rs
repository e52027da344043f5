//! The deltas of a streamed answer.

use std::borrow::Cow;
use std::io;

use serde::Deserialize;

use crate::client::{Answer, Client};

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Delta<'a>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
}

/// How an answer ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// With `[DONE]`, as it should.
    Done,
    /// With another status than 200.
    Refused(u16),
    /// Without `[DONE]`, or with an error among the chunks.
    Broken,
}

/// Asks, and shows every piece of text that is not empty as soon as it is there.
pub async fn stream(
    client: &mut Client<'_>,
    request: &[u8],
    mut shown: impl FnMut(&str),
) -> io::Result<Ended> {
    let mut answer = client.ask(request).await?;
    if answer.status != 200 {
        return Ok(Ended::Refused(answer.status));
    }
    let ended = read(&mut answer, &mut shown).await?;
    answer.end();
    Ok(ended)
}

async fn read(answer: &mut Answer<'_>, shown: &mut impl FnMut(&str)) -> io::Result<Ended> {
    let mut text = Vec::new();
    let mut ended = Ended::Broken;
    while answer.piece(&mut text).await? {
        let mut read = 0;
        while let Some(length) = text[read..].iter().position(|byte| *byte == b'\n') {
            let line = text[read..read + length].trim_ascii();
            read += length + 1;
            match line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) {
                None => {}
                Some(b"[DONE]") => ended = Ended::Done,
                Some(data) => show(data, shown)?,
            }
        }
        text.drain(..read);
    }
    Ok(ended)
}

fn show(data: &[u8], shown: &mut impl FnMut(&str)) -> io::Result<()> {
    let chunk: Chunk = serde_json::from_slice(data)?;
    for choice in chunk.choices {
        if let Some(content) = choice.delta.content.filter(|content| !content.is_empty()) {
            shown(&content);
        }
    }
    Ok(())
}
