//! What a run has done so far, a part at a time: its events without deltas, as its records tell them.
//!
//! Invariants:
//! - Pages that follow each other by `next` give every event once, in order.
//! - A page costs what it holds, however long the run is.

use std::io;

use exile_engine::id::RunId;
use exile_engine::run::event::Event;
use exile_engine::run::record::Number;
use futures_util::TryStreamExt as _;

use crate::http::app::App;
use crate::http::problem::Problem;
use crate::http::sse;

/// A part of a run's events.
pub struct Page {
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
pub async fn page(app: &App, run: RunId, after: Number, limit: usize) -> Result<Page, Problem> {
    let mut page = Page { events: Vec::new(), next: None };
    let mut left = app.settings.limits.page;
    let mut history = app.engine.history(run.clone(), after);
    while let Some(event) = history.try_next().await? {
        let event = sse::with_output(&app.engine, &run, event).await?;
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
