//! What outlives a process, with processes: workers that are killed or stopped while they run
//! graphs on the real SQLite file, and an upstream of their own that counts every call.
//!
//! | file | holds |
//! |---|---|
//! | `process.rs` | this test binary started again in another role, and its end |
//! | `worker.rs`, `tools.rs` | the role that runs graphs: store, engine, node kinds, provider, tools |
//! | `caller.rs` | which task of which run asks a model |
//! | `counter.rs` | the role that answers models and tools and writes down what came |
//! | `protocol.rs` | what is said between a test and a worker |
//! | `graphs.rs`, `mixed.rs` | what is run: written by hand, and put together by chance |
//! | `log.rs` | one log, its runs, and what is known of its records |
//! | `plan.rs`, `expectations.rs` | what a test wants of its logs, what it knows of them, and what it wants next |
//! | `check.rs`, `calls.rs`, `history.rs` | whether the history is one that could be promised: of logs, of calls, of runs one after another |
//! | `scenario.rs` | one file, its upstream, and the lives of workers over it |
//! | `kills.rs`, `zombie.rs` | the tests |

mod caller;
mod calls;
mod check;
mod counter;
mod expectations;
mod graphs;
mod history;
mod kills;
mod log;
mod mixed;
mod plan;
mod process;
mod protocol;
mod scenario;
mod tools;
mod worker;
mod zombie;

pub(crate) use plan::{Seeded, number};
