//! From records to run rows.
//!
//! Invariant: a run row says nothing that the inputs and records of its log do not say.

use exile_engine::id::{ConversationId, RunId};
use exile_engine::journal::StartRun;
use exile_engine::run::record::{EndStatus, Ended, Fact, Number, Numbered, Started};
use sqlx::SqliteConnection;

use super::runs::RunStatus;
use super::{StoreError, column};

/// Adds the row of a run that was sent to the log `key`; `false` if the run is known already.
pub(super) async fn queued(
    connection: &mut SqliteConnection,
    key: i64,
    at_ms: i64,
    start: &StartRun,
) -> Result<bool, StoreError> {
    if let Some(conversation) = &start.conversation {
        touch(connection, &start.run, conversation, at_ms).await?;
    }
    let done = sqlx::query(
        "INSERT INTO exile_run
             (id, owner, log, graph, bundle, conversation, status, input, created_at, trace_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO NOTHING",
    )
    .bind(start.run.as_str())
    .bind(start.owner.as_str())
    .bind(key)
    .bind(&*start.graph)
    .bind(&*start.bundle.0)
    .bind(start.conversation.as_ref().map(ConversationId::as_str))
    .bind(RunStatus::Queued.as_str())
    .bind(column::json(&start.input)?)
    .bind(at_ms)
    .bind(start.traceparent.as_deref().and_then(trace_id))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Notes when a conversation was last used. One that was deleted in the meantime takes no run.
async fn touch(
    connection: &mut SqliteConnection,
    run: &RunId,
    conversation: &ConversationId,
    at_ms: i64,
) -> Result<(), StoreError> {
    let done = sqlx::query("UPDATE exile_llm_conversation SET updated_at = ?2 WHERE id = ?1")
        .bind(conversation.as_str())
        .bind(at_ms)
        .execute(connection)
        .await?;
    if done.rows_affected() == 0 {
        let why = format!("run {run} is a turn of {conversation}, which does not exist");
        return Err(StoreError::Corrupt(why));
    }
    Ok(())
}

/// Brings the rows of runs up to date with a record of the log `key`; `true` if a run began or
/// ended with it.
pub(super) async fn recorded(
    connection: &mut SqliteConnection,
    key: i64,
    record: &Numbered,
) -> Result<bool, StoreError> {
    let (number, at_ms) = (record.number, record.record.at_ms);
    match &record.record.fact {
        Fact::Started(begun) => started(connection, key, number, at_ms, begun).await?,
        Fact::Ended(end) => ended(connection, key, number, at_ms, end).await?,
        Fact::Snapshot { .. } => {
            sqlx::query("UPDATE exile_log SET snapshot = ?2 WHERE key = ?1")
                .bind(key)
                .bind(column::integer(number)?)
                .execute(connection)
                .await?;
            return Ok(false);
        }
        Fact::Resumed { .. }
        | Fact::Handed {}
        | Fact::Intent(_)
        | Fact::Called(_)
        | Fact::Done(_)
        | Fact::Step(_) => return Ok(false),
    }
    Ok(true)
}

async fn started(
    connection: &mut SqliteConnection,
    key: i64,
    number: Number,
    at_ms: i64,
    started: &Started,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE exile_run SET status = ?2, started_at = ?3, first = ?4,
             trace_id = coalesce(?5, trace_id)
         WHERE id = ?1",
    )
    .bind(started.run.as_str())
    .bind(RunStatus::Running.as_str())
    .bind(at_ms)
    .bind(column::integer(number)?)
    .bind(started.traceparent.as_deref().and_then(trace_id))
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE exile_log SET active = ?2 WHERE key = ?1")
        .bind(key)
        .bind(started.run.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

async fn ended(
    connection: &mut SqliteConnection,
    key: i64,
    number: Number,
    at_ms: i64,
    ended: &Ended,
) -> Result<(), StoreError> {
    let status = match ended.status {
        EndStatus::Finished => RunStatus::Finished,
        EndStatus::Failed => RunStatus::Failed,
        EndStatus::Cancelled => RunStatus::Cancelled,
        EndStatus::NeedsAttention => RunStatus::NeedsAttention,
    };
    sqlx::query(
        "UPDATE exile_run SET status = ?2, ended_at = ?3, first = coalesce(first, ?4), last = ?4,
             error = ?5, input_tokens = ?6, cached_tokens = ?7, output_tokens = ?8,
             reasoning_tokens = ?9
         WHERE id = ?1",
    )
    .bind(ended.run.as_str())
    .bind(status.as_str())
    .bind(at_ms)
    .bind(column::integer(number)?)
    .bind(ended.error.as_ref().map(column::json).transpose()?)
    .bind(column::integer(ended.usage.input)?)
    .bind(column::integer(ended.usage.cached)?)
    .bind(column::integer(ended.usage.output)?)
    .bind(column::integer(ended.usage.reasoning)?)
    .execute(&mut *connection)
    .await?;
    // A run that was cancelled while it was queued ends beside the one that is going on.
    sqlx::query("UPDATE exile_log SET active = NULL WHERE key = ?1 AND active = ?2")
        .bind(key)
        .bind(ended.run.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// The second field of a W3C `traceparent` (`version-trace-span-flags`).
fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1).filter(|id| id.len() == 32)
}
