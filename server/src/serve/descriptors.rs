//! How many files and sockets the process may have open, and how many of them are connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the database, files and listeners need beside connections and calls.
const OWN: u64 = 64;

/// Raises the limit of open files and sockets as far as the system lets the process do so itself.
/// Returns the limit; `None`: there is none.
pub(super) fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files stays as it is");
            limit.current
        }
    }
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
    use super::connections;

    #[test]
    fn every_connection_leaves_a_descriptor_for_the_call_that_answers_it() {
        assert_eq!(connections(Some(1024), 10_000), 480);
        assert_eq!(connections(Some(1 << 20), 10_000), 10_000);
        assert_eq!(connections(None, 10_000), 10_000);
        assert_eq!(connections(Some(10), 10_000), 1);
    }
}
