//! Server-sent events, as far as chat streams use them: what stands behind `data:`.
//!
//! Invariants:
//! - How the bytes were cut into pieces never shows: lines, `\r\n` and characters may be split,
//!   and nothing behind an event is looked at before the event was given out.
//! - Memory is bounded by [`EVENT_LIMIT`], whatever is sent.
//! - Comments, event names, ids and unknown fields are passed over (wire fact 1).

/// Longest event, in bytes of its lines.
pub(crate) const EVENT_LIMIT: usize = 1024 * 1024;

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    /// An event above [`EVENT_LIMIT`].
    #[error("an event is longer than {EVENT_LIMIT} bytes")]
    TooLong,
    /// Bytes that are no text.
    #[error("an event is not UTF-8")]
    NotText,
}

/// A stream on its way in.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The data lines of the event that is not complete yet.
    data: Option<Vec<u8>>,
    /// The last byte was `\r`: a `\n` that follows belongs to it.
    after_cr: bool,
}

impl Events {
    /// Takes of `rest` as much as it needs for one event and gives its data; `None`: all was
    /// taken, and the event is not complete yet.
    pub(crate) fn next(&mut self, rest: &mut &[u8]) -> Result<Option<String>, SseError> {
        loop {
            if self.after_cr && !rest.is_empty() {
                self.after_cr = false;
                *rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            let Some(end) = rest.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
                self.extend_line(std::mem::take(rest))?;
                return Ok(None);
            };
            self.extend_line(&rest[..end])?;
            self.after_cr = rest[end] == b'\r';
            *rest = &rest[end + 1..];
            if let Some(data) = self.end_line()? {
                return Ok(Some(data));
            }
        }
    }

    /// The data of an event that the end of the stream cut off before its blank line.
    pub(crate) fn finish(mut self) -> Result<Option<String>, SseError> {
        self.end_line()?;
        self.data.map(text).transpose()
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if held + bytes.len() > EVENT_LIMIT {
            return Err(SseError::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Reads one line; an empty one ends the event.
    fn end_line(&mut self) -> Result<Option<String>, SseError> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line);
        if line.is_empty() {
            return self.data.take().map(text).transpose();
        }
        if let Some(value) = line.strip_prefix(b"data")
            && let Some(value) = value.strip_prefix(b":").or(value.is_empty().then_some(value))
        {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            }
        }
        Ok(None)
    }
}

fn text(bytes: Vec<u8>) -> Result<String, SseError> {
    String::from_utf8(bytes).map_err(|_| SseError::NotText)
}

#[cfg(test)]
mod tests;
