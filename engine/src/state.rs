//! The state of a graph: named channels, each with a reducer that merges several writes.
//!
//! Invariants:
//! - A snapshot is cheap: values are shared, a write copies only what another holder still reads.
//! - Reducers are associative over writes: `f(f(s, a), b) = f(s, a then b)`.
//! - Every write is checked against the channel's type; a wrong one changes nothing.
//! - What is stored of a write is an [`Op`], which needs no graph to be applied again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::MessageId;
use crate::message::Message;

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
        let mut index = HashMap::new();
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

/// What one task writes: channel name → value, in order. Message values are whole messages.
pub type Writes = IndexMap<Arc<str>, Value>;

/// What a step changed in one channel, in a form that needs no graph to be applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// The value is now this.
    Set(Value),
    /// These items were added.
    Append(Vec<Value>),
    /// These keys were set.
    Put(Map<String, Value>),
    /// These messages were added or replaced; their content is in the message rows.
    Messages(Vec<MessageId>),
}

/// What a step changed: channel → op.
pub type Delta = BTreeMap<Arc<str>, Op>;

/// Every message that a log's channels and records refer to.
pub type MessageMap = HashMap<MessageId, Arc<Message>>;

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

/// The values of a graph's channels at one moment. Cloning shares every value.
#[derive(Clone, Debug)]
pub struct State {
    channels: Arc<Channels>,
    values: Vec<Arc<Value>>,
}

impl State {
    /// Every channel at its initial value.
    #[must_use]
    pub fn new(channels: Arc<Channels>) -> Self {
        let values = channels.iter().map(|c| c.initial.clone()).collect();
        Self { channels, values }
    }

    /// What is declared.
    #[must_use]
    pub fn channels(&self) -> &Arc<Channels> {
        &self.channels
    }

    /// A channel's value; `None` if it is not declared.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Value>> {
        self.channels.position(name).map(|i| &self.values[i])
    }

    /// Puts a value in place, for a state made from stored values. An undeclared channel or a
    /// value that the declared type no longer admits is left at its initial value.
    pub fn restore(&mut self, name: &str, value: Arc<Value>) {
        if let Some(i) = self.channels.position(name)
            && self.channels.list[i].kind.admits(&value)
        {
            self.values[i] = value;
        }
    }

    /// Channels and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Value>)> {
        self.channels.iter().map(|c| &c.name).zip(&self.values)
    }

    /// A channel of messages, parsed. A channel that holds none gives an empty list.
    #[must_use]
    pub fn messages(&self, name: &str) -> Vec<Message> {
        let items = self.get(name).and_then(|v| v.as_array());
        let parse = |v: &Value| Message::deserialize(v).ok();
        items.map(|items| items.iter().filter_map(parse).collect()).unwrap_or_default()
    }

    /// The whole state as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        self.iter().map(|(name, value)| (name.to_string(), Value::clone(value))).collect()
    }

    /// Works out what `writes` (one map per task, in task-path order) change, without changing
    /// anything. `Replace` channels take one write only.
    pub fn merge<'w>(
        &self,
        writes: impl IntoIterator<Item = &'w Writes>,
    ) -> Result<Delta, WriteError> {
        let mut delta = Delta::new();
        for (name, value) in writes.into_iter().flatten() {
            let i = self
                .channels
                .position(name)
                .ok_or_else(|| WriteError::Unknown(name.to_string()))?;
            let (channel, old) = (&self.channels.list[i], &self.values[i]);
            let earlier = delta.remove(name);
            let op = reduce(channel, old, earlier, value)?;
            delta.insert(channel.name.clone(), op);
        }
        Ok(delta)
    }

    /// Applies what a record says. Names that are not declared are passed over: a graph may have
    /// lost a channel since.
    pub fn apply(&mut self, delta: &Delta, messages: &MessageMap) -> Result<(), WriteError> {
        for (name, op) in delta {
            if let Some(i) = self.channels.position(name) {
                apply(&mut self.values[i], op, messages)?;
            }
        }
        Ok(())
    }
}

/// Applies one op to one value.
pub fn apply(slot: &mut Arc<Value>, op: &Op, messages: &MessageMap) -> Result<(), WriteError> {
    match op {
        Op::Set(value) => *slot = Arc::new(value.clone()),
        Op::Append(items) => list(slot).extend(items.iter().cloned()),
        Op::Put(entries) => {
            let value = Arc::make_mut(slot);
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            if let Value::Object(map) = value {
                map.extend(entries.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
        }
        Op::Messages(ids) => {
            let slot = list(slot);
            let mut places = places(slot, ids);
            for id in ids {
                let message = messages.get(id).ok_or_else(|| WriteError::Message(id.clone()))?;
                let value = serde_json::to_value(&**message).unwrap_or(Value::Null);
                let place = *places.entry(id.as_str()).or_insert(slot.len());
                if place == slot.len() {
                    slot.push(value);
                } else {
                    slot[place] = value;
                }
            }
        }
    }
    Ok(())
}

/// Where these messages stand in a list: found in one pass, since a snapshot names all of them.
fn places<'i>(list: &[Value], ids: &'i [MessageId]) -> HashMap<&'i str, usize> {
    let wanted: HashSet<&str> = ids.iter().map(MessageId::as_str).collect();
    let id = |v: &Value| wanted.get(v.get("id")?.as_str()?).copied();
    (0..).zip(list).filter_map(|(place, message)| Some((id(message)?, place))).collect()
}

fn list(slot: &mut Arc<Value>) -> &mut Vec<Value> {
    let value = Arc::make_mut(slot);
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(items) => items,
        _ => unreachable!("made a list above"),
    }
}

fn reduce(
    channel: &Channel,
    old: &Value,
    earlier: Option<Op>,
    value: &Value,
) -> Result<Op, WriteError> {
    let wrong = |takes: &str| WriteError::Type {
        channel: channel.name.to_string(),
        takes: takes.to_owned(),
        got: short(value),
    };
    match channel.reduce {
        Reducer::Replace => {
            if earlier.is_some() {
                return Err(WriteError::Twice(channel.name.to_string()));
            }
            if !channel.kind.admits(value) {
                return Err(wrong(&format!("{:?}", channel.kind).to_lowercase()));
            }
            Ok(Op::Set(value.clone()))
        }
        Reducer::Append => {
            let mut items = appended(earlier);
            items.extend(as_items(value));
            Ok(Op::Append(items))
        }
        Reducer::Union => {
            let mut items = appended(earlier);
            for item in as_items(value) {
                let there = old.as_array().is_some_and(|old| old.contains(&item));
                if !there && !items.contains(&item) {
                    items.push(item);
                }
            }
            Ok(Op::Append(items))
        }
        Reducer::Sum => {
            if !value.is_number() {
                return Err(wrong("numbers"));
            }
            let sum = match &earlier {
                Some(Op::Set(sum)) => sum,
                _ => old,
            };
            add(sum, value).map(Op::Set).ok_or_else(|| wrong("numbers that can be added"))
        }
        Reducer::Merge => {
            let Value::Object(new) = value else { return Err(wrong("objects")) };
            let mut entries = match earlier {
                Some(Op::Put(entries)) => entries,
                _ => Map::new(),
            };
            entries.extend(new.iter().map(|(k, v)| (k.clone(), v.clone())));
            Ok(Op::Put(entries))
        }
        Reducer::Messages => {
            let mut ids: IndexSet<MessageId> = match earlier {
                Some(Op::Messages(ids)) => ids.into_iter().collect(),
                _ => IndexSet::new(),
            };
            for item in as_items(value) {
                let message: Message =
                    serde_json::from_value(item).map_err(|e| wrong(&format!("messages ({e})")))?;
                ids.insert(message.id);
            }
            Ok(Op::Messages(ids.into_iter().collect()))
        }
    }
}

fn appended(earlier: Option<Op>) -> Vec<Value> {
    match earlier {
        Some(Op::Append(items)) => items,
        _ => Vec::new(),
    }
}

fn as_items(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        other => vec![other.clone()],
    }
}

fn add(a: &Value, b: &Value) -> Option<Value> {
    let zero = Value::from(0);
    let a = if a.is_null() { &zero } else { a };
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64())
        && let Some(sum) = a.checked_add(b)
    {
        return Some(Value::from(sum));
    }
    serde_json::Number::from_f64(a.as_f64()? + b.as_f64()?).map(Value::Number)
}

/// A value in at most 60 characters, for error texts.
#[must_use]
pub fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        text
    } else {
        text.chars().take(57).chain("...".chars()).collect()
    }
}
