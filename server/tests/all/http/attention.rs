//! A run whose process died in a call that must not be made twice: shown, and resolved by its
//! owner in each of the three ways.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::fixture::Exile;

/// One call that must not be made twice.
const PAYS: &str = "
graph: pays
input: [messages]
output: [messages, paid]
state: { messages: { reduce: messages }, paid: {} }
nodes: { pay: { kind: tool, tool: pay, args: { n: 7 }, into: paid } }
edges: [{ from: START, to: pay }, { from: pay, to: END }]
";

/// The next process after one that died while it paid, and the run's path: of a run by itself, or
/// of a conversation's.
async fn died_while_it_paid(in_conversation: bool) -> (Exile, String) {
    let exile = Exile::serving(&[("pays", PAYS)]).await;
    let mut body = json!({ "graph": "pays", "input": { "messages": "pay" } });
    if in_conversation {
        let graph = json!({ "graph": "pays" });
        let made = exile.call("POST", "/api/conversations", Some(graph)).await;
        assert_eq!(made.status, 201, "{}", made.text);
        body = json!({ "conversation_id": made.json()["id"], "input": { "messages": "pay" } });
    }
    let begun = exile.call("POST", "/api/runs", Some(body)).await;
    assert_eq!(begun.status, 202, "{}", begun.text);
    exile.paid.reach(1).await;
    let exile = exile.after_death().await;
    let run = begun.header("location").to_owned();
    let events = exile.watch(&format!("{run}/stream")).await;
    let last = events.last().unwrap();
    assert_eq!(
        (last.name.as_str(), &last.data["status"]),
        ("run.waiting", &json!("needs_attention"))
    );
    (exile, run)
}

/// Says what became of it, and gives the run once it stands again.
async fn resolved(exile: &Exile, run: &str, body: Value) -> Value {
    let last = exile.call("GET", run, None).await.json()["numbers"][1].as_u64().unwrap();
    let taken = exile.call("POST", &format!("{run}/resolve"), Some(body)).await;
    assert_eq!((taken.status, taken.header("location")), (202, run), "{}", taken.text);
    exile.watch(&format!("{run}/stream?after={last}")).await;
    exile.call("GET", run, None).await.json()
}

async fn paid(exile: &Exile, run: &str) -> Value {
    let state = exile.call("GET", &format!("{run}/state"), None).await.json();
    state["values"]["paid"].clone()
}

#[tokio::test]
async fn a_call_of_which_nobody_knows_whether_it_happened_is_shown_and_nothing_goes_on() {
    let (exile, run) = died_while_it_paid(false).await;
    let view = exile.call("GET", &run, None).await.json();
    assert_eq!(view["status"], "needs_attention");
    assert_eq!(view["error"]["code"], "open_call");
    let call = json!([{ "call": "pay:1#tool", "tool": "pay", "arguments": { "n": 7 } }]);
    assert_eq!(view["open_calls"], call);
    let cases = [
        (json!({ "action": "done" }), "invalid_field"),
        (json!({ "action": "retry", "output": 7 }), "invalid_field"),
        (json!({ "action": "done", "output": 7, "message": "why" }), "invalid_field"),
        (json!({ "action": "retry", "call": "pay:2#tool" }), "unknown_call"),
    ];
    for (body, code) in cases {
        let refused = exile.call("POST", &format!("{run}/resolve"), Some(body.clone())).await;
        assert_eq!((refused.status, refused.code().as_str()), (422, code), "{body}");
    }
    let body = json!({ "answers": { "int_1": "x" } });
    let refused = exile.call("POST", &format!("{run}/resume"), Some(body)).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "run_not_waiting"));
    assert_eq!(exile.call("GET", &run, None).await.json(), view);
    assert_eq!(exile.paid.reach(1).await.len(), 1);
}

#[tokio::test]
async fn an_open_call_that_happened_is_done_with_what_it_gave() {
    let (exile, run) = died_while_it_paid(false).await;
    let body = json!({ "action": "done", "call": "pay:1#tool", "output": 70 });
    let done = resolved(&exile, &run, body).await;
    assert_eq!((&done["status"], &done["open_calls"]), (&json!("finished"), &json!([])));
    assert_eq!(paid(&exile, &run).await, 70);
    assert_eq!(exile.paid.reach(1).await.len(), 1, "it was not made again");
    let body = json!({ "action": "done", "output": 71 });
    let late = exile.call("POST", &format!("{run}/resolve"), Some(body)).await;
    assert_eq!((late.status, late.code().as_str()), (409, "run_not_in_attention"));
}

#[tokio::test]
async fn of_two_who_say_what_became_of_a_call_one_is_believed() {
    for order in [["done", "retry"], ["retry", "failed"], ["failed", "done"]] {
        let (exile, run) = died_while_it_paid(false).await;
        exile.gate.add_permits(1);
        let say = async |action: &str| {
            let mut body = json!({ "action": action });
            if action == "done" {
                body["output"] = json!(70);
            }
            exile.call("POST", &format!("{run}/resolve"), Some(body)).await
        };
        let (one, other) = tokio::join!(say(order[0]), say(order[1]));
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 409], "{order:?}: {} {}", one.text, other.text);
        let believed = if one.status == 202 { order[0] } else { order[1] };
        exile.watch(&format!("{run}/stream")).await;
        let paid = if believed == "retry" { 2 } else { 1 };
        assert_eq!(exile.paid.reach(paid).await.len(), paid, "{believed}");
    }
}

#[tokio::test]
async fn an_open_call_that_did_not_happen_is_made_again_under_its_key() {
    let (exile, run) = died_while_it_paid(false).await;
    exile.gate.add_permits(1);
    let done = resolved(&exile, &run, json!({ "action": "retry" })).await;
    assert_eq!(done["status"], "finished");
    assert_eq!(paid(&exile, &run).await, 7);
    let keys = exile.paid.reach(2).await;
    assert_eq!((keys.len(), &keys[0]), (2, &keys[1]));
}

#[tokio::test]
async fn an_open_call_that_failed_fails_its_node() {
    let (exile, run) = died_while_it_paid(false).await;
    let body = json!({ "action": "failed", "message": "the bank refused it" });
    let failed = resolved(&exile, &run, body).await;
    assert_eq!((&failed["status"], &failed["error"]["node"]), (&json!("failed"), &json!("pay")));
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(message.contains("the bank refused it"), "{message}");
    assert_eq!(exile.paid.reach(1).await.len(), 1);
}

#[tokio::test]
async fn nothing_queues_behind_a_run_that_needs_attention_but_it_may_be_displaced() {
    let (exile, run) = died_while_it_paid(true).await;
    let conversation = exile.call("GET", &run, None).await.json()["conversation_id"].clone();
    let messages = format!("/api/conversations/{}/messages", conversation.as_str().unwrap());
    let behind = [
        (messages.as_str(), json!({ "content": "and?" })),
        (messages.as_str(), json!({ "content": "and?", "if_active": "reject" })),
        ("/api/runs", json!({ "conversation_id": conversation, "input": { "messages": "and?" } })),
    ];
    for (path, body) in behind {
        let refused = exile.call("POST", path, Some(body.clone())).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (409, "run_needs_attention"),
            "{body}"
        );
        let problem = refused.problem();
        assert_eq!(problem["error"]["code"], "open_call");
        assert_eq!(format!("/api/runs/{}", problem["run"].as_str().unwrap()), run);
    }
    let list = exile.call("GET", &messages, None).await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "nothing was stored");

    exile.gate.add_permits(1);
    let body = json!({ "content": "anew", "if_active": "interrupt" });
    let next = exile.call("POST", &messages, Some(body)).await;
    assert_eq!(next.status, 200, "{}", next.text);
    assert_eq!(next.json()["run"]["status"], "finished");
    assert_eq!(exile.call("GET", &run, None).await.json()["status"], "cancelled");
    let keys = exile.paid.reach(2).await;
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1], "the other run's call is its own");
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_run_that_needs_a_person_is_one_line_of_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());
    let (_exile, run) = died_while_it_paid(false).await;
    drop(guard);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("needs attention")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    let run = format!("run={}", run.rsplit('/').next().unwrap());
    for part in ["WARN", &*run, "graph=pays", "code=\"open_call\""] {
        assert!(lines[0].contains(part), "no {part} in {}", lines[0]);
    }
}
