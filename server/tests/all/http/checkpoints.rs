//! Checkpoints at any depth: listed, read, compared, forked from, edited, moved to another graph.

use serde_json::{Value, json};

use super::fixture::{Answer, Exile};

/// A graph inside a graph inside a graph: counts on its way, and asks at the bottom.
const OUTER: &str = "
graph: outer
input: [n]
output: [got]
state: { n: { type: number, default: 1, scope: run }, got: {} }
nodes:
  raise: { kind: set, set: { n: n + 1 } }
  inside: { kind: graph, graph: middle, with: { n: n }, into: got }
edges: [{ from: START, to: raise }, { from: raise, to: inside }, { from: inside, to: END }]
";
const MIDDLE: &str = "
graph: middle
input: [n]
output: [answer]
state: { n: { type: number, default: 0 }, answer: {} }
nodes:
  double: { kind: set, set: { n: n * 2 } }
  inside: { kind: graph, graph: inner, with: { n: n }, into: answer }
edges: [{ from: START, to: double }, { from: double, to: inside }, { from: inside, to: END }]
";
const INNER: &str = "
graph: inner
input: [n]
output: [answer]
state: { n: { type: number, default: 0 }, answer: {} }
nodes:
  square: { kind: set, set: { n: n * n } }
  ask: { kind: human, ask: 'Is it {{ n }}?', choices: ['yes', 'no'], into: answer }
edges: [{ from: START, to: square }, { from: square, to: ask }, { from: ask, to: END }]
";
/// Two questions after a step, and one more graph to be moved to.
const PAIR: &str = "
graph: pair
input: [n]
output: [n, left, right]
state: { n: { type: number, default: 0, scope: run }, left: {}, right: {} }
nodes:
  add: { kind: set, set: { n: n + 1 } }
  left: { kind: human, ask: Left?, into: left }
  right: { kind: human, ask: Right?, into: right }
edges:
  - { from: START, to: add }
  - { from: add, to: left }
  - { from: add, to: right }
  - { from: [left, right], to: END }
";

async fn exile() -> Exile {
    Exile::serving(&[("outer", OUTER), ("middle", MIDDLE), ("inner", INNER), ("pair", PAIR)]).await
}

fn path(waits: &Value) -> String {
    format!("/api/runs/{}", waits["run"]["id"].as_str().unwrap())
}

async fn get(exile: &Exile, path: &str) -> Value {
    let answer = exile.call("GET", path, None).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json()
}

async fn post(exile: &Exile, path: &str, body: Value) -> Answer {
    exile.call("POST", path, Some(body)).await
}

async fn checkpoints(exile: &Exile, run: &str) -> Vec<Value> {
    let list = get(exile, &format!("{run}/checkpoints")).await;
    assert_eq!(list["next"], Value::Null);
    list["items"].as_array().unwrap().clone()
}

/// Answers every open question of a run with a value, and gives the run as it then stands.
async fn answer_all(exile: &Exile, run: &str, value: &str) -> Value {
    let view = get(exile, run).await;
    let open = view["interrupts"].as_array().unwrap();
    let answers: serde_json::Map<String, Value> =
        open.iter().map(|i| (i["id"].as_str().unwrap().to_owned(), json!(value))).collect();
    let body = json!({ "answers": answers, "stream": true });
    let streamed = post(exile, &format!("{run}/resume"), body).await;
    assert_eq!(streamed.status, 200, "{}", streamed.text);
    get(exile, run).await
}

/// The number of the checkpoint at which this task begins.
fn begins(all: &[Value], task: &str) -> u64 {
    let begins = |c: &&Value| c["next"].as_array().unwrap().iter().any(|t| t == task);
    let found = all.iter().find(begins).unwrap_or_else(|| panic!("{task}: {all:?}"));
    found["number"].as_u64().unwrap()
}

#[tokio::test]
async fn every_step_at_every_depth_is_listed_with_what_ended_and_what_is_next() {
    let exile = exile().await;
    let run = path(&exile.run("outer", json!({})).await);
    let done = answer_all(&exile, &run, "yes").await;
    assert_eq!(done["status"], "finished");
    let all = checkpoints(&exile, &run).await;
    let told: Vec<(&str, &str, String, String)> = all
        .iter()
        .map(|c| {
            let list = |key: &str| c[key].as_array().unwrap().iter().filter_map(Value::as_str);
            let joined = |key: &str| list(key).collect::<Vec<_>>().join(" ");
            let text = |key: &str| c[key].as_str().unwrap();
            (text("kind"), text("path"), joined("ended"), joined("next"))
        })
        .collect();
    let at = |kind, path, ended: &str, next: &str| (kind, path, ended.to_owned(), next.to_owned());
    let (outer, inner) = ("inside:1", "inside:1/inside:1");
    let expected = [
        at("start", "", "", "raise:1"),
        at("step", "", "raise:1", "inside:1"),
        at("step", outer, "", "inside:1/double:1"),
        at("step", outer, "inside:1/double:1", inner),
        at("step", inner, "", "inside:1/inside:1/square:1"),
        at("step", inner, "inside:1/inside:1/square:1", "inside:1/inside:1/ask:1"),
        at("waiting", "", "", ""),
        at("answer", "", "", ""),
        at("step", inner, "inside:1/inside:1/ask:1", ""),
        at("step", outer, inner, ""),
        at("step", "", outer, ""),
        at("end", "", "", ""),
    ];
    assert_eq!(told, expected);
    let statuses: Vec<&str> = all.iter().map(|c| c["status"].as_str().unwrap()).collect();
    assert_eq!(statuses[6..8], ["waiting", "running"]);
    assert_eq!(statuses.last(), Some(&"finished"));

    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(&exile, &format!("{run}/checkpoints?limit=5{after}")).await;
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(paged, all, "in pages");
    let odd = exile.call("GET", &format!("{run}/checkpoints?after=x"), None).await;
    assert_eq!((odd.status, odd.code().as_str()), (400, "malformed_request"));
}

#[tokio::test]
async fn a_checkpoint_reads_the_same_whatever_came_later() {
    let exile = exile().await;
    let run = path(&exile.run("outer", json!({ "n": 2 })).await);
    let now = get(&exile, &format!("{run}/state")).await;
    assert_eq!(
        (&now["status"], &now["values"]),
        (&json!("waiting"), &json!({ "n": 3, "got": null }))
    );
    assert_eq!(
        (&now["tasks"][0]["task"], &now["tasks"][0]["kind"]),
        (&json!("inside:1"), &json!("graph"))
    );
    assert_eq!(now["tasks"][0]["status"], "suspended", "all inside it waits");
    let inner = &now["subgraphs"][1];
    assert_eq!((&inner["path"], &inner["graph"]), (&json!("inside:1/inside:1"), &json!("inner")));
    assert_eq!(inner["values"], json!({ "n": 36, "answer": null }));
    let ask = &inner["tasks"][0];
    assert_eq!((&ask["node"], &ask["status"]), (&json!("ask"), &json!("suspended")));
    assert_eq!(ask["interrupts"][0]["text"], "Is it 36?");

    let before = checkpoints(&exile, &run).await;
    let mut read = Vec::new();
    for checkpoint in &before {
        read.push(get(&exile, &format!("{run}/checkpoints/{}", checkpoint["number"])).await);
    }
    assert_eq!(read.last(), Some(&now));
    assert_eq!(read[2]["subgraphs"][0]["values"]["n"], 3, "before it was doubled");
    assert_eq!(read[3]["subgraphs"][0]["values"]["n"], 6, "and after");
    answer_all(&exile, &run, "no").await;
    for (checkpoint, earlier) in before.iter().zip(&read) {
        let path = format!("{run}/checkpoints/{}", checkpoint["number"]);
        assert_eq!(get(&exile, &path).await, *earlier);
    }
    let end = get(&exile, &format!("{run}/state")).await;
    assert_eq!(
        (&end["status"], &end["tasks"], &end["subgraphs"]),
        (&json!("finished"), &json!([]), &json!([]))
    );
    assert_eq!(end["values"], json!({ "n": 3, "got": { "answer": { "answer": "no" } } }));
    for odd in ["0", "x", "-1", "99999"] {
        let none = exile.call("GET", &format!("{run}/checkpoints/{odd}"), None).await;
        assert_eq!((none.status, none.code().as_str()), (404, "not_found"), "{odd}");
    }
}

#[tokio::test]
async fn a_diff_names_every_place_that_changed_at_any_depth() {
    let exile = exile().await;
    let run = path(&exile.run("outer", json!({})).await);
    answer_all(&exile, &run, "yes").await;
    let all = checkpoints(&exile, &run).await;
    let number = |c: &Value| c["number"].as_u64().unwrap();
    let diff =
        async |from: u64, to: u64| get(&exile, &format!("{run}/diff?from={from}&to={to}")).await;
    let deep = begins(&all, "inside:1/inside:1/square:1");
    let deeper = begins(&all, "inside:1/inside:1/ask:1");
    let squared = diff(deep, deeper).await;
    let change = json!({ "pointer": "", "change": "changed", "from": 4, "to": 16 });
    assert_eq!(
        squared["graphs"],
        json!([{ "path": "inside:1/inside:1", "graph": "inner",
        "change": "changed",
        "channels": [{ "channel": "n", "change": "changed", "changes": [change] }] }])
    );
    let back = diff(deeper, deep).await;
    assert_eq!(back["graphs"][0]["channels"][0]["changes"][0]["to"], 4);
    assert_eq!(diff(deep, deep).await["graphs"], json!([]));

    let ended = diff(deeper, number(all.last().unwrap())).await;
    let graphs: Vec<(&str, &str)> = ended["graphs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| (g["path"].as_str().unwrap(), g["change"].as_str().unwrap()))
        .collect();
    assert_eq!(
        graphs,
        [("", "changed"), ("inside:1", "removed"), ("inside:1/inside:1", "removed")]
    );
    let got = &ended["graphs"][0]["channels"][0];
    assert_eq!((&got["channel"], &got["changes"][0]["from"]), (&json!("got"), &Value::Null));

    let odd = exile.call("GET", &format!("{run}/diff?from=1&to=4444"), None).await;
    assert_eq!((odd.status, odd.code().as_str()), (422, "invalid_field"));
    let none = exile.call("GET", &format!("{run}/diff"), None).await;
    assert_eq!((none.status, none.code().as_str()), (400, "malformed_request"));
}

#[tokio::test]
async fn messages_are_compared_by_id() {
    let exile = exile().await;
    let done = exile.run("chat", json!({ "messages": ["hi"] })).await;
    let run = path(&done);
    let all = checkpoints(&exile, &run).await;
    let (first, last) = (&all[0]["number"], &all.last().unwrap()["number"]);
    let diff = get(&exile, &format!("{run}/diff?from={first}&to={last}")).await;
    let changes = &diff["graphs"][0]["channels"][0]["changes"];
    let said = &done["output"]["messages"][1];
    assert_eq!((&changes[0]["message"], &changes[0]["pointer"]), (&said["id"], &json!("/1")));
    assert_eq!((&changes[0]["change"], &changes[0]["to"]), (&json!("added"), said));
    assert_eq!(changes.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_fork_goes_on_from_any_checkpoint_and_leaves_the_run_as_it_is() {
    let exile = exile().await;
    let run = path(&exile.run("outer", json!({})).await);
    let before = get(&exile, &run).await;
    let all = checkpoints(&exile, &run).await;
    let at = begins(&all, "inside:1/inside:1/square:1");
    let body = json!({ "at": at, "path": "inside:1/inside:1", "values": { "n": 7 } });
    let forked = post(&exile, &format!("{run}/fork"), body).await;
    assert_eq!(forked.status, 202, "{}", forked.text);
    let fork = forked.header("location").to_owned();
    assert_ne!(fork, run);
    let events = exile.watch(&format!("{fork}/stream")).await;
    assert_eq!((events[0].name.as_str(), &events[0].data["from"]), ("run.started", &before["id"]));
    let state = get(&exile, &format!("{fork}/state")).await;
    assert_eq!(state["subgraphs"][1]["values"]["n"], 49);
    assert_eq!(state["subgraphs"][0]["values"]["n"], 4, "what was done before stands");
    let kinds: Vec<Value> =
        checkpoints(&exile, &fork).await.iter().map(|c| c["kind"].clone()).collect();
    assert_eq!(kinds[..2], [json!("fork"), json!("edit")]);
    let done = answer_all(&exile, &fork, "yes").await;
    assert_eq!(done["status"], "finished");
    assert_eq!(get(&exile, &run).await, before);

    let last = post(&exile, &format!("{run}/fork"), json!({})).await;
    assert_eq!(last.status, 202, "from where it stands: {}", last.text);
    let last = last.header("location").to_owned();
    exile.watch(&format!("{last}/stream")).await;
    assert_eq!(get(&exile, &last).await["interrupts"][0]["text"], "Is it 16?");
}

#[tokio::test]
async fn a_fork_that_cannot_be_is_refused() {
    let exile = exile().await;
    let run = path(&exile.run("add", json!({ "n": 1 })).await);
    let all = checkpoints(&exile, &run).await;
    let (first, end) = (&all[0]["number"], &all.last().unwrap()["number"]);
    let cases = [
        (json!({ "at": 7777 }), "invalid_field"),
        (json!({ "at": end }), "invalid_field"),
        (json!({ "at": first, "values": { "m": 1 } }), "unknown_channel"),
        (json!({ "at": first, "values": { "n": "1" } }), "invalid_input"),
        (json!({ "at": first, "as_node": "nobody" }), "unknown_node"),
        (json!({ "at": first, "path": "nowhere:1", "values": { "n": 1 } }), "unknown_path"),
    ];
    for (body, code) in cases {
        let refused = post(&exile, &format!("{run}/fork"), body.clone()).await;
        assert_eq!((refused.status, refused.code().as_str()), (422, code), "{body}");
    }
    let runs = get(&exile, "/api/runs").await;
    assert_eq!(runs["items"].as_array().unwrap().len(), 1, "nothing was begun");
}

#[tokio::test]
async fn a_fork_of_a_turn_moves_the_conversation() {
    let exile = exile().await;
    let conversation = exile.conversation("mock/any").await;
    let messages = format!("{conversation}/messages");
    let mut runs = Vec::new();
    for content in ["one", "two"] {
        let said = post(&exile, &messages, json!({ "content": content })).await.json();
        runs.push(path(&said));
    }
    let all = checkpoints(&exile, &runs[0]).await;
    let body = json!({ "at": all[0]["number"] });
    let fork = post(&exile, &format!("{}/fork", runs[0]), body).await;
    assert_eq!(fork.status, 202, "{}", fork.text);
    let fork = fork.header("location").to_owned();
    let events = exile.watch(&format!("{fork}/stream")).await;
    assert_eq!(events.last().unwrap().name, "run.finished");
    assert_eq!(
        get(&exile, &fork).await["conversation_id"],
        conversation.rsplit('/').next().unwrap()
    );
    let state = get(&exile, &format!("{fork}/state")).await;
    let said: Vec<&str> = state["values"]["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["content"].as_str().unwrap())
        .collect();
    assert_eq!(said, ["one", "[mock] you said: one"], "the second turn is gone back over");
    let old = get(&exile, &format!("{}/state", runs[1])).await;
    assert_eq!(old["values"]["messages"].as_array().unwrap().len(), 4, "and can still be read");
}

#[tokio::test]
async fn the_state_of_a_run_that_waits_or_has_ended_is_changed_by_hand() {
    let exile = exile().await;
    let run = path(&exile.run("pair", json!({ "n": 1 })).await);
    let last = get(&exile, &run).await["numbers"][1].as_u64().unwrap();
    let edit = post(&exile, &format!("{run}/state"), json!({ "values": { "n": 40 } })).await;
    assert_eq!(edit.status, 202, "{}", edit.text);
    exile.watch(&format!("{run}/stream?after={last}")).await;
    let view = get(&exile, &run).await;
    assert_eq!(
        (&view["status"], view["interrupts"].as_array().unwrap().len()),
        (&json!("waiting"), 2)
    );
    let state = get(&exile, &format!("{run}/state")).await;
    assert_eq!(state["values"]["n"], 40);
    let last = view["numbers"][1].as_u64().unwrap();
    let skip = json!({ "values": { "left": "by hand" }, "as_node": "add" });
    assert_eq!(post(&exile, &format!("{run}/state"), skip).await.status, 202);
    exile.watch(&format!("{run}/stream?after={last}")).await;
    let done = answer_all(&exile, &run, "said").await;
    assert_eq!(done["status"], "finished");

    let cases = [
        (json!({ "values": { "m": 1 } }), 422, "unknown_channel"),
        (json!({ "values": { "n": [] } }), 422, "invalid_input"),
        (json!({ "values": { "n": 1 }, "as_node": "add" }), 422, "invalid_field"),
        (json!({ "values": { "n": 1 }, "path": "x:1" }), 422, "unknown_path"),
    ];
    for (body, status, code) in cases {
        let refused = post(&exile, &format!("{run}/state"), body.clone()).await;
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{body}");
    }
    let going = exile.waiting_run().await;
    let refused = post(&exile, &format!("{going}/state"), json!({ "values": {} })).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "run_running"));
}

#[tokio::test]
async fn a_run_that_waits_is_moved_to_its_graph_as_it_is_now_if_it_fits() {
    let exile = exile().await;
    let run = path(&exile.run("pair", json!({ "n": 1 })).await);
    let before = get(&exile, &run).await;
    let changed = PAIR.replace(
        "right: { kind: human",
        "right: { kind: set, set: { right: n } }\n  other: { kind: human",
    );
    let changed = changed
        .replace("n: { type: number, default: 0, scope: run }", "n: { type: string, scope: run }");
    let changed = changed
        .replace("add: { kind: set, set: { n: n + 1 } }", "add: { kind: set, set: { left: n } }");
    let changed = changed.replace(
        "{ from: add, to: right }",
        "{ from: add, to: right }\n  - { from: right, to: other }",
    );
    let odd = exile.with_graph("pair", &changed);
    let tried = post(&odd, &format!("{run}/migrate"), json!({ "dry_run": true })).await;
    assert_eq!(tried.status, 200, "{}", tried.text);
    let tried = tried.json();
    assert_eq!(tried["ok"], false);
    let of = |key: &str, name: &str| {
        tried["problems"].as_array().unwrap().iter().any(|p| p[key] == name && p["path"] == "")
    };
    assert!(of("node", "right") && of("channel", "n"), "{tried}");
    let refused = post(&odd, &format!("{run}/migrate"), json!({})).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "migration_refused"));
    assert_eq!(refused.problem()["problems"], tried["problems"]);
    assert_eq!(get(&exile, &run).await, before);

    let better = PAIR.replace("Left?", "Left now?").replace("n + 1", "n + 2");
    let good = exile.with_graph("pair", &better);
    let tried = post(&good, &format!("{run}/migrate"), json!({ "dry_run": true })).await.json();
    assert_eq!((&tried["ok"], &tried["problems"]), (&json!(true), &json!([])));
    let moved = post(&good, &format!("{run}/migrate"), json!({ "dry_run": false })).await;
    assert_eq!(moved.status, 202, "{}", moved.text);
    let last = before["numbers"][1].as_u64().unwrap();
    exile.watch(&format!("{run}/stream?after={last}")).await;
    let kinds = checkpoints(&exile, &run).await;
    assert!(kinds.iter().any(|c| c["kind"] == "migration"), "{kinds:?}");
    assert_eq!(answer_all(&good, &run, "said").await["status"], "finished");
    let over = post(&good, &format!("{run}/migrate"), json!({ "dry_run": true })).await;
    assert_eq!((over.status, over.code().as_str()), (409, "run_ended"));
}

#[tokio::test]
async fn a_fork_of_a_map_that_failed_asks_only_for_the_items_that_had_not_finished() {
    const EACH: &str = "
graph: each
input: [list]
output: [done]
state: { list: {}, done: {} }
nodes:
  ask: { kind: map, over: list, as: word, into: done, concurrency: 1, node: { kind: llm, model: mock/any, prompt: '{{ word }}' } }
edges: [{ from: START, to: ask }, { from: ask, to: END }]
";
    let exile = Exile::serving(&[("each", EACH)]).await;
    let input = json!({ "list": ["one", "two", "no key", "four"] });
    let body = json!({ "graph": "each", "input": input });
    let run = exile.call("POST", "/api/runs", Some(body)).await.header("location").to_owned();
    let asked = |events: &[super::fixture::Sent]| {
        events.iter().filter(|event| event.name == "model.finished").count()
    };
    assert_eq!(asked(&exile.watch(&format!("{run}/stream")).await), 4);
    assert_eq!(get(&exile, &run).await["status"], "failed");
    let last = checkpoints(&exile, &run).await;
    let failure = &last[last.len() - 2];
    assert_eq!((&failure["kind"], &failure["ended"]), (&json!("failure"), &json!(["ask:1"])));
    for body in [json!({}), json!({ "at": failure["number"] })] {
        let forked = post(&exile, &format!("{run}/fork"), body).await;
        assert_eq!(forked.status, 202, "{}", forked.text);
        let fork = forked.header("location").to_owned();
        let events = exile.watch(&format!("{fork}/stream")).await;
        assert_eq!(asked(&events), 1, "the one that failed");
        assert_eq!(events.last().unwrap().name, "run.failed", "it has no key here either");
    }
}
