//! How a run moves: step → journal → stream.
//!
//! | file | what it does |
//! |---|---|
//! | `record.rs`, `marks.rs` | the facts that a log holds; where deltas stood in the stream |
//! | `fold.rs`, `frame.rs`, `advance.rs` | what they add up to, and which may follow which |
//! | `schedule.rs` | what fires next: edges, branches, joins |
//! | `context.rs`, `asking.rs` | what a node reaches: people; models, one after the other |
//! | `calling.rs`, `approval.rs` | tools, and whether a person must agree first |
//! | `driver.rs`, `launch.rs`, `attempt.rs` | runs the tasks of one log at the same time; one attempt of a task |
//! | `commands.rs` | what tasks ask while they run, written down |
//! | `settle.rs`, `cache.rs` | commits their steps and fires what follows; results taken again |
//! | `start.rs`, `end.rs` | how a run begins; how it ends, and what it leaves |
//! | `inbox.rs`, `migrate.rs` | what is sent to a log: answers, cancels, edits, forks, other bundles |
//! | `writer.rs` | numbers, stores, then shows |
//! | `event.rs`, `live.rs`, `stream.rs` | what readers see: projections, deltas, catching up |
//! | `checkpoint.rs`, `standing.rs`, `replay.rs` | where a run can be read and forked from; what stood there |
//! | `engine.rs` | the front: send, watch, read, and the loop that claims logs |

mod advance;
mod approval;
mod asking;
mod attempt;
mod cache;
mod calling;
pub mod checkpoint;
mod commands;
pub mod context;
mod driver;
mod end;
pub mod engine;
pub mod event;
pub mod fold;
pub mod frame;
mod inbox;
mod launch;
pub mod live;
pub mod marks;
pub mod migrate;
pub mod record;
mod replay;
pub mod schedule;
mod settle;
mod shared;
pub mod standing;
mod start;
mod stream;
mod writer;
