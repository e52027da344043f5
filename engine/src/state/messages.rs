//! A list of messages, as a channel holds it.
//!
//! Invariants:
//! - Cloning, adding and replacing cost the same however long the list is: its parts are shared with
//!   the lists that it came from.
//! - No two messages of a list have the same id.
//! - The JSON of a message is made when an expression first reads it, once for all lists that share
//!   it.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::id::MessageId;
use crate::message::Message;

/// A list of messages.
#[derive(Clone, Debug, Default)]
pub struct MessageList {
    items: imbl::Vector<Arc<Item>>,
    places: Places,
    weight: usize,
}

type Places = imbl::GenericHashMap<
    MessageId,
    usize,
    foldhash::fast::RandomState,
    imbl::shared_ptr::DefaultSharedPtr,
>;

#[derive(Debug)]
struct Item {
    message: Arc<Message>,
    weight: usize,
    json: OnceLock<Value>,
}

impl MessageList {
    /// The messages that a JSON list, or one JSON message, holds; of several with one id the last
    /// stands, in the place of the first.
    ///
    /// # Errors
    /// The first item that is no message, and why.
    pub fn parse(value: &Value) -> Result<Self, (Value, String)> {
        use serde::Deserialize as _;
        let items = match value {
            Value::Array(items) => items.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut list = Self::default();
        for item in items {
            match Message::deserialize(item) {
                Ok(message) => list.push(Arc::new(message)),
                Err(error) => return Err((item.clone(), error.to_string())),
            }
        }
        Ok(list)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All, in order.
    #[must_use]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Message>> {
        self.items.iter().map(|item| &item.message)
    }

    /// The message at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&Arc<Message>> {
        self.items.get(place).map(|item| &item.message)
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<&Arc<Message>> {
        self.items.last().map(|item| &item.message)
    }

    /// The message of that id.
    #[must_use]
    pub fn of(&self, id: &MessageId) -> Option<&Arc<Message>> {
        self.get(*self.places.get(id)?)
    }

    /// The message at a place as JSON.
    #[must_use]
    pub fn json(&self, place: usize) -> Option<&Value> {
        let item = self.items.get(place)?;
        let make = || serde_json::to_value(&*item.message).unwrap_or(Value::Null);
        Some(item.json.get_or_init(make))
    }

    /// The whole list as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let one = |item: &Arc<Item>| match item.json.get() {
            Some(json) => json.clone(),
            None => serde_json::to_value(&*item.message).unwrap_or(Value::Null),
        };
        self.items.iter().map(one).collect()
    }

    /// Adds a message to the end, or puts it in the place of the one with its id.
    pub fn push(&mut self, message: Arc<Message>) {
        let weight = message.weight();
        self.weight += weight;
        let id = message.id.clone();
        let item = Arc::new(Item { message, weight, json: OnceLock::new() });
        if let Some(&place) = self.places.get(&id) {
            let old = self.items.set(place, item);
            self.weight -= old.weight;
        } else {
            self.places.insert(id, self.items.len());
            self.items.push_back(item);
        }
    }

    /// What it takes in memory as a value of a channel, about, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        size_of::<Value>() + self.weight
    }

    /// The list without some of its messages.
    #[must_use]
    pub fn without<'i>(&self, ids: impl IntoIterator<Item = &'i MessageId>) -> Self {
        let gone: std::collections::BTreeSet<&MessageId> =
            ids.into_iter().filter(|id| self.places.contains_key(*id)).collect();
        if gone.is_empty() {
            return self.clone();
        }
        self.iter().filter(|message| !gone.contains(&message.id)).cloned().collect()
    }

    /// Whether two lists are the same one, which costs nothing to tell.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.items.ptr_eq(&other.items)
    }
}

impl PartialEq for MessageList {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || (self.len() == other.len() && self.iter().eq(other.iter()))
    }
}

impl FromIterator<Arc<Message>> for MessageList {
    fn from_iter<I: IntoIterator<Item = Arc<Message>>>(messages: I) -> Self {
        let mut list = Self::default();
        messages.into_iter().for_each(|message| list.push(message));
        list
    }
}

impl Extend<Arc<Message>> for MessageList {
    fn extend<I: IntoIterator<Item = Arc<Message>>>(&mut self, messages: I) {
        messages.into_iter().for_each(|message| self.push(message));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Role;

    fn message(id: u8, text: &str) -> Arc<Message> {
        Arc::new(Message::text(MessageId::from(format!("msg_{id}")), Role::User, text))
    }

    proptest! {
        /// A list is what a plain one would be, whatever lists it was made from, and so are they.
        #[test]
        fn a_list_is_what_was_added_to_it(
            pushes in prop::collection::vec((0..12_u8, "[a-z]{0,6}"), 0..40),
            gone in prop::collection::btree_set(0..12_u8, 0..6),
        ) {
            let (mut list, mut plain) = (MessageList::default(), Vec::<Arc<Message>>::new());
            let mut earlier = Vec::new();
            for (id, text) in pushes {
                earlier.push((list.clone(), plain.clone()));
                let message = message(id, &text);
                list.push(message.clone());
                match plain.iter_mut().find(|old| old.id == message.id) {
                    Some(old) => *old = message,
                    None => plain.push(message),
                }
            }
            earlier.push((list.clone(), plain.clone()));
            for (list, plain) in &earlier {
                prop_assert!(list.iter().eq(plain.iter()));
                let json = serde_json::to_value(plain).unwrap();
                prop_assert_eq!(list.weight(), crate::json::weigh(&json));
                prop_assert_eq!(list.to_json(), json);
                let places = (0..=plain.len()).map(|place| list.get(place));
                prop_assert!(places.eq((0..=plain.len()).map(|place| plain.get(place))));
            }
            let gone: Vec<MessageId> = gone.iter().map(|id| message(*id, "").id.clone()).collect();
            plain.retain(|message| !gone.contains(&message.id));
            prop_assert!(list.without(&gone).iter().eq(plain.iter()));
        }
    }
}
