//! Any bytes as a provider's answer, in either protocol, cut anywhere.
//!
//! An input is the protocol (`a`: Anthropic's, else chat), four bytes that say where it is cut,
//! and the answer.
//!
//! Properties:
//! - Nothing panics, and memory is bounded (libFuzzer's own limit).
//! - In one piece, in pieces, and byte by byte: the same reply, deltas and fault.
//! - Deltas joined are the reply's texts.
//! - Of an answer that was cut no half tool call is given out.
#![no_main]

use exile_engine::model::{Delta, Finish};
use exile_nodes::providers::profile::Protocol;
use exile_nodes::providers::reader::read_pieces;
use libfuzzer_sys::fuzz_target;

/// Longer answers are not read byte by byte: that takes long and shows nothing new.
const SHORT: usize = 2048;

fuzz_target!(|input: &[u8]| {
    let Some((head, answer)) = input.split_at_checked(5) else { return };
    let protocol = if head[0] == b'a' { Protocol::Anthropic } else { Protocol::Chat };
    let whole = read_pieces(protocol, [answer]);
    assert_eq!(read_pieces(protocol, cut(answer, &head[1..])), whole);
    if answer.len() <= SHORT {
        assert_eq!(read_pieces(protocol, answer.chunks(1)), whole);
    }
    let (Ok(reply), shown) = whole else { return };
    let (mut said, mut thought) = (String::new(), String::new());
    for delta in &shown {
        match delta {
            Delta::Text(text) | Delta::Refusal(text) => said += text,
            Delta::Reasoning(text) => thought += text,
        }
    }
    assert_eq!(said, reply.content);
    assert_eq!(thought, reply.reasoning.unwrap_or_default());
    for call in &reply.tool_calls {
        assert!(!call.name.is_empty() && !call.id.is_empty());
        // An object ends with its brace: what was cut off cannot look whole.
        let whole = call.arguments.trim_end().ends_with('}');
        let done = matches!(reply.finish, Finish::Stop | Finish::ToolCalls);
        assert!(whole || done, "half a call: {call:?}");
    }
});

/// The answer in up to five pieces, cut where the bytes say.
fn cut<'a>(answer: &'a [u8], places: &[u8]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> =
        places.iter().map(|place| usize::from(*place) * answer.len() / 255).collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut begin = 0;
    for end in places.into_iter().chain([answer.len()]) {
        pieces.push(&answer[begin..end]);
        begin = end;
    }
    pieces
}
