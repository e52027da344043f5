//! Requests that get in each other's way: whatever their order, each is done or refused with a 4xx,
//! and nothing is left of what was deleted.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::fixture::Exile;

/// Asks for any text, then repeats it.
const CURIOUS: &str = "
graph: curious
input: [messages]
output: [messages]
state: { messages: { reduce: messages } }
nodes:
  ask: { kind: human, ask: Which order? }
  answer: { kind: agent, tools: [] }
edges: [{ from: START, to: ask }, { from: ask, to: answer }, { from: answer, to: END }]
";

/// A conversation and its one run.
#[derive(Clone)]
struct Scene {
    exile: Arc<Exile>,
    conversation: String,
    run: String,
    /// What the run waits for, if it does.
    interrupt: String,
}

/// A request of the scene: method, path and body.
type Request = (&'static str, String, Value);

/// A kind of request.
type Asks = fn(&Scene) -> Request;

impl Scene {
    /// Of a run that has ended, or waits.
    async fn new(exile: &Arc<Exile>, graph: &str) -> Self {
        let made = exile.call("POST", "/api/conversations", Some(json!({ "graph": graph }))).await;
        let conversation = made.header("location").to_owned();
        let said = json!({ "content": "hi" });
        let said = exile.call("POST", &format!("{conversation}/messages"), Some(said)).await;
        assert_eq!(said.status, 200, "{}", said.text);
        let view = said.json();
        let run = format!("/api/runs/{}", view["run"]["id"].as_str().unwrap());
        let interrupt = view["interrupts"][0]["id"].as_str().unwrap_or_default().to_owned();
        Self { exile: exile.clone(), conversation, run, interrupt }
    }

    fn id(&self) -> &str {
        self.conversation.rsplit('/').next().unwrap()
    }

    async fn send(&self, (method, path, body): Request) -> u16 {
        let answer = self.exile.call(method, &path, Some(body)).await;
        assert!(answer.status < 500, "{method} {path}: {} {}", answer.status, answer.text);
        answer.status
    }
}

fn say(scene: &Scene) -> Request {
    ("POST", format!("{}/messages", scene.conversation), json!({ "content": "again" }))
}

fn interrupt(scene: &Scene) -> Request {
    let body = json!({ "content": "instead", "if_active": "interrupt" });
    ("POST", format!("{}/messages", scene.conversation), body)
}

fn begin(scene: &Scene) -> Request {
    ("POST", "/api/runs".into(), json!({ "conversation_id": scene.id(), "graph": "add" }))
}

fn wait(scene: &Scene) -> Request {
    ("POST", "/api/runs/wait".into(), json!({ "conversation_id": scene.id(), "graph": "add" }))
}

fn fork(scene: &Scene) -> Request {
    ("POST", format!("{}/fork", scene.run), json!({}))
}

fn edit(scene: &Scene) -> Request {
    ("POST", format!("{}/state", scene.run), json!({ "values": { "messages": "changed" } }))
}

fn migrate(scene: &Scene) -> Request {
    ("POST", format!("{}/migrate", scene.run), json!({}))
}

fn cancel(scene: &Scene) -> Request {
    ("POST", format!("{}/cancel", scene.run), json!({}))
}

fn resume(scene: &Scene) -> Request {
    let answers = json!({ "answers": { &scene.interrupt: "A-17" } });
    ("POST", format!("{}/resume", scene.run), answers)
}

fn rename(scene: &Scene) -> Request {
    ("PATCH", scene.conversation.clone(), json!({ "title": "new" }))
}

fn delete(scene: &Scene) -> Request {
    ("DELETE", scene.conversation.clone(), json!({}))
}

/// Cancels every run.
async fn cancel_all(scene: &Scene) {
    let runs = format!("/api/runs?conversation_id={}", scene.id());
    let runs = scene.exile.call("GET", &runs, None).await.json();
    for run in runs["items"].as_array().into_iter().flatten() {
        let path = format!("/api/runs/{}/cancel", run["id"].as_str().unwrap());
        scene.send(("POST", path, json!({}))).await;
    }
}

/// Ends what goes on, then deletes all of it.
#[cfg(feature = "failpoints")]
async fn away(scene: Scene) {
    while scene.send(delete(&scene)).await == 409 {
        cancel_all(&scene).await;
        tokio::task::yield_now().await;
    }
}

/// Each request against one that deletes its conversation, once for every place at which the other
/// may come in between.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_request_whose_conversation_is_deleted_in_between_is_refused_and_leaves_nothing() {
    let exile = Arc::new(Exile::serving(&[("curious", CURIOUS)]).await);
    // A cancel of what has ended writes nothing.
    let ended: &[Asks] = &[say, begin, wait, fork, edit, rename, delete];
    let waiting: &[Asks] = &[say, interrupt, resume, edit, migrate, cancel, rename, delete, fork];
    for (graph, all) in [("chat", ended), ("curious", waiting)] {
        for (kind, asks) in all.iter().enumerate() {
            for place in 0.. {
                let scene = Scene::new(&exile, graph).await;
                let rival = Box::pin(away(scene.clone()));
                let work = scene.send(asks(&scene));
                let (status, came_by) = exile_server::store::with_rival(place, rival, work).await;
                if !came_by {
                    away(scene).await;
                    assert!(place > 0, "{graph} {kind}: it writes nothing");
                    break;
                }
                let done = status < 300 && place > 0;
                assert!(done || status >= 400, "{graph} {kind} {place}: {status}");
                let gone = exile.call("GET", &scene.run, None).await.status;
                let read = exile.call("GET", &scene.conversation, None).await.status;
                assert_eq!((gone, read), (404, 404), "{graph} {kind} {place}");
            }
        }
    }
    // A fork's log, an unread input or an empty log would be left in the file.
    assert_eq!(exile.rows("SELECT count(*) FROM exile_log").await, 0);
    assert_eq!(exile.rows("SELECT count(*) FROM exile_input").await, 0);
    assert_eq!(exile.rows("SELECT count(*) FROM exile_run").await, 0);
}

/// Two that exclude each other, in every order that the store can tell.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn two_requests_of_one_run_end_in_no_error_of_the_server() {
    let exile = Arc::new(Exile::serving(&[("curious", CURIOUS)]).await);
    let all: &[Asks] = &[say, interrupt, resume, edit, migrate, cancel, rename, fork, begin];
    for first in all {
        for second in all {
            for place in 0.. {
                let scene = Scene::new(&exile, "curious").await;
                let other = scene.clone();
                let request = second(&scene);
                let rival = Box::pin(async move { _ = other.send(request).await });
                let work = scene.send(first(&scene));
                let (_, came_by) = exile_server::store::with_rival(place, rival, work).await;
                if !came_by {
                    break;
                }
            }
        }
    }
}

/// The same as it comes, on two threads. What is queued behind a run that waits for a person would
/// wait with it, so that run is cancelled once everything else is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_once_are_done_or_refused() {
    let exile = Arc::new(Exile::serving(&[("curious", CURIOUS)]).await);
    for round in 0..30 {
        let graph = ["chat", "curious"][round % 2];
        let scene = Scene::new(&exile, graph).await;
        let all: &[(Asks, bool)] = &[
            (say, true),
            (delete, false),
            (wait, true),
            (rename, false),
            (resume, false),
            (fork, false),
            (cancel, false),
            (delete, false),
            (begin, false),
            (edit, false),
            (interrupt, true),
            (resume, false),
            (migrate, false),
            (delete, false),
        ];
        let (mut waiting, mut others) = (Vec::new(), Vec::new());
        for n in 0..all.len() {
            let (asks, waits) = all[(n + round) % all.len()];
            let of = scene.clone();
            let request = tokio::spawn(async move { of.send(asks(&of)).await });
            if waits { &mut waiting } else { &mut others }.push(request);
        }
        let others = join_all(others).await;
        assert!(others.iter().all(Result::is_ok), "round {round}");
        let cancelling = async {
            loop {
                cancel_all(&scene).await;
                tokio::task::yield_now().await;
            }
        };
        let waiting = tokio::select! {
            waiting = join_all(waiting) => waiting,
            () = cancelling => return,
        };
        assert!(waiting.iter().all(Result::is_ok), "round {round}");
    }
}
