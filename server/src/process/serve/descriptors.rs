//! How many files and sockets the process may have open, and how many of them are connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the database, files and listeners need beside connections and calls.
const OWN: u64 = 64;

/// How many files and sockets the process may have open; `None`: any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// As it was started.
    pub before: Option<u64>,
    /// From now on.
    pub now: Option<u64>,
}

impl std::fmt::Display for Descriptors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.now {
            Some(now) => write!(f, "{now} files and sockets")?,
            None => write!(f, "any number of files and sockets")?,
        }
        match self.before {
            Some(before) if self.now != self.before => write!(f, " (raised from {before})"),
            _ => Ok(()),
        }
    }
}

/// Raises the limit of open files and sockets as far as the system lets the process do so itself.
pub(super) fn raise() -> Descriptors {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files stays as it is");
            limit.current
        }
    };
    Descriptors { before: limit.current, now }
}

/// How many connections leave one descriptor each for the model or tool that answers them, and the
/// server its own.
pub(super) fn connections(limit: Option<u64>, wanted: usize) -> usize {
    let Some(limit) = limit else { return wanted };
    let most = usize::try_from(limit.saturating_sub(OWN) / 2).unwrap_or(usize::MAX);
    wanted.min(most.max(1))
}

#[cfg(test)]
mod tests {
    use super::{Descriptors, connections};

    #[test]
    fn every_connection_leaves_a_descriptor_for_the_call_that_answers_it() {
        assert_eq!(connections(Some(1024), 10_000), 480);
        assert_eq!(connections(Some(1 << 20), 10_000), 10_000);
        assert_eq!(connections(None, 10_000), 10_000);
        assert_eq!(connections(Some(10), 10_000), 1);
    }

    #[test]
    fn what_was_raised_is_said() {
        let shown = |before, now| Descriptors { before, now }.to_string();
        assert_eq!(shown(Some(1024), Some(4096)), "4096 files and sockets (raised from 1024)");
        assert_eq!(shown(Some(4096), Some(4096)), "4096 files and sockets");
        assert_eq!(shown(Some(1024), None), "any number of files and sockets (raised from 1024)");
    }
}
