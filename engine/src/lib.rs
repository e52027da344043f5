//! The engine of exile: graphs, state, scheduling and the run log.
pub mod answer;
pub mod bundle;
pub mod diagnostic;
pub mod document;
pub mod env;
pub mod expr;
pub mod graph;
pub mod http;
pub mod id;
pub mod journal;
pub mod json;
pub mod library;
pub mod limits;
pub mod message;
pub mod model;
pub mod node;
pub mod observer;
pub mod period;
pub mod run;
pub mod schema;
pub mod shape;
pub mod size;
pub mod skill;
pub mod span;
pub mod state;
pub mod tool;
pub mod yaml;

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}
