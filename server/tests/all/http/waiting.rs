//! A run that waits for a person: shown, answered, resolved; each refusal with its reason.

use serde_json::{Value, json};

use super::fixture::{Answer, Exile};

/// Two questions side by side, of which one is answered by choice and one by any text.
const TWO: &str = "
graph: two
input: []
output: [first, second, done]
state: { first: {}, second: {}, done: { default: false, scope: run } }
nodes:
  first: { kind: human, ask: Which?, choices: [tea, coffee], into: first }
  second: { kind: human, ask: Why?, into: second }
  after: { kind: set, set: { done: true } }
edges:
  - { from: START, to: first }
  - { from: START, to: second }
  - { from: [first, second], to: after }
  - { from: after, to: END }
";
/// A call that a person must agree to.
const APPROVED: &str = "
graph: approved
input: [n]
output: [half]
state: { n: { type: integer, default: 8, scope: run }, half: {} }
nodes: { halve: { kind: tool, tool: halve, args: { n: '{{ n }}' }, approve: true, into: half } }
edges: [{ from: START, to: halve }, { from: halve, to: END }]
";

async fn exile() -> Exile {
    Exile::serving(&[("two", TWO), ("approved", APPROVED)]).await
}

/// The id of the open question with that text.
fn asked(waits: &Value, text: &str) -> String {
    let open = waits["interrupts"].as_array().unwrap();
    let found = open.iter().find(|i| i["text"] == text).unwrap_or_else(|| panic!("{waits}"));
    found["id"].as_str().unwrap().to_owned()
}

fn path(waits: &Value) -> String {
    format!("/api/runs/{}", waits["run"]["id"].as_str().unwrap())
}

async fn resume(exile: &Exile, path: &str, answers: Value) -> Answer {
    let body = json!({ "answers": answers });
    exile.call("POST", &format!("{path}/resume"), Some(body)).await
}

/// Waits until the run ends or waits, beyond what was seen.
async fn settled(exile: &Exile, path: &str, after: u64) -> Value {
    exile.watch(&format!("{path}/stream?after={after}")).await;
    exile.call("GET", path, None).await.json()
}

#[tokio::test]
async fn a_run_that_waits_shows_what_it_asks_and_is_no_error() {
    let exile = exile().await;
    let waits = exile.run("two", json!({})).await;
    let run = &waits["run"];
    assert_eq!((&run["status"], &waits["output"]["done"]), (&json!("waiting"), &json!(false)));
    assert_eq!(run["interrupts"], waits["interrupts"]);
    let which = &waits["interrupts"].as_array().unwrap().iter().find(|i| i["text"] == "Which?");
    let which = which.unwrap();
    assert_eq!(which["choices"], json!(["tea", "coffee"]));
    assert_eq!((&which["node"], &which["task"]), (&json!("first"), &json!("first:1")));
    assert_eq!((&which["reason"], &which["expires_at"]), (&json!("human"), &Value::Null));
    assert_eq!(exile.read(&path(&waits)).await, (run.clone(), waits["output"].clone()));
    let listed = exile.call("GET", "/api/runs?status=waiting", None).await.json();
    assert_eq!(listed["items"], json!([run]));
    let events = exile.watch(&format!("{}/stream", path(&waits))).await;
    let last = events.last().unwrap();
    assert_eq!((last.name.as_str(), &last.data["status"]), ("run.waiting", &json!("waiting")));
    assert_eq!(last.data["interrupts"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn questions_are_answered_one_by_one_or_all_at_once() {
    let exile = exile().await;
    let waits = exile.run("two", json!({})).await;
    let run = path(&waits);
    let last = |view: &Value| view["numbers"][1].as_u64().unwrap();
    let one = resume(&exile, &run, json!({ asked(&waits, "Which?"): "tea" })).await;
    assert_eq!((one.status, one.header("location")), (202, run.as_str()), "{}", one.text);
    let still = settled(&exile, &run, last(&waits["run"])).await;
    assert_eq!(still["status"], "waiting");
    assert_eq!(still["interrupts"].as_array().unwrap().len(), 1);
    let two = resume(&exile, &run, json!({ asked(&waits, "Why?"): "because" })).await;
    assert_eq!(two.status, 202, "{}", two.text);
    let done = settled(&exile, &run, last(&still)).await;
    assert_eq!((&done["status"], &done["interrupts"]), (&json!("finished"), &json!([])));
    let state = exile.call("GET", &format!("{run}/state"), None).await.json();
    assert_eq!(state["values"], json!({ "first": "tea", "second": "because", "done": true }));

    let waits = exile.run("two", json!({})).await;
    let both = json!({ asked(&waits, "Which?"): "coffee", asked(&waits, "Why?"): "why not" });
    let body = json!({ "answers": both, "stream": true });
    let streamed = exile.call("POST", &format!("{}/resume", path(&waits)), Some(body)).await;
    assert_eq!(streamed.header("content-type"), "text/event-stream");
    let events = streamed.events();
    assert!(events.iter().all(|e| e.id > last(&waits["run"])), "only what follows");
    assert_eq!(events.last().unwrap().name, "run.finished");
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_refused_and_changes_nothing() {
    let exile = exile().await;
    let waits = exile.run("two", json!({})).await;
    let (run, which) = (path(&waits), asked(&waits, "Which?"));
    let field = format!("answers.{which}");
    let unknown = resume(&exile, &run, json!({ "int_none": "tea" })).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (422, "unknown_interrupt"));
    assert!(unknown.problem()["detail"].as_str().unwrap().contains(&which), "the open ones");
    for wrong in [json!("water"), json!(1), json!(null)] {
        let refused = resume(&exile, &run, json!({ &which: wrong })).await;
        assert_eq!((refused.status, refused.code().as_str()), (422, "invalid_field"), "{wrong}");
        assert_eq!(refused.problem()["field"], field);
        assert!(refused.problem()["detail"].as_str().unwrap().contains("tea, coffee"));
    }
    let none = resume(&exile, &run, json!({})).await;
    assert_eq!((none.status, &none.problem()["field"]), (422, &json!("answers")));
    let one_is_wrong = json!({ &which: "tea", asked(&waits, "Why?"): 1 });
    assert_eq!(resume(&exile, &run, one_is_wrong).await.status, 422);
    assert_eq!(exile.read(&run).await, (waits["run"].clone(), waits["output"].clone()));
}

#[tokio::test]
async fn an_answer_is_given_once() {
    let exile = exile().await;
    let waits = exile.run("two", json!({})).await;
    let (run, which) = (path(&waits), asked(&waits, "Which?"));
    let keyed = async |value: &str| {
        let request = axum::http::Request::builder()
            .method("POST")
            .uri(format!("{run}/resume"))
            .header("authorization", format!("Bearer {}", exile.alice))
            .header("idempotency-key", "answer");
        let body = json!({ "answers": { &which: value } });
        exile.send(super::fixture::with_json(request, Some(body))).await
    };
    let first = keyed("tea").await;
    assert_eq!(first.status, 202, "{}", first.text);
    let again = keyed("tea").await;
    assert_eq!((again.status, again.text), (202, first.text), "the same answer");
    assert_eq!(keyed("coffee").await.code(), "idempotency_key_reused");
    for value in ["tea", "coffee"] {
        let twice = resume(&exile, &run, json!({ &which: value })).await;
        assert_eq!((twice.status, twice.code().as_str()), (409, "already_answered"), "{value}");
        assert_eq!(twice.problem()["interrupt"], which);
    }
}

#[tokio::test]
async fn only_a_run_that_waits_is_resumed_and_only_one_in_attention_resolved() {
    let exile = exile().await;
    let done = exile.run("add", json!({ "n": 1 })).await;
    let going = exile.waiting_run().await;
    for run in [path(&done), going] {
        let refused = resume(&exile, &run, json!({ "int_1": "x" })).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "run_not_waiting"));
        let body = json!({ "action": "retry" });
        let refused = exile.call("POST", &format!("{run}/resolve"), Some(body)).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "run_not_in_attention"));
    }
}

#[tokio::test]
async fn an_approval_is_given_changed_or_refused() {
    let exile = exile().await;
    let cases = [
        (json!("approve"), json!({ "half": 4 })),
        (json!({ "edit": { "n": 10 } }), json!({ "half": 5 })),
    ];
    for (answer, output) in cases {
        let waits = exile.run("approved", json!({})).await;
        let interrupt = &waits["interrupts"][0];
        assert_eq!(
            (&interrupt["reason"], &interrupt["tool"]),
            (&json!("approval"), &json!("halve"))
        );
        assert_eq!(interrupt["arguments"], json!({ "n": 8 }));
        let id = interrupt["id"].as_str().unwrap();
        for wrong in [json!("yes"), json!({ "edit": { "m": 1 } }), json!({ "edit": 1 })] {
            let refused = resume(&exile, &path(&waits), json!({ id: wrong })).await;
            assert_eq!((refused.status, refused.code().as_str()), (422, "invalid_field"));
        }
        let given = resume(&exile, &path(&waits), json!({ id: answer })).await;
        assert_eq!(given.status, 202, "{}", given.text);
        let last = waits["run"]["numbers"][1].as_u64().unwrap();
        assert_eq!(settled(&exile, &path(&waits), last).await["status"], "finished");
        let state = exile.call("GET", &format!("{}/state", path(&waits)), None).await.json();
        assert_eq!(state["values"]["half"], output["half"]);
    }
    let waits = exile.run("approved", json!({})).await;
    let id = waits["interrupts"][0]["id"].as_str().unwrap();
    resume(&exile, &path(&waits), json!({ id: { "reject": "too much" } })).await;
    let last = waits["run"]["numbers"][1].as_u64().unwrap();
    let failed = settled(&exile, &path(&waits), last).await;
    assert_eq!(failed["status"], "failed");
    assert!(failed["error"]["message"].as_str().unwrap().contains("too much"), "{failed}");
}
