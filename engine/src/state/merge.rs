//! How the writes of one step merge, channel by channel.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexSet;
use serde_json::{Map, Value};

use super::channel::{Channel, Reducer};
use super::delta::Op;
use super::messages::MessageList;
use super::short;
use super::value::ChannelValue;
use crate::id::MessageId;
use crate::json;

/// Why a write is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// No such channel.
    #[error("channel `{0}` is not declared")]
    Unknown(String),
    /// The value is not of the channel's type, or not what its reducer takes.
    #[error("channel `{channel}` takes {takes}, got {got}")]
    Type {
        /// Channel.
        channel: String,
        /// What it takes.
        takes: String,
        /// A short form of what was written.
        got: String,
    },
    /// Two tasks of one step wrote a channel without a reducer.
    #[error("channel `{0}` was written twice in one step; declare a reducer for it")]
    Twice(String),
    /// A record names a message that is not there.
    #[error("message {0} is missing")]
    Message(MessageId),
}

/// What the writes of one step make of one channel.
pub(super) struct Merging<'c> {
    channel: &'c Channel,
    old: &'c ChannelValue,
    merged: Merged,
    /// Of `union`: what the channel holds or will hold, by hash, once so much was written that
    /// looking through it would cost.
    known: Option<HashMap<u64, Vec<Value>>>,
    /// How many items were written.
    items: usize,
}

/// From how many written items on a `union` keeps hashes.
const MANY: usize = 8;

/// The op so far.
enum Merged {
    /// Nothing was written.
    Nothing,
    Set(Arc<Value>),
    Append(Vec<Value>),
    Put(Map<String, Value>),
    Messages(IndexSet<MessageId>),
}

impl<'c> Merging<'c> {
    pub(super) fn new(channel: &'c Channel, old: &'c ChannelValue) -> Self {
        let merged = match channel.reduce {
            Reducer::Replace | Reducer::Sum => Merged::Nothing,
            Reducer::Append | Reducer::Union => Merged::Append(Vec::new()),
            Reducer::Merge => Merged::Put(Map::new()),
            Reducer::Messages => Merged::Messages(IndexSet::new()),
        };
        Self { channel, old, merged, known: None, items: 0 }
    }

    fn wrong(&self, takes: &str, value: &Value) -> WriteError {
        let channel = self.channel.name.to_string();
        WriteError::Type { channel, takes: takes.to_owned(), got: short(value) }
    }

    /// Adds what one task writes.
    pub(super) fn add(&mut self, written: &ChannelValue) -> Result<(), WriteError> {
        if let (Merged::Messages(ids), ChannelValue::Messages(list)) = (&mut self.merged, written) {
            ids.extend(list.iter().map(|message| message.id.clone()));
            return Ok(());
        }
        let value = match written {
            ChannelValue::Json(value) => value,
            ChannelValue::Messages(list) => &Arc::new(list.to_json()),
        };
        match (self.channel.reduce, &mut self.merged) {
            (Reducer::Replace, Merged::Nothing) => {
                if !self.channel.kind.admits(value) {
                    let kind = format!("{:?}", self.channel.kind).to_lowercase();
                    return Err(self.wrong(&kind, value));
                }
                self.merged = Merged::Set(Arc::clone(value));
            }
            (Reducer::Replace, _) => {
                return Err(WriteError::Twice(self.channel.name.to_string()));
            }
            (Reducer::Sum, merged) => {
                let old = self.old.to_json();
                let sum = match merged {
                    Merged::Set(sum) => sum,
                    _ => &*old,
                };
                if !value.is_number() {
                    return Err(self.wrong("numbers", value));
                }
                let sum = add(sum, value).ok_or_else(|| {
                    self.wrong("numbers whose sum 64 bits hold to the digit", value)
                })?;
                self.merged = Merged::Set(Arc::new(sum));
            }
            (Reducer::Append, Merged::Append(items)) => items.extend(as_items(value).cloned()),
            (Reducer::Union, _) => as_items(value).for_each(|item| self.unite(item)),
            (Reducer::Merge, Merged::Put(entries)) => match &**value {
                Value::Object(new) => {
                    entries.extend(new.iter().map(|(k, v)| (k.clone(), v.clone())));
                }
                _ => return Err(self.wrong("objects", value)),
            },
            (Reducer::Messages, Merged::Messages(ids)) => match MessageList::parse(value) {
                Ok(list) => ids.extend(list.iter().map(|message| message.id.clone())),
                Err((item, why)) => return Err(self.wrong(&format!("messages ({why})"), &item)),
            },
            (Reducer::Append | Reducer::Merge | Reducer::Messages, _) => {}
        }
        Ok(())
    }

    /// Adds an item that is not there yet.
    fn unite(&mut self, item: &Value) {
        let Merged::Append(new) = &mut self.merged else { return };
        let old = self.old.as_json().and_then(Value::as_array);
        let old = old.map(Vec::as_slice).unwrap_or_default();
        self.items += 1;
        if self.items <= MANY {
            if !old.contains(item) && !new.contains(item) {
                new.push(item.clone());
            }
            return;
        }
        let known = self.known.get_or_insert_with(|| {
            let mut known: HashMap<u64, Vec<Value>> = HashMap::new();
            for item in old.iter().chain(&*new) {
                known.entry(json::hash(item)).or_default().push(item.clone());
            }
            known
        });
        let alike = known.entry(json::hash(item)).or_default();
        if !alike.contains(item) {
            alike.push(item.clone());
            new.push(item.clone());
        }
    }

    /// What all writes came to.
    pub(super) fn into_op(self) -> Op {
        match self.merged {
            Merged::Nothing => Op::Set(Arc::new(self.old.to_json().into_owned())),
            Merged::Set(value) => Op::Set(value),
            Merged::Append(items) => Op::Append(items),
            Merged::Put(entries) => Op::Put(entries),
            Merged::Messages(ids) => Op::Messages(ids.into_iter().collect()),
        }
    }
}

fn as_items(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Array(items) => items.as_slice(),
        other => std::slice::from_ref(other),
    }
    .iter()
}

/// The sum of two numbers; `None`: 64 bits do not hold it to the digit, or one is no number.
fn add(a: &Value, b: &Value) -> Option<Value> {
    let whole = |value: &Value| match value {
        Value::Null => Some(0),
        other => other.as_i64().map(i128::from).or_else(|| other.as_u64().map(i128::from)),
    };
    if let (Some(a), Some(b)) = (whole(a), whole(b)) {
        let sum = a + b;
        let small = i64::try_from(sum).map(Value::from);
        return small.or_else(|_| u64::try_from(sum).map(Value::from)).ok();
    }
    let float = |value: &Value| {
        // Whole numbers above this are not all floats.
        const EXACT: i128 = 1 << 53;
        match whole(value) {
            Some(number) if number.abs() > EXACT => None,
            Some(_) if value.is_null() => Some(0.0),
            _ => value.as_f64(),
        }
    };
    serde_json::Number::from_f64(float(a)? + float(b)?).map(Value::Number)
}
