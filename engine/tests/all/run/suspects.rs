//! A run that ends its process: it is found by trying suspects apart, and those beside it go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::env::StepEnv;
use exile_engine::id::{LogId, RunId};
use exile_engine::journal::{Journal, MemoryJournal};
use exile_engine::model::Models;
use exile_engine::node::{Node, NodeError, Outcome};
use exile_engine::run::context::Cx;
use exile_engine::run::engine::Stopped;
use exile_engine::run::record::EndStatus;
use exile_engine::state::{Reducer, State};
use serde_json::json;
use tokio::sync::{Notify, Semaphore};

use crate::hand::{Bench, Hand, journal_over, leaf};

/// A store whose process may be gone: it takes nothing more.
struct Dies {
    store: Arc<MemoryJournal>,
    dead: AtomicBool,
}

journal_over!(Dies, store, append: |this, lease, batch| {
    if this.dead.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    this.store.append(lease, batch).await
});

/// What a process is told by the nodes in it.
#[derive(Debug)]
struct Fate {
    /// It dies.
    death: Notify,
    /// Slow nodes end.
    end: Semaphore,
}

/// Ends its process if its state says so; else it takes as long as the test wants.
#[derive(Debug)]
struct Fateful(Arc<Fate>);

#[async_trait]
impl Node for Fateful {
    async fn run(&self, _: &Cx, state: &State) -> Result<Outcome, NodeError> {
        if state.get("kills").is_some_and(|kills| *kills == json!(true)) {
            self.0.death.notify_one();
            std::future::pending::<()>().await;
        }
        let Ok(_permit) = self.0.end.acquire().await else { std::future::pending().await };
        Ok(Outcome::write(&"n".into(), json!(1)))
    }
}

/// Lets processes die until none does; gives the last one.
async fn survives(culprits: &[usize], runs: usize) -> (Bench, Arc<Fate>, usize) {
    let fate = Arc::new(Fate { death: Notify::new(), end: Semaphore::new(0) });
    let env = Arc::new(StepEnv::new());
    let store = Arc::new(MemoryJournal::new(env.clone()));
    for deaths in 0.. {
        assert!(deaths < 40, "nobody is found");
        let dies = Arc::new(Dies { store: store.clone(), dead: AtomicBool::new(false) });
        let hand = Hand::default()
            .channel("n", Reducer::Sum, json!(0))
            .channel("kills", Reducer::Replace, json!(false))
            .node("work", leaf(Fateful(fate.clone())))
            .edge("START", "work");
        let journal: Arc<dyn Journal> = dies.clone();
        let bench = Bench::over(journal, env.clone(), hand.graph(), Models::default()).await;
        if deaths == 0 {
            for n in 0..runs {
                let input = [("kills".to_owned(), json!(culprits.contains(&n)))];
                let (log, run) = (LogId::from(format!("log_{n}")), RunId::from(format!("run_{n}")));
                bench.start(&log, &run, input.into_iter().collect()).await;
            }
        }
        // Longer than every trial together.
        let lives = tokio::time::timeout(Duration::from_mins(4), fate.death.notified()).await;
        if lives.is_err() {
            return (bench, fate, deaths);
        }
        dies.dead.store(true, Ordering::SeqCst);
        drop(bench);
        env.advance(Duration::from_mins(1));
    }
    unreachable!("the loop returns")
}

async fn only_those_are_left(culprits: &[usize], runs: usize, most: usize) {
    let (bench, fate, deaths) = survives(culprits, runs).await;
    assert!(deaths <= most, "{deaths} deaths to find {culprits:?} of {runs}");
    fate.end.add_permits(runs * 2);
    for n in 0..runs {
        let stopped = bench.engine.wait(&RunId::from(format!("run_{n}"))).await.unwrap();
        match stopped {
            Stopped::Waiting(waiting) if culprits.contains(&n) => {
                assert_eq!(waiting.attention.unwrap().code, "poison");
            }
            Stopped::Ended(ended) if !culprits.contains(&n) => {
                assert_eq!(ended.status, EndStatus::Finished);
            }
            other => panic!("run_{n} of {culprits:?}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_its_process_is_found_and_those_beside_it_go_on() {
    only_those_are_left(&[0], 1, 3).await;
    only_those_are_left(&[3], 9, 8).await;
    only_those_are_left(&[0], 2, 5).await;
    only_those_are_left(&[1], 2, 5).await;
    only_those_are_left(&[49], 50, 12).await;
}

#[tokio::test(start_paused = true)]
async fn several_that_end_their_process_are_found_one_by_one() {
    only_those_are_left(&[1, 4], 6, 16).await;
    only_those_are_left(&[0, 1, 2], 3, 16).await;
}

#[tokio::test(start_paused = true)]
async fn runs_that_were_there_when_a_process_was_ended_from_outside_go_on() {
    let fate = Arc::new(Fate { death: Notify::new(), end: Semaphore::new(0) });
    let env = Arc::new(StepEnv::new());
    let store = Arc::new(MemoryJournal::new(env.clone()));
    let hand = || {
        Hand::default()
            .channel("n", Reducer::Sum, json!(0))
            .channel("kills", Reducer::Replace, json!(false))
            .node("work", leaf(Fateful(fate.clone())))
            .edge("START", "work")
    };
    for process in 0..8 {
        let dies = Arc::new(Dies { store: store.clone(), dead: AtomicBool::new(false) });
        let journal: Arc<dyn Journal> = dies.clone();
        let bench = Bench::over(journal, env.clone(), hand().graph(), Models::default()).await;
        if process == 0 {
            for run in ["run_1", "run_2", "run_3"] {
                bench.start(&run.into(), &run.into(), serde_json::Map::new()).await;
            }
        }
        // It lives for longer than a trial takes, then somebody ends it.
        tokio::time::sleep(Duration::from_mins(4)).await;
        if process == 7 {
            fate.end.add_permits(10);
            for run in ["run_1", "run_2", "run_3"] {
                assert_eq!(bench.ended(&run.into()).await.status, EndStatus::Finished);
            }
        }
        dies.dead.store(true, Ordering::SeqCst);
        drop(bench);
        env.advance(Duration::from_mins(1));
    }
}
