//! One server process: its parts made, put together, and ended.
//!
//! | file | holds |
//! |---|---|
//! | `compose.rs` | the composition root |
//! | `router.rs` | the routes of every surface, and their description |
//! | `serve/` | the socket |
//! | `builtin.rs` | the graphs inside the binary |
//! | `schema.rs` | JSON Schemas of the files that people write |

pub mod builtin;
pub mod compose;
pub mod router;
pub mod schema;
pub mod serve;
