//! Laws of runs that go back, and of logs that begin as forks of others.

use serde_json::json;

use super::laws::LONG;
use super::sample::{
    batch, begin, ended, fork, forked, input, log, message, send_start, snapshot, step, taken,
};
use super::{Fault, Held, Law, claimed, ensure, same};
use crate::id::RunId;
use crate::journal::{Batch, History, Journal, JournalError, Lease, Place, ReleaseInfo, Sent};
use crate::run::record::{EndStatus, Number};

/// Every law.
pub(super) const ALL: &[(&str, Law)] = &[
    ("what was gone back over is left out, and is there as of then", |j| Box::pin(back(j))),
    ("going back into what was left out brings it back", |j| Box::pin(back_into(j))),
    ("a snapshot counts for what follows it, not where it was gone back over", |j| {
        Box::pin(snapshots(j))
    }),
    ("the run that was gone back over has ended", |j| Box::pin(run_gone_over(j))),
    ("a fork begins with the history of the log that it forks", |j| Box::pin(child(j))),
    ("a fork goes on by itself, and reads the other's messages", |j| Box::pin(child_goes_on(j))),
    ("forks of forks read all of the line", |j| Box::pin(grandchild(j))),
    ("a fork of nothing, or to a log that exists, changes nothing", |j| Box::pin(no_fork(j))),
    ("a fork is sent once", |j| Box::pin(fork_sent_once(j))),
];

/// The run `run_1` of steps 2 to 5, each naming a message of its own.
async fn five(journal: &dyn Journal) -> Result<Lease, Fault> {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LONG).await?;
    begin(journal, &lease, "run_1").await?;
    for number in 2..=5 {
        add(journal, &lease, number - 1, number).await?;
    }
    Ok(lease)
}

/// Appends a step that names the message `msg_NUMBER`.
async fn add(journal: &dyn Journal, lease: &Lease, after: Number, number: Number) -> Held {
    let id = format!("msg_{number}");
    let mut one = batch(after, vec![step(number, json!(number), &[&id])]);
    one.messages = vec![message(&id, lease.log.as_str(), "text")];
    Ok(journal.append(lease, &one).await?)
}

/// Numbers of the records, and of the messages, of a history.
fn numbers(history: &History) -> (Vec<Number>, Vec<Number>) {
    let id = |text: &str| text.strip_prefix("msg_").and_then(|n| n.parse().ok());
    let mut messages: Vec<_> = history.messages.iter().filter_map(|m| id(m.id.as_str())).collect();
    messages.sort_unstable();
    (history.records.iter().map(|r| r.number).collect(), messages)
}

/// Checks the numbers of what is loaded.
async fn loads(
    journal: &dyn Journal,
    name: &str,
    at: Option<Number>,
    expected: (&[Number], &[Number]),
) -> Held {
    let found = numbers(&journal.load(&log(name), at).await?);
    same(&found, &(expected.0.to_vec(), expected.1.to_vec()))
}

async fn back(journal: &dyn Journal) -> Held {
    let lease = five(journal).await?;
    journal.append(&lease, &batch(5, vec![forked(7, Some("run_2"), "run_1", 3)])).await?;
    add(journal, &lease, 7, 8).await?;
    loads(journal, "run_1", None, (&[1, 2, 3, 7, 8], &[2, 3, 8])).await?;
    loads(journal, "run_1", Some(7), (&[1, 2, 3, 7], &[2, 3])).await?;
    for at in [5, 6] {
        loads(journal, "run_1", Some(at), (&[1, 2, 3, 4, 5], &[2, 3, 4, 5])).await?;
    }
    loads(journal, "run_1", Some(2), (&[1, 2], &[2])).await?;
    loads(journal, "run_1", Some(0), (&[], &[])).await?;
    let raw = numbers(&journal.read(&log("run_1"), 3, 4).await?);
    same(&raw, &(vec![3, 4, 5, 7], vec![3, 4, 5]))
}

async fn back_into(journal: &dyn Journal) -> Held {
    let lease = five(journal).await?;
    journal.append(&lease, &batch(5, vec![forked(6, None, "run_1", 2)])).await?;
    journal.append(&lease, &batch(6, vec![forked(7, Some("run_2"), "run_1", 4)])).await?;
    loads(journal, "run_1", None, (&[1, 2, 3, 4, 7], &[2, 3, 4])).await?;
    journal.append(&lease, &batch(7, vec![forked(8, Some("run_3"), "run_1", 6)])).await?;
    loads(journal, "run_1", None, (&[1, 2, 6, 8], &[2])).await
}

async fn snapshots(journal: &dyn Journal) -> Held {
    let lease = five(journal).await?;
    let first = vec![ended(6, "run_1", EndStatus::Finished), snapshot(7, &["msg_2", "msg_5"])];
    journal.append(&lease, &batch(5, first)).await?;
    add(journal, &lease, 7, 8).await?;
    let second = vec![snapshot(9, &["msg_8"]), step(10, json!(10), &[])];
    journal.append(&lease, &batch(8, second)).await?;
    loads(journal, "run_1", None, (&[9, 10], &[8])).await?;
    loads(journal, "run_1", Some(8), (&[7, 8], &[2, 5, 8])).await?;
    loads(journal, "run_1", Some(6), (&[1, 2, 3, 4, 5, 6], &[2, 3, 4, 5])).await?;
    journal.append(&lease, &batch(10, vec![forked(11, Some("run_2"), "run_1", 8)])).await?;
    loads(journal, "run_1", None, (&[7, 8, 11], &[2, 5, 8])).await?;
    journal.append(&lease, &batch(11, vec![forked(12, Some("run_3"), "run_1", 4)])).await?;
    loads(journal, "run_1", None, (&[1, 2, 3, 4, 12], &[2, 3, 4])).await
}

async fn run_gone_over(journal: &dyn Journal) -> Held {
    let lease = five(journal).await?;
    journal.send(&log("run_1"), &input("in_2"), &fork("run_2", "run_1", "run_1", 3)).await?;
    let back = batch(5, vec![forked(6, Some("run_2"), "run_1", 3)]);
    journal.append(&lease, &Batch { consumed: taken(&["in_2"]), ..back }).await?;
    let place = |first, last| {
        Some(Place { log: log("run_1"), first, last, behind: None, unreadable: None })
    };
    let find = async |run: &str| journal.find(&RunId::from(run)).await;
    same(&find("run_1").await?, &place(Some(1), Some(6)))?;
    same(&find("run_2").await?, &place(Some(6), None))?;
    journal.release(&lease, &ReleaseInfo::default()).await?;
    let lease = claimed(journal, LONG).await?;
    journal.append(&lease, &batch(6, vec![forked(7, None, "run_2", 5)])).await?;
    same(&find("run_2").await?, &place(Some(6), Some(7)))?;
    journal.release(&lease, &ReleaseInfo::default()).await?;
    same(&journal.claim(&super::worker(), LONG, &[]).await?, &None)
}

/// The log `run_2`, sent as a fork of `run_1` at 3, and claimed.
async fn forked_off(journal: &dyn Journal) -> Result<Lease, Fault> {
    let old = five(journal).await?;
    let reserve = batch(5, Vec::new());
    journal.append(&old, &Batch { reserve: 40, ..reserve }).await?;
    let sent = fork("run_2", "run_1", "run_1", 3);
    same(&journal.send(&log("run_2"), &input("in_2"), &sent).await?, &Sent::New)?;
    let lease = claimed(journal, LONG).await?;
    same(&lease.log, &log("run_2"))?;
    Ok(lease)
}

async fn child(journal: &dyn Journal) -> Held {
    let lease = forked_off(journal).await?;
    let (own, other) =
        (journal.load(&lease.log, None).await?, journal.load(&log("run_1"), Some(3)).await?);
    same(&own, &other)?;
    ensure(own.reserved >= 40, || format!("{} were handed out before", own.reserved))?;
    same(&journal.read(&lease.log, 0, 10).await?.records, &Vec::new())?;
    same(&journal.inbox(&lease.log).await?.len(), &1)?;
    let place =
        Place { log: log("run_2"), first: None, last: None, behind: None, unreadable: None };
    same(&journal.find(&RunId::from("run_2")).await?, &Some(place))
}

async fn child_goes_on(journal: &dyn Journal) -> Held {
    let lease = forked_off(journal).await?;
    let begin = batch(3, vec![forked(41, Some("run_2"), "run_1", 3)]);
    journal.append(&lease, &Batch { consumed: taken(&["in_2"]), ..begin }).await?;
    let mut own = batch(41, vec![step(42, json!(1), &["msg_2", "msg_3", "msg_42"])]);
    own.messages = vec![message("msg_42", "run_2", "text"), message("msg_3", "run_2", "its own")];
    journal.append(&lease, &own).await?;
    loads(journal, "run_2", None, (&[1, 2, 3, 41, 42], &[2, 3, 42])).await?;
    loads(journal, "run_2", Some(41), (&[1, 2, 3, 41], &[2, 3])).await?;
    loads(journal, "run_1", None, (&[1, 2, 3, 4, 5], &[2, 3, 4, 5])).await?;
    let read = journal.read(&log("run_2"), 42, 10).await?;
    same(&numbers(&read), &(vec![42], vec![2, 3, 42]))?;
    for (name, expected) in [("run_2", "its own"), ("run_1", "text")] {
        let messages = journal.load(&log(name), None).await?.messages;
        let third = messages.iter().find(|m| m.id.as_str() == "msg_3");
        same(&third.map(|m| m.content.as_str()), &Some(expected))?;
    }
    let place =
        Place { log: log("run_2"), first: Some(41), last: None, behind: None, unreadable: None };
    same(&journal.find(&RunId::from("run_2")).await?, &Some(place))
}

async fn grandchild(journal: &dyn Journal) -> Held {
    let lease = forked_off(journal).await?;
    journal.append(&lease, &batch(3, vec![forked(41, Some("run_2"), "run_1", 3)])).await?;
    add(journal, &lease, 41, 42).await?;
    add(journal, &lease, 42, 43).await?;
    journal.append(&lease, &batch(43, vec![forked(44, Some("run_2b"), "run_2", 2)])).await?;
    loads(journal, "run_2", None, (&[1, 2, 44], &[2])).await?;
    for (name, at, expected) in [
        ("run_3", 42, ([1, 2, 3, 41, 42].as_slice(), [2, 3, 42].as_slice())),
        ("run_4", 44, (&[1, 2, 44], &[2])),
        ("run_5", 2, (&[1, 2], &[2])),
    ] {
        let sent = fork(name, "run_2", "run_2", at);
        journal.send(&log(name), &input("in_fork"), &sent).await?;
        loads(journal, name, None, expected).await?;
        let lease = claimed(journal, LONG).await?;
        let after = *expected.0.last().unwrap_or(&0);
        let records = vec![forked(60, Some(name), "run_2", at), step(61, json!(1), &["msg_2"])];
        journal.append(&lease, &batch(after, records)).await?;
        let all = [expected.0, &[60, 61]].concat();
        loads(journal, name, None, (&all, expected.1)).await?;
    }
    Ok(())
}

async fn no_fork(journal: &dyn Journal) -> Held {
    five(journal).await?;
    let nothing = fork("run_2", "nobody", "nobody", 3);
    let refused = journal.send(&log("run_2"), &input("in_2"), &nothing).await;
    ensure(matches!(refused, Err(JournalError::Gone(_))), || format!("got {refused:?}"))?;
    send_start(journal, "run_3").await?;
    let taken = fork("run_2", "run_1", "run_1", 3);
    let refused = journal.send(&log("run_3"), &input("in_2"), &taken).await;
    ensure(matches!(refused, Err(JournalError::Conflict { .. })), || format!("got {refused:?}"))?;
    same(&journal.find(&RunId::from("run_2")).await?, &None)?;
    same(&journal.load(&log("run_2"), None).await?, &History::default())?;
    same(&journal.inbox(&log("run_3")).await?.len(), &1)
}

async fn fork_sent_once(journal: &dyn Journal) -> Held {
    forked_off(journal).await?;
    let sent = fork("run_2", "run_1", "run_1", 3);
    for id in ["in_2", "in_3"] {
        same(&journal.send(&log("run_2"), &input(id), &sent).await?, &Sent::Known)?;
    }
    same(&journal.inbox(&log("run_2")).await?.len(), &1)
}
