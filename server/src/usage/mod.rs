//! Who spends how much: quotas are reserved from before a call to a model and settled after it, and
//! every call leaves a row.
//!
//! | file | holds |
//! |---|---|
//! | `quota.rs` | quotas as written, and which of them somebody takes from |
//! | `counters.rs` | what is counted on, and the trait that replicas will share |
//! | `call_meter.rs` | one call, from its reservation to its row |
//! | `calendar.rs` | minutes, days and months of the configured zone |
//! | `clock.rs` | a time that never goes back |
//! | `money.rs` | currencies |
//!
//! Invariants:
//! - A counter that is new to this process begins with what the rows of its window come to. Sums of
//!   these are kept beside them (`store/spent.rs`), so that this costs the same after any number of
//!   calls.
//! - A call that goes on for longer than [`FLUSH`] has a row already, with its reserve: if the
//!   process is killed, that is what it counts as.

mod calendar;
mod call_meter;
mod clock;
mod counters;
mod money;
mod quota;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use exile_engine::env::Env;
use exile_engine::model::card::Catalogue;
use exile_engine::model::meter::{Bill, Exceeded, Meter, Payer};
use exile_engine::model::price::Micros;
use exile_engine::model::{ModelRef, ProviderFault, Usage};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::store::{OPEN, Spender, Store, StoreError, UsageRow};
use crate::telemetry::metrics::Metrics;
pub use calendar::Every;
use calendar::{Per, Window};
use clock::Clock;
use counters::{Counter, Counters, Left, Memory, Reservation, Reserved, Settled, Unreserved};
pub use money::{Currency, Money};
pub use quota::{Allowance, Kind, QuotaFile, Unit};
use quota::{Limit, Subject, limits};

/// Tokens that an answer of a budgeted call may have at least that does not say how many it wants.
const BUDGETED: u32 = 4096;

/// Such an answer may have one of so many parts of what a budget has left, if that is more.
const SHARE: u64 = 4;

/// The most tokens of such an answer of a model whose own limit nobody has written down: providers
/// refuse what is beyond that.
const UNKNOWN: u32 = 16_384;

/// How long a row waits at most until it is written, and a call until it has one.
const FLUSH: Duration = Duration::from_millis(40);

/// How far the clock may be behind the last call before that is worth a word, in milliseconds.
const CLOCK_OFF_MS: i64 = 1000;

/// Rows that wait to be written before no call is made any more: a server that cannot write down
/// what is spent spends nothing, and memory has an end.
const WAITING: usize = 65_536;

/// How long is waited after rows could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// Counts and writes down what an installation spends on models, and holds it to its quotas.
pub struct UsageMeter {
    store: Store,
    env: Arc<dyn Env>,
    clock: Clock,
    catalogue: Catalogue,
    metrics: Arc<Metrics>,
    money: Money,
    zone: TimeZone,
    /// Those of `exile.yaml`, which nobody else may change.
    file: QuotaFile,
    /// All that apply.
    quotas: RwLock<Arc<QuotaFile>>,
    /// Since when they have, in milliseconds: a window that began later has been counted from its
    /// beginning.
    since_ms: AtomicI64,
    counters: Arc<dyn Counters>,
    changing: tokio::sync::Mutex<()>,
    names: Mutex<HashMap<String, Arc<str>>>,
    /// Calls that go on, by the ids of their rows; `true`: the row is written.
    going: Mutex<HashMap<String, (UsageRow, bool)>>,
    wake: Notify,
}

/// What the meter goes by, as `exile.yaml` says.
pub struct Rules {
    /// Quotas of `exile.yaml`.
    pub quotas: QuotaFile,
    /// Currencies.
    pub money: Money,
    /// For days and months.
    pub zone: TimeZone,
    /// Prices.
    pub catalogue: Catalogue,
}

/// The lock guards whole values: nothing panics while it is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UsageMeter {
    /// Begins metering over the rows of `store`.
    ///
    /// # Errors
    /// The quotas that were set over the API cannot be read.
    pub async fn open(
        store: Store,
        env: Arc<dyn Env>,
        metrics: Arc<Metrics>,
        rules: Rules,
    ) -> Result<Arc<Self>, StoreError> {
        let Rules { quotas: file, money, zone, catalogue } = rules;
        let (latest_ms, now) = (store.latest_spent_ms().await?, env.now());
        if latest_ms > now.as_millisecond() + CLOCK_OFF_MS {
            let latest = Timestamp::from_millisecond(latest_ms).unwrap_or(Timestamp::MAX);
            tracing::warn!(
                %now, %latest,
                "the clock is behind the last call to a model; quotas count from that call on. If \
                 the clock is right now, it was wrong then"
            );
        }
        let meter = Self {
            store,
            clock: Clock::new(env.clone(), latest_ms),
            env,
            catalogue,
            metrics,
            money,
            zone,
            quotas: RwLock::new(Arc::new(file.clone())),
            file,
            since_ms: AtomicI64::new(i64::MAX),
            counters: Arc::new(Memory::default()),
            changing: tokio::sync::Mutex::default(),
            names: Mutex::default(),
            going: Mutex::default(),
            wake: Notify::new(),
        };
        meter.metrics.know_quotas(&Kind::ALL.map(Kind::as_str), &Unit::ALL.map(Unit::as_str));
        meter.read_quotas().await?;
        Ok(Arc::new(meter))
    }

    /// All quotas that apply.
    #[must_use]
    pub fn quotas(&self) -> Arc<QuotaFile> {
        self.quotas.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether `exile.yaml` has this one.
    #[must_use]
    pub fn is_in_file(&self, kind: Kind, name: &str) -> bool {
        self.file.of(kind).contains_key(name)
    }

    /// The time that calls are written down with and quotas count in. It never goes back.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The zone of days and months.
    #[must_use]
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Sets a quota; `None` takes it away. `false`: there was none. A caller that leaves does not
    /// stop it half-way, stored and not applied.
    pub async fn set_quota(
        self: &Arc<Self>,
        kind: Kind,
        name: &str,
        allowance: Option<&Allowance>,
    ) -> Result<bool, StoreError> {
        let body = allowance.map(serde_json::to_value).transpose();
        let body = body.map_err(|error| StoreError::unreadable("a quota", error))?;
        let (meter, name) = (self.clone(), name.to_owned());
        let setting = async move {
            let _one_at_a_time = meter.changing.lock().await;
            let known = match &body {
                Some(body) => {
                    meter.store.put_quota(kind.as_str(), &name, body).await?;
                    true
                }
                None => meter.store.delete_quota(kind.as_str(), &name).await?,
            };
            meter.read_quotas().await?;
            Ok(known)
        };
        let ended = |error: tokio::task::JoinError| StoreError::Unavailable(error.to_string());
        tokio::spawn(setting).await.map_err(ended)?
    }

    /// Reads all quotas. Counters begin anew, from rows: some may not have been counted on.
    async fn read_quotas(&self) -> Result<(), StoreError> {
        let mut all = self.file.clone();
        for (kind, name, body) in self.store.quotas().await? {
            let Some(kind) = Kind::ALL.into_iter().find(|known| known.as_str() == kind) else {
                return Err(StoreError::unreadable("kind of a quota", kind));
            };
            let allowance: Allowance = serde_json::from_value(body)
                .map_err(|error| StoreError::unreadable("a quota", error))?;
            all.of_mut(kind).entry(name).or_insert(allowance);
        }
        self.since_ms.store(self.now().as_millisecond(), Ordering::Release);
        *self.quotas.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
        self.counters.forget();
        Ok(())
    }

    /// Whether whoever pays has something left of everything that does not depend on the model.
    ///
    /// # Errors
    /// A quota is used up, or cannot be looked up.
    pub async fn check(&self, payer: &Payer) -> Result<(), Refused> {
        let mut limits = self.limits(payer, &mut None, None).await?;
        if self.catalogue.has_free(self.env.now()) {
            // A model that costs nothing may answer when the money is used up.
            limits.retain(|limit| limit.counter.unit != Unit::Money);
        }
        let now = self.now();
        let mut reservations: Vec<Reservation> =
            limits.iter().map(|limit| limit.reserve(0, now, &self.zone)).collect();
        self.reserve(&mut reservations, &limits).await?;
        Ok(())
    }

    /// The limits that a call takes from.
    async fn limits(
        &self,
        payer: &Payer,
        name: &mut Option<Arc<str>>,
        model: Option<&ModelRef>,
    ) -> Result<Vec<Limit>, Refused> {
        let quotas = self.quotas();
        if Kind::ALL.into_iter().all(|kind| quotas.of(kind).is_empty()) {
            return Ok(Vec::new());
        }
        let name = match name {
            Some(name) => name,
            none => none.insert(self.name(payer).await?),
        };
        let model = model.map(ToString::to_string);
        let subject = Subject {
            user: (payer.owner.as_str(), name),
            key: payer.key.as_deref(),
            business: payer.business.as_deref(),
            model: model.as_deref(),
        };
        Ok(limits(&quotas, &subject))
    }

    /// The name of a user, which never changes.
    async fn name(&self, payer: &Payer) -> Result<Arc<str>, StoreError> {
        let owner = payer.owner.as_str();
        let known = lock(&self.names).get(owner).cloned();
        if let Some(name) = known {
            return Ok(name);
        }
        let user = self.store.user(&payer.owner).await?;
        let name: Arc<str> = user.as_ref().map_or(owner, |user| &user.name).into();
        lock(&self.names).insert(owner.to_owned(), name.clone());
        Ok(name)
    }

    /// Takes all or nothing of what `limits` say, and gives what its settlement has to tell. What
    /// comes late is moved to the window that others take from.
    async fn reserve(
        &self,
        reservations: &mut [Reservation],
        limits: &[Limit],
    ) -> Result<u64, Refused> {
        if self.store.waiting_usage() > WAITING {
            let why = "what calls cost cannot be written down; is the disk full?".to_owned();
            return Err(Refused::Store(StoreError::Unavailable(why)));
        }
        loop {
            match self.counters.reserve(reservations).await? {
                Reserved::All { age } => return Ok(age),
                Reserved::Unknown(places) => self.begin_all(reservations, places).await?,
                Reserved::Behind(places) => {
                    for (place, window) in places {
                        reservations[place].window = window;
                    }
                }
                Reserved::Exhausted { place, reserved } => {
                    let reservation = &reservations[place];
                    let of = |limit: &&Limit| limit.counter == reservation.counter;
                    let Some(limit) = limits.iter().find(of) else { return Ok(0) };
                    self.metrics.refused(limit.counter.kind.as_str(), limit.counter.unit.as_str());
                    let now_ms = self.now().as_millisecond();
                    let exceeded = call_meter::exceeded(limit, reservation, reserved, now_ms);
                    return Err(Refused::Exceeded(Box::new(exceeded)));
                }
            }
        }
    }

    /// What is neither spent nor reserved of each.
    async fn left(&self, reservations: &[Reservation]) -> Result<Vec<u64>, Refused> {
        loop {
            match self.counters.left(reservations).await? {
                Left::All(left) => return Ok(left),
                Left::Unknown(places) => self.begin_all(reservations, places).await?,
            }
        }
    }

    async fn begin_all(
        &self,
        reservations: &[Reservation],
        places: Vec<usize>,
    ) -> Result<(), StoreError> {
        for reservation in places.into_iter().filter_map(|place| reservations.get(place)) {
            self.begin(&reservation.counter, reservation.window).await?;
        }
        Ok(())
    }

    /// Begins a counter with what the rows of its window come to.
    async fn begin(&self, counter: &Counter, window: Window) -> Result<(), StoreError> {
        while self.counters.begins(counter, window).await? {
            let spent = self.spent(counter, window).await?;
            if self.counters.begin(counter, window, spent).await? {
                break;
            }
        }
        Ok(())
    }

    async fn spent(&self, counter: &Counter, window: Window) -> Result<u64, StoreError> {
        if window.from_ms > self.since_ms.load(Ordering::Acquire) {
            // It has been counted on from its beginning; what goes on is counted when it ends.
            return Ok(0);
        }
        self.store.flush_usage().await?;
        let spender = match counter.kind {
            Kind::User => Spender::User(&counter.subject),
            Kind::Key => Spender::Key(&counter.subject),
            Kind::Business => Spender::Business(&counter.subject),
            Kind::Model => Spender::Models(&counter.subject),
        };
        let stretch = (counter.per.slot_ms(), window.from_ms, window.to_ms);
        // What was spent in another currency was counted in that.
        let spent = self.store.spent(spender, stretch, self.money.unit()).await?;
        Ok(match (counter.unit, counter.kind) {
            (Unit::Requests, Kind::Model) => spent.calls,
            (Unit::Requests, _) => spent.requests,
            (Unit::Tokens, _) => spent.tokens,
            (Unit::Money, _) => spent.cost,
        })
    }

    /// A model is being asked: what is reserved for it.
    fn opened(&self, line: &UsageRow, reserve: Usage, cost: Option<Micros>) {
        let mut row = line.clone();
        row.usage += reserve;
        row.cost = row.cost.or(Some(0)).zip(cost).map(|(spent, cost)| spent.saturating_add(cost));
        (row.estimated, row.last) = (true, true);
        OPEN.clone_into(&mut row.outcome);
        lock(&self.going).insert(row.id.clone(), (row, false));
        self.wake.notify_one();
    }

    /// Another model is asked in this one's place, which may yet be asked again: its line stays open
    /// until the call is over, and counts what was spent so far if that never comes.
    fn passed_over(&self, line: &UsageRow) {
        let row = UsageRow { last: false, outcome: OPEN.to_owned(), ..line.clone() };
        lock(&self.going).insert(row.id.clone(), (row, false));
    }

    /// A call is over, of which this is the line of one model, with what its attempts held.
    /// `requested`: counters that the call was counted on as one request, whichever its line.
    fn closed(&self, line: UsageRow, held: &[Settled], requested: &[Counter]) {
        let mut unreserved = self.unreserved(&line);
        unreserved.retain_mut(|unreserved| {
            // Attempts of before a quota took nothing from it, and those that came later did.
            let reserved = held.iter().filter(|held| held.counter == unreserved.counter);
            unreserved.spent =
                reserved.fold(unreserved.spent, |spent, held| spent.saturating_sub(held.spent));
            unreserved.spent > 0 && !requested.contains(&unreserved.counter)
        });
        let mut going = lock(&self.going);
        going.remove(&line.id);
        let mut line = Some(line);
        self.counters.close(held, &unreserved, &mut || {
            if let Some(line) = line.take() {
                self.store.note_usage(line);
            }
        });
        drop(going);
        self.wake.notify_one();
    }

    /// What a line comes to on every counter that it may be counted on, whether its attempts took
    /// something from that or not: somebody may have limited it while the call was on its way.
    fn unreserved(&self, line: &UsageRow) -> Vec<Unreserved> {
        let quotas = self.quotas();
        let model = format!("{}/{}", line.provider, line.model);
        let patterns = quotas.model.keys().filter(|pattern| quota::covers(pattern, &model));
        let subjects = [
            (Kind::User, Some(line.owner.as_str())),
            (Kind::Key, line.key.as_deref()),
            (Kind::Business, line.business.as_deref()),
        ];
        let subjects = subjects.into_iter().filter_map(|(kind, subject)| Some((kind, subject?)));
        let subjects = subjects.filter(|(kind, _)| !quotas.of(*kind).is_empty());
        let mut unreserved = Vec::new();
        for (kind, subject) in subjects.chain(patterns.map(|pattern| (Kind::Model, &**pattern))) {
            let subject: Arc<str> = subject.into();
            for unit in Unit::ALL {
                let spent = match (unit, kind) {
                    (Unit::Requests, Kind::Model) => 1,
                    (Unit::Requests, _) => line.last.into(),
                    (Unit::Tokens, _) => line.usage.input.saturating_add(line.usage.output),
                    (Unit::Money, _) => line.cost.unwrap_or(0),
                };
                for per in Per::ALL {
                    let counter = Counter { kind, subject: subject.clone(), unit, per };
                    if spent > 0 {
                        unreserved.push(Unreserved { counter, at_ms: line.at_ms, spent });
                    }
                }
            }
        }
        unreserved
    }

    /// Waits until no call goes on any more, for a moment.
    pub async fn settled(&self) {
        const MOMENT: Duration = Duration::from_secs(2);
        let ended = async {
            while !lock(&self.going).is_empty() {
                tokio::time::sleep(FLUSH).await;
            }
        };
        if tokio::time::timeout(MOMENT, ended).await.is_err() {
            tracing::warn!("calls of models still go on; they count as what is reserved for them");
        }
    }

    /// Writes every row that waits, and one for every call that goes on and has none.
    pub async fn flush(&self) -> Result<(), StoreError> {
        for (row, written) in lock(&self.going).values_mut() {
            if !std::mem::replace(written, true) {
                self.store.note_usage(row.clone());
            }
        }
        self.store.flush_usage().await
    }

    /// Writes rows as they come, until told to stop; then once more.
    pub async fn serve(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = self.wake.notified() => {}
                () = stop.cancelled() => break,
            }
            tokio::select! {
                () = tokio::time::sleep(FLUSH) => {}
                () = stop.cancelled() => break,
            }
            if let Err(error) = self.flush().await {
                tracing::warn!(%error, "usage could not be written; tries again");
                self.wake.notify_one();
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = stop.cancelled() => break,
                }
            }
        }
        if let Err(error) = self.flush().await {
            tracing::error!(%error, "the last usage could not be written");
        }
    }
}

/// The engine's [`Meter`] over a [`UsageMeter`] that the server shares.
pub struct SharedMeter(pub Arc<UsageMeter>);

impl Meter for SharedMeter {
    fn open(&self, payer: &Payer) -> Box<dyn Bill> {
        Box::new(call_meter::CallMeter::new(self.0.clone(), payer.clone()))
    }
}

/// Why a call may not be made.
#[derive(Debug)]
pub enum Refused {
    /// A quota is used up.
    Exceeded(Box<Exceeded>),
    /// The rows that tell cannot be read.
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Refused> for ProviderFault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Exceeded(exceeded) => Self::QuotaExceeded(exceeded),
            Refused::Store(error) => {
                // The store's fault, which passes: no provider was asked.
                Self::Unavailable { status: 503, detail: format!("nothing was sent: {error}") }
            }
        }
    }
}

#[cfg(test)]
mod tests;
