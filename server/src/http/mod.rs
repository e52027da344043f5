//! What every HTTP surface shares: how a request is taken in, checked and answered.
//!
//! | file | holds |
//! |---|---|
//! | `app.rs`, `transport.rs`, `readiness.rs` | what every request can reach; what all share of this machine; whether the server can do its work |
//! | `router.rs` | what surrounds every route |
//! | `auth/`, `idempotency/`, `trace.rs` | who calls; a POST sent twice; the trace a request belongs to |
//! | `peer.rs` | who is at the other end of a connection |
//! | `admission.rs`, `body.rs`, `extract.rs`, `pagination.rs` | room for bodies; bodies; paths and queries; lists |
//! | `held.rs`, `sse.rs` | an answer's body; a run's events as server-sent events |
//! | `problem/` | what is refused, and why; statuses |
//! | `openapi.rs` | what describes the service |

pub mod admission;
pub mod app;
pub mod auth;
pub mod body;
pub mod extract;
pub mod held;
pub mod idempotency;
pub mod openapi;
pub mod pagination;
pub mod peer;
pub mod problem;
pub mod readiness;
pub mod router;
pub mod sse;
pub mod trace;
pub mod transport;
