//! Health, the first page, and the headers of every answer.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use exile_server::config::{Environment, TransportLimits};
use exile_server::store::{self, Role};
use serde_json::json;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::fixture::{Answer, Exile};

async fn visit(exile: &Exile, path: &str) -> Answer {
    exile.send(Request::builder().uri(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn ready_in_development_whatever_keys_are_missing() {
    let exile = Exile::start().await;
    for path in ["/healthz", "/readyz"] {
        let answer = visit(&exile, path).await;
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("ok")));
    }
}

#[tokio::test]
async fn what_is_missing_in_production_is_told_to_administrators_alone() {
    let exile = Exile::in_environment(Environment::Production).await;
    assert_eq!(visit(&exile, "/healthz").await.status, 200);
    let stranger = visit(&exile, "/readyz").await;
    let user = exile.call("GET", "/readyz", None).await;
    let wrong = exile.call_as("no-such-key", "GET", "/readyz", None).await;
    for answer in [stranger, user, wrong] {
        assert_eq!((answer.status, answer.code().as_str()), (503, "not_ready"));
        let told = answer.problem();
        assert_eq!(told["reasons"], json!(["a provider of models is not set up"]));
        assert!(!answer.text.contains("KEYLESS_API_KEY"), "{}", answer.text);
    }
    let administrator = exile.call_as(&exile.admin, "GET", "/readyz", None).await.problem();
    assert_eq!(administrator["reasons"], json!(["keyless: no API key: set KEYLESS_API_KEY"]));
}

/// Somebody else's hold on the database.
async fn lock(exile: &Exile) -> SqliteConnection {
    let options = exile_server::store::options(&exile.database());
    let mut other = options.connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    other
}

#[tokio::test]
async fn whoever_asks_is_answered_while_the_database_is_locked() {
    let ready_wait = Duration::from_millis(20);
    let exile = Exile::limited(TransportLimits { ready_wait, ..TransportLimits::default() }).await;
    assert_eq!(exile.call_as(&exile.admin, "GET", "/api/users", None).await.status, 200);
    let mut other = lock(&exile).await;
    let asking = (0..16).map(|_| visit(&exile, "/readyz"));
    for answer in futures_util::future::join_all(asking).await {
        assert_eq!((answer.status, answer.code().as_str()), (503, "not_ready"));
        assert_eq!(answer.problem()["reasons"], json!(["the database cannot be used"]));
    }
    let administrator = exile.call_as(&exile.admin, "GET", "/readyz", None).await.problem();
    assert_eq!(administrator["reasons"], json!(["the database did not answer within 20ms"]));
    assert_eq!(visit(&exile, "/healthz").await.status, 200);
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    while visit(&exile, "/readyz").await.status != 200 {}
}

#[tokio::test]
async fn those_who_ask_whether_it_is_ready_do_not_add_up_to_writes() {
    let exile = Exile::start().await;
    let options = exile_server::store::options(&exile.database());
    let mut other = options.connect().await.unwrap();
    let (began, mut writes, mut last) = (exile.app.env.monotonic(), 0, 0);
    for _ in 0..200 {
        assert_eq!(visit(&exile, "/readyz").await.status, 200);
        let version = sqlx::query_scalar("PRAGMA data_version");
        let version: i64 = version.fetch_one(&mut other).await.unwrap();
        writes += u64::from(std::mem::replace(&mut last, version) != version);
    }
    let seconds = exile.app.env.monotonic().saturating_sub(began).as_secs();
    assert!(writes <= seconds + 2, "{writes} in {seconds} seconds");
}

#[tokio::test]
async fn a_full_disk_fails_requests_with_503_and_mends_by_itself() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("mock/any").await;
    exile.app.store.limit_pages(1).await.unwrap();
    let body = json!({ "content": "x".repeat(100_000) });
    let messages = format!("{conversation}/messages");
    let refused = exile.call("POST", &messages, Some(body.clone())).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "store_full"));
    assert_eq!(visit(&exile, "/readyz").await.code(), "not_ready");
    assert_eq!(exile.call("GET", &conversation, None).await.status, 200, "reading goes on");
    exile.app.store.limit_pages(u32::MAX).await.unwrap();
    let answer = exile.call("POST", &messages, Some(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    while visit(&exile, "/readyz").await.status != 200 {}
    let said = exile.call("GET", &messages, None).await.json();
    assert_eq!(said["items"].as_array().unwrap().len(), 2, "the refused message left nothing");
}

#[tokio::test]
async fn a_damaged_file_fails_requests_with_what_to_do() {
    let exile = Exile::start().await;
    exile.conversation("mock/any").await;
    exile.app.store.close().await.unwrap();
    let mut own = store::options(&exile.database()).connect().await.unwrap();
    let page: i64 = sqlx::query_scalar(
        "SELECT rootpage FROM sqlite_schema WHERE name = 'exile_llm_conversation'",
    )
    .fetch_one(&mut own)
    .await
    .unwrap();
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut own).await.unwrap();
    own.close().await.unwrap();
    let mut bytes = std::fs::read(exile.database()).unwrap();
    let from = usize::try_from(page - 1).unwrap() * 4096;
    bytes[from..from + 4096].fill(0x5a);
    std::fs::write(exile.database(), bytes).unwrap();
    let next = exile.next_process().await;
    let refused = next.call("GET", "/api/conversations", None).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "store_damaged"));
    assert!(refused.text.contains("backup"), "{}", refused.text);
    assert!(next.app.store.check().await.unwrap().is_some());
    assert_eq!(visit(&next, "/readyz").await.code(), "not_ready");
}

#[tokio::test]
async fn a_database_that_another_program_holds_is_said() {
    let exile = Exile::start().await;
    let mut other = store::options(&exile.database()).connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let refused = exile.call("POST", "/api/conversations", Some(json!({}))).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "store_unavailable"));
    assert!(refused.text.contains("another program holds"), "{}", refused.text);
    assert_eq!(exile.call("GET", "/api/conversations", None).await.status, 200, "reading goes on");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    let made = exile.call("POST", "/api/conversations", Some(json!({}))).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

#[tokio::test]
async fn the_first_page_speaks_both_languages_and_runs_no_script() {
    let exile = Exile::start().await;
    let page = visit(&exile, "/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    let version = env!("CARGO_PKG_VERSION");
    for text in
        [version, "It runs.", "已启动", "\"api/docs/\"", "curl", "<b>chat</b>", "development"]
    {
        assert!(page.text.contains(text), "{text}");
    }
    assert!(!page.text.contains("<script") && !page.text.contains("style="));
    for name in ["version", "graph", "mock", "session", "visitor", "host"] {
        assert!(!page.text.contains(&format!("{{{name}")), "{name}");
    }
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let named = |host: &str| Request::builder().uri("/").header("host", host).body(Body::empty());
    let page = exile.send(named("exile.test:9").unwrap()).await;
    assert!(page.text.contains("http://exile.test:9/api/runs/stream"));
    let page = exile.send(named("<script>").unwrap()).await;
    assert!(page.text.contains("http://127.0.0.1:8080/api") && !page.text.contains("<script"));
    let style = visit(&exile, "/style.css").await;
    assert!(style.header("content-type").starts_with("text/css"));
    assert!(style.text.contains("light dark"));
}

#[tokio::test]
async fn the_first_page_greets_whoever_the_sign_in_link_signed_in() {
    let exile = Exile::start().await;
    let user = exile.app.store.create_user("<b>eve", Role::User).await.unwrap();
    let token = exile.app.store.create_sign_in(&user.id, None).await.unwrap().0;
    let link = exile.sign_in(&token).await;
    let cookie = link.header("set-cookie").split(';').next().unwrap();
    let with =
        |cookie: &str| Request::builder().uri("/").header("cookie", cookie).body(Body::empty());
    let hers = exile.send(with(cookie).unwrap()).await.text;
    assert!(hers.contains("Signed in as <b>&lt;b&gt;eve</b>"), "{hers}");
    let notice =
        |page: &str| page.split("Signed in as").next().unwrap().ends_with("hidden>\n    <p>");
    assert!(!notice(&hers));
    for cookie in ["a=b", "__Host-exile=nobody"] {
        let page = exile.send(with(cookie).unwrap()).await;
        assert_eq!(page.status, 200);
        assert!(notice(&page.text), "{}", page.text);
    }
}

#[tokio::test]
async fn every_answer_tells_browsers_to_be_careful() {
    let exile = Exile::start().await;
    for path in ["/", "/healthz", "/api/runs", "/nothing"] {
        let answer = visit(&exile, path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"));
    }
}
