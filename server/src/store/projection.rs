//! From inputs and records to run rows and the row of their log.
//!
//! Invariant: these rows say nothing that the inputs and records of the log do not say.

use exile_engine::id::{ConversationId, InputId, MessageId, RunId, UserId};
use exile_engine::journal::{self, BlobId, Consumed, ForkRun, Refusal, StartRun};
use exile_engine::run::record::{
    EndStatus, Ended, Fact, Forked, Number, Numbered, Started, Waiting,
};
use exile_engine::state::{Delta, Op};
use serde_json::{Map, Value};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::runs::RunStatus;
use super::{StoreError, codec};

/// What a run's row begins with.
pub(super) struct Queued<'i> {
    run: &'i RunId,
    owner: &'i UserId,
    graph: &'i str,
    bundle: &'i BlobId,
    conversation: Option<&'i ConversationId>,
    /// `None`: that of the run `from`.
    input: Option<String>,
    from: Option<&'i RunId>,
    traceparent: Option<&'i str>,
}

impl<'i> Queued<'i> {
    pub(super) fn start(start: &'i StartRun) -> Result<Self, StoreError> {
        Ok(Self {
            run: &start.run,
            owner: &start.owner,
            graph: &start.graph,
            bundle: &start.bundle,
            conversation: start.conversation.as_ref(),
            input: Some(codec::json(&without_messages(&start.input))?),
            from: None,
            traceparent: start.traceparent.as_deref(),
        })
    }

    pub(super) fn fork(fork: &'i ForkRun) -> Self {
        Self {
            run: &fork.run,
            owner: &fork.owner,
            graph: &fork.graph,
            bundle: &fork.bundle,
            conversation: fork.conversation.as_ref(),
            input: None,
            from: Some(&fork.from),
            traceparent: fork.traceparent.as_deref(),
        }
    }

    /// Adds the row to the log `key`.
    pub(super) async fn insert(
        &self,
        connection: &mut SqliteConnection,
        key: i64,
        at_ms: i64,
    ) -> Result<(), StoreError> {
        if let Some(conversation) = self.conversation {
            touch(connection, conversation, at_ms).await?;
        }
        sqlx::query(
            "INSERT INTO exile_bundle (id) VALUES (?5) ON CONFLICT DO NOTHING;
             INSERT INTO exile_run
                 (id, owner, log, graph, bundle, conversation, status, input, created_at, trace_id)
             VALUES (?1, ?2, ?3, ?4, (SELECT key FROM exile_bundle WHERE id = ?5), ?6, ?7,
                     coalesce(?8, (SELECT input FROM exile_run WHERE id = ?11), '{}'), ?9, ?10)",
        )
        .bind(self.run.as_str())
        .bind(self.owner.as_str())
        .bind(key)
        .bind(self.graph)
        .bind(&*self.bundle.0)
        .bind(self.conversation.map(ConversationId::as_str))
        .bind(RunStatus::Queued.as_str())
        .bind(self.input.as_deref())
        .bind(at_ms)
        .bind(self.traceparent.and_then(trace_id))
        .bind(self.from.map(RunId::as_str))
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// An input with its messages by their ids: the messages themselves are rows as soon as the run has
/// begun.
fn without_messages(input: &Map<String, Value>) -> Map<String, Value> {
    let id = |item: &Value| item.get("role").and(item.get("id")).cloned();
    let by_id = |value: &Value| match value {
        Value::Array(items) => {
            items.iter().map(|item| id(item).unwrap_or_else(|| item.clone())).collect()
        }
        other => other.clone(),
    };
    input.iter().map(|(channel, value)| (channel.clone(), by_id(value))).collect()
}

/// Notes when a conversation was last used. One that was deleted in the meantime takes no run.
async fn touch(
    connection: &mut SqliteConnection,
    conversation: &ConversationId,
    at_ms: i64,
) -> Result<(), StoreError> {
    let done = sqlx::query("UPDATE exile_llm_conversation SET updated_at = ?2 WHERE id = ?1")
        .bind(conversation.as_str())
        .bind(at_ms)
        .execute(connection)
        .await?;
    if done.rows_affected() == 0 {
        return Err(StoreError::Gone(format!("conversation {conversation}")));
    }
    Ok(())
}

/// What of a log's row follows from its records.
pub(super) struct LogRow {
    pub(super) key: i64,
    /// The run that has begun and not ended.
    active: Option<String>,
    /// It waits.
    parked: bool,
    /// When it has something to do although it waits.
    wake: Option<i64>,
}

impl LogRow {
    pub(super) fn of(row: &SqliteRow) -> Result<Self, StoreError> {
        Ok(Self {
            key: row.try_get("key")?,
            active: row.try_get("active")?,
            parked: row.try_get("parked")?,
            wake: row.try_get("wake")?,
        })
    }

    /// Consumes inputs and writes the row. The log keeps its place in the queue while its run goes
    /// on; else it has that of its oldest input.
    pub(super) async fn requeue(
        &self,
        connection: &mut SqliteConnection,
        consumed: &[Consumed],
        head: Number,
        at_ms: i64,
    ) -> Result<(), StoreError> {
        let decided: Vec<(&InputId, Option<&Refusal>)> =
            consumed.iter().map(|c| (&c.input, c.verdict.refusal())).collect();
        sqlx::query(
            "UPDATE exile_input AS i SET body = NULL, consumed = ?6, refused = nullif(c.value -> 1, 'null')
             FROM json_each(?5) c WHERE i.log = ?1 AND i.id = c.value ->> 0;
             UPDATE exile_log SET active = ?2, parked = ?3, wake = ?4, due = CASE
                 WHEN ?2 IS NOT NULL AND NOT ?3 THEN coalesce(due, 0)
                 ELSE (SELECT min(seq) FROM exile_input WHERE log = ?1 AND body IS NOT NULL)
             END, changed = coalesce(changed, ?7) WHERE key = ?1",
        )
        .bind(self.key)
        .bind(self.active.as_deref())
        .bind(self.parked)
        .bind(self.wake)
        .bind(codec::json(&decided)?)
        .bind(codec::integer(head)?)
        .bind(at_ms)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Whether rows besides the record follow from a fact, if its log does not wait.
pub(super) fn turns(fact: &Fact) -> bool {
    match fact {
        Fact::Started(_)
        | Fact::Forked(_)
        | Fact::Waiting(_)
        | Fact::Ended(_)
        | Fact::Migrated { .. } => true,
        Fact::Edited(edited) => named(&edited.delta).next().is_some(),
        Fact::Snapshot { .. }
        | Fact::Resumed { .. }
        | Fact::Handed {}
        | Fact::Lived {}
        | Fact::Intent(_)
        | Fact::Called(_)
        | Fact::Asked(_)
        | Fact::Answered(_)
        | Fact::Retried(_)
        | Fact::Done(_)
        | Fact::Step(_)
        | Fact::Resolved(_) => false,
    }
}

/// Brings run rows up to date with a record; `true` if the row of its log changed too, which is
/// the caller's to write ([`LogRow::requeue`]).
pub(super) async fn recorded(
    connection: &mut SqliteConnection,
    log: &mut LogRow,
    record: &Numbered,
) -> Result<bool, StoreError> {
    let (number, at_ms) = (record.number, record.record.at_ms);
    let fact = &record.record.fact;
    let woke = log.parked && !matches!(fact, Fact::Waiting(_));
    if woke {
        goes_on(connection, log).await?;
    }
    match fact {
        Fact::Started(begun) => {
            started(&mut *connection, log, number, at_ms, begun).await?;
            said_again(connection, log, &begun.delta).await?;
        }
        Fact::Edited(edited) => said_again(connection, log, &edited.delta).await?,
        Fact::Forked(back) => forked(connection, log, number, at_ms, back).await?,
        Fact::Waiting(wait) => {
            waits(connection, number, wait).await?;
            (log.parked, log.wake) = (true, journal::wake_ms(fact));
        }
        Fact::Ended(end) => ended(connection, log, number, at_ms, end).await?,
        Fact::Migrated { bundle } => migrated(connection, log, number, bundle).await?,
        _ => {}
    }
    Ok(woke || turns(fact))
}

/// The run of the log waited and does so no more.
async fn goes_on(connection: &mut SqliteConnection, log: &mut LogRow) -> Result<(), StoreError> {
    (log.parked, log.wake) = (false, None);
    sqlx::query("UPDATE exile_run SET status = ?2, error = NULL, last = NULL WHERE id = ?1")
        .bind(log.active.as_deref())
        .bind(RunStatus::Running.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

async fn started(
    connection: &mut SqliteConnection,
    log: &mut LogRow,
    number: Number,
    at_ms: i64,
    started: &Started,
) -> Result<(), StoreError> {
    let trace = started.traceparent.as_deref().and_then(trace_id);
    begun(connection, &started.run, number, at_ms, trace).await?;
    log.active = Some(started.run.to_string());
    Ok(())
}

async fn begun(
    connection: &mut SqliteConnection,
    run: &RunId,
    number: Number,
    at_ms: i64,
    trace: Option<&str>,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE exile_run SET status = ?2, started_at = ?3, first = ?4,
             trace_id = coalesce(?5, trace_id)
         WHERE id = ?1",
    )
    .bind(run.as_str())
    .bind(RunStatus::Running.as_str())
    .bind(at_ms)
    .bind(codec::integer(number)?)
    .bind(trace)
    .execute(connection)
    .await?;
    Ok(())
}

/// A run that was gone back over while it went on is cancelled by that.
async fn forked(
    connection: &mut SqliteConnection,
    log: &mut LogRow,
    number: Number,
    at_ms: i64,
    forked: &Forked,
) -> Result<(), StoreError> {
    let run = forked.run.as_ref();
    let over = log.active.take().filter(|over| Some(over.as_str()) != run.map(RunId::as_str));
    sqlx::query(
        "INSERT INTO exile_cut (log, number, at) VALUES (?1, ?2, ?3);
         UPDATE exile_run SET status = ?5, ended_at = ?6, last = ?2, error = NULL
         WHERE id = ?4 AND ended_at IS NULL",
    )
    .bind(log.key)
    .bind(codec::integer(number)?)
    .bind(codec::integer(forked.at)?)
    .bind(over)
    .bind(RunStatus::Cancelled.as_str())
    .bind(at_ms)
    .execute(&mut *connection)
    .await?;
    if let Some(run) = run {
        begun(connection, run, number, at_ms, None).await?;
        log.active = Some(run.to_string());
    }
    Ok(())
}

async fn waits(
    connection: &mut SqliteConnection,
    number: Number,
    waiting: &Waiting,
) -> Result<(), StoreError> {
    let status = match waiting.attention {
        Some(_) => RunStatus::NeedsAttention,
        None => RunStatus::Waiting,
    };
    sqlx::query("UPDATE exile_run SET status = ?2, error = ?3, last = ?4 WHERE id = ?1")
        .bind(waiting.run.as_str())
        .bind(status.as_str())
        .bind(waiting.attention.as_ref().map(codec::json).transpose()?)
        .bind(codec::integer(number)?)
        .execute(connection)
        .await?;
    Ok(())
}

/// The run's earlier records still need the bundle that they were made with.
async fn migrated(
    connection: &mut SqliteConnection,
    log: &LogRow,
    number: Number,
    bundle: &BlobId,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO exile_blob_use (log, number, blob)
         SELECT ?3, ?4, b.id FROM exile_run r JOIN exile_bundle b ON b.key = r.bundle
         WHERE r.id = ?2;
         INSERT INTO exile_bundle (id) VALUES (?1) ON CONFLICT DO NOTHING;
         UPDATE exile_run SET bundle = (SELECT key FROM exile_bundle WHERE id = ?1) WHERE id = ?2",
    )
    .bind(&*bundle.0)
    .bind(log.active.as_deref())
    .bind(log.key)
    .bind(codec::integer(number)?)
    .execute(connection)
    .await?;
    Ok(())
}

async fn ended(
    connection: &mut SqliteConnection,
    log: &mut LogRow,
    number: Number,
    at_ms: i64,
    ended: &Ended,
) -> Result<(), StoreError> {
    let status = match ended.status {
        EndStatus::Finished => RunStatus::Finished,
        EndStatus::Failed => RunStatus::Failed,
        EndStatus::Cancelled => RunStatus::Cancelled,
    };
    sqlx::query(
        "UPDATE exile_run SET status = ?2, ended_at = ?3, first = coalesce(first, ?4), last = ?4,
             error = ?5, input_tokens = ?6, cached_tokens = ?7, output_tokens = ?8,
             reasoning_tokens = ?9, written_tokens = ?10
         WHERE id = ?1",
    )
    .bind(ended.run.as_str())
    .bind(status.as_str())
    .bind(at_ms)
    .bind(codec::integer(number)?)
    .bind(ended.error.as_ref().map(codec::json).transpose()?)
    .bind(codec::integer(ended.usage.input)?)
    .bind(codec::integer(ended.usage.cached)?)
    .bind(codec::integer(ended.usage.output)?)
    .bind(codec::integer(ended.usage.reasoning)?)
    .bind(codec::integer(ended.usage.written)?)
    .execute(&mut *connection)
    .await?;
    set_aside(connection, log, number, &ended.set_aside).await?;
    // A run that was cancelled while it was queued ends beside the one that is going on.
    log.active.take_if(|active| active.as_str() == ended.run.as_str());
    Ok(())
}

/// Notes which messages later runs of the log do without.
async fn set_aside(
    connection: &mut SqliteConnection,
    log: &LogRow,
    number: Number,
    messages: &[MessageId],
) -> Result<(), StoreError> {
    if messages.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO exile_set_aside (log, id, number)
         SELECT ?1, value, ?2 FROM json_each(?3)",
    )
    .bind(log.key)
    .bind(codec::integer(number)?)
    .bind(codec::json(&messages)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Messages that were set aside and are written again count again.
async fn said_again(
    connection: &mut SqliteConnection,
    log: &LogRow,
    delta: &Delta,
) -> Result<(), StoreError> {
    let messages: Vec<&MessageId> = named(delta).collect();
    if messages.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM exile_set_aside
         WHERE log = ?1 AND id IN (SELECT value FROM json_each(?2))",
    )
    .bind(log.key)
    .bind(codec::json(&messages)?)
    .execute(connection)
    .await?;
    Ok(())
}

fn named(delta: &Delta) -> impl Iterator<Item = &MessageId> {
    delta.values().flat_map(|op| match op {
        Op::Messages(ids) => ids.as_slice(),
        Op::Set(_) | Op::Append(_) | Op::Put(_) => &[],
    })
}

/// The second field of a W3C `traceparent` (`version-trace-span-flags`).
fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1).filter(|id| id.len() == 32)
}
