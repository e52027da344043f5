//! Scripts and the echo, shown as deltas and replies.

use std::sync::Arc;

use exile_engine::id::MessageId;
use exile_engine::model::ToolChoice;
use exile_engine::tool::{Effect, ToolSpec};
use serde_json::{Value, json};

use super::*;
use exile_engine::message::Message;

fn message(role: Role, text: &str) -> Message {
    Message::text(MessageId::from("m"), role, text)
}

fn request(messages: Vec<Message>, tools: &[&str]) -> ModelRequest {
    let tool = |name: &&str| ToolSpec::new(*name, "", json!({}), Effect::Pure, "native");
    ModelRequest {
        model: Arc::from("any"),
        messages: messages.into_iter().map(std::sync::Arc::new).collect(),
        tools: tools.iter().map(tool).collect(),
        tool_choice: ToolChoice::Auto,
        temperature: None,
        max_tokens: None,
        output_schema: None,
        reasoning: None,
        further: serde_json::Map::new(),
    }
}

fn mock(script: Value) -> Mock {
    Mock::new(serde_json::from_value(script).unwrap())
}

async fn say(mock: &Mock, text: &str) -> ModelReply {
    mock.complete(&request(vec![message(Role::User, text)], &["calculator"])).await.unwrap()
}

#[tokio::test]
async fn the_first_rule_that_fits_answers() {
    let mock = mock(json!([
        { "match": "refund", "reply": "Asked: {{ last }}", "reasoning": "hm" },
        { "match": "*", "role": "tool", "reply": "got {{last}}" },
        { "match": "*", "tool_calls": [{ "name": "now", "arguments": { "zone": "UTC" } }] },
    ]));
    let first = say(&mock, "a refund").await;
    assert_eq!(first.content, "[mock] Asked: a refund");
    assert_eq!(first.reasoning.as_deref(), Some("hm"));
    let call = say(&mock, "else").await;
    assert_eq!(call.content, "[mock]");
    let wanted = &call.tool_calls[0];
    assert_eq!(
        (&*wanted.id, &*wanted.name, &*wanted.arguments),
        ("call_mock_1_1", "now", "{\"zone\":\"UTC\"}")
    );
    let result = vec![message(Role::User, "else"), message(Role::Tool, "noon")];
    assert_eq!(mock.complete(&request(result, &[])).await.unwrap().content, "[mock] got noon");
}

#[tokio::test]
async fn without_a_rule_it_echoes_in_the_language_of_the_question() {
    let mock = Mock::default();
    assert_eq!(say(&mock, "hello").await.content, "[mock] You said: hello");
    assert_eq!(say(&mock, "你好").await.content, "[mock] 你说：你好");
}

#[tokio::test]
async fn a_sum_is_worked_out_by_the_calculator() {
    for (text, sum) in [
        ("What is 3 + 4?", Some("3 + 4")),
        ("算一下 12×(3-1) 好吗", Some("12*(3-1)")),
        ("2^10", Some("2^10")),
        ("I have 5 apples.", None),
        ("on 2026-11-22", None),
        ("7 - 5", Some("7 - 5")),
    ] {
        let reply = say(&Mock::default(), text).await;
        let calls: Vec<Value> =
            reply.tool_calls.iter().map(|c| serde_json::from_str(&c.arguments).unwrap()).collect();
        let expected: Vec<Value> = sum.iter().map(|s| json!({ "expression": s })).collect();
        assert_eq!(calls, expected, "{text}");
    }
    let result = vec![message(Role::User, "3 + 4 是多少"), message(Role::Tool, "7")];
    let reply = Mock::default().complete(&request(result, &["calculator"])).await.unwrap();
    assert_eq!((reply.content.as_str(), reply.tool_calls.len()), ("[mock] 结果是 7", 0));
}

#[tokio::test]
async fn a_schema_is_met() {
    let mut asked = request(vec![message(Role::User, "hi")], &[]);
    asked.output_schema = Some(json!({ "type": "object", "properties": {
        "intent": { "enum": ["refund", "question"] },
        "ids": { "type": "array", "items": { "type": "string" }, "minItems": 1 },
        "score": { "type": "number", "minimum": 2 } } }));
    let reply = Mock::default().complete(&asked).await.unwrap();
    let value: Value = serde_json::from_str(&reply.content).unwrap();
    assert_eq!(value, json!({ "intent": "refund", "ids": ["[mock]"], "score": 2 }));
}

#[tokio::test(start_paused = true)]
async fn it_streams_with_delays_and_fails_after_half_an_answer() {
    let mock = mock(json!([{ "match": "*", "reply": "abcdef", "chunk": 4, "delay_ms": 50,
        "fail": { "status": 503, "message": "overloaded" } }]));
    let (deltas, mut shown) = tokio::sync::mpsc::channel(64);
    let asked = request(vec![message(Role::User, "x")], &[]);
    let error = {
        let answer = mock.stream(&asked, &deltas);
        tokio::pin!(answer);
        // Four deltas, 50 ms before each.
        let early = tokio::time::timeout(Duration::from_millis(199), &mut answer).await;
        assert!(early.is_err());
        tokio::time::timeout(Duration::from_millis(2), answer).await.unwrap().unwrap_err()
    };
    drop(deltas);
    let mut text = String::new();
    while let Some(Delta::Text(piece)) = shown.recv().await {
        assert!(piece.len() <= 4);
        text.push_str(&piece);
    }
    assert_eq!(text, "[mock] abcdef");
    assert_eq!(error.to_string(), "mock/any: the provider failed (503): [mock] overloaded");
}

#[tokio::test]
async fn tokens_are_counted() {
    let usage = say(&Mock::default(), "12345678").await.usage.unwrap();
    assert_eq!((usage.input, usage.output), (2, 7));
}

#[test]
fn a_script_with_an_unknown_key_is_refused() {
    let script = json!([{ "match": "*", "repli": "x" }]);
    assert!(serde_json::from_value::<Script>(script).is_err());
}
