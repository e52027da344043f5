//! What outlives a process, with processes: workers that are killed or stopped while they run
//! graphs on the real SQLite file, and an upstream of their own that counts every call.
//!
//! | file | holds |
//! |---|---|
//! | `process.rs` | this test binary started again in another role, and its end |
//! | `worker.rs`, `tools.rs` | the role that runs graphs: store, engine, node kinds, provider, tools |
//! | `counter.rs` | the role that answers models and tools and writes down what came |
//! | `words.rs` | what is said between a test and a worker |
//! | `graphs.rs` | what is run |
//! | `plan.rs` | what a test wants of its runs, and what it knows of them |
//! | `check.rs` | whether the history is one that could be promised |
//! | `field.rs` | one file, its upstream, and the lives of workers over it |
//! | `kills.rs`, `zombie.rs` | the tests |

mod check;
mod counter;
mod field;
mod graphs;
mod kills;
mod plan;
mod process;
mod tools;
mod words;
mod worker;
mod zombie;

pub(crate) use plan::{Seeded, number};
