//! OpenAI's chat completions and embeddings as exile speaks them: what clients write, read into
//! exile's own types, and exile's answers in the shape that clients read.
//!
//! | file | holds |
//! |---|---|
//! | `v1.rs` | the routes |
//! | `fields.rs` | an object of a body, read field by field, refused in OpenAI's words |
//! | `request.rs`, `messages.rs` | what is asked; the conversation in it |
//! | `answer.rs` | an answer, whole or in chunks |
//! | `passthrough.rs` | a model is asked: no run, no journal |
//! | `graph_run.rs` | a graph runs |
//!
//! Invariants:
//! - No field is dropped in silence: it is understood, sent to the model as it came, or refused by
//!   its name.
//! - An error has the shape that OpenAI's clients raise on, before an answer and inside of one.
//! - Nothing is spliced: what was streamed stays as it is, or the stream ends with an error.
//!
//! Shapes: <https://github.com/openai/openai-openapi>. Absent on purpose: Responses, several
//! choices, log probabilities and audio, which are refused by name.

mod answer;
mod fields;
mod graph_run;
mod messages;
mod passthrough;
pub mod request;
mod v1;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::http::app::App;

pub use answer::embeddings;
pub use graph_run::run;
pub use passthrough::pass;

/// Every route of this folder, documented.
#[must_use]
pub fn routes() -> OpenApiRouter<Arc<App>> {
    v1::routes()
}
