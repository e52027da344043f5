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

/// DeepSeek: wire facts 14, 16 and 17.
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
    if let Err(why) = pairs(body) {
        return Some(refuse(&why));
    }
    if thinking && silent {
        return Some(refuse(
            "The `reasoning_content` in the thinking mode must be passed back to the API.",
        ));
    }
    let refused = thinking && forced;
    refused.then(|| refuse("Thinking mode does not support this tool_choice"))
}

/// OpenAI's reasoning models: wire fact 10.
pub(crate) fn openai(seen: &Seen) -> Option<Answer> {
    let body = &seen.body;
    let model = body["model"].as_str().unwrap_or_default();
    let reasoning = model.starts_with('o') || model.starts_with("gpt-5");
    if let Err(why) = pairs(body) {
        return Some(refuse(&why));
    }
    let banned = ["max_tokens", "temperature", "top_p", "logprobs"];
    let used = banned.into_iter().find(|p| reasoning && body.get(p).is_some())?;
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
    let why = if let Err(why) = pairs(&seen.body) {
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
