//! `serve`: the ready line, the home, the sign-in link, one holder, the end.

use std::os::unix::fs::PermissionsExt as _;

use super::installation::Installation;
use super::web::ask;

#[test]
fn the_ready_line_names_the_address_and_ends_with_a_sign_in_link() {
    let place = Installation::bare();
    let server = place.serve();
    let (url, ready) = (&server.url, &server.ready);
    assert!(url.starts_with("http://127.0.0.1:"), "{ready:?}");
    let link = ready.trim_end().rsplit(' ').next().unwrap();
    assert!(link.starts_with(&format!("{url}/sign-in?token=")), "{ready:?}");
    assert!(ready.ends_with('\n') && ready.matches('\n').count() == 1, "{ready:?}");
}

#[test]
fn in_production_a_missing_key_is_named_and_the_mock_does_not_answer() {
    let place = Installation::bare().set("EXILE_ENV", "production");
    let server = place.serve();
    let ready = server.ask("GET", "/readyz", "");
    assert_eq!((ready.status, &ready.json()["code"]), (503, &"not_ready".into()));
    assert!(ready.body.contains("OPENAI_API_KEY"), "{ready:?}");
    let body = r#"{"graph": "chat", "input": {"messages": "hi"}}"#;
    let failed = server.ask("POST", "/api/runs/wait", body);
    assert_eq!((failed.status, &failed.json()["code"]), (503, &"provider_key_missing".into()));
    let run = format!("/api/runs/{}", failed.json()["run"].as_str().unwrap());
    let run = server.ask("GET", &run, "").json();
    assert_eq!((&run["status"], &run["error"]["provider"]), (&"failed".into(), &"openai".into()));
    let mock = r#"{"graph": "chat", "model": "mock/mock", "input": {"messages": "hi"}}"#;
    assert_eq!(server.ask("POST", "/api/runs/wait", mock).json()["code"], "unknown_model");
}

#[test]
fn the_sign_in_link_works_once() {
    let place = Installation::bare();
    let server = place.serve();
    let link = server.ready.trim_end().rsplit(' ').next().unwrap();
    let path = link.strip_prefix(&server.url).unwrap();
    let looked = ask(&server.url, "GET", path, None, "");
    assert!(looked.body.contains("<button"), "{looked:?}");
    let form = path.strip_prefix("/sign-in?").unwrap();
    let first = ask(&server.url, "POST", "/sign-in", None, form);
    assert!(first.head.contains("set-cookie: __host-exile="), "{first:?}");
    let second = ask(&server.url, "POST", "/sign-in", None, form);
    assert!(!second.head.contains("set-cookie: __host-exile="), "{second:?}");
    assert!((400..500).contains(&second.status), "{second:?}");
}

#[test]
fn a_link_for_a_user_is_made_while_the_server_serves_and_leads_to_its_public_address() {
    let place = Installation::bare();
    let idle = place.run(&["sign-in"]);
    assert_eq!(idle.code, 1, "{idle:?}");
    assert!(idle.err.contains("exile serve"), "{idle:?}");
    let place = place.set("EXILE_PUBLIC_URL", "https://exile.example/");
    let server = place.serve();
    assert!(server.ready.contains(" https://exile.example/sign-in?token="), "{:?}", server.ready);
    assert_eq!(place.run(&["user", "add", "ana"]).code, 0);
    let made = place.run(&["sign-in", "--user", "ana"]);
    let token = made.out.trim_end().strip_prefix("https://exile.example/sign-in?token=");
    let signed_in =
        ask(&server.url, "POST", "/sign-in", None, &format!("token={}", token.unwrap()));
    assert!(signed_in.head.contains("set-cookie: __host-exile="), "{signed_in:?}");
    let nobody = place.run(&["sign-in", "--user", "ghost"]);
    assert_eq!(nobody.code, 1, "{nobody:?}");
}

#[test]
fn the_home_is_private_and_ignored_by_git() {
    let place = Installation::bare();
    let _server = place.serve();
    let mode = |path| place.path(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(".exile"), 0o700);
    assert_eq!(mode(".exile/local.key"), 0o600);
    assert_eq!(mode(".exile/exile.db"), 0o600);
    assert_eq!(std::fs::read_to_string(place.path(".exile/.gitignore")).unwrap(), "*\n");
}

#[test]
fn a_home_has_one_server() {
    let place = Installation::bare();
    let server = place.serve();
    let second = place.run(&["serve", "--bind", "127.0.0.1:0"]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.err.contains(&server.url), "{second:?}");
    assert!(second.err.contains("--home"), "{second:?}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let place = Installation::bare();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = place.run(&["serve", "--bind", &address]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains(&address) && ended.err.contains("--bind"), "{ended:?}");
}

#[test]
fn sigterm_ends_it_in_order() {
    let place = Installation::bare();
    let server = place.serve();
    let ended = server.terminate();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(!place.path(".exile/server.json").exists());
    assert!(!place.path(".exile/exile.db-wal").exists(), "the database is closed");
}

#[test]
fn nothing_is_lost_by_a_restart() {
    let place = Installation::bare();
    let server = place.serve();
    let made = server.ask("POST", "/api/conversations", r#"{"title":"kept"}"#).json();
    let path = format!("/api/conversations/{}", made["id"].as_str().unwrap());
    let messages = format!("{path}/messages");
    let said = server.ask("POST", &messages, r#"{"content":"你好"}"#);
    assert_eq!(said.status, 200, "{said:?}");
    let run = format!("/api/runs/{}", said.json()["run"]["id"].as_str().unwrap());
    let events = format!("{run}/events");
    let paths = [path.as_str(), &messages, &run, &events, "/api/users/me"];
    let read = |server: &super::installation::Serving| {
        paths.map(|path| server.ask("GET", path, "").json())
    };
    let before = read(&server);
    assert_eq!(before[1]["items"].as_array().unwrap().len(), 2);
    server.kill();
    assert_eq!(read(&place.serve()), before);
}
