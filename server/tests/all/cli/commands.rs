//! What commands print and how they exit: with a server that holds the home, and without.

use serde_json::{Value, json};

use super::installation::{Ended, Installation};
use super::upstream::{Say, Upstream};
use super::web::ask;

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {ended:?}"))
}

#[test]
fn a_chat_goes_back_and_forth() {
    let place = Installation::bare();
    let ended = place.run_with(&["chat"], "hello there\n\n再见\n");
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines: Vec<&str> = ended.out.lines().collect();
    assert_eq!(lines.len(), 2, "{ended:?}");
    assert!(lines[0].starts_with("[mock]") && lines[0].contains("hello there"), "{ended:?}");
    assert!(lines[1].starts_with("[mock]") && lines[1].contains("再见"), "{ended:?}");
}

/// A terminal of its own by `script`, which is part of every Debian.
#[test]
fn in_a_terminal_ctrl_c_stops_an_answer_and_then_the_chat() {
    let long = "and on ".repeat(1000);
    let rules = format!("- {{ match: long, reply: {long}, delay_ms: 100 }}\n");
    let place = Installation::bare().with(".exile/mock.yaml", &rules);
    let mut chat = place.in_terminal(&["chat"]);
    chat.read_until("> ");
    chat.type_in("hello\n");
    chat.read_until("[mock] You said: hello");
    chat.read_until("> ");
    chat.type_in("a long one\n");
    chat.read_until("and on");
    chat.type_in("\u{3}");
    chat.read_until("cancelled");
    chat.read_until("> ");
    chat.type_in("\u{3}");
    assert_eq!(chat.end(), 0);
}

#[test]
fn a_chat_shows_its_tools() {
    let place = Installation::bare();
    let ended = place.run_with(&["chat", "agent"], "what is 17 * 23?\n");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("→ calculator"), "{ended:?}");
    assert!(ended.out.contains("← calculator") && ended.out.contains("391"), "{ended:?}");
}

#[test]
fn a_chat_can_be_gone_on_with() {
    let place = Installation::bare();
    let server = place.serve();
    let made = server.ask("POST", "/api/conversations", "{}").json();
    let id = made["id"].as_str().unwrap();
    for text in ["one\n", "two\n"] {
        assert_eq!(place.run_with(&["chat", "--conversation", id], text).code, 0);
    }
    let messages = server.ask("GET", &format!("/api/conversations/{id}/messages"), "").json();
    assert_eq!(messages["items"].as_array().unwrap().len(), 4, "{messages}");
    let unknown = place.run_with(&["chat", "--conversation", "conv_nobody"], "hi\n");
    assert_eq!(unknown.code, 1, "{unknown:?}");
}

#[test]
fn a_run_prints_its_output_and_its_trace_can_be_read() {
    let place = Installation::bare();
    let input = r#"{"messages": [{"role": "user", "content": "what is 2 + 3?"}]}"#;
    let ended = place.run(&["run", "agent", "--input", input, "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let done = json(&ended);
    assert_eq!(done["run"]["status"], "finished");
    let run = done["run"]["id"].as_str().unwrap();
    let trace = place.run(&["trace", run]);
    assert_eq!(trace.code, 0, "{trace:?}");
    for part in [
        "run agent",
        "node ",
        "chat ",
        "mock/mock",
        "call ",
        "calculator",
        "run.finished",
        "messages: [",
    ] {
        assert!(trace.out.contains(part), "no {part:?} in {}", trace.out);
    }
    let shown = json(&place.run(&["runs", "show", run, "--json"]));
    assert_eq!(shown["output"], done["output"]);
    assert!(place.run(&["runs", "show", run]).out.contains("output messages"), "and for people");
    let events = place.run(&["run", "agent", "--input", input, "--events"]);
    let last: Value = serde_json::from_str(events.out.lines().last().unwrap()).unwrap();
    assert!(last["data"]["output"]["messages"].is_array(), "{last}");
    let first: Value = serde_json::from_str(events.out.lines().next().unwrap()).unwrap();
    assert_eq!(first["event"], "run.started");
}

#[test]
fn commands_use_the_server_that_holds_the_home() {
    let place = Installation::bare();
    let alone = place.run(&["tool", "list", "--json"]);
    let _server = place.serve();
    let through = place.run(&["tool", "list", "--json"]);
    assert_eq!(through.code, 0, "{through:?}");
    assert_eq!(json(&through), json(&alone));
    let names = json(&alone)["items"].as_array().unwrap().len();
    assert!(names >= 3, "{alone:?}");
}

#[test]
fn tools_are_called_by_hand() {
    let place = Installation::bare();
    let ended = place.run(&["tool", "call", "calculator", r#"{"expression": "6*7"}"#, "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(json(&ended)["result"].to_string().contains("42"), "{ended:?}");
    let wrong = place.run(&["tool", "call", "calculator", r#"{"expresion": "6*7"}"#, "--json"]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert!(json(&wrong)["error"]["detail"].as_str().unwrap().contains("expression"), "{wrong:?}");
}

#[test]
fn keys_belong_to_users_and_end_when_revoked() {
    let place = Installation::bare();
    let server = place.serve();
    let user = json(&place.run(&["user", "add", "ada", "--role", "author", "--json"]));
    assert_eq!((&user["name"], &user["role"]), (&json!("ada"), &json!("author")));
    let key = json(&place.run(&["key", "create", "--user", "ada", "--json"]));
    let (id, secret) = (key["id"].as_str().unwrap(), key["secret"].as_str().unwrap());
    let me = || ask(&server.url, "GET", "/api/users/me", Some(secret), "");
    assert_eq!(me().json()["name"], "ada");
    assert_eq!(place.run(&["key", "revoke", id]).code, 0);
    assert_eq!(me().status, 401);
    let again = place.run(&["user", "add", "ada"]);
    assert_eq!(again.code, 1, "{again:?}");
}

const WRONG: &str = "graph: wrong\nstate:\n  text: { type: strin }\nnodes:\n  a: { kind: set, set: { txt: '1' } }\nedges:\n  - { from: START, to: b }\n";

#[test]
fn validate_shows_every_finding_with_place_and_fix() {
    let place = Installation::bare().with("graphs/wrong.yaml", WRONG);
    let ended = place.run(&["validate", "graphs"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.out.contains("graphs/wrong.yaml:3:"), "{ended:?}");
    let findings = place.run(&["validate", "graphs/wrong.yaml", "--json"]);
    assert_eq!(findings.code, 1, "{findings:?}");
    let first = &json(&findings)["findings"][0];
    assert_eq!((&first["line"], &first["severity"]), (&json!(3), &json!("error")), "{first}");
    assert!(!first["fix"].as_str().unwrap().is_empty(), "{first}");
}

#[test]
fn what_ships_is_valid_and_can_be_drawn() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../graphs");
    let place = Installation::bare();
    let ended = place.run(&["validate", root]);
    assert_eq!(ended.code, 0, "{ended:?}");
    for (format, part) in [("mermaid", "flowchart"), ("dot", "digraph"), ("json", "\"nodes\"")] {
        let ended = place.run(&["graph", "research", "--format", format]);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.out.contains(part), "{ended:?}");
    }
}

#[test]
fn doctor_says_what_is_missing() {
    let good = Installation::bare().run(&["doctor"]);
    assert_eq!(good.code, 0, "{good:?}");
    assert!(good.out.contains("mock/mock"), "{good:?}");
    let bad = Installation::bare().set("EXILE_ENV", "production").run(&["doctor"]);
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(bad.out.contains("OPENAI_API_KEY"), "{bad:?}");
}

#[test]
fn doctor_asks_providers_and_checks_prices_currency_addresses_and_space() {
    let upstream = Upstream::start(|_| Say::Text("OK"));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "currency: {{ unit: CNY, USD: 7.1 }}
public_url: http://exile.example
models: {{ default: lab/m, other: lab/two, far: away/m, euro: lab/euro }}
providers: {{ lab: {{ base_url: {}/v1 }}, away: {{ base_url: \"http://{silent}/v1\", retries: 0 }} }}
catalogue:
  lab/m: {{ prices: [{{ currency: USD, input: 1, output: 2 }}] }}
  lab/euro: {{ prices: [{{ currency: EUR, input: 1, output: 2 }}] }}
",
        upstream.url
    );
    let place = Installation::bare().with("exile.yaml", &config);
    let ended = place.run(&["doctor", "--json", "--bind", "127.0.0.1:0"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let report = json(&ended);
    let found = |check: &str, state: &str, part: &str| {
        let checks = report["checks"].as_array().unwrap().iter();
        let mut all = checks.filter(|it| it["check"] == check && it["state"] == state);
        let is_there = all.any(|it| it["detail"].as_str().unwrap().contains(part));
        assert!(is_there, "no {check} {state} {part} in {report:#}");
    };
    found("provider", "ok", "lab/m answered");
    found("provider", "FAIL", "away/m");
    found("not checked", "-", "lab/two");
    found("not checked", "-", "http://exile.example");
    found("currency", "ok", "1 USD = 7.1");
    found("price", "ok", "lab/m: 1 in, 2 out, USD");
    found("price", "FAIL", "EUR");
    found("price", "note", "lab/two");
    found("address", "ok", "is free");
    found("public address", "note", "https");
    found("space", "ok", "MiB free");
    assert_eq!(upstream.all().len(), 1, "one question to each provider");
    let offline = json(&place.run(&["doctor", "--json", "--offline", "--bind", "127.0.0.1:0"]));
    assert!(offline.to_string().contains("leave --offline out"), "{offline}");
    assert_eq!(upstream.all().len(), 1, "and none if it is not to be asked");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = place.run(&["doctor", "--offline", "--bind", &address]);
    assert!(ended.out.contains(&address) && ended.out.contains("FAIL"), "{ended:?}");
}

#[test]
fn schemas_are_printed_without_a_home() {
    let place = Installation::bare();
    for name in ["graph", "skill", "config"] {
        let schema = json(&place.run(&["schema", name]));
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#", "{name}");
    }
    assert!(!place.path(".exile").exists());
}

#[test]
fn exit_codes_tell_failure_from_misuse() {
    let place = Installation::bare().with("exile.yaml", "bind: 127.0.0.1:0\n");
    let code = |arguments: &[&str]| place.run(arguments).code;
    assert_eq!(code(&["--version"]), 0);
    assert_eq!(code(&["no-such-command"]), 2);
    assert_eq!(code(&["run", "chat", "--input", "{"]), 2);
    assert_eq!(code(&["validate", "nowhere.yaml"]), 2);
    assert_eq!(code(&["run", "no-such-graph"]), 1);
    assert_eq!(code(&["trace", "run_nobody"]), 1);
    assert_eq!(code(&["graph", "no-such-graph"]), 1);
}

#[test]
fn a_wrong_configuration_stops_every_command_with_its_place() {
    let place = Installation::bare().with("exile.yaml", "quotas: {}\nbindd: x\n");
    let ended = place.run(&["tool", "list"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("exile.yaml:2:1"), "{ended:?}");
}

#[test]
fn a_failed_run_fails_the_command() {
    let script = "- { match: '*', fail: { status: 500, message: broken } }\n";
    let place = Installation::bare().with(".exile/mock.yaml", script);
    let input = r#"{"messages": [{"role": "user", "content": "hi"}]}"#;
    let ended = place.run(&["run", "chat", "--input", input]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("mock/mock"), "{ended:?}");
}
