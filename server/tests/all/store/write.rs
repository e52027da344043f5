//! Runs driven by hand: what the engine would send and append.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use exile_engine::id::{ConversationId, InputId, LogId, MessageId, RunId, UserId, WorkerId};
use exile_engine::journal::{
    Batch, BlobId, Consumed, ForkRun, IfActive, Input, Journal as _, Lease, ReleaseInfo, StartRun,
    StoredMessage,
};
use exile_engine::message::{Message, Role};
use exile_engine::model::Usage;
use exile_engine::run::record::{
    Activation, Durability, EndStatus, Ended, Fact, Forked, Number, Numbered, Record, RunError,
    RunOptions, Started, Step, Waiting,
};
use exile_engine::state::{Delta, Op};
use exile_server::store::{NewConversation, Store};

pub(crate) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

pub(crate) fn user(name: &str) -> UserId {
    UserId::from(name)
}

/// A conversation of that owner with the graph `chat`.
pub(crate) async fn conversation(store: &Store, owner: &str) -> ConversationId {
    let new = NewConversation {
        owner: user(owner),
        title: Some("Title".to_owned()),
        graph: "chat".to_owned(),
        skill: Some("support".to_owned()),
        model: Some("mock/m".to_owned()),
        provider: Some("mock".to_owned()),
        business: Some("marketing".to_owned()),
        system_prompt: Some("Be brief.".to_owned()),
    };
    store.create_conversation(new).await.unwrap().id
}

/// Sends a run of that owner: a turn of a conversation, or one with a log of its own.
pub(crate) async fn send(
    store: &Store,
    owner: &str,
    run: &str,
    of: Option<&ConversationId>,
) -> LogId {
    let log = of.map_or_else(|| LogId::from(run), LogId::from);
    let start = StartRun {
        run: RunId::from(run),
        graph: "chat".into(),
        bundle: BlobId::of(b"bundle"),
        owner: user(owner),
        conversation: of.cloned(),
        options: RunOptions::default(),
        input: serde_json::Map::from_iter([("n".to_owned(), 1.into())]),
        traceparent: Some(format!("00-{TRACE}-00f067aa0ba902b7-01")),
        if_active: IfActive::Enqueue,
        durability: None,
    };
    let id = InputId::from(format!("in_{run}"));
    store.send(&log, &id, &Input::Start(Box::new(start))).await.unwrap();
    log
}

pub(crate) async fn claim(store: &Store) -> Lease {
    let worker = WorkerId::from("worker");
    store.claim(&worker, Duration::from_hours(1), &[]).await.unwrap().unwrap()
}

pub(crate) fn record(number: Number, at_ms: i64, fact: Fact) -> Numbered {
    Numbered { number, record: Arc::new(Record { at_ms, fact }) }
}

pub(crate) fn started(
    number: Number,
    owner: &str,
    run: &str,
    of: Option<&ConversationId>,
) -> Numbered {
    let ids = vec![MessageId::from(format!("msg_{run}_asked"))];
    let started = Started {
        run: RunId::from(run),
        graph: "chat".into(),
        bundle: BlobId::of(b"bundle"),
        owner: user(owner),
        conversation: of.cloned(),
        options: RunOptions::default(),
        delta: Delta::from_iter([("messages".into(), Op::Messages(ids))]),
        base: BTreeMap::new(),
        activation: Activation { next: vec!["answer:1".into()], ..Activation::default() },
        traceparent: None,
        durability: Durability::Sync,
    };
    record(number, 1_767_225_700_000, Fact::Started(Box::new(started)))
}

pub(crate) fn ended(number: Number, run: &str, status: EndStatus) -> Numbered {
    let error = (status == EndStatus::Failed).then(|| RunError {
        code: "provider_unavailable".to_owned(),
        message: "mock/m: it failed".to_owned(),
        node: Some("answer".to_owned()),
        provider: Some("mock".to_owned()),
        model: Some("m".to_owned()),
        ..RunError::default()
    });
    let ended = Ended {
        run: RunId::from(run),
        status,
        error,
        by: None,
        delta: Delta::new(),
        usage: Usage { input: 30, cached: 10, written: 0, output: 20, reasoning: 5 },
        output: Vec::new(),
        set_aside: Vec::new(),
    };
    record(number, 1_767_225_800_000, Fact::Ended(Box::new(ended)))
}

pub(crate) fn message(
    id: &str,
    run: &str,
    role: Role,
    content: &str,
    shown: bool,
) -> StoredMessage {
    let message = Arc::new(Message::text(MessageId::from(id), role, content));
    StoredMessage { message, run: RunId::from(run), shown }
}

/// One whole turn: sent, begun with the question, ended with an answer and a hidden message.
/// `after` is the log's head.
pub(crate) async fn turn(
    store: &Store,
    owner: &str,
    run: &str,
    of: &ConversationId,
    after: Number,
) {
    send(store, owner, run, Some(of)).await;
    let lease = claim(store).await;
    let id = |kind: &str| format!("msg_{run}_{kind}");
    let begin = Batch {
        after,
        records: vec![started(after + 1, owner, run, Some(of))],
        reserve: after + 1,
        messages: vec![message(&id("asked"), run, Role::User, "question", true)],
        consumed: vec![Consumed::taken(InputId::from(format!("in_{run}")))],
    };
    store.append(&lease, &begin).await.unwrap();
    let end = Batch {
        after: after + 1,
        records: vec![ended(after + 5, run, EndStatus::Finished)],
        reserve: after + 5,
        messages: vec![
            message(&id("hidden"), run, Role::Tool, "inner", false),
            message(&id("answered"), run, Role::Assistant, "answer", true),
        ],
        consumed: Vec::new(),
    };
    store.append(&lease, &end).await.unwrap();
    store.release(&lease, &ReleaseInfo::default()).await.unwrap();
}

/// Sends a fork of the run `from` at a number, to the log of a conversation or to one of its own.
pub(crate) async fn send_fork(
    store: &Store,
    (run, from): (&str, &str),
    log: &LogId,
    at: Number,
    of: Option<&ConversationId>,
) -> LogId {
    let fork = ForkRun {
        run: RunId::from(run),
        from: RunId::from(from),
        log: log.clone(),
        at,
        graph: "chat".into(),
        bundle: BlobId::of(b"bundle"),
        owner: user("ann"),
        conversation: of.cloned(),
        edit: None,
        traceparent: None,
    };
    let to = of.map_or_else(|| LogId::from(run), LogId::from);
    let id = InputId::from(format!("in_{run}"));
    store.send(&to, &id, &Input::Fork(Box::new(fork))).await.unwrap();
    to
}

pub(crate) fn forked(number: Number, run: Option<&str>, from: &str, at: Number) -> Numbered {
    let forked = Forked { run: run.map(RunId::from), from: RunId::from(from), at, again: false };
    record(number, 1_767_225_750_000, Fact::Forked(Box::new(forked)))
}

pub(crate) fn waiting(number: Number, run: &str, attention: Option<RunError>) -> Numbered {
    let (run, asked, open) = (RunId::from(run), Vec::new(), Vec::new());
    let waiting = Waiting { run, asked, attention, open };
    record(number, 1_767_225_750_000, Fact::Waiting(Box::new(waiting)))
}

/// The log's channels: its messages.
pub(crate) fn snapshot(number: Number, messages: &[&str]) -> Numbered {
    let ids = messages.iter().map(|id| MessageId::from(*id)).collect();
    let values = Delta::from_iter([("messages".into(), Op::Messages(ids))]);
    record(number, 1_767_225_750_000, Fact::Snapshot { values, last: None, tainted: Some(false) })
}

/// A step that names a message.
pub(crate) fn step(number: Number, message: &str) -> Numbered {
    let ids = vec![MessageId::from(message)];
    let step = Step {
        path: "".into(),
        step: 1,
        done: Vec::new(),
        recorded: Vec::new(),
        delta: Delta::from_iter([("messages".into(), Op::Messages(ids))]),
        activation: Activation::default(),
    };
    record(number, 1_767_225_750_000, Fact::Step(step))
}

pub(crate) fn cancel(run: &str) -> Input {
    Input::Cancel { run: RunId::from(run) }
}
