//! Keys: what they may do, what they may make, and when that ends.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use exile_server::http::auth::COOKIE;
use exile_server::store::Role;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::fixture::{Answer, Exile, with_json};

async fn make(exile: &Exile, key: &str, body: Value) -> Answer {
    exile.call_as(key, "POST", "/api/keys", Some(body)).await
}

/// A key's id and secret.
async fn made(exile: &Exile, key: &str, body: Value) -> (String, String) {
    let answer = make(exile, key, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let text = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

async fn status(exile: &Exile, key: &str, (method, path): (&str, &str)) -> u16 {
    let body = (method != "GET").then(|| json!({}));
    exile.call_as(key, method, path, body).await.status
}

/// Whether a key lets anybody in.
async fn works(exile: &Exile, key: &str) -> bool {
    status(exile, key, ("GET", "/api/users/me")).await == 200
}

fn later(exile: &Exile, by: Duration) -> Timestamp {
    exile.app.env.now() + jiff::SignedDuration::try_from(by).unwrap()
}

#[tokio::test]
async fn what_a_key_makes_ends_with_it() {
    let exile = Exile::start().await;
    let (parent, secret) = made(&exile, &exile.admin, json!({ "name": "robot" })).await;
    // A key for themselves, one for somebody else, one of that one, and a session of another user.
    let (_, own) = made(&exile, &secret, json!({ "name": "own" })).await;
    let (bobs, his) = made(&exile, &secret, json!({ "name": "his", "user": "bob" })).await;
    let (_, grandchild) = made(&exile, &his, json!({ "name": "more" })).await;
    let alice = exile.app.store.user_by_name("alice").await.unwrap().unwrap();
    let link = format!("/api/users/{}/sign-in-link", alice.id);
    let link = exile.call_as(&secret, "POST", &link, None).await;
    assert_eq!((link.status, link.header("cache-control")), (201, "no-store"), "{}", link.text);
    let link = link.json()["link"].as_str().unwrap().to_owned();
    let token = link.strip_prefix("http://127.0.0.1:8080/sign-in?token=").unwrap();
    let (session, _) = exile.app.store.redeem_sign_in(token).await.unwrap().unwrap();
    let visit = async |method: &str, path: &str, body: Option<Value>| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "exile.test")
            .header(header::ORIGIN, "http://exile.test")
            .header(header::COOKIE, format!("{COOKIE}={session}"));
        exile.send(with_json(request, body)).await
    };
    let hers = visit("POST", "/api/keys", Some(json!({ "name": "hers" }))).await.json();
    let hers = hers["secret"].as_str().unwrap();
    let listed = exile.call_as(&exile.admin, "GET", "/api/keys?user=bob", None).await.json();
    let listed = listed["items"].as_array().unwrap().clone();
    let of_bob = listed.iter().find(|key| key["id"] == bobs).unwrap();
    assert_eq!((&of_bob["parent"], &of_bob["state"]), (&json!(parent), &json!("active")));
    for key in [&own, &his, &grandchild, hers] {
        assert!(works(&exile, key).await);
    }
    assert_eq!(visit("GET", "/api/users/me", None).await.status, 200);

    let end = format!("/api/keys/{parent}");
    assert_eq!(exile.call_as(&exile.admin, "DELETE", &end, None).await.status, 204);
    for key in [&secret, &own, &his, &grandchild, hers] {
        assert!(!works(&exile, key).await, "it outlived the key that it comes from");
    }
    assert_eq!(visit("GET", "/api/users/me", None).await.status, 401);
    let listed = exile.call_as(&exile.admin, "GET", "/api/keys?user=bob", None).await.json();
    let states = listed["items"].as_array().unwrap().iter();
    let states: Vec<&Value> = states.map(|key| &key["state"]).collect();
    assert_eq!(states, ["active", "revoked", "revoked"]);
}

#[tokio::test]
async fn a_key_makes_none_that_expires_after_it() {
    let exile = Exile::start().await;
    let soon = later(&exile, Duration::from_hours(1));
    let body = json!({ "name": "brief", "expires_at": soon });
    let (_, brief) = made(&exile, &exile.admin, body).await;
    let after = later(&exile, Duration::from_hours(2));
    let refused = make(&exile, &brief, json!({ "name": "k", "expires_at": after })).await;
    assert_eq!((refused.status, refused.code().as_str()), (422, "invalid_field"));
    assert_eq!(refused.problem()["field"], "expires_at");
    for user in ["admin", "bob"] {
        let child = make(&exile, &brief, json!({ "name": "k", "user": user })).await;
        let expires: Timestamp = child.json()["expires_at"].as_str().unwrap().parse().unwrap();
        assert_eq!(expires.as_millisecond(), soon.as_millisecond(), "with its maker");
    }
    let past = later(&exile, Duration::ZERO);
    let refused = make(&exile, &exile.admin, json!({ "name": "k", "expires_at": past })).await;
    assert_eq!((refused.status, refused.problem()["field"].clone()), (422, json!("expires_at")));
}

#[tokio::test]
async fn a_key_has_no_more_than_the_role_of_the_key_that_made_it() {
    let exile = Exile::start().await;
    let root = exile.app.store.create_user("root", Role::Admin).await.unwrap();
    let (_, roots) = exile.app.store.create_key(&root.id, "k", &[], None).await.unwrap();
    let (_, child) = made(&exile, &roots, json!({ "name": "k", "user": "admin" })).await;
    assert_eq!(status(&exile, &child, ("GET", "/api/users")).await, 200);
    let path = format!("/api/users/{}", root.id);
    let degrade = json!({ "role": "user" });
    assert_eq!(exile.call_as(&exile.admin, "PATCH", &path, Some(degrade)).await.status, 200);
    assert_eq!(status(&exile, &child, ("GET", "/api/users")).await, 403, "at once");
    assert!(works(&exile, &child).await, "as a plain user");
    let disable = json!({ "disabled": true });
    assert_eq!(exile.call_as(&exile.admin, "PATCH", &path, Some(disable)).await.status, 200);
    assert!(!works(&exile, &child).await);
}

#[tokio::test]
async fn scopes_restrict_and_do_not_add() {
    let exile = Exile::start().await;
    let scoped = async |scopes: &[&str]| {
        made(&exile, &exile.admin, json!({ "name": "k", "scopes": scopes })).await.1
    };
    let (metrics, read) = (scoped(&["metrics"]).await, scoped(&["read"]).await);
    let (run, acts) = (scoped(&["run"]).await, scoped(&["act_as"]).await);
    let figures = ("GET", "/metrics");
    let me = ("GET", "/api/users/me");
    let users = ("GET", "/api/users");
    let call = ("POST", "/api/tools/halve/call");
    let talk = ("POST", "/api/conversations");
    let mint = ("POST", "/api/keys");
    // What each of them is answered: figures, me, users, a tool, a conversation, a key.
    let requests = [figures, me, users, call, talk, mint];
    let expected = [
        (&metrics, [200, 403, 403, 403, 403, 403]),
        (&read, [200, 200, 200, 403, 403, 403]),
        (&run, [403, 200, 403, 403, 201, 403]),
        (&acts, [403, 200, 403, 403, 201, 403]),
    ];
    for (key, answers) in expected {
        for (request, answer) in requests.into_iter().zip(answers) {
            assert_eq!(status(&exile, key, request).await, answer, "{request:?}");
        }
    }
    // An administrator's key that may only run sees nothing that others do not.
    let answer = exile.call_as(&run, "GET", "/api/runs?owner=bob", None).await;
    assert_ne!(answer.status, 200);
    // A plain user makes keys that may do less than they, and none that measures or acts.
    for (scope, answer) in [("read", 201), ("run", 201), ("metrics", 403), ("act_as", 403)] {
        let body = json!({ "name": "k", "scopes": [scope] });
        assert_eq!(make(&exile, &exile.alice, body).await.status, answer, "{scope}");
    }
}

#[tokio::test]
async fn a_key_that_acts_for_others_leaves_nothing_of_theirs_behind() {
    let exile = Exile::start().await;
    let acting = async |scopes: &[&str], method: &str, path: &str| {
        let body = json!({ "name": "k", "scopes": scopes });
        let (_, key) = made(&exile, &exile.admin, body).await;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {key}"))
            .header("x-exile-user", "bob");
        exile.send(with_json(request, (method == "POST").then(|| json!({ "name": "k" })))).await
    };
    for (method, path) in [("POST", "/api/keys"), ("GET", "/api/keys"), ("DELETE", "/api/keys/x")] {
        let answer = acting(&["act_as"], method, path).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{method} {path}");
    }
    assert_eq!(acting(&["act_as", "read"], "GET", "/api/runs").await.status, 200);
    assert_eq!(acting(&["act_as", "read"], "GET", "/api/keys").await.status, 403);
    assert_eq!(acting(&["act_as", "read"], "POST", "/api/conversations").await.status, 403);
    let bob = exile.app.store.user_by_name("bob").await.unwrap().unwrap();
    assert_eq!(exile.app.store.count_keys(&bob.id).await.unwrap(), 1, "his own");
}

#[tokio::test]
async fn making_keys_makes_no_room_in_a_quota() {
    let exile = Exile::start().await;
    let quota = json!({ "requests": "2/day" });
    let set = exile.call_as(&exile.admin, "PUT", "/api/quotas/key/*", Some(quota)).await;
    assert_eq!(set.status, 200, "{}", set.text);
    let ask = async |key: &str| {
        let message = json!({ "role": "user", "content": "hi" });
        let body = json!({ "model": "mock/any", "messages": [message] });
        exile.call_as(key, "POST", "/v1/chat/completions", Some(body)).await.status
    };
    assert_eq!([ask(&exile.alice).await, ask(&exile.alice).await], [200, 200]);
    assert_eq!(ask(&exile.alice).await, 429);
    let (_, child) = made(&exile, &exile.alice, json!({ "name": "fresh" })).await;
    assert_eq!(ask(&child).await, 429, "the same quota");
    let (_, grandchild) = made(&exile, &child, json!({ "name": "fresher" })).await;
    assert_eq!(ask(&grandchild).await, 429);
    // A session, which shows no key, makes no room either.
    let alice = exile.app.store.user_by_name("alice").await.unwrap().unwrap();
    let (token, _) = exile.app.store.create_sign_in(&alice.id, None).await.unwrap();
    let (session, _) = exile.app.store.redeem_sign_in(&token).await.unwrap().unwrap();
    let request = Request::builder()
        .method("POST")
        .uri("/api/keys")
        .header(header::HOST, "exile.test")
        .header(header::ORIGIN, "http://exile.test")
        .header(header::COOKIE, format!("{COOKIE}={session}"));
    let body = Some(json!({ "name": "by hand" }));
    let by_hand = exile.send(with_json(request, body)).await.json();
    assert_eq!(ask(by_hand["secret"].as_str().unwrap()).await, 429);
    // What an administrator gives is a quota of its own.
    let (_, given) = made(&exile, &exile.admin, json!({ "name": "given", "user": "alice" })).await;
    assert_eq!(ask(&given).await, 200);
}

#[tokio::test]
async fn keys_are_bounded_in_number_and_in_how_far_they_come_from_one() {
    let exile = Exile::start().await;
    let mut key = exile.admin.clone();
    let mut generations = 0;
    let refused = loop {
        let answer = make(&exile, &key, json!({ "name": "k" })).await;
        if answer.status != 201 {
            break answer;
        }
        generations += 1;
        key = answer.json()["secret"].as_str().unwrap().to_owned();
    };
    assert_eq!((generations, refused.status), (8, 422), "{}", refused.text);
    let exile = exile.with_limits(|limits| limits.keys = 3);
    for answer in [201, 201, 422] {
        assert_eq!(make(&exile, &exile.bob, json!({ "name": "k" })).await.status, answer);
    }
    for name in [String::new(), "n".repeat(101), "a\tb".to_owned()] {
        let refused = make(&exile, &exile.admin, json!({ "name": name })).await;
        assert_eq!(refused.problem()["field"], "name");
    }
    let first = exile.call_as(&exile.bob, "GET", "/api/keys?limit=2", None).await.json();
    let next = first["next"].as_str().unwrap();
    let second = format!("/api/keys?limit=2&after={next}");
    let second = exile.call_as(&exile.bob, "GET", &second, None).await.json();
    assert_eq!((second["items"].as_array().unwrap().len(), &second["next"]), (1, &Value::Null));
}

#[tokio::test]
async fn a_key_of_before_goes_on_as_it_was() {
    let exile = Exile::start().await;
    let unknown = ["of_tomorrow".to_owned()];
    let bob = exile.app.store.user_by_name("bob").await.unwrap().unwrap();
    let (_, odd) = exile.app.store.create_key(&bob.id, "k", &unknown, None).await.unwrap();
    assert_eq!(status(&exile, &odd, ("GET", "/api/users/me")).await, 403, "nothing is guessed");
    let nowhere = Request::builder()
        .uri("/api/nothing")
        .header("authorization", format!("Bearer {odd}"))
        .body(Body::empty())
        .unwrap();
    assert_eq!(exile.send(nowhere).await.status, 404);
}
