//! The engine of exile: graphs, state, scheduling and the run log. No network, no SQL.
//!
//! A run moves through it from top to bottom: files are loaded, checked and compiled to a graph; a
//! run of it begins, its tasks make steps, and each step becomes records of a log, which a journal
//! stores before readers see them.
//!
//! | module | holds |
//! |---|---|
//! | [`library`], [`document`], [`yaml`], [`diagnostic`], [`shape`], [`schema`] | files: read, checked, and what is wrong with them |
//! | [`graph`], [`skill`], [`bundle`] | graphs and skills as they are compiled, and what a run is pinned to |
//! | [`expr`], [`state`] | expressions and templates; channels, and how writes to them merge |
//! | [`node`], [`tool`], [`model`] | what nodes do, and what they reach: tools, models |
//! | [`run`] | how a run moves: records, schedule, driver, streams; the engine's front |
//! | [`journal`] | what stores logs, and the laws that every store keeps |
//! | [`message`], [`answer`], [`json`], [`id`], [`env`](mod@env), [`limits`], [`size`], [`period`] | what all of them speak of |
//! | [`span`], [`observer`], [`http`] | traces and measures; the way out, implemented elsewhere |

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
mod validator;
pub mod yaml;

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}
