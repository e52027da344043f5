//! What every surface shares of runs: beginning them, answering them, reading what they did.
//!
//! | file | holds |
//! |---|---|
//! | `create.rs`, `input.rs` | from a request to a run; the input, checked |
//! | `resume.rs`, `interrupts.rs` | answers to a run's questions; what it waits for |
//! | `verdict.rs`, `conflict.rs` | what is sent to a run, and what its engine says to it; why it cannot do it |
//! | `disconnect.rs` | a caller that leaves |
//! | `events.rs`, `speakers.rs` | what a run has done, a part at a time; what it says, in order |
//! | `diff.rs` | what changed between two checkpoints |

pub mod conflict;
pub mod create;
pub mod diff;
pub mod disconnect;
pub mod events;
pub mod input;
pub mod interrupts;
pub mod resume;
pub mod speakers;
pub mod verdict;
