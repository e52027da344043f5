//! Conversations as nodes see them. What a model is sent: everything, or the newest summary and
//! what followed.
//!
//! A summary is a message of role `system` that says which message is the last that it stands
//! for ([`Message::covers`]). It joins the end of the conversation like any other; only what is
//! sent to a model has it in the place of what it covers.

use std::collections::BTreeSet;
use std::sync::Arc;

use exile_engine::message::{Message, Role};
use exile_engine::state::{MessageList, State};

/// What every message costs besides its text, in tokens.
const PER_MESSAGE: usize = 4;

/// What a model is sent of these messages.
///
/// The newest summary comes first, then what it does not cover; older summaries are in it. One
/// whose last covered message is not there has been handed over without it: it covers nothing
/// that could be left out, and stands first all the same.
pub(super) fn sent(messages: &MessageList) -> Vec<Arc<Message>> {
    let Some(summary) = messages.iter().rev().find(|message| message.covers.is_some()) else {
        return messages.iter().cloned().collect();
    };
    let covered = messages.iter().position(|m| Some(&m.id) == summary.covers.as_ref());
    let rest = messages.iter().skip(covered.map_or(0, |place| place + 1));
    let rest = rest.filter(|message| message.covers.is_none());
    std::iter::once(summary).chain(rest).cloned().collect()
}

/// The same as a list, which is shared where nothing is left out.
pub(super) fn sent_list(messages: &MessageList) -> MessageList {
    if messages.iter().any(|message| message.covers.is_some()) {
        return sent(messages).into_iter().collect();
    }
    messages.clone()
}

/// The messages that a graph inside a node added to this channel of its own, or changed.
pub(super) fn added(before: &State, inner: &State, channel: &str) -> MessageList {
    let (old, all) = (before.messages(channel), inner.messages(channel));
    all.iter().filter(|message| old.of(&message.id) != Some(*message)).cloned().collect()
}

/// Tokens of these messages, estimated: four letters, digits and signs of ASCII are one, so is
/// every other character (Chinese, say), and each message costs four more. No tokenizer of a
/// provider is asked, so that the same history gives the same number everywhere.
pub(super) fn tokens(messages: &[Arc<Message>]) -> usize {
    let text = |text: &str| {
        let ascii = text.chars().filter(char::is_ascii).count();
        ascii.div_ceil(4) + text.chars().count() - ascii
    };
    let calls = |m: &Arc<Message>| -> usize {
        m.tool_calls.iter().map(|call| text(&call.name) + text(&call.arguments)).sum()
    };
    let edited =
        |m: &Arc<Message>| m.edited_arguments.as_ref().map_or(0, |args| text(&args.to_string()));
    messages.iter().map(|m| PER_MESSAGE + text(&m.content) + calls(m) + edited(m)).sum()
}

/// How many of the first messages can be left out so that at least `keep` stay and no tool call
/// is parted from its result.
pub(super) fn cut(messages: &[Arc<Message>], keep: usize) -> usize {
    let most = messages.len().saturating_sub(keep);
    let (mut open, mut cut) = (BTreeSet::new(), 0);
    for (i, message) in messages.iter().enumerate().take(most) {
        open.extend(message.tool_calls.iter().map(|call| call.id.as_str()));
        if let Some(answered) = &message.tool_call_id {
            open.remove(answered.as_str());
        }
        if open.is_empty() {
            cut = i + 1;
        }
    }
    cut
}

/// The messages as a text that a model can be asked about.
pub(super) fn transcript(messages: &[Arc<Message>]) -> String {
    let mut text = String::new();
    for message in messages {
        let speaker = match (message.role, &message.covers) {
            (Role::System, Some(_)) => "summary of what came before",
            (role, _) => role.as_str(),
        };
        let mut say = |what: &str| {
            for part in [speaker, ": ", what, "\n"] {
                text.push_str(part);
            }
        };
        if let Some(args) = &message.edited_arguments {
            say(&format!("[a person changed the arguments of this call to {args}]"));
        }
        if !message.content.is_empty() {
            say(&message.content);
        }
        for call in &message.tool_calls {
            say(&format!("[calls {} with {}]", call.name, call.arguments));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use exile_engine::id::MessageId;
    use exile_engine::message::ToolCall;

    use super::*;

    fn message(id: &str, role: Role) -> Message {
        Message::text(MessageId::from(id), role, id)
    }

    fn summary(id: &str, covers: &str) -> Message {
        Message { covers: Some(MessageId::from(covers)), ..message(id, Role::System) }
    }

    fn calls(id: &str, calls: &[&str]) -> Message {
        let call = |id: &&str| ToolCall {
            id: (*id).to_owned(),
            name: "t".into(),
            arguments: String::new(),
            opaque: None,
        };
        Message { tool_calls: calls.iter().map(call).collect(), ..message(id, Role::Assistant) }
    }

    fn result(id: &str, call: &str) -> Message {
        Message { tool_call_id: Some(call.to_owned()), ..message(id, Role::Tool) }
    }

    fn list(messages: &[Message]) -> MessageList {
        messages.iter().cloned().map(Arc::new).collect()
    }

    fn ids(messages: &[Arc<Message>]) -> Vec<&str> {
        messages.iter().map(|m| m.id.as_str()).collect()
    }

    #[test]
    fn the_newest_summary_stands_for_what_it_covers_and_for_older_ones() {
        let user = |id| message(id, Role::User);
        let all = vec![user("a"), user("b"), summary("s", "a"), user("c")];
        assert_eq!(ids(&sent(&list(&all))), ["s", "b", "c"]);
        let later = [all, vec![summary("t", "c"), user("d")]].concat();
        let view = sent(&list(&later));
        assert_eq!(ids(&view), ["t", "d"]);
        let again = sent(&sent_list(&list(&later)));
        assert_eq!(ids(&again), ["t", "d"], "what was handed over stays as it is");
        assert_eq!(ids(&sent(&list(&[user("a")]))), ["a"]);
    }

    #[test]
    fn a_cut_keeps_calls_with_their_results() {
        let messages = [
            message("u", Role::User),
            calls("a", &["1", "2"]),
            result("r1", "1"),
            result("r2", "2"),
            message("b", Role::Assistant),
            calls("c", &["3"]),
        ];
        let messages = sent(&list(&messages));
        let cuts: Vec<usize> = (0..=7).map(|keep| cut(&messages, keep)).collect();
        assert_eq!(cuts, [5, 5, 4, 1, 1, 1, 0, 0], "an open call is never left out");
    }

    #[test]
    fn ascii_costs_a_quarter_and_chinese_a_whole_token() {
        assert_eq!(tokens(&[Arc::new(message("abcdefgh", Role::User))]), 4 + 2);
        assert_eq!(tokens(&[Arc::new(message("退款五百元", Role::User))]), 4 + 5);
        assert_eq!(tokens(&[]), 0);
    }
}
