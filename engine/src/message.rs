//! What people, models and tools say to each other.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::MessageId;
use crate::json;

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

/// A picture: an `https://` or `http://` address that the provider fetches, or a `data:` URL that
/// holds it in Base64. Text alone, so that it is stored and streamed like any other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Image(String);

/// Kinds of pictures that every provider with eyes takes.
const IMAGE_TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

impl Image {
    /// Checks the form of `url`; nothing is fetched or decoded.
    ///
    /// # Errors
    /// What is wrong, and what to write.
    pub fn parse(url: &str) -> Result<Self, String> {
        if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("an image's URL holds no space, line break or control character".into());
        }
        if url.starts_with("https://") || url.starts_with("http://") {
            return Ok(Self(url.to_owned()));
        }
        let image = Self(url.to_owned());
        let Some((kind, data)) = image.data() else {
            return Err("an image is an https:// address or data:image/png;base64,…".into());
        };
        if !IMAGE_TYPES.contains(&kind) {
            return Err(format!("`{kind}` is none of {}", IMAGE_TYPES.join(", ")));
        }
        let base64 = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/' | b'=');
        if data.is_empty() || !data.bytes().all(base64) {
            return Err("the image is not Base64".into());
        }
        Ok(image)
    }

    /// The whole URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0
    }

    /// Media type and Base64 of a `data:` URL; `None` for an address.
    #[must_use]
    pub fn data(&self) -> Option<(&str, &str)> {
        self.0.strip_prefix("data:")?.split_once(";base64,")
    }
}

impl TryFrom<String> for Image {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        Self::parse(&url)
    }
}

impl From<Image> for String {
    fn from(image: Image) -> Self {
        image.0
    }
}

/// What a value takes besides its text, as [`json::weigh`] counts it.
const VALUE: usize = size_of::<Value>();

fn field(key: &str, value: usize) -> usize {
    VALUE + key.len() + value
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
    /// Pictures that belong to the text, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
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
    /// On a tool message: what a person changed the arguments of the call to, if one did. The
    /// assistant's message keeps those that its model wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_arguments: Option<Value>,
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
            images: Vec::new(),
            reasoning: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            tool_name: None,
            edited_arguments: None,
            model: None,
            opaque: None,
            covers: None,
        }
    }

    /// What it takes in memory as a value of a channel, about, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let Self { id, role, content, images, reasoning, tool_calls, tool_call_id, .. } = self;
        let Self { tool_name, edited_arguments, model, opaque, covers, .. } = self;
        let text = |key: &str, text: &str| field(key, VALUE + text.len());
        let maybe = |key: &str, value: Option<&str>| value.map_or(0, |value| text(key, value));
        let json = |key: &str, value: &Option<Value>| {
            value.as_ref().map_or(0, |value| field(key, json::weigh(value)))
        };
        let mut weight = VALUE + text("id", id.as_str()) + text("role", role.as_str());
        weight += text("content", content);
        if !images.is_empty() {
            let each = images.iter().map(|image| VALUE + image.0.len());
            weight += field("images", VALUE + each.sum::<usize>());
        }
        if !tool_calls.is_empty() {
            let each = tool_calls.iter().map(|ToolCall { id, name, arguments, opaque }| {
                let texts = text("id", id) + text("name", name) + text("arguments", arguments);
                VALUE + texts + json("opaque", opaque)
            });
            weight += field("tool_calls", VALUE + each.sum::<usize>());
        }
        weight += maybe("reasoning", reasoning.as_deref());
        weight += maybe("tool_call_id", tool_call_id.as_deref());
        weight += maybe("tool_name", tool_name.as_deref()) + maybe("model", model.as_deref());
        weight += maybe("covers", covers.as_ref().map(MessageId::as_str));
        weight + json("edited_arguments", edited_arguments) + json("opaque", opaque)
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
pub fn pending_tool_calls<'m>(
    messages: impl DoubleEndedIterator<Item = &'m Arc<Message>>,
) -> Vec<ToolCall> {
    let mut answered = HashSet::new();
    for message in messages.rev() {
        if message.role == Role::Assistant {
            let open = |call: &&ToolCall| !answered.contains(call.id.as_str());
            return message.tool_calls.iter().filter(open).cloned().collect();
        }
        answered.extend(message.tool_call_id.as_deref());
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Image, Message};

    #[test]
    fn a_message_weighs_as_much_as_the_json_that_it_is_stored_as() {
        let call = json!({ "id": "c", "name": "pay", "arguments": "{}", "opaque": { "s": 1 } });
        let whole = json!({
            "id": "msg_1", "role": "assistant", "content": "Grüße", "reasoning": "so",
            "images": ["https://example.com/a.png"], "tool_calls": [call, call],
            "tool_call_id": "c1", "tool_name": "pay", "edited_arguments": { "n": [1, 2] },
            "model": "mock/echo", "opaque": "x", "covers": "msg_0",
        });
        for left_out in whole.as_object().unwrap().keys() {
            let mut part = whole.clone();
            if !matches!(left_out.as_str(), "id" | "role" | "content") {
                part.as_object_mut().unwrap().remove(left_out);
            }
            let message: Message = serde_json::from_value(part).unwrap();
            let stored = serde_json::to_value(&message).unwrap();
            assert_eq!(message.weight(), crate::json::weigh(&stored), "without {left_out}");
        }
    }

    #[test]
    fn an_image_is_an_address_or_base64_of_a_known_kind() {
        let data = "data:image/png;base64,iVBORw0KGgo=";
        for good in ["https://example.com/a.png", "http://127.0.0.1/a", data] {
            assert_eq!(Image::parse(good).unwrap().url(), good);
        }
        assert_eq!(Image::parse(data).unwrap().data(), Some(("image/png", "iVBORw0KGgo=")));
        for bad in [
            "",
            "a.png",
            "file:///etc/passwd",
            "https://a\r\nb",
            "data:image/png,raw",
            "data:text/html;base64,PGI+",
            "data:image/png;base64,",
            "data:image/png;base64,<svg>",
        ] {
            assert!(Image::parse(bad).is_err(), "{bad}");
        }
    }
}
