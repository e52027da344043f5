//! What operators find in the log.

use serde_json::json;

use super::installation::Installation;
use super::web::ask;

#[test]
fn what_administrators_do_at_others_and_direct_calls_of_tools_are_lines_of_the_log() {
    let place = Installation::bare();
    let server = place.serve();
    for name in ["ada", "bob"] {
        assert_eq!(place.run(&["user", "add", name]).code, 0);
    }
    let key = place.run(&["key", "create", "--user", "ada"]);
    let key = key.out.lines().next().unwrap().to_owned();
    let made = ask(&server.url, "POST", "/api/conversations", Some(&key), "{}").json();
    let id = made["id"].as_str().unwrap().to_owned();
    let path = format!("/api/conversations/{id}");
    assert_eq!(ask(&server.url, "GET", &path, Some(&key), "").status, 200);
    assert_eq!(server.ask("GET", &path, "").status, 200);
    assert_eq!(server.ask("GET", "/api/runs?owner=bob", "").status, 200);
    let body = json!({ "arguments": { "expression": "40 + 2" } }).to_string();
    assert_eq!(server.ask("POST", "/api/tools/calculator/call", &body).status, 200);
    let log = server.terminate().err;
    let reached: Vec<&str> =
        log.lines().filter(|line| line.contains("an administrator reached")).collect();
    assert_eq!(reached.len(), 2, "{log}");
    for part in ["by=\"admin\"", "owner=\"ada\"", &id, "GET", "/api/conversations/{id}", "key_"] {
        assert!(reached[0].contains(part), "no {part} in {}", reached[0]);
    }
    assert!(reached[1].contains("owner=\"bob\"") && reached[1].contains("/api/runs"), "{log}");
    let called = log.lines().find(|line| line.contains("a tool is called directly")).unwrap();
    assert!(called.contains("calculator") && called.contains("admin"), "{called}");
    assert!(!log.contains("40 + 2"), "{log}");
}
