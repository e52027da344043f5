//! Gemini's: wire facts 21, 22 and 24. Fact 23 is about its own protocol, which exile does not speak.

use std::time::Duration;

use exile_engine::message::Role;
use serde_json::json;

use crate::facts::{at, call, delta, end, hello, plain_turn, stream, text, tool_turn};
use crate::rules;
use crate::upstream::{Answer, Upstream};

/// A Gemini turn: two parallel calls, the first alone signed.
fn signed_turn(signature: &str) -> Answer {
    let mut first = call("g1", "{}");
    first["extra_content"] = json!({ "google": { "thought_signature": signature } });
    let mut second = call("g2", "{}");
    second["index"] = json!(1);
    Answer::events(&[delta(json!({ "tool_calls": [first, second] })), end("tool_calls")])
}

#[tokio::test]
async fn fact_21_signatures_return_verbatim() {
    let turns = [signed_turn("gemini-sig-1"), signed_turn("gemini-sig-2"), plain_turn("x")];
    let upstream = Upstream::strict(rules::gemini, turns).await;
    let gemini = at(&upstream, "gemini");
    let mut conversation = vec![text(Role::User, "go")];
    for _ in 0..3 {
        tool_turn(&gemini, "gemini-3-flash", &mut conversation).await;
    }
    let first = &upstream.body()["messages"][1]["tool_calls"];
    assert_eq!(first[0]["extra_content"]["google"]["thought_signature"], "gemini-sig-1");
    assert!(first[1].get("extra_content").is_none());
}

#[tokio::test]
async fn fact_21_signatures_of_another_key_are_dropped_once_refused() {
    let upstream =
        Upstream::strict(rules::gemini, [signed_turn("other-key"), plain_turn("x")]).await;
    let gemini = at(&upstream, "gemini");
    let mut conversation = vec![text(Role::User, "go")];
    for _ in 0..2 {
        tool_turn(&gemini, "gemini-3-flash", &mut conversation).await;
    }
    assert_eq!(upstream.seen().len(), 3, "one was refused and asked again");
}

#[tokio::test]
async fn fact_22_an_array_holds_the_error_and_the_time_to_wait() {
    let error = json!([{ "error": { "code": 429, "message": "Resource exhausted",
        "status": "RESOURCE_EXHAUSTED", "details": [{ "retryDelay": "34.4s" }] } }]);
    let upstream = Upstream::start([Answer::new(429).then(&error.to_string())]).await;
    let fault = stream(&at(&upstream, "gemini"), &hello("m")).await.0.unwrap_err().fault;
    assert_eq!(fault.retry(), exile_engine::model::Retry::After(Duration::from_millis(34_400)));
}

#[tokio::test]
async fn fact_24_gemini_gets_schemas_without_references() {
    let answer = Answer::events(&[delta(json!({ "content": "ok" })), end("stop")]);
    let upstream = Upstream::strict(rules::gemini, [answer]).await;
    let mut request = hello("gemini-3-flash");
    request.tools[0].parameters = json!({ "$schema": "x", "type": "object",
        "$defs": { "N": { "const": "n" } }, "additionalProperties": false,
        "properties": { "n": { "oneOf": [{ "$ref": "#/$defs/N" }, { "type": "string" }] } } });
    stream(&at(&upstream, "gemini"), &request).await.0.unwrap();
    assert_eq!(upstream.refused(), [""; 0]);
}

#[tokio::test]
async fn a_conversation_moves_between_providers_without_a_400() {
    let thinking =
        json!({ "reasoning_content": "secret thought", "tool_calls": [call("d", "{}")] });
    let deepseek_turn = || Answer::events(&[delta(thinking.clone()), end("tool_calls")]);
    let up = [
        Upstream::strict(rules::deepseek, [deepseek_turn(), deepseek_turn()]).await,
        Upstream::strict(rules::openai, [plain_turn("o"), plain_turn("o2")]).await,
        Upstream::strict(rules::gemini, [signed_turn("gemini-sig"), signed_turn("gemini-sig")])
            .await,
    ];
    let providers = [
        (at(&up[0], "deepseek"), "deepseek-flash"),
        (at(&up[1], "openai"), "gpt-5.1"),
        (at(&up[2], "gemini"), "gemini-3-flash"),
    ];
    let mut conversation = vec![text(Role::System, "be brief"), text(Role::User, "go")];
    for (provider, model) in providers.iter().chain(&providers) {
        tool_turn(provider, model, &mut conversation).await;
    }
    assert!(!up[1].body().to_string().contains("secret thought"), "reasoning stays at home");
    assert!(!up[1].body().to_string().contains("gemini-sig"), "signatures stay at home");
    assert!(up[0].body().to_string().contains("secret thought"));
}
