//! Where real providers answer 400, as rules for an [`Upstream`](crate::upstream::Upstream).

use serde_json::{Value, json};

use crate::upstream::{Answer, Seen};

/// What every provider of the protocol refuses: answers without calls, calls without answers.
pub(crate) fn pairs(body: &Value) -> Result<(), String> {
    let mut open: Vec<String> = Vec::new();
    for (i, message) in list(&body["messages"]).enumerate() {
        if message["role"] == "tool" {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            let Some(at) = open.iter().position(|o| o == id) else {
                return Err(format!("messages[{i}]: role 'tool' must follow its 'tool_calls'"));
            };
            open.remove(at);
            continue;
        }
        if !open.is_empty() {
            return Err(format!("messages[{i}]: tool calls {open:?} have no answer"));
        }
        let calls = list(&message["tool_calls"]);
        open = calls.filter_map(|c| c["id"].as_str().map(str::to_owned)).collect();
    }
    if open.is_empty() { Ok(()) } else { Err(format!("tool calls {open:?} have no answer")) }
}

/// DeepSeek's models in November 2026 and the alias that it still takes (wire fact 14).
const DEEPSEEK: [&str; 3] = ["deepseek-flash", "deepseek-v4-pro", "deepseek-v4-flash"];

/// What the schema of a tool may not hold.
fn tools(body: &Value, refused: &[&str]) -> Result<(), String> {
    for tool in list(&body["tools"]) {
        let function = if tool["function"].is_object() { &tool["function"] } else { tool };
        let name = function["name"].as_str().unwrap_or_default();
        word(name, 64)?;
        let schema = &function["parameters"];
        let schema = if schema.is_null() { &function["input_schema"] } else { schema };
        if schema["type"] != "object" {
            return Err(format!("tool {name}: the root of its schema is no object"));
        }
        let text = schema.to_string();
        if let Some(bad) = refused.iter().find(|word| text.contains(&format!("\"{word}\""))) {
            return Err(format!("tool {name}: unknown keyword {bad}"));
        }
    }
    Ok(())
}

fn word(text: &str, longest: usize) -> Result<(), String> {
    let letter = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let good = (1..=longest).contains(&text.len()) && text.chars().all(letter);
    if good { Ok(()) } else { Err(format!("{text:?} does not match ^[a-zA-Z0-9_-]+$")) }
}

/// Only these fields may stand in a body, and only those in its messages.
fn fields(body: &Value, top: &[&str], message: &[&str]) -> Result<(), String> {
    let extra = |value: &Value, known: &[&str]| {
        let mut keys = value.as_object().into_iter().flatten().map(|(key, _)| key.clone());
        keys.find(|key| !known.contains(&key.as_str()))
    };
    if let Some(key) = extra(body, top) {
        return Err(format!("{key}: Extra inputs are not permitted"));
    }
    match list(&body["messages"]).find_map(|m| extra(m, message)) {
        Some(key) => Err(format!("messages: {key}: Extra inputs are not permitted")),
        None => Ok(()),
    }
}

const CHAT: &[&str] = &[
    "model",
    "messages",
    "tools",
    "tool_choice",
    "temperature",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "stream",
    "stream_options",
    "reasoning_effort",
];
const MESSAGE: &[&str] = &["role", "content", "tool_calls", "tool_call_id"];

/// A schema that is said to be enforced must be closed (wire fact 12).
fn strict(body: &Value) -> Result<(), String> {
    fn closed(schema: &Value) -> bool {
        let object = match schema["properties"].as_object() {
            Some(all) => {
                let required = list(&schema["required"]).filter_map(Value::as_str);
                schema["additionalProperties"] == false && required.count() == all.len()
            }
            None => schema["type"] != "object",
        };
        let inner = schema["properties"].as_object().into_iter().flatten().map(|(_, v)| v);
        object && inner.chain(schema.get("items")).all(closed)
    }
    let format = &body["response_format"]["json_schema"];
    let format = if format.is_null() { &body["output_config"]["format"] } else { format };
    if format.is_null() {
        return Ok(());
    }
    if format["schema"]["type"] != "object" {
        return Err("Invalid schema for response_format: schema must be of type object".into());
    }
    let enforced = format["strict"] == true || body["output_config"].is_object();
    if enforced && !closed(&format["schema"]) {
        return Err("Invalid schema for response_format: additionalProperties must be false".into());
    }
    Ok(())
}

/// DeepSeek: wire facts 14, 16, 17 and 19.
pub(crate) fn deepseek(seen: &Seen) -> Option<Answer> {
    let body = &seen.body;
    let thinking = body["thinking"]["type"] != "disabled";
    let turns = list(&body["messages"]).filter(|m| m["role"] == "assistant");
    let silent =
        turns.filter(|m| m["tool_calls"].is_array()).any(|m| !m["reasoning_content"].is_string());
    let choice = &body["tool_choice"];
    let forced = choice.is_object() || choice == "required";
    if !DEEPSEEK.iter().any(|known| body["model"] == *known) {
        return Some(refuse("Model Not Exist"));
    }
    if let Err(why) = pairs(body).and_then(|()| tools(body, &["$schema"])) {
        return Some(refuse(&why));
    }
    if body["model"] == "deepseek-v4-pro" && body["messages"].to_string().contains("image_url") {
        return Some(refuse("unknown variant `image_url`, expected `text`"));
    }
    let format = &body["response_format"]["type"];
    let told = body["messages"].to_string().to_lowercase().contains("json");
    if format == "json_schema" || (format == "json_object" && !told) {
        return Some(refuse("Prompt must contain the word 'json' to use 'response_format'"));
    }
    if thinking && silent {
        return Some(refuse(
            "The `reasoning_content` in the thinking mode must be passed back to the API.",
        ));
    }
    let refused = thinking && forced;
    refused.then(|| refuse("Thinking mode does not support this tool_choice"))
}

/// OpenAI: wire facts 10 and 12, its own fields alone, ids of at most 40 letters.
pub(crate) fn openai(seen: &Seen) -> Option<Answer> {
    let body = &seen.body;
    let model = body["model"].as_str().unwrap_or_default();
    let reasoning = model.starts_with('o') || model.starts_with("gpt-5");
    let ids = || {
        let calls = list(&body["messages"]).flat_map(|m| list(&m["tool_calls"]));
        calls.into_iter().try_for_each(|call| {
            word(call["id"].as_str().unwrap_or_default(), 40)?;
            word(call["function"]["name"].as_str().unwrap_or_default(), 64)
        })
    };
    let checks = [pairs(body), fields(body, CHAT, MESSAGE), strict(body), tools(body, &[]), ids()];
    if let Some(why) = checks.into_iter().find_map(Result::err) {
        return Some(refuse(&why));
    }
    let switched_off = model.starts_with("gpt-5.1") && body["reasoning_effort"] == "none";
    let banned = ["max_tokens", "temperature", "top_p", "logprobs"];
    let used = banned
        .into_iter()
        .find(|p| reasoning && body.get(p).is_some() && !(switched_off && *p == "temperature"))
        .or((!reasoning && body.get("reasoning_effort").is_some()).then_some("reasoning_effort"))?;
    let message = format!("Unsupported parameter: '{used}' is not supported with this model.");
    let error = json!({ "error": { "message": message, "param": used,
        "type": "invalid_request_error", "code": "unsupported_parameter" } });
    Some(Answer::new(400).header("content-type", "application/json").then(&error.to_string()))
}

/// Gemini: wire fact 21. A signature is good if this provider's mock made it, or if it is the
/// documented stand-in. Errors are arrays (wire fact 22).
pub(crate) fn gemini(seen: &Seen) -> Option<Answer> {
    let signature = |call: &Value| {
        let signature = &call["extra_content"]["google"]["thought_signature"];
        signature.as_str().map(str::to_owned)
    };
    let bad = |s: &str| s != "skip_thought_signature_validator" && !s.starts_with("gemini-sig");
    let turns = || list(&seen.body["messages"]).filter(|m| m["tool_calls"].is_array());
    let missing = turns().any(|m| signature(&m["tool_calls"][0]).is_none());
    let corrupt = turns()
        .flat_map(|m| list(&m["tool_calls"]).collect::<Vec<_>>())
        .filter_map(signature)
        .any(|s| bad(&s));
    let subset = ["$ref", "$defs", "$schema", "const", "oneOf", "additionalProperties"];
    let why = if let Err(why) = pairs(&seen.body).and_then(|()| tools(&seen.body, &subset)) {
        why
    } else if missing {
        "Function call is missing a thought_signature in functionCall parts.".into()
    } else if corrupt {
        "Invalid or corrupted thought signature.".into()
    } else {
        return None;
    };
    let error = json!([{ "error": { "code": 400, "message": why, "status": "INVALID_ARGUMENT" } }]);
    Some(Answer::new(400).header("content-type", "application/json").then(&error.to_string()))
}

/// Mistral: its own fields alone, ids of nine letters, no last word of its own.
pub(crate) fn mistral(seen: &Seen) -> Option<Answer> {
    let body = &seen.body;
    let known: Vec<&str> = CHAT.iter().copied().filter(|f| *f != "stream_options").collect();
    let nine = |call: &Value| {
        let id = call["id"].as_str().unwrap_or_default();
        let good = id.len() == 9 && id.chars().all(|c| c.is_ascii_alphanumeric());
        if good { Ok(()) } else { Err(format!("Tool call id was {id} but must be of length 9")) }
    };
    let calls = list(&body["messages"]).flat_map(|m| list(&m["tool_calls"]).collect::<Vec<_>>());
    let last = list(&body["messages"]).last().is_some_and(|m| m["role"] == "assistant");
    let checks = [
        pairs(body),
        fields(body, &known, MESSAGE),
        calls.into_iter().try_for_each(nine),
        if last { Err("Expected last role User or Tool".into()) } else { Ok(()) },
    ];
    let why = checks.into_iter().find_map(Result::err)?;
    let detail = json!({ "object": "error", "message": why, "type": "invalid_request" });
    Some(Answer::new(422).header("content-type", "application/json").then(&detail.to_string()))
}

/// Groq: no schema on a stream, no reasoning from elsewhere.
pub(crate) fn groq(seen: &Seen) -> Option<Answer> {
    let body = &seen.body;
    let streamed = body["stream"] == true && !body["response_format"].is_null();
    let checks = [
        pairs(body),
        fields(body, CHAT, MESSAGE),
        if streamed { Err("response_format does not support streaming".into()) } else { Ok(()) },
    ];
    checks.into_iter().find_map(Result::err).map(|why| refuse(&why))
}

/// OpenRouter's Claude: reasoning with a signature returns as it came.
pub(crate) fn openrouter(seen: &Seen) -> Option<Answer> {
    let body = &seen.body;
    let top: Vec<&str> = CHAT.iter().copied().chain(["reasoning"]).collect();
    let message: Vec<&str> = MESSAGE.iter().copied().chain(["reasoning_details"]).collect();
    let own = json!([{ "type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1",
        "text": "let me see", "signature": "or-sig" }]);
    let details = list(&body["messages"]).map(|m| &m["reasoning_details"]);
    let changed = details.filter(|d| !d.is_null()).any(|d| *d != own);
    let checks = [
        pairs(body),
        fields(body, &top, &message),
        if changed { Err("Invalid signature in thinking block".into()) } else { Ok(()) },
    ];
    checks.into_iter().find_map(Result::err).map(|why| refuse(&why))
}

/// Anthropic: wire fact 25, and what its Messages demand of every conversation.
pub(crate) fn anthropic(seen: &Seen) -> Option<Answer> {
    let keyed = seen.header("x-api-key").is_some() && seen.header("anthropic-version").is_some();
    let checks = [
        if keyed { Ok(()) } else { Err("x-api-key and anthropic-version are required".into()) },
        blocks(&seen.body),
        thinking(&seen.body),
        strict(&seen.body),
        tools(&seen.body, &["$schema"]),
    ];
    let why = checks.into_iter().find_map(Result::err)?;
    let error = json!({ "type": "error",
        "error": { "type": "invalid_request_error", "message": why } });
    Some(Answer::new(400).header("content-type", "application/json").then(&error.to_string()))
}

/// Turns alternate, a user begins and ends, every call has its result right behind it.
fn blocks(body: &Value) -> Result<(), String> {
    const TOP: &[&str] = &[
        "model",
        "max_tokens",
        "system",
        "messages",
        "tools",
        "tool_choice",
        "temperature",
        "thinking",
        "output_config",
        "stream",
    ];
    fields(body, TOP, &["role", "content"])?;
    if !body["max_tokens"].is_u64() {
        return Err("max_tokens: Field required".into());
    }
    let (mut open, mut ids) = (Vec::<String>::new(), Vec::<String>::new());
    let mut role = "assistant";
    for (i, message) in list(&body["messages"]).enumerate() {
        let place = format!("messages.{i}");
        if message["role"] == role {
            return Err(format!("{place}: roles must alternate"));
        }
        role = message["role"].as_str().unwrap_or_default();
        let (mut new, mut results) = (Vec::new(), true);
        for block in list(&message["content"]) {
            let text = |key: &str| block[key].as_str().unwrap_or_default().to_owned();
            match block["type"].as_str().unwrap_or_default() {
                "text" if text("text").trim().is_empty() => {
                    return Err(format!("{place}: text content blocks must be non-empty"));
                }
                "thinking" if !text("signature").starts_with("anthropic-sig") => {
                    return Err(format!(
                        "{place}.content.0: Invalid `signature` in `thinking` block"
                    ));
                }
                "tool_use" => {
                    word(&text("id"), 64)?;
                    word(&text("name"), 128)?;
                    if ids.contains(&text("id")) || !block["input"].is_object() {
                        return Err(format!("{place}: `tool_use` ids must be unique"));
                    }
                    ids.push(text("id"));
                    new.push(text("id"));
                }
                "tool_result" => {
                    let at = open.iter().position(|id| *id == text("tool_use_id"));
                    let Some(at) = at.filter(|_| results) else {
                        return Err(format!("{place}: unexpected `tool_use_id` in `tool_result`"));
                    };
                    open.remove(at);
                }
                _ => {}
            }
            results &= block["type"] == "tool_result";
        }
        if !open.is_empty() {
            return Err(format!("{place}: `tool_use` ids {open:?} without `tool_result` blocks"));
        }
        open = new;
    }
    match role {
        "user" if open.is_empty() => Ok(()),
        _ => Err("messages: the last one must be a user's".into()),
    }
}

fn thinking(body: &Value) -> Result<(), String> {
    let hot = body["temperature"].as_f64().is_some_and(|t| t > 1.0);
    if hot {
        return Err("temperature: range: 0..1".into());
    }
    let kind = body["thinking"]["type"].as_str();
    if !matches!(kind, Some("enabled" | "adaptive")) {
        return Ok(());
    }
    if matches!(body["tool_choice"]["type"].as_str(), Some("any" | "tool")) {
        return Err("Thinking may not be enabled when tool_choice forces tool use.".into());
    }
    if body.get("temperature").is_some() {
        return Err("`temperature` may only be set to 1 when thinking is enabled".into());
    }
    if kind == Some("adaptive") {
        return Ok(());
    }
    let budget = body["thinking"]["budget_tokens"].as_u64().unwrap_or(0);
    if budget < 1024 || budget >= body["max_tokens"].as_u64().unwrap_or(0) {
        return Err("thinking.budget_tokens: at least 1024 and less than max_tokens".into());
    }
    // Inside of a tool loop the turn must have begun with thinking.
    let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let [.., turn, last] = messages else { return Ok(()) };
    let in_loop = last["content"][0]["type"] == "tool_result";
    if in_loop && turn["content"][0]["type"] != "thinking" {
        return Err("Expected `thinking` or `redacted_thinking`, but found `tool_use`.".into());
    }
    Ok(())
}

fn refuse(why: &str) -> Answer {
    let error = json!({ "error": { "message": why, "type": "invalid_request_error",
        "param": null, "code": "invalid_request_error" } });
    // DeepSeek labels some of its errors so (wire fact 18).
    let answer = Answer::new(400).header("content-type", "application/octet-stream");
    answer.then(&error.to_string())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
