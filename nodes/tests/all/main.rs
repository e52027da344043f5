//! The crate from outside: over real sockets of this machine, against scripted upstreams.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::needless_raw_string_hashes,
    reason = "a test may fail loudly; literals are handed over"
)]

mod approval;
mod crashes;
mod facts;
mod faults;
mod findings;
mod http;
mod human;
mod kinds;
mod maps;
mod nested;
mod rules;
mod stage;
mod summaries;
mod switches;
mod upstream;
