//! One file, its upstream, and the lives of workers over it, each ended by `kill -9`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use exile_engine::env::{Env as _, SystemEnv};
use exile_engine::id::{LogId, RunId};
use exile_engine::journal::{History, Journal as _};
use exile_server::store::Store;
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;

use super::check::{self, Expected, Findings};
use super::counter::Counter;
use super::graphs;
use super::plan::Plan;
use super::process::{Heard, Process};
use super::words::{Order, Told};
use super::worker::Worker;

/// Runs that go on at once.
const AT_ONCE: usize = 6;
/// Where the store lets itself be killed, and at which time of passing there, at most.
const POINTS: &[(&str, u64)] = &[
    ("append.begin", 10),
    ("append.head", 10),
    ("append.records", 10),
    ("append.commit.before", 10),
    ("append.commit.after", 10),
    ("append.acknowledged", 10),
    ("send.before", 3),
    ("send.after", 3),
    ("claim.after", 4),
    ("put_blob.after", 1),
];
/// How long a named point is waited for.
const PATIENCE: Duration = Duration::from_millis(400);
/// Until when every run must have come to its end, once nothing is killed any more.
const TO_THE_END: Duration = Duration::from_secs(60);

/// One file, its upstream, and the runs over it.
pub(super) struct Field {
    folder: TempDir,
    counter: Counter,
    pub(super) plan: Plan,
    clock: SystemEnv,
}

impl Field {
    pub(super) fn new(seed: u64) -> Self {
        let folder = TempDir::new().unwrap();
        graphs::write(&folder.path().join("graphs"));
        let counter = Counter::start(folder.path().join("calls"));
        Self { folder, counter, plan: Plan::new(seed), clock: SystemEnv::new() }
    }

    /// One process over the file, from its start to its death, or to the end of all runs. Whether
    /// it died at a named point.
    pub(super) fn life(&mut self, dies: bool) -> bool {
        self.plan.life += 1;
        let point = (dies && cfg!(feature = "failpoints") && self.plan.below(4) > 0).then(|| {
            let index = usize::try_from(self.plan.below(POINTS.len() as u64)).unwrap();
            let (point, most) = POINTS[index];
            (point.to_owned(), u32::try_from(1 + self.plan.below(most)).unwrap())
        });
        let patience = match (dies, &point) {
            (false, _) => TO_THE_END,
            (true, Some(_)) => PATIENCE,
            (true, None) => Duration::from_millis(self.plan.below(150)),
        };
        let mut worker = Worker {
            folder: self.folder.path().to_owned(),
            upstream: self.counter.url.clone(),
            life: self.plan.life,
            lease_ms: None,
            dies_at: point.clone(),
        }
        .start();
        worker.order(&Order::Read(self.plan.unknown()));
        worker.order(&Order::Serve);
        let by_itself = self.drive(&mut worker, patience, dies);
        if !dies {
            assert!(self.plan.all_ended(), "runs go on: {}", self.plan.open());
            worker.end();
            return false;
        }
        worker.kill();
        // What it acknowledged before it died counts.
        while let Heard::Told(told) = worker.hear(PATIENCE) {
            self.plan.take(told);
        }
        by_itself
    }

    /// Gives orders and listens, for that long at most. Whether the process died by itself.
    fn drive(&mut self, worker: &mut Process, patience: Duration, more: bool) -> bool {
        let mut until = self.clock.monotonic() + TO_THE_END;
        loop {
            let left = until.saturating_sub(self.clock.monotonic());
            if left.is_zero() || (!more && self.plan.all_ended()) {
                return false;
            }
            let concerned = match worker.hear(left) {
                Heard::Gone => return true,
                Heard::Silence => return false,
                Heard::Told(Told::HasRead) => {
                    until = self.clock.monotonic() + patience;
                    self.plan.runs.keys().cloned().collect()
                }
                Heard::Told(told) => self.plan.take(told).into_iter().collect(),
            };
            let wanted = if more { self.plan.want_some(AT_ONCE) } else { Vec::new() };
            let concerned: Vec<RunId> = concerned;
            for run in concerned.iter().chain(&wanted) {
                for order in self.plan.orders(run) {
                    worker.order(&order);
                }
            }
        }
    }

    pub(super) fn check(&self, expected: &Expected) -> Findings {
        let histories = self.histories();
        let mut found = check::check(&self.plan, &histories, &self.counter.calls(), expected);
        assert!(self.counter.answered() > 0);
        let (integrity, open) = in_runtime(async {
            let file = format!("sqlite://{}", self.folder.path().join("exile.db").display());
            let mut file = SqliteConnection::connect(&file).await.unwrap();
            let integrity: String =
                sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut file).await.unwrap();
            let open: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM exile_run WHERE status NOT IN ('finished', 'failed')",
            )
            .fetch_one(&mut file)
            .await
            .unwrap();
            (integrity, open)
        });
        if integrity != "ok" {
            found.complaints.push(format!("the file: {integrity}"));
        }
        if open > 0 {
            found.complaints.push(format!("{open} run rows say that their run goes on"));
        }
        found
    }

    /// What the file holds of every run.
    pub(super) fn histories(&self) -> BTreeMap<RunId, History> {
        in_runtime(async {
            let file = self.folder.path().join("exile.db");
            let store = Store::open(&file, Arc::new(SystemEnv::new())).await.unwrap();
            let mut histories = BTreeMap::new();
            for run in self.plan.runs.keys() {
                let history = store.read(&LogId::from(run), 0, usize::MAX).await.unwrap();
                histories.insert(run.clone(), history);
            }
            store.close().await.unwrap();
            histories
        })
    }
}

fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
