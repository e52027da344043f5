//! What a graph declares: channels, what they may hold, and how writes to them merge.

use std::sync::Arc;

use foldhash::HashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::messages::MessageList;
use super::value::ChannelValue;

/// How several writes to one channel merge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reducer {
    /// The last write stands; two in one step are an error.
    #[default]
    Replace,
    /// A list adds its items, any other value adds itself.
    Append,
    /// Messages: added in order; the same id replaces.
    Messages,
    /// Numbers add up.
    Sum,
    /// Objects merge key by key, the later key standing.
    Merge,
    /// Like `append`, without what is there already.
    Union,
}

/// What a channel may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelType {
    /// Anything.
    #[default]
    Any,
    /// Text.
    String,
    /// Any number.
    Number,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A map.
    Object,
    /// A list.
    Array,
}

impl ChannelType {
    /// Whether `value` may stand in such a channel; `null` always may.
    #[must_use]
    pub fn admits(self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            _ if value.is_null() => true,
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Boolean => value.is_boolean(),
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
        }
    }
}

/// How long a channel's value lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// As long as the log: the next turn of the conversation reads it.
    #[default]
    Log,
    /// Reset when a run starts.
    Run,
}

/// One declared channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    /// As in the YAML.
    pub name: Arc<str>,
    /// What it may hold.
    pub kind: ChannelType,
    /// How writes merge.
    pub reduce: Reducer,
    /// What it starts as: `default`, else the reducer's empty value, else null.
    pub initial: Arc<Value>,
    /// How long it lives.
    pub scope: Scope,
}

impl Channel {
    /// The value that it starts with.
    #[must_use]
    pub fn beginning(&self) -> ChannelValue {
        let initial = ChannelValue::Json(self.initial.clone());
        self.admitted(initial.clone()).unwrap_or(initial)
    }

    /// A value as the channel holds it: messages in a channel of messages, JSON in any other.
    /// `None`: its type does not admit it.
    #[must_use]
    pub fn admitted(&self, value: ChannelValue) -> Option<ChannelValue> {
        match (self.reduce, value) {
            (Reducer::Messages, ChannelValue::Messages(list)) => Some(list.into()),
            (Reducer::Messages, ChannelValue::Json(value)) if value.is_null() => {
                Some(MessageList::default().into())
            }
            (Reducer::Messages, ChannelValue::Json(value)) => {
                value.is_array().then(|| MessageList::parse(&value).ok())?.map(Into::into)
            }
            (_, ChannelValue::Json(value)) => {
                self.kind.admits(&value).then_some(ChannelValue::Json(value))
            }
            (_, ChannelValue::Messages(list)) => {
                let value = list.to_json();
                self.kind.admits(&value).then(|| value.into())
            }
        }
    }
}

/// The channels of one graph, in the order of the YAML.
#[derive(Clone, Debug, Default)]
pub struct Channels {
    list: Vec<Channel>,
    index: HashMap<Arc<str>, usize>,
}

impl Channels {
    /// Collects channels; of two with one name the first stands.
    #[must_use]
    pub fn new(list: Vec<Channel>) -> Self {
        let mut index = HashMap::default();
        for (i, channel) in list.iter().enumerate() {
            index.entry(channel.name.clone()).or_insert(i);
        }
        Self { list, index }
    }

    /// Where `name` stands.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// The channel at a place.
    pub(super) fn at(&self, place: usize) -> &Channel {
        &self.list[place]
    }

    /// The channel of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Channel> {
        self.position(name).map(|i| &self.list[i])
    }

    /// All, in order.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Channel> {
        self.list.iter()
    }
}
