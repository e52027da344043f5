//! A log's records, read a page at a time.

use std::sync::Arc;

use crate::id::LogId;
use crate::journal::{History, Journal, JournalError};
use crate::run::record::Number;

/// Records read at first: who looks at the end of a run, or at a short part of it, needs few.
const FIRST: usize = 32;
/// Records read at once, at most.
const MOST: usize = 512;

/// Reads a log's own records in order, a page at a time, each page twice as long as the one before.
#[derive(Debug)]
pub(crate) struct Pages {
    log: LogId,
    next: Option<Number>,
    length: usize,
    /// Why the records end before the log's head, if one of them cannot be read.
    broken: Option<String>,
}

impl Pages {
    /// From the record on that `from` is a number of.
    pub(crate) fn new(log: LogId, from: Number) -> Self {
        Self { log, next: Some(from), length: FIRST, broken: None }
    }

    /// Where the next page begins; `None` at the head.
    pub(crate) fn position(&self) -> Option<Number> {
        self.next
    }

    /// Why the records end where they do, if the next one cannot be read.
    pub(crate) fn broken(&self) -> Option<JournalError> {
        self.broken.clone().map(JournalError::Corrupt)
    }

    /// Leaves out what stands before a number; `None`: everything.
    pub(crate) fn skip_to(&mut self, number: Option<Number>) {
        self.next = self.next.zip(number).map(|(here, there)| here.max(there));
    }

    /// The next page; `None` at the head, or where a record cannot be read
    /// ([`broken`](Self::broken)).
    pub(crate) async fn next(
        &mut self,
        journal: &Arc<dyn Journal>,
    ) -> Result<Option<History>, JournalError> {
        let Some(from) = self.next else { return Ok(None) };
        let page = loop {
            match journal.read(&self.log, from, self.length).await {
                // One of them cannot be read: those before it are read one after the other.
                Err(JournalError::Corrupt(_)) if self.length > 1 => self.length = 1,
                Err(JournalError::Corrupt(why)) => {
                    (self.next, self.broken) = (None, Some(why));
                    return Ok(None);
                }
                page => break page?,
            }
        };
        self.length = MOST.min(2 * self.length);
        self.next = page.next;
        Ok(Some(page))
    }
}
