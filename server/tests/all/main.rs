//! Tests of the server through its public face, as one binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it does not expect"
)]

mod cli;
mod durable;
mod http;
mod schema;
mod store;
