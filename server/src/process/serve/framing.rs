//! Where an HTTP/1 connection stands between its messages, told from the bytes that come in.
//!
//! The HTTP library resolves contradictions in a head before anybody can see them: of a
//! `Content-Length` beside a `Transfer-Encoding` it forgets the former. Whoever stands before this
//! server may have resolved them the other way, and what it takes for a body is then a request
//! here. Such heads are found in the bytes themselves.
//!
//! Invariants:
//! - This only watches: what is passed on is decided by the library, and a message that the two
//!   would cut differently is refused.
//! - It holds at most one line of a head.

use std::fmt;

/// Longest line that is looked at, in bytes; the library has given up long before.
const LONGEST_LINE: usize = 1 << 20;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// Nothing of a next message has come.
    Between,
    /// A part of a head has come.
    Head,
    /// A part of a body is owed.
    Body,
    /// These bytes are no HTTP/1, or nobody will read on.
    Unknown,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ambiguity {
    /// Two lengths, or a length and a transfer coding.
    Length,
    /// A transfer coding other than one `chunked`.
    Coding,
    /// A line that ends otherwise than with CR LF.
    LineEnd,
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "the head states the length of the body more than once",
            Self::Coding => "the only Transfer-Encoding is one `chunked`",
            Self::LineEnd => "lines of a head end with CR LF",
        })
    }
}

/// Follows the messages of one connection.
#[derive(Debug, Default)]
pub(super) struct Framing {
    part: Part,
    /// The line that has begun.
    line: Vec<u8>,
    /// Heads that are complete.
    heads: u64,
    /// The number of the head that is refused, from 1, and why.
    refused: Option<(u64, Ambiguity)>,
}

#[derive(Debug)]
enum Part {
    Head(Head),
    /// So many bytes of a body.
    Body(u64),
    /// The line before a chunk.
    Size,
    /// So many bytes of a chunk, and the line end behind it.
    Chunk(u64),
    /// Lines behind the last chunk.
    Trailers,
    Unknown,
}

impl Default for Part {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

/// What the lines of a head said so far.
#[derive(Debug, Default)]
struct Head {
    begun: bool,
    length: Option<u64>,
    chunked: bool,
    ambiguity: Option<Ambiguity>,
}

impl Framing {
    /// Where the connection stands.
    pub(super) fn position(&self) -> Position {
        match &self.part {
            Part::Head(head) if !head.begun && self.line.is_empty() => Position::Between,
            Part::Head(_) => Position::Head,
            Part::Body(_) | Part::Size | Part::Chunk(_) | Part::Trailers => Position::Body,
            Part::Unknown => Position::Unknown,
        }
    }

    /// Why the request with this number, from 1, is refused, if it is: all that follow the refused
    /// one are, too.
    pub(super) fn refuses(&self, number: u64) -> Option<Ambiguity> {
        self.refused.filter(|(refused, _)| number >= *refused).map(|(_, why)| why)
    }

    /// Takes in what came.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match &mut self.part {
                Part::Unknown => return,
                Part::Body(left) | Part::Chunk(left) => {
                    let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    self.skipped();
                    &bytes[taken..]
                }
                Part::Head(_) | Part::Size | Part::Trailers => self.take_line(bytes),
            };
        }
    }

    /// A body of known length, or a chunk, may be over.
    fn skipped(&mut self) {
        match self.part {
            Part::Body(0) => self.part = Part::default(),
            Part::Chunk(0) => self.part = Part::Size,
            _ => {}
        }
    }

    /// Takes one line, or the part of it that came; gives what is left.
    fn take_line<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.line.extend_from_slice(bytes);
            if self.line.len() > LONGEST_LINE {
                self.part = Part::Unknown;
            }
            return &[];
        };
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        if self.line.is_empty() {
            self.ended(line);
        } else {
            let mut whole = std::mem::take(&mut self.line);
            whole.extend_from_slice(line);
            self.ended(&whole);
        }
        rest
    }

    /// A line without its LF.
    fn ended(&mut self, line: &[u8]) {
        let stripped = line.strip_suffix(b"\r");
        let text = stripped.unwrap_or(line);
        match &mut self.part {
            Part::Head(head) => {
                if stripped.is_none() {
                    head.ambiguity.get_or_insert(Ambiguity::LineEnd);
                }
                if text.is_empty() && head.begun {
                    self.part = self.complete();
                } else if !text.is_empty() {
                    head.take(text);
                    if text == b"PRI * HTTP/2.0" {
                        self.part = Part::Unknown;
                    }
                }
            }
            Part::Size => {
                let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                let size = std::str::from_utf8(&text[..digits]).unwrap_or_default();
                self.part = match u64::from_str_radix(size, 16) {
                    Ok(0) => Part::Trailers,
                    Ok(size) => Part::Chunk(size.saturating_add(2)),
                    Err(_) => Part::Unknown,
                };
            }
            Part::Trailers if text.is_empty() => self.part = Part::default(),
            _ => {}
        }
    }

    /// The head is complete: what follows it.
    fn complete(&mut self) -> Part {
        let Part::Head(head) = std::mem::take(&mut self.part) else { return Part::Unknown };
        self.heads += 1;
        let twice = (head.chunked && head.length.is_some()).then_some(Ambiguity::Length);
        if let Some(why) = head.ambiguity.or(twice) {
            self.refused = Some((self.heads, why));
            return Part::Unknown;
        }
        match head.length {
            _ if head.chunked => Part::Size,
            None | Some(0) => Part::default(),
            Some(length) => Part::Body(length),
        }
    }
}

impl Head {
    /// Takes the request line, or a field.
    fn take(&mut self, line: &[u8]) {
        if !std::mem::replace(&mut self.begun, true) {
            return;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            if self.length.replace(length.unwrap_or(u64::MAX)).is_some() {
                self.ambiguity.get_or_insert(Ambiguity::Length);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let once = !std::mem::replace(&mut self.chunked, true);
            if !(once && value.eq_ignore_ascii_case(b"chunked")) {
                self.ambiguity.get_or_insert(Ambiguity::Coding);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What became of bytes that came in pieces of this length.
    fn fed(text: &str, piece: usize) -> Framing {
        let mut framing = Framing::default();
        for piece in text.as_bytes().chunks(piece) {
            framing.feed(piece);
        }
        framing
    }

    #[track_caller]
    fn check(text: &str, position: Position, heads: u64) {
        for piece in [1, 2, 7, text.len().max(1)] {
            let framing = fed(text, piece);
            let found = (framing.position(), framing.heads, framing.refused);
            assert_eq!(found, (position, heads, None), "{text:?} in pieces of {piece}");
        }
    }

    #[track_caller]
    fn refused(head: &str, why: Ambiguity) {
        let first = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        for piece in [1, 5, 1000] {
            let framing =
                fed(&format!("{first}POST / HTTP/1.1\r\nhost: x\r\n{head}\r\n0\r\n\r\n"), piece);
            let found = [1, 2, 3].map(|number| framing.refuses(number));
            assert_eq!(found, [None, Some(why), Some(why)], "{head:?}");
        }
    }

    #[test]
    fn messages_are_told_apart() {
        let post = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding:\tChunked \r\n\r\n";
        check("", Position::Between, 0);
        check("\r\n", Position::Between, 0);
        check("G", Position::Head, 0);
        check("GET / HTTP/1.1\r\nhost: x\r\n", Position::Head, 0);
        check("GET / HTTP/1.1\r\nhost: x\r\n\r\n", Position::Between, 1);
        check(&format!("{post}1234"), Position::Body, 1);
        check(&format!("{post}\r\n\r\n5"), Position::Between, 1);
        check(&format!("{post}12345{post}"), Position::Body, 2);
        check(&format!("{chunked}5;a=b\r\n\r\n\r\n1\r\n"), Position::Body, 1);
        check(&format!("{chunked}A\r\n0123456789\r\n0\r\nx: y\r\n"), Position::Body, 1);
        check(&format!("{chunked}A\r\n0123456789\r\n0\r\nx: y\r\n\r\n{post}"), Position::Body, 2);
        check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Position::Unknown, 0);
    }

    #[test]
    fn a_head_that_can_be_read_in_two_ways_is_refused_with_all_that_follows() {
        refused("content-length: 5\r\ntransfer-encoding: chunked\r\n", Ambiguity::Length);
        refused("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Ambiguity::Length);
        refused("content-length: 5\r\ncontent-length: 5\r\n", Ambiguity::Length);
        refused("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", Ambiguity::Coding);
        refused("transfer-encoding: gzip, chunked\r\n", Ambiguity::Coding);
        refused("transfer-encoding: identity\r\n", Ambiguity::Coding);
        refused("a: b\nc: d\r\n", Ambiguity::LineEnd);
    }

    proptest! {
        #[test]
        fn any_bytes_are_followed(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut framing = Framing::default();
            framing.feed(&bytes);
            prop_assert!(framing.line.len() <= bytes.len());
        }
    }
}
