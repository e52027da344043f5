//! What a task may write, and the two forms of its writes: with whole messages, as a node makes
//! them, and with ids alone, as a record holds them.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::graph::Graph;
use crate::id::{MessageId, RunId};
use crate::json;
use crate::limits::Limits;
use crate::message::Message;
use crate::node::NodeError;
use crate::state::{
    self, ChannelValue, Channels, Delta, MessageList, MessageMap, Op, Reducer, State, Writes,
};

/// Completes and checks what a task writes: messages get ids, and no value nests too deep to be
/// stored. `path`: the task's, from which the ids follow.
///
/// # Errors
/// A value that may not be written.
pub(super) fn admit(
    mut writes: Writes,
    channels: &Channels,
    (run, path): (&RunId, &str),
    limits: &Limits,
) -> Result<Writes, NodeError> {
    for (name, value) in writes.iter_mut() {
        let ChannelValue::Json(json) = value else { continue };
        if !json::is_within(json, limits.json.depth) {
            return Err(NodeError::Write(format!(
                "channel `{name}` takes values of at most {depth} levels (`limits.nesting`), and \
                 this one nests deeper",
                depth = limits.json.depth
            )));
        }
        if channels.get(name).is_some_and(|c| c.reduce == Reducer::Messages) {
            name_messages(Arc::make_mut(json), &format!("{run}/{path}/{name}"));
            // What is no message is refused where writes merge.
            if let Ok(list) = MessageList::parse(json) {
                *value = list.into();
            }
        }
    }
    Ok(writes)
}

/// Why the state may not become what `delta` and the messages in it make of it; `limit` in bytes.
pub(super) fn too_heavy(
    limit: usize,
    state: &State,
    delta: &Delta,
    messages: &[Arc<Message>],
) -> Option<String> {
    let said = messages.iter().map(|message| message.weight()).sum::<usize>();
    beyond(limit, state.weight_after(delta) + said, delta)
}

/// Why a state may not take `weight` bytes; `delta` is what makes it so.
pub(super) fn beyond(limit: usize, weight: usize, delta: &Delta) -> Option<String> {
    let heaviest = || State::heaviest(delta).map_or_else(String::new, |name| format!(" `{name}`"));
    (weight > limit).then(|| {
        format!(
            "the state would take {weight} bytes, more than `limits.state: {}`; the largest write \
             is to{}",
            crate::size::Size(limit),
            heaviest(),
        )
    })
}

/// Gives messages without an id one that follows from `place` and from where they stand, so that
/// the same writes made again have the same ids.
pub fn name_messages(value: &mut Value, place: &str) {
    let name = |(n, message): (usize, &mut Value)| {
        let Some(fields) = message.as_object_mut().filter(|fields| !fields.contains_key("id"))
        else {
            return;
        };
        let digest = crate::hex(&Sha256::digest(format!("{place}[{n}]").as_bytes()));
        fields.insert("id".into(), format!("{}_{}", MessageId::PREFIX, &digest[..32]).into());
    };
    match value {
        Value::Array(items) => items.iter_mut().enumerate().for_each(name),
        one => name((0, one)),
    }
}

/// Writes as a record holds them: messages by id.
#[must_use]
pub(super) fn dehydrate(graph: &Graph, writes: &Writes) -> Map<String, Value> {
    let id = |message: &Value| message.get("id").cloned().unwrap_or(Value::Null);
    let short = |(name, value): (&Arc<str>, &ChannelValue)| {
        let value = match (holds_messages(graph, name), value) {
            (true, ChannelValue::Messages(list)) => {
                list.iter().map(|message| Value::from(message.id.as_str())).collect()
            }
            (true, ChannelValue::Json(value)) => match &**value {
                Value::Array(items) => items.iter().map(id).collect(),
                message => json!([id(message)]),
            },
            (false, value) => value.to_json().into_owned(),
        };
        (name.to_string(), value)
    };
    writes.iter().map(short).collect()
}

/// Writes as a task made them, from those that a record holds.
pub(super) fn hydrate(
    graph: &Graph,
    writes: &Map<String, Value>,
    messages: &MessageMap,
) -> Result<Writes, String> {
    let mut full = Writes::new();
    for (name, value) in writes {
        let value = if holds_messages(graph, name) {
            let mut slot = MessageList::default().into();
            let ids = value.as_array().into_iter().flatten().filter_map(Value::as_str);
            let op = Op::Messages(ids.map(Into::into).collect());
            state::apply(&mut slot, &op, messages).map_err(|e| e.to_string())?;
            slot
        } else {
            value.clone().into()
        };
        full.insert(name.as_str().into(), value);
    }
    Ok(full)
}

/// Whether a channel of the graph is a list of messages.
#[must_use]
pub fn holds_messages(graph: &Graph, channel: &str) -> bool {
    graph.channels.get(channel).is_some_and(|c| c.reduce == Reducer::Messages)
}

/// Every message that writes hold for a graph's lists of messages.
pub(super) fn messages_in(graph: &Graph, writes: &Writes) -> Vec<Arc<Message>> {
    let of_messages = writes.iter().filter(|(name, _)| holds_messages(graph, name));
    of_messages.flat_map(|(_, value)| parse_messages(value)).collect()
}

/// Every message in the value of a channel.
pub(super) fn parse_messages(value: &ChannelValue) -> Vec<Arc<Message>> {
    use serde::Deserialize as _;
    let parse = |value: &Value| Message::deserialize(value).ok().map(Arc::new);
    match value {
        ChannelValue::Messages(list) => list.iter().cloned().collect(),
        ChannelValue::Json(value) => match &**value {
            Value::Array(items) => items.iter().filter_map(parse).collect(),
            one => parse(one).into_iter().collect(),
        },
    }
}
