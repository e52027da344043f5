//! `Idempotency-Key`: sent twice, done once.

use axum::body::Body;
use axum::http::{Request, header};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::document::{filled, paths};
use super::fixture::{Answer, Exile, with_json};

fn keyed(secret: &str, path: &str, key: &str, body: Value) -> Request<Body> {
    let request = Request::builder()
        .method("POST")
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {secret}"))
        .header("idempotency-key", key);
    with_json(request, Some(body))
}

async fn send(exile: &Exile, path: &str, key: &str, body: Value) -> Answer {
    exile.send(keyed(&exile.alice, path, key, body)).await
}

async fn count(exile: &Exile, path: &str) -> usize {
    exile.call("GET", path, None).await.json()["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_and_another_body_is_refused() {
    let exile = Exile::start().await;
    let path = "/api/conversations";
    let first = send(&exile, path, "k1", json!({ "title": "a" })).await;
    let again = send(&exile, path, "k1", json!({ "title": "a" })).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json(), again.json());
    assert_eq!(first.header("location"), again.header("location"));
    let other = send(&exile, path, "k1", json!({ "title": "b" })).await;
    assert_eq!((other.status, other.code().as_str()), (422, "idempotency_key_reused"));
    assert_eq!(count(&exile, path).await, 1);
    send(&exile, path, "k2", json!({ "title": "a" })).await;
    assert_eq!(count(&exile, path).await, 2, "another key is another request");
}

const ASKS: &str = "
graph: asks
input: []
output: [said]
state: { said: {} }
nodes: { ask: { kind: human, ask: Well?, into: said } }
edges: [{ from: START, to: ask }, { from: ask, to: END }]
";

/// Generated from the OpenAPI document, so that a new POST is covered by being there.
#[tokio::test]
async fn every_post_does_once_what_is_sent_twice() {
    let exile = Exile::serving(&[("asks", ASKS)]).await;
    let made = async |path: &str, body| {
        let made = exile.call("POST", path, Some(body)).await.json();
        made["id"].as_str().unwrap().to_owned()
    };
    let conversation = made("/api/conversations", json!({ "model": "mock/any" })).await;
    let run = made("/api/runs", json!({ "graph": "add" })).await;
    exile.watch(&format!("/api/runs/{run}/stream")).await;
    let waits = async || exile.run("asks", json!({})).await["run"].clone();
    let [answered, edited, moved, cancelled] =
        [waits().await, waits().await, waits().await, waits().await];
    let id = |run: &Value| run["id"].as_str().unwrap().to_owned();
    let interrupt = answered["interrupts"][0]["id"].as_str().unwrap();
    let bob = exile.app.store.user_by_name("bob").await.unwrap().unwrap();
    for (path, _) in paths().into_iter().filter(|(_, methods)| methods.contains("post")) {
        let (at, body) = match path.as_str() {
            "/api/conversations/{id}/messages" => {
                (conversation.clone(), json!({ "content": "hi" }))
            }
            "/api/runs/{id}/fork" => (run.clone(), json!({})),
            "/api/runs/{id}/cancel" => (id(&cancelled), json!({})),
            "/api/runs/{id}/resume" => (id(&answered), json!({ "answers": { interrupt: "yes" } })),
            "/api/runs/{id}/state" => (id(&edited), json!({ "values": { "said": "me" } })),
            "/api/runs/{id}/migrate" => (id(&moved), json!({ "dry_run": true })),
            // These need a run whose call was cut off (`cli::recovery`), and a model that makes
            // vectors (`cli::openai`); a link is spent by its first use, whatever key comes with it.
            "/api/runs/{id}/resolve" | "/v1/embeddings" | "/sign-in" => continue,
            "/api/models/probe" => (String::new(), json!({ "model": "mock/any" })),
            "/api/tools/{name}/call" => ("halve".into(), json!({ "arguments": { "n": 4 } })),
            "/api/runs" | "/api/runs/wait" | "/api/runs/stream" => {
                (String::new(), json!({ "graph": "add" }))
            }
            "/v1/chat/completions" => {
                let said = json!([{ "role": "user", "content": "hi" }]);
                (String::new(), json!({ "model": "mock/any", "messages": said }))
            }
            "/api/users" | "/api/keys" => (String::new(), json!({ "name": "zoe" })),
            "/api/users/{id}/sign-in-link" => (bob.id.to_string(), json!({})),
            "/api/conversations" | "/api/sign-out" => (String::new(), json!({})),
            other => panic!("{other} is new: say what it takes"),
        };
        let administration = path.starts_with("/api/users") || path == "/api/models/probe";
        let key = if administration { &exile.admin } else { &exile.alice };
        let secret = path == "/api/keys" || path.ends_with("/sign-in-link");
        let path = filled(&path, &at);
        let first = exile.send(keyed(key, &path, "k", body.clone())).await;
        let again = exile.send(keyed(key, &path, "k", body)).await;
        assert!((200..300).contains(&first.status), "{path}: {}", first.text);
        if secret {
            assert_eq!(again.code(), "secret_shown_once");
        } else {
            assert_eq!((again.status, again.text), (first.status, first.text), "{path}");
        }
    }
    assert_eq!(count(&exile, "/api/conversations").await, 2);
    assert_eq!(count(&exile, "/api/runs").await, 10, "one each, and the fork");
}

#[tokio::test]
async fn a_hundred_at_once_begin_one_run() {
    let exile = Exile::start().await;
    let body = json!({ "graph": "add", "input": { "n": 1 } });
    let answers = join_all((0..100).map(|_| send(&exile, "/api/runs", "k", body.clone()))).await;
    let mut runs: Vec<Value> = Vec::new();
    for answer in &answers {
        match answer.status {
            202 => runs.push(answer.json()["id"].clone()),
            _ => {
                assert_eq!((answer.status, answer.code().as_str()), (409, "idempotency_in_flight"));
            }
        }
    }
    assert!(!runs.is_empty() && runs.iter().all(|run| *run == runs[0]));
    assert_eq!(count(&exile, "/api/runs").await, 1);
}

#[tokio::test]
async fn while_the_first_is_answered_the_second_waits_its_turn() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("gate/any").await;
    let path = format!("{conversation}/messages");
    let body = json!({ "content": "hi" });
    let first = send(&exile, &path, "k", body.clone());
    let second = async {
        while count(&exile, "/api/runs").await == 0 {
            tokio::task::yield_now().await;
        }
        let second = send(&exile, &path, "k", body.clone()).await;
        exile.gate.add_permits(1);
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((second.status, second.code().as_str()), (409, "idempotency_in_flight"));
    assert_eq!(first.json()["message"]["content"], "through");
    let third = send(&exile, &path, "k", body).await;
    assert_eq!(third.json(), first.json());
}

#[tokio::test]
async fn a_caller_who_leaves_finds_the_answer_later() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("gate/any").await;
    let path = format!("{conversation}/messages");
    let body = json!({ "content": "hi" });
    {
        let mut first = Box::pin(send(&exile, &path, "k", body.clone()));
        let begun = async {
            while count(&exile, "/api/runs").await == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = &mut first => panic!("nothing has let it through"),
            () = begun => {}
        }
    }
    exile.gate.add_permits(1);
    let answer = loop {
        let answer = send(&exile, &path, "k", body.clone()).await;
        if answer.status != 409 {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(answer.json()["message"]["content"], "through");
    assert_eq!(count(&exile, "/api/runs").await, 1);
}

#[tokio::test]
async fn a_key_whose_answer_was_lost_leads_to_the_same_run() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("gate/any").await;
    let path = format!("{conversation}/messages");
    let body = json!({ "content": "hi" });
    let first = send(&exile, &path, "k", body.clone());
    let begun = async {
        while count(&exile, "/api/runs").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = first => panic!("nothing has let it through"),
        () = begun => {}
    }
    let run = exile.call("GET", "/api/runs", None).await.json()["items"][0]["id"].clone();
    let exile = exile.after_death().await;
    let other = send(&exile, &path, "k", json!({ "content": "something else" })).await;
    assert_eq!((other.status, other.code().as_str()), (422, "idempotency_key_reused"));
    exile.gate.add_permits(1);
    let after = send(&exile, &path, "k", body).await;
    assert_eq!((after.status, &after.json()["run"]["id"]), (200, &run), "{}", after.text);
    assert_eq!(count(&exile, "/api/runs").await, 1, "it was not run again");
}

/// Two days later, an hour ago, after a restart: nothing of an earlier use is taken for this one.
#[tokio::test]
async fn a_key_that_is_used_on_another_day_begins_something_new() {
    let exile = Exile::start().await;
    let conversation = exile.conversation("mock/any").await;
    let say = format!("{conversation}/messages");
    let monday = json!({ "content": "report for monday" });
    let tuesday = json!({ "content": "report for tuesday" });
    let first = send(&exile, &say, "report", monday.clone()).await;
    assert_eq!(first.json()["message"]["content"], "[mock] you said: report for monday");
    let too_early = send(&exile, &say, "report", tuesday.clone()).await;
    assert_eq!((too_early.status, too_early.code().as_str()), (422, "idempotency_key_reused"));
    exile.clock.shift(jiff::SignedDuration::from_hours(25));
    let second = send(&exile, &say, "report", tuesday.clone()).await;
    assert_eq!(second.json()["message"]["content"], "[mock] you said: report for tuesday");
    assert_ne!(second.json()["run"]["id"], first.json()["run"]["id"]);
    exile.clock.shift(jiff::SignedDuration::from_hours(25));
    let exile = exile.after_death().await;
    let again = send(&exile, &say, "report", tuesday.clone()).await;
    assert_ne!(again.json()["run"]["id"], second.json()["run"]["id"], "the same words, anew");
    exile.clock.shift(jiff::SignedDuration::from_hours(-60));
    let back = send(&exile, &say, "report", monday).await;
    assert_eq!((back.status, back.code().as_str()), (422, "idempotency_key_reused"));
    assert_eq!(count(&exile, &say).await, 6, "three questions, three answers");
    for path in ["/api/runs", "/api/runs/wait", "/api/runs/stream"] {
        let body = json!({ "graph": "add" });
        send(&exile, path, "k", body.clone()).await;
        let before = count(&exile, "/api/runs").await;
        exile.clock.shift(jiff::SignedDuration::from_hours(25));
        send(&exile, path, "k", body).await;
        assert_eq!(count(&exile, "/api/runs").await, before + 1, "{path}");
    }
}

#[tokio::test]
async fn a_completion_is_repeated_as_it_was_streamed() {
    let exile = Exile::serving(&[("asks", ASKS)]).await;
    let path = "/v1/chat/completions";
    for model in ["mock/any", "chat"] {
        let said = json!([{ "role": "user", "content": "hello there" }]);
        let body = json!({ "model": model, "messages": said, "stream": true });
        let first = send(&exile, path, model, body.clone()).await;
        assert!(first.text.ends_with("data: [DONE]\n\n"), "{}", first.text);
        let again = send(&exile, path, model, body.clone()).await;
        assert_eq!((again.status, &again.text), (200, &first.text), "{model}");
        for name in ["content-type", "x-exile-run", "cache-control", "x-accel-buffering"] {
            assert_eq!(again.header(name), first.header(name), "{model}: {name}");
        }
        let after = exile.next_process().await;
        assert_eq!(send(&after, path, model, body).await.text, first.text, "{model}");
    }
    assert_eq!(count(&exile, "/api/runs").await, 1, "of the graph");
}

#[tokio::test]
async fn an_answer_that_is_too_long_to_be_kept_is_given_once_and_then_refused_by_name() {
    let usual = Exile::start().await;
    let exile = usual.with_limits(|limits| limits.kept_answer = 256);
    let said = json!([{ "role": "user", "content": "word ".repeat(100) }]);
    for (key, model, stream) in [
        ("1", "mock/any", true),
        ("2", "mock/any", false),
        ("3", "chat", true),
        ("4", "chat", false),
    ] {
        let body = json!({ "model": model, "messages": said, "stream": stream });
        let first = send(&exile, "/v1/chat/completions", key, body.clone()).await;
        assert_eq!(first.status, 200, "{}", first.text);
        assert!(first.text.len() > 500 && first.text.contains("word"), "it is given whole");
        let again = send(&exile, "/v1/chat/completions", key, body).await;
        let code = "idempotency_answer_not_kept";
        assert_eq!((again.status, again.code().as_str()), (409, code), "{model}");
        assert_eq!(again.header("x-exile-run"), first.header("x-exile-run"));
    }
    let body = json!({ "graph": "chat", "input": { "messages": "word ".repeat(100) } });
    let first = send(&exile, "/api/runs/wait", "k", body.clone()).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let again = send(&exile, "/api/runs/wait", "k", body).await;
    assert_eq!((again.status, again.code().as_str()), (409, "idempotency_answer_not_kept"));
}

#[tokio::test]
async fn a_stream_with_a_key_is_answered_to_its_end_when_its_reader_leaves() {
    let exile = Exile::start().await;
    let path = "/v1/chat/completions";
    let body = json!({ "model": "gate/any", "stream": true,
        "messages": [{ "role": "user", "content": "hi" }] });
    {
        let mut first = Box::pin(send(&exile, path, "k", body.clone()));
        let waits = async {
            while count(&exile, "/api/usage?by=model").await == 0 {
                exile.app.usage.flush().await.unwrap();
            }
        };
        tokio::select! {
            _ = &mut first => panic!("nothing has let it through"),
            () = waits => {}
        }
    }
    let during = send(&exile, path, "k", body.clone()).await;
    assert_eq!((during.status, during.code().as_str()), (409, "idempotency_in_flight"));
    exile.gate.add_permits(1);
    let answer = loop {
        let answer = send(&exile, path, "k", body.clone()).await;
        if answer.status != 409 {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert!(answer.text.contains("through") && answer.text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_stream_is_streamed_again_and_a_failed_run_is_not_run_again() {
    let exile = Exile::start().await;
    let path = "/api/runs/stream";
    let body = json!({ "graph": "chat", "input": { "messages": "hello" } });
    let first = send(&exile, path, "k", body.clone()).await;
    let again = send(&exile, path, "k", body).await;
    assert_eq!(again.header("content-type"), "text/event-stream");
    assert_eq!(first.events(), again.events());
    let body = json!({ "graph": "chat", "input": { "messages": "no key" } });
    let first = send(&exile, "/api/runs/wait", "f", body.clone()).await;
    let again = send(&exile, "/api/runs/wait", "f", body).await;
    assert_eq!((first.status, again.status), (502, 502));
    assert_eq!(first.json()["run"], again.json()["run"]);
    assert_eq!(count(&exile, "/api/runs").await, 2);
}

#[tokio::test]
async fn a_refused_request_may_be_corrected_under_its_key() {
    let exile = Exile::start().await;
    let refused = send(&exile, "/api/runs/wait", "k", json!({ "graph": "ghost" })).await;
    assert_eq!(refused.status, 422);
    let corrected = send(&exile, "/api/runs/wait", "k", json!({ "graph": "add" })).await;
    assert_eq!(corrected.status, 200, "{}", corrected.text);
    for key in [String::new(), "x".repeat(256)] {
        let answer = send(&exile, "/api/runs", &key, json!({ "graph": "add" })).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "malformed_request"));
    }
}

#[tokio::test]
async fn a_new_keys_secret_is_not_kept_for_a_replay() {
    let exile = Exile::start().await;
    let body = json!({ "name": "laptop" });
    let first = send(&exile, "/api/keys", "k", body.clone()).await;
    let secret = first.json()["secret"].as_str().unwrap().to_owned();
    let again = send(&exile, "/api/keys", "k", body).await;
    assert_eq!((again.status, again.code().as_str()), (409, "secret_shown_once"));
    let folder = exile.database().parent().unwrap().to_owned();
    for file in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let bytes =
            if file.path().is_file() { std::fs::read(file.path()).unwrap() } else { vec![] };
        let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!found, "the secret is in {:?}", file.path());
    }
}
