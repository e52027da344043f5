//! Looks at files one by one, so that none of them can end or delay what looks at them.
//!
//! Invariants:
//! - A file that makes exile fail (a defect of exile) is a finding of that file.
//! - A start looks at each file no longer than it takes to check a large real one, and at all of
//!   them no longer than at a few of the largest; what takes more is looked at again once the server
//!   is ready.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::bundle::Source;
use crate::diagnostic::{Finding, Place, code};
use crate::document::Document;
use crate::limits::{Beyond, FileLimits};
use crate::yaml;

/// Bytes of all files that a start looks at, the smallest ones first.
const AT_START: usize = 1024 * 1024;

impl FileLimits {
    /// Limits for what is looked at before a server is ready: some milliseconds a file.
    #[must_use]
    pub fn at_start(self) -> Self {
        Self {
            size: self.size.min(128 * 1024),
            values: self.values.min(20_000),
            expanded: self.expanded.min(512 * 1024),
            checks: self.checks.min(2_000_000),
            beyond: Beyond::Postpone,
            ..self
        }
    }
}

/// What was made of a file; a defect of exile that it met is a finding instead.
pub(crate) fn guarded<T>(path: &str, work: impl FnOnce() -> T) -> Result<T, Vec<Finding>> {
    // What was half made is dropped here; nothing outlives it that could be half changed.
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        let message = "exile failed while it checked this file; the log says where";
        let fix = "this is a defect of exile: please report it, with the file";
        vec![Finding::error(code::UNREADABLE, path, Place::START, message, fix)]
    })
}

/// Reads files, in the given order.
pub(crate) fn read_all(
    sources: &[Source],
    limits: &FileLimits,
) -> Vec<Result<Document, Vec<Finding>>> {
    let postponed = postponed(sources, limits);
    let read = |(source, postponed): (&Source, bool)| {
        if postponed {
            return Err(vec![yaml::not_checked_yet(&source.path)]);
        }
        guarded(&source.path, || yaml::parse_within(&source.path, &source.text, limits)).flatten()
    };
    sources.iter().zip(postponed).map(read).collect()
}

/// Which files are too many to be looked at now.
fn postponed(sources: &[Source], limits: &FileLimits) -> Vec<bool> {
    let mut postponed = vec![false; sources.len()];
    if limits.beyond == Beyond::Refuse {
        return postponed;
    }
    let mut order: Vec<usize> = (0..sources.len()).collect();
    order.sort_by_key(|at| sources[*at].text.len());
    let mut bytes = 0;
    for at in order {
        bytes += sources[at].text.len();
        postponed[at] = bytes > AT_START;
    }
    postponed
}
