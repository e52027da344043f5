//! Conversations that go from one provider to the next, each behind an upstream that refuses what
//! that provider refuses: nothing is ever refused, and what one gave returns to it alone.

use std::sync::Arc;

use exile_engine::id::MessageId;
use exile_engine::message::{Image, Message, Role};
use exile_engine::model::{Effort, ModelRequest, Provider, ToolChoice};
use exile_engine::tool::{Effect, ToolSpec};
use serde_json::{Value, json};

use crate::facts::{at, delta, end, stream, text};
use crate::rules;
use crate::upstream::{Answer, Rule, Upstream};

/// A provider, a model, its rules, and what it says when it calls two tools.
type Actor = (&'static str, &'static str, Rule, fn(usize) -> Answer);

/// Who takes part.
const CAST: [Actor; 8] = [
    ("deepseek", "deepseek-flash", rules::deepseek, deepseek),
    ("openai", "gpt-5.1", rules::openai, plain),
    ("gemini", "gemini-3-flash", rules::gemini, gemini),
    ("anthropic", "claude-sonnet-4-6", rules::anthropic, claude),
    ("anthropic", "claude-haiku-4-5", rules::anthropic, claude),
    ("mistral", "magistral-medium", rules::mistral, mistral),
    ("openrouter", "anthropic/claude-haiku-4.5", rules::openrouter, openrouter),
    ("groq", "openai/gpt-oss-20b", rules::groq, groq),
];

fn calls(turn: usize, signed: Option<&str>) -> Value {
    let call = |place: usize| {
        let id =
            format!("call|{turn}:{place}-with-an-id-that-is-longer-than-any-provider-takes-back");
        json!({ "index": place, "id": id, "type": "function",
            "function": { "name": "add", "arguments": "{\"x\":1}" } })
    };
    let mut calls = vec![call(0), call(1)];
    if let Some(signature) = signed {
        calls[0]["extra_content"] = json!({ "google": { "thought_signature": signature } });
    }
    json!(calls)
}

fn plain(turn: usize) -> Answer {
    Answer::events(&[delta(json!({ "tool_calls": calls(turn, None) })), end("tool_calls")])
}

fn deepseek(turn: usize) -> Answer {
    let thinking = json!({ "reasoning_content": "deep secret", "tool_calls": calls(turn, None) });
    Answer::events(&[delta(thinking), end("tool_calls")])
}

fn gemini(turn: usize) -> Answer {
    let signed = json!({ "tool_calls": calls(turn, Some("gemini-sig")) });
    Answer::events(&[delta(signed), end("tool_calls")])
}

fn mistral(turn: usize) -> Answer {
    let thinking = json!([{ "type": "thinking", "thinking": [{ "type": "text", "text": "hm" }] }]);
    let parts = json!({ "content": thinking, "tool_calls": calls(turn, None) });
    Answer::events(&[delta(parts), end("tool_calls")])
}

fn groq(turn: usize) -> Answer {
    let thinking = json!({ "reasoning": "quick secret", "tool_calls": calls(turn, None) });
    Answer::events(&[delta(thinking), end("tool_calls")])
}

fn openrouter(turn: usize) -> Answer {
    let piece = |key: &str, text: &str| {
        json!({ "reasoning_details": [{ "type": "reasoning.text", "index": 0,
            "format": "anthropic-claude-v1", key: text }] })
    };
    Answer::events(&[
        delta(piece("text", "let me ")),
        delta(piece("text", "see")),
        delta(piece("signature", "or-sig")),
        delta(json!({ "tool_calls": calls(turn, None) })),
        end("tool_calls"),
    ])
}

fn claude(turn: usize) -> Answer {
    let block = |index: usize, block: Value| json!({ "type": "content_block_start", "index": index, "content_block": block });
    let piece = |index: usize, delta: Value| json!({ "type": "content_block_delta", "index": index, "delta": delta });
    let call = |place: usize| json!({ "type": "tool_use", "id": format!("toolu_{turn}_{place}"), "name": "add", "input": {} });
    let json_delta = json!({ "type": "input_json_delta", "partial_json": "{\"x\":1}" });
    let events = [
        json!({ "type": "message_start", "message": { "usage": { "input_tokens": 1 } } }),
        block(0, json!({ "type": "thinking", "thinking": "", "signature": "" })),
        piece(0, json!({ "type": "thinking_delta", "thinking": "own secret" })),
        piece(0, json!({ "type": "signature_delta", "signature": "anthropic-sig" })),
        block(1, call(0)),
        piece(1, json_delta.clone()),
        block(2, call(1)),
        piece(2, json_delta),
        json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" } }),
        json!({ "type": "message_stop" }),
    ];
    Answer::events(&events)
}

/// What is asked differs from turn to turn: effort, forced tools, schemas, temperature.
fn ask(model: &str, messages: Vec<Message>, turn: usize) -> ModelRequest {
    let schema = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object", "additionalProperties": false,
        "$defs": { "Number": { "type": "number" } },
        "properties": { "x": { "$ref": "#/$defs/Number" }, "kind": { "const": "sum" } } });
    let efforts = [None, Some(Effort::High), Some(Effort::None), Some(Effort::Low)];
    let choices =
        [ToolChoice::Auto, ToolChoice::Required, ToolChoice::Auto, ToolChoice::Named("add".into())];
    let closed = json!({ "type": "object", "additionalProperties": false, "required": ["a"],
        "properties": { "a": { "type": "string" } } });
    let open = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
    let schemas = [None, Some(closed), Some(open), Some(json!({ "type": "array" })), None];
    ModelRequest {
        model: model.into(),
        messages: messages.into_iter().map(std::sync::Arc::new).collect(),
        tools: vec![ToolSpec::new("add", "adds", schema, Effect::Pure, "native")],
        tool_choice: choices[turn % 4].clone(),
        temperature: (!turn.is_multiple_of(3)).then_some(1.3),
        max_tokens: turn.is_multiple_of(2).then_some(4000),
        output_schema: schemas[turn % 5].clone(),
        reasoning: efforts[turn % 4],
        further: serde_json::Map::new(),
    }
}

/// One turn: a model calls two tools at once, both answer, and a user says something now and then.
async fn take_turn(
    provider: &Arc<dyn Provider>,
    model: &str,
    turn: usize,
    conversation: &mut Vec<Message>,
) {
    let request = ask(model, conversation.clone(), turn);
    let reply = stream(provider, &request).await.0.unwrap_or_else(|e| panic!("turn {turn}: {e}"));
    assert_eq!(reply.tool_calls.len(), 2, "turn {turn} of {model}");
    let message = Message {
        reasoning: reply.reasoning.clone(),
        tool_calls: reply.tool_calls.clone(),
        model: Some(format!("{}/{model}", provider.name())),
        opaque: reply.opaque.clone(),
        ..text(Role::Assistant, &reply.content)
    };
    conversation.push(message);
    for call in reply.tool_calls.iter().rev() {
        conversation.push(Message::tool(MessageId::from("t"), call, "3"));
    }
    match turn % 4 {
        1 => conversation.push(text(Role::User, "and now?")),
        2 => conversation.push(text(Role::Assistant, "a note")),
        3 => {
            let image = Image::parse("data:image/png;base64,iVBORw0KGgo=").unwrap();
            conversation.push(Message { images: vec![image], ..text(Role::User, "see") });
        }
        _ => {}
    }
}

/// Every provider after every other, in tool loops of parallel calls: 0 × 400.
#[tokio::test]
async fn no_switch_of_provider_is_ever_refused() {
    for step in [1, 3, 5, 7] {
        let mut up = Vec::new();
        for (_, _, rule, answer) in CAST {
            up.push(Upstream::strict(rule, (0..64).map(answer)).await);
        }
        let cast: Vec<_> =
            CAST.iter().zip(&up).map(|((name, model, ..), up)| (at(up, name), *model)).collect();
        let mut conversation =
            vec![text(Role::System, "Answer with JSON."), text(Role::User, "go")];
        for turn in 0..24 {
            // Twice the same, then on: a loop of its own, and a switch.
            let (provider, model) = &cast[(turn / 2 * step) % cast.len()];
            take_turn(provider, model, turn, &mut conversation).await;
        }
        for (up, (name, ..)) in up.iter().zip(CAST) {
            assert_eq!(up.refused(), [""; 0], "{name} at steps of {step}");
        }
    }
}

/// What one gave returns to it, and goes to nobody else.
#[tokio::test]
async fn what_one_model_gave_goes_to_no_other() {
    let secrets =
        ["deep secret", "gemini-sig", "own secret", "anthropic-sig", "or-sig", "quick secret"];
    let own = [(0, "deep secret"), (2, "gemini-sig"), (3, "anthropic-sig"), (6, "or-sig")];
    let mut up = Vec::new();
    for (_, _, rule, answer) in CAST {
        up.push(Upstream::strict(rule, (0..8).map(answer)).await);
    }
    let mut conversation = vec![text(Role::System, "Answer with JSON."), text(Role::User, "go")];
    for round in 0..2 {
        for (place, (name, model, ..)) in CAST.into_iter().enumerate() {
            take_turn(&at(&up[place], name), model, 4 * round, &mut conversation).await;
        }
    }
    for (place, upstream) in up.iter().enumerate() {
        let body = upstream.body().to_string();
        for secret in secrets {
            let mine = own.contains(&(place, secret));
            // Both models of Anthropic stand behind the same script.
            let shared =
                (3..=4).contains(&place) && ["own secret", "anthropic-sig"].contains(&secret);
            assert!(mine == body.contains(secret) || shared, "{secret} at {}", CAST[place].1);
        }
    }
}
