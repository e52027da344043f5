//! Who may do what: generated from the OpenAPI document, so that a new route is covered by being
//! there.

use axum::body::Body;
use axum::http::{Request, header};
use exile_server::http::auth::{COOKIE, OPEN};
use serde_json::{Value, json};

use super::document::{filled, paths};
use super::fixture::{Answer, Exile, with_json};

/// A body that the route accepts, so that only access can refuse.
fn body(method: &str, path: &str) -> Option<Value> {
    let message = json!({ "content": "hi" });
    match (method, path) {
        ("post", "/api/conversations/{id}/messages") => Some(message),
        ("post", "/api/runs/{id}/resume") => Some(json!({ "answers": { "int_1": "yes" } })),
        ("post", "/api/runs/{id}/resolve") => Some(json!({ "action": "retry" })),
        ("post" | "patch", _) => Some(json!({})),
        _ => None,
    }
}

#[tokio::test]
async fn without_a_key_every_route_is_shut_that_is_not_listed_open() {
    let exile = Exile::start().await;
    for (path, methods) in paths() {
        for method in methods {
            let request =
                Request::builder().method(&*method.to_uppercase()).uri(filled(&path, "some-id"));
            let answer = exile.send(with_json(request, body(&method, &path))).await;
            if !OPEN.contains(&path.as_str()) {
                assert_eq!(answer.status, 401, "{method} {path}");
                let openai = path.starts_with("/v1/");
                let code = if openai { "invalid_api_key" } else { "unauthorized" };
                assert_eq!(answer.code(), code, "{path}");
                assert_eq!(answer.header("www-authenticate"), "Bearer");
            } else if path != "/sign-in" && path != "/api/holder" {
                assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text);
            }
        }
    }
    let unknown = Request::builder().uri("/api/nothing").body(Body::empty()).unwrap();
    assert_eq!(exile.send(unknown).await.status, 401, "an unknown path is no way around");
}

#[tokio::test]
async fn another_owners_id_reads_like_an_unknown_one() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("gate/any").await;
    let run = exile.waiting_run().await;
    let key = exile.call("POST", "/api/keys", Some(json!({ "name": "hers" }))).await;
    let last = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let ids = [
        ("/api/conversations/{id}", last(&conversation)),
        ("/api/runs/{id}", last(&run)),
        ("/api/keys/{id}", last(key.header("location"))),
    ];
    // Whether a user is there is for administrators to know.
    let walked_ids = |path: &String| path.contains("{id}") && !path.starts_with("/api/users/");
    let mut walked = 0;
    for (path, methods) in paths().into_iter().filter(|(path, _)| walked_ids(path)) {
        let (_, id) =
            ids.iter().find(|(prefix, _)| path.starts_with(prefix)).unwrap_or_else(|| {
                panic!("{path} has an id that this test does not make: add one to `ids`")
            });
        for method in methods {
            let body = body(&method, &path);
            let verb = method.to_uppercase();
            let hers = exile.call_as(&exile.bob, &verb, &filled(&path, id), body.clone()).await;
            let none = exile.call_as(&exile.bob, &verb, &filled(&path, "none"), body).await;
            assert_eq!(hers.status, 404, "{method} {path}");
            assert_eq!(hers.problem(), none.problem(), "{method} {path}");
            walked += 1;
        }
    }
    assert!(walked >= 11, "only {walked} routes were walked");
    // Nothing of it touched what is hers.
    assert_eq!(exile.call("GET", &conversation, None).await.status, 200);
    let said = exile.call("GET", &format!("{conversation}/messages"), None).await.json();
    assert_eq!(said["items"], json!([]));
    let secret = key.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!(exile.call_as(&secret, "GET", "/api/users/me", None).await.status, 200);
    exile.gate.add_permits(1);
    let events = exile.call("GET", &format!("{run}/stream"), None).await.events();
    assert_eq!(events.last().unwrap().name, "run.finished", "it was not cancelled");
}

#[tokio::test]
async fn lists_and_named_conversations_show_the_callers_own_only() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("mock/any").await;
    let id = conversation.rsplit('/').next().unwrap();
    exile.call("POST", "/api/runs", Some(json!({ "graph": "add" }))).await;
    for path in ["/api/conversations", "/api/runs"] {
        let mine = exile.call("GET", path, None).await.json();
        let his = exile.call_as(&exile.bob, "GET", path, None).await.json();
        assert_eq!((mine["items"].as_array().unwrap().len(), &his["items"]), (1, &json!([])));
    }
    let body = json!({ "conversation_id": id, "input": { "messages": "hi" } });
    for path in ["/api/runs", "/api/runs/wait", "/api/runs/stream"] {
        let answer = exile.call_as(&exile.bob, "POST", path, Some(body.clone())).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
}

#[tokio::test]
async fn only_a_whole_valid_key_opens() {
    let exile = Exile::start().await;
    let good = exile.alice.clone();
    let [shorter, longer] = [good[..good.len() - 1].to_owned(), format!("{good}A")];
    let refused = [
        String::new(),
        "Bearer".into(),
        "Bearer ".into(),
        "Bearer null".into(),
        format!("Bearer {shorter}"),
        format!("Bearer {longer}"),
        format!("Basic {good}"),
        good.clone(),
        "Bearer ' OR 1=1 --".into(),
    ];
    for value in refused {
        let request = Request::builder().uri("/api/users/me").header("authorization", &value);
        let answer = exile.send(with_json(request, None)).await;
        assert_eq!(answer.status, 401, "{value:?}");
    }
    let twice = Request::builder()
        .uri("/api/users/me")
        .header("authorization", format!("Bearer {good}"))
        .header("authorization", format!("Bearer {good}"));
    assert_eq!(exile.send(with_json(twice, None)).await.status, 401);
    let named = Request::builder()
        .uri("/api/users/me")
        .header("authorization", format!("bearer {good}"))
        .header("x-exile-user", "bob");
    let answer = exile.send(with_json(named, None)).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"));
}

#[tokio::test]
async fn a_key_that_may_act_as_others_owns_their_rows_and_gains_no_role() {
    let exile = Exile::start().await;
    let body = json!({ "name": "app", "scopes": ["act_as"] });
    let mine = exile.call("POST", "/api/keys", Some(body.clone())).await;
    assert_eq!(mine.status, 403, "only an administrator makes such a key");
    let key = exile.call_as(&exile.admin, "POST", "/api/keys", Some(body)).await;
    let key = key.json()["secret"].as_str().unwrap().to_owned();
    let as_user = async |name: &str, method: &str, path: &str, body: Option<Value>| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {key}"))
            .header("x-exile-user", name.as_bytes());
        exile.send(with_json(request, body)).await
    };
    let made = as_user("bob", "POST", "/api/conversations", Some(json!({}))).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let path = made.header("location");
    assert_eq!(exile.call_as(&exile.bob, "GET", path, None).await.status, 200, "it is Bob's");
    assert_eq!(exile.call_as(&key, "GET", path, None).await.status, 404, "and not the key's");
    assert_eq!(as_user("小红", "GET", path, None).await.status, 404, "nor another user's");
    let new = as_user("小红", "GET", "/api/users/me", None).await.json();
    assert_eq!((new["name"].as_str(), new["role"].as_str()), (Some("小红"), Some("user")));
    let admin = as_user("admin", "GET", "/api/users", None).await;
    assert_eq!((admin.status, admin.code().as_str()), (403, "forbidden"));
    assert_eq!(as_user("bob", "GET", "/api/users", None).await.status, 403, "the key's own role");
    let nobody = as_user("", "GET", "/api/users/me", None).await;
    assert_eq!((nobody.status, nobody.code().as_str()), (400, "malformed_request"));
}

#[tokio::test]
async fn a_revoked_key_stops_at_once_and_is_never_shown_again() {
    let exile = Exile::start().await;
    let created = exile.call("POST", "/api/keys", Some(json!({ "name": "laptop" }))).await;
    assert_eq!((created.status, created.header("cache-control")), (201, "no-store"));
    let secret = created.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!(exile.call_as(&secret, "GET", "/api/users/me", None).await.status, 200);
    let listed = exile.call("GET", "/api/keys", None).await;
    assert!(!listed.text.contains(&secret) && listed.text.contains("laptop"));
    let location = created.header("location").to_owned();
    assert_eq!(exile.call("DELETE", &location, None).await.status, 204);
    assert_eq!(exile.call_as(&secret, "GET", "/api/users/me", None).await.status, 401);
}

#[tokio::test]
async fn users_and_other_peoples_keys_are_for_administrators() {
    let exile = Exile::start().await;
    let new = json!({ "name": "carol", "role": "author" });
    let forbidden = exile.call("POST", "/api/users", Some(new.clone())).await;
    assert_eq!((forbidden.status, forbidden.code().as_str()), (403, "forbidden"));
    assert_eq!(exile.call("GET", "/api/users", None).await.status, 403);
    let key = json!({ "name": "k", "user": "bob" });
    assert_eq!(exile.call("POST", "/api/keys", Some(key.clone())).await.status, 403);
    assert_eq!(exile.call("GET", "/api/keys?user=bob", None).await.status, 403);

    let as_admin = async |method, path, body| exile.call_as(&exile.admin, method, path, body).await;
    assert_eq!(as_admin("POST", "/api/users", Some(new.clone())).await.status, 201);
    let taken = as_admin("POST", "/api/users", Some(new)).await;
    assert_eq!((taken.status, taken.code().as_str()), (409, "name_taken"));
    let created = as_admin("POST", "/api/keys", Some(key)).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let secret = created.json()["secret"].as_str().unwrap().to_owned();
    let me = exile.call_as(&secret, "GET", "/api/users/me", None).await.json();
    assert_eq!((me["name"].as_str(), me["role"].as_str()), (Some("bob"), Some("user")));
    let ghost = as_admin("GET", "/api/keys?user=ghost", None).await;
    assert_eq!((ghost.status, ghost.code().as_str()), (422, "unknown_user"));
    let scoped = json!({ "name": "k", "scopes": ["root"] });
    let scoped = as_admin("POST", "/api/keys", Some(scoped)).await;
    assert_eq!((scoped.status, scoped.code().as_str()), (422, "invalid_field"));
}

async fn with_cookie(
    exile: &Exile,
    cookie: &str,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "exile.test:8080")
        .header(header::COOKIE, format!("other=1; {cookie}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    exile.send(with_json(request, (method == "POST").then(|| json!({})))).await
}

#[tokio::test]
async fn a_sign_in_link_works_once_and_its_session_ends_on_sign_out() {
    let exile = Exile::start().await;
    let user = exile.app.store.user_by_name("alice").await.unwrap().unwrap();
    let token = exile.app.store.create_sign_in(&user.id, None).await.unwrap().0;
    let first = exile.sign_in(&token).await;
    assert_eq!((first.status, first.header("location")), (303, "./"));
    let set = first.header("set-cookie").to_owned();
    for part in [COOKIE, "Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains(&token), "the session is not the link's token");
    let second = exile.sign_in(&token).await;
    assert_eq!((second.status, second.header("set-cookie")), (401, ""));

    let cookie = set.split(';').next().unwrap();
    let me = ("GET", "/api/users/me");
    assert_eq!(with_cookie(&exile, cookie, me, &[]).await.json()["name"], "alice");
    let origin = [("origin", "http://exile.test:8080")];
    let out = with_cookie(&exile, cookie, ("POST", "/api/sign-out"), &origin).await;
    assert_eq!(out.status, 204, "{}", out.text);
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(with_cookie(&exile, cookie, me, &[]).await.status, 401, "ended on the server too");
}

#[tokio::test]
async fn a_session_changes_nothing_for_another_site() {
    let exile = Exile::start().await;
    let user = exile.app.store.user_by_name("alice").await.unwrap().unwrap();
    let token = exile.app.store.create_sign_in(&user.id, None).await.unwrap().0;
    let (session, _) = exile.app.store.redeem_sign_in(&token).await.unwrap().unwrap();
    let cookie = format!("{COOKIE}={session}");
    let create = ("POST", "/api/conversations");
    let foreign: [&[(&str, &str)]; 7] = [
        &[],
        &[("origin", "http://evil.test")],
        &[("origin", "http://exile.test")],
        &[("origin", "http://exile.test:8080.evil.test")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("origin", "http://evil.test"), ("sec-fetch-site", "same-origin")],
    ];
    for headers in foreign {
        let answer = with_cookie(&exile, &cookie, create, headers).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "foreign_origin"), "{headers:?}");
    }
    assert_eq!(exile.call("GET", "/api/conversations", None).await.json()["items"], json!([]));
    for origin in ["http://exile.test:8080", "https://exile.test:8080"] {
        let answer = with_cookie(&exile, &cookie, create, &[("origin", origin)]).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
}
