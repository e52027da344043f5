//! A worker that stands still past its lease while another one takes over its log: when it moves
//! again it commits nothing, and its deltas reach nobody.

use exile_engine::id::{LogId, RunId};
use exile_engine::journal::IfActive;
use exile_engine::run::record::{Durability, Fact};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::counter::Counter;
use super::graphs;
use super::process::Process;
use super::protocol::{Order, Told};
use super::worker::Worker;

/// Short, so that the test is.
const LEASE_MS: u64 = 1000;

/// Two workers over one file.
struct Pair {
    counter: Counter,
    first: Process,
    second: Process,
    run: RunId,
    _folder: TempDir,
}

impl Pair {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        graphs::write(&folder.path().join("graphs"));
        let counter = Counter::start(folder.path().join("calls"));
        let worker = |life| {
            let process = Worker {
                folder: folder.path().to_owned(),
                upstream: counter.url.clone(),
                life,
                lease_ms: Some(LEASE_MS),
                dies_at: None,
            }
            .start();
            // Opening the file voids the leases that are there: both open it before there are any.
            process.hear_until(|told| matches!(told, Told::Ready).then_some(()));
            process
        };
        let (first, second) = (worker(1), worker(2));
        Self { first, second, run: RunId::from("run_1"), counter, _folder: folder }
    }

    /// The first worker streams a model's answer to its reader, and stops in the middle.
    fn stop_in_the_middle(&mut self) {
        let input = [("name".to_owned(), json!("n1"))].into_iter().collect();
        let start = Order::Start {
            log: LogId::from(&self.run),
            run: self.run.clone(),
            graph: "zombie".into(),
            input,
            durability: Durability::Sync,
            if_active: IfActive::Enqueue,
        };
        self.first.order(&Order::Serve);
        self.first.order(&start);
        self.first.order(&Order::Watch(self.run.clone()));
        let mut text = String::new();
        self.first.hear_until(|told| {
            text += &delta(&told).unwrap_or_default();
            (text.split(' ').count() > graphs::SHOWN).then_some(())
        });
        self.first.signal(Signal::STOP);
    }

    /// The second worker takes the log over and brings the run to its end.
    fn take_over(&mut self) {
        self.second.order(&Order::Serve);
        self.second.hear_until(|told| match told {
            Told::Stored { records, .. } => {
                records.iter().any(|(_, r)| matches!(r.fact, Fact::Ended(_))).then_some(())
            }
            _ => None,
        });
    }

    /// Lets the first worker go on: the rest of its answer is there for it to read. Gives all
    /// that it says until it has learned that it is fenced and has answered once more.
    fn wake(&mut self) -> Vec<Told> {
        self.counter.release();
        self.first.signal(Signal::CONT);
        let mut said = Vec::new();
        self.first.hear_until(|told| {
            let fenced = matches!(told, Told::Fenced(_));
            said.push(told);
            fenced.then_some(())
        });
        self.first.order(&Order::Read(vec![(LogId::from(&self.run), 0)]));
        self.first.hear_until(|told| {
            let has_read = matches!(told, Told::HasRead);
            said.push(told);
            has_read.then_some(())
        });
        said
    }
}

/// The text, if a reader was given a delta.
fn delta(told: &Told) -> Option<String> {
    match told {
        Told::Seen { name, text, .. } if name.split('.').nth(1) == Some("delta") => text.clone(),
        _ => None,
    }
}

#[test]
fn a_zombie_commits_nothing_and_its_deltas_reach_nobody() {
    let mut pair = Pair::start();
    pair.stop_in_the_middle();
    pair.take_over();
    let said = pair.wake();

    let stored = said.iter().find(|told| matches!(told, Told::Stored { .. }));
    assert!(stored.is_none(), "the stopped worker stored {stored:?}");
    let stale = said.iter().filter_map(delta).find(|text| text.contains("stale"));
    assert_eq!(stale, None, "the stopped worker's reader was given what is void");
    let told = said.iter().find_map(|told| match told {
        Told::Holds { records, .. } => Some(records),
        _ => None,
    });
    let ends = told.unwrap().iter().filter(|(_, r)| matches!(r.fact, Fact::Ended(_))).count();
    assert_eq!(ends, 1, "{told:?}");

    let calls = pair.counter.calls();
    let lives = |effect: &str| -> Vec<u32> {
        calls.iter().filter(|call| call.effect == effect).map(|call| call.life).collect()
    };
    assert_eq!((lives("model"), lives("unsafe")), (vec![1, 2], vec![2]), "{calls:?}");
}
