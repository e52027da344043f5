//! How a run moves: step → journal → stream.
//!
//! | file | what it does |
//! |---|---|
//! | `record.rs` | the facts that a log holds |
//! | `fold.rs`, `frame.rs` | what they add up to, and which may follow which |
//! | `schedule.rs` | what fires next: edges, branches, joins |
//! | `context.rs` | what a node reaches: calls to models and tools |
//! | `driver.rs` | runs the tasks of one log at the same time |
//! | `settle.rs` | commits their steps and fires what follows |
//! | `start.rs`, `end.rs` | how a run begins; how it ends, and what it leaves |
//! | `writer.rs` | numbers, stores, then shows |
//! | `event.rs`, `live.rs`, `stream.rs` | what readers see: projections, deltas, catching up |
//! | `engine.rs` | the front: start, cancel, watch, read, and the loop that claims logs |

pub mod context;
mod driver;
mod end;
pub mod engine;
pub mod event;
pub mod fold;
pub mod frame;
pub mod live;
pub mod record;
pub mod schedule;
mod settle;
mod shared;
mod start;
mod stream;
mod writer;
