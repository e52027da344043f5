//! The laws over memory, and the one that needs a clock to move.

use std::sync::Arc;
use std::time::Duration;

use super::MemoryJournal;
use crate::env::StepEnv;
use crate::id::{InputId, LogId, WorkerId};
use crate::journal::{BlobId, Input, Journal as _, StartRun, conformance};

#[tokio::test]
async fn keeps_every_law() {
    let make = async || MemoryJournal::new(Arc::new(StepEnv::new()));
    conformance::check(make).await.unwrap();
    conformance::check_reopened(make, async |journal| journal).await.unwrap();
}

/// The suite waits for nothing, so that a lease lapses as time goes by is shown here.
#[tokio::test]
async fn a_lease_lapses_when_its_time_has_passed() {
    let env = Arc::new(StepEnv::new());
    let journal = MemoryJournal::new(env.clone());
    let (log, worker) = (LogId::from("run_1"), WorkerId::from("worker"));
    let (options, input, if_active) = Default::default();
    let start = StartRun {
        run: "run_1".into(),
        graph: "chat".into(),
        bundle: BlobId::of(b"bundle"),
        owner: "usr_1".into(),
        conversation: None,
        options,
        input,
        traceparent: None,
        if_active,
        durability: None,
    };
    let start = Input::Start(Box::new(start));
    journal.send(&log, &InputId::from("in_1"), &start).await.unwrap();
    journal.claim(&worker, Duration::from_secs(15), &[]).await.unwrap().unwrap();
    env.advance(Duration::from_secs(14));
    assert_eq!(journal.claim(&worker, Duration::from_secs(15), &[]).await.unwrap(), None);
    env.advance(Duration::from_secs(1));
    assert!(journal.claim(&worker, Duration::from_secs(15), &[]).await.unwrap().is_some());
}
