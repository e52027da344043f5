//! Whether the server can do its work, looked at no more often than once a second whoever asks.
//!
//! Invariants:
//! - At most one look at the database goes on, and at most one a second begins: those who ask do
//!   not add up.
//! - Whoever asks is answered within `limits.ready_wait`, twice that if somebody asked just before,
//!   whatever the database does.
//! - What strangers are told ([`ReadinessFault::told`]) names neither files nor variables.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::http::app::{App, Environment};
use crate::store::StoreError;

/// How long what was found holds.
const FRESH: Duration = Duration::from_secs(1);

/// What keeps a server from its work.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReadinessFault {
    /// The database, and how it fails.
    Database(String),
    /// A provider that an alias stands for, and why it cannot be called.
    Provider(String),
}

impl ReadinessFault {
    /// What anybody may know of it.
    #[must_use]
    pub fn told(&self) -> &'static str {
        match self {
            Self::Database(_) => "the database cannot be used",
            Self::Provider(_) => "a provider of models is not set up",
        }
    }
}

impl fmt::Display for ReadinessFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(why) | Self::Provider(why) => f.write_str(why),
        }
    }
}

/// What was found last.
#[derive(Debug, Default)]
pub struct Readiness {
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// When, on the monotonic clock; `None`: never yet.
    at: Option<Duration>,
    faults: BTreeSet<ReadinessFault>,
    /// A look at the database that has not ended.
    looking: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Readiness {
    /// What keeps the server from its work; nothing, if it is ready.
    pub async fn faults(&self, app: &App) -> BTreeSet<ReadinessFault> {
        let mut found = self.found.lock().await;
        let now = app.env.monotonic();
        if found.at.is_some_and(|at| now.saturating_sub(at) < FRESH) {
            return found.faults.clone();
        }
        let mut faults = BTreeSet::new();
        let database = found.look(app).await.or_else(|| app.engine.store_fault());
        faults.extend(database.map(ReadinessFault::Database));
        if app.settings.environment == Environment::Production {
            faults.extend(providers(app).map(ReadinessFault::Provider));
        }
        found.faults.clone_from(&faults);
        found.at = Some(app.env.monotonic());
        faults
    }
}

impl Found {
    /// Looks at the database, or goes on waiting for the look that has not ended.
    async fn look(&mut self, app: &App) -> Option<String> {
        let looking = self.looking.get_or_insert_with(|| {
            let store = app.store.clone();
            tokio::spawn(async move { store.ping().await })
        });
        let patience = app.settings.limits.transport.ready_wait;
        let Ok(looked) = tokio::time::timeout(patience, looking).await else {
            return Some(format!("the database did not answer within {patience:?}"));
        };
        self.looking = None;
        match looked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }
}

/// Why the providers that aliases stand for cannot be called, if they cannot.
fn providers(app: &App) -> impl Iterator<Item = String> {
    let models = &app.catalog.models;
    let aliases = models.aliases().values();
    let named = aliases.flat_map(|a| std::iter::once(&a.model).chain(a.business.values()));
    named.filter_map(|model| match models.provider(&model.provider) {
        Some(provider) => provider.ready().err().map(|e| format!("{}: {}", e.provider, e.fault)),
        None => Some(format!("{}: no provider of this name is configured", model.provider)),
    })
}
