//! The engine's laws, and what SQLite adds to them.

use std::sync::Mutex;
use std::time::Duration;

use exile_engine::id::WorkerId;
use exile_engine::journal::{Batch, Journal as _, conformance};
use exile_engine::run::record::EndStatus;
use exile_server::store::Store;
use tempfile::TempDir;

use super::Home;
use super::write::{claim, ended, send, step};

#[tokio::test]
async fn keeps_every_law() {
    let folders = Mutex::new(Vec::<TempDir>::new());
    let make = async || {
        let Home { folder, store, .. } = Home::new().await;
        folders.lock().unwrap().push(folder);
        store
    };
    conformance::check(make).await.unwrap();
}

#[tokio::test]
async fn everything_is_there_after_an_orderly_end_and_after_a_crash() {
    for orderly in [true, false] {
        let home = Home::new().await;
        let (path, env) = (home.database(), home.env.clone());
        let reopen = async |store: Store| {
            if orderly {
                store.close().await.unwrap();
            }
            drop(store);
            Store::open(&path, env.clone()).await.unwrap()
        };
        conformance::check_reopened(async || home.store.clone(), reopen).await.unwrap();
    }
}

#[tokio::test]
async fn a_restart_frees_the_leases_of_the_process_that_died() {
    let home = Home::new().await;
    send(&home.store, "ann", "run_1", None).await;
    let old = claim(&home.store).await;
    let worker = WorkerId::from("worker_2");
    let hour = Duration::from_hours(1);
    assert_eq!(home.store.claim(&worker, hour, &[]).await.unwrap(), None);
    let home = home.reopen().await;
    let lost = home.store.renew(std::slice::from_ref(&old), hour).await.unwrap();
    assert_eq!(lost, [old.log]);
    let new = home.store.claim(&worker, hour, &[]).await.unwrap().unwrap();
    assert!(new.epoch > old.epoch);
}

#[tokio::test]
async fn an_append_is_whole_although_its_caller_leaves() {
    for patience in 0..40 {
        let home = Home::new().await;
        send(&home.store, "ann", "run_1", None).await;
        let lease = claim(&home.store).await;
        let records: Vec<_> = (1..=20).map(|n| ended(n, "run_1", EndStatus::Finished)).collect();
        let batch = Batch { records, reserve: 20, ..Batch::default() };
        tokio::select! {
            biased;
            _ = home.store.append(&lease, &batch) => {}
            () = yields(patience) => {}
        }
        // What follows stands behind it, if it was taken up at all.
        let next =
            Batch { after: 20, records: vec![ended(21, "run_1", EndStatus::Failed)], ..batch };
        home.store.append(&lease, &next).await.unwrap();
        assert_eq!(home.store.load(&lease.log, None).await.unwrap().records.len(), 21);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appends_that_come_and_go_at_any_time_are_all_served() {
    let home = Home::new().await;
    let mut writers = Vec::new();
    for n in 0..4 {
        let run = format!("run_{n}");
        send(&home.store, "ann", &run, None).await;
        let (store, lease) = (home.store.clone(), claim(&home.store).await);
        writers.push(tokio::spawn(async move {
            for after in 0..150 {
                // What the first append reserves lets the later ones take the short way.
                let records = vec![step(after + 1, "msg_none")];
                let batch = Batch { after, records, reserve: 1_000, ..Batch::default() };
                store.append(&lease, &batch).await.unwrap();
            }
            store.load(&lease.log, None).await.unwrap().records.len()
        }));
    }
    for writer in writers {
        assert_eq!(writer.await.unwrap(), 150);
    }
}

/// Gives way to others that many times.
async fn yields(times: u32) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}
