//! A message while a run of the conversation goes on or waits.

use serde_json::{Value, json};

use super::fixture::{Answer, Exile};

/// Asks for any text, then repeats it.
const CURIOUS: &str = "
graph: curious
input: [messages]
output: [messages]
state: { messages: { reduce: messages } }
nodes:
  ask: { kind: human, ask: Which order? }
  answer: { kind: agent, tools: [] }
edges: [{ from: START, to: ask }, { from: ask, to: answer }, { from: answer, to: END }]
";
/// Offers a choice.
const STRICT: &str = "
graph: strict
input: [messages]
output: [messages, decision]
state: { messages: { reduce: messages }, decision: {} }
nodes: { ask: { kind: human, ask: Really?, choices: ['yes', 'no'], into: decision } }
edges: [{ from: START, to: ask }, { from: ask, to: END }]
";

async fn exile() -> Exile {
    Exile::serving(&[("curious", CURIOUS), ("strict", STRICT)]).await
}

async fn conversation(exile: &Exile, graph: &str) -> String {
    let made = exile.call("POST", "/api/conversations", Some(json!({ "graph": graph }))).await;
    assert_eq!(made.status, 201, "{}", made.text);
    format!("{}/messages", made.header("location"))
}

async fn say(exile: &Exile, messages: &str, content: &str, more: Value) -> Answer {
    let mut body = json!({ "content": content });
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    exile.call("POST", messages, Some(body)).await
}

fn said(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|m| m["content"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_message_answers_the_free_text_that_a_run_waits_for() {
    let exile = exile().await;
    let messages = conversation(&exile, "curious").await;
    let asked = say(&exile, &messages, "Where is it?", json!({})).await;
    assert_eq!(asked.status, 200, "{}", asked.text);
    let view = asked.json();
    assert_eq!((&view["message"], &view["run"]["status"]), (&Value::Null, &json!("waiting")));
    assert_eq!(view["interrupts"][0]["text"], "Which order?");
    let answered = say(&exile, &messages, "A-17", json!({})).await;
    assert_eq!(answered.status, 200, "{}", answered.text);
    let done = answered.json();
    assert_eq!(done["run"]["id"], view["run"]["id"], "the same run goes on");
    assert_eq!(done["message"]["content"], "[mock] you said: A-17");
    assert_eq!(done["interrupts"], json!([]));
    let list = exile.call("GET", &messages, None).await.json();
    assert_eq!(said(&list), ["Where is it?", "A-17", "[mock] you said: A-17"]);

    say(&exile, &messages, "And now?", json!({})).await;
    let streamed = say(&exile, &messages, "B-2", json!({ "stream": true })).await;
    let events = streamed.events();
    assert_eq!(events.last().unwrap().name, "run.finished");
    assert!(events.iter().all(|e| e.name != "run.waiting"), "only what follows");
}

#[tokio::test]
async fn a_message_does_not_answer_a_choice() {
    let exile = exile().await;
    let messages = conversation(&exile, "strict").await;
    let asked = say(&exile, &messages, "Delete all", json!({})).await.json();
    for content in ["yes", "what?"] {
        let refused = say(&exile, &messages, content, json!({})).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "run_waiting"), "{content}");
        let problem = refused.problem();
        assert_eq!(problem["interrupts"], asked["interrupts"]);
        assert_eq!(problem["run"], asked["run"]["id"]);
    }
    let id = messages.split('/').nth(3).unwrap();
    let body = json!({ "conversation_id": id, "input": { "messages": "yes" } });
    let refused = exile.call("POST", "/api/runs", Some(body)).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "run_waiting"));
    let list = exile.call("GET", &messages, None).await.json();
    assert_eq!(said(&list), ["Delete all"], "nothing was stored");
}

#[tokio::test]
async fn a_message_may_end_the_run_that_waits() {
    let exile = exile().await;
    for (if_active, kept) in [("interrupt", vec!["first", "second"]), ("rollback", vec!["second"])]
    {
        let messages = conversation(&exile, "strict").await;
        let first = say(&exile, &messages, "first", json!({})).await.json();
        let second = say(&exile, &messages, "second", json!({ "if_active": if_active })).await;
        assert_eq!(second.status, 200, "{if_active}: {}", second.text);
        let second = second.json();
        assert_ne!(second["run"]["id"], first["run"]["id"]);
        assert_eq!(second["run"]["status"], "waiting");
        let run = format!("/api/runs/{}", first["run"]["id"].as_str().unwrap());
        assert_eq!(exile.call("GET", &run, None).await.json()["status"], "cancelled");
        let second = format!("/api/runs/{}", second["run"]["id"].as_str().unwrap());
        let state = exile.call("GET", &format!("{second}/state"), None).await.json();
        let there = state["values"]["messages"].as_array().unwrap();
        let there: Vec<&str> = there.iter().map(|m| m["content"].as_str().unwrap()).collect();
        assert_eq!(there, kept, "{if_active}");
    }
}

#[tokio::test]
async fn a_message_may_refuse_to_wait_for_a_run_that_goes_on() {
    let exile = exile().await;
    let conversation = exile.conversation("gate/any").await;
    let id = conversation.rsplit('/').next().unwrap();
    let body = json!({ "conversation_id": id, "input": { "messages": "hi" } });
    let run = exile.call("POST", "/api/runs", Some(body.clone())).await;
    assert_eq!(run.status, 202, "{}", run.text);
    let reject = json!({ "if_active": "reject" });
    let refused = say(&exile, &format!("{conversation}/messages"), "hi", reject).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "run_active"));
    let mut body = body;
    body["if_active"] = json!("reject");
    let refused = exile.call("POST", "/api/runs", Some(body)).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "run_active"));
    exile.gate.add_permits(1);
    let events = exile.watch(&format!("{}/stream", run.header("location"))).await;
    assert_eq!(events.last().unwrap().name, "run.finished");
}

#[tokio::test]
async fn every_durability_gives_the_same_run() {
    let exile = exile().await;
    for durability in ["sync", "async", "exit"] {
        let body = json!({ "graph": "add", "input": { "n": 2 }, "durability": durability });
        let done = exile.call("POST", "/api/runs/wait", Some(body)).await;
        assert_eq!(done.status, 200, "{durability}: {}", done.text);
        assert_eq!(done.json()["output"], json!({ "total": 2 }), "{durability}");
    }
}
