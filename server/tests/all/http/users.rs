//! Users who change, are kept out, and go.

use exile_server::store::Role;
use serde_json::{Value, json};

use super::fixture::{Answer, Exile};

async fn path(exile: &Exile, name: &str) -> String {
    let user = exile.app.store.user_by_name(name).await.unwrap().unwrap();
    format!("/api/users/{}", user.id)
}

async fn change(exile: &Exile, name: &str, body: Value) -> Answer {
    let path = path(exile, name).await;
    exile.call_as(&exile.admin, "PATCH", &path, Some(body)).await
}

async fn remove(exile: &Exile, name: &str) -> Answer {
    let path = path(exile, name).await;
    exile.call_as(&exile.admin, "DELETE", &path, None).await
}

async fn works(exile: &Exile, key: &str) -> bool {
    exile.call_as(key, "GET", "/api/users/me", None).await.status == 200
}

#[tokio::test]
async fn a_disabled_user_is_kept_out_at_once_and_their_runs_go_on() {
    let exile = Exile::start().await;
    let run = exile.waiting_run().await;
    let alice = exile.app.store.user_by_name("alice").await.unwrap().unwrap();
    let link = async || exile.app.store.create_sign_in(&alice.id, None).await.unwrap().0;
    let unspent = link().await;
    let spent = link().await;
    let (session, _) = exile.app.store.redeem_sign_in(&spent).await.unwrap().unwrap();
    assert!(works(&exile, &exile.alice).await, "which is kept in memory now");

    let disabled = change(&exile, "alice", json!({ "disabled": true })).await;
    assert_eq!((disabled.status, &disabled.json()["disabled"]), (200, &json!(true)));
    assert!(!works(&exile, &exile.alice).await);
    assert!(exile.app.store.session_owner(&session).await.unwrap().is_none());
    assert!(exile.app.store.redeem_sign_in(&unspent).await.unwrap().is_none());
    let path = path(&exile, "alice").await;
    let refused = exile.call_as(&exile.admin, "POST", &format!("{path}/sign-in-link"), None).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "user_disabled"));
    let body = json!({ "name": "app", "scopes": ["act_as"] });
    let app = exile.call_as(&exile.admin, "POST", "/api/keys", Some(body)).await.json();
    let request = axum::http::Request::builder()
        .uri("/api/runs")
        .header("authorization", format!("Bearer {}", app["secret"].as_str().unwrap()))
        .header("x-exile-user", "alice");
    let acted = exile.send(super::fixture::with_json(request, None)).await;
    assert_eq!(acted.status, 403, "nobody acts for them either");

    let enabled = change(&exile, "alice", json!({ "disabled": false })).await;
    assert_eq!((enabled.status, &enabled.json()["disabled_at"]), (200, &Value::Null));
    assert!(works(&exile, &exile.alice).await, "the key was not revoked");
    exile.gate.add_permits(1);
    let events = exile.call("GET", &format!("{run}/stream"), None).await.events();
    assert_eq!(events.last().unwrap().name, "run.finished");
}

#[tokio::test]
async fn a_role_that_is_taken_away_is_gone_with_the_next_request() {
    let exile = Exile::start().await;
    assert_eq!(change(&exile, "bob", json!({ "role": "admin" })).await.status, 200);
    assert_eq!(exile.call_as(&exile.bob, "GET", "/api/users", None).await.status, 200);
    assert_eq!(change(&exile, "bob", json!({ "role": "author" })).await.json()["role"], "author");
    assert_eq!(exile.call_as(&exile.bob, "GET", "/api/users", None).await.status, 403);
    let unknown = exile.call_as(&exile.admin, "PATCH", "/api/users/usr_x", Some(json!({}))).await;
    assert_eq!(unknown.status, 404);
    let odd = change(&exile, "bob", json!({ "role": "king" })).await;
    assert_eq!((odd.status, odd.code().as_str()), (422, "invalid_field"));
}

#[tokio::test]
async fn somebody_always_administers() {
    let exile = Exile::start().await;
    for body in [json!({ "role": "author" }), json!({ "disabled": true })] {
        let refused = change(&exile, "admin", body).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "last_admin"));
    }
    assert_eq!(remove(&exile, "admin").await.code(), "last_admin");
    assert!(works(&exile, &exile.admin).await);
    exile.app.store.create_user("root", Role::Admin).await.unwrap();
    assert_eq!(change(&exile, "root", json!({ "disabled": true })).await.status, 200);
    assert_eq!(remove(&exile, "admin").await.code(), "last_admin", "the other one is disabled");
    assert_eq!(change(&exile, "root", json!({ "disabled": false })).await.status, 200);
    assert_eq!(change(&exile, "admin", json!({ "role": "user" })).await.status, 200);
    assert_eq!(change(&exile, "root", json!({ "role": "user" })).await.status, 403);
}

#[tokio::test]
async fn of_two_administrators_who_disable_one_another_one_is_left() {
    let exile = Exile::start().await;
    let root = exile.app.store.create_user("root", Role::Admin).await.unwrap();
    let (_, roots) = exile.app.store.create_key(&root.id, "k", &[], None).await.unwrap();
    let (his, hers) = (path(&exile, "admin").await, path(&exile, "root").await);
    let body = || Some(json!({ "disabled": true }));
    let (one, other) = tokio::join!(
        exile.call_as(&exile.admin, "PATCH", &hers, body()),
        exile.call_as(&roots, "PATCH", &his, body()),
    );
    assert!(one.status != other.status, "{} and {}", one.status, other.status);
    assert!(works(&exile, &exile.admin).await != works(&exile, &roots).await);
}

#[tokio::test]
async fn who_is_removed_leaves_nothing_but_what_their_calls_cost() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("mock/any").await;
    let said = format!("{conversation}/messages");
    let answer = exile.call("POST", &said, Some(json!({ "content": "a secret of hers" }))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    exile.run("add", json!({ "n": 2 })).await;
    let done = exile.run("add", json!({ "n": 3 })).await;
    let fork = format!("/api/runs/{}/fork", done["run"]["id"].as_str().unwrap());
    let fork = exile.call("POST", &fork, Some(json!({}))).await;
    assert_eq!(fork.status, 202, "{}", fork.text);
    exile.watch(&format!("{}/stream", fork.header("location"))).await;

    let run = exile.waiting_run().await;
    let refused = remove(&exile, "alice").await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "runs_active"));
    assert!(!works(&exile, &exile.alice).await, "nothing new of hers begins");
    exile.gate.add_permits(1);
    let id = run.rsplit('/').next().unwrap().into();
    exile.app.engine.wait_beyond(&id, 0).await.unwrap();

    assert_eq!(remove(&exile, "alice").await.status, 204);
    assert!(!works(&exile, &exile.alice).await);
    exile.app.store.flush_usage().await.unwrap();
    let left = exile.rows("SELECT count(*) FROM exile_llm_message").await
        + exile.rows("SELECT count(*) FROM exile_run").await
        + exile.rows("SELECT count(*) FROM exile_log").await
        + exile.rows("SELECT count(*) FROM exile_llm_conversation").await
        + exile.rows("SELECT count(*) FROM exile_user WHERE name = 'alice'").await;
    assert_eq!(left, 0);
    assert!(exile.rows("SELECT count(*) FROM exile_usage").await > 0);
    let again = json!({ "name": "alice" });
    let again = exile.call_as(&exile.admin, "POST", "/api/users", Some(again)).await;
    assert_eq!(again.status, 201, "the name is free again");
    assert!(!works(&exile, &exile.alice).await, "and the old key is nobody's");
}
