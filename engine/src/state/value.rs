//! The value of one channel.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::messages::MessageList;
use crate::json;
use crate::message::Message;

/// The value of one channel, or what is written to one. Cloning shares it.
#[derive(Clone, Debug, PartialEq)]
pub enum ChannelValue {
    /// Any JSON.
    Json(Arc<Value>),
    /// What a channel of messages holds. Written to one, they are added to what it holds.
    Messages(MessageList),
}

impl ChannelValue {
    /// One message.
    #[must_use]
    pub fn message(message: Arc<Message>) -> Self {
        Self::Messages(std::iter::once(message).collect())
    }

    /// The same as JSON.
    #[must_use]
    pub fn to_json(&self) -> Cow<'_, Value> {
        match self {
            Self::Json(value) => Cow::Borrowed(value),
            Self::Messages(list) => Cow::Owned(list.to_json()),
        }
    }

    /// The JSON that it is; `None` for messages.
    #[must_use]
    pub fn as_json(&self) -> Option<&Value> {
        match self {
            Self::Json(value) => Some(value),
            Self::Messages(_) => None,
        }
    }

    /// The messages that it is; `None` for JSON.
    #[must_use]
    pub fn as_messages(&self) -> Option<&MessageList> {
        match self {
            Self::Json(_) => None,
            Self::Messages(list) => Some(list),
        }
    }

    /// The text that it is, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        self.as_json()?.as_str()
    }

    /// The whole number without a sign that it is, if it is one.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.as_json()?.as_u64()
    }

    /// What it takes in memory, about, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Json(value) => json::weigh(value),
            Self::Messages(list) => list.weight(),
        }
    }
}

impl Default for ChannelValue {
    fn default() -> Self {
        Self::Json(Arc::default())
    }
}

impl<V: Into<Value>> From<V> for ChannelValue {
    fn from(value: V) -> Self {
        Self::Json(Arc::new(value.into()))
    }
}

impl From<MessageList> for ChannelValue {
    fn from(list: MessageList) -> Self {
        Self::Messages(list)
    }
}

impl PartialEq<Value> for ChannelValue {
    fn eq(&self, other: &Value) -> bool {
        *self.to_json() == *other
    }
}
