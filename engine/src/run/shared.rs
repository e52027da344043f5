//! What the engine's front and its drivers hold together: the traits, compiled bundles, and
//! whether the store takes writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::bundle::{Bundle, Catalog, Program};
use crate::id::{InputId, RunId};
use crate::journal::{BlobId, Journal, JournalError};
use crate::limits::Limits;
use crate::message::Message;
use crate::run::cache::Cache;
use crate::run::context::Services;
use crate::run::end;
use crate::run::kept::KeptLogs;
use crate::run::leases::Leases;
use crate::run::live::Live;
use crate::run::record::RunError;
use crate::run::trials::Trials;
use crate::run::waiters::Waiters;
use crate::state::MessageMap;

/// How long a claim holds without being renewed, where the engine is told nothing else.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How long a bundle that this process has put is taken for a young one: far less than the day for
/// which a journal keeps what nothing names.
const PUT_AGAIN: SignedDuration = SignedDuration::from_hours(1);
/// Compiled bundles kept.
const PROGRAMS_MAX: usize = 256;

/// What the engine and its drivers hold together.
pub(crate) struct Shared {
    pub journal: Arc<dyn Journal>,
    pub live: Arc<dyn Live>,
    pub services: Arc<Services>,
    catalog: Catalog,
    programs: Mutex<HashMap<BlobId, Arc<Program>>>,
    /// When bundles were last put by this process.
    puts: Mutex<HashMap<BlobId, Timestamp>>,
    fault: watch::Sender<Option<String>>,
    /// Who waits for a run to end or to wait.
    pub stops: Waiters<RunId>,
    /// Who waits for what becomes of an input.
    pub verdicts: Waiters<InputId>,
    /// How long a claim holds without being renewed.
    pub lease: Duration,
    /// Runs that may be what ends their process.
    pub trials: Arc<Trials>,
    /// The leases of all logs that are driven here.
    pub leases: Leases,
    /// Results that nodes with `cache` may take again.
    pub cache: Cache,
    /// Logs that were driven here lately.
    pub kept: KeptLogs,
}

impl Shared {
    /// With a receiver of what [`fault`](Self::fault) notes.
    pub(crate) fn new(
        journal: Arc<dyn Journal>,
        live: Arc<dyn Live>,
        services: Arc<Services>,
        catalog: Catalog,
        lease: Duration,
    ) -> (Arc<Self>, watch::Receiver<Option<String>>) {
        let (fault, faults) = watch::channel(None);
        let cache = Cache::new(catalog.limits.cache);
        let kept = KeptLogs::new(catalog.limits.histories);
        let shared = Self {
            journal,
            live,
            services,
            catalog,
            programs: Mutex::default(),
            puts: Mutex::default(),
            fault,
            stops: Waiters::default(),
            verdicts: Waiters::default(),
            lease,
            trials: Trials::new(),
            leases: Leases::default(),
            cache,
            kept,
        };
        (Arc::new(shared), faults)
    }

    /// How much is admitted.
    pub(crate) fn limits(&self) -> &Limits {
        &self.catalog.limits
    }

    /// Stores a bundle that a run is about to name. That it is compiled here says nothing about the
    /// store, which removes what nothing names a day after it was put; who put it lately need not
    /// do so again.
    pub(crate) async fn put_bundle(&self, id: &BlobId, bytes: &[u8]) -> Result<(), JournalError> {
        let now = self.services.env.now();
        // A clock that was set, in either direction, makes it an old one.
        let lately = |put: &Timestamp| now.duration_since(*put).abs() < PUT_AGAIN;
        if self.puts().get(id).is_some_and(lately) {
            return Ok(());
        }
        self.journal.put_blob(bytes).await?;
        let mut puts = self.puts();
        if puts.len() >= PROGRAMS_MAX {
            puts.clear();
        }
        puts.insert(id.clone(), now);
        Ok(())
    }

    fn puts(&self) -> std::sync::MutexGuard<'_, HashMap<BlobId, Timestamp>> {
        self.puts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The compiled bundle at that address; the inner error says why it cannot be used.
    pub(crate) async fn program(
        &self,
        id: &BlobId,
    ) -> Result<Result<Arc<Program>, RunError>, JournalError> {
        if let Some(program) = self.cached().get(id) {
            return Ok(Ok(program.clone()));
        }
        let Some(bytes) = self.journal.get_blob(id).await? else {
            return Ok(Err(end::unusable(&id.0, "it is not in the store")));
        };
        let compiled = Bundle::from_bytes(&bytes).map_err(|e| e.to_string()).and_then(|bundle| {
            bundle.compile(&self.catalog).map_err(|findings| {
                let first = findings.iter().map(|f| f.message.as_str()).next();
                first.unwrap_or("it does not load").to_owned()
            })
        });
        match compiled {
            Ok(program) => {
                let program = Arc::new(program);
                self.keep(program.clone());
                Ok(Ok(program))
            }
            Err(why) => Ok(Err(end::unusable(&id.0, &why))),
        }
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, HashMap<BlobId, Arc<Program>>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep(&self, program: Arc<Program>) {
        let mut programs = self.cached();
        if programs.len() >= PROGRAMS_MAX && !programs.contains_key(&program.id) {
            programs.clear();
        }
        programs.insert(program.id.clone(), program);
    }

    /// Notes whether the store takes writes.
    pub(crate) fn fault(&self, error: Option<&JournalError>) {
        let text = error.map(ToString::to_string);
        self.fault.send_if_modified(|now| {
            let changed = *now != text;
            *now = text;
            changed
        });
    }
}

/// Messages by id.
pub(crate) fn message_map(messages: Vec<Arc<Message>>) -> MessageMap {
    messages.into_iter().map(|m| (m.id.clone(), m)).collect()
}
