//! Reading logs: what is needed to go on, and records as they were appended.
//!
//! Invariants:
//! - A history is read as of one moment, in one transaction.
//! - What needs records that were removed is refused ([`StoreError::Purged`]), not given in part.

use std::collections::HashMap;

use exile_engine::id::LogId;
use exile_engine::journal::History;
use exile_engine::journal::lineage::{self, Cut, Line, Span};
use exile_engine::json;
use exile_engine::run::record::{Number, Numbered, VERSION};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::{Store, StoreError, blobs, codec, messages};

/// Bytes of records, and of messages, that a page of a log holds, about.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// A log and those that it is a fork of, the nearest first.
pub(super) struct Lineage {
    log: LogId,
    reserved: Number,
    /// Numbers up to these were removed.
    purged: Vec<Number>,
    pub(super) keys: Vec<i64>,
    pub(super) lines: Vec<Line>,
}

impl Store {
    /// The whole history as of `at`.
    pub(super) async fn load_history(
        &self,
        log: &LogId,
        at: Option<Number>,
    ) -> Result<History, StoreError> {
        let mut read = self.readers().begin().await?;
        let Some(lineage) = Lineage::of(&mut read, log).await? else {
            return Ok(History::default());
        };
        let (records, whole) = lineage.records(&mut read, at.unwrap_or(Number::MAX)).await?;
        let messages = if whole && at.is_none() {
            messages::of_log(&mut read, lineage.keys[0]).await?
        } else {
            lineage.messages(&mut read, &records).await?
        };
        read.rollback().await?;
        Ok(History { reserved: lineage.reserved, records, messages, next: None })
    }

    /// A part of the log's own records.
    pub(super) async fn read_history(
        &self,
        log: &LogId,
        from: Number,
        limit: usize,
    ) -> Result<History, StoreError> {
        let mut read = self.readers().begin().await?;
        let Some(lineage) = Lineage::of(&mut read, log).await? else {
            return Ok(History::default());
        };
        if from <= lineage.purged[0] && lineage.purged[0] > 0 {
            return Err(StoreError::Purged(log.clone()));
        }
        let (mut records, mut next) = lineage.page(&mut read, from, limit).await?;
        let fit =
            messages::that_fit(&mut read, &lineage.keys, &named(&records), PAGE_BYTES).await?;
        // The first record stays, however large its messages are.
        let mut names = 0;
        let kept = records.iter().take_while(|record| {
            names += record.record.names_in_events().len();
            names <= fit
        });
        let kept = kept.count().max(1);
        if kept < records.len() {
            next = Some(records[kept].number);
            records.truncate(kept);
        }
        let messages = messages::named(&mut read, &lineage.keys, &named(&records)).await?;
        read.rollback().await?;
        Ok(History { reserved: lineage.reserved, records, messages, next })
    }
}

/// Ids of the messages that are needed to tell the events of records.
fn named(records: &[Numbered]) -> Vec<&str> {
    records.iter().flat_map(|record| record.record.names_in_events()).collect()
}

impl Lineage {
    pub(super) async fn of(
        connection: &mut SqliteConnection,
        log: &LogId,
    ) -> Result<Option<Self>, StoreError> {
        let rows = sqlx::query(
            "WITH RECURSIVE line (depth, key, reserved, purged, parent, parent_at) AS (
                 SELECT 0, key, reserved, purged, parent, parent_at FROM exile_log WHERE id = ?1
                 UNION ALL
                 SELECT depth + 1, l.key, l.reserved, l.purged, l.parent, l.parent_at
                 FROM line JOIN exile_log l ON l.key = line.parent
             )
             SELECT line.*, c.number, c.at FROM line LEFT JOIN exile_cut c ON c.log = line.key
             ORDER BY depth, c.number",
        )
        .bind(log.as_str())
        .fetch_all(connection)
        .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let reserved = codec::number(first, "reserved")?;
        let (purged, keys, lines) = (Vec::new(), Vec::new(), Vec::new());
        let mut lineage = Self { log: log.clone(), reserved, purged, keys, lines };
        for row in &rows {
            lineage.add(row)?;
        }
        Ok(Some(lineage))
    }

    fn add(&mut self, row: &SqliteRow) -> Result<(), StoreError> {
        let key = row.try_get("key")?;
        if self.keys.last() != Some(&key) {
            self.keys.push(key);
            self.purged.push(codec::number(row, "purged")?);
            let parent_at = codec::maybe_number(row, "parent_at")?;
            self.lines.push(Line { cuts: Vec::new(), parent_at });
        }
        let number = codec::maybe_number(row, "number")?;
        if let (Some(number), Some(line)) = (number, self.lines.last_mut()) {
            line.cuts.push(Cut { number, at: codec::number(row, "at")? });
        }
        Ok(())
    }

    /// The log's own numbers up to this one were removed.
    pub(super) fn purged_to(&self) -> Number {
        self.purged[0]
    }

    /// The history as of `at`, from its newest snapshot on.
    pub(super) async fn spans(
        &self,
        connection: &mut SqliteConnection,
        at: Number,
    ) -> Result<Vec<Span>, StoreError> {
        let all = lineage::spans(&self.lines, at);
        // Numbers rise along a history, so its newest snapshot is the one of the highest number.
        let snapshot: Option<i64> = sqlx::query_scalar(
            "SELECT max(r.number) FROM json_each(?1) s CROSS JOIN exile_record r
             WHERE r.snapshot = 1 AND r.log = s.value ->> 0
               AND r.number BETWEEN s.value ->> 1 AND s.value ->> 2",
        )
        .bind(self.bind(&all)?)
        .fetch_one(connection)
        .await?;
        let start = snapshot.and_then(|number| Number::try_from(number).ok()).unwrap_or(0);
        Ok(lineage::since(&all, start))
    }

    /// The records of the history as of `at`, and whether they are all that the log holds.
    pub(super) async fn records(
        &self,
        connection: &mut SqliteConnection,
        at: Number,
    ) -> Result<(Vec<Numbered>, bool), StoreError> {
        let spans = self.spans(connection, at).await?;
        let gone = |span: &Span| {
            let purged = self.purged[span.line];
            purged > 0 && span.from <= purged
        };
        if spans.iter().any(gone) {
            return Err(StoreError::Purged(self.log.clone()));
        }
        let rows = sqlx::query(
            "SELECT r.number, r.version, r.body FROM json_each(?1) s CROSS JOIN exile_record r
             WHERE r.log = s.value ->> 0 AND r.number BETWEEN s.value ->> 1 AND s.value ->> 2",
        )
        .bind(self.bind(&spans)?)
        .fetch_all(&mut *connection)
        .await?;
        let mut records = to_records(connection, &rows).await?;
        records.sort_by_key(|record| record.number);
        let whole = self.keys.len() == 1 && matches!(spans[..], [Span { from: 0, .. }]);
        Ok((records, whole))
    }

    /// The messages that the records name: the log's own before those of its parents.
    async fn messages(
        &self,
        connection: &mut SqliteConnection,
        records: &[Numbered],
    ) -> Result<Vec<std::sync::Arc<exile_engine::message::Message>>, StoreError> {
        let ids: Vec<&str> = records.iter().flat_map(|r| r.record.names()).collect();
        messages::named(connection, &self.keys, &ids).await
    }

    /// The log's own records from the one on that `from` is a number of, at most `limit` of them and
    /// about [`PAGE_BYTES`]; and where the next page begins.
    async fn page(
        &self,
        connection: &mut SqliteConnection,
        from: Number,
        limit: usize,
    ) -> Result<(Vec<Numbered>, Option<Number>), StoreError> {
        let rows = sqlx::query(
            "SELECT number, version, body FROM exile_record
             WHERE log = ?1 AND number >= coalesce(
                 (SELECT max(number) FROM exile_record WHERE log = ?1 AND number <= ?2), ?2)
             ORDER BY number LIMIT ?3",
        )
        .bind(self.keys[0])
        .bind(saturated(from))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1))
        .fetch_all(&mut *connection)
        .await?;
        let (mut records, mut bytes) = (Vec::new(), 0);
        for row in &rows {
            if records.len() == limit || bytes > PAGE_BYTES {
                return Ok((records, Some(codec::number(row, "number")?)));
            }
            let (record, size) = to_record(connection, row).await?;
            records.push(record);
            bytes += size;
        }
        Ok((records, None))
    }

    /// Spans as `[[log, from, to], …]`.
    pub(super) fn bind(&self, spans: &[Span]) -> Result<String, StoreError> {
        let bound = |span: &Span| (self.keys[span.line], saturated(span.from), saturated(span.to));
        codec::json(&spans.iter().map(bound).collect::<Vec<_>>())
    }
}

/// A number as SQLite takes it; one that is too large stands above all.
fn saturated(number: Number) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Rows of `number`, `version` and `body` as records, large values put back.
pub(super) async fn to_records(
    connection: &mut SqliteConnection,
    rows: &[SqliteRow],
) -> Result<Vec<Numbered>, StoreError> {
    let mut records = Vec::with_capacity(rows.len());
    for row in rows {
        records.push(to_record(connection, row).await?.0);
    }
    Ok(records)
}

/// A row as a record, and how many bytes it takes, about.
async fn to_record(
    connection: &mut SqliteConnection,
    row: &SqliteRow,
) -> Result<(Numbered, usize), StoreError> {
    let version: u32 = row.try_get("version")?;
    if version > VERSION {
        let why = format!("version {version} was written by a newer exile");
        return Err(StoreError::unreadable("record", why));
    }
    let number = codec::number(row, "number")?;
    let body: &str = row.try_get("body")?;
    if !blobs::marked(body) {
        return Ok((Numbered { number, record: codec::parsed(row, "body")? }, body.len()));
    }
    let value = made_whole(connection, codec::parsed(row, "body")?).await?;
    let size = json::weigh(&value);
    let record = serde_json::from_value(value).map_err(|e| StoreError::unreadable("record", e))?;
    Ok((Numbered { number, record }, size))
}

/// Reads the blobs that a stored value stands on, and those that they stand on.
async fn made_whole(
    connection: &mut SqliteConnection,
    value: serde_json::Value,
) -> Result<serde_json::Value, StoreError> {
    let mut blobs = HashMap::new();
    let mut missing = Vec::new();
    blobs::addresses(&value, &mut missing);
    while !missing.is_empty() {
        let rows = sqlx::query(
            "SELECT id, body FROM exile_blob WHERE id IN (SELECT value FROM json_each(?1))",
        )
        .bind(codec::json(&missing)?)
        .fetch_all(&mut *connection)
        .await?;
        missing.clear();
        for row in &rows {
            let blob: serde_json::Value = serde_json::from_slice(row.try_get("body")?)
                .map_err(|e| StoreError::unreadable("a large value", e))?;
            blobs::addresses(&blob, &mut missing);
            blobs.insert(row.try_get("id")?, blob);
        }
        missing.retain(|id| !blobs.contains_key(id));
    }
    blobs::put_back(value, &blobs)
}
