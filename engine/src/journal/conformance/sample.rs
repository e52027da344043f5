//! Inputs, records and messages for the laws to send and append.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::id::{InputId, LogId, MessageId, RunId, UserId, WorkerId};
use crate::journal::{
    Batch, BlobId, Consumed, ForkRun, IfActive, Input, Journal, JournalError, Lease, ResumeRun,
    StartRun, StoredMessage,
};
use crate::message::{Message, Role, ToolCall};
use crate::model::Usage;
use crate::run::record::{
    Activation, AskReason, Asked, Durability, EndStatus, Ended, Fact, Forked, Number, Numbered,
    Question, Record, RunOptions, Started, Step, Waiting,
};
use crate::state::{Delta, Op};

pub(super) fn start(run: &str) -> Input {
    start_if(run, IfActive::Enqueue)
}

pub(super) fn start_of(owner: &str, run: &str) -> Input {
    let mut start = start_run(run);
    start.owner = UserId::from(owner);
    Input::Start(Box::new(start))
}

pub(super) fn start_if(run: &str, if_active: IfActive) -> Input {
    Input::Start(Box::new(StartRun { if_active, ..start_run(run) }))
}

fn start_run(run: &str) -> StartRun {
    StartRun {
        run: RunId::from(run),
        graph: "sample".into(),
        bundle: BlobId::of(b"sample"),
        owner: UserId::from("user_sample"),
        conversation: None,
        options: RunOptions::default(),
        input: serde_json::Map::from_iter([("n".to_owned(), json!(1))]),
        traceparent: None,
        if_active: IfActive::Enqueue,
        durability: None,
    }
}

/// A fork of the run `from`, of the log `of`, as the run `run`.
pub(super) fn fork(run: &str, from: &str, of: &str, at: Number) -> Input {
    Input::Fork(Box::new(ForkRun {
        run: RunId::from(run),
        from: RunId::from(from),
        log: log(of),
        at,
        graph: "sample".into(),
        bundle: BlobId::of(b"sample"),
        owner: UserId::from("user_sample"),
        conversation: None,
        edit: None,
        traceparent: None,
    }))
}

pub(super) fn resume(run: &str) -> Input {
    let by = UserId::from("user_sample");
    let answers = std::collections::BTreeMap::from([("int_1".into(), json!("yes"))]);
    Input::Resume(Box::new(ResumeRun { run: RunId::from(run), answers, by, message: None }))
}

pub(super) fn cancel(run: &str) -> Input {
    Input::Cancel { run: RunId::from(run) }
}

fn record(number: Number, fact: Fact) -> Numbered {
    let at_ms = 1_767_225_600_000 + i64::try_from(number).unwrap_or(0);
    Numbered { number, record: Arc::new(Record { at_ms, fact }) }
}

pub(super) fn started(number: Number, run: &str) -> Numbered {
    let started = Started {
        run: RunId::from(run),
        graph: "sample".into(),
        bundle: BlobId::of(b"sample"),
        owner: UserId::from("user_sample"),
        conversation: None,
        options: RunOptions::default(),
        delta: Delta::new(),
        base: std::collections::BTreeMap::new(),
        activation: Activation { next: vec!["work:1".into()], ..Activation::default() },
        traceparent: None,
        durability: Durability::Sync,
    };
    record(number, Fact::Started(Box::new(started)))
}

/// A step that sets `value` and names `messages`.
pub(super) fn step(number: Number, value: Value, messages: &[&str]) -> Numbered {
    let ids = messages.iter().map(|id| MessageId::from(*id)).collect();
    let delta = Delta::from_iter([
        ("value".into(), Op::Set(Arc::new(value))),
        ("messages".into(), Op::Messages(ids)),
    ]);
    let (done, recorded, activation) = (Vec::new(), Vec::new(), Activation::default());
    record(number, Fact::Step(Step { path: "".into(), step: 1, done, recorded, delta, activation }))
}

/// A wait for the answer to one question.
pub(super) fn waiting(number: Number, run: &str, expires_ms: Option<i64>) -> Numbered {
    let question = Question {
        reason: AskReason::Human,
        text: "Go on?".to_owned(),
        choices: Vec::new(),
        schema: None,
        tool: None,
        args: None,
    };
    let (id, task, call) = ("int_1".into(), "ask:1".into(), "ask".into());
    let asked = vec![Asked { id, task, call, question, expires_ms, otherwise: None }];
    let (run, attention, open) = (RunId::from(run), None, Vec::new());
    record(number, Fact::Waiting(Box::new(Waiting { run, asked, attention, open })))
}

/// The beginning of a fork as the run `run`, or of none.
pub(super) fn forked(number: Number, run: Option<&str>, from: &str, at: Number) -> Numbered {
    let (run, from) = (run.map(RunId::from), RunId::from(from));
    record(number, Fact::Forked(Box::new(Forked { run, from, at, again: false })))
}

pub(super) fn ended(number: Number, run: &str, status: EndStatus) -> Numbered {
    let usage = Usage { input: 3, cached: 1, written: 0, output: 2, reasoning: 1 };
    let (run, delta, output) = (RunId::from(run), Delta::new(), Vec::new());
    let (error, by, set_aside) = (None, None, Vec::new());
    let ended = Ended { run, status, error, by, delta, usage, output, set_aside };
    record(number, Fact::Ended(Box::new(ended)))
}

pub(super) fn snapshot(number: Number, messages: &[&str]) -> Numbered {
    let ids = messages.iter().map(|id| MessageId::from(*id)).collect();
    let values = Delta::from_iter([("messages".into(), Op::Messages(ids))]);
    record(number, Fact::Snapshot { values, last: None, tainted: None })
}

pub(super) fn message(id: &str, run: &str, content: &str) -> StoredMessage {
    let text = Message::text(MessageId::from(id), Role::Assistant, content);
    let call = ToolCall {
        id: "call_1".to_owned(),
        name: "calculator".to_owned(),
        arguments: "{\"expression\": \"1+1\"".to_owned(),
        opaque: Some(json!({ "signature": "s" })),
    };
    let message = Message {
        reasoning: Some(String::new()),
        tool_calls: vec![call],
        model: Some("mock/m".to_owned()),
        opaque: Some(json!([1, null])),
        edited_arguments: Some(json!({ "expression": "1+2" })),
        covers: Some(MessageId::from("msg_covered")),
        ..text
    };
    StoredMessage { message: Arc::new(message), run: RunId::from(run), shown: true }
}

/// A batch of these records, after the number `after`.
pub(super) fn batch(after: Number, records: Vec<Numbered>) -> Batch {
    let reserve = records.last().map_or(after, |r| r.number);
    Batch { after, records, reserve, ..Batch::default() }
}

pub(super) fn log(name: &str) -> LogId {
    LogId::from(name)
}

pub(super) fn input(name: &str) -> InputId {
    InputId::from(name)
}

pub(super) fn worker() -> WorkerId {
    WorkerId::from("worker_sample")
}

/// Sends the start of `run` to a log of the same name, as the input `in_RUN`.
pub(super) async fn send_start(journal: &dyn Journal, run: &str) -> Result<(), JournalError> {
    journal.send(&log(run), &input(&format!("in_{run}")), &start(run)).await?;
    Ok(())
}

/// Begins the run that [`send_start`] sent: its first record is number 1.
pub(super) async fn begin(
    journal: &dyn Journal,
    lease: &Lease,
    run: &str,
) -> Result<(), JournalError> {
    let consumed = taken(&[&format!("in_{run}")]);
    journal.append(lease, &Batch { consumed, ..batch(0, vec![started(1, run)]) }).await
}

/// Inputs that did what they ask for.
pub(super) fn taken(ids: &[&str]) -> Vec<Consumed> {
    ids.iter().map(|id| Consumed::taken(input(id))).collect()
}
