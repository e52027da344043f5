//! Inputs, records and messages for the laws to send and append.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::id::{InputId, LogId, MessageId, RunId, UserId, WorkerId};
use crate::journal::{Batch, BlobId, Input, Journal, JournalError, Lease, StartRun, StoredMessage};
use crate::message::{Message, Role, ToolCall};
use crate::model::Usage;
use crate::run::record::{
    EndStatus, Ended, Fact, Number, Numbered, Record, RunOptions, Started, Step,
};
use crate::state::{Delta, Op};

pub(super) fn start(run: &str) -> Input {
    Input::Start(Box::new(StartRun {
        run: RunId::from(run),
        graph: "sample".into(),
        bundle: BlobId::of(b"sample"),
        owner: UserId::from("user_sample"),
        conversation: None,
        options: RunOptions::default(),
        input: serde_json::Map::from_iter([("n".to_owned(), json!(1))]),
        traceparent: None,
    }))
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
        next: vec!["work:1".to_owned()],
        filled: Vec::new(),
        traceparent: None,
    };
    record(number, Fact::Started(Box::new(started)))
}

/// A step that sets `value` and names `messages`.
pub(super) fn step(number: Number, value: Value, messages: &[&str]) -> Numbered {
    let ids = messages.iter().map(|id| MessageId::from(*id)).collect();
    let delta =
        Delta::from([("value".into(), Op::Set(value)), ("messages".into(), Op::Messages(ids))]);
    let (done, next, filled) = (Vec::new(), Vec::new(), Vec::new());
    record(number, Fact::Step(Step { path: "".into(), step: 1, done, delta, next, filled }))
}

pub(super) fn ended(number: Number, run: &str, status: EndStatus) -> Numbered {
    let usage = Usage { input: 3, cached: 1, output: 2, reasoning: 1 };
    let (run, delta, output) = (RunId::from(run), Delta::new(), Vec::new());
    record(number, Fact::Ended(Box::new(Ended { run, status, error: None, delta, usage, output })))
}

pub(super) fn snapshot(number: Number, messages: &[&str]) -> Numbered {
    let ids = messages.iter().map(|id| MessageId::from(*id)).collect();
    record(number, Fact::Snapshot { values: Delta::from([("messages".into(), Op::Messages(ids))]) })
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
    let consumed = vec![input(&format!("in_{run}"))];
    journal.append(lease, &Batch { consumed, ..batch(0, vec![started(1, run)]) }).await
}
