//! What people, models and tools say to each other.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::MessageId;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The role as providers, rows and templates spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One message. In a `messages` channel a message with the same id replaces the earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Unique within the installation.
    pub id: MessageId,
    /// Who speaks.
    pub role: Role,
    /// The text; empty when an assistant only calls tools.
    #[serde(default)]
    pub content: String,
    /// What the model thought, kept to be echoed where a provider demands it (wire fact 16).
    /// `Some("")` differs from `None`: it must be sent as an empty string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Calls that an assistant asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// On a tool message: the call that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// On a tool message: the tool that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
    /// On an assistant message: `provider/model` that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Fields of the provider that must return verbatim to the same provider (wire fact 21).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<Value>,
    /// On a summary: the last of the messages that it stands for. A model is sent the summary in
    /// their place; the user never sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<MessageId>,
}

impl Message {
    /// A message with text alone.
    #[must_use]
    pub fn text(id: MessageId, role: Role, content: impl Into<String>) -> Self {
        Self {
            id,
            role,
            content: content.into(),
            reasoning: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            tool_name: None,
            model: None,
            opaque: None,
            covers: None,
        }
    }

    /// The answer to `call`.
    #[must_use]
    pub fn tool(id: MessageId, call: &ToolCall, content: impl Into<String>) -> Self {
        Self {
            tool_call_id: Some(call.id.clone()),
            tool_name: Some(call.name.clone()),
            ..Self::text(id, Role::Tool, content)
        }
    }
}

/// A call that a model asks for. The arguments are the model's own text: they may be malformed,
/// and only validation against the tool's schema says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's id, or one of ours where it sent none (wire fact 6).
    pub id: String,
    /// The tool's name as the registry knows it.
    pub name: String,
    /// JSON text; empty stands for `{}` (wire fact 8).
    pub arguments: String,
    /// Fields of the provider that must return verbatim with this call (wire fact 21).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<Value>,
}

/// The calls of the last assistant message that no later tool message answers.
#[must_use]
pub fn pending_tool_calls(messages: &[Message]) -> Vec<ToolCall> {
    let Some(last) = messages.iter().rposition(|m| m.role == Role::Assistant) else {
        return Vec::new();
    };
    let answered = |call: &ToolCall| {
        messages[last + 1..].iter().any(|m| m.tool_call_id.as_deref() == Some(&call.id))
    };
    messages[last].tool_calls.iter().filter(|c| !answered(c)).cloned().collect()
}
