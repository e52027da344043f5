//! A process that dies at any append: the next one goes on to the same end, asks under the same
//! names, and makes no finished call again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::env::StepEnv;
use exile_engine::id::{InputId, LogId, RunId, UserId, WorkerId};
use exile_engine::journal::{
    Batch, BlobId, History, Input, Journal, JournalError, Lease, MemoryJournal, Place, ReleaseInfo,
    Sent, Verdict,
};
use exile_engine::message::Role;
use exile_engine::model::ModelRequest;
use exile_engine::run::engine::Stopped;
use exile_engine::run::record::{Fact, Number, RunError};
use serde_json::{Value, json};

use crate::stage::{Says, Show, Stage, calls, says};

/// A store whose process is gone after some appends: it takes nothing more.
struct Dies {
    store: Arc<MemoryJournal>,
    appends_left: AtomicUsize,
    dead: tokio::sync::Notify,
}

#[async_trait]
impl Journal for Dies {
    async fn find(&self, run: &RunId) -> Result<Option<Place>, JournalError> {
        self.store.find(run).await
    }

    async fn send(&self, log: &LogId, id: &InputId, input: &Input) -> Result<Sent, JournalError> {
        self.store.send(log, id, input).await
    }

    async fn claim(
        &self,
        by: &WorkerId,
        lease: Duration,
        but: &[UserId],
    ) -> Result<Option<Lease>, JournalError> {
        self.store.claim(by, lease, but).await
    }

    async fn renew(&self, leases: &[Lease], by: Duration) -> Result<Vec<LogId>, JournalError> {
        self.store.renew(leases, by).await
    }

    async fn release(&self, lease: &Lease, rest: &ReleaseInfo) -> Result<(), JournalError> {
        self.store.release(lease, rest).await
    }

    async fn park(&self, lease: &Lease, why: &RunError) -> Result<(), JournalError> {
        self.store.park(lease, why).await
    }
    async fn inbox(&self, log: &LogId) -> Result<Vec<(InputId, Input)>, JournalError> {
        self.store.inbox(log).await
    }

    async fn verdict(&self, log: &LogId, id: &InputId) -> Result<Option<Verdict>, JournalError> {
        self.store.verdict(log, id).await
    }

    async fn append(&self, lease: &Lease, batch: &Batch) -> Result<(), JournalError> {
        let take = |n: usize| n.checked_sub(1);
        if self.appends_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
            self.dead.notify_one();
            std::future::pending::<()>().await;
        }
        self.store.append(lease, batch).await
    }

    async fn load(&self, log: &LogId, at: Option<Number>) -> Result<History, JournalError> {
        self.store.load(log, at).await
    }

    async fn read(&self, log: &LogId, from: Number, limit: usize) -> Result<History, JournalError> {
        self.store.read(log, from, limit).await
    }

    async fn put_blob(&self, bytes: &[u8]) -> Result<BlobId, JournalError> {
        self.store.put_blob(bytes).await
    }

    async fn get_blob(&self, id: &BlobId) -> Result<Option<Vec<u8>>, JournalError> {
        self.store.get_blob(id).await
    }
}

/// Everything that waits, nests or stands for something else, in one graph.
const GRAPH: &str = "graph: test
state:
  messages: { reduce: messages }
  order: {}
  parts: { type: array }
  told: {}
nodes:
  shorten: { kind: summarize, over: 10, keep: 1 }
  which: { kind: human, ask: 'Which order?', into: order }
  parts:
    kind: map
    over: '[1, 2]'
    as: n
    node: { kind: tool, tool: double, args: { x: '{{ n }}' }, approve: true }
    into: parts
  inside: { kind: graph, graph: inside, with: { messages: messages }, into: { messages: messages } }
edges:
  - { from: START, to: shorten }
  - { from: shorten, to: which }
  - { from: which, to: parts }
  - { from: parts, to: inside }
  - { from: inside, to: END }
";

const INSIDE: &str = "graph: inside
output: [messages]
state:
  messages: { reduce: messages }
nodes:
  work: { kind: agent, tools: [double], approve: [double] }
edges:
  - { from: START, to: work }
  - { from: work, to: END }
";

fn replies(request: &ModelRequest) -> Says {
    let last = request.messages.last().unwrap();
    if request.messages[0].content.starts_with("You shorten") {
        says("They greeted.")
    } else if last.role == Role::Tool {
        says("done")
    } else {
        calls(&[("a", "double", "{\"x\": 4}")])
    }
}

fn stage() -> Stage {
    let greeting = |id: &str, role: &str| json!({ "id": id, "role": role, "content": "Hello there, how are you?" });
    Stage {
        graph: GRAPH,
        inside: &[INSIDE],
        replies: Some(replies),
        input: json!({ "messages": [greeting("m1", "user"), greeting("m2", "assistant"), greeting("m3", "user")] }),
        ..Stage::default()
    }
}

/// Answers whatever is asked until the run ends.
async fn drive(show: &mut Show) {
    while let Stopped::Waiting(waiting) = show.stops().await {
        for asked in &waiting.asked {
            if asked.question.text == "Which order?" {
                show.say(asked, "A-17").await;
            } else {
                show.answer(asked, json!("approve")).await;
            }
        }
    }
}

/// Ids of the conversation's messages that were stored before and after, roles and channels.
async fn check(appends: usize) -> bool {
    let env = Arc::new(StepEnv::new());
    let store = Arc::new(MemoryJournal::new(env.clone()));
    let dies = Arc::new(Dies {
        store: store.clone(),
        appends_left: AtomicUsize::new(appends),
        dead: tokio::sync::Notify::new(),
    });
    let mut first = stage().begin_over(dies.clone(), env.clone()).await;
    let died = tokio::select! {
        () = dies.dead.notified() => true,
        () = drive(&mut first) => false,
    };
    let recorded = called(&store).await;
    drop(first);
    env.advance(Duration::from_mins(1));

    let mut second = stage().begin_over(store.clone(), env).await;
    drive(&mut second).await;
    let asked_again = second.asked().len();
    let played = second.end().await;
    assert_eq!(played.error(), "", "after {appends} appends");
    assert_eq!(
        played.messages()[3..],
        [
            "system: Summary of the conversation so far:\nThey greeted.",
            "user: A-17",
            "assistant:  [\"a\"]",
            "tool: 8.0",
            "assistant: done",
        ],
        "after {appends} appends"
    );
    assert_eq!(
        (&played.state["order"], &played.state["parts"]),
        (&json!("A-17"), &json!([2.0, 4.0]))
    );
    let all = called(&store).await;
    assert_eq!(all[..recorded.len()], recorded, "what is recorded stays");
    let mut names = all.clone();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all.len(), "a call is recorded once: {all:?}");
    let models = |calls: &[String]| calls.iter().filter(|call| is_model(call)).count();
    assert_eq!(asked_again, models(&all) - models(&recorded), "no model is asked again");
    died
}

fn is_model(call: &str) -> bool {
    call.ends_with("#summary") || call.ends_with("#model")
}

/// The calls that have a result, `task#call`.
async fn called(store: &MemoryJournal) -> Vec<String> {
    let history = store.load(&LogId::from("log"), None).await.unwrap();
    let call = |fact: &Fact| match fact {
        Fact::Called(called) if !matches!(serde_json::to_value(&called.reply), Ok(Value::Object(reply)) if reply.contains_key("asked")) => {
            Some(format!("{}#{}", called.task, called.call))
        }
        _ => None,
    };
    history.records.iter().filter_map(|r| call(&r.record.fact)).collect()
}

#[tokio::test]
async fn a_run_goes_on_after_a_crash_at_every_append() {
    let mut appends = 1;
    while check(appends).await {
        appends += 1;
    }
    assert!(appends >= 20, "only {appends} points of a crash were tried");
}
