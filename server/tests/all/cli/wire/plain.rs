//! What a recording says, read as plainly as can be: no pieces, no breaches, nothing shared with
//! what is tested.

use std::collections::BTreeMap;

use exile_nodes::providers::profile::Protocol;
use serde_json::{Value, json};

use super::record::Record;

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    pub content: String,
    pub reasoning: String,
    /// Id, name and arguments of each call.
    pub calls: Vec<(String, String, Value)>,
    pub finish: String,
    /// Input, cached, output and reasoning tokens.
    pub usage: Option<[u64; 4]>,
}

/// What a recording of that protocol says, or the code of its error.
pub(super) fn read(protocol: Protocol, record: &Record) -> Result<Said, &'static str> {
    if record.status != 200 {
        return Err(class(record));
    }
    let chunks = match serde_json::from_str::<Value>(record.body.trim()) {
        Ok(whole) => vec![whole],
        Err(_) => record
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .filter_map(|data| serde_json::from_str(data).ok())
            .collect(),
    };
    Ok(match protocol {
        Protocol::Chat => chat(&chunks),
        Protocol::Anthropic => anthropic(&chunks),
    })
}

/// The class of a refusal, by what people read in it.
fn class(record: &Record) -> &'static str {
    let words = record.body.to_lowercase();
    match record.status {
        401 | 403 => "provider_unauthorized",
        400 if words.contains("api key") => "provider_unauthorized",
        402 => "provider_no_balance",
        429 if words.contains("quota") || words.contains("balance") => "provider_no_balance",
        429 => "provider_rate_limited",
        400 | 404 if words.contains("model") && words.contains("exist") => "provider_model_unknown",
        404 if words.contains("model") => "provider_model_unknown",
        400..500 if words.contains("context") => "context_too_long",
        400..500 => "provider_refused_request",
        _ => "provider_unavailable",
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Arguments as the object they stand for.
pub(super) fn arguments(text: &str) -> Value {
    match text.trim() {
        "" => json!({}),
        text => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
    }
}

fn chat(chunks: &[Value]) -> Said {
    let mut said = Said::default();
    let mut calls: BTreeMap<u64, (String, String, String)> = BTreeMap::new();
    let mut refused = false;
    for chunk in chunks {
        if let Some(input) = chunk["usage"]["prompt_tokens"].as_u64() {
            let (usage, number) = (&chunk["usage"], |v: &Value| v.as_u64().unwrap_or(0));
            let hit = number(&usage["prompt_cache_hit_tokens"]);
            let cached = number(&usage["prompt_tokens_details"]["cached_tokens"]).max(hit);
            let reasoning = number(&usage["completion_tokens_details"]["reasoning_tokens"]);
            said.usage = Some([input, cached, number(&usage["completion_tokens"]), reasoning]);
        }
        let Some(choice) = list(&chunk["choices"]).find(|c| c["index"].as_u64().unwrap_or(0) == 0)
        else {
            continue;
        };
        let part = if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
        let text = |key: &str| part[key].as_str().unwrap_or_default();
        let thought = text("reasoning_content");
        said.reasoning += if thought.is_empty() { text("reasoning") } else { thought };
        said.content += text("content");
        for item in list(&part["content"]) {
            said.content += item["text"].as_str().unwrap_or_default();
            let thoughts = list(&item["thinking"]).filter_map(|t| t["text"].as_str());
            said.reasoning.extend(thoughts);
        }
        said.content += text("refusal");
        refused |= !text("refusal").is_empty();
        for (place, call) in (0..).zip(list(&part["tool_calls"])) {
            let entry = calls.entry(call["index"].as_u64().unwrap_or(place)).or_default();
            let add =
                |to: &mut String, from: &Value| to.push_str(from.as_str().unwrap_or_default());
            add(&mut entry.0, &call["id"]);
            add(&mut entry.1, &call["function"]["name"]);
            add(&mut entry.2, &call["function"]["arguments"]);
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            reason.clone_into(&mut said.finish);
        }
    }
    said.finish = match said.finish.as_str() {
        _ if refused => "refused".to_owned(),
        "content_filter" => "filtered".to_owned(),
        _ => said.finish,
    };
    close(&mut said, calls.into_values());
    said
}

/// Adds the calls; of an answer that the token limit cut, those alone that are whole.
fn close(said: &mut Said, calls: impl Iterator<Item = (String, String, String)>) {
    let cut = said.finish == "length";
    let whole = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|v| v.is_object());
    let kept = calls.filter(|(_, _, text)| !cut || whole(text));
    said.calls = kept.map(|(id, name, text)| (id, name, arguments(&text))).collect();
}

fn anthropic(events: &[Value]) -> Said {
    let mut said = Said::default();
    let mut calls: BTreeMap<u64, (String, String, String)> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    let mut begin = |said: &mut Said, index: u64, block: &Value| {
        said.content += block["text"].as_str().unwrap_or_default();
        said.reasoning += block["thinking"].as_str().unwrap_or_default();
        if block["type"] == "tool_use" {
            let text = |key: &str| block[key].as_str().unwrap_or_default().to_owned();
            let whole = block["input"].as_object().filter(|input| !input.is_empty());
            let input = whole.map(|input| json!(input).to_string()).unwrap_or_default();
            calls.insert(index, (text("id"), text("name"), input));
        }
    };
    let mut pieces = Vec::new();
    for event in events {
        let head = if event["message"].is_object() { &event["message"] } else { event };
        for usage in [&head["usage"], &event["usage"]] {
            for (key, value) in usage.as_object().into_iter().flatten() {
                counts.insert(key.clone(), value.clone());
            }
        }
        for (index, block) in (0..).zip(list(&head["content"])) {
            begin(&mut said, index, block);
        }
        let index = event["index"].as_u64().unwrap_or(0);
        begin(&mut said, index, &event["content_block"]);
        let delta = &event["delta"];
        said.content += delta["text"].as_str().unwrap_or_default();
        said.reasoning += delta["thinking"].as_str().unwrap_or_default();
        if let Some(piece) = delta["partial_json"].as_str() {
            pieces.push((index, piece.to_owned()));
        }
        if let Some(reason) = delta["stop_reason"].as_str().or(head["stop_reason"].as_str()) {
            let finish = match reason {
                "tool_use" => "tool_calls",
                "max_tokens" => "length",
                "refusal" => "refused",
                _ => "stop",
            };
            finish.clone_into(&mut said.finish);
        }
    }
    for (index, piece) in pieces {
        if let Some(call) = calls.get_mut(&index) {
            call.2 += &piece;
        }
    }
    let number = |key: &str| counts.get(key).and_then(Value::as_u64).unwrap_or(0);
    let cached = number("cache_read_input_tokens");
    let input = number("input_tokens") + cached + number("cache_creation_input_tokens");
    let thought = counts.get("output_tokens_details").map(|d| d["thinking_tokens"].as_u64());
    let thought = thought.flatten().unwrap_or(0);
    said.usage = Some([input, cached, number("output_tokens"), thought]);
    close(&mut said, calls.into_values());
    said
}
