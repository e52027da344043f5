//! A conversation over HTTP: created, talked to, read back, deleted.

use axum::http::{Request, header};
use serde_json::{Value, json};

use super::fixture::{Exile, with_json};

fn said(list: &Value) -> Vec<(String, String)> {
    let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| (text(item, "role"), text(item, "content"))).collect()
}

#[tokio::test]
async fn talks_over_several_turns_and_reads_back() {
    let exile = Exile::start().await;
    let body = json!({ "title": "first", "skill": "pirate", "model": "default" });
    let created = exile.call("POST", "/api/conversations", Some(body)).await;
    let conversation = created.header("location").to_owned();
    let view = created.json();
    assert_eq!(conversation, format!("/api/conversations/{}", view["id"].as_str().unwrap()));
    assert_eq!((&view["graph"], &view["provider"]), (&json!("chat"), &json!("mock")));

    assert_eq!(exile.call("GET", &conversation, None).await.json(), view, "as it was said");

    let messages = format!("{conversation}/messages");
    let mut runs = Vec::new();
    for content in ["one", "two"] {
        let answer = exile.call("POST", &messages, Some(json!({ "content": content }))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let body = answer.json();
        assert_eq!(body["message"]["content"], format!("[mock] you said: {content}"));
        assert_eq!(body["message"]["model"], "mock/any");
        assert_eq!((&body["interrupts"], &body["citations"]), (&json!([]), &json!([])));
        assert_eq!(body["run"]["status"], "finished");
        assert_eq!(body["run"]["conversation_id"], view["id"]);
        assert_eq!(answer.header("x-exile-run"), body["run"]["id"].as_str().unwrap());
        runs.push(body["run"]["id"].clone());
    }
    let pair = |role: &str, content: &str| (role.to_owned(), content.to_owned());
    let expected = [
        pair("user", "one"),
        pair("assistant", "[mock] you said: one"),
        pair("user", "two"),
        pair("assistant", "[mock] you said: two"),
    ];
    let list = exile.call("GET", &messages, None).await.json();
    assert_eq!(said(&list), expected);
    assert_eq!(list["items"][3]["run"], runs[1]);
    let first = exile.call("GET", &format!("{messages}?limit=3"), None).await.json();
    let next = first["next"].as_str().unwrap();
    let rest = exile.call("GET", &format!("{messages}?limit=3&after={next}"), None).await.json();
    assert_eq!([said(&first), said(&rest)].concat(), expected);
    assert_eq!(rest["next"], Value::Null);
}

#[tokio::test]
async fn streams_when_body_or_accept_says_so() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("mock/any").await;
    let messages = format!("{conversation}/messages");
    let body = json!({ "content": "hello there", "stream": true });
    let by_body = exile.call("POST", &messages, Some(body)).await;
    let request = Request::builder()
        .method("POST")
        .uri(&messages)
        .header(header::AUTHORIZATION, format!("Bearer {}", exile.alice))
        .header(header::ACCEPT, "application/json;q=0.5, text/event-stream");
    let by_accept = exile.send(with_json(request, Some(json!({ "content": "hello there" })))).await;
    for answer in [by_body, by_accept] {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert_eq!(answer.header("x-accel-buffering"), "no");
        assert_eq!(answer.header("cache-control"), "no-cache");
        let run = answer.header("x-exile-run");
        assert_eq!(answer.header("location"), format!("/api/runs/{run}"));
        let events = answer.events();
        assert!(events.is_sorted_by(|a, b| a.id < b.id));
        assert_eq!(events[0].name, "run.started");
        assert_eq!(events[0].data["run"], run);
        assert_eq!(events.last().unwrap().name, "run.finished");
        let deltas = events.iter().filter(|e| e.name == "message.delta");
        let text: Vec<&str> = deltas.map(|e| e.data["text"].as_str().unwrap()).collect();
        assert!(text.len() > 1);
        assert_eq!(text.concat(), "[mock] you said: hello there");
        let finished = events.iter().find(|e| e.name == "message.finished").unwrap();
        assert_eq!(finished.data["message"]["content"], text.concat());
    }
}

#[tokio::test]
async fn a_failed_turn_is_a_problem_that_names_its_run_and_the_next_turn_works() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("mock/any").await;
    let messages = format!("{conversation}/messages");
    let cases = [
        ("no key", 502, "provider_unauthorized"),
        ("too fast", 429, "provider_rate_limited"),
        ("silence", 504, "provider_timeout"),
        ("half", 502, "provider_truncated"),
    ];
    for (content, status, code) in cases {
        let answer = exile.call("POST", &messages, Some(json!({ "content": content }))).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        let problem = answer.problem();
        assert_eq!(problem["error"]["provider"], "mock");
        let run = problem["run"].as_str().unwrap();
        assert_eq!(answer.header("x-exile-run"), run);
        let view = exile.call("GET", &format!("/api/runs/{run}"), None).await.json();
        assert_eq!((&view["status"], &view["error"]["code"]), (&json!("failed"), &json!(code)));
    }
    let next = exile.call("POST", &messages, Some(json!({ "content": "and now?" }))).await;
    assert_eq!(next.json()["message"]["content"], "[mock] you said: and now?");
    let list = exile.call("GET", &messages, None).await.json();
    let users = said(&list).into_iter().filter(|(role, _)| role == "user");
    assert_eq!(users.count(), 5, "what was said before stays");
}

#[tokio::test]
async fn the_business_chooses_among_an_aliass_models() {
    let exile = Exile::start().await;
    let request = Request::builder()
        .method("POST")
        .uri("/api/conversations")
        .header(header::AUTHORIZATION, format!("Bearer {}", exile.admin))
        .header("x-exile-business", "closed");
    let created = exile.send(with_json(request, Some(json!({ "model": "default" })))).await;
    assert_eq!(created.json()["business"], "closed");
    assert_eq!(created.json()["provider"], "keyless");
    let messages = format!("{}/messages", created.header("location"));
    let answer =
        exile.call_as(&exile.admin, "POST", &messages, Some(json!({ "content": "hi" }))).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "provider_key_missing"));
    assert!(answer.problem()["detail"].as_str().unwrap().contains("KEYLESS_API_KEY"));
}

#[tokio::test]
async fn a_conversation_is_renamed_and_deleted_with_all_it_holds() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("mock/any").await;
    let renamed = exile.call("PATCH", &conversation, Some(json!({ "title": "new" }))).await;
    assert_eq!((renamed.status, &renamed.json()["title"]), (200, &json!("new")));
    let messages = format!("{conversation}/messages");
    let answer = exile.call("POST", &messages, Some(json!({ "content": "hi" }))).await.json();
    let run = format!("/api/runs/{}", answer["run"]["id"].as_str().unwrap());
    assert_eq!(exile.call("DELETE", &conversation, None).await.status, 204);
    for path in [&conversation, &messages, &run] {
        assert_eq!(exile.call("GET", path, None).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_conversation_with_an_active_run_is_not_deleted() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("gate/any").await;
    let id = conversation.rsplit('/').next().unwrap();
    let body = json!({ "conversation_id": id, "input": { "messages": "hi" } });
    let run = exile.call("POST", "/api/runs", Some(body)).await.header("location").to_owned();
    let refused = exile.call("DELETE", &conversation, None).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "run_active"));
    exile.gate.add_permits(1);
    exile.call("GET", &format!("{run}/stream"), None).await;
    assert_eq!(exile.call("DELETE", &conversation, None).await.status, 204);
}

#[tokio::test]
async fn a_graph_without_messages_or_with_errors_holds_no_conversation() {
    let exile = Exile::start().await;
    for (graph, code) in [("add", "not_conversational"), ("broken", "graph_broken")] {
        let answer =
            exile.call("POST", "/api/conversations", Some(json!({ "graph": graph }))).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, code));
    }
    let answer = exile.call("POST", "/api/conversations", Some(json!({ "model": "ghost" }))).await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "unknown_model"));
}
