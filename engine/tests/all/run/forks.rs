//! Forks from where a task failed: it begins again, and what of it had succeeded is kept.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use exile_engine::id::{InputId, LogId, RunId, UserId};
use exile_engine::journal::{ForkRun, Input};
use exile_engine::node::NodeError;
use exile_engine::run::checkpoint::{CheckpointKind, kind};
use exile_engine::run::record::EndStatus;
use exile_engine::state::{ChannelValue, Reducer, State};
use serde_json::{Map, json};

use crate::hand::{Bench, Does, Each, Hand, Inner, leaf};

/// Works on eight items, of which the sixth fails until it is mended; notes what it worked on.
fn graph(mended: &Arc<AtomicBool>, worked: &Arc<Mutex<Vec<u64>>>, inside: bool) -> Hand {
    let (mended, worked) = (mended.clone(), worked.clone());
    let work = move |state: &State| {
        let item = state.get("item").and_then(ChannelValue::as_u64).unwrap();
        worked.lock().unwrap().push(item);
        if item == 5 && !mended.load(Ordering::SeqCst) {
            return Err(NodeError::Limit("not yet".into()));
        }
        Ok(std::iter::once(("result".into(), item.into())).collect())
    };
    let hand = || Hand::default().channel("log", Reducer::Append, json!([]));
    let each = Each::new(8, 2, leaf(Does(Box::new(work)))).work();
    let each = hand().node("each", each).edge("START", "each").edge("each", "END");
    if !inside {
        return each;
    }
    let inner = exile_engine::node::Work::Sub(Arc::new(Inner(Arc::new(each.graph()))));
    hand().node("inside", inner).edge("START", "inside").edge("inside", "END")
}

#[tokio::test]
async fn a_fork_from_a_failure_keeps_the_items_that_had_finished() {
    for inside in [false, true] {
        let (mended, worked) = (Arc::default(), Arc::default());
        let bench = Bench::new(graph(&mended, &worked, inside).graph()).await;
        let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
        bench.start(&log, &run, Map::new()).await;
        let ended = bench.ended(&run).await;
        assert_eq!(ended.status, EndStatus::Failed);
        let before = std::mem::take(&mut *worked.lock().unwrap());
        assert_eq!(before.len(), 8, "the others were worked on");

        let records = bench.journal.read(&log, 0, usize::MAX).await.unwrap().records;
        let failure = |r: &&exile_engine::run::record::Numbered| {
            kind(&r.record.fact) == Some(CheckpointKind::Failure)
        };
        let at = records.iter().rfind(failure).unwrap().number;
        mended.store(true, Ordering::SeqCst);
        let fork = ForkRun {
            run: RunId::from("run_2"),
            from: run,
            log,
            at,
            graph: "hand".into(),
            bundle: bench.bundle.clone(),
            owner: UserId::from("user_1"),
            conversation: None,
            edit: None,
            traceparent: None,
        };
        let (log, input) = (LogId::from("run_2"), InputId::from("fork"));
        bench.engine.send(&log, &input, &Input::Fork(Box::new(fork))).await.unwrap();
        let ended = bench.ended(&RunId::from("run_2")).await;
        assert_eq!((ended.status, ended.error), (EndStatus::Finished, None));
        let state = bench.engine.state(&log).await.unwrap();
        assert_eq!(state["log"], json!([0, 1, 2, 3, 4, 5, 6, 7]), "inside: {inside}");
        assert_eq!(*worked.lock().unwrap(), [5], "inside: {inside}");
    }
}
