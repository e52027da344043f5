//! The mock's script: a list of rules, as YAML writes it.
//!
//! ```yaml
//! - match: refund                # a part of the last message; "*" fits every one
//!   role: user                   # or tool; default: any, with tool_calls: user
//!   reasoning: The manual says…
//!   reply: "You asked: {{ last }}"
//!   chunk: 4                     # characters per delta
//!   delay_ms: 20                 # before each delta
//!   tool_calls: [{ name: calculator, arguments: { expression: 1 + 1 } }]
//! - match: "*"
//!   reply: Half an answer        # sent before the failure
//!   fail: { status: 503, message: overloaded }    # or kind: timeout | connect | truncated | …
//! ```

use std::time::Duration;

use exile_engine::message::{Message, Role};
use exile_engine::model::ProviderFault;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Turn;

/// Characters per delta where a rule does not say.
const CHUNK: usize = 8;

/// Rules; the first that fits answers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Script(pub Vec<Rule>);

/// When, and what then.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A part of the last user or tool message; `*` fits every one.
    #[serde(rename = "match")]
    pub part: String,
    /// Whose message it must be; default: anybody's, or the user's if tools are called (else
    /// their results would call them again).
    #[serde(default)]
    pub role: Option<Role>,
    /// What it says; `{{ last }}` stands for the message.
    #[serde(default)]
    pub reply: String,
    /// What it thinks first.
    #[serde(default)]
    pub reasoning: Option<String>,
    /// What it calls.
    #[serde(default)]
    pub tool_calls: Vec<Call>,
    /// Characters per delta.
    #[serde(default)]
    pub chunk: Option<usize>,
    /// Milliseconds before each delta.
    #[serde(default)]
    pub delay_ms: u64,
    /// How it fails, after what it says.
    #[serde(default)]
    pub fail: Option<Fail>,
}

/// A tool call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The tool.
    pub name: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// A failure: an HTTP status, or one of a kind that has none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fail {
    /// As a provider would answer.
    #[serde(default)]
    pub status: Option<u16>,
    /// Without a status: how the connection fails.
    #[serde(default)]
    pub kind: FailKind,
    /// The provider's words.
    #[serde(default)]
    pub message: String,
}

/// Failures without a status.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailKind {
    /// An error inside the answer.
    #[default]
    Unavailable,
    /// No connection.
    Connect,
    /// Silence.
    Timeout,
    /// Half an answer.
    Truncated,
    /// Not of the protocol.
    Garbage,
}

impl Script {
    /// The first rule that fits.
    pub(super) fn rule(&self, last: &Message) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.fits(last))
    }
}

impl Rule {
    fn fits(&self, last: &Message) -> bool {
        let role = self.role.or((!self.tool_calls.is_empty()).then_some(Role::User));
        role.is_none_or(|role| role == last.role)
            && (self.part == "*" || last.content.contains(&self.part))
    }

    pub(super) fn turn(&self, last: &Message) -> Turn {
        let fill = |text: &str| {
            text.replace("{{ last }}", &last.content).replace("{{last}}", &last.content)
        };
        let call =
            |call: &Call| (call.name.clone(), Value::Object(call.arguments.clone()).to_string());
        Turn {
            reasoning: self.reasoning.as_deref().map(fill),
            text: fill(&self.reply),
            calls: self.tool_calls.iter().map(call).collect(),
            chunk: self.chunk.unwrap_or(CHUNK),
            delay: Duration::from_millis(self.delay_ms),
            fault: self.fail.as_ref().map(Fail::fault),
        }
    }
}

impl Fail {
    fn fault(&self) -> ProviderFault {
        let detail = format!("[mock] {}", self.message).trim_end().to_owned();
        match (self.status, self.kind) {
            (Some(401 | 403), _) => {
                ProviderFault::Unauthorized { variable: "MOCK_API_KEY".into(), detail }
            }
            (Some(402), _) => ProviderFault::NoBalance { detail },
            (Some(404), _) => ProviderFault::ModelUnknown { detail },
            (Some(429), _) => ProviderFault::RateLimited { retry_after_ms: None, detail },
            (Some(status @ 400..500), _) => ProviderFault::BadRequest { status, detail },
            (Some(status), _) => ProviderFault::Unavailable { status, detail },
            (None, FailKind::Unavailable) => ProviderFault::Unavailable { status: 200, detail },
            (None, FailKind::Connect) => ProviderFault::Connect { detail },
            (None, FailKind::Timeout) => {
                ProviderFault::Timeout { phase: "first byte".into(), after_ms: 0 }
            }
            (None, FailKind::Truncated) => ProviderFault::Truncated { detail },
            (None, FailKind::Garbage) => ProviderFault::Garbage { detail },
        }
    }
}
