//! Every route against every role and every scope, generated from the OpenAPI document: a route that
//! is added must be put where it belongs.

use exile_server::http::auth::OPEN;
use exile_server::store::Role;
use serde_json::{Value, json};

use super::document::{filled, paths};
use super::fixture::Exile;

/// Routes for administrators; all others are for everybody.
const ADMINISTRATION: &[(&str, &str)] = &[
    ("get", "/api/quotas"),
    ("put", "/api/quotas/{kind}/{name}"),
    ("delete", "/api/quotas/{kind}/{name}"),
    ("get", "/api/users"),
    ("post", "/api/users"),
    ("get", "/api/users/{id}"),
    ("patch", "/api/users/{id}"),
    ("delete", "/api/users/{id}"),
    ("post", "/api/users/{id}/sign-in-link"),
    ("post", "/api/models/probe"),
    ("get", "/metrics"),
];

/// Beginnings of the paths that a key with the scope `run` reaches.
const RUNS: &[&str] = &["/api/conversations", "/api/runs", "/v1/"];

/// What it reads besides.
const RUNS_READ: &[&str] = &[
    "/api/graphs",
    "/api/graphs/{name}",
    "/api/skills",
    "/api/skills/{name}",
    "/api/tools",
    "/api/models",
    "/api/protocol",
    "/api/users/me",
];

/// A body that can be read, so that only access can refuse.
fn body(method: &str, path: &str) -> Option<Value> {
    let body = match path {
        "/api/users" | "/api/keys" => json!({ "name": "" }),
        "/api/conversations/{id}/messages" => json!({ "content": "hi" }),
        "/api/runs/{id}/resume" => json!({ "answers": { "int_1": "yes" } }),
        "/api/runs/{id}/resolve" => json!({ "action": "retry" }),
        "/api/models/probe" => json!({ "model": "ghost/any" }),
        "/api/runs" | "/api/runs/wait" | "/api/runs/stream" => json!({ "graph": "ghost" }),
        _ => json!({}),
    };
    matches!(method, "post" | "patch" | "put").then_some(body)
}

/// Whether a key is let in, whatever it is told then.
async fn is_let_in(exile: &Exile, key: &str, method: &str, path: &str) -> bool {
    let at = filled(&path.replace("{kind}", "user"), "none");
    let answer = exile.call_as(key, &method.to_uppercase(), &at, body(method, path)).await;
    assert_ne!(answer.status, 401, "{method} {path}");
    answer.status != 403
}

fn documented() -> Vec<(String, String)> {
    let all = paths().into_iter().filter(|(path, _)| !OPEN.contains(&path.as_str()));
    all.flat_map(|(path, methods)| methods.into_iter().map(move |m| (m, path.clone()))).collect()
}

#[tokio::test]
async fn every_route_is_for_its_roles() {
    let exile = Exile::start().await;
    let author = exile.user("ann", Role::Author).await;
    for (method, path) in documented() {
        let path_of = path.replace("{*name}", "{name}");
        let for_all = !ADMINISTRATION.contains(&(&method, &path_of));
        for (role, key, is_admin) in [
            ("user", &exile.alice, false),
            ("author", &author, false),
            ("admin", &exile.admin, true),
        ] {
            let expected = for_all || is_admin;
            let let_in = is_let_in(&exile, key, &method, &path).await;
            assert_eq!(let_in, expected, "{role}: {method} {path}");
        }
    }
}

#[tokio::test]
async fn every_route_is_for_its_scopes() {
    let exile = Exile::start().await;
    let scoped = async |scopes: &[&str]| {
        let body = json!({ "name": "k", "scopes": scopes });
        let made = exile.call_as(&exile.admin, "POST", "/api/keys", Some(body)).await;
        made.json()["secret"].as_str().unwrap().to_owned()
    };
    let (metrics, read) = (scoped(&["metrics"]).await, scoped(&["read"]).await);
    let (run, acts) = (scoped(&["run"]).await, scoped(&["act_as"]).await);
    let both = scoped(&["act_as", "read"]).await;
    for (method, path) in documented() {
        let reads = method == "get";
        let of_runs = RUNS.iter().any(|beginning| path.starts_with(beginning))
            || (reads && RUNS_READ.contains(&path.as_str()));
        for (scope, key, expected) in [
            ("metrics", &metrics, path == "/metrics"),
            ("read", &read, reads),
            ("run", &run, of_runs),
            ("act_as", &acts, of_runs),
            ("act_as and read", &both, reads),
        ] {
            let let_in = is_let_in(&exile, key, &method, &path).await;
            assert_eq!(let_in, expected, "{scope}: {method} {path}");
        }
    }
}
