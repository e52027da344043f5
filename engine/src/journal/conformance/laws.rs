//! One function per law.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::sample::{
    batch, begin, cancel, ended, input, log, message, send_start, snapshot, start, start_of,
    started, step, taken, waiting, worker,
};
use super::{Fault, Held, Law, claimed, ensure, fenced, same};
use crate::id::{RunId, UserId};
use crate::journal::{
    Batch, BlobId, History, Journal, JournalError, Lease, Place, ReleaseInfo, Sent,
};
use crate::run::record::{EndStatus, Number};

/// Longer than any test.
pub(super) const LONG: Duration = Duration::from_hours(1);

/// Lapsed as soon as it begins.
pub(super) const LAPSED: Duration = Duration::ZERO;

/// Every law.
pub(super) const ALL: &[(&str, Law)] = &[
    ("what is unknown is empty", |j| Box::pin(unknown_is_empty(j))),
    ("only a start and a fork begin a log", |j| Box::pin(begun_by_start(j))),
    ("an id sent twice is sent once, even after it was consumed", |j| Box::pin(sent_once(j))),
    ("a run is sent once, under whatever input id", |j| Box::pin(run_sent_once(j))),
    ("the inbox keeps the order of sending", |j| Box::pin(inbox_order(j))),
    ("logs are claimed in the order of their oldest input", |j| Box::pin(claim_order(j))),
    ("owners are served in turn", |j| Box::pin(turns(j))),
    ("an owner who holds enough is passed over", |j| Box::pin(passed_over(j))),
    ("a lease excludes others until it lapses, and epochs rise", |j| Box::pin(exclusive(j))),
    ("a stale epoch changes nothing", |j| Box::pin(stale_changes_nothing(j))),
    ("a released lease is void and its log free", |j| Box::pin(released(j))),
    ("a renewed lease excludes others again", |j| Box::pin(renewed(j))),
    ("a wrong head or a falling number changes nothing", |j| Box::pin(wrong_head(j))),
    ("an append is whole: records, messages, inputs and runs", |j| Box::pin(whole(j))),
    ("read gives pages and the messages they name", |j| Box::pin(pages(j))),
    ("pages of large messages follow one another", |j| Box::pin(pages_follow(j))),
    ("load gives what reading everything gives", |j| Box::pin(load_is_read(j))),
    ("load begins at the newest snapshot", |j| Box::pin(load_from_snapshot(j))),
    ("blobs are found by their content", |j| Box::pin(blobs(j))),
    ("a log without work is not claimed, one with new input is", |j| Box::pin(idle(j))),
    ("a run cancelled in the queue leaves the running one alone", |j| Box::pin(queued_end(j))),
    ("reserved numbers never fall", |j| Box::pin(reserved(j))),
    ("appends within what is reserved keep every law", |j| Box::pin(within_reserve(j))),
    ("any text comes back as it was, and a message may be replaced", |j| Box::pin(any_text(j))),
    ("a value of any size comes back as it was", |j| Box::pin(any_size(j))),
];

async fn unknown_is_empty(journal: &dyn Journal) -> Held {
    let history = journal.load(&log("nobody"), None).await?;
    same(&history, &History::default())?;
    same(&journal.read(&log("nobody"), 0, 10).await?, &History::default())?;
    same(&journal.inbox(&log("nobody")).await?, &Vec::new())?;
    same(&journal.find(&RunId::from("nobody")).await?, &None)?;
    same(&journal.claim(&worker(), LONG, &[]).await?, &None)?;
    let lease = Lease { log: log("nobody"), epoch: 0, owner: None, head: 0, reserved: 0 };
    fenced(&journal.append(&lease, &batch(0, vec![started(1, "nobody")])).await)?;
    void(journal, &lease).await
}

async fn begun_by_start(journal: &dyn Journal) -> Held {
    let sent = journal.send(&log("nobody"), &input("in_1"), &cancel("run_1")).await;
    ensure(matches!(sent, Err(JournalError::Gone(_))), || format!("got {sent:?}"))?;
    same(&journal.inbox(&log("nobody")).await?, &Vec::new())?;
    same(&journal.claim(&worker(), LONG, &[]).await?, &None)
}

async fn sent_once(journal: &dyn Journal) -> Held {
    let send = async || journal.send(&log("run_1"), &input("in_run_1"), &start("run_1")).await;
    same(&send().await?, &Sent::New)?;
    same(&send().await?, &Sent::Known)?;
    same(&journal.inbox(&log("run_1")).await?, &vec![(input("in_run_1"), start("run_1"))])?;
    let place =
        Place { log: log("run_1"), first: None, last: None, behind: None, unreadable: None };
    same(&journal.find(&RunId::from("run_1")).await?, &Some(place))?;
    let lease = claimed(journal, LONG).await?;
    begin(journal, &lease, "run_1").await?;
    same(&send().await?, &Sent::Known)?;
    let cancel = async || journal.send(&log("run_1"), &input("in_2"), &cancel("run_1")).await;
    same(&cancel().await?, &Sent::New)?;
    let end = batch(1, vec![ended(2, "run_1", EndStatus::Cancelled)]);
    journal.append(&lease, &Batch { consumed: taken(&["in_2"]), ..end }).await?;
    same(&cancel().await?, &Sent::Known)?;
    same(&journal.inbox(&log("run_1")).await?, &Vec::new())
}

async fn run_sent_once(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let again = journal.send(&log("run_1"), &input("in_other"), &start("run_1")).await?;
    same(&again, &Sent::Known)?;
    same(&journal.inbox(&log("run_1")).await?.len(), &1)
}

async fn inbox_order(journal: &dyn Journal) -> Held {
    let inputs = [
        (input("in_z"), start("run_1")),
        (input("in_a"), start("run_2")),
        (input("in_m"), cancel("run_1")),
    ];
    for (id, sent) in &inputs {
        journal.send(&log("log_1"), id, sent).await?;
    }
    same(&journal.inbox(&log("log_1")).await?, &inputs.to_vec())?;
    let lease = claimed(journal, LONG).await?;
    let mut first = batch(0, vec![started(1, "run_1")]);
    first.consumed = taken(&["in_z", "in_m"]);
    journal.append(&lease, &first).await?;
    same(&journal.inbox(&log("log_1")).await?, &inputs[1..2].to_vec())
}

async fn claim_order(journal: &dyn Journal) -> Held {
    for run in ["run_2", "run_1", "run_3"] {
        send_start(journal, run).await?;
    }
    journal.send(&log("run_2"), &input("in_late"), &cancel("run_2")).await?;
    for run in ["run_2", "run_1", "run_3"] {
        same(&claimed(journal, LONG).await?.log, &log(run))?;
    }
    same(&journal.claim(&worker(), LONG, &[]).await?, &None)
}

async fn turns(journal: &dyn Journal) -> Held {
    let sent = [("ann", 1), ("ann", 2), ("ann", 3), ("ann", 4), ("bob", 5), ("bob", 6), ("cid", 7)];
    for (owner, n) in sent {
        let run = format!("run_{n}");
        journal.send(&log(&run), &input(&run), &start_of(owner, &run)).await?;
    }
    let mut served = Vec::new();
    for _ in sent {
        let claimed = claimed(journal, LONG).await?.log;
        served.extend(sent.iter().find(|(_, n)| claimed == log(&format!("run_{n}"))));
    }
    // Of three owners each has one, then of two, then the last has what is left.
    for round in [&served[..3], &served[3..5]] {
        let owners: BTreeSet<&str> = round.iter().map(|(owner, _)| *owner).collect();
        same(&owners.len(), &round.len())?;
    }
    let of_one: Vec<u32> = served.iter().filter(|(o, _)| *o == "ann").map(|(_, n)| *n).collect();
    same(&of_one, &vec![1, 2, 3, 4])
}

async fn passed_over(journal: &dyn Journal) -> Held {
    let owners = ["ann", "bob", "bob", "cid", "dan", "eve"].map(UserId::from);
    for (n, owner) in owners.iter().enumerate() {
        let run = format!("run_{n}");
        journal.send(&log(&run), &input(&run), &start_of(owner.as_str(), &run)).await?;
    }
    // The last one of all, the first one of all, and two that follow each other.
    for enough in [["bob", "cid", "eve"], ["ann", "bob", "eve"]] {
        let enough = enough.map(UserId::from);
        let mut served = Vec::new();
        while let Some(lease) = journal.claim(&worker(), LONG, &enough).await? {
            served.extend(lease.owner.clone());
            journal.release(&lease, &ReleaseInfo::default()).await?;
            if served.len() > owners.len() {
                break;
            }
        }
        ensure(served.iter().all(|owner| !enough.contains(owner)), || format!("{served:?}"))?;
        ensure(served.iter().collect::<BTreeSet<_>>().len() == 2, || format!("{served:?}"))?;
    }
    let mut left = Vec::new();
    while let Some(lease) = journal.claim(&worker(), LONG, &[]).await? {
        left.extend(lease.owner);
    }
    left.sort_unstable();
    same(&left.as_slice(), &owners.as_slice())
}

async fn exclusive(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let first = claimed(journal, LAPSED).await?;
    let second = claimed(journal, LONG).await?;
    ensure(second.epoch > first.epoch, || format!("{second:?} follows {first:?}"))?;
    same(&journal.claim(&worker(), LONG, &[]).await?, &None)
}

async fn stale_changes_nothing(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let old = claimed(journal, LAPSED).await?;
    let new = claimed(journal, LONG).await?;
    let mut whole = batch(0, vec![started(1, "run_1")]);
    whole.messages = vec![message("msg_1", "run_1", "never")];
    whole.consumed = taken(&["in_run_1"]);
    whole.reserve = 50;
    fenced(&journal.append(&old, &whole).await)?;
    void(journal, &old).await?;
    journal.release(&old, &ReleaseInfo::default()).await?;
    same(&journal.claim(&worker(), LONG, &[]).await?, &None)?;
    same(&journal.load(&log("run_1"), None).await?, &History::default())?;
    same(&journal.inbox(&log("run_1")).await?.len(), &1)?;
    journal.append(&new, &whole).await?;
    same(&journal.load(&log("run_1"), None).await?.records, &whole.records)
}

async fn released(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LONG).await?;
    begin(journal, &lease, "run_1").await?;
    journal.release(&lease, &ReleaseInfo::default()).await?;
    fenced(&journal.append(&lease, &batch(1, vec![step(2, json!(1), &[])])).await)?;
    void(journal, &lease).await?;
    let next = claimed(journal, LONG).await?;
    ensure(next.epoch > lease.epoch, || format!("{next:?} follows {lease:?}"))
}

async fn renewed(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LAPSED).await?;
    same(&journal.renew(std::slice::from_ref(&lease), LONG).await?, &Vec::new())?;
    same(&journal.claim(&worker(), LONG, &[]).await?, &None)?;
    begin(journal, &lease, "run_1").await?;
    Ok(())
}

/// A lease that cannot be renewed, also not together with others.
async fn void(journal: &dyn Journal, lease: &Lease) -> Held {
    let lost = journal.renew(std::slice::from_ref(lease), LONG).await?;
    same(&lost, &vec![lease.log.clone()])
}

async fn wrong_head(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LONG).await?;
    conflict(journal, &lease, &batch(7, vec![started(8, "run_1")]), 0).await?;
    begin(journal, &lease, "run_1").await?;
    conflict(journal, &lease, &batch(0, vec![started(2, "run_1")]), 1).await?;
    let falling = vec![step(3, json!(1), &[]), step(2, json!(2), &[])];
    conflict(journal, &lease, &batch(1, falling), 3).await?;
    conflict(journal, &lease, &batch(1, vec![step(1, json!(1), &[])]), 1).await?;
    let history = journal.load(&log("run_1"), None).await?;
    same(&history.records, &vec![started(1, "run_1")])?;
    same(&history.reserved, &1)
}

async fn conflict(journal: &dyn Journal, lease: &Lease, batch: &Batch, expected: Number) -> Held {
    match journal.append(lease, batch).await {
        Err(JournalError::Conflict { found, .. }) => same(&found, &expected),
        other => Err(Fault::Broken(format!("expected a conflict, got {other:?}"))),
    }
}

async fn whole(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LONG).await?;
    let records = vec![started(1, "run_1"), step(3, json!({ "k": [1.5] }), &["msg_1", "msg_2"])];
    let mut both = batch(0, records);
    both.messages = vec![message("msg_1", "run_1", "one"), message("msg_2", "run_1", "two")];
    both.consumed = taken(&["in_run_1"]);
    journal.append(&lease, &both).await?;
    let history = journal.load(&log("run_1"), None).await?;
    same(&history.records, &both.records)?;
    let stored: Vec<_> = both.messages.iter().map(|m| m.message.clone()).collect();
    same(&history.messages, &stored)?;
    same(&journal.inbox(&log("run_1")).await?, &Vec::new())?;
    let place =
        Place { log: log("run_1"), first: Some(1), last: None, behind: None, unreadable: None };
    same(&journal.find(&RunId::from("run_1")).await?, &Some(place))
}

/// A log of steps 2, 4, 6, 8, 10, each naming a message of its own.
async fn ten(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LONG).await?;
    begin(journal, &lease, "run_1").await?;
    let mut after = 1;
    for number in [2, 4, 6, 8, 10] {
        let id = format!("msg_{number}");
        let mut one = batch(after, vec![step(number, json!(number), &[&id])]);
        one.messages = vec![message(&id, "run_1", "text")];
        journal.append(&lease, &one).await?;
        after = number;
    }
    Ok(())
}

async fn pages(journal: &dyn Journal) -> Held {
    ten(journal).await?;
    for (from, limit, expected, next) in [
        (0, 2, vec![1, 2], Some(4)),
        (2, 2, vec![2, 4], Some(6)),
        (3, 2, vec![2, 4], Some(6)),
        (9, 5, vec![8, 10], None),
        (10, 1, vec![10], None),
        (11, 5, vec![10], None),
        (1, 0, vec![], Some(1)),
        (4, usize::MAX, vec![4, 6, 8, 10], None),
    ] {
        let part = journal.read(&log("run_1"), from, limit).await?;
        let numbers: Vec<Number> = part.records.iter().map(|r| r.number).collect();
        same(&numbers, &expected)?;
        same(&part.next, &next)?;
        let named: Vec<String> = part.messages.iter().map(|m| m.id.to_string()).collect();
        let steps = expected.iter().filter(|n| **n > 1);
        same(&named, &steps.map(|n| format!("msg_{n}")).collect())?;
    }
    Ok(())
}

async fn pages_follow(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LONG).await?;
    begin(journal, &lease, "run_1").await?;
    let large = "0123456789abcdef".repeat(64 * 1024);
    for number in 2..14 {
        let id = format!("msg_{number}");
        let mut one = batch(number - 1, vec![step(number, json!(number), &[&id])]);
        one.messages = vec![message(&id, "run_1", &large)];
        journal.append(&lease, &one).await?;
    }
    let (mut from, mut found) = (Some(0), Vec::new());
    while let Some(number) = from {
        let page = journal.read(&log("run_1"), number, usize::MAX).await?;
        ensure(!page.records.is_empty(), || format!("the page from {number} on is empty"))?;
        let named = page.records.iter().flat_map(|record| record.record.names_in_events());
        same(&page.messages.len(), &named.count())?;
        found.extend(page.records.iter().map(|record| record.number));
        from = page.next;
    }
    same(&found, &(1..14).collect())
}

async fn load_is_read(journal: &dyn Journal) -> Held {
    ten(journal).await?;
    let all = journal.read(&log("run_1"), 0, usize::MAX).await?;
    same(&journal.load(&log("run_1"), None).await?, &all)
}

async fn load_from_snapshot(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LONG).await?;
    let mut first = batch(0, vec![started(1, "run_1"), step(3, json!(1), &["msg_1", "msg_2"])]);
    first.messages = vec![message("msg_1", "run_1", "one"), message("msg_2", "run_1", "two")];
    journal.append(&lease, &first).await?;
    let last = vec![ended(5, "run_1", EndStatus::Finished), snapshot(7, &["msg_2"])];
    journal.append(&lease, &batch(3, last)).await?;
    let loaded = journal.load(&log("run_1"), None).await?;
    let named: Vec<&str> = loaded.messages.iter().map(|m| m.id.as_str()).collect();
    same(&named, &vec!["msg_2"])?;
    let read = journal.read(&log("run_1"), 7, usize::MAX).await?;
    same(&read.messages.len(), &0)?;
    same(&loaded.records, &read.records)
}

async fn blobs(journal: &dyn Journal) -> Held {
    let large: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    for bytes in [b"".as_slice(), b"one", &large] {
        let id = journal.put_blob(bytes).await?;
        same(&id, &BlobId::of(bytes))?;
        same(&journal.put_blob(bytes).await?, &id)?;
        same(&journal.get_blob(&id).await?.as_deref(), &Some(bytes))?;
    }
    same(&journal.get_blob(&BlobId::of(b"nowhere")).await?, &None)
}

async fn idle(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LONG).await?;
    begin(journal, &lease, "run_1").await?;
    let end = batch(1, vec![ended(2, "run_1", EndStatus::Finished)]);
    journal.append(&lease, &end).await?;
    journal.release(&lease, &ReleaseInfo::default()).await?;
    same(&journal.claim(&worker(), LONG, &[]).await?, &None)?;
    journal.send(&log("run_1"), &input("in_2"), &start("run_2")).await?;
    let again = claimed(journal, LONG).await?;
    same(&again.log, &log("run_1"))?;
    let both = batch(2, vec![started(3, "run_2"), ended(4, "run_2", EndStatus::Failed)]);
    journal.append(&again, &Batch { consumed: taken(&["in_2"]), ..both }).await?;
    journal.release(&again, &ReleaseInfo::default()).await?;
    same(&journal.claim(&worker(), LONG, &[]).await?, &None)
}

async fn queued_end(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    journal.send(&log("run_1"), &input("in_2"), &start("run_2")).await?;
    journal.send(&log("run_1"), &input("in_3"), &cancel("run_2")).await?;
    let lease = claimed(journal, LONG).await?;
    begin(journal, &lease, "run_1").await?;
    let mut end = batch(1, vec![ended(2, "run_2", EndStatus::Cancelled)]);
    end.consumed = taken(&["in_2", "in_3"]);
    journal.append(&lease, &end).await?;
    journal.release(&lease, &ReleaseInfo::default()).await?;
    same(&claimed(journal, LONG).await?.log, &log("run_1"))?;
    let place =
        Place { log: log("run_1"), first: Some(2), last: Some(2), behind: None, unreadable: None };
    same(&journal.find(&RunId::from("run_2")).await?, &Some(place))
}

async fn reserved(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LONG).await?;
    let first = batch(0, vec![started(1, "run_1")]);
    journal.append(&lease, &Batch { reserve: 50, ..first }).await?;
    let second = batch(1, vec![step(7, json!(1), &[])]);
    journal.append(&lease, &Batch { reserve: 10, ..second }).await?;
    same(&journal.load(&log("run_1"), None).await?.reserved, &50)?;
    let third = batch(7, vec![step(60, json!(1), &[])]);
    journal.append(&lease, &Batch { reserve: 0, ..third }).await?;
    same(&journal.read(&log("run_1"), 1, 1).await?.reserved, &60)
}

async fn within_reserve(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let old = claimed(journal, LAPSED).await?;
    let lease = claimed(journal, LONG).await?;
    let first = batch(0, vec![started(1, "run_1")]);
    let consumed = taken(&["in_run_1"]);
    journal.append(&lease, &Batch { reserve: 100, consumed, ..first }).await?;
    let steps = vec![step(2, json!(2), &[]), step(4, json!(4), &[])];
    journal.append(&lease, &batch(1, steps.clone())).await?;
    for after in [0, 1, 2, 3, 5] {
        conflict(journal, &lease, &batch(after, vec![step(6, json!(6), &[])]), 4).await?;
    }
    fenced(&journal.append(&old, &batch(4, vec![step(6, json!(6), &[])])).await)?;
    journal.append(&lease, &batch(4, vec![step(6, json!(6), &[])])).await?;
    let place = |last| {
        Some(Place { log: log("run_1"), first: Some(1), last, behind: None, unreadable: None })
    };
    journal.append(&lease, &batch(6, vec![waiting(7, "run_1", None)])).await?;
    same(&journal.find(&RunId::from("run_1")).await?, &place(Some(7)))?;
    journal.append(&lease, &batch(7, vec![step(8, json!(8), &[])])).await?;
    same(&journal.find(&RunId::from("run_1")).await?, &place(None))?;
    let history = journal.load(&log("run_1"), None).await?;
    let numbers: Vec<Number> = history.records.iter().map(|r| r.number).collect();
    same(&(numbers, history.reserved), &(vec![1, 2, 4, 6, 7, 8], 100))?;
    same(&history.records[1..3].to_vec(), &steps)?;
    journal.append(&lease, &batch(8, vec![snapshot(9, &[])])).await?;
    same(&journal.load(&log("run_1"), None).await?.records, &vec![snapshot(9, &[])])?;
    journal.release(&lease, &ReleaseInfo::default()).await?;
    fenced(&journal.append(&lease, &batch(9, vec![step(10, json!(10), &[])])).await)?;
    let next = claimed(journal, LONG).await?;
    journal.append(&next, &batch(9, vec![step(10, json!(10), &[])])).await?;
    let end = batch(10, vec![ended(11, "run_1", EndStatus::Finished)]);
    journal.append(&next, &end).await?;
    same(&journal.find(&RunId::from("run_1")).await?, &place(Some(11)))
}

async fn any_text(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LONG).await?;
    begin(journal, &lease, "run_1").await?;
    let odd = "a\u{0}b \u{202e}\u{feff}\u{10ffff} 中文 '\"; DROP TABLE exile_log; --\r\n";
    let long = odd.repeat(20_000);
    let mut after = 1;
    for (number, text) in [(2, odd), (3, ""), (4, "\u{0}"), (5, long.as_str())] {
        let mut one = batch(after, vec![step(number, json!({ odd: text }), &["msg_1"])]);
        one.messages = vec![message("msg_1", "run_1", text)];
        journal.append(&lease, &one).await?;
        let part = journal.read(&log("run_1"), number, 1).await?;
        same(&part.records, &one.records)?;
        same(&part.messages, &vec![Arc::clone(&one.messages[0].message)])?;
        after = number;
    }
    same(&journal.load(&log("run_1"), None).await?.messages.len(), &1)
}

async fn any_size(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LONG).await?;
    begin(journal, &lease, "run_1").await?;
    let text = "0123456789abcdef".repeat(2_000);
    let many: Vec<String> = (0..2_000).map(|n| format!("item {n}")).collect();
    let own = json!({ "$blob": "sha256:00", "$$blob": { "$blob": 1 } });
    let values = [json!(text), json!([text, { "k": text }]), json!(many), own, json!([many, text])];
    let records: Vec<_> = (2..).zip(values).map(|(n, value)| step(n, value, &[])).collect();
    journal.append(&lease, &batch(1, records.clone())).await?;
    same(&journal.read(&log("run_1"), 2, 10).await?.records, &records)?;
    same(&journal.load(&log("run_1"), None).await?.records[1..].to_vec(), &records)
}
