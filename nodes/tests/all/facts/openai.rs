//! OpenAI's: wire facts 10, 12 and 13. Fact 11 is about Responses, which exile does not speak.

use std::time::Duration;

use exile_engine::model::ModelRequest;
use serde_json::{Value, json};

use crate::facts::{at, delta, end, hello, stream};
use crate::rules;
use crate::upstream::{Answer, Upstream};

#[tokio::test]
async fn fact_10_reasoning_models_are_asked_in_their_own_words() {
    let answer = || Answer::events(&[delta(json!({ "content": "ok" })), end("stop")]);
    let upstream = Upstream::strict(rules::openai, [answer(), answer(), answer()]).await;
    let openai = at(&upstream, "openai");
    for model in ["gpt-5.1", "o4-mini", "gpt-4.1"] {
        assert!(stream(&openai, &hello(model)).await.0.is_ok(), "{model}");
    }
    assert_eq!(upstream.body()["max_tokens"], 99);
    assert_eq!(upstream.seen()[0].body["max_completion_tokens"], 99);
}

#[tokio::test]
async fn fact_12_only_closed_schemas_are_said_to_be_strict() {
    let answer = || Answer::events(&[delta(json!({ "content": "{}" })), end("stop")]);
    let upstream = Upstream::strict(rules::openai, [answer(), answer(), answer()]).await;
    let openai = at(&upstream, "openai");
    let closed = json!({ "type": "object", "additionalProperties": false, "required": ["a"],
        "properties": { "a": { "type": "string" } } });
    let open = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
    for (schema, strict) in [(closed, json!(true)), (open, json!(false)), (json!([]), Value::Null)]
    {
        let request = ModelRequest { output_schema: Some(schema), ..hello("gpt-5.1") };
        stream(&openai, &request).await.0.unwrap();
        assert_eq!(upstream.body()["response_format"]["json_schema"]["strict"], strict);
    }
}

#[tokio::test]
async fn fact_13_quota_errors_are_final_and_plain_texts_are_read() {
    let quota = json!({ "error": { "message": "You exceeded your current quota",
        "type": "insufficient_quota", "code": "insufficient_quota" } });
    let upstream = Upstream::start([
        Answer::new(429).then(&quota.to_string()),
        Answer::new(401).header("content-type", "text/plain").then("no such key"),
        Answer::new(429).header("retry-after", "7").then("slow down"),
    ])
    .await;
    let openai = at(&upstream, "openai");
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(openai.complete(&hello("m")).await.unwrap_err().fault);
    }
    let shown: Vec<&str> = codes.iter().map(exile_engine::model::ProviderFault::code).collect();
    assert_eq!(shown, ["provider_no_balance", "provider_unauthorized", "provider_rate_limited"]);
    assert_eq!(codes[0].retry(), exile_engine::model::Retry::Never);
    assert_eq!(codes[2].retry(), exile_engine::model::Retry::After(Duration::from_secs(7)));
}
