//! One file, its upstream, and the lives of workers over it, each ended by `kill -9`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use exile_engine::env::SystemEnv;
use exile_engine::id::LogId;
use exile_engine::journal::{History, Journal as _};
use exile_server::store::Store;
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;

use super::check::{self, Expected, Findings, Stored};
use super::counter::Counter;
use super::graphs;
use super::log::by_run;
use super::plan::{Plan, Seeded};
use super::process::{Heard, Process};
use super::protocol::{Order, Told};
use super::worker::Worker;

/// Logs that go on at once.
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
/// How long a process that says nothing is listened to before it is killed.
const PATIENCE: Duration = Duration::from_millis(500);
/// What is heard at most of a process that does not come to the point where it would die.
const ENOUGH: u64 = 300;
/// Like `PATIENCE`, when nothing is killed any more.
const TO_THE_END: Duration = Duration::from_mins(1);

/// How a life ends, counted by what is heard of it and not by the clock alone: a busy machine must
/// not keep runs from getting on.
enum Death {
    /// When every run has ended.
    None,
    /// By itself, at a named point; by the test, should it never come there.
    AtPoint(String, u32),
    /// After it has said so much, and then at a moment.
    AtMoment { heard: u64, then: Duration },
}

/// One file, its upstream, and the logs in it.
pub(super) struct Scenario {
    folder: TempDir,
    counter: Counter,
    pub(super) plan: Plan,
    /// How lives end: the tenth one of a seed always ends alike.
    deaths: Seeded,
}

impl Scenario {
    pub(super) fn new(seed: u64) -> Self {
        let folder = TempDir::new().unwrap();
        graphs::write(&folder.path().join("graphs"));
        let counter = Counter::start(folder.path().join("calls"));
        Self { folder, counter, plan: Plan::new(seed), deaths: Seeded(seed) }
    }

    /// One process over the file, from its start to its death, or to the end of all runs. Whether
    /// it died at a named point.
    pub(super) fn life(&mut self, dies: bool) -> bool {
        self.plan.begin_life();
        let death = if dies { self.death() } else { Death::None };
        let dies_at = match &death {
            Death::AtPoint(point, times) => Some((point.clone(), *times)),
            Death::None | Death::AtMoment { .. } => None,
        };
        let mut worker = Worker {
            folder: self.folder.path().to_owned(),
            upstream: self.counter.url.clone(),
            life: self.plan.life,
            lease_ms: None,
            dies_at,
        }
        .start();
        worker.order(&Order::Read(self.plan.unknown()));
        worker.order(&Order::Serve);
        let by_itself = self.drive(&mut worker, &death);
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

    /// Three deaths of four are at a named point.
    fn death(&mut self) -> Death {
        if cfg!(feature = "failpoints") && self.deaths.below(4) > 0 {
            let index = usize::try_from(self.deaths.below(POINTS.len() as u64)).unwrap();
            let (point, most) = POINTS[index];
            let times = u32::try_from(1 + self.deaths.below(most)).unwrap();
            return Death::AtPoint(point.to_owned(), times);
        }
        let then = Duration::from_micros(self.deaths.below(15_000));
        Death::AtMoment { heard: self.deaths.below(40), then }
    }

    /// Gives orders and listens until its time has come. Whether the process died by itself.
    fn drive(&mut self, worker: &mut Process, death: &Death) -> bool {
        let dies = !matches!(death, Death::None);
        let (mut serves, mut heard) = (false, 0);
        loop {
            if !dies && self.plan.all_ended() {
                return false;
            }
            let concerned: Vec<LogId> =
                match worker.hear(if dies && serves { PATIENCE } else { TO_THE_END }) {
                    Heard::Gone => return true,
                    Heard::Silence => return false,
                    Heard::Told(Told::HasRead) => {
                        serves = true;
                        self.plan.logs.keys().cloned().collect()
                    }
                    Heard::Told(told) => self.plan.take(told).into_iter().collect(),
                };
            let mut wanted = Vec::new();
            if dies {
                for log in &concerned {
                    self.plan.grow(log);
                }
                wanted = self.plan.want_some(AT_ONCE);
            }
            for log in concerned.iter().chain(&wanted) {
                for order in self.plan.orders(log) {
                    worker.order(&order);
                }
            }
            heard += u64::from(serves);
            if matches!(death, Death::AtPoint(..)) && heard > ENOUGH {
                return false;
            }
            if let Death::AtMoment { heard: enough, then } = death
                && heard > *enough
            {
                // The moment itself is what is tried.
                std::thread::sleep(*then);
                return false;
            }
        }
    }

    pub(super) fn check(&self, expected: &Expected) -> Findings {
        let stored = self.stored();
        let mut found = check::check(&self.plan, &stored, &self.counter.calls(), expected);
        assert!(self.counter.answered() > 0);
        let integrity: String = in_runtime(async {
            let mut file = self.open().await;
            sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut file).await.unwrap()
        });
        if integrity != "ok" {
            found.complaints.push(format!("the file: {integrity}"));
        }
        found
    }

    /// What the file holds.
    pub(super) fn stored(&self) -> Stored {
        in_runtime(async {
            let file = self.folder.path().join("exile.db");
            let store = Store::open(&file, Arc::new(SystemEnv::new())).await.unwrap();
            let (mut logs, mut runs) = (BTreeMap::new(), BTreeMap::new());
            for log in self.plan.logs.keys() {
                let own: History = store.read(log, 0, usize::MAX).await.unwrap();
                for (run, numbers) in by_run(own.records.iter().map(|r| (&r.record.fact, r.number)))
                {
                    let history = store.load(log, numbers.last().copied()).await.unwrap();
                    runs.insert(run, history);
                }
                logs.insert(log.clone(), own);
            }
            store.close().await.unwrap();
            let rows: Vec<(String, String)> = sqlx::query_as("SELECT id, status FROM exile_run")
                .fetch_all(&mut self.open().await)
                .await
                .unwrap();
            Stored { logs, runs, rows: rows.into_iter().collect() }
        })
    }

    async fn open(&self) -> SqliteConnection {
        let file = format!("sqlite://{}", self.folder.path().join("exile.db").display());
        SqliteConnection::connect(&file).await.unwrap()
    }
}

fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
