//! Which business a request belongs to: enforced wherever one is named.

use axum::http::{Request, header};
use serde_json::{Value, json};

use super::fixture::{Answer, Exile, with_json};

/// What each surface is asked: a path and a body, in which the business stands if it can.
const SURFACES: [&str; 4] =
    ["/api/conversations", "/api/runs", "/v1/chat/completions", "/v1/embeddings"];

async fn ask(exile: &Exile, key: &str, path: &str, business: Option<&str>) -> Answer {
    let said = json!([{ "role": "user", "content": "hi" }]);
    let body = match path {
        "/api/runs" => json!({ "graph": "chat", "input": { "messages": "hi" } }),
        "/v1/chat/completions" => json!({ "model": "default", "messages": said }),
        "/v1/embeddings" => json!({ "model": "mock/any", "input": "hi" }),
        _ => json!({}),
    };
    let mut request = Request::builder()
        .method("POST")
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {key}"));
    if let Some(business) = business {
        request = request.header("x-exile-business", business);
    }
    exile.send(with_json(request, Some(body))).await
}

async fn set_quota(exile: &Exile, business: &str, requests: &str) {
    let path = format!("/api/quotas/business/{business}");
    let body = json!({ "requests": requests });
    let set = exile.call_as(&exile.admin, "PUT", &path, Some(body)).await;
    assert_eq!(set.status, 200, "{}", set.text);
}

async fn bind(exile: &Exile, user: &str, businesses: &[&str]) {
    let id = exile.app.store.user_by_name(user).await.unwrap().unwrap().id;
    let body = json!({ "businesses": businesses });
    let path = format!("/api/users/{id}");
    let bound = exile.call_as(&exile.admin, "PATCH", &path, Some(body)).await;
    assert_eq!(bound.json()["businesses"], json!(businesses), "{}", bound.text);
}

/// The businesses of the usage rows.
async fn used(exile: &Exile) -> Vec<Value> {
    let usage = exile.call_as(&exile.admin, "GET", "/api/usage?by=business", None).await.json();
    let rows = usage["items"].as_array().unwrap().iter();
    rows.map(|row| row["business"].clone()).collect()
}

#[tokio::test]
async fn a_business_that_something_hangs_on_is_named_by_those_who_are_bound_to_it() {
    let exile = Exile::start().await;
    set_quota(&exile, "sales", "100/day").await;
    for path in SURFACES {
        // A quota, and the models of an alias.
        for business in ["sales", "closed"] {
            let refused = ask(&exile, &exile.alice, path, Some(business)).await;
            assert_eq!(refused.status, 403, "{path} {business}: {}", refused.text);
            assert_eq!(refused.code(), "business_not_yours", "{path} {business}");
        }
        let free = ask(&exile, &exile.alice, path, Some("a label")).await;
        assert_ne!(free.code_if_any().as_deref(), Some("business_not_yours"), "{path}");
        let admin = ask(&exile, &exile.admin, path, Some("sales")).await;
        assert_ne!(admin.code_if_any().as_deref(), Some("business_not_yours"), "{path}");
    }
    let body = json!({ "business": "sales", "graph": "chat" });
    for path in ["/api/runs", "/api/runs/wait", "/api/runs/stream", "/api/conversations"] {
        let refused = exile.call("POST", path, Some(body.clone())).await;
        assert_eq!((refused.status, refused.code().as_str()), (403, "business_not_yours"));
    }
    bind(&exile, "alice", &["sales"]).await;
    let made = ask(&exile, &exile.alice, "/api/conversations", Some("sales")).await;
    assert_eq!((made.status, &made.json()["business"]), (201, &json!("sales")));
}

#[tokio::test]
async fn who_is_bound_stays_within_and_silence_is_no_way_out() {
    let exile = Exile::start().await;
    set_quota(&exile, "sales", "2/day").await;
    bind(&exile, "alice", &["sales", "service"]).await;
    let chat = "/v1/chat/completions";
    for named in [None, Some("sales")] {
        let answer = ask(&exile, &exile.alice, chat, named).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    for (named, status) in [(None, 429), (Some("sales"), 429), (Some("a label"), 403)] {
        let answer = ask(&exile, &exile.alice, chat, named).await;
        assert_eq!(answer.status, status, "{named:?}: {}", answer.text);
    }
    let run = ask(&exile, &exile.alice, "/api/runs", None).await;
    assert_eq!(run.status, 429, "its runs too: {}", run.text);
    assert_eq!(ask(&exile, &exile.alice, chat, Some("service")).await.status, 200);
    assert_eq!(used(&exile).await, [json!("sales"), json!("service")]);
    // A conversation and a run of before are no way out either.
    let conversation = exile.conversation_of(&exile.bob, json!({})).await;
    bind(&exile, "bob", &["sales"]).await;
    let messages = format!("{conversation}/messages");
    let said = exile.call_as(&exile.bob, "POST", &messages, Some(json!({ "content": "hi" }))).await;
    assert_eq!((said.status, said.code().as_str()), (429, "quota_exceeded"));
}

#[tokio::test]
async fn a_run_of_another_business_is_not_gone_on_with_by_a_fork() {
    let exile = Exile::start().await;
    let run = exile.run("add", json!({ "n": 1 })).await;
    let fork = format!("/api/runs/{}/fork", run["run"]["id"].as_str().unwrap());
    bind(&exile, "alice", &["sales"]).await;
    let refused = exile.call("POST", &fork, Some(json!({}))).await;
    assert_eq!((refused.status, refused.problem()["field"].clone()), (422, json!("at")));
    bind(&exile, "alice", &[]).await;
    assert_eq!(exile.call("POST", &fork, Some(json!({}))).await.status, 202);
}

#[tokio::test]
async fn a_key_is_bound_more_closely_than_its_user_and_binds_what_it_makes() {
    let exile = Exile::start().await;
    set_quota(&exile, "*", "100/day").await;
    bind(&exile, "alice", &["sales", "service"]).await;
    let body = json!({ "name": "shop", "user": "alice", "businesses": ["service"] });
    let key = exile.call_as(&exile.admin, "POST", "/api/keys", Some(body)).await.json();
    let key = key["secret"].as_str().unwrap().to_owned();
    let child = exile.call_as(&key, "POST", "/api/keys", Some(json!({ "name": "k" }))).await.json();
    assert_eq!(child["businesses"], json!(["service"]));
    let child = child["secret"].as_str().unwrap();
    for key in [&key, child] {
        let made = ask(&exile, key, "/api/conversations", None).await;
        assert_eq!(made.json()["business"], "service");
        assert_eq!(ask(&exile, key, "/api/conversations", Some("sales")).await.status, 403);
    }
    let own = json!({ "name": "k", "businesses": ["sales"] });
    assert_eq!(exile.call("POST", "/api/keys", Some(own)).await.status, 403, "for administrators");
    // With a quota of each business, no name is free.
    let invented = ask(&exile, &exile.bob, "/v1/chat/completions", Some("invented")).await;
    assert_eq!((invented.status, invented.code().as_str()), (403, "business_not_yours"));
    // An application with users of its own passes its own bounds on.
    let body = json!({ "name": "app", "scopes": ["act_as"], "businesses": ["service"] });
    let app = exile.call_as(&exile.admin, "POST", "/api/keys", Some(body)).await.json();
    let request = Request::builder()
        .method("POST")
        .uri("/api/conversations")
        .header(header::AUTHORIZATION, format!("Bearer {}", app["secret"].as_str().unwrap()))
        .header("x-exile-user", "bob");
    let made = exile.send(with_json(request, Some(json!({})))).await;
    assert_eq!((made.status, &made.json()["business"]), (201, &json!("service")));
}

#[tokio::test]
async fn a_free_name_has_a_length() {
    let exile = Exile::start().await;
    let longest = "b".repeat(128);
    let made = ask(&exile, &exile.alice, "/api/conversations", Some(&longest)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    for path in SURFACES {
        let refused = ask(&exile, &exile.alice, path, Some(&"b".repeat(129))).await;
        let status = if path.starts_with("/v1") { 400 } else { 422 };
        assert_eq!((refused.status, refused.code().as_str()), (status, "invalid_field"), "{path}");
    }
    for name in ["", "a\nb"] {
        let body = json!({ "business": name });
        let refused = exile.call("POST", "/api/conversations", Some(body)).await;
        assert_eq!(refused.problem()["field"], "business");
    }
}
