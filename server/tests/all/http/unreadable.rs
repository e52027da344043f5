//! A log that cannot be read: left to people once, shown as far as it goes, in nobody's way.

use serde_json::{Value, json};

use super::fixture::{Answer, Exile};

/// Repeats what is said to it, then asks.
const ASKS: &str = "
graph: asks_me
input: [messages]
state: { messages: { reduce: messages }, steps: { reduce: append }, said: {} }
nodes:
  one: { kind: set, set: { steps: '\"one\"' } }
  two: { kind: set, set: { steps: '\"two\"' } }
  ask: { kind: human, ask: Which?, into: said }
edges:
  - { from: START, to: one }
  - { from: one, to: two }
  - { from: two, to: ask }
  - { from: ask, to: END }
";

/// A conversation whose run waits, and the run's view.
async fn waits(exile: &Exile) -> (String, Value) {
    let made = exile.call("POST", "/api/conversations", Some(json!({ "graph": "asks_me" }))).await;
    let conversation = made.header("location").to_owned();
    let said = json!({ "content": "hi" });
    let said = exile.call("POST", &format!("{conversation}/messages"), Some(said)).await;
    assert_eq!(said.json()["run"]["status"], "waiting", "{}", said.text);
    (conversation, said.json()["run"].clone())
}

/// Garbles the record before the last one of a run.
async fn garble(exile: &Exile, run: &Value) {
    let id = run["id"].as_str().unwrap();
    exile
        .change(&format!(
            "UPDATE exile_record SET body = '{{\"garbled' WHERE (log, number) = (
                 SELECT c.log, c.number FROM exile_record c JOIN exile_run r ON r.log = c.log
                 WHERE r.id = '{id}' ORDER BY c.number DESC LIMIT 1 OFFSET 1)"
        ))
        .await;
}

fn path(run: &Value) -> String {
    format!("/api/runs/{}", run["id"].as_str().unwrap())
}

async fn answer(exile: &Exile, run: &Value) -> Answer {
    let id = run["interrupts"][0]["id"].as_str().unwrap();
    let body = json!({ "answers": { id: "this" } });
    exile.call("POST", &format!("{}/resume", path(run)), Some(body)).await
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_left_to_a_person_once_and_shown_as_far_as_it_goes() {
    let exile = Exile::serving(&[("asks_me", ASKS)]).await;
    let (conversation, run) = waits(&exile).await;
    let (_, other) = waits(&exile).await;
    garble(&exile, &run).await;
    let edit = json!({ "values": { "said": "x" } });
    let edited = exile.call("POST", &format!("{}/state", path(&run)), Some(edit)).await;
    assert!((400..500).contains(&edited.status), "{}", edited.text);
    let said = exile.call("POST", &format!("{}/cancel", path(&other)), None).await;
    assert_eq!(said.status, 202, "another log goes on: {}", said.text);

    let refused = answer(&exile, &run).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "run_needs_attention"));
    let view = exile.call("GET", &path(&run), None).await.json();
    assert_eq!(view["status"], "needs_attention");
    assert_eq!(view["error"]["code"], "log_unreadable");
    let listed = exile.call("GET", "/api/runs?status=needs_attention", None).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let idle = "SELECT count(*) FROM exile_log WHERE due IS NOT NULL OR lease_until IS NOT NULL";
    assert_eq!(exile.rows(idle).await, 0, "nobody tries it again by itself");

    let events = exile.call("GET", &format!("{}/events", path(&run)), None).await.json();
    let names: Vec<&str> =
        events["items"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
    assert!(names.starts_with(&["run.started"]) && names.contains(&"state.update"), "{names:?}");
    let stream = exile.watch(&format!("{}/stream", path(&run))).await;
    let last = stream.last().unwrap();
    assert_eq!(
        (last.name.as_str(), &last.data["status"]),
        ("run.waiting", &json!("needs_attention"))
    );
    let state = exile.call("GET", &format!("{}/state", path(&run)), None).await;
    assert_eq!((state.status, &state.json()["values"]["steps"]), (200, &json!(["one", "two"])));
    let checkpoints = exile.call("GET", &format!("{}/checkpoints", path(&run)), None).await;
    assert!(checkpoints.json()["items"].as_array().unwrap().len() >= 3, "{}", checkpoints.text);
    let messages = exile.call("GET", &format!("{conversation}/messages"), None).await;
    assert_eq!(messages.json()["items"][0]["content"], "hi");

    let more = json!({ "content": "more" });
    let more = exile.call("POST", &format!("{conversation}/messages"), Some(more)).await;
    assert_eq!((more.status, more.code().as_str()), (409, "run_needs_attention"));
    let gone = exile.call("DELETE", &conversation, None).await;
    assert_eq!(gone.status, 204, "{}", gone.text);
    assert_eq!(exile.call("GET", &path(&run), None).await.status, 404);
}

#[tokio::test]
async fn whatever_of_a_log_cannot_be_read_it_is_left_to_a_person_and_can_be_deleted() {
    let exile = Exile::serving(&[("asks_me", ASKS)]).await;
    let log = "(SELECT log FROM exile_run WHERE id = 'RUN')";
    let last = "(SELECT max(number) FROM exile_record WHERE log = LOG)";
    for damage in [
        "UPDATE exile_record SET version = 99 WHERE log = LOG AND number = LAST",
        "UPDATE exile_record SET body = '{\"ms\":1,\"unheard_of\":{}}' WHERE log = LOG AND number = LAST",
        "DELETE FROM exile_record WHERE log = LOG AND number = (SELECT min(number) FROM exile_record WHERE log = LOG)",
        "UPDATE exile_llm_message SET tool_calls = 'garbled' WHERE log = LOG",
        "UPDATE exile_llm_message SET images = '7' WHERE log = LOG",
        "UPDATE exile_llm_message SET content = CAST(x'ff' AS TEXT) WHERE log = LOG",
        "UPDATE exile_llm_message SET reasoning = CAST(x'ff' AS TEXT) WHERE log = LOG",
        "INSERT INTO exile_input (log, id, body) VALUES (LOG, 'in_bad', 'garbled')",
    ] {
        let (conversation, run) = waits(&exile).await;
        let statement = damage.replace("LAST", last).replace("LOG", log);
        exile.change(&statement.replace("RUN", run["id"].as_str().unwrap())).await;
        let refused = answer(&exile, &run).await;
        assert_eq!(refused.code(), "run_needs_attention", "{damage}: {}", refused.text);
        let view = exile.call("GET", &path(&run), None).await;
        assert_eq!(view.status, 200, "{damage}: {}", view.text);
        assert_eq!(view.json()["error"]["code"], "log_unreadable", "{damage}");
        for part in ["events", "state", "checkpoints"] {
            let shown = exile.call("GET", &format!("{}/{part}", path(&run)), None).await;
            assert_eq!(shown.status, 200, "{damage}: {part}: {}", shown.text);
        }
        let said = exile.call("GET", &format!("{conversation}/messages"), None).await;
        assert_eq!(said.status, 200, "{damage}: {}", said.text);
        let said = said.json()["items"].as_array().unwrap().clone();
        assert_eq!(
            said.iter().all(|message| message["content"] == "hi"),
            !damage.contains("content")
        );
        let garbled = damage.contains("exile_llm_message");
        assert_eq!(said.iter().any(|message| message["unreadable"] != Value::Null), garbled);
        let idle =
            "SELECT count(*) FROM exile_log WHERE due IS NOT NULL OR lease_until IS NOT NULL";
        assert_eq!(exile.rows(idle).await, 0, "{damage}: nobody tries it again by itself");
        let gone = exile.call("DELETE", &conversation, None).await;
        assert_eq!(gone.status, 204, "{damage}: {}", gone.text);
    }
}

#[tokio::test]
async fn a_run_whose_log_cannot_be_read_can_be_cancelled_and_goes_on_once_it_can() {
    let exile = Exile::serving(&[("asks_me", ASKS)]).await;
    let (_, run) = waits(&exile).await;
    garble(&exile, &run).await;
    assert_eq!(answer(&exile, &run).await.status, 409);
    let cancelled = exile.call("POST", &format!("{}/cancel", path(&run)), None).await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (202, &json!("cancelled")));

    let (_, run) = waits(&exile).await;
    exile.change("CREATE TABLE kept AS SELECT log, number, body FROM exile_record").await;
    garble(&exile, &run).await;
    assert_eq!(answer(&exile, &run).await.status, 409);
    exile
        .change(
            "UPDATE exile_record AS r SET body = k.body FROM kept k
             WHERE k.log = r.log AND k.number = r.number;
             DROP TABLE kept",
        )
        .await;
    let retry = json!({ "action": "retry" });
    let retried = exile.call("POST", &format!("{}/resolve", path(&run)), Some(retry)).await;
    let status = retried.json()["status"].clone();
    assert_eq!((retried.status, status), (202, json!("waiting")), "{}", retried.text);
    let again = answer(&exile, &run).await;
    assert_eq!(again.status, 202, "{}", again.text);
    exile.watch(&format!("{}/stream", path(&run))).await;
    assert_eq!(exile.call("GET", &path(&run), None).await.json()["status"], "finished");
}
