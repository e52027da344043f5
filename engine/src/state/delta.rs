//! What a step changed, in a form that is stored and needs no graph to be applied again.

use std::collections::HashMap;
use std::sync::Arc;

use litemap::LiteMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::merge::WriteError;
use super::messages::MessageList;
use super::value::ChannelValue;
use crate::id::MessageId;
use crate::json;
use crate::message::Message;

/// What a step changed in one channel, in a form that needs no graph to be applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// The value is now this.
    Set(Arc<Value>),
    /// These items were added.
    Append(Vec<Value>),
    /// These keys were set.
    Put(Map<String, Value>),
    /// These messages were added or replaced; their content is in the message rows.
    Messages(Vec<MessageId>),
}

impl Op {
    /// How much what it adds takes in memory, about, in bytes; without the messages it names.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Set(value) => json::weigh(value),
            Self::Append(items) => items.iter().map(json::weigh).sum(),
            Self::Put(entries) => entries.values().map(json::weigh).sum(),
            Self::Messages(ids) => ids.len(),
        }
    }
}

/// What a step changed: channel → op, in the order of the names.
pub type Delta = LiteMap<Arc<str>, Op>;

/// Every message that a log's channels and records refer to.
pub type MessageMap = HashMap<MessageId, Arc<Message>>;

/// Applies one op to one value, and gives how much more the value takes in memory, about, in bytes.
pub fn apply(
    slot: &mut ChannelValue,
    op: &Op,
    messages: &MessageMap,
) -> Result<Growth, WriteError> {
    let mut growth = Growth::default();
    match op {
        Op::Set(value) => {
            growth.0 -= slot.weight().cast_signed();
            growth.more(value);
            *slot = ChannelValue::Json(value.clone());
        }
        Op::Append(items) => {
            let Value::Array(list) = json_of(slot, &mut growth, Value::is_array, Vec::<Value>::new)
            else {
                return Ok(growth);
            };
            for item in items {
                growth.more(item);
            }
            list.extend(items.iter().cloned());
        }
        Op::Put(entries) => {
            let Value::Object(map) = json_of(slot, &mut growth, Value::is_object, Map::new) else {
                return Ok(growth);
            };
            for (key, entry) in entries {
                growth.more(entry);
                match map.insert(key.clone(), entry.clone()) {
                    Some(old) => growth.less(&old),
                    None => growth.0 += key.len().cast_signed(),
                }
            }
        }
        Op::Messages(ids) => {
            let list = messages_of(slot);
            let before = list.weight();
            for id in ids {
                let message = messages.get(id).ok_or_else(|| WriteError::Message(id.clone()))?;
                list.push(message.clone());
            }
            growth.0 += list.weight().cast_signed() - before.cast_signed();
        }
    }
    Ok(growth)
}

/// The JSON of a slot, which becomes an empty list or map unless it is one.
fn json_of<'s, E: Into<Value>>(
    slot: &'s mut ChannelValue,
    growth: &mut Growth,
    fits: impl Fn(&Value) -> bool,
    empty: impl Fn() -> E,
) -> &'s mut Value {
    if let ChannelValue::Messages(list) = slot {
        *slot = list.to_json().into();
    }
    let value = match slot {
        ChannelValue::Json(value) => Arc::make_mut(value),
        ChannelValue::Messages(_) => unreachable!("made JSON above"),
    };
    if !fits(value) {
        growth.less(value);
        *value = empty().into();
        growth.more(value);
    }
    value
}

/// The messages of a slot, which becomes a list of them unless it is one.
fn messages_of(slot: &mut ChannelValue) -> &mut MessageList {
    if let ChannelValue::Json(value) = slot {
        *slot = MessageList::parse(value).unwrap_or_default().into();
    }
    match slot {
        ChannelValue::Messages(list) => list,
        ChannelValue::Json(_) => unreachable!("made a list of messages above"),
    }
}

/// How much more something takes in memory, about, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Growth(pub(super) isize);

impl Growth {
    fn more(&mut self, value: &Value) {
        self.0 = self.0.saturating_add_unsigned(json::weigh(value));
    }

    fn less(&mut self, value: &Value) {
        self.0 = self.0.saturating_sub_unsigned(json::weigh(value));
    }
}
