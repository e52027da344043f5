//! What a server does by itself, beside requests and runs.

pub mod retention;
