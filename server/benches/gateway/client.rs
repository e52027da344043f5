//! Asks over one kept connection, and reads bodies as they come.

use std::io;

use tokio::net::TcpStream;

use crate::target::Target;
use crate::wire::{Wire, cut};

/// One connection, made again when it has ended.
pub struct Client<'t> {
    target: &'t Target,
    wire: Option<Wire>,
}

/// What remains of a body.
enum Rest {
    Bytes(usize),
    /// Of the chunk that is being read.
    Chunk(usize),
    /// A chunk begins.
    Size,
    UntilTheEnd,
    Nothing,
}

/// An answer whose head is read.
pub struct Answer<'c> {
    pub status: u16,
    slot: &'c mut Option<Wire>,
    wire: Wire,
    close: bool,
    rest: Rest,
}

impl<'t> Client<'t> {
    pub fn new(target: &'t Target) -> Self {
        Self { target, wire: None }
    }

    /// Connects if that is needed, sends, and awaits the head.
    pub async fn ask(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => Wire::new(TcpStream::connect(&self.target.address).await?)?,
        };
        wire.write(request).await?;
        let head = wire.head().await?.ok_or_else(cut)?;
        let status = head.line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let rest = match head.length {
            _ if head.chunked => Rest::Size,
            Some(length) => Rest::Bytes(length),
            None => Rest::UntilTheEnd,
        };
        Ok(Answer { status, slot: &mut self.wire, wire, close: head.close, rest })
    }

    /// Asks and reads the whole answer into `body`; its status.
    pub async fn whole(&mut self, request: &[u8], body: &mut Vec<u8>) -> io::Result<u16> {
        body.clear();
        let mut answer = self.ask(request).await?;
        let status = answer.status;
        while answer.piece(body).await? {}
        answer.end();
        Ok(status)
    }
}

impl Answer<'_> {
    /// Puts the next piece of the body behind `into`; false at its end.
    pub async fn piece(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let (left, chunked) = match self.rest {
                Rest::Nothing | Rest::Bytes(0) => return Ok(false),
                Rest::Bytes(left) => (left, false),
                Rest::Chunk(left) => (left, true),
                Rest::UntilTheEnd => return Ok(self.wire.some(usize::MAX, into).await? > 0),
                Rest::Size => {
                    self.rest = self.chunk().await?;
                    continue;
                }
            };
            let read = self.wire.some(left, into).await?;
            if read == 0 {
                return Err(cut());
            }
            self.rest = match left - read {
                0 if chunked => {
                    self.wire.exactly(2).await?;
                    Rest::Size
                }
                left if chunked => Rest::Chunk(left),
                left => Rest::Bytes(left),
            };
            return Ok(true);
        }
    }

    /// Keeps the connection for the next request, if the body is read and the server agrees.
    pub fn end(self) {
        if !self.close && matches!(self.rest, Rest::Nothing | Rest::Bytes(0)) {
            *self.slot = Some(self.wire);
        }
    }

    async fn chunk(&mut self) -> io::Result<Rest> {
        let line = self.wire.line().await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| io::Error::other("no chunk"))?;
        if size > 0 {
            return Ok(Rest::Chunk(size));
        }
        while !self.wire.line().await?.is_empty() {}
        Ok(Rest::Nothing)
    }
}
