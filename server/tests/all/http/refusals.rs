//! A message that a provider refuses over HTTP: its turn fails, it stays to be read, and the turns
//! after it are answered.

use async_trait::async_trait;
use exile_engine::model::{
    Delta, DeltaSender, Finish, ModelReply, ModelRequest, Provider, ProviderError, ProviderFault,
};
use serde_json::{Value, json};

use super::fixture::Exile;

/// Refuses whatever holds the word "forbidden" or a picture, wherever in the conversation it stands;
/// else says how many messages it was sent.
pub(super) struct Picky;

#[async_trait]
impl Provider for Picky {
    fn name(&self) -> &'static str {
        "picky"
    }

    fn ready(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn complete(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        let messages = &request.messages;
        if messages.iter().any(|m| m.content.contains("forbidden") || !m.images.is_empty()) {
            let (provider, model) = ("picky".into(), request.model.to_string());
            let fault = ProviderFault::BadRequest { status: 400, detail: "content_filter".into() };
            return Err(ProviderError { provider, model, fault });
        }
        Ok(ModelReply {
            content: format!("{} messages", messages.len()),
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
        deltas.send(Delta::Text(reply.content.clone())).await.unwrap();
        Ok(reply)
    }
}

/// Content of each message, and whether it is set aside.
fn listed(list: &Value) -> Vec<(&str, bool)> {
    let items = list["items"].as_array().unwrap();
    let item = |item: &Value| item["set_aside"].as_bool().unwrap_or(false);
    items.iter().map(|m| (m["content"].as_str().unwrap(), item(m))).collect()
}

#[tokio::test]
async fn a_refused_message_is_set_aside_and_the_next_one_is_answered_after_a_restart_too() {
    let picture = json!(["https://example.com/a.png"]);
    let bodies = [
        json!({ "content": "a forbidden word" }),
        json!({ "content": "what is this?", "images": picture }),
    ];
    for body in bodies {
        let exile = Exile::start().await;
        let conversation = exile.conversation("picky/any").await;
        let messages = format!("{conversation}/messages");
        let say = |content: &str| Some(json!({ "content": content }));
        exile.call("POST", &messages, say("hello")).await;
        let refused = exile.call("POST", &messages, Some(body.clone())).await;
        assert_eq!(refused.code(), "provider_refused_request", "{}", refused.text);
        let run = refused.problem()["run"].as_str().unwrap().to_owned();
        let events = exile.watch(&format!("/api/runs/{run}/stream")).await;
        let last = events.last().unwrap();
        let aside = last.data["set_aside"].as_array().map(Vec::len);
        assert_eq!((last.name.as_str(), aside), ("run.failed", Some(1)), "{last:?}");

        let answer = exile.call("POST", &messages, say("and now?")).await.json();
        assert_eq!(answer["message"]["content"], "3 messages");
        let exile = exile.after_death().await;
        let answer = exile.call("POST", &messages, say("and then?")).await.json();
        assert_eq!(answer["message"]["content"], "5 messages");
        let list = exile.call("GET", &messages, None).await.json();
        let expected = [
            ("hello", false),
            ("1 messages", false),
            (body["content"].as_str().unwrap(), true),
            ("and now?", false),
            ("3 messages", false),
            ("and then?", false),
            ("5 messages", false),
        ];
        assert_eq!(listed(&list), expected);
        assert!(list["items"][0].get("set_aside").is_none(), "said only where it is so");
    }
}

#[tokio::test]
async fn a_fork_of_a_refused_turn_asks_again_and_what_it_went_back_over_sets_nothing_aside() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("picky/any").await;
    let messages = format!("{conversation}/messages");
    let refused =
        exile.call("POST", &messages, Some(json!({ "content": "a forbidden word" }))).await;
    let run = refused.problem()["run"].as_str().unwrap().to_owned();
    let id = exile.call("GET", &messages, None).await.json()["items"][0]["id"].clone();
    let all = exile.call("GET", &format!("/api/runs/{run}/checkpoints"), None).await.json();
    // It goes on from its beginning with other words.
    let values = json!({ "messages": [{ "id": id, "role": "user", "content": "a mild word" }] });
    let fork = exile
        .call(
            "POST",
            &format!("/api/runs/{run}/fork"),
            Some(json!({ "at": all["items"][0]["number"], "values": values })),
        )
        .await;
    assert_eq!(fork.status, 202, "{}", fork.text);
    exile.watch(&format!("{}/stream", fork.header("location"))).await;
    let list = exile.call("GET", &messages, None).await.json();
    assert_eq!(listed(&list), [("a mild word", false), ("1 messages", false)]);
    let answer = exile.call("POST", &messages, Some(json!({ "content": "and now?" }))).await.json();
    assert_eq!(answer["message"]["content"], "3 messages");
}
