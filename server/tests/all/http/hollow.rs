//! A model that sends pieces without text: nothing of them is passed on.

use async_trait::async_trait;
use exile_engine::model::{
    Delta, DeltaSender, Finish, ModelReply, ModelRequest, Provider, ProviderError,
};
use serde_json::{Value, json};

use super::fixture::Exile;

/// Sends a hundred pieces without text before the one that counts, and one of each kind after it.
pub(super) struct Hollow;

#[async_trait]
impl Provider for Hollow {
    fn name(&self) -> &'static str {
        "hollow"
    }

    fn ready(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn complete(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        Ok(ModelReply {
            content: "full".into(),
            reasoning: None,
            tool_calls: Vec::new(),
            finish: Finish::Stop,
            usage: None,
            model: request.model.to_string(),
            id: None,
            opaque: None,
        })
    }

    async fn stream(
        &self,
        request: &ModelRequest,
        deltas: &DeltaSender,
    ) -> Result<ModelReply, ProviderError> {
        let reply = self.complete(request).await?;
        for _ in 0..100 {
            deltas.send(Delta::Reasoning(String::new())).await.unwrap();
        }
        let rest = [Delta::Text("full".into()), Delta::Text(String::new())];
        for delta in rest.into_iter().chain([Delta::Refusal(String::new())]) {
            deltas.send(delta).await.unwrap();
        }
        Ok(reply)
    }
}

#[tokio::test]
async fn pieces_without_text_are_not_passed_on() {
    let exile = Exile::start().await;
    let body = json!({ "model": "hollow/any", "stream": true,
        "messages": [{ "role": "user", "content": "hi" }] });
    let answer = exile.call("POST", "/v1/chat/completions", Some(body)).await;
    let events = answer.text.split("\n\n").filter_map(|event| event.strip_prefix("data: {"));
    let deltas = events.map(|event| {
        let event: Value = serde_json::from_str(&format!("{{{event}")).unwrap();
        event["choices"][0]["delta"].clone()
    });
    let expected = [json!({ "role": "assistant", "content": "" }), json!({ "content": "full" })];
    assert_eq!(deltas.collect::<Vec<_>>(), [&expected[..], &[json!({})]].concat());
}
