//! One side of an HTTP/1.1 connection: heads, and bytes behind them.

use std::io::{self, ErrorKind};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest head and longest line.
const LONGEST: usize = 64 * 1024;

/// A connection and what was read ahead.
pub struct Wire {
    stream: TcpStream,
    bytes: BytesMut,
}

/// What stands before a body.
pub struct Head {
    /// The request line or the status line.
    pub line: String,
    pub length: Option<usize>,
    pub chunked: bool,
    /// The other side ends the connection after this message.
    pub close: bool,
}

impl Wire {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, bytes: BytesMut::with_capacity(16 * 1024) })
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next head; none if the other side has left between two messages.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let Some(length) = self.find(b"\r\n\r\n").await? else { return Ok(None) };
        let head = Head::read(&self.bytes[..length])?;
        self.bytes.advance(length + 4);
        Ok(Some(head))
    }

    /// The next line, without its end.
    pub async fn line(&mut self) -> io::Result<String> {
        let length = self.find(b"\r\n").await?.ok_or_else(cut)?;
        let line = String::from_utf8_lossy(&self.bytes[..length]).into_owned();
        self.bytes.advance(length + 2);
        Ok(line)
    }

    /// Exactly so many bytes.
    pub async fn exactly(&mut self, length: usize) -> io::Result<BytesMut> {
        while self.bytes.len() < length {
            if !self.more().await? {
                return Err(cut());
            }
        }
        Ok(self.bytes.split_to(length))
    }

    /// Puts what there is, at most so many bytes, behind `into`; how many: 0 at the end.
    pub async fn some(&mut self, most: usize, into: &mut Vec<u8>) -> io::Result<usize> {
        if self.bytes.is_empty() && !self.more().await? {
            return Ok(0);
        }
        let length = most.min(self.bytes.len());
        into.extend_from_slice(&self.bytes[..length]);
        self.bytes.advance(length);
        Ok(length)
    }

    /// How many bytes stand before this mark, read as far as that takes.
    async fn find(&mut self, mark: &[u8]) -> io::Result<Option<usize>> {
        let mut searched = 0;
        loop {
            let from = self.bytes[searched..].windows(mark.len()).position(|part| part == mark);
            if let Some(at) = from {
                return Ok(Some(searched + at));
            }
            searched = self.bytes.len().saturating_sub(mark.len() - 1);
            if searched > LONGEST {
                return Err(io::Error::new(ErrorKind::InvalidData, "a head without an end"));
            }
            if !self.more().await? {
                return if self.bytes.is_empty() { Ok(None) } else { Err(cut()) };
            }
        }
    }

    async fn more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.bytes).await? > 0)
    }
}

impl Head {
    fn read(bytes: &[u8]) -> io::Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| io::Error::new(ErrorKind::InvalidData, "a head that is no text"))?;
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let mut head = Self { line, length: None, chunked: false, close: false };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.length = value.parse().ok();
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.chunked = value.eq_ignore_ascii_case("chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                head.close = value.eq_ignore_ascii_case("close");
            }
        }
        Ok(head)
    }
}

/// The other side left inside a message.
pub fn cut() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the connection ended inside a message")
}
