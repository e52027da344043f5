//! What is said to a run is decided once, by its engine: of two requests that exclude each other
//! one is done and the other refused, and what was acknowledged stands there for the next read.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fixture::{Answer, Exile};

/// A call that a person must agree to, and that is told to the fixture.
const PAYS: &str = "
graph: pays
input: [messages]
output: [paid]
state: { messages: { reduce: messages }, paid: {}, note: { default: none } }
nodes: { pay: { kind: tool, tool: pay, args: { n: 7 }, approve: true, into: paid } }
edges: [{ from: START, to: pay }, { from: pay, to: END }]
";

/// A call that takes as long as the fixture wants, then a question.
const SLOW: &str = "
graph: slow
input: [messages]
state: { messages: { reduce: messages }, paid: {}, said: {} }
nodes:
  pay: { kind: tool, tool: pay, args: { n: 7 }, into: paid }
  ask: { kind: human, ask: Enough?, choices: [more, enough], into: said }
edges: [{ from: START, to: pay }, { from: pay, to: ask }, { from: ask, to: END }]
";

/// Two questions side by side.
const TWO: &str = "
graph: two
input: []
output: [first, second]
state: { first: {}, second: {} }
nodes:
  first: { kind: human, ask: Which?, into: first }
  second: { kind: human, ask: Why?, into: second }
edges:
  - { from: START, to: first }
  - { from: START, to: second }
  - { from: [first, second], to: END }
";

async fn exile() -> Arc<Exile> {
    let exile = Exile::serving(&[("pays", PAYS), ("two", TWO)]).await;
    exile.gate.add_permits(1_000);
    Arc::new(exile)
}

/// A run that waits: its path, and its questions in the order of their nodes.
async fn waits(exile: &Exile, graph: &str) -> (String, Vec<String>) {
    let waits = exile.run(graph, json!({})).await;
    let open = waits["interrupts"].as_array().unwrap();
    let ids = open.iter().map(|asked| asked["id"].as_str().unwrap().to_owned()).collect();
    (format!("/api/runs/{}", waits["run"]["id"].as_str().unwrap()), ids)
}

async fn post(exile: &Exile, path: &str, body: Value) -> Answer {
    exile.call("POST", path, Some(body)).await
}

async fn resume(exile: &Exile, run: &str, answers: Value) -> Answer {
    post(exile, &format!("{run}/resume"), json!({ "answers": answers })).await
}

async fn read(exile: &Exile, run: &str) -> Value {
    exile.call("GET", run, None).await.json()
}

/// The run once it has ended.
async fn ended(exile: &Exile, run: &str) -> Value {
    exile.watch(&format!("{run}/stream")).await;
    let mut view = read(exile, run).await;
    while view["ended_at"].is_null() {
        let after = view["numbers"][1].as_u64().unwrap();
        exile.watch(&format!("{run}/stream?after={after}")).await;
        view = read(exile, run).await;
    }
    view
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_whose_rejecter_was_acknowledged_never_runs() {
    let exile = exile().await;
    let mut paid = 0;
    for round in 0..20 {
        let (run, ids) = waits(&exile, "pays").await;
        let say = |what: &'static str| {
            let (exile, run, id) = (exile.clone(), run.clone(), ids[0].clone());
            tokio::spawn(async move { resume(&exile, &run, json!({ id: what })).await })
        };
        let order = if round % 2 == 0 { ["approve", "reject"] } else { ["reject", "approve"] };
        let [one, other] = order.map(say);
        let (one, other) = (one.await.unwrap(), other.await.unwrap());
        let mut said = [(one.status, order[0]), (other.status, order[1])];
        said.sort_unstable();
        assert_eq!((said[0].0, said[1].0), (202, 409), "{} {}", one.text, other.text);
        let refused = if one.status == 409 { one } else { other };
        let known = ["already_answered", "run_not_waiting", "run_ended"];
        assert!(known.contains(&refused.code().as_str()), "{}", refused.text);
        paid += usize::from(said[0].1 == "approve");
        ended(&exile, &run).await;
        assert_eq!(exile.paid.reach(paid).await.len(), paid, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_and_an_approval_are_what_they_were_answered() {
    let exile = exile().await;
    for _ in 0..20 {
        let (run, ids) = waits(&exile, "pays").await;
        let approve = resume(&exile, &run, json!({ &ids[0]: "approve" }));
        let path = format!("{run}/cancel");
        let cancel = post(&exile, &path, json!({}));
        let (approved, cancelled) = tokio::join!(approve, cancel);
        let status = ended(&exile, &run).await["status"].clone();
        match (approved.status, cancelled.status) {
            // The approval came first, or did not come to anything; or all was over before the
            // cancel came, which is what its answer says.
            (202 | 409, 202) => assert_eq!(cancelled.json()["status"], status),
            (202, 409) => {
                assert_eq!((status, cancelled.code().as_str()), (json!("finished"), "run_ended"));
            }
            other => panic!("{other:?}: {} {}", approved.text, cancelled.text),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_stands_there_for_the_next_read() {
    let exile = exile().await;
    for _ in 0..10 {
        let (run, ids) = waits(&exile, "two").await;
        let taken = resume(&exile, &run, json!({ &ids[0]: "tea" })).await;
        for view in [taken.json(), read(&exile, &run).await] {
            let open = view["interrupts"].as_array().unwrap().iter();
            assert!(open.clone().all(|asked| asked["id"] != ids[0]), "{view}");
        }
        let (run, _) = waits(&exile, "pays").await;
        let edit = json!({ "values": { "note": "changed" } });
        let edited = post(&exile, &format!("{run}/state"), edit).await;
        assert_eq!((edited.status, &edited.json()["status"]), (202, &json!("waiting")));
        let state = read(&exile, &format!("{run}/state")).await;
        assert_eq!(state["values"]["note"], "changed");
        let cancelled = post(&exile, &format!("{run}/cancel"), json!({})).await;
        assert_eq!((cancelled.status, &cancelled.json()["status"]), (202, &json!("cancelled")));
        assert_eq!(read(&exile, &run).await["status"], "cancelled");
    }
}

#[tokio::test]
async fn answers_are_taken_together_or_not_at_all() {
    let exile = exile().await;
    let (run, ids) = waits(&exile, "two").await;
    assert_eq!(resume(&exile, &run, json!({ &ids[0]: "tea" })).await.status, 202);
    let both = resume(&exile, &run, json!({ &ids[0]: "milk", &ids[1]: "because" })).await;
    assert_eq!((both.status, both.code().as_str()), (409, "already_answered"));
    assert_eq!(resume(&exile, &run, json!({ &ids[1]: "why not" })).await.status, 202);
    ended(&exile, &run).await;
    let state = read(&exile, &format!("{run}/state")).await;
    assert_eq!(state["values"], json!({ "first": "tea", "second": "why not" }));
}

#[tokio::test]
async fn an_edit_in_between_leaves_the_questions_as_they_are() {
    let exile = exile().await;
    let (run, ids) = waits(&exile, "pays").await;
    let before = read(&exile, &run).await;
    for note in ["one", "two"] {
        let edit = json!({ "values": { "note": note } });
        assert_eq!(post(&exile, &format!("{run}/state"), edit).await.status, 202);
    }
    let after = read(&exile, &run).await;
    assert_eq!(
        (&after["status"], &after["interrupts"]),
        (&json!("waiting"), &before["interrupts"])
    );
    assert_eq!(resume(&exile, &run, json!({ &ids[0]: "approve" })).await.status, 202);
    assert_eq!(ended(&exile, &run).await["status"], "finished");
    assert_eq!(exile.paid.reach(1).await.len(), 1);
}

#[tokio::test]
async fn who_waits_for_a_run_behind_one_that_comes_to_wait_is_told_so() {
    let exile = Arc::new(Exile::serving(&[("slow", SLOW)]).await);
    let made = post(&exile, "/api/conversations", json!({ "graph": "slow" })).await.json();
    let turn = json!({ "conversation_id": made["id"], "input": { "messages": "pay" } });
    let first = post(&exile, "/api/runs", turn.clone()).await.json();
    exile.paid.reach(1).await;
    let other = exile.clone();
    let second = tokio::spawn(async move { post(&other, "/api/runs/wait", turn).await });
    while read(&exile, "/api/runs?status=queued").await["items"] == json!([]) {
        tokio::task::yield_now().await;
    }
    exile.gate.add_permits(1);
    let second = second.await.unwrap();
    assert_eq!((second.status, second.code().as_str()), (409, "run_queued"), "{}", second.text);
    let problem = second.problem();
    assert_eq!(problem["ahead"], first["id"]);
    assert_eq!(problem["interrupts"].as_array().unwrap().len(), 1);
    let queued = read(&exile, &format!("/api/runs/{}", problem["run"].as_str().unwrap())).await;
    assert_eq!(queued["status"], "queued");
}

#[tokio::test]
async fn a_run_that_is_cancelled_while_it_is_queued_ends_at_once_and_leaves_nothing() {
    let exile = exile().await;
    // The first one may come to wait before the others are sent, which are refused then: once more.
    let (conversation, [going, behind, last]) = loop {
        let graph = json!({ "graph": "pays" });
        let made = post(&exile, "/api/conversations", graph).await.json();
        let conversation = made["id"].as_str().unwrap().to_owned();
        let mut runs = Vec::new();
        for text in ["first", "second", "third"] {
            let input = json!({ "messages": text });
            let body =
                json!({ "conversation_id": conversation, "input": input, "if_active": "enqueue" });
            let begun = post(&exile, "/api/runs", body).await;
            runs.push(begun.header("location").to_owned());
        }
        if runs.iter().all(|run| !run.is_empty()) {
            break (conversation, <[String; 3]>::try_from(runs).unwrap());
        }
    };
    exile.watch(&format!("{going}/stream")).await;
    assert_eq!(read(&exile, &going).await["status"], "waiting");
    let before = read(&exile, &going).await["interrupts"].clone();
    let cancelled = post(&exile, &format!("{behind}/cancel"), json!({})).await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (202, &json!("cancelled")));
    let still = read(&exile, &going).await;
    assert_eq!((&still["status"], &still["interrupts"]), (&json!("waiting"), &before));
    assert_eq!(read(&exile, &last).await["status"], "queued");
    let events = exile.watch(&format!("{behind}/stream")).await;
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["run.cancelled"]);
    let id = before[0]["id"].as_str().unwrap();
    assert_eq!(resume(&exile, &going, json!({ id: "reject" })).await.status, 202);
    ended(&exile, &going).await;
    let messages = read(&exile, &format!("/api/conversations/{conversation}/messages")).await;
    let said: Vec<&str> = messages["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|message| message["role"] == "user")
        .map(|message| message["content"].as_str().unwrap())
        .collect();
    assert!(said.starts_with(&["first"]) && !said.contains(&"second"), "{said:?}");
}
