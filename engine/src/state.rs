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
use crate::json;
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
    /// What each value takes in memory, about, in bytes.
    weights: Vec<usize>,
}

impl State {
    /// Every channel at its initial value.
    #[must_use]
    pub fn new(channels: Arc<Channels>) -> Self {
        let values = channels.iter().map(|c| c.initial.clone()).collect();
        let weights = channels.iter().map(|c| json::weigh(&c.initial)).collect();
        Self { channels, values, weights }
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
            self.weights[i] = json::weigh(&value);
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
        let mut merging: BTreeMap<usize, Merging<'_>> = BTreeMap::new();
        for (name, value) in writes.into_iter().flatten() {
            let unknown = || WriteError::Unknown(name.to_string());
            let i = self.channels.position(name).ok_or_else(unknown)?;
            let (channel, old) = (&self.channels.list[i], &*self.values[i]);
            merging.entry(i).or_insert_with(|| Merging::new(channel, old)).add(value)?;
        }
        let op = |(i, merging): (usize, Merging<'_>)| {
            (self.channels.list[i].name.clone(), merging.into_op())
        };
        Ok(merging.into_iter().map(op).collect())
    }

    /// How much the values of all channels take in memory, about, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weights.iter().sum()
    }

    /// How much the values of all channels take in memory at most, about, in bytes, once `delta` is
    /// applied; without the messages that it adds.
    #[must_use]
    pub fn weight_after(&self, delta: &Delta) -> usize {
        let change = |(name, op): (&Arc<str>, &Op)| {
            let i = self.channels.position(name)?;
            Some(match op {
                Op::Set(value) => (json::weigh(value), self.weights[i]),
                Op::Append(items) => (items.iter().map(json::weigh).sum(), 0),
                Op::Put(entries) => {
                    let old = entries.keys().filter_map(|key| self.values[i].get(key));
                    (entries.values().map(json::weigh).sum(), old.map(json::weigh).sum())
                }
                Op::Messages(_) => (0, 0),
            })
        };
        let changes = delta.iter().filter_map(change);
        let (more, less) = changes.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        (self.weight() + more).saturating_sub(less)
    }

    /// The channel that a delta adds most to.
    #[must_use]
    pub fn heaviest(delta: &Delta) -> Option<&Arc<str>> {
        delta.iter().max_by_key(|(_, op)| op.weight()).map(|(name, _)| name)
    }

    /// Applies what a record says. Names that are not declared are passed over: a graph may have
    /// lost a channel since.
    pub fn apply(&mut self, delta: &Delta, messages: &MessageMap) -> Result<(), WriteError> {
        for (name, op) in delta {
            if let Some(i) = self.channels.position(name) {
                let Growth(more) = apply(&mut self.values[i], op, messages)?;
                self.weights[i] = self.weights[i].saturating_add_signed(more);
            }
        }
        Ok(())
    }
}

/// Applies one op to one value, and gives how much more the value takes in memory, about, in bytes.
pub fn apply(slot: &mut Arc<Value>, op: &Op, messages: &MessageMap) -> Result<Growth, WriteError> {
    let mut growth = Growth::default();
    match op {
        Op::Set(value) => {
            growth.less(slot);
            growth.more(value);
            *slot = Arc::new(value.clone());
        }
        Op::Append(items) => {
            for item in items {
                growth.more(item);
            }
            list(slot).extend(items.iter().cloned());
        }
        Op::Put(entries) => {
            let value = Arc::make_mut(slot);
            if !value.is_object() {
                growth.less(value);
                *value = Value::Object(Map::new());
            }
            if let Value::Object(map) = value {
                for (key, entry) in entries {
                    growth.more(entry);
                    match map.insert(key.clone(), entry.clone()) {
                        Some(old) => growth.less(&old),
                        None => growth.0 += key.len().cast_signed(),
                    }
                }
            }
        }
        Op::Messages(ids) => {
            let slot = list(slot);
            let mut places = places(slot, ids);
            for id in ids {
                let message = messages.get(id).ok_or_else(|| WriteError::Message(id.clone()))?;
                let value = serde_json::to_value(&**message).unwrap_or(Value::Null);
                growth.more(&value);
                let place = *places.entry(id.as_str()).or_insert(slot.len());
                if place == slot.len() {
                    slot.push(value);
                } else {
                    growth.less(&slot[place]);
                    slot[place] = value;
                }
            }
        }
    }
    Ok(growth)
}

/// How much more something takes in memory, about, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Growth(isize);

impl Growth {
    fn more(&mut self, value: &Value) {
        self.0 = self.0.saturating_add_unsigned(json::weigh(value));
    }

    fn less(&mut self, value: &Value) {
        self.0 = self.0.saturating_sub_unsigned(json::weigh(value));
    }
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

/// What the writes of one step make of one channel.
struct Merging<'c> {
    channel: &'c Channel,
    old: &'c Value,
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
    Set(Value),
    Append(Vec<Value>),
    Put(Map<String, Value>),
    Messages(IndexSet<MessageId>),
}

impl<'c> Merging<'c> {
    fn new(channel: &'c Channel, old: &'c Value) -> Self {
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

    fn add(&mut self, value: &Value) -> Result<(), WriteError> {
        match (self.channel.reduce, &mut self.merged) {
            (Reducer::Replace, Merged::Nothing) => {
                if !self.channel.kind.admits(value) {
                    let kind = format!("{:?}", self.channel.kind).to_lowercase();
                    return Err(self.wrong(&kind, value));
                }
                self.merged = Merged::Set(value.clone());
            }
            (Reducer::Replace, _) => {
                return Err(WriteError::Twice(self.channel.name.to_string()));
            }
            (Reducer::Sum, merged) => {
                let sum = match merged {
                    Merged::Set(sum) => sum,
                    _ => self.old,
                };
                if !value.is_number() {
                    return Err(self.wrong("numbers", value));
                }
                let sum = add(sum, value).ok_or_else(|| {
                    self.wrong("numbers whose sum 64 bits hold to the digit", value)
                })?;
                self.merged = Merged::Set(sum);
            }
            (Reducer::Append, Merged::Append(items)) => items.extend(as_items(value).cloned()),
            (Reducer::Union, _) => as_items(value).for_each(|item| self.unite(item)),
            (Reducer::Merge, Merged::Put(entries)) => match value {
                Value::Object(new) => {
                    entries.extend(new.iter().map(|(k, v)| (k.clone(), v.clone())));
                }
                _ => return Err(self.wrong("objects", value)),
            },
            (Reducer::Messages, Merged::Messages(ids)) => {
                for item in as_items(value) {
                    match Message::deserialize(item) {
                        Ok(message) => ids.insert(message.id),
                        Err(error) => {
                            return Err(self.wrong(&format!("messages ({error})"), item));
                        }
                    };
                }
            }
            (Reducer::Append | Reducer::Merge | Reducer::Messages, _) => {}
        }
        Ok(())
    }

    /// Adds an item that is not there yet.
    fn unite(&mut self, item: &Value) {
        let Merged::Append(new) = &mut self.merged else { return };
        let old = self.old.as_array().map(Vec::as_slice).unwrap_or_default();
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

    fn into_op(self) -> Op {
        match self.merged {
            Merged::Nothing => Op::Set(self.old.clone()),
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
