//! Runs over HTTP: begun, waited for, watched, read back, stopped; and what surrounds them.

use std::time::Duration;

use axum::http::{Request, header};
use exile_engine::id::RunId;
use exile_server::store::Role;
use futures_util::StreamExt as _;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::fixture::{Answer, Exile, Sent, with_json};

async fn watch(exile: &Exile, path: &str, last: Option<&str>) -> Answer {
    let mut request = Request::builder()
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {}", exile.alice));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    exile.send(with_json(request, None)).await
}

#[tokio::test]
async fn waits_for_a_run_and_gives_its_output_channels() {
    let exile = Exile::start().await;
    let body = json!({ "graph": "add", "input": { "n": 20 }, "durability": "sync" });
    let done = exile.call("POST", "/api/runs/wait", Some(body)).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let view = done.json();
    assert_eq!(view["output"], json!({ "total": 20 }));
    assert_eq!(view["run"]["status"], "finished");
    let path = format!("/api/runs/{}", done.header("x-exile-run"));
    assert_eq!(exile.read(&path).await, (view["run"].clone(), view["output"].clone()));
    let state = exile.call("GET", &format!("{path}/state"), None).await.json();
    assert_eq!(state["values"], json!({ "n": 20, "total": 20 }));
}

/// Gives one channel of three, of which it writes two, and asks in between.
const GIVES: &str = "
graph: gives
input: [n]
output: [given]
state:
  n: { type: number, default: 1, scope: run }
  given: {}
  hidden: {}
nodes:
  begin: { kind: set, set: { given: n, hidden: '\"secret\"' } }
  ask: { kind: human, ask: Go on?, into: hidden }
  end: { kind: set, set: { given: given + 1 } }
edges: [{ from: START, to: begin }, { from: begin, to: ask }, { from: ask, to: end }, { from: end, to: END }]
";

#[tokio::test]
async fn output_is_what_a_caller_receives_wherever_a_run_is_told() {
    let exile = Exile::serving(&[("gives", GIVES)]).await;
    let waits = exile.run("gives", json!({ "n": 4 })).await;
    let path = format!("/api/runs/{}", waits["run"]["id"].as_str().unwrap());
    assert_eq!(waits["output"], json!({ "given": 4 }), "as it stands");
    assert_eq!(exile.call("GET", &path, None).await.json()["output"], json!({ "given": 4 }));
    let events = watch(&exile, &format!("{path}/stream"), None).await.events();
    assert!(events.last().unwrap().data.get("output").is_none(), "it has not finished");

    let answers = json!({ "answers": { waits["interrupts"][0]["id"].as_str().unwrap(): "yes" } });
    exile.call("POST", &format!("{path}/resume"), Some(answers)).await;
    let last = events.last().unwrap().id.to_string();
    let events = watch(&exile, &format!("{path}/stream"), Some(&last)).await.events();
    let finished = events.last().unwrap();
    assert_eq!(finished.data["output"], json!({ "given": 5 }), "{finished:?}");
    let told = exile.call("GET", &format!("{path}/events"), None).await.json();
    assert_eq!(told["items"].as_array().unwrap().last().unwrap()["data"], finished.data);
    assert_eq!(exile.call("GET", &path, None).await.json()["output"], json!({ "given": 5 }));
    let listed = exile.call("GET", "/api/runs", None).await.json();
    assert!(listed["items"][0].get("output").is_none(), "lists are short");
    let state = exile.call("GET", &format!("{path}/state"), None).await.json();
    assert_eq!(state["values"]["hidden"], "yes", "whoever looks into it sees all");
}

#[tokio::test]
async fn a_run_that_failed_tells_what_it_gave_and_a_turn_of_a_conversation_its_messages_once() {
    const FAILS: &str = "
graph: fails
input: [messages]
output: [given]
state: { messages: { reduce: messages }, given: {}, hidden: {} }
nodes:
  begin: { kind: set, set: { given: 1, hidden: 2 } }
  ask: { kind: llm, model: mock/any }
edges: [{ from: START, to: begin }, { from: begin, to: ask }, { from: ask, to: END }]
";
    let exile = Exile::serving(&[("fails", FAILS)]).await;
    let body = json!({ "graph": "fails", "input": { "messages": "no key" } });
    let run = exile.call("POST", "/api/runs", Some(body)).await.header("location").to_owned();
    exile.watch(&format!("{run}/stream")).await;
    let read = exile.call("GET", &run, None).await.json();
    assert_eq!((&read["status"], &read["output"]), (&json!("failed"), &json!({ "given": 1 })));

    let conversation = exile.conversation("mock/any").await;
    let body = json!({ "content": "hi", "stream": true });
    let answer = exile.call("POST", &format!("{conversation}/messages"), Some(body)).await;
    let finished = answer.events().pop().unwrap();
    assert_eq!(finished.data["output"], json!({}), "they were told as they came");
    let run = format!("/api/runs/{}", answer.header("x-exile-run"));
    let read = exile.call("GET", &run, None).await.json();
    assert_eq!(read["output"]["messages"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn answers_at_once_and_says_where_to_look() {
    let exile = Exile::start().await;
    let run = exile.waiting_run().await;
    let view = exile.call("GET", &run, None).await.json();
    assert!(["queued", "running"].contains(&view["status"].as_str().unwrap()));
    exile.gate.add_permits(1);
    let events = watch(&exile, &format!("{run}/stream"), None).await.events();
    assert_eq!(events.last().unwrap().name, "run.finished");
    let listed = exile.call("GET", "/api/runs?status=finished&graph=chat", None).await.json();
    assert_eq!(listed["items"][0]["id"], view["id"]);
    let none = exile.call("GET", "/api/runs?status=failed", None).await.json();
    assert_eq!(none["items"], json!([]));
}

#[tokio::test]
async fn a_returning_reader_gets_exactly_the_rest() {
    let exile = Exile::start().await;
    let body = json!({ "graph": "chat", "input": { "messages": "hello there" } });
    let streamed = exile.call("POST", "/api/runs/stream", Some(body)).await;
    let path = format!("{}/stream", streamed.header("location"));
    let all = streamed.events();
    assert!(all.len() > 8 && all.iter().any(|e| e.name == "message.delta"));
    assert_eq!(watch(&exile, &path, None).await.events(), all, "from the beginning");
    for seen in 1..=all.len() {
        let last = all[seen - 1].id.to_string();
        let rest: Vec<Sent> = watch(&exile, &path, Some(&last)).await.events();
        assert_eq!(rest, all[seen..], "after {last} in the header");
        let rest = watch(&exile, &format!("{path}?after={last}"), None).await.events();
        assert_eq!(rest, all[seen..], "after {last} in the query");
    }
    let odd = watch(&exile, &path, Some("soon")).await;
    assert_eq!((odd.status, odd.code().as_str()), (400, "malformed_request"));
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_is_alive() {
    let exile = Exile::start().await;
    let run = exile.waiting_run().await;
    let request = Request::builder()
        .uri(format!("{run}/stream"))
        .header(header::AUTHORIZATION, format!("Bearer {}", exile.alice));
    let response = exile.router.clone().oneshot(with_json(request, None)).await.unwrap();
    let mut pieces = response.into_body().into_data_stream();
    let first = pieces.next().await.unwrap().unwrap();
    assert!(first.starts_with(b"id:") || first.starts_with(b"event:"));
    // From here on time passes as fast as nothing else happens.
    tokio::time::pause();
    while let Ok(piece) = tokio::time::timeout(Duration::from_secs(14), pieces.next()).await {
        let piece = piece.unwrap().unwrap();
        assert!(!piece.starts_with(b":"), "nothing is said before it is time");
    }
    let beat = tokio::time::timeout(Duration::from_secs(2), pieces.next()).await.unwrap();
    let beat = beat.unwrap().unwrap();
    assert!(beat.starts_with(b":"), "a comment, which no reader takes for an event");
}

#[tokio::test]
async fn events_tell_the_story_without_a_stream() {
    let exile = Exile::start().await;
    let body = json!({ "graph": "chat", "input": { "messages": ["hi"] } });
    let done = exile.call("POST", "/api/runs/wait", Some(body)).await;
    let path = format!("/api/runs/{}/events", done.header("x-exile-run"));
    let list = exile.call("GET", &path, None).await.json();
    let items = list["items"].as_array().unwrap();
    let names: Vec<&str> = items.iter().map(|e| e["name"].as_str().unwrap()).collect();
    for name in ["run.started", "node.started", "model.finished", "node.finished", "run.finished"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(!names.contains(&"message.delta"));
    assert!(items.iter().all(|e| e["at"].as_str().unwrap().starts_with("20")));
}

/// However they are cut, by number, by bytes or in the middle of a record, pages give every event
/// once.
#[tokio::test]
async fn pages_of_events_follow_each_other_without_gap_or_repetition() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("mock/any").await;
    for content in ["one", "two", "three"] {
        let say = json!({ "content": content });
        exile.call("POST", &format!("{conversation}/messages"), Some(say)).await;
    }
    let runs = exile.call("GET", "/api/runs", None).await.json();
    // Between two others in their log.
    let run = RunId::from(runs["items"][1]["id"].as_str().unwrap());
    let all = exile.app.engine.history(run.clone(), 0).map(|event| event.unwrap().number);
    let all: Vec<u64> = all.collect().await;
    assert!(all.len() > 6, "{all:?}");
    let read = async |exile: &Exile, limit: usize, after: Option<u64>| {
        let (mut found, mut after) = (Vec::new(), after.map(|number| number.to_string()));
        loop {
            let next = after.map(|next| format!("&after={next}")).unwrap_or_default();
            let path = format!("/api/runs/{run}/events?limit={limit}{next}");
            let page = exile.call("GET", &path, None).await.json();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            found.extend(items.iter().map(|event| event["number"].as_u64().unwrap()));
            match page["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => return found,
            }
        }
    };
    for limit in [1, 2, 3, 5, 1000] {
        assert_eq!(read(&exile, limit, None).await, all, "{limit} at a time");
    }
    for (n, after) in all.iter().enumerate() {
        assert_eq!(read(&exile, 2, Some(*after)).await, all[n + 1..], "after {after}");
    }
    assert_eq!(read(&exile, 5, Some(u64::MAX)).await, Vec::<u64>::new());
    let small = exile.with_limits(|limits| limits.page = 300);
    assert_eq!(read(&small, 1000, None).await, all);
    let first = small.call("GET", &format!("/api/runs/{run}/events"), None).await.json();
    assert!(first["items"].as_array().unwrap().len() < all.len() && first["next"].is_string());
}

#[tokio::test]
async fn a_cancelled_run_ends_as_such_and_stays_so() {
    let exile = Exile::start().await;
    let run = exile.waiting_run().await;
    let cancelled = exile.call("POST", &format!("{run}/cancel"), None).await;
    assert_eq!((cancelled.status, cancelled.header("location")), (202, run.as_str()));
    let events = watch(&exile, &format!("{run}/stream"), None).await.events();
    assert_eq!(events.last().unwrap().name, "run.cancelled");
    assert_eq!(exile.call("POST", &format!("{run}/cancel"), None).await.status, 202);
    assert_eq!(exile.call("GET", &run, None).await.json()["status"], "cancelled");
}

#[tokio::test]
async fn whoever_waits_for_a_run_that_is_cancelled_is_told() {
    let exile = Exile::start().await;
    let body = json!({ "graph": "chat", "model": "gate/any", "input": { "messages": "hi" } });
    let wait = exile.call("POST", "/api/runs/wait", Some(body));
    let cancel = async {
        let list = loop {
            let list = exile.call("GET", "/api/runs", None).await.json();
            if list["items"][0]["id"].is_string() {
                break list;
            }
            tokio::task::yield_now().await;
        };
        let id = list["items"][0]["id"].as_str().unwrap().to_owned();
        exile.call("POST", &format!("/api/runs/{id}/cancel"), None).await;
        id
    };
    let (waited, id) = tokio::join!(wait, cancel);
    assert_eq!((waited.status, waited.code().as_str()), (409, "run_cancelled"));
    assert_eq!(waited.problem()["run"], id);
}

#[tokio::test]
async fn what_does_not_fit_the_graph_is_refused_before_anything_is_stored() {
    let exile = Exile::start().await;
    let cases: [(Value, &str, &str); 9] = [
        (json!({ "input": { "messages": [["user", "hi"]] } }), "invalid_field", "got a list"),
        (json!({ "graph": "add", "input": { "m": 1 } }), "unknown_channel", "`m`; there are: n"),
        (json!({ "graph": "add", "input": { "total": 1 } }), "unknown_channel", "total"),
        (json!({ "graph": "add", "input": { "n": "1" } }), "invalid_input", "`n` takes number"),
        (json!({ "graph": "broken" }), "graph_broken", "graphs/broken.yaml"),
        (json!({ "graph": "add", "durability": "soon" }), "invalid_field", "unknown variant"),
        (json!({ "graph": "add", "if_active": "wait" }), "invalid_field", "unknown variant"),
        (
            json!({ "input": { "messages": [{ "role": "user", "model": "x" }] } }),
            "invalid_field",
            "unknown field `model`",
        ),
        (
            json!({ "input": { "messages": [{ "role": "user", "id": "" }] } }),
            "invalid_field",
            "1 to 128",
        ),
    ];
    for path in ["/api/runs", "/api/runs/wait", "/api/runs/stream"] {
        for (body, code, detail) in &cases {
            let answer = exile.call("POST", path, Some(body.clone())).await;
            assert_eq!((answer.status, answer.code().as_str()), (422, *code), "{body}");
            let problem = answer.problem();
            assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
        }
    }
    assert_eq!(exile.call("GET", "/api/runs", None).await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_callers_trace_is_the_problems_and_the_runs() {
    let exile = Exile::start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traced = |path: &'static str, parent: &str| {
        Request::builder()
            .method("POST")
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", exile.alice))
            .header("traceparent", parent)
    };
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let run = traced("/api/runs/wait", &parent);
    let done = exile.send(with_json(run, Some(json!({ "graph": "add" })))).await.json();
    assert_eq!(done["run"]["trace_id"], trace);
    let wrong = traced("/api/runs", &parent);
    let problem = exile.send(with_json(wrong, Some(json!({ "graph": "ghost" })))).await.json();
    assert_eq!(problem["trace_id"], trace);
    for bad in ["", "00-xyz-00f067aa0ba902b7-01", "00-00000000000000000000000000000000-1-01"] {
        let wrong = traced("/api/runs", bad);
        let problem = exile.send(with_json(wrong, Some(json!({ "graph": "ghost" })))).await;
        assert_eq!(problem.code(), "unknown_graph");
        assert_ne!(problem.json()["trace_id"], trace);
    }
}

#[tokio::test]
async fn graphs_and_skills_are_shown_to_authors_with_what_is_wrong_with_them() {
    let exile = Exile::start().await;
    let author = exile.user("ann", Role::Author).await;
    let shown = async |path: &str| exile.call_as(&author, "GET", path, None).await.json();
    let list = exile.call("GET", "/api/graphs", None).await.json();
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["add", "broken", "chat"]);
    let add = shown("/api/graphs/add").await;
    assert_eq!((&add["serves"], &add["input"]), (&json!(true), &json!(["n"])));
    assert_eq!(add["nodes"], json!([{ "name": "add", "kind": "set" }]));
    assert_eq!(add["channels"][0]["type"], "number");
    assert!(add["mermaid"].as_str().unwrap().starts_with("flowchart"));
    assert!(add["source"].as_str().unwrap().contains("graph: add"));
    let broken = shown("/api/graphs/broken").await;
    assert_eq!((&broken["serves"], &broken["mermaid"]), (&json!(false), &Value::Null));
    let findings = broken["findings"].as_array().unwrap();
    let unknown = findings.iter().find(|f| f["code"] == "unknown_kind").unwrap();
    assert_eq!((&unknown["line"], &unknown["severity"]), (&json!(3), &json!("error")));
    let pirate = shown("/api/skills/pirate").await;
    assert_eq!(pirate["system"].as_str().unwrap().trim(), "Talk like a pirate.");
    let skills = shown("/api/skills").await;
    assert_eq!(skills["items"], json!([pirate]));
}

#[tokio::test]
async fn how_a_graph_or_a_skill_is_made_is_its_authors() {
    let exile = Exile::start().await;
    let plain = exile.call("GET", "/api/graphs/add", None).await.json();
    for field in ["source", "mermaid"] {
        assert_eq!(plain[field], Value::Null, "{field}");
    }
    assert_eq!(plain["description"], "Adds up what it is given.");
    assert_eq!(plain["channels"].as_array().unwrap().len(), 2);
    assert_eq!(plain["nodes"], json!([{ "name": "add", "kind": "set" }]));
    let broken = exile.call("GET", "/api/graphs/broken", None).await.json();
    assert_eq!((&broken["findings"], &broken["errors"]), (&json!([]), &json!(1)), "{broken}");
    let pirate = exile.call("GET", "/api/skills/pirate", None).await.json();
    let shown = ["system", "source", "description"].map(|field| pirate[field].clone());
    assert_eq!(shown, [Value::Null, Value::Null, json!("Talks like one.")]);
    for path in ["/api/skills", "/api/skills/pirate", "/api/graphs", "/api/graphs/add"] {
        let text = exile.call("GET", path, None).await.text;
        assert!(!text.contains("like a pirate") && !text.contains("edges"), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_tool_is_called_with_checked_arguments_and_typed_errors() {
    let exile = Exile::start().await;
    let tools = exile.call("GET", "/api/tools", None).await.json();
    assert_eq!(
        (&tools["items"][0]["name"], &tools["items"][0]["effect"]),
        (&json!("halve"), &json!("pure"))
    );
    let call = async |arguments: Value| {
        let body = json!({ "arguments": arguments });
        exile.call("POST", "/api/tools/halve/call", Some(body)).await
    };
    assert_eq!(call(json!({ "n": 8 })).await.json()["result"], 4);
    let wrong = call(json!({ "n": "8", "m": 1 })).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (422, "tool_invalid_args"));
    assert_eq!(wrong.problem()["error"]["kind"], "invalid_args");
    let failed = call(json!({ "n": 7 })).await;
    assert_eq!((failed.status, failed.code().as_str()), (502, "tool_upstream"));
    assert_eq!(failed.problem()["detail"], "7 is odd");
    let none = exile.call("POST", "/api/tools/nothing/call", Some(json!({}))).await;
    assert_eq!((none.status, none.code().as_str()), (404, "not_found"));
}

const ASKS_FIRST: &str = "
graph: asks
nodes: { pay: { kind: tool, tool: halve, args: { n: 2 }, approve: true } }
edges: [{ from: START, to: pay }, { from: pay, to: END }]
";
const SKILL_ASKS: &str = "skill: careful\nsystem: Be careful.\ntools: ['*']\napprove: [hal*]\n";

#[tokio::test]
async fn a_tool_that_needs_care_is_called_directly_by_authors_and_administrators_alone() {
    let arguments = || Some(json!({ "arguments": { "n": 4 } }));
    let exile = Exile::start().await;
    let refused = exile.call("POST", "/api/tools/pay/call", arguments()).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"), "it is unsafe");
    assert!(exile.paid.none());
    exile.gate.add_permits(2);
    let author = exile.user("ann", Role::Author).await;
    for key in [&author, &exile.admin] {
        let called = exile.call_as(key, "POST", "/api/tools/pay/call", arguments()).await;
        assert_eq!((called.status, &called.json()["result"]), (200, &json!(4)));
    }
    for (name, text) in [("asks", ASKS_FIRST), ("skills/careful", SKILL_ASKS)] {
        let exile = Exile::serving(&[(name, text)]).await;
        let refused = exile.call("POST", "/api/tools/halve/call", arguments()).await;
        assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"), "{name}");
        let author = exile.user("ann", Role::Author).await;
        let called = exile.call_as(&author, "POST", "/api/tools/halve/call", arguments()).await;
        assert_eq!(called.json()["result"], 2, "{name}");
    }
}

#[tokio::test]
async fn a_defect_is_a_problem_that_shows_nothing_of_the_inside() {
    let exile = Exile::start().await;
    let body = json!({ "arguments": { "n": 666 } });
    let answer = exile.call("POST", "/api/tools/halve/call", Some(body)).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "internal"));
    assert!(!answer.text.contains("a tool with a defect"));
    assert_eq!(exile.call("GET", "/healthz", None).await.status, 200);
}

/// Asks, and ends with what was answered.
const ASKS: &str = "
graph: asks
state: { said: {} }
output: [said]
nodes:
  ask: { kind: human, ask: Which?, into: said }
edges:
  - { from: START, to: ask }
  - { from: ask, to: END }
";

/// The process has compiled the graph; the store has lost its bundle with the last run that named
/// it, and has it again when another one begins.
#[tokio::test]
async fn a_run_outlives_its_process_although_all_earlier_ones_of_its_graph_were_removed() {
    let mut exile = Exile::serving(&[("asks", ASKS)]).await;
    for _ in 0..3 {
        let waits = exile.run("asks", json!({})).await;
        let path = format!("/api/runs/{}", waits["run"]["id"].as_str().unwrap());
        assert_eq!(waits["run"]["status"], "waiting", "{waits}");
        exile = exile.after_death().await;
        let question = waits["interrupts"][0]["id"].as_str().unwrap();
        let answer = json!({ "answers": { question: "this" } });
        let resumed = exile.call("POST", &format!("{path}/resume"), Some(answer)).await;
        assert_eq!(resumed.status, 202, "{}", resumed.text);
        exile.watch(&format!("{path}/stream")).await;
        assert_eq!(exile.read(&path).await.0["status"], "finished");
        exile.clock.shift(SignedDuration::from_hours(48));
        let before = exile.app.env.now() - SignedDuration::from_hours(25);
        let purged = exile.app.store.purge(before).await.unwrap();
        assert_eq!((purged.logs, purged.blobs), (1, 1));
    }
}
