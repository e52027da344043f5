//! Administrators see everybody's runs and conversations and act on them; nobody else sees another's.

use exile_server::store::Role;
use serde_json::{Value, json};

use super::document::{filled, paths};
use super::fixture::{Answer, Exile};

const ASKS: &str = "
graph: asks
state: { said: {} }
output: [said]
nodes: { ask: { kind: human, ask: Well?, into: said } }
edges: [{ from: START, to: ask }, { from: ask, to: END }]
";

/// What a route is sent for a run of Alice's that waits, or a conversation of hers.
fn body(method: &str, path: &str, interrupt: &str) -> Option<Value> {
    match (method, path) {
        ("post", "/api/conversations/{id}/messages") => Some(json!({ "content": "hi" })),
        ("post", "/api/runs/{id}/resume") => Some(json!({ "answers": { interrupt: "yes" } })),
        ("post", "/api/runs/{id}/resolve") => Some(json!({ "action": "retry" })),
        ("post", "/api/runs/{id}/state") => Some(json!({ "values": { "said": "me" } })),
        ("patch", "/api/conversations/{id}") => Some(json!({ "title": "seen" })),
        ("post", _) => Some(json!({})),
        _ => None,
    }
}

/// The path with everything that it needs; `number`: of a checkpoint.
fn whole(path: &str, id: &str, number: &Value) -> String {
    let path = filled(&path.replace("{number}", &number.to_string()), id);
    if path.ends_with("/diff") { format!("{path}?from={number}&to={number}") } else { path }
}

/// Generated from the OpenAPI document, so that a new route is covered by being there.
#[tokio::test]
async fn administrators_reach_everybodys_rows_by_every_route_and_authors_do_not() {
    let exile = Exile::serving(&[("asks", ASKS)]).await;
    let author = exile.user("ann", Role::Author).await;
    let mut walked = 0;
    for (path, methods) in paths() {
        let of_runs = path.starts_with("/api/runs/{id}");
        if !of_runs && !path.starts_with("/api/conversations/{id}") {
            continue;
        }
        for method in methods {
            // Each request finds its own: some of them end what they are about.
            let waits = exile.run("asks", json!({})).await["run"].clone();
            let interrupt = waits["interrupts"][0]["id"].as_str().unwrap();
            let conversation = exile.conversation("mock/any").await;
            let run = waits["id"].as_str().unwrap();
            let id = if of_runs { run } else { conversation.rsplit('/').next().unwrap() };
            let number = &waits["numbers"][1];
            let (verb, path_of) = (method.to_uppercase(), whole(&path, id, number));
            let sent = body(&method, &path, interrupt);
            let refused = exile.call_as(&author, &verb, &path_of, sent.clone()).await;
            let none = whole(&path, "none", number);
            let unknown = exile.call_as(&author, &verb, &none, sent.clone()).await;
            assert_eq!(refused.status, 404, "{method} {path}: {}", refused.text);
            assert_eq!(refused.problem(), unknown.problem(), "{method} {path}");
            if of_runs && path.ends_with("/stream") {
                // It would wait with the run.
                continue;
            }
            let reached = exile.call_as(&exile.admin, &verb, &path_of, sent).await;
            let conflict = path.ends_with("/resolve");
            let good = if conflict { reached.status == 409 } else { reached.status < 300 };
            assert!(good, "{method} {path}: {} {}", reached.status, reached.text);
            walked += 1;
        }
    }
    assert!(walked >= 16, "only {walked} routes were walked");
}

async fn as_admin(exile: &Exile, method: &str, path: &str, body: Option<Value>) -> Answer {
    exile.call_as(&exile.admin, method, path, body).await
}

#[tokio::test]
async fn lists_of_others_are_for_administrators() {
    let exile = Exile::start().await;
    exile.conversation("mock/any").await;
    exile.run("add", json!({ "n": 1 })).await;
    as_admin(&exile, "POST", "/api/runs/wait", Some(json!({ "graph": "add" }))).await;
    let items = |answer: Answer| answer.json()["items"].as_array().unwrap().len();
    for (list, all) in [("/api/runs", 2), ("/api/conversations", 1)] {
        let of = |owner: &str| format!("{list}?owner={owner}");
        assert_eq!(items(as_admin(&exile, "GET", &of("alice"), None).await), 1, "{list}");
        assert_eq!(items(as_admin(&exile, "GET", &of("bob"), None).await), 0, "{list}");
        assert_eq!(items(as_admin(&exile, "GET", &of("*"), None).await), all, "{list}");
        assert_eq!(items(exile.call("GET", &of("alice"), None).await), 1, "her own");
        for owner in ["bob", "*", "nobody"] {
            let refused = exile.call("GET", &of(owner), None).await;
            assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"), "{list}");
        }
        let unknown = as_admin(&exile, "GET", &of("nobody"), None).await;
        assert_eq!((unknown.status, unknown.code().as_str()), (422, "unknown_user"));
    }
    let failed = as_admin(&exile, "GET", "/api/runs?owner=*&status=failed", None).await;
    assert_eq!(items(failed), 0);
    let finished = "/api/runs?owner=*&status=finished&graph=add&limit=1";
    let first = as_admin(&exile, "GET", finished, None).await.json();
    let alice = exile.app.store.user_by_name("alice").await.unwrap().unwrap();
    assert_ne!(first["items"][0]["owner"], json!(alice.id));
    let next = format!("{finished}&after={}", first["next"].as_str().unwrap());
    let second = as_admin(&exile, "GET", &next, None).await.json();
    assert_eq!((&second["items"][0]["owner"], &second["next"]), (&json!(alice.id), &Value::Null));
}

#[tokio::test]
async fn what_an_administrator_begins_at_anothers_is_theirs() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("mock/any").await;
    let said = json!({ "content": "from above" });
    let messages = format!("{conversation}/messages");
    let answer = as_admin(&exile, "POST", &messages, Some(said)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let run = format!("/api/runs/{}", answer.json()["run"]["id"].as_str().unwrap());
    assert_eq!(exile.call("GET", &run, None).await.status, 200, "she sees it");
    let fork = as_admin(&exile, "POST", &format!("{run}/fork"), Some(json!({}))).await;
    assert_eq!(exile.call("GET", fork.header("location"), None).await.status, 200);
    let seen = exile.call("GET", &messages, None).await.json();
    assert!(!seen["items"].as_array().unwrap().is_empty());
    let id = conversation.rsplit('/').next().unwrap();
    let body = json!({ "conversation_id": id, "input": { "messages": "again" } });
    let turn = as_admin(&exile, "POST", "/api/runs", Some(body)).await;
    assert_eq!(turn.status, 202, "{}", turn.text);
    assert_eq!(exile.call("GET", turn.header("location"), None).await.status, 200);
}
