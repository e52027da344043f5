//! Tasks that go on beside one another, seen from outside: under the dataflow schedule, and as the
//! items of a list.

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::fixture::Exile;

const RACE: &str = "
graph: race
schedule: dataflow
input: [n]
output: [sum]
state: { n: { type: number, default: 1, scope: run }, slow: {}, fast: {}, after: {}, sum: {} }
nodes:
  slow: { kind: llm, model: gate/any, prompt: slowly, into: slow }
  fast: { kind: set, set: { fast: n + 1 } }
  after: { kind: set, set: { after: fast * 10 } }
  last: { kind: set, set: { sum: fast + after } }
edges:
  - { from: START, to: slow }
  - { from: START, to: fast }
  - { from: fast, to: after }
  - { from: [slow, after], to: last }
  - { from: last, to: END }
";
const EACH: &str = "
graph: each
input: [list]
output: [out]
state: { list: { type: array, default: [], scope: run }, out: {} }
nodes:
  each: { kind: map, over: list, as: x, node: { kind: graph, graph: one, with: { n: x } }, into: out }
edges: [{ from: START, to: each }, { from: each, to: END }]
";
const ONE: &str = "
graph: one
input: [n]
output: [n, answer]
state: { n: { type: number, default: 0 }, answer: {} }
nodes:
  double: { kind: set, set: { n: n * 2 } }
  ask: { kind: human, ask: 'Is it {{ n }}?', choices: ['yes', 'no'], into: answer }
edges: [{ from: START, to: double }, { from: double, to: ask }, { from: ask, to: END }]
";

async fn exile() -> Exile {
    Exile::serving(&[("race", RACE), ("each", EACH), ("one", ONE)]).await
}

async fn get(exile: &Exile, path: &str) -> Value {
    let answer = exile.call("GET", path, None).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json()
}

/// Path, tasks that ended and tasks that begin of each checkpoint that is a step.
async fn steps(exile: &Exile, run: &str) -> Vec<(u64, String, String, String)> {
    let list = get(exile, &format!("{run}/checkpoints")).await;
    let all = list["items"].as_array().unwrap().iter().filter(|c| c["kind"] == "step");
    let step = |c: &Value| {
        let tasks = |key: &str| {
            let tasks = c[key].as_array().unwrap().iter().map(|t| t.as_str().unwrap());
            tasks.collect::<Vec<_>>().join(" ")
        };
        let path = c["path"].as_str().unwrap().to_owned();
        (c["number"].as_u64().unwrap(), path, tasks("ended"), tasks("next"))
    };
    all.map(step).collect()
}

fn told(steps: &[(u64, String, String, String)]) -> Vec<(&str, &str, &str)> {
    steps.iter().map(|(_, path, ended, next)| (&**path, &**ended, &**next)).collect()
}

#[tokio::test]
async fn under_the_dataflow_schedule_each_task_that_ends_is_a_checkpoint() {
    let exile = exile().await;
    let body = json!({ "graph": "race", "input": {} });
    let begun = exile.call("POST", "/api/runs", Some(body)).await;
    assert_eq!(begun.status, 202, "{}", begun.text);
    let run = begun.header("location").to_owned();
    let mut events = exile.app.engine.events(begun.json()["id"].as_str().unwrap().into(), 0);
    while let Some(Ok(event)) = events.next().await {
        if event.name == "node.finished" && event.data["task"] == "after:1" {
            break;
        }
    }
    let early = steps(&exile, &run).await;
    assert_eq!(told(&early), [("", "fast:1", "after:1"), ("", "after:1", "")], "slow goes on");
    let state = get(&exile, &format!("{run}/state")).await;
    assert_eq!((&state["values"]["after"], &state["values"]["slow"]), (&json!(20), &Value::Null));
    let live: Vec<&Value> =
        state["tasks"].as_array().unwrap().iter().map(|task| &task["task"]).collect();
    assert_eq!(live, ["slow:1"]);

    exile.gate.add_permits(1);
    exile.watch(&format!("{run}/stream")).await;
    let all = steps(&exile, &run).await;
    assert_eq!(all[..2], early);
    assert_eq!(told(&all[2..]), [("", "slow:1", "last:1"), ("", "last:1", "")]);
    let end = get(&exile, &format!("{run}/state")).await;
    assert_eq!((&end["values"]["slow"], &end["values"]["sum"]), (&json!("through"), &json!(22)));
    let before = get(&exile, &format!("{run}/checkpoints/{}", early[0].0)).await;
    assert_eq!((&before["values"]["fast"], &before["values"]["after"]), (&json!(2), &Value::Null));
    let live: Vec<&Value> =
        before["tasks"].as_array().unwrap().iter().map(|task| &task["task"]).collect();
    assert_eq!(live, ["slow:1", "after:1"]);
}

#[tokio::test]
async fn a_fork_of_a_dataflow_run_goes_on_with_what_was_live_there() {
    let exile = exile().await;
    exile.gate.add_permits(2);
    let run = exile.run("race", json!({ "n": 4 })).await;
    let run = format!("/api/runs/{}", run["run"]["id"].as_str().unwrap());
    let all = steps(&exile, &run).await;
    let at = all.iter().find(|(_, _, ended, _)| ended == "fast:1").unwrap().0;
    let body = json!({ "at": at, "values": { "fast": 100 } });
    let forked = exile.call("POST", &format!("{run}/fork"), Some(body)).await;
    assert_eq!(forked.status, 202, "{}", forked.text);
    let fork = forked.header("location").to_owned();
    exile.watch(&format!("{fork}/stream")).await;
    let state = get(&exile, &format!("{fork}/state")).await;
    assert_eq!((&state["status"], &state["values"]["sum"]), (&json!("finished"), &json!(1100)));
    let origin = get(&exile, &format!("{run}/state")).await;
    assert_eq!(origin["values"]["sum"], 55, "the run that it comes from stays as it is");
}

#[tokio::test]
async fn each_item_of_a_list_is_seen_with_its_own_state_checkpoints_and_events() {
    let exile = exile().await;
    let waits = exile.run("each", json!({ "list": [1, 2] })).await;
    let run = format!("/api/runs/{}", waits["run"]["id"].as_str().unwrap());
    let state = get(&exile, &format!("{run}/state")).await;
    assert_eq!(state["tasks"][0]["task"], "each:1");
    let graphs = state["subgraphs"].as_array().unwrap();
    let paths: Vec<&Value> = graphs.iter().map(|graph| &graph["path"]).collect();
    assert_eq!(paths, ["each:1", "each:1/item:1", "each:1/item:2"]);
    let items: Vec<&Value> =
        graphs[0]["tasks"].as_array().unwrap().iter().map(|task| &task["values"]["x"]).collect();
    assert_eq!(items, [&json!(1), &json!(2)], "what each item reads");
    for (graph, n) in graphs[1..].iter().zip([2, 4]) {
        assert_eq!((&graph["graph"], &graph["values"]["n"]), (&json!("one"), &json!(n)));
        let question = &graph["tasks"][0]["interrupts"][0];
        assert_eq!(question["text"], format!("Is it {n}?"));
    }

    let (first, second) = ("each:1/item:1", "each:1/item:2");
    let inside = steps(&exile, &run).await;
    let of = |item: &str| -> Vec<(String, String)> {
        let own = inside.iter().filter(|(_, path, ..)| path == item);
        own.map(|(_, _, ended, next)| (ended.clone(), next.clone())).collect()
    };
    for item in [first, second] {
        let task = |name: &str| format!("{item}/{name}:1");
        let begun = (String::new(), task("double"));
        assert_eq!(of(item), [begun, (task("double"), task("ask"))]);
    }
    // Items go on side by side: of the second one nothing is known where the first one begins.
    let begins = inside.iter().find(|(_, path, ..)| path == first).unwrap().0;
    let then = get(&exile, &format!("{run}/checkpoints/{begins}")).await;
    assert_eq!(
        (&then["subgraphs"][1]["path"], &then["subgraphs"][1]["values"]["n"]),
        (&json!(first), &json!(1))
    );

    let answers = |value: &str| {
        let open = waits["interrupts"].as_array().unwrap().iter();
        open.map(|i| (i["id"].as_str().unwrap().to_owned(), json!(value)))
            .collect::<serde_json::Map<String, Value>>()
    };
    let body = json!({ "answers": answers("yes"), "stream": true });
    let streamed = exile.call("POST", &format!("{run}/resume"), Some(body)).await;
    let events = streamed.events();
    let ended: Vec<&Value> = events
        .iter()
        .filter(|event| event.name == "node.finished")
        .map(|event| &event.data["task"])
        .collect();
    for task in ["each:1/item:1/ask:1", "each:1/item:2/ask:1", "each:1"] {
        assert_eq!(ended.iter().filter(|ended| **ended == task).count(), 1, "{task}: {ended:?}");
    }
    assert!(events.iter().all(|e| e.name != "node.finished" || e.data["node"] == "each"));
    let end = get(&exile, &format!("{run}/state")).await;
    let out = |n: u64| json!({ "n": n, "answer": "yes" });
    assert_eq!(end["values"]["out"], json!([out(2), out(4)]));
}
