//! Laws of runs that wait, and of what is refused while a run goes on.

use serde_json::json;

use super::laws::{LAPSED, LONG};
use super::sample::{
    batch, begin, cancel, ended, input, log, resume, send_start, start_if, step, taken, waiting,
    worker,
};
use super::{Held, Law, claimed, fenced, same};
use crate::id::RunId;
use crate::journal::{
    Batch, Consumed, IfActive, Journal, Lease, Place, Refusal, ReleaseInfo, Sent, Verdict,
};
use crate::run::record::{EndStatus, RunError};

/// Every law.
pub(super) const ALL: &[(&str, Law)] = &[
    ("a log that waits is claimed when something is sent", |j| Box::pin(parked(j))),
    ("a log that waits is claimed when its wake-up has come", |j| Box::pin(woken(j))),
    ("a wake-up is due until its log is given back", |j| Box::pin(wakes_again(j))),
    ("a log that nobody gave back wakes when its question expires", |j| Box::pin(expires(j))),
    ("a log that goes on after a wait is claimed", |j| Box::pin(goes_on(j))),
    ("what a log that waits has seen and left is not due until it goes on", |j| {
        Box::pin(leaves(j))
    }),
    ("a start is rejected while a run is queued, goes on or waits", |j| Box::pin(busy(j))),
    ("a run that waits is found to stand at its wait", |j| Box::pin(stands(j))),
    ("a run that ends beside one that waits leaves it", |j| Box::pin(ends_beside(j))),
    ("a log that is left to people is claimed only when something is sent", |j| Box::pin(left(j))),
    ("what became of an input is kept, and nothing changes it", |j| Box::pin(verdicts(j))),
];

/// The run `run_1` waits (record 2), under a lease that has lapsed.
async fn waits(journal: &dyn Journal, expires_ms: Option<i64>) -> Result<Lease, super::Fault> {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LAPSED).await?;
    begin(journal, &lease, "run_1").await?;
    journal.append(&lease, &batch(1, vec![waiting(2, "run_1", expires_ms)])).await?;
    Ok(lease)
}

fn wakes(at_ms: i64) -> ReleaseInfo {
    ReleaseInfo { wake_ms: Some(at_ms), seen: None }
}

async fn none_due(journal: &dyn Journal) -> Held {
    same(&journal.claim(&worker(), LONG, &[]).await?, &None)
}

async fn parked(journal: &dyn Journal) -> Held {
    let lease = waits(journal, None).await?;
    none_due(journal).await?;
    journal.release(&lease, &ReleaseInfo::default()).await?;
    none_due(journal).await?;
    journal.send(&log("run_1"), &input("in_2"), &resume("run_1")).await?;
    let lease = claimed(journal, LONG).await?;
    let again = batch(2, vec![waiting(3, "run_1", None)]);
    journal.append(&lease, &Batch { consumed: taken(&["in_2"]), ..again }).await?;
    journal.release(&lease, &ReleaseInfo::default()).await?;
    none_due(journal).await
}

async fn woken(journal: &dyn Journal) -> Held {
    let lease = waits(journal, None).await?;
    journal.release(&lease, &wakes(i64::MAX)).await?;
    none_due(journal).await?;
    journal.send(&log("run_1"), &input("in_2"), &resume("run_1")).await?;
    let lease = claimed(journal, LONG).await?;
    let again = batch(2, vec![waiting(3, "run_1", None)]);
    journal.append(&lease, &Batch { consumed: taken(&["in_2"]), ..again }).await?;
    journal.release(&lease, &wakes(1)).await?;
    same(&claimed(journal, LONG).await?.log, &log("run_1"))?;
    none_due(journal).await
}

async fn wakes_again(journal: &dyn Journal) -> Held {
    let lease = waits(journal, None).await?;
    journal.release(&lease, &wakes(1)).await?;
    claimed(journal, LAPSED).await?;
    let lease = claimed(journal, LONG).await?;
    journal.release(&lease, &ReleaseInfo::default()).await?;
    none_due(journal).await
}

async fn expires(journal: &dyn Journal) -> Held {
    let lease = waits(journal, Some(i64::MAX)).await?;
    none_due(journal).await?;
    journal.append(&lease, &batch(2, vec![waiting(3, "run_1", Some(1))])).await?;
    same(&claimed(journal, LONG).await?.log, &log("run_1"))
}

async fn goes_on(journal: &dyn Journal) -> Held {
    let lease = waits(journal, Some(1)).await?;
    let on = vec![step(3, json!(1), &[])];
    journal.append(&lease, &batch(2, on)).await?;
    let lease = claimed(journal, LONG).await?;
    journal.release(&lease, &ReleaseInfo::default()).await?;
    let lease = claimed(journal, LONG).await?;
    let end = vec![waiting(4, "run_1", None), ended(5, "run_1", EndStatus::Finished)];
    journal.append(&lease, &batch(3, end)).await?;
    journal.release(&lease, &ReleaseInfo::default()).await?;
    none_due(journal).await
}

async fn leaves(journal: &dyn Journal) -> Held {
    let lease = waits(journal, None).await?;
    let queued = start_if("run_2", IfActive::Enqueue);
    journal.send(&log("run_1"), &input("in_2"), &queued).await?;
    let seen = ReleaseInfo { wake_ms: None, seen: Some(input("in_2")) };
    journal.release(&lease, &seen).await?;
    none_due(journal).await?;
    journal.send(&log("run_1"), &input("in_3"), &resume("run_1")).await?;
    let lease = claimed(journal, LONG).await?;
    journal.release(&lease, &seen).await?;
    let lease = claimed(journal, LONG).await?;
    let end = batch(2, vec![ended(3, "run_1", EndStatus::Finished)]);
    journal.append(&lease, &Batch { consumed: taken(&["in_3"]), ..end }).await?;
    journal.release(&lease, &ReleaseInfo::default()).await?;
    claimed(journal, LONG).await?;
    same(&journal.inbox(&log("run_1")).await?.len(), &1)
}

async fn busy(journal: &dyn Journal) -> Held {
    let reject = start_if("run_2", IfActive::Reject);
    let send = async || journal.send(&log("run_1"), &input("in_run_2"), &reject).await;
    send_start(journal, "run_1").await?;
    same(&send().await?, &Sent::Busy)?;
    let lease = claimed(journal, LONG).await?;
    begin(journal, &lease, "run_1").await?;
    same(&send().await?, &Sent::Busy)?;
    journal.append(&lease, &batch(1, vec![waiting(2, "run_1", None)])).await?;
    same(&send().await?, &Sent::Busy)?;
    same(&journal.inbox(&log("run_1")).await?, &Vec::new())?;
    same(&journal.find(&RunId::from("run_2")).await?, &None)?;
    journal.append(&lease, &batch(2, vec![ended(3, "run_1", EndStatus::Finished)])).await?;
    same(&send().await?, &Sent::New)?;
    same(&send().await?, &Sent::Known)?;
    let other = start_if("run_3", IfActive::Reject);
    same(&journal.send(&log("run_3"), &input("in_run_3"), &other).await?, &Sent::New)
}

async fn stands(journal: &dyn Journal) -> Held {
    let lease = waits(journal, None).await?;
    let find = async || journal.find(&RunId::from("run_1")).await;
    let place = |last| {
        Some(Place { log: log("run_1"), first: Some(1), last, behind: None, unreadable: None })
    };
    same(&find().await?, &place(Some(2)))?;
    journal.append(&lease, &batch(2, vec![step(3, json!(1), &[])])).await?;
    same(&find().await?, &place(None))?;
    let again = vec![step(4, json!(1), &[]), waiting(5, "run_1", None)];
    journal.append(&lease, &batch(3, again)).await?;
    same(&find().await?, &place(Some(5)))
}

async fn ends_beside(journal: &dyn Journal) -> Held {
    let lease = waits(journal, None).await?;
    let queued = start_if("run_2", IfActive::Enqueue);
    journal.send(&log("run_1"), &input("in_2"), &queued).await?;
    journal.send(&log("run_1"), &input("in_3"), &cancel("run_2")).await?;
    let beside = vec![ended(3, "run_2", EndStatus::Cancelled), waiting(4, "run_1", None)];
    let consumed = taken(&["in_2", "in_3"]);
    journal.append(&lease, &Batch { consumed, ..batch(2, beside) }).await?;
    none_due(journal).await?;
    journal.release(&lease, &wakes(1)).await?;
    same(&claimed(journal, LONG).await?.log, &log("run_1"))
}

async fn verdicts(journal: &dyn Journal) -> Held {
    let lease = waits(journal, None).await?;
    for id in ["in_2", "in_3", "in_4"] {
        journal.send(&log("run_1"), &input(id), &resume("run_1")).await?;
    }
    let verdict = async |id| journal.verdict(&log("run_1"), &input(id)).await;
    for id in ["in_2", "in_3", "in_4", "nobody's"] {
        same(&verdict(id).await?, &None)?;
    }
    let answered = Refusal::Answered { interrupt: "int_1".into() };
    let refused = Verdict::Refused(answered);
    let late = Consumed { input: input("in_3"), verdict: refused.clone() };
    let ended = Verdict::Refused(Refusal::Ended);
    let later = Consumed { input: input("in_4"), verdict: ended.clone() };
    let consumed = vec![Consumed::taken(input("in_2")), late, later];
    let again = batch(2, vec![step(3, json!(1), &[])]);
    journal.append(&lease, &Batch { consumed, ..again }).await?;
    same(&journal.send(&log("run_1"), &input("in_3"), &resume("run_1")).await?, &Sent::Known)?;
    same(&verdict("in_2").await?, &Some(Verdict::Taken))?;
    same(&verdict("in_3").await?, &Some(refused))?;
    same(&verdict("in_4").await?, &Some(ended))?;
    same(&journal.verdict(&log("nobody's"), &input("in_2")).await?, &None)
}

async fn left(journal: &dyn Journal) -> Held {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, LONG).await?;
    begin(journal, &lease, "run_1").await?;
    journal.send(&log("run_1"), &input("in_2"), &start_if("run_2", IfActive::Enqueue)).await?;
    journal.send(&log("run_1"), &input("in_3"), &cancel("run_2")).await?;
    let why = RunError::new("log_unreadable", "it is garbled".to_owned());
    journal.park(&lease, &why).await?;
    fenced(&journal.park(&lease, &why).await)?;
    none_due(journal).await?;
    same(&journal.inbox(&log("run_1")).await?, &Vec::new())?;
    let refused = Verdict::Refused(Refusal::Unreadable { why: why.message.clone() });
    same(&journal.verdict(&log("run_1"), &input("in_2")).await?, &Some(refused))?;
    same(&journal.verdict(&log("run_1"), &input("in_3")).await?, &Some(Verdict::Taken))?;
    let place = journal.find(&RunId::from("run_1")).await?;
    same(&place.and_then(|place| place.unreadable), &Some(why))?;
    // Whoever sends something wants it to be tried again.
    journal.send(&log("run_1"), &input("in_4"), &cancel("run_1")).await?;
    let again = claimed(journal, LONG).await?;
    journal.append(&again, &batch(1, vec![step(2, json!(1), &[])])).await?;
    let place = journal.find(&RunId::from("run_1")).await?;
    same(&place.and_then(|place| place.unreadable), &None)
}
