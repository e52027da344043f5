//! What a conversation chooses reaches the model, and its turns follow one another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::installation::{Installation, Serving};
use super::upstream::{Asked, Say, Upstream};

const SKILL: &str = "skill: pirate
description: Talks like one.
system: Talk like a pirate.
model: lab/parrot
temperature: 0.7
tools: [calculator]
";

/// `default_graph` is `agent`; the alias `fast` has a model of its own for marketing.
fn installation(upstream: &Upstream) -> Installation {
    let config = format!(
        "default_graph: agent
models:
  default: lab/base
  fast: {{ development: lab/quick, business: {{ marketing: lab/market }} }}
providers: {{ lab: {{ base_url: {}/v1 }} }}
",
        upstream.url
    );
    let shipped = |name: &str| {
        let path = format!("{}/../graphs/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    Installation::bare()
        .with("exile.yaml", &config)
        .with("graphs/skills/pirate.yaml", SKILL)
        .with("graphs/agent.yaml", &shipped("agent"))
        .with("graphs/chat.yaml", &shipped("chat"))
}

/// A new conversation, and the path of its messages.
fn conversation(server: &Serving, settings: &Value) -> (Value, String) {
    let made = server.ask("POST", "/api/conversations", &settings.to_string());
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let messages = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
    (made, messages)
}

fn say(server: &Serving, messages: &str, content: &str) -> Value {
    let body = json!({ "content": content }).to_string();
    let answer = server.ask("POST", messages, &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn body(asked: &Asked) -> Value {
    serde_json::from_str(&asked.body).unwrap()
}

/// Contents of a list of messages.
fn contents(messages: &Value) -> Vec<&str> {
    messages.as_array().unwrap().iter().filter_map(|m| m["content"].as_str()).collect()
}

/// Names of the tools that a request offers.
fn offered(request: &Value) -> Vec<&str> {
    let tools = request["tools"].as_array();
    tools.into_iter().flatten().filter_map(|t| t["function"]["name"].as_str()).collect()
}

#[test]
fn graph_skill_model_business_and_system_prompt_reach_the_model() {
    let upstream = Upstream::start(|_| Say::Text("fine"));
    let place = installation(&upstream);
    let server = place.serve();
    let settings = json!({ "graph": "chat", "skill": "pirate", "model": "fast",
                           "business": "marketing", "system_prompt": "Call me captain." });
    let (_, everything) = conversation(&server, &settings);
    say(&server, &everything, "one");
    say(&server, &everything, "two");
    let (_, of_skill) = conversation(&server, &json!({ "graph": "chat", "skill": "pirate" }));
    say(&server, &of_skill, "one");
    let (made, nothing) = conversation(&server, &json!({}));
    assert_eq!(made["graph"], "agent", "`default_graph` chooses the mode");
    say(&server, &nothing, "one");

    let asked: Vec<Value> = upstream.all().iter().map(body).collect();
    let system = |request: &Value| request["messages"][0]["content"].as_str().unwrap().to_owned();
    assert_eq!(asked[1]["model"], "market");
    assert_eq!(asked[1]["temperature"], 0.7);
    assert!(system(&asked[1]).starts_with("Call me captain.\n\nTalk like a pirate.\n\nAnswer in"));
    assert_eq!(contents(&asked[1]["messages"])[1..], ["one", "fine", "two"]);
    assert_eq!(offered(&asked[1]), ["calculator"]);
    assert_eq!(asked[2]["model"], "parrot", "the skill's, where nobody chose");
    assert!(system(&asked[2]).starts_with("Talk like a pirate."));
    assert_eq!(asked[3]["model"], "base");
    assert_eq!(asked[3]["temperature"], Value::Null);
    assert!(offered(&asked[3]).contains(&"http_get"), "{:?}", offered(&asked[3]));
    let ended = server.terminate();
    assert!(!ended.err.contains("the mock answers"), "it does not: {}", ended.err);
}

#[test]
fn turns_queue_up_and_each_run_keeps_its_own_state_over_a_restart() {
    let open = Arc::new(AtomicBool::new(false));
    let opened = open.clone();
    let upstream = Upstream::start(move |asked| match asked.last().as_str() {
        "first" => {
            while !opened.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            Say::Text("one")
        }
        "second" => Say::Text("two"),
        _ => Say::Nothing,
    });
    let place = installation(&upstream);
    let server = place.serve();
    let (made, messages) = conversation(&server, &json!({}));
    let send = |content: &str| {
        let input = json!({ "messages": content });
        let body = json!({ "conversation_id": made["id"], "input": input }).to_string();
        let run = server.ask("POST", "/api/runs", &body).json();
        format!("/api/runs/{}", run["id"].as_str().unwrap())
    };
    let status = |run: &str| server.ask("GET", run, "").json()["status"].clone();
    let first = send("first");
    upstream.wait_for("first");
    let second = send("second");
    assert_eq!((status(&first), status(&second)), (json!("running"), json!("queued")));
    open.store(true, Ordering::SeqCst);
    server.ask("GET", &format!("{second}/stream"), "");
    let third = send("third");
    upstream.wait_for("third");
    server.ask("POST", &format!("{third}/cancel"), "");
    server.ask("GET", &format!("{third}/stream"), "");
    assert_eq!(status(&third), "cancelled");
    server.kill();

    let server = place.serve();
    let state = |run: &str| server.ask("GET", &format!("{run}/state"), "").json();
    let (one, two, three) = (state(&first), state(&second), state(&third));
    assert_eq!(contents(&one["values"]["messages"]), ["first", "one"]);
    assert_eq!(contents(&two["values"]["messages"]), ["first", "one", "second", "two"]);
    assert_eq!(contents(&three["values"]["messages"])[4..], ["third"]);
    let listed = server.ask("GET", &messages, "").json();
    assert_eq!(contents(&listed["items"]), ["first", "one", "second", "two", "third"]);
    for (run, name) in
        [(&first, "run.finished"), (&second, "run.finished"), (&third, "run.cancelled")]
    {
        let events = server.ask("GET", &format!("{run}/events"), "").json();
        let names: Vec<&Value> =
            events["items"].as_array().unwrap().iter().map(|e| &e["name"]).collect();
        assert_eq!((names[0], *names.last().unwrap()), (&json!("run.started"), &json!(name)));
        assert_eq!(names.iter().filter(|n| **n == "run.started").count(), 1, "of its own run");
    }
    say(&server, &messages, "second");
}
