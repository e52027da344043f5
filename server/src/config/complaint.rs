//! Something wrong with the configuration, by its place in the document.

use exile_engine::diagnostic::Finding;
use exile_engine::document::Document;

/// What is wrong with one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// JSON pointer, e.g. `/providers/openai/api_key`.
    pub place: String,
    /// Stable, e.g. `provider_unknown`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub fix: String,
}

impl Complaint {
    /// As a finding with line and column.
    #[must_use]
    pub fn in_document(self, document: &Document) -> Finding {
        document.error_at(self.code, &self.place, self.message, self.fix)
    }
}
