//! Reads an answer as its bytes come: from pieces of the wire to deltas and one reply. No I/O, no
//! clock.
//!
//! Invariants:
//! - How the bytes were cut into pieces never shows, neither in the reply nor in the error.
//! - An answer ends with a finish reason or an end mark; anything else is a fault (wire fact 2).
//! - Whatever comes, memory is bounded and nothing panics.

use exile_engine::limits::AnswerLimits;
use exile_engine::model::{Delta, ModelReply, ProviderFault};
use serde_json::Value;

use super::answer::{Answer, Assemble};
use super::profile::Protocol;
use super::sse::Events;
use super::{anthropic, chat, error};

/// An answer on its way in.
pub(crate) struct Reader {
    shape: Shape,
    assembler: Box<dyn Assemble>,
    limits: AnswerLimits,
    /// How many pieces were shown.
    pieces: usize,
}

enum Shape {
    /// Nothing but white space came.
    Unknown,
    /// A stream of events.
    Stream(Events),
    /// One piece: a server that knows no streams answers so, whatever its type header says.
    Whole(Vec<u8>),
    /// The end mark came; what follows is no matter.
    Ended,
}

/// A whole answer.
pub(crate) struct Read {
    answer: Answer,
    whole: bool,
}

impl Reader {
    pub(crate) fn new(protocol: Protocol, limits: AnswerLimits) -> Self {
        let assembler: Box<dyn Assemble> = match protocol {
            Protocol::Chat => Box::new(chat::assemble::Assembler::default()),
            Protocol::Anthropic => Box::new(anthropic::assemble::Assembler::default()),
        };
        Self { shape: Shape::Unknown, assembler, limits, pieces: 0 }
    }

    /// Takes the next piece and shows what of it can be shown; `true` at the end mark.
    pub(crate) fn feed(
        &mut self,
        piece: &[u8],
        shown: &mut Vec<Delta>,
    ) -> Result<bool, ProviderFault> {
        let mut rest = piece;
        if matches!(self.shape, Shape::Unknown) {
            rest = rest.trim_ascii_start();
            self.shape = match rest.first() {
                None => return Ok(false),
                Some(b'{' | b'[' | b'<') => Shape::Whole(Vec::new()),
                Some(_) => Shape::Stream(Events::default()),
            };
        }
        loop {
            let event = match &mut self.shape {
                Shape::Stream(events) => events.next(&mut rest).map_err(error::garbage)?,
                Shape::Whole(text) => {
                    text.extend_from_slice(rest);
                    if text.len() > self.limits.bytes {
                        return Err(error::too_long(self.limits));
                    }
                    return Ok(false);
                }
                Shape::Unknown | Shape::Ended => return Ok(true),
            };
            let Some(event) = event else { return Ok(false) };
            self.event(&event, shown)?;
            if self.assembler.answer().ended || event.trim() == "[DONE]" {
                self.shape = Shape::Ended;
            }
        }
    }

    fn event(&mut self, event: &str, shown: &mut Vec<Delta>) -> Result<(), ProviderFault> {
        let event = event.trim();
        if event.is_empty() || event == "[DONE]" {
            return Ok(());
        }
        let chunk: Value = serde_json::from_str(event)
            .map_err(|e| error::garbage(format!("an event is not JSON ({e}): {event}")))?;
        self.take(&chunk, shown)
    }

    fn take(&mut self, chunk: &Value, shown: &mut Vec<Delta>) -> Result<(), ProviderFault> {
        let before = shown.len();
        self.assembler.take(chunk, shown)?;
        self.pieces += shown.len() - before;
        if self.pieces > self.limits.pieces {
            return Err(error::too_many_pieces(self.limits));
        }
        self.assembler.answer().check(self.limits)
    }

    /// Whether the model has said why it stopped: what is missing then is at most the usage.
    pub(crate) fn finished(&self) -> bool {
        self.assembler.answer().finish.is_some()
    }

    /// Rises with everything of the answer that comes; comments and empty events leave it.
    pub(crate) fn progress(&self) -> usize {
        let answer = self.assembler.answer();
        let whole = if let Shape::Whole(text) = &self.shape { text.len() } else { 0 };
        answer.size + answer.calls.len() + usize::from(answer.finish.is_some()) + whole
    }

    /// Nothing more comes.
    pub(crate) fn close(mut self, shown: &mut Vec<Delta>) -> Result<Read, ProviderFault> {
        let whole = match std::mem::replace(&mut self.shape, Shape::Ended) {
            Shape::Unknown => return Err(error::garbage("no event came")),
            Shape::Ended => false,
            Shape::Whole(text) => {
                self.whole(&text, shown)?;
                true
            }
            Shape::Stream(events) => {
                self.rest(events, shown)?;
                false
            }
        };
        let answer = self.assembler.close();
        if !answer.begun {
            return Err(error::garbage("nothing of an answer in it"));
        }
        Ok(Read { answer, whole })
    }

    fn whole(&mut self, text: &[u8], shown: &mut Vec<Delta>) -> Result<(), ProviderFault> {
        let text = String::from_utf8_lossy(text);
        let json: Value = serde_json::from_str(text.trim())
            .map_err(|e| error::garbage(format!("not JSON ({e}): {text}")))?;
        self.take(&json, shown)?;
        if !self.assembler.answer().begun {
            return Err(error::garbage(format!("no answer in {text}")));
        }
        Ok(())
    }

    /// The stream ended without its mark: with the answer, if the model has said why it stopped.
    fn rest(&mut self, events: Events, shown: &mut Vec<Delta>) -> Result<(), ProviderFault> {
        let rest = events.finish().map_err(error::garbage)?.unwrap_or_default();
        // An event without its blank line counts if it is whole.
        if serde_json::from_str::<Value>(&rest).is_ok() {
            self.event(&rest, shown)?;
        }
        if rest.trim() == "[DONE]" || self.assembler.answer().ended || self.finished() {
            return Ok(());
        }
        let detail = "the stream ended without a finish reason and without an end mark".to_owned();
        Err(ProviderFault::Truncated { detail })
    }
}

impl Read {
    /// The reply to a question to the model `asked`.
    pub(crate) fn reply(self, asked: &str, mint: &mut dyn FnMut() -> String) -> ModelReply {
        self.answer.reply(asked, self.whole, mint)
    }
}

/// Reads an answer of status 200 that is at hand in these pieces: a recording, or what a fuzzer
/// made up. Gives the reply or the fault, and the deltas that were shown. Ids that the answer
/// lacks are `call_1`, `call_2`, ….
pub fn read_pieces<'p>(
    protocol: Protocol,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> (Result<ModelReply, ProviderFault>, Vec<Delta>) {
    let (mut reader, mut shown) = (Reader::new(protocol, AnswerLimits::default()), Vec::new());
    let mut minted = 0;
    let mut mint = || {
        minted += 1;
        format!("call_{minted}")
    };
    for piece in pieces {
        match reader.feed(piece, &mut shown) {
            Ok(false) => {}
            Ok(true) => break,
            Err(fault) => return (Err(fault), shown),
        }
    }
    let read = reader.close(&mut shown);
    (read.map(|read| read.reply("asked", &mut mint)), shown)
}
