//! What a run has done so far, a part at a time: its events without deltas, as its records tell them.
//!
//! Invariants:
//! - Pages that follow each other by `next` give every event key, in order.
//! - A page costs what it holds, however long the run is.

use std::io;
use std::sync::Arc;

use exile_engine::id::RunId;
use exile_engine::journal::JournalError;
use exile_engine::run::engine::Engine;
use exile_engine::run::event::Event;
use exile_engine::run::record::Number;
use futures_util::TryStreamExt as _;

use super::{Runs, RunsError};

/// A part of a run's events.
pub struct EventPage {
    /// In order.
    pub events: Vec<Event>,
    /// The number after which the next page begins; `None`: nothing has happened after it yet.
    pub next: Option<Number>,
}

/// The run's events above `after`: at most `limit`, and no more bytes than a page may have, but one
/// event whatever its size.
///
/// # Errors
/// The records cannot be read, or were removed.
pub async fn page(
    runs: Runs<'_>,
    run: RunId,
    after: Number,
    limit: usize,
) -> Result<EventPage, RunsError> {
    let mut page = EventPage { events: Vec::new(), next: None };
    let mut left = runs.page_bytes;
    let mut history = runs.engine.history(run.clone(), after);
    while let Some(event) = history.try_next().await? {
        let event = with_output(runs.engine, &run, event).await?;
        let size = size(&event);
        if page.events.len() == limit || (size > left && !page.events.is_empty()) {
            page.next = page.events.last().map(|last| last.number);
            break;
        }
        left = left.saturating_sub(size);
        page.events.push(event);
    }
    Ok(page)
}

/// The event, and what its run gave, if it tells that the run ended well. The record of an end names
/// the channels alone, so that no value is stored twice; they are read where they stand.
pub async fn with_output(
    engine: &Engine,
    run: &RunId,
    mut event: Event,
) -> Result<Event, JournalError> {
    if event.name != "run.finished" {
        return Ok(event);
    }
    match engine.told(run, event.number).await {
        Ok(Some(told)) => Arc::make_mut(&mut event.data)["output"] = told.into(),
        // Its records were removed between two looks.
        Ok(None) | Err(JournalError::Purged(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(event)
}

/// About how many bytes of a page an event takes.
fn size(event: &Event) -> usize {
    /// Of its number, its time and its name.
    const AROUND: usize = 100;
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(AROUND);
    // What cannot be written has no size; it will not be shown either.
    let _ = serde_json::to_writer(&mut count, &*event.data);
    count.0
}
