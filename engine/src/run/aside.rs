//! Messages that a provider refused: they stay in the conversation, and later runs do without them.
//!
//! A provider that refuses a request for what it says refuses it again whenever it is sent. So a run
//! that ends in such a refusal names in its last record the messages that it brought
//! ([`Ended::set_aside`](crate::run::record::Ended::set_aside)), and the next run of the log begins
//! without them: whatever reads the conversation there, a model, a template or a graph inside, never
//! meets them again.
//!
//! Invariants:
//! - A run's messages are set aside together, so that no tool call is parted from its result.
//! - The run that was refused keeps its own state, and so does a fork from before its end: only what
//!   follows that end does without.
//! - A message that is written again later counts again: somebody may have changed it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::id::MessageId;
use crate::message::Message;
use crate::model::Finish;
use crate::run::fold::LogState;
use crate::run::record::{Called, Reply};
use crate::run::task::{Failure, Task};
use crate::run::writes::holds_messages;
use crate::state::{ChannelValue, Delta, MessageMap, Op};

/// What a call says of the conversation that it was sent: `Some(true)` if it was refused,
/// `Some(false)` if it was answered. `None`: the call is none that speaks in the conversation, or it
/// failed for a reason that passes.
pub(super) fn verdict(called: &Called, messages: &MessageMap) -> Option<bool> {
    match &called.reply {
        _ if !called.shown => None,
        Reply::ModelFailed { error, .. } => error.refuses_conversation().then_some(true),
        Reply::Message { id, .. } => {
            let finish = called.model.as_ref()?.finish;
            let silent = |id| messages.get(id).is_some_and(|m| m.content.is_empty());
            // A filter that lets nothing through says as little the next time.
            Some(finish == Finish::Filtered && silent(id))
        }
        Reply::Value(_) | Reply::ToolFailed(_) | Reply::Asked { .. } => None,
    }
}

/// What later runs do without, if the run that goes on ends now: the messages that it brought to its
/// log, those of its closing writes included, if they were refused.
pub(super) fn refused(log: &LogState, closing: &Delta) -> Vec<MessageId> {
    let Some(run) = &log.run else { return Vec::new() };
    let Some(root) = &run.root else { return Vec::new() };
    let refuses = |failure: &Arc<Failure>| failure.error.refuses_conversation();
    if !run.refused && !root.tasks.failed().filter_map(Task::failure).any(refuses) {
        return Vec::new();
    }
    let mut brought: BTreeSet<MessageId> = named(closing).cloned().collect();
    for channel in root.graph.channels.iter().filter(|c| holds_messages(&root.graph, &c.name)) {
        let now = root.state.messages(&channel.name);
        let before = log.left(&channel.name).and_then(ChannelValue::as_messages);
        let old = |message: &&Arc<Message>| before.and_then(|before| before.of(&message.id));
        let new = now.iter().filter(|message| old(message) != Some(*message));
        brought.extend(new.map(|message| message.id.clone()));
    }
    brought.into_iter().collect()
}

/// The messages that a change of channels names.
pub(super) fn named(delta: &Delta) -> impl Iterator<Item = &MessageId> {
    delta.values().flat_map(|op| match op {
        Op::Messages(ids) => ids.as_slice(),
        Op::Set(_) | Op::Append(_) | Op::Put(_) => &[],
    })
}
