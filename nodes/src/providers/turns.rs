//! A conversation as every protocol needs it: who said what in turn, each tool call with its
//! answer.
//!
//! Invariants, whoever wrote the earlier messages:
//! - Every tool call is followed by its answer, and no answer stands without its call.
//! - Ids and names of calls are such that the model's provider takes them, and no id stands twice.
//! - The same request gives the same turns, so that a provider's prefix cache hits.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use exile_engine::message::{Image, Message, Role, ToolCall};
use exile_engine::model::ModelRequest;
use exile_engine::tool::{ToolAnswer, ToolError, ToolErrorKind};
use serde_json::{Map, Value};

use super::profile::CallIds;

/// Longest id and longest name of a tool call that every provider takes.
const ID_LIMIT: usize = 40;
const NAME_LIMIT: usize = 64;

/// What is said instead of a picture to a model that sees none.
const UNSEEN: &str = "[There was a picture here, which this model cannot see.]";

/// A conversation in turns.
pub(crate) struct Turns<'m> {
    /// The system messages at the head.
    pub system: Vec<&'m str>,
    /// What follows.
    pub turns: Vec<Turn<'m>>,
}

/// Somebody's turn.
pub(crate) enum Turn<'m> {
    /// A user's, or a system message in mid-conversation.
    Said {
        /// `system` or `user`.
        role: Role,
        /// May be empty beside images.
        text: Cow<'m, str>,
        /// To be seen with the text.
        images: &'m [Image],
    },
    /// The model's, with the answers to what it called.
    Answered(Answered<'m>),
}

/// A model's turn.
pub(crate) struct Answered<'m> {
    /// As stored.
    pub message: &'m Message,
    /// It was written by a model of the provider that is asked now.
    pub same_provider: bool,
    /// It was written by the very model that is asked now.
    pub same_model: bool,
    /// What it called.
    pub calls: Vec<Called<'m>>,
}

/// A tool call and what came of it.
pub(crate) struct Called<'m> {
    /// As stored.
    pub call: &'m ToolCall,
    /// As sent.
    pub id: String,
    /// As sent.
    pub name: Cow<'m, str>,
    /// The tool's answer, or what stands for one that nobody gave.
    pub answer: Cow<'m, str>,
    /// What a person changed its arguments to.
    edited: Option<&'m Value>,
}

impl Called<'_> {
    /// The arguments as JSON text of an object: those that the call was made with, whoever wrote
    /// them. Of a call that is `signed` they are the model's own: its provider may have signed them,
    /// and what they were changed to stands in the answer. Servers that fill a chat template parse
    /// them and fail on anything else; what was wrong with them stands in the answer, too.
    pub(crate) fn arguments(&self, signed: bool) -> Cow<'_, str> {
        if let Some(edited) = self.edited.filter(|edited| !signed && edited.is_object()) {
            return Cow::Owned(edited.to_string());
        }
        let text = self.call.arguments.as_str();
        let object = serde_json::from_str::<Map<String, Value>>(text).is_ok();
        Cow::Borrowed(if object { text } else { "{}" })
    }
}

impl<'m> Turns<'m> {
    /// Those of a request to a model of `provider` that sees images or not.
    pub(crate) fn of(request: &'m ModelRequest, provider: &str, ids: CallIds, sees: bool) -> Self {
        let messages = &request.messages;
        let head = messages.iter().take_while(|m| m.role == Role::System).count();
        let system = messages[..head].iter().map(|m| m.content.as_str()).collect();
        let mut turns = Vec::new();
        let (mut used, mut taken) = (HashSet::new(), HashSet::new());
        for (at, message) in messages.iter().enumerate().skip(head) {
            match message.role {
                Role::System | Role::User => turns.push(said(message, sees)),
                Role::Assistant
                    if !message.content.is_empty() || !message.tool_calls.is_empty() =>
                {
                    let mut called = |(place, call): (usize, &'m ToolCall)| {
                        let (answer, edited) = answer(messages, at, &call.id, &mut used);
                        let id = sent_id(ids, &call.id, (at, place), &mut taken);
                        Called { call, id, name: sent_name(&call.name), answer, edited }
                    };
                    let calls = message.tool_calls.iter().enumerate().map(&mut called).collect();
                    let author = message.model.as_deref().unwrap_or_default();
                    let (by, model) = author.split_once('/').unwrap_or_default();
                    let same_provider = by == provider;
                    let same_model = same_provider && model == &*request.model;
                    turns.push(Turn::Answered(Answered {
                        message,
                        same_provider,
                        same_model,
                        calls,
                    }));
                }
                // An answer is sent right after its call; without one it is not sent at all.
                Role::Assistant | Role::Tool => {}
            }
        }
        Self { system, turns }
    }

    /// Whether the model spoke last.
    pub(crate) fn ends_with_answer(&self) -> bool {
        matches!(self.turns.last(), Some(Turn::Answered(last)) if last.calls.is_empty())
    }
}

fn said(message: &Message, sees: bool) -> Turn<'_> {
    let (role, images) = (message.role, message.images.as_slice());
    if sees || images.is_empty() {
        return Turn::Said { role, text: Cow::Borrowed(&message.content), images };
    }
    let parts = [UNSEEN].into_iter().chain([message.content.as_str()]).filter(|p| !p.is_empty());
    let text = parts.collect::<Vec<_>>().join("\n");
    Turn::Said { role, text: Cow::Owned(text), images: &[] }
}

/// The content of the first tool message after `from` that answers `id` and no earlier call, and
/// what a person changed the arguments of the call to: the model is told, else it would take the
/// answer for one to its own.
fn answer<'m>(
    messages: &'m [Arc<Message>],
    from: usize,
    id: &str,
    used: &mut HashSet<usize>,
) -> (Cow<'m, str>, Option<&'m Value>) {
    let answers = |m: &Message| m.role == Role::Tool && m.tool_call_id.as_deref() == Some(id);
    let mut later = messages.iter().enumerate().skip(from + 1);
    if let Some((at, message)) = later.find(|(at, m)| answers(m) && !used.contains(at)) {
        used.insert(at);
        let Some(edited) = &message.edited_arguments else {
            return (Cow::Borrowed(&message.content), None);
        };
        let told = format!("[A person changed the arguments of this call to {edited}]");
        return (Cow::Owned([&told, message.content.as_str()].join("\n")), Some(edited));
    }
    let error = ToolError::new(ToolErrorKind::NotRun, "this call was never made");
    (Cow::Owned(ToolAnswer::Failed(error).to_text()), None)
}

/// The call's id; one that the provider would refuse is replaced by its place.
fn sent_id(
    rule: CallIds,
    id: &str,
    (message, place): (usize, usize),
    taken: &mut HashSet<String>,
) -> String {
    let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
    let fits = match rule {
        CallIds::Words => (1..=ID_LIMIT).contains(&id.len()) && id.bytes().all(word),
        CallIds::Nine => id.len() == 9 && id.bytes().all(|c| c.is_ascii_alphanumeric()),
    };
    let id = match rule {
        _ if fits && !taken.contains(id) => id.to_owned(),
        CallIds::Words => format!("call_{message}_{place}"),
        CallIds::Nine => format!("c{:05}{:03}", message % 100_000, place % 1000),
    };
    taken.insert(id.clone());
    id
}

/// The call's name; a model may have made one up that providers refuse even to read.
fn sent_name(name: &str) -> Cow<'_, str> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if (1..=NAME_LIMIT).contains(&name.len()) && name.chars().all(word) {
        return Cow::Borrowed(name);
    }
    let safe: String =
        name.chars().take(NAME_LIMIT).map(|c| if word(c) { c } else { '_' }).collect();
    Cow::Owned(if safe.is_empty() { "unnamed".to_owned() } else { safe })
}

/// Why a request can be sent to nobody: names that are no words could forge a line of a header or
/// of a log.
pub(crate) fn unsendable(request: &ModelRequest) -> Option<String> {
    let good = |name: &str| !name.is_empty() && !name.chars().any(char::is_control);
    if !good(&request.model) {
        return Some("the model's name holds a control character".into());
    }
    let tool = |name: &str| sent_name(name) == name;
    let bad = request.tools.iter().map(|t| t.name.as_str()).find(|name| !tool(name))?;
    Some(format!("a tool cannot be named {bad:?}: up to {NAME_LIMIT} letters, digits, `_` and `-`"))
}
