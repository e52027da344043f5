//! The state of a graph: named channels, each with a reducer that merges several writes.
//!
//! | file | holds |
//! |---|---|
//! | `channel.rs` | what a graph declares |
//! | `value.rs`, `messages.rs` | the value of a channel: JSON, or a list of messages |
//! | `merge.rs` | how the writes of one step merge |
//! | `delta.rs` | what is stored of that, and how it is applied |
//!
//! Invariants:
//! - A snapshot is cheap: values are shared, a write copies only what another holder still reads.
//! - Reducers are associative over writes: `f(f(s, a), b) = f(s, a then b)`.
//! - Every write is checked against the channel's type; a wrong one changes nothing.
//! - What is stored of a write is an [`Op`], which needs no graph to be applied again.

mod channel;
mod delta;
mod merge;
mod messages;
mod value;

use std::sync::Arc;

use litemap::LiteMap;
use serde_json::{Map, Value};

use crate::json;

pub use channel::{Channel, ChannelType, Channels, Reducer, Scope};
pub use delta::{Delta, Growth, MessageMap, Op, apply};
pub use merge::WriteError;
pub use messages::MessageList;
pub use value::ChannelValue;

use merge::Merging;

/// What one task writes: channel → value, in the order of the names.
pub type Writes = LiteMap<Arc<str>, ChannelValue>;

/// The values of a graph's channels at one moment. Cloning shares every value.
#[derive(Clone, Debug)]
pub struct State {
    channels: Arc<Channels>,
    values: Vec<Slot>,
}

/// A channel's value.
#[derive(Clone, Debug)]
struct Slot {
    value: ChannelValue,
    /// What it takes in memory, about, in bytes.
    weight: usize,
}

impl From<ChannelValue> for Slot {
    fn from(value: ChannelValue) -> Self {
        Self { weight: value.weight(), value }
    }
}

impl State {
    /// Every channel at its initial value.
    #[must_use]
    pub fn new(channels: Arc<Channels>) -> Self {
        let values = channels.iter().map(|channel| channel.beginning().into()).collect();
        Self { channels, values }
    }

    /// What is declared.
    #[must_use]
    pub fn channels(&self) -> &Arc<Channels> {
        &self.channels
    }

    /// A channel's value; `None` if it is not declared.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ChannelValue> {
        self.channels.position(name).map(|i| &self.values[i].value)
    }

    /// Puts a value in place, for a state made from stored values. An undeclared channel or a
    /// value that the declared type no longer admits is left at its initial value.
    pub fn restore(&mut self, name: &str, value: ChannelValue) {
        if let Some(i) = self.channels.position(name)
            && let Some(value) = self.channels.at(i).admitted(value)
        {
            self.values[i] = value.into();
        }
    }

    /// Channels and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &ChannelValue)> {
        self.channels.iter().map(|c| &c.name).zip(self.values.iter().map(|slot| &slot.value))
    }

    /// The messages of a channel; none if it holds something else.
    #[must_use]
    pub fn messages(&self, name: &str) -> MessageList {
        self.get(name).and_then(ChannelValue::as_messages).cloned().unwrap_or_default()
    }

    /// The whole state as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        self.iter().map(|(name, value)| (name.to_string(), value.to_json().into_owned())).collect()
    }

    /// Works out what `writes` (one map per task, in task-path order) change, without changing
    /// anything. `Replace` channels take one write only.
    pub fn merge<'w>(
        &self,
        writes: impl IntoIterator<Item = &'w Writes>,
    ) -> Result<Delta, WriteError> {
        let mut merging: LiteMap<usize, Merging<'_>> = LiteMap::new();
        for (name, value) in writes.into_iter().flatten() {
            let unknown = || WriteError::Unknown(name.to_string());
            let i = self.channels.position(name).ok_or_else(unknown)?;
            let (channel, old) = (self.channels.at(i), &self.values[i].value);
            merging.entry(i).or_insert_with(|| Merging::new(channel, old)).add(value)?;
        }
        let op = |(i, merging): (usize, Merging<'_>)| {
            (self.channels.at(i).name.clone(), merging.into_op())
        };
        Ok(merging.into_iter().map(op).collect())
    }

    /// How much the values of all channels take in memory, about, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.values.iter().map(|slot| slot.weight).sum()
    }

    /// How much the values of all channels take in memory at most, about, in bytes, once `delta` is
    /// applied; without the messages that it adds.
    #[must_use]
    pub fn weight_after(&self, delta: &Delta) -> usize {
        let change = |(name, op): (&Arc<str>, &Op)| {
            let i = self.channels.position(name)?;
            Some(match op {
                Op::Set(value) => (json::weigh(value), self.values[i].weight),
                Op::Append(items) => (items.iter().map(json::weigh).sum(), 0),
                Op::Put(entries) => {
                    let held = self.values[i].value.as_json();
                    let old = entries.keys().filter_map(|key| held?.get(key));
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
                let Slot { value, weight } = &mut self.values[i];
                let Growth(more) = apply(value, op, messages)?;
                *weight = weight.saturating_add_signed(more);
            }
        }
        Ok(())
    }
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
