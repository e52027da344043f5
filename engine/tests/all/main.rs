//! The engine by behaviour; one binary, so that it is linked once.
#![allow(missing_docs, unreachable_pub, reason = "tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod asking;
mod documents;
mod expressions;
mod floods;
mod hand;
mod hostile;
mod kinds;
mod language;
mod libraries;
mod lines;
mod meetings;
mod mistakes;
mod pictures;
mod reloads;
mod run;
mod schemas;
mod scripted;
