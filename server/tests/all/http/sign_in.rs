//! Signing in: with a link that is spent once and by nobody but people, at the server's own address,
//! behind TLS, and behind a proxy.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::Request;
use exile_server::config::Proxies;
use exile_server::http::auth::COOKIE;
use exile_server::http::peer::Peer;

use super::fixture::{Answer, Exile};

const PUBLIC: &str = "https://exile.example/chat";
const PROXY: &str = "10.0.0.1";

/// Behind a proxy that speaks TLS, as `public_url` and `trusted_proxies` say.
fn behind_a_proxy(exile: &Exile) -> Exile {
    exile.with_settings(|settings| {
        settings.url = PUBLIC.into();
        settings.trusted_proxies = Proxies::parse(&[PROXY.to_owned()]).unwrap();
    })
}

async fn link(exile: &Exile) -> String {
    let user = exile.app.store.user_by_name("alice").await.unwrap().unwrap();
    exile.app.store.create_sign_in(&user.id, None).await.unwrap().0
}

async fn ask(
    exile: &Exile,
    (method, path, body): (&str, &str, String),
    peer: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::from(body)).unwrap();
    request.extensions_mut().insert(Peer(peer.parse::<IpAddr>().unwrap()));
    exile.send(request).await
}

async fn look(exile: &Exile, token: &str, peer: &str, headers: &[(&str, &str)]) -> Answer {
    ask(exile, ("GET", &format!("/sign-in?token={token}"), String::new()), peer, headers).await
}

async fn press(exile: &Exile, token: &str, peer: &str, headers: &[(&str, &str)]) -> Answer {
    ask(exile, ("POST", "/sign-in", format!("token={token}")), peer, headers).await
}

/// Whether a page has its button.
fn has_button(page: &Answer, token: &str) -> bool {
    page.text.contains(&format!("value=\"{token}\"")) && page.text.contains("\"wide\" >")
}

#[tokio::test]
async fn looking_at_a_link_spends_nothing() {
    let exile = Exile::start().await;
    let token = link(&exile).await;
    for method in ["GET", "HEAD", "GET"] {
        let path = format!("/sign-in?token={token}");
        let at = [("host", "127.0.0.1:8080")];
        let page = ask(&exile, (method, &path, String::new()), "127.0.0.1", &at).await;
        assert_eq!((page.status, page.header("set-cookie")), (200, ""), "{method}");
        assert_eq!(page.header("cache-control"), "no-store");
        assert!(method == "HEAD" || has_button(&page, &token), "{}", page.text);
    }
    assert_eq!(press(&exile, &token, "127.0.0.1", &[]).await.status, 303);
}

#[tokio::test]
async fn behind_tls_and_a_proxy_the_button_signs_in_and_the_session_may_change_things() {
    let exile = behind_a_proxy(&Exile::start().await);
    let token = link(&exile).await;
    let said = [("host", "10.0.0.5:8080"), ("x-forwarded-proto", "https")];
    assert!(has_button(&look(&exile, &token, PROXY, &said).await, &token));
    let own = [("host", "10.0.0.5:8080"), ("origin", "https://exile.example")];
    let signed_in = press(&exile, &token, PROXY, &own).await;
    assert_eq!((signed_in.status, signed_in.header("location")), (303, "./"), "{}", signed_in.text);
    let set = signed_in.header("set-cookie");
    for part in [COOKIE, "Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(set.contains(part), "{set}");
    }
    let cookie = set.split(';').next().unwrap();
    let create = async |origin: &str| {
        let headers = [("host", "10.0.0.5:8080"), ("origin", origin), ("cookie", cookie)];
        ask(&exile, ("POST", "/api/conversations", String::new()), PROXY, &headers).await.status
    };
    assert_eq!(create("https://exile.example").await, 201);
    for foreign in ["http://exile.example", "https://exile.example:8443", "https://evil.example"] {
        assert_eq!(create(foreign).await, 403, "{foreign}");
    }
    let page = ask(&exile, ("GET", "/", String::new()), PROXY, &[("cookie", cookie)]).await;
    assert!(page.text.contains("https://exile.example/chat/api/runs/stream"), "{}", page.text);
}

#[tokio::test]
async fn links_lead_to_the_public_address() {
    let exile = behind_a_proxy(&Exile::start().await);
    let alice = exile.app.store.user_by_name("alice").await.unwrap().unwrap();
    let path = format!("/api/users/{}/sign-in-link", alice.id);
    let made = exile.call_as(&exile.admin, "POST", &path, None).await.json();
    let link = made["link"].as_str().unwrap();
    assert!(link.starts_with("https://exile.example/chat/sign-in?token="), "{link}");
}

#[tokio::test]
async fn a_link_is_not_spent_where_browsers_keep_no_session() {
    let exile = Exile::start().await;
    let token = link(&exile).await;
    let plain = [("host", "192.0.2.1:8080")];
    let page = look(&exile, &token, "192.0.2.7", &plain).await;
    assert!(!has_button(&page, &token) && page.text.contains("public_url"), "{}", page.text);
    let origin = ("origin", "http://192.0.2.1:8080");
    let refused = press(&exile, &token, "192.0.2.7", &[plain[0], origin]).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "insecure_origin"));
    let shown =
        press(&exile, &token, "192.0.2.7", &[plain[0], origin, ("accept", "text/html")]).await;
    assert_eq!((shown.status, shown.header("set-cookie")), (403, ""));
    assert!(shown.header("content-type").starts_with("text/html"), "{}", shown.text);
    // Anybody can say https; a proxy that nobody named is anybody.
    let forwarded = [plain[0], ("x-forwarded-proto", "https")];
    assert!(!has_button(&look(&exile, &token, "192.0.2.7", &forwarded).await, &token));
    assert!(has_button(&look(&exile, &token, "127.0.0.1", &forwarded).await, &token));
    assert_eq!(press(&exile, &token, "192.0.2.7", &[("host", "localhost")]).await.status, 303);
}

#[tokio::test]
async fn no_other_site_presses_the_button() {
    let exile = behind_a_proxy(&Exile::start().await);
    let token = link(&exile).await;
    let foreign: [&[(&str, &str)]; 4] = [
        &[("host", "exile.example"), ("origin", "https://evil.example")],
        &[("host", "exile.example"), ("origin", "http://exile.example")],
        &[("host", "exile.example"), ("origin", "null")],
        &[("host", "exile.example"), ("sec-fetch-site", "cross-site")],
    ];
    for headers in foreign {
        let refused = press(&exile, &token, PROXY, headers).await;
        assert_eq!((refused.status, refused.code().as_str()), (403, "foreign_origin"));
    }
    assert_eq!(press(&exile, &token, PROXY, &[]).await.status, 303, "nothing was spent");
}

#[tokio::test]
async fn wrong_links_are_bounded_by_where_they_come_from_and_in_all() {
    let exile = behind_a_proxy(&Exile::start().await).with_limits(|limits| {
        (limits.sign_ins, limits.sign_ins_in_all) = (3, 5);
    });
    let guess = async |peer: &str, client: &str| {
        press(&exile, "wrong", peer, &[("x-forwarded-for", client)]).await
    };
    for _ in 0..3 {
        assert_eq!(guess(PROXY, "198.51.100.1").await.status, 401);
    }
    let bounded = guess(PROXY, "1.1.1.1, 198.51.100.1").await;
    assert_eq!((bounded.status, bounded.code().as_str()), (429, "too_many_attempts"));
    assert!((1..=20).contains(&bounded.header("retry-after").parse().unwrap()));
    let token = link(&exile).await;
    assert_eq!(
        press(&exile, &token, PROXY, &[("x-forwarded-for", "198.51.100.2")]).await.status,
        303
    );
    // What a stranger says of others is not read: these two count as its own.
    for client in ["198.51.100.3", "198.51.100.4"] {
        assert_eq!(guess("192.0.2.1", client).await.status, 401);
    }
    assert_eq!(guess(PROXY, "198.51.100.5").await.status, 429, "in all");
}
