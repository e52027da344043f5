//! The laws that every [`Journal`] keeps, as code that any backend's tests can run.
//!
//! ```no_run
//! # async fn test() -> Result<(), exile_engine::journal::conformance::Violation> {
//! # use std::sync::Arc;
//! use exile_engine::{env::StepEnv, journal::{MemoryJournal, conformance}};
//!
//! conformance::check(async || MemoryJournal::new(Arc::new(StepEnv::new()))).await
//! # }
//! ```
//!
//! A law is told broken by an error, not by a panic, so that this file needs no test build.
//! Absent on purpose: what a full disk does, which only a backend's own tests can bring about.

mod forks;
mod laws;
mod sample;
mod waits;

use futures_util::future::BoxFuture;

use super::{History, Input, Journal, JournalError, Place};
use crate::id::InputId;
use crate::run::record::EndStatus;
use sample::{batch, begin, cancel, ended, input, log, message, send_start, step, worker};

/// A law that was not kept.
#[derive(Debug, thiserror::Error)]
#[error("`{law}` does not hold: {fault}")]
pub struct Violation {
    /// Which law, as a sentence.
    pub law: &'static str,
    /// How it was seen.
    pub fault: Fault,
}

/// How a law was seen broken.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The journal did something else.
    #[error("{0}")]
    Broken(String),
    /// The journal refused what it must do.
    #[error(transparent)]
    Refused(#[from] JournalError),
}

type Held = Result<(), Fault>;
type Law = for<'j> fn(&'j dyn Journal) -> BoxFuture<'j, Held>;

/// Runs every law over a fresh, empty journal of its own. Leases last by the journal's clock;
/// nothing waits for one to lapse.
pub async fn check<J: Journal>(make: impl AsyncFn() -> J) -> Result<(), Violation> {
    for (law, held) in laws::ALL.iter().chain(waits::ALL).chain(forks::ALL) {
        let journal = make().await;
        held(&journal).await.map_err(|fault| Violation { law, fault })?;
    }
    Ok(())
}

/// Checks that everything is still there after `reopen`, which ends a journal and opens what it
/// left: as an orderly end does, or as a crash does.
pub async fn check_reopened<J: Journal>(
    make: impl AsyncFn() -> J,
    reopen: impl AsyncFn(J) -> J,
) -> Result<(), Violation> {
    let violated = |fault| Violation { law: "what was stored is there after a restart", fault };
    let before = make().await;
    let lease = story(&before).await.map_err(violated)?;
    let expected = Seen::of(&before).await.map_err(violated)?;
    let after = reopen(before).await;
    let found = Seen::of(&after).await.map_err(violated)?;
    ensure(found == expected, || format!("left {expected:#?}, found {found:#?}"))
        .map_err(violated)?;
    taken_over(&after, &lease).await.map_err(violated)
}

/// A run in the middle, an input unread, a blob, and a lease that nobody gave back.
async fn story(journal: &dyn Journal) -> Result<super::Lease, Fault> {
    send_start(journal, "run_1").await?;
    let lease = claimed(journal, std::time::Duration::ZERO).await?;
    begin(journal, &lease, "run_1").await?;
    let mut middle = batch(1, vec![step(4, serde_json::json!("text"), &["msg_1"])]);
    middle.messages = vec![message("msg_1", "run_1", "hello")];
    middle.reserve = 90;
    journal.append(&lease, &middle).await?;
    journal.send(&log("run_1"), &input("in_2"), &cancel("run_1")).await?;
    journal.put_blob(b"blob").await?;
    Ok(lease)
}

/// Somebody claims the log, and the writer before the restart has lost it.
async fn taken_over(journal: &dyn Journal, old: &super::Lease) -> Held {
    let lease = claimed(journal, std::time::Duration::from_mins(1)).await?;
    ensure(lease.log == old.log && lease.epoch > old.epoch, || {
        format!("{lease:?} follows {old:?}")
    })?;
    same(&(lease.head, lease.reserved), &(4, 90))?;
    let end = batch(4, vec![ended(91, "run_1", EndStatus::Cancelled)]);
    fenced(&journal.append(old, &end).await)?;
    journal.append(&lease, &end).await?;
    Ok(())
}

/// What can be read of the story.
#[derive(Debug, PartialEq)]
struct Seen {
    history: History,
    inbox: Vec<(InputId, Input)>,
    place: Option<Place>,
    blob: Option<Vec<u8>>,
}

impl Seen {
    async fn of(journal: &dyn Journal) -> Result<Self, Fault> {
        let run = crate::id::RunId::from("run_1");
        Ok(Self {
            history: journal.load(&log("run_1"), None).await?,
            inbox: journal.inbox(&log("run_1")).await?,
            place: journal.find(&run).await?,
            blob: journal.get_blob(&super::BlobId::of(b"blob")).await?,
        })
    }
}

/// Claims the log that is due.
async fn claimed(journal: &dyn Journal, lease: std::time::Duration) -> Result<super::Lease, Fault> {
    let claimed = journal.claim(&worker(), lease, &[]).await?;
    claimed.ok_or_else(|| Fault::Broken("a log is due, and none was claimed".to_owned()))
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { Err(Fault::Broken(otherwise())) }
}

fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Held {
    ensure(found == expected, || format!("expected {expected:?}, found {found:?}"))
}

fn fenced(outcome: &Result<(), JournalError>) -> Held {
    let refused = matches!(outcome, Err(JournalError::Fenced(_)));
    ensure(refused, || format!("a stale lease got {outcome:?}"))
}
