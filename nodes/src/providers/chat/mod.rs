//! OpenAI's chat completions, which most providers speak.
//!
//! | file | what it does |
//! |---|---|
//! | `request.rs` | from a request to a body |
//! | `assemble.rs` | from chunks to an answer |
//! | `embed.rs` | texts as vectors |

pub(crate) mod assemble;
pub(crate) mod embed;
pub(crate) mod request;

/// The key, among a message's opaque fields, of the name that its reasoning came under.
pub(crate) const REASONING_FIELD: &str = "reasoning_field";
