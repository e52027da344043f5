//! The OpenAPI document says exactly what is served.

use std::collections::{BTreeMap, BTreeSet};

use exile_server::http::auth::OPEN;
use exile_server::process::router;
use serde_json::{Value, json};

use super::fixture::Exile;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Path → documented methods.
pub(super) fn paths() -> BTreeMap<String, BTreeSet<String>> {
    let document = serde_json::to_value(router::document()).unwrap();
    let methods = |item: &Value| {
        let keys = item.as_object().unwrap().keys();
        keys.filter(|key| METHODS.contains(&key.as_str())).cloned().collect()
    };
    let paths = document["paths"].as_object().unwrap();
    paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

/// The path with something in place of every variable part.
pub(super) fn filled(path: &str, id: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { id.to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_documented_path_is_routed_and_no_other() {
    let exile = Exile::start().await;
    // axum lists its paths nowhere but in the router's debug form.
    let debug = format!("{:?}", exile.router);
    let paths_of = debug.split('"').filter(|text| text.starts_with('/'));
    let routed: BTreeSet<&str> = paths_of.filter(|path| !path.contains("__private")).collect();
    let documented = paths();
    let swagger = ["/api/docs", "/api/docs/", "/api/docs/{*rest}"];
    let expected: BTreeSet<&str> = documented.keys().map(String::as_str).chain(swagger).collect();
    assert_eq!(routed, expected);
}

#[tokio::test]
async fn every_documented_method_answers_and_no_other() {
    let exile = Exile::start().await;
    for (path, methods) in paths() {
        for method in METHODS {
            let answer = exile
                .call_as(&exile.admin, &method.to_uppercase(), &filled(&path, "none"), None)
                .await;
            let documented = methods.contains(method);
            assert_eq!(answer.status != 405, documented, "{method} {path}: {}", answer.text);
            if !documented {
                assert_eq!(answer.code(), "method_not_allowed");
            }
        }
    }
}

#[tokio::test]
async fn the_document_is_served_and_names_access_and_problems() {
    let exile = Exile::start().await;
    let served = exile.call("GET", "/api/openapi.json", None).await;
    let document = served.json();
    assert_eq!(document, serde_json::to_value(router::document()).unwrap());
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS.iter().filter_map(|m| item.get(m)) {
            let open = OPEN.contains(&path.as_str());
            assert_eq!(method.get("security").is_none(), open, "{path}");
            let (kind, schema) = if path.starts_with("/v1/") {
                ("application/json", "OpenAiError")
            } else {
                ("application/problem+json", "Report")
            };
            let error = &method["responses"]["default"]["content"][kind]["schema"]["$ref"];
            assert_eq!(*error, json!(format!("#/components/schemas/{schema}")), "{path}");
        }
        let of_post = item["post"]["parameters"].as_array();
        let keyed = of_post.is_some_and(|all| all.iter().any(|p| p["name"] == "Idempotency-Key"));
        assert_eq!(keyed, item.get("post").is_some(), "{path}");
    }
    let text = served.text;
    for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name} is not described");
    }
}

/// A body that is refused lists the fields that its route reads; they are those of its schema.
#[tokio::test]
async fn every_body_is_described_as_it_is_read() {
    let exile = Exile::start().await;
    let ids = ("/api/conversations/{id}", exile.conversation("mock/any").await);
    let document = serde_json::to_value(router::document()).unwrap();
    let mut read = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            let body = &item[method]["requestBody"]["content"]["application/json"]["schema"];
            let Some(schema) = body["$ref"].as_str() else { continue };
            let schema = schema.rsplit('/').next().unwrap();
            let properties = &document["components"]["schemas"][schema]["properties"];
            let described: BTreeSet<&str> =
                properties.as_object().unwrap().keys().map(String::as_str).collect();
            let (prefix, own) = &ids;
            let target = path.replace(prefix, own).replace("{name}", "halve");
            let body = Some(json!({ "no such field": 1 }));
            let verb = method.to_uppercase();
            let refused = exile.call(&verb, &target, body).await;
            let detail = refused.problem()["detail"].as_str().unwrap().to_owned();
            let known = detail.split("expected").nth(1).unwrap_or_else(|| panic!("{detail}"));
            let known: BTreeSet<&str> = known.split('`').skip(1).step_by(2).collect();
            assert_eq!(described, known, "{method} {path}: {schema}");
            read += 1;
        }
    }
    assert!(read >= 8, "only {read} bodies were read");
}

#[tokio::test]
async fn the_api_page_needs_no_other_host() {
    let exile = Exile::start().await;
    for path in ["/api/docs/", "/api/docs/swagger-initializer.js", "/api/docs/swagger-ui.css"] {
        let answer = exile.call("GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("http"), "{policy}");
    }
    let page = exile.call("GET", "/api/docs/", None).await.text;
    let loaded = page.split("src=\"").skip(1).chain(page.split("href=\"").skip(1));
    let elsewhere: Vec<&str> =
        loaded.filter(|rest| rest.starts_with("http") || rest.starts_with("//")).collect();
    assert_eq!(elsewhere, Vec::<&str>::new());
}
