//! Keys, and texts without them.

use exile_engine::model::ProviderFault;

/// Shorter ones are not looked for in texts: they are words, not keys.
const SHORTEST: usize = 6;

/// Longest text of a fault, in characters.
const EXCERPT: usize = 500;

/// A text that no log, error or debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, to be sent where it belongs and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// The fault with `[secret]` wherever a secret stands in its text, and the text cut to one line
/// of bounded length: in this order, so that no half of a secret is left at the cut.
pub(crate) fn without(mut fault: ProviderFault, secrets: &[Secret]) -> ProviderFault {
    use ProviderFault as F;
    let text = match &mut fault {
        F::Unauthorized { detail, .. }
        | F::NoBalance { detail }
        | F::RateLimited { detail, .. }
        | F::ModelUnknown { detail }
        | F::ContextTooLong { detail }
        | F::BadRequest { detail, .. }
        | F::NotSent { detail }
        | F::Unavailable { detail, .. }
        | F::Connect { detail }
        | F::Truncated { detail }
        | F::Garbage { detail }
        | F::Refused { detail }
        | F::Incapable { detail } => detail,
        F::KeyMissing { .. }
        | F::Timeout { .. }
        | F::CircuitOpen { .. }
        | F::QuotaExceeded(_)
        | F::ProviderUnknown => {
            return fault;
        }
    };
    for secret in secrets.iter().filter(|s| s.0.len() >= SHORTEST) {
        *text = text.replace(&secret.0, "[secret]");
    }
    *text = excerpt(text);
    fault
}

fn excerpt(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
