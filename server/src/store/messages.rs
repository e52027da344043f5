//! Message rows: written by the journal with the records that name them, read by their owner.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use exile_engine::id::{ConversationId, LogId, MessageId, RunId, UserId};
use exile_engine::journal::{StoredMessage, lineage};
use exile_engine::message::{Message, Role};
use exile_engine::run::record::Number;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::history::Lineage;
use super::page::{Listed, Page};
use super::runs::RunRow;
use super::{Store, StoreError, codec};

/// A message and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageRow {
    /// The message.
    pub message: Message,
    /// The run that made it.
    pub run: RunId,
    /// The conversation, if its run is a turn of one.
    pub conversation: Option<ConversationId>,
    /// When it was stored first.
    pub created_at: Timestamp,
    /// Number of the record that it was stored with first: of the first one that names it.
    pub number: Number,
    /// A provider refused it, and later turns of its conversation go on without it.
    pub set_aside: bool,
    /// Why only its role and its text are here: what else is stored of it cannot be read.
    pub unreadable: Option<String>,
}

/// The columns of a message `m` as [`whole`] reads them: few, since a history has many rows, and
/// each value of each is copied on its way. What most messages have not comes as one.
macro_rules! whole {
    () => {
        "m.id, m.role, m.content, m.model, iif(
             coalesce(m.reasoning, m.tool_calls, m.tool_call_id, m.tool_name, m.opaque, m.covers,
                      m.images, m.edited_arguments) IS NULL, NULL,
             json_array(m.reasoning, m.tool_calls, m.tool_call_id, m.tool_name, m.opaque, m.covers,
                        m.images, m.edited_arguments))"
    };
}

/// Where a message stands, after [`whole`]'s columns.
macro_rules! row {
    () => {
        concat!(whole!(), ", m.seq, m.run, m.number, m.created_at, r.conversation")
    };
}

impl Store {
    /// The messages of the owner's conversation that its user sees, oldest first, without those
    /// that it went back over, at most so many bytes of them, each as far as it can be read; `None`
    /// if the owner has no such conversation.
    pub async fn list_messages(
        &self,
        owner: &UserId,
        conversation: &ConversationId,
        page: Page,
        bytes: usize,
    ) -> Result<Option<Listed<MessageRow>>, StoreError> {
        if self.conversation(owner, conversation).await?.is_none() {
            return Ok(None);
        }
        let mut read = self.readers().begin().await?;
        let Some(lineage) = Lineage::of(&mut read, &LogId::from(conversation)).await? else {
            return Ok(Some(page.list(Vec::new())));
        };
        let shown = shown(&mut read, &lineage, &page).await?;
        let sizes: Vec<i64> = shown.iter().map(|(_, size)| *size).collect();
        let page = page.within(bytes, &sizes);
        let seqs: Vec<i64> = shown.iter().take(page.rows() as usize).map(|(seq, _)| *seq).collect();
        let aside = set_aside(&mut read, &lineage, &seqs).await?;
        let rows = sqlx::query(concat!(
            "SELECT ",
            row!(),
            " FROM json_each(?1) s CROSS JOIN exile_llm_message m ON m.seq = s.value
             LEFT JOIN exile_run r ON r.id = m.run"
        ))
        .bind(codec::json(&seqs)?)
        .fetch_all(&mut *read)
        .await?;
        read.rollback().await?;
        let item = |row: &SqliteRow| {
            let seq = row.try_get("seq")?;
            let (message, unreadable) = as_far(row)?;
            let set_aside = aside.contains(&seq);
            Ok((seq, MessageRow { set_aside, unreadable, ..with(row, message)? }))
        };
        let mut rows = rows.iter().map(item).collect::<Result<Vec<(i64, _)>, StoreError>>()?;
        rows.sort_by_key(|(seq, _)| seqs.iter().position(|found| found == seq));
        Ok(Some(page.list(rows)))
    }

    /// The last message that a model wrote in the sight of the run's user, in records of the run
    /// beyond a number.
    pub async fn answer_of(
        &self,
        run: &RunRow,
        after: Number,
    ) -> Result<Option<MessageRow>, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            row!(),
            ", EXISTS (SELECT 1 FROM exile_set_aside a WHERE a.log = m.log AND a.id = m.id) AS aside
             FROM exile_log l CROSS JOIN exile_llm_message m ON m.log = l.key
             CROSS JOIN exile_run r ON r.id = m.run
             WHERE l.id = ?1 AND m.number BETWEEN ?3 AND ?4 AND m.shown AND m.covers IS NULL
               AND m.run = ?2 AND m.role = 'assistant' AND m.model IS NOT NULL
             ORDER BY m.number DESC, m.seq DESC LIMIT 1"
        ))
        .bind(run.log.as_str())
        .bind(run.id.as_str())
        .bind(codec::integer(run.first.max(after.saturating_add(1)))?)
        .bind(codec::integer(run.last)?)
        .fetch_optional(self.readers())
        .await?;
        let answer =
            |row: &SqliteRow| Ok(MessageRow { set_aside: row.try_get("aside")?, ..from_row(row)? });
        row.as_ref().map(answer).transpose()
    }

    /// The message of that id in the owner's runs, whether their user sees it or not.
    pub async fn message(
        &self,
        owner: &UserId,
        id: &MessageId,
    ) -> Result<Option<MessageRow>, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            row!(),
            " FROM exile_llm_message m JOIN exile_run r ON r.id = m.run
             WHERE m.id = ?1 AND r.owner = ?2 ORDER BY m.seq LIMIT 1"
        ))
        .bind(id.as_str())
        .bind(owner.as_str())
        .fetch_optional(self.readers())
        .await?;
        row.as_ref().map(from_row).transpose()
    }
}

/// What a page of a conversation's messages would hold, and one more: their `seq` and their size in
/// bytes. What was gone back over is never looked at.
async fn shown(
    connection: &mut SqliteConnection,
    lineage: &Lineage,
    page: &Page,
) -> Result<Vec<(i64, i64)>, StoreError> {
    let after = page.after()?.unwrap_or(0);
    let number: Option<i64> =
        sqlx::query_scalar("SELECT number FROM exile_llm_message WHERE seq = ?1")
            .bind(after)
            .fetch_optional(&mut *connection)
            .await?;
    let number = match number {
        Some(number) => number,
        None if after == 0 => 0,
        None => return Err(StoreError::Cursor),
    };
    let mut shown = Vec::new();
    for span in lineage::spans(&lineage.lines, Number::MAX) {
        let left = i64::from(page.rows()) - i64::try_from(shown.len()).unwrap_or(i64::MAX);
        let to = i64::try_from(span.to).unwrap_or(i64::MAX);
        if left <= 0 || to < number {
            continue;
        }
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT seq, octet_length(content) + coalesce(octet_length(reasoning), 0)
                 + coalesce(octet_length(tool_calls), 0) + coalesce(octet_length(opaque), 0)
                 + coalesce(octet_length(images), 0)
                 + coalesce(octet_length(edited_arguments), 0)
             FROM exile_llm_message
             WHERE log = ?1 AND number BETWEEN ?2 AND ?3 AND (number > ?4 OR seq > ?5)
               AND shown AND covers IS NULL
             ORDER BY number, seq LIMIT ?6",
        )
        .bind(lineage.keys[span.line])
        .bind(i64::try_from(span.from).unwrap_or(i64::MAX).max(number))
        .bind(to)
        .bind(number)
        .bind(after)
        .bind(left)
        .fetch_all(&mut *connection)
        .await?;
        shown.extend(rows);
    }
    Ok(shown)
}

/// Which of the messages of these `seq`s a record of the log's history set aside: what was gone back
/// over, or happened in another fork, sets nothing aside.
async fn set_aside(
    connection: &mut SqliteConnection,
    lineage: &Lineage,
    seqs: &[i64],
) -> Result<HashSet<i64>, StoreError> {
    let spans = lineage::spans(&lineage.lines, Number::MAX);
    let aside: Vec<i64> = sqlx::query_scalar(
        "SELECT m.seq FROM json_each(?1) i CROSS JOIN exile_llm_message m ON m.seq = i.value
         CROSS JOIN json_each(?2) s CROSS JOIN exile_set_aside a
             ON a.log = s.value ->> 0 AND a.id = m.id
         WHERE a.number BETWEEN s.value ->> 1 AND s.value ->> 2",
    )
    .bind(codec::json(&seqs)?)
    .bind(lineage.bind(&spans)?)
    .fetch_all(connection)
    .await?;
    Ok(aside.into_iter().collect())
}

fn whole(row: &SqliteRow) -> Result<Message, StoreError> {
    let rest: Option<&str> = row.try_get(4)?;
    let rest: [Option<String>; 8] = parsed(rest)?.unwrap_or_default();
    let [reasoning, tool_calls, tool_call_id, tool_name, opaque, covers, images, edited] = rest;
    Ok(Message {
        id: MessageId::from(row.try_get::<&str, _>(0)?),
        role: role(row.try_get(1)?)?,
        content: row.try_get(2)?,
        images: parsed(images.as_deref())?.unwrap_or_default(),
        model: row.try_get(3)?,
        reasoning,
        tool_calls: parsed(tool_calls.as_deref())?.unwrap_or_default(),
        tool_call_id,
        tool_name,
        edited_arguments: parsed(edited.as_deref())?,
        opaque: parsed(opaque.as_deref())?,
        covers: covers.map(MessageId::from),
    })
}

/// The message, or its role and its text and why the rest of it cannot be read.
fn as_far(row: &SqliteRow) -> Result<(Message, Option<String>), StoreError> {
    match whole(row) {
        Ok(message) => Ok((message, None)),
        Err(why) => {
            let id = MessageId::from(row.try_get::<&str, _>(0)?);
            // A text that is none cannot be told either.
            let content: String = row.try_get(2).unwrap_or_default();
            let message = Message::text(id, role(row.try_get(1)?)?, content);
            Ok((message, Some(why.to_string())))
        }
    }
}

fn parsed<T: DeserializeOwned>(text: Option<&str>) -> Result<Option<T>, StoreError> {
    let parsed = text.map(serde_json::from_str).transpose();
    parsed.map_err(|error| StoreError::unreadable("a message", error))
}

/// Writes a message of the log `key`; the same id replaces what it held and keeps its place.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    key: i64,
    number: Number,
    at_ms: i64,
    stored: &StoredMessage,
) -> Result<(), StoreError> {
    let message = &stored.message;
    let calls = (!message.tool_calls.is_empty()).then(|| codec::json(&message.tool_calls));
    let images = (!message.images.is_empty()).then(|| codec::json(&message.images));
    sqlx::query(
        "INSERT INTO exile_llm_message
             (id, log, run, number, shown, role, content, reasoning, tool_calls, tool_call_id,
              tool_name, model, opaque, covers, created_at, images, edited_arguments)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
         ON CONFLICT (id, log) DO UPDATE SET
             shown = excluded.shown, role = excluded.role, content = excluded.content,
             reasoning = excluded.reasoning, tool_calls = excluded.tool_calls,
             tool_call_id = excluded.tool_call_id, tool_name = excluded.tool_name,
             model = excluded.model, opaque = excluded.opaque, covers = excluded.covers,
             images = excluded.images, edited_arguments = excluded.edited_arguments",
    )
    .bind(message.id.as_str())
    .bind(key)
    .bind(stored.run.as_str())
    .bind(codec::integer(number)?)
    .bind(stored.shown)
    .bind(message.role.as_str())
    .bind(&message.content)
    .bind(&message.reasoning)
    .bind(calls.transpose()?)
    .bind(&message.tool_call_id)
    .bind(&message.tool_name)
    .bind(&message.model)
    .bind(message.opaque.as_ref().map(codec::json).transpose()?)
    .bind(message.covers.as_ref().map(MessageId::as_str))
    .bind(at_ms)
    .bind(images.transpose()?)
    .bind(message.edited_arguments.as_ref().map(codec::json).transpose()?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Every message of the log `key`, in the order in which they were stored first.
pub(super) async fn of_log(
    connection: &mut SqliteConnection,
    key: i64,
) -> Result<Vec<Arc<Message>>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        whole!(),
        " FROM exile_llm_message m WHERE m.log = ?1 ORDER BY m.seq"
    ))
    .bind(key)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(Arc::new(whole(row)?))).collect()
}

/// How many of the messages of these ids, from the first on, hold so many bytes together.
pub(super) async fn that_fit(
    connection: &mut SqliteConnection,
    keys: &[i64],
    ids: &[&str],
    bytes: usize,
) -> Result<usize, StoreError> {
    if ids.len() <= FEW {
        return Ok(ids.len());
    }
    let fit: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (
             SELECT sum(coalesce((
                 SELECT octet_length(m.content) + coalesce(octet_length(m.reasoning), 0)
                        + coalesce(octet_length(m.tool_calls), 0)
                        + coalesce(octet_length(m.images), 0)
                        + coalesce(octet_length(m.opaque), 0)
                        + coalesce(octet_length(m.edited_arguments), 0)
                 FROM json_each(?1) k CROSS JOIN exile_llm_message m
                 WHERE m.id = i.value AND m.log = k.value ORDER BY k.key LIMIT 1
             ), 0)) OVER (ORDER BY i.key) AS bytes
             FROM json_each(?2) i
         ) WHERE bytes <= ?3",
    )
    .bind(codec::json(&keys)?)
    .bind(codec::json(&ids)?)
    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
    .fetch_one(connection)
    .await?;
    Ok(usize::try_from(fit).unwrap_or_default())
}

/// So few messages are read without asking how long they are.
const FEW: usize = 4;

/// Those whose ids are among `ids`, of the first of the logs `keys` that has them.
pub(super) async fn named(
    connection: &mut SqliteConnection,
    keys: &[i64],
    ids: &[&str],
) -> Result<Vec<Arc<Message>>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(concat!(
        "SELECT ",
        whole!(),
        ", m.seq FROM json_each(?1) k CROSS JOIN json_each(?2) i
         CROSS JOIN exile_llm_message m ON m.id = i.value AND m.log = k.value
         ORDER BY k.key"
    ))
    .bind(codec::json(&keys)?)
    .bind(codec::json(&ids)?)
    .fetch_all(connection)
    .await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        if let Entry::Vacant(place) = found.entry(row.try_get::<&str, _>(0)?) {
            place.insert((row.try_get::<i64, _>(5)?, whole(row)?));
        }
    }
    let mut found: Vec<_> = found.into_values().collect();
    found.sort_unstable_by_key(|(seq, _)| *seq);
    Ok(found.into_iter().map(|(_, message)| Arc::new(message)).collect())
}

fn from_row(row: &SqliteRow) -> Result<MessageRow, StoreError> {
    with(row, whole(row)?)
}

fn with(row: &SqliteRow, message: Message) -> Result<MessageRow, StoreError> {
    let conversation: Option<&str> = row.try_get("conversation")?;
    Ok(MessageRow {
        message,
        run: RunId::from(row.try_get::<&str, _>("run")?),
        conversation: conversation.map(ConversationId::from),
        created_at: codec::time(row, "created_at")?,
        number: codec::number(row, "number")?,
        set_aside: false,
        unreadable: None,
    })
}

fn role(text: &str) -> Result<Role, StoreError> {
    let known = [Role::System, Role::User, Role::Assistant, Role::Tool];
    let role = known.into_iter().find(|known| known.as_str() == text);
    role.ok_or_else(|| StoreError::unreadable("role of a message", text))
}
