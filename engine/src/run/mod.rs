//! How a run moves: step → journal → stream.
//!
//! | file | what it does |
//! |---|---|
//! | `record.rs`, `marks.rs` | the facts that a log holds; where deltas stood in the stream |
//! | `fold.rs`, `instance.rs`, `task.rs`, `apply.rs` | what they add up to, and which may follow which |
//! | `schedule.rs`, `joins.rs` | what begins next: edges, branches, joins |
//! | `writes.rs` | what a task may write, and how its writes are stored |
//! | `context.rs`, `asking.rs` | what a node reaches: people; models, one after the other |
//! | `calling.rs`, `approval.rs` | tools, and whether a person must agree first |
//! | `driver.rs`, `launch.rs`, `attempt.rs`, `retry.rs` | runs the tasks of one log at the same time; one attempt of a task, and another one |
//! | `leases.rs`, `trials.rs` | the leases of all logs that are driven, kept alive together; runs that may be what ends their process |
//! | `commands.rs` | what tasks ask while they run, written down |
//! | `settle.rs`, `cache.rs` | commits their steps and fires what follows; results taken again |
//! | `start.rs`, `end.rs`, `aside.rs` | how a run begins; how it ends, what it leaves, and which of it later runs do without |
//! | `inbox.rs`, `verdicts.rs`, `waiters.rs` | what is sent to a log, decided; who waits for that |
//! | `edit.rs`, `resolve.rs`, `migrate.rs` | what people change: state, calls of unknown outcome, bundles |
//! | `writer.rs`, `trouble.rs` | numbers, stores, then shows; what operators read of runs that fail |
//! | `event.rs`, `live.rs`, `stream.rs` | what readers see: projections, what is on its way, both in order |
//! | `pages.rs`, `history.rs`, `deltas.rs` | what happened, page by page, deltas in their places |
//! | `checkpoint.rs`, `standing.rs`, `replay.rs` | where a run can be read and forked from; what stood there |
//! | `kept.rs` | logs that were driven lately, so that they need not be read again |
//! | `engine.rs`, `places.rs` | the front: send, watch, read, and the loop that claims logs; who holds how many places |

mod apply;
mod approval;
mod aside;
mod asking;
mod attempt;
mod cache;
mod calling;
pub mod checkpoint;
mod commands;
pub mod context;
mod deltas;
mod driver;
mod edit;
mod end;
pub mod engine;
pub mod event;
pub mod fold;
mod history;
mod inbox;
pub mod instance;
pub mod joins;
mod kept;
mod launch;
mod leases;
pub mod live;
pub mod marks;
pub mod migrate;
mod pages;
mod places;
pub mod record;
mod replay;
mod resolve;
mod retry;
pub mod schedule;
mod settle;
mod shared;
pub mod standing;
mod start;
mod stream;
pub mod task;
mod trials;
mod trouble;
mod verdicts;
mod waiters;
mod writer;
pub mod writes;
