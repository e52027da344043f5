//! The front of the engine: start, cancel, watch and read runs; drive them in the background.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use futures_util::stream::BoxStream;
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::bundle::{Catalog, Program};
use crate::id::{InputId, LogId, RunId, WorkerId};
use crate::journal::{BlobId, History, Input, Journal, JournalError, Lease, Sent, StartRun};
use crate::model::Retry;
use crate::run::context::Services;
use crate::run::driver::{self, Signals};
use crate::run::end;
use crate::run::event::Event;
use crate::run::fold::{LogState, Programs};
use crate::run::leases::HeldLease;
use crate::run::live::Live;
use crate::run::places::Places;
use crate::run::record::{Ended, Fact, Number, Waiting};
use crate::run::shared::{LEASE, Shared};
use crate::run::stream;
use crate::run::trials::Arrival;
use crate::run::verdicts::cancel_id;

/// How often logs that nobody announced are looked for.
pub(super) const POLL: Duration = Duration::from_secs(1);

/// How long the store may take no writes before those who wait for a run are told. Longer than it
/// takes to look for logs once more.
const GRACE: Duration = Duration::from_secs(3);

/// How a run came to rest.
#[derive(Clone, Debug, PartialEq)]
pub enum Stopped {
    /// It ended.
    Ended(Ended),
    /// It goes on only when somebody does something.
    Waiting(Waiting),
    /// It is queued behind this run, which waits for somebody.
    Behind(RunId),
}

/// Runs graphs over a journal.
pub struct Engine {
    pub(super) shared: Arc<Shared>,
    wake: Notify,
    active: Mutex<HashMap<LogId, Arc<Notify>>>,
    /// Whether this process drives runs.
    pub(super) drives: AtomicBool,
    fault: watch::Receiver<Option<String>>,
}

impl Engine {
    /// An engine that does nothing until [`serve`](Self::serve) runs.
    #[must_use]
    pub fn new(
        journal: Arc<dyn Journal>,
        live: Arc<dyn Live>,
        services: Arc<Services>,
        catalog: Catalog,
    ) -> Arc<Self> {
        Self::with_lease(journal, live, services, catalog, LEASE)
    }

    /// Like [`new`](Self::new), with another length of the leases: how long a log rests after the
    /// process that held it was lost.
    #[must_use]
    pub fn with_lease(
        journal: Arc<dyn Journal>,
        live: Arc<dyn Live>,
        services: Arc<Services>,
        catalog: Catalog,
        lease: Duration,
    ) -> Arc<Self> {
        let (shared, fault) = Shared::new(journal, live, services, catalog, lease);
        let (wake, active, drives) = (Notify::new(), Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { shared, wake, active, drives, fault })
    }

    /// Takes in a compiled bundle, so that its first run need not compile it again, and stores
    /// its bytes.
    pub async fn pin(&self, program: Arc<Program>, bytes: &[u8]) -> Result<BlobId, JournalError> {
        let id = program.id.clone();
        self.shared.put_bundle(&id, bytes).await?;
        self.shared.keep(program);
        Ok(id)
    }

    /// Stores the bytes of a bundle that is compiled when it is first run.
    pub async fn pin_bytes(&self, bytes: &[u8]) -> Result<BlobId, JournalError> {
        let id = BlobId::of(bytes);
        self.shared.put_bundle(&id, bytes).await?;
        Ok(id)
    }

    /// Queues a run on a log; idempotent by `id`.
    pub async fn start(
        &self,
        log: &LogId,
        id: &InputId,
        start: StartRun,
    ) -> Result<Sent, JournalError> {
        self.send(log, id, &Input::Start(Box::new(start))).await
    }

    /// Ends a run, whether it has begun or not; idempotent. A run that has ended stays as it is.
    pub async fn cancel(&self, log: &LogId, run: &RunId) -> Result<(), JournalError> {
        self.send(log, &cancel_id(run), &Input::Cancel { run: run.clone() }).await.map(|_| ())
    }

    /// Sends an input to a log; idempotent by `id`. What became of it when its time came:
    /// [`submit`](Self::submit).
    pub async fn send(
        &self,
        log: &LogId,
        id: &InputId,
        input: &Input,
    ) -> Result<Sent, JournalError> {
        let sent = self.shared.journal.send(log, id, input).await;
        match &sent {
            Ok(_) => self.shared.fault(None),
            Err(error) if error.retry() == Retry::Backoff => self.shared.fault(Some(error)),
            Err(_) => {}
        }
        if let Some(inbox) = self.active().get(log) {
            inbox.notify_one();
        }
        self.wake.notify_one();
        sent
    }

    /// The run's events with a number above `after`: those that happened, then those that happen,
    /// until the run ends or waits (the last event is `run.finished`, `run.failed`,
    /// `run.cancelled` or `run.waiting`).
    /// Waits for a run that is still queued. Numbers rise strictly; none is missing or repeated.
    /// An unknown run has none.
    #[must_use]
    pub fn events(
        &self,
        run: RunId,
        after: Number,
    ) -> BoxStream<'static, Result<Event, JournalError>> {
        stream::events(self.shared.clone(), run, after)
    }

    /// The events that happened so far with a number above `after`, without deltas. An unknown run
    /// has none.
    #[must_use]
    pub fn history(
        &self,
        run: RunId,
        after: Number,
    ) -> BoxStream<'static, Result<Event, JournalError>> {
        stream::history(self.shared.clone(), run, after)
    }

    /// Waits until the run has ended or waits for somebody, or until one that it is queued behind
    /// does. While the store takes no writes
    /// nothing can end, so that is an error; the run goes on once there is room.
    pub async fn wait(&self, run: &RunId) -> Result<Stopped, JournalError> {
        let down = self.store_is_down();
        tokio::pin!(down);
        loop {
            // Listened to before the question: what happens in between is not missed.
            let stop = self.shared.stops.of(run);
            let stopped = stop.notified();
            tokio::pin!(stopped);
            stopped.as_mut().enable();
            if let Some(stopped) = self.stopped(run).await? {
                return Ok(stopped);
            }
            tokio::select! {
                // An end in another process is met by asking the journal.
                () = tokio::time::sleep(POLL) => {}
                () = &mut stopped => {}
                why = &mut down => return Err(JournalError::Full(why)),
            }
        }
    }

    /// Until the store has taken no writes for a while; gives why.
    pub(super) async fn store_is_down(&self) -> String {
        let mut fault = self.fault.clone();
        loop {
            // The engine, whose end this would be, outlives whoever waits.
            let Ok(down) = fault.wait_for(Option::is_some).await.map(|down| down.clone()) else {
                return std::future::pending().await;
            };
            let mends = fault.wait_for(Option::is_none);
            if tokio::time::timeout(GRACE, mends).await.is_err() {
                return down.unwrap_or_default();
            }
        }
    }

    /// How the run ended, or what it waits for; `None` while it goes on.
    pub async fn stopped(&self, run: &RunId) -> Result<Option<Stopped>, JournalError> {
        let unknown = || JournalError::Gone(format!("run {run}"));
        let place = self.shared.journal.find(run).await?.ok_or_else(unknown)?;
        if let Some(why) = place.unreadable {
            let (run, asked, open) = (run.clone(), Vec::new(), Vec::new());
            return Ok(Some(Stopped::Waiting(Waiting { run, asked, attention: Some(why), open })));
        }
        let Some(last) = place.last else { return Ok(place.behind.map(Stopped::Behind)) };
        let history = self.shared.journal.read(&place.log, last, 1).await?;
        Ok(history.records.first().and_then(|r| match &r.record.fact {
            Fact::Ended(ended) => Some(Stopped::Ended(Ended::clone(ended))),
            Fact::Waiting(waiting) => Some(Stopped::Waiting(Waiting::clone(waiting))),
            _ => None,
        }))
    }

    /// The values of the log's channels after the last record.
    pub async fn state(&self, log: &LogId) -> Result<Map<String, Value>, JournalError> {
        values(self.shared.journal.load(log, None).await?)
    }

    /// The values of the channels of a run's log as the run left them; as they stand now if it
    /// has not ended. An unknown run has none.
    pub async fn state_of(&self, run: &RunId) -> Result<Map<String, Value>, JournalError> {
        let Some(place) = self.shared.journal.find(run).await? else { return Ok(Map::new()) };
        values(self.shared.journal.load(&place.log, place.last).await?)
    }

    /// Claims logs and drives their runs until `shutdown`; then starts nothing more, lets runs in
    /// flight go on for `drain`, and gives the rest back.
    pub fn serve(
        self: Arc<Self>,
        shutdown: CancellationToken,
        drain: Duration,
    ) -> impl Future<Output = ()> + Send {
        // Known before the first request is answered.
        self.drives.store(true, Ordering::Relaxed);
        self.drive_all(shutdown, drain)
    }

    async fn drive_all(self: Arc<Self>, shutdown: CancellationToken, drain: Duration) {
        let worker = WorkerId::new(&*self.shared.services.env);
        let (hand_back, handed) = watch::channel(false);
        let heartbeat = AbortOnDropHandle::new(tokio::spawn(heartbeat(self.shared.clone())));
        let mut places = Places::new(self.shared.limits().runs);
        while !shutdown.is_cancelled() {
            self.claim_all(&worker, &handed, &mut places).await;
            self.shared.trials.swept();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(POLL) => {}
                true = places.left() => {}
            }
        }
        let finish = async { while places.left().await {} };
        if tokio::time::timeout(drain, finish).await.is_err() {
            // Every driver listens on the channel; one that has just ended need not.
            let _ = hand_back.send(true);
            let finish = async { while places.left().await {} };
            if tokio::time::timeout(Duration::from_secs(2), finish).await.is_err() {
                tracing::warn!("some runs could not be given back; they resume at the next start");
            }
        }
        drop(heartbeat);
    }

    async fn claim_all(
        self: &Arc<Self>,
        worker: &WorkerId,
        handed: &watch::Receiver<bool>,
        places: &mut Places,
    ) {
        while !places.is_full() {
            let asked_at = self.shared.services.env.monotonic();
            let lease = match self.claim(worker, places).await {
                Ok(Some(lease)) => lease,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "no log could be claimed; trying again");
                    self.shared.fault(Some(&error));
                    return;
                }
            };
            let held = Arc::new(HeldLease::new(lease, asked_at + self.shared.lease));
            let arrival = self.shared.trials.take_up(&held.lease.log);
            let owner = held.lease.owner.clone();
            places.take(owner, self.clone().drive(held, handed.clone(), arrival));
        }
    }

    async fn claim(
        &self,
        worker: &WorkerId,
        places: &Places,
    ) -> Result<Option<Lease>, JournalError> {
        let but = places.hold_enough();
        self.shared.journal.claim(worker, self.shared.lease, &but).await
    }

    async fn drive(
        self: Arc<Self>,
        held: Arc<HeldLease>,
        hand_back: watch::Receiver<bool>,
        arrival: Arrival,
    ) {
        let log = held.lease.log.clone();
        let inbox = Arc::new(Notify::new());
        self.shared.leases.keep(held.clone());
        self.active().insert(log.clone(), inbox.clone());
        let signals = Signals { inbox: inbox.clone(), hand_back };
        let driven = driver::drive(self.shared.clone(), held.clone(), signals, arrival).await;
        self.shared.leases.forget(&held);
        {
            let mut active = self.active();
            // Whoever claimed the log since is told of what is sent to it.
            if active.get(&log).is_some_and(|listens| Arc::ptr_eq(listens, &inbox)) {
                active.remove(&log);
            }
        }
        // What was sent while nobody listened is claimed at once.
        self.wake.notify_one();
        if let Err(error) = driven {
            self.give_up(&held.lease, error).await;
        }
    }

    /// Leaves a log that cannot be driven to whoever can: one that cannot be read to people.
    async fn give_up(&self, lease: &Lease, error: JournalError) {
        let log = &lease.log;
        tracing::error!(%log, %error, "the log is no longer driven here");
        let JournalError::Corrupt(why) = error else { return };
        let why = end::unreadable(log, &why);
        if let Err(error) = self.shared.journal.park(lease, &why).await {
            tracing::error!(%log, %error, "the log cannot be read, and that could not be noted");
        }
    }

    fn active(&self) -> std::sync::MutexGuard<'_, HashMap<LogId, Arc<Notify>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the store took no writes when it was last asked, if it did not: for `/readyz`.
    #[must_use]
    pub fn store_fault(&self) -> Option<String> {
        self.fault.borrow().clone()
    }
}

/// Keeps the leases of all logs that are driven here alive.
async fn heartbeat(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(shared.lease / 3).await;
        let (journal, env) = (&*shared.journal, &*shared.services.env);
        shared.leases.renew_all(journal, env, shared.lease).await;
    }
}

/// The values of the channels after a history.
fn values(history: History) -> Result<Map<String, Value>, JournalError> {
    LogState::replay(&history.records, history.messages, &Programs::default())
        .map(|state| state.values())
        .map_err(|illegal| JournalError::Corrupt(illegal.to_string()))
}
