//! The conversation that a client sends, as exile's own messages.
//!
//! Invariants:
//! - Every tool call is answered by the messages right after it, and no answer stands without its
//!   call: what OpenAI refuses is refused before any model is asked.
//! - What a provider gave with an earlier answer (reasoning, signatures) returns to it verbatim.

use exile_engine::env::Env;
use exile_engine::id::MessageId;
use exile_engine::message::{Image, Message, Role, ToolCall};
use serde_json::{Map, Value};

use super::fields::{Fields, missing, refused, unsupported, unsupported_value, wrong_type};
use crate::http::problem::Problem;

/// Pictures in the body are shorter than this, in bytes of the picture.
const IMAGE_LIMIT: usize = 20_000_000;

/// Reads `messages`. `author`: `provider/model` that is taken to have written the model's turns.
pub(super) fn read(
    items: Vec<Value>,
    author: Option<&str>,
    env: &dyn Env,
) -> Result<Vec<Message>, Problem> {
    if items.is_empty() {
        let what = "Invalid 'messages': empty array. Expected an array with minimum length 1, but \
                    got an empty array instead.";
        return Err(refused("messages", "empty_array", what.to_owned()));
    }
    let mut messages = Vec::with_capacity(items.len());
    for (n, item) in items.into_iter().enumerate() {
        messages.push(message(item, &format!("messages[{n}]"), author, env)?);
    }
    in_turn(&messages)?;
    Ok(messages)
}

fn message(
    item: Value,
    place: &str,
    author: Option<&str>,
    env: &dyn Env,
) -> Result<Message, Problem> {
    let mut fields = Fields::of(item, place)?;
    let role = match fields.required("role")?.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        "function" => {
            return Err(unsupported_value(&fields.place("role"), "'function'", "write 'tool'"));
        }
        other => {
            let what = format!(
                "Invalid value: '{other}'. Supported values are: 'system', 'assistant', 'user', \
                 'developer', and 'tool'."
            );
            return Err(refused(&fields.place("role"), "invalid_value", what));
        }
    };
    let at = fields.place("content");
    let content = fields.take("content");
    let mut message = Message::text(MessageId::new(env), role, String::new());
    match content {
        Some(Value::String(text)) => message.content = text,
        Some(Value::Array(parts)) => {
            for (n, part) in parts.into_iter().enumerate() {
                self::part(part, &format!("{at}[{n}]"), &mut message)?;
            }
        }
        Some(other) => {
            return Err(wrong_type(&at, "one of a string or array of objects", &other));
        }
        None if role == Role::Assistant => {}
        None => return Err(missing(&at)),
    }
    match role {
        Role::Assistant => {
            spoken(fields, &mut message)?;
            message.model = author.map(str::to_owned);
            return Ok(message);
        }
        Role::Tool => message.tool_call_id = Some(fields.required("tool_call_id")?),
        Role::System | Role::User => {}
    }
    fields.refuse("name", "write the speaker's name into the content")?;
    fields.end()?;
    Ok(message)
}

/// What only a model's turn has.
fn spoken(mut fields: Fields, message: &mut Message) -> Result<(), Problem> {
    if let Some(refusal) = fields.text("refusal")?.filter(|_| message.content.is_empty()) {
        message.content = refusal;
    }
    message.reasoning = fields.text("reasoning_content")?;
    let calls = fields.place("tool_calls");
    for (n, call) in fields.list("tool_calls")?.unwrap_or_default().into_iter().enumerate() {
        message.tool_calls.push(self::call(call, &format!("{calls}[{n}]"))?);
    }
    fields.refuse("name", "write the speaker's name into the content")?;
    fields.refuse("audio", "exile has no audio")?;
    fields.refuse("function_call", "write `tool_calls`")?;
    let noted = fields.list("annotations")?.unwrap_or_default();
    if !noted.is_empty() {
        return Err(unsupported(&fields.place("annotations"), "leave them out"));
    }
    message.opaque = opaque(fields.rest());
    Ok(())
}

fn call(item: Value, place: &str) -> Result<ToolCall, Problem> {
    let mut fields = Fields::of(item, place)?;
    let id = fields.required("id")?;
    if let Some(kind) = fields.text("type")?.filter(|kind| kind != "function") {
        let kind = format!("'{kind}'");
        return Err(unsupported_value(&fields.place("type"), &kind, "write 'function'"));
    }
    let at = fields.place("function");
    let mut function = fields.object("function")?.ok_or_else(|| missing(&at))?;
    let (name, arguments) = (function.required("name")?, function.required("arguments")?);
    function.end()?;
    Ok(ToolCall { id, name, arguments, opaque: opaque(fields.rest()) })
}

/// Fields of the provider, to be given back to it.
fn opaque(rest: Map<String, Value>) -> Option<Value> {
    (!rest.is_empty()).then_some(Value::Object(rest))
}

/// Adds one part of a content.
fn part(part: Value, place: &str, message: &mut Message) -> Result<(), Problem> {
    let mut fields = Fields::of(part, place)?;
    match fields.required("type")?.as_str() {
        "text" => {
            let text = fields.required("text")?;
            if !message.content.is_empty() {
                message.content.push('\n');
            }
            message.content.push_str(&text);
        }
        "refusal" => message.content.push_str(&fields.required("refusal")?),
        "image_url" if message.role == Role::User => {
            let at = fields.place("image_url");
            let mut image = fields.object("image_url")?.ok_or_else(|| missing(&at))?;
            let url = image.required("url")?;
            let at = image.place("url");
            if let Some(detail) = image.text("detail")?.filter(|detail| detail != "auto") {
                let place = image.place("detail");
                return Err(unsupported_value(&place, &format!("'{detail}'"), "leave it out"));
            }
            image.end()?;
            message.images.push(picture(&url, &at)?);
        }
        other => {
            let place = fields.place("type");
            let why = "write a text, or in a user's message an image_url";
            return Err(unsupported_value(&place, &format!("'{other}'"), why));
        }
    }
    fields.end()
}

fn picture(url: &str, place: &str) -> Result<Image, Problem> {
    // Four characters of Base64 hold three bytes.
    if url.starts_with("data:") && url.len() / 4 * 3 >= IMAGE_LIMIT {
        let what = format!(
            "Invalid '{place}': the image is too large. Images must be smaller than 20 MB."
        );
        return Err(refused(place, "image_too_large", what));
    }
    Image::parse(url)
        .map_err(|why| refused(place, "invalid_image_url", format!("Invalid '{place}': {why}.")))
}

/// Calls and answers, as OpenAI demands them.
fn in_turn(messages: &[Message]) -> Result<(), Problem> {
    let invalid = |n: usize, what: String| {
        let (param, code) = (Some(format!("messages.[{n}].role")), None);
        Problem::Parameter { param, code, what }
    };
    let mut open: Vec<&str> = Vec::new();
    for (n, message) in messages.iter().enumerate() {
        if message.role == Role::Tool {
            let answers = message.tool_call_id.as_deref().unwrap_or_default();
            let Some(at) = open.iter().position(|id| *id == answers) else {
                let what = "Invalid parameter: messages with role 'tool' must be a response to a \
                            preceding message with 'tool_calls'.";
                return Err(invalid(n, what.to_owned()));
            };
            open.remove(at);
            continue;
        }
        if !open.is_empty() {
            return Err(invalid(n, unanswered(&open)));
        }
        open = message.tool_calls.iter().map(|call| call.id.as_str()).collect();
    }
    if open.is_empty() { Ok(()) } else { Err(invalid(messages.len(), unanswered(&open))) }
}

fn unanswered(open: &[&str]) -> String {
    format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to \
         each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
        open.join(", ")
    )
}
