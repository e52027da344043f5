//! What a purge removes, and above all what it leaves.

use std::sync::Arc;
use std::time::Duration;

use exile_engine::env::Env as _;
use exile_engine::id::{ConversationId, InputId, LogId, RunId};
use exile_engine::journal::{Batch, BlobId, Consumed, Journal as _, JournalError, ReleaseInfo};
use exile_engine::message::Role;
use exile_engine::run::record::{EndStatus, Fact, Number, Numbered, Record};
use exile_engine::state::Op;
use exile_server::store::{Deletion, Page, Purged, RunStatus, Store, options};
use jiff::Timestamp;
use sqlx::ConnectOptions as _;

use super::write::{
    claim, conversation, ended, forked, message, send, send_fork, snapshot, started, turn, user,
    waiting,
};
use super::{Home, PAGE};

/// Later than all that `write.rs` writes.
fn later() -> Timestamp {
    Timestamp::from_millisecond(1_767_225_900_000).unwrap()
}

async fn append(store: &Store, log: &str, after: Number, records: Vec<Numbered>) {
    let lease = claim(store).await;
    assert_eq!(lease.log.as_str(), log);
    let messages = records.iter().flat_map(|r| r.record.names()).map(str::to_owned);
    let run = log.to_owned();
    let messages = messages.map(|id| message(&id, &run, Role::User, "text", false)).collect();
    let consumed = vec![Consumed::taken(InputId::from(format!("in_{log}")))];
    let batch = Batch { after, records, messages, consumed, ..Batch::default() };
    store.append(&lease, &batch).await.unwrap();
    store.release(&lease, &ReleaseInfo::default()).await.unwrap();
}

fn gone<T: std::fmt::Debug>(read: &Result<T, JournalError>) {
    assert!(matches!(read, Err(JournalError::Purged(_))), "{read:?}");
}

#[tokio::test]
async fn a_run_that_ended_long_ago_keeps_its_row_alone() {
    let Home { store, env, folder: _folder, .. } = Home::new().await;
    let bundle = store.put_blob(b"bundle").await.unwrap();
    let log = send(&store, "ann", "run_1", None).await;
    let records = vec![started(1, "ann", "run_1", None), ended(2, "run_1", EndStatus::Finished)];
    append(&store, "run_1", 0, records).await;
    let early = Timestamp::from_millisecond(1_767_225_800_000).unwrap();
    assert_eq!(store.purge(early).await.unwrap(), Purged::default());
    env.advance(Duration::from_hours(48));
    let purged = store.purge(later()).await.unwrap();
    assert_eq!(purged, Purged { logs: 1, records: 2, messages: 1, blobs: 1 });
    let row = store.run(&user("ann"), &RunId::from("run_1")).await.unwrap().unwrap();
    assert_eq!((row.status, row.first, row.last), (RunStatus::Finished, 1, 2));
    gone(&store.load(&log, None).await);
    gone(&store.load(&log, Some(1)).await);
    gone(&store.read(&log, 1, 10).await);
    assert_eq!(store.get_blob(&bundle).await.unwrap(), None);
    gone(&store.send(&log, &"in_late".into(), &super::write::cancel("run_1")).await);
    assert_eq!(store.purge(later()).await.unwrap(), Purged::default());
}

#[tokio::test]
async fn a_run_that_waits_goes_on_or_is_queued_keeps_everything() {
    let Home { store, env, folder: _folder, .. } = Home::new().await;
    let bundle = store.put_blob(b"bundle").await.unwrap();
    send(&store, "ann", "run_1", None).await;
    let begin = || started(1, "ann", "run_1", None);
    append(&store, "run_1", 0, vec![begin(), waiting(2, "run_1", None)]).await;
    send(&store, "ann", "run_2", None).await;
    env.advance(Duration::from_hours(48));
    assert_eq!(store.purge(later()).await.unwrap(), Purged::default());
    let log = LogId::from("run_1");
    assert_eq!(store.load(&log, None).await.unwrap().records.len(), 2);
    assert_eq!(store.load(&log, None).await.unwrap().messages.len(), 1);
    assert!(store.get_blob(&bundle).await.unwrap().is_some());
}

#[tokio::test]
async fn a_conversation_keeps_what_its_user_sees_and_what_its_next_turn_reads() {
    let Home { store, env, folder: _folder, .. } = Home::new().await;
    let id = conversation(&store, "ann").await;
    let log = LogId::from(&id);
    turn(&store, "ann", "run_1", &id, 0).await;
    send(&store, "ann", "run_x", Some(&id)).await;
    let lease = claim(&store).await;
    let consumed = vec![Consumed::taken(InputId::from("in_run_x"))];
    let snapshot = snapshot(7, &["msg_run_1_asked", "msg_run_1_answered"]);
    let records = vec![ended(6, "run_x", EndStatus::Cancelled), snapshot];
    store.append(&lease, &Batch { after: 5, records, consumed, ..Batch::default() }).await.unwrap();
    store.release(&lease, &ReleaseInfo::default()).await.unwrap();
    turn(&store, "ann", "run_2", &id, 7).await;
    let before = store.load(&log, None).await.unwrap();
    let seen = store.list_messages(&user("ann"), &id, Page::default(), PAGE).await.unwrap();
    env.advance(Duration::from_hours(48));
    let purged = store.purge(later()).await.unwrap();
    assert_eq!(purged, Purged { logs: 1, records: 3, messages: 1, blobs: 0 });
    assert_eq!(store.load(&log, None).await.unwrap(), before);
    let after = store.list_messages(&user("ann"), &id, Page::default(), PAGE).await.unwrap();
    assert_eq!(after, seen);
    gone(&store.read(&log, 1, 10).await);
    gone(&store.load(&log, Some(5)).await);
    assert_eq!(store.read(&log, 7, 10).await.unwrap().records.len(), 3);
    assert_eq!(store.purge(later()).await.unwrap(), Purged::default());
}

#[tokio::test]
async fn a_fork_keeps_what_it_reads_until_it_has_ended_too() {
    let Home { store, env, folder: _folder, .. } = Home::new().await;
    send(&store, "ann", "run_1", None).await;
    let records = vec![started(1, "ann", "run_1", None), ended(2, "run_1", EndStatus::Finished)];
    append(&store, "run_1", 0, records).await;
    let child = send_fork(&store, ("run_2", "run_1"), &LogId::from("run_1"), 1, None).await;
    env.advance(Duration::from_hours(48));
    let before = store.load(&child, None).await.unwrap();
    assert_eq!((before.records.len(), before.messages.len()), (1, 1));
    assert_eq!(store.purge(later()).await.unwrap(), Purged::default());
    assert_eq!(store.load(&child, None).await.unwrap(), before);
    let own = vec![forked(9, Some("run_2"), "run_1", 1), ended(10, "run_2", EndStatus::Finished)];
    append(&store, "run_2", 1, own).await;
    let purged = store.purge(later()).await.unwrap();
    assert_eq!((purged.logs, purged.records), (2, 4));
    gone(&store.load(&child, None).await);
    gone(&store.load(&LogId::from("run_1"), None).await);
}

#[tokio::test]
async fn a_blob_that_was_put_again_just_now_stays() {
    let Home { store, env, folder: _folder, .. } = Home::new().await;
    let old = store.put_blob(b"old").await.unwrap();
    let new = store.put_blob(b"new").await.unwrap();
    env.advance(Duration::from_hours(48));
    store.put_blob(b"new").await.unwrap();
    assert_eq!(store.purge(env.now()).await.unwrap(), Purged { blobs: 1, ..Purged::default() });
    assert_eq!(store.get_blob(&old).await.unwrap(), None);
    assert_eq!(store.get_blob(&BlobId::of(b"new")).await.unwrap(), Some(b"new".to_vec()));
    assert_eq!(new, BlobId::of(b"new"));
}

/// Numbers that repeat from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % sides
    }
}

/// A log that a random story made.
struct Told {
    log: LogId,
    /// Its last run has not ended.
    open: bool,
    /// What its numbers may be forked at: those that the log held itself.
    own: Vec<Number>,
}

/// Random logs of steps, snapshots, runs that end or do not, cuts and forks: whatever a log that
/// is still to go on, or a conversation, loads at its head is the same after a purge.
#[tokio::test]
async fn nothing_that_goes_on_is_ever_touched() {
    for seed in 0..24 {
        let Home { store, folder: _folder, .. } = Home::new().await;
        let mut dice = Dice(seed);
        let mut told: Vec<Told> = Vec::new();
        for n in 0..8 {
            let run = format!("run_{n}");
            let parent = told.len().checked_sub(1).filter(|_| dice.roll(2) == 0);
            let log = match parent {
                Some(parent) => {
                    let parent = &told[parent];
                    let at =
                        parent.own[usize::try_from(dice.roll(parent.own.len() as u64)).unwrap()];
                    send_fork(&store, (&run, parent.log.as_str()), &parent.log, at, None).await
                }
                None => send(&store, "ann", &run, None).await,
            };
            told.push(tell(&store, &mut dice, log, parent.is_some()).await);
        }
        let mut before = Vec::new();
        for log in &told {
            before.push(store.load(&log.log, None).await.unwrap());
        }
        store.purge(later()).await.unwrap();
        for (log, before) in told.iter().zip(before) {
            match store.load(&log.log, None).await {
                Ok(after) => assert_eq!(after, before, "seed {seed}, {}", log.log),
                Err(JournalError::Purged(_)) => assert!(!log.open, "seed {seed}, {}", log.log),
                Err(error) => panic!("seed {seed}, {}: {error}", log.log),
            }
        }
    }
}

/// Appends a random story to a log that was just sent.
async fn tell(store: &Store, dice: &mut Dice, log: LogId, fork: bool) -> Told {
    let lease = claim(store).await;
    assert_eq!(lease.log, log);
    let history = store.load(&log, None).await.unwrap();
    let mut head = history.records.last().map_or(0, |r| r.number);
    let run = log.as_str();
    let mut next = history.reserved.max(head) + 1;
    let first =
        if fork { forked(next, Some(run), "run_0", head) } else { started(next, "ann", run, None) };
    let mut own = Vec::new();
    let mut records = vec![first];
    for _ in 0..dice.roll(12) {
        next += 1 + dice.roll(2);
        let id = format!("msg_{run}_{next}");
        let back = own.get(usize::try_from(dice.roll(20)).unwrap()).copied();
        records.push(match (dice.roll(3), back) {
            (0, _) => snapshot(next, &[&id]),
            (1, Some(at)) => forked(next, Some(run), run, at),
            _ => super::write::step(next, &id),
        });
        own.push(next);
    }
    let open = dice.roll(3) == 0;
    next += 1;
    records.push(if open { waiting(next, run, None) } else { ended(next, run, EndStatus::Failed) });
    own.push(next);
    for record in records {
        let named = record.record.names();
        let messages = named.iter().map(|id| message(id, run, Role::Tool, "text", false)).collect();
        let consumed = vec![Consumed::taken(InputId::from(format!("in_{run}")))];
        let (after, reserve) = (head, next);
        head = record.number;
        let batch = Batch { after, records: vec![record], reserve, messages, consumed };
        store.append(&lease, &batch).await.unwrap();
    }
    store.release(&lease, &ReleaseInfo::default()).await.unwrap();
    Told { log, open, own }
}

/// Rows of each table that a purge takes from.
async fn rows(home: &Home) -> Vec<i64> {
    let mut connection = options(&home.database()).connect().await.unwrap();
    let mut rows = Vec::new();
    for count in [
        "SELECT count(*) FROM exile_log",
        "SELECT count(*) FROM exile_record",
        "SELECT count(*) FROM exile_llm_message",
        "SELECT count(*) FROM exile_input",
        "SELECT count(*) FROM exile_cut",
        "SELECT count(*) FROM exile_blob",
        "SELECT count(*) FROM exile_blob_use",
    ] {
        rows.push(sqlx::query_scalar(count).fetch_one(&mut connection).await.unwrap());
    }
    rows
}

/// Lets the next pass look at everything, as the first one does after an upgrade.
async fn look_at_everything(home: &Home) {
    let mut connection = options(&home.database()).connect().await.unwrap();
    sqlx::query(
        "UPDATE exile_log SET changed = 0;
         INSERT INTO exile_blob_doubt (blob, since) SELECT id, 0 FROM exile_blob
             WHERE true ON CONFLICT DO NOTHING",
    )
    .execute(&mut connection)
    .await
    .unwrap();
}

/// Conversations, runs and forks that come, go on, wait, end and are deleted in any order, with
/// passes in between: one that looks at everything finds nothing that the last one has left.
#[tokio::test]
async fn a_pass_leaves_nothing_that_one_would_find_that_looks_at_everything() {
    for seed in 0..48 {
        let home = Home::new().await;
        let store = &home.store;
        let mut dice = Dice(seed);
        let mut runs: Vec<(LogId, String)> = Vec::new();
        let mut conversations: Vec<(ConversationId, Number)> = Vec::new();
        store.put_blob(b"bundle").await.unwrap();
        for n in 0..16 {
            let run = format!("run_{n}");
            match dice.roll(8) {
                0 => conversations.push((conversation(store, "ann").await, 0)),
                1 | 2 if conversations.iter().any(|(_, head)| *head < Number::MAX) => {
                    let mut plain = conversations.iter_mut().filter(|(_, h)| *h < Number::MAX);
                    let (id, head) = plain.next().unwrap();
                    turn(store, "ann", &run, id, *head).await;
                    *head += 5;
                    if dice.roll(2) == 0 {
                        send(store, "ann", &format!("run_x{n}"), Some(id)).await;
                        let shot = snapshot(*head + 2, &[&format!("msg_{run}_asked")]);
                        let cancelled = format!("run_x{n}");
                        let end = ended(*head + 1, &cancelled, EndStatus::Cancelled);
                        append_of(store, &LogId::from(&*id), *head, vec![end, shot], &cancelled)
                            .await;
                        *head += 2;
                    }
                    runs.push((LogId::from(&*id), run));
                }
                3 if !conversations.is_empty() => {
                    let (id, _) = conversations.swap_remove(pick(&mut dice, conversations.len()));
                    match store.delete_conversation(&user("ann"), &id).await.unwrap() {
                        Deletion::Deleted => runs.retain(|(log, _)| *log != LogId::from(&id)),
                        _ => conversations.push((id, Number::MAX)),
                    }
                }
                4 if !runs.is_empty() => {
                    let (log, from) = &runs[pick(&mut dice, runs.len())];
                    let Ok(history) = store.load(log, None).await else { continue };
                    let at = history.records.last().map_or(0, |r| r.number);
                    let into = dice.roll(2) == 0;
                    let into = if into { Some(conversation(store, "ann").await) } else { None };
                    let own = send_fork(store, (&run, from), log, at, into.as_ref()).await;
                    let next = history.reserved.max(at) + 1;
                    let begun = vec![
                        forked(next, Some(&run), from, at),
                        snapshot(next + 1, &[&format!("msg_{from}_step")]),
                    ];
                    runs.push(close(store, &mut dice, own, at, begun, run).await);
                    conversations.extend(into.map(|id| (id, Number::MAX)));
                }
                5 => {
                    home.env.advance(Duration::from_hours(25));
                    store.purge(later()).await.unwrap();
                }
                6 => {
                    // Somebody else's runs, forks of which ann may have.
                    send(store, "bob", &run, None).await;
                    let begun = vec![started(1, "bob", &run, None)];
                    let log = LogId::from(run.as_str());
                    runs.push(close(store, &mut dice, log, 0, begun, run).await);
                    if dice.roll(3) == 0 {
                        let _ = store.remove_user(&user("bob")).await.unwrap();
                        let mut left = Vec::new();
                        for run in runs {
                            let found = store.find(&RunId::from(run.1.as_str())).await.unwrap();
                            left.extend(found.is_some().then_some(run));
                        }
                        runs = left;
                    }
                }
                _ => {
                    let log = send(store, "ann", &run, None).await;
                    let begun = vec![started(1, "ann", &run, None)];
                    runs.push(close(store, &mut dice, log, 0, begun, run).await);
                }
            }
        }
        home.env.advance(Duration::from_hours(25));
        store.purge(later()).await.unwrap();
        let before = rows(&home).await;
        look_at_everything(&home).await;
        assert_eq!(store.purge(later()).await.unwrap(), Purged::default(), "seed {seed}");
        assert_eq!(rows(&home).await, before, "seed {seed}");
    }
}

fn pick(dice: &mut Dice, of: usize) -> usize {
    usize::try_from(dice.roll(of as u64)).unwrap()
}

/// Appends to a log that was sent something, and lets go of it.
async fn append_of(store: &Store, log: &LogId, after: Number, records: Vec<Numbered>, run: &str) {
    let lease = claim(store).await;
    assert_eq!(lease.log, *log);
    let messages = records.iter().flat_map(|r| r.record.names()).filter(|id| id.contains(run));
    let messages = messages.map(|id| message(id, run, Role::Tool, "text", false)).collect();
    let consumed = vec![Consumed::taken(InputId::from(format!("in_{run}")))];
    let reserve = records.last().unwrap().number;
    let batch = Batch { after, records, reserve, messages, consumed };
    store.append(&lease, &batch).await.unwrap();
    store.release(&lease, &ReleaseInfo::default()).await.unwrap();
}

/// Begins a run, lets it make a step, and mostly ends it.
async fn close(
    store: &Store,
    dice: &mut Dice,
    log: LogId,
    after: Number,
    mut records: Vec<Numbered>,
    run: String,
) -> (LogId, String) {
    let next = records.last().unwrap().number + 1;
    records.push(super::write::step(next, &format!("msg_{run}_step")));
    let ends = dice.roll(4) > 0;
    let end = || ended(next + 1, &run, EndStatus::Finished);
    records.push(if ends { end() } else { waiting(next + 1, &run, None) });
    append_of(store, &log, after, records, &run).await;
    (log, run)
}

/// A step that writes a large value.
fn large(number: Number) -> Numbered {
    let mut large = super::write::step(number, "msg_run_1_step");
    if let Fact::Step(step) = &mut Arc::make_mut(&mut large.record).fact {
        step.delta.insert("text".into(), Op::Set(Arc::new("x".repeat(1 << 16).into())));
    }
    large
}

#[tokio::test]
async fn what_a_deleted_conversation_alone_named_goes_with_the_next_pass() {
    let Home { store, env, folder: _folder, .. } = Home::new().await;
    store.put_blob(b"bundle").await.unwrap();
    let id = conversation(&store, "ann").await;
    let log = send(&store, "ann", "run_1", Some(&id)).await;
    let begun = started(1, "ann", "run_1", Some(&id));
    let records = vec![begun, large(2), ended(3, "run_1", EndStatus::Finished)];
    append_of(&store, &log, 0, records, "run_1").await;
    env.advance(Duration::from_hours(48));
    assert_eq!(store.purge(later()).await.unwrap(), Purged::default());
    let deleted = store.delete_conversation(&user("ann"), &id).await.unwrap();
    assert_eq!(deleted, Deletion::Deleted);
    assert_eq!(store.purge(later()).await.unwrap(), Purged { blobs: 2, ..Purged::default() });
}

/// A bundle, and a large value, that a pass saw in use go once what used them does.
#[tokio::test]
async fn what_was_in_use_when_it_was_looked_at_goes_later() {
    let Home { store, env, folder: _folder, .. } = Home::new().await;
    let bundle = store.put_blob(b"bundle").await.unwrap();
    let log = send(&store, "ann", "run_1", None).await;
    let records = vec![started(1, "ann", "run_1", None), large(2), waiting(3, "run_1", None)];
    append(&store, "run_1", 0, records).await;
    env.advance(Duration::from_hours(48));
    assert_eq!(store.purge(later()).await.unwrap(), Purged::default());
    assert!(store.get_blob(&bundle).await.unwrap().is_some());
    store.send(&log, &"in_cancel".into(), &super::write::cancel("run_1")).await.unwrap();
    let lease = claim(&store).await;
    let records = vec![ended(4, "run_1", EndStatus::Cancelled)];
    let consumed = vec![Consumed::taken("in_cancel".into())];
    store.append(&lease, &Batch { after: 3, records, consumed, ..Batch::default() }).await.unwrap();
    store.release(&lease, &ReleaseInfo::default()).await.unwrap();
    let purged = store.purge(later()).await.unwrap();
    assert_eq!((purged.logs, purged.records, purged.blobs), (1, 4, 2));
    assert_eq!(store.get_blob(&bundle).await.unwrap(), None);
}

/// A record that cannot be read may name anything: its log keeps what it has, and others go.
#[tokio::test]
async fn a_log_that_cannot_be_read_keeps_no_other_from_going() {
    let home = Home::new().await;
    let store = &home.store;
    let id = conversation(store, "ann").await;
    turn(store, "ann", "run_1", &id, 0).await;
    send(store, "ann", "run_2", Some(&id)).await;
    let shot = snapshot(7, &["msg_run_1_asked"]);
    let records = vec![ended(6, "run_2", EndStatus::Cancelled), shot];
    append_of(store, &LogId::from(&id), 5, records, "run_2").await;
    send(store, "ann", "run_3", None).await;
    let records = vec![started(1, "ann", "run_3", None), ended(2, "run_3", EndStatus::Finished)];
    append(store, "run_3", 0, records).await;
    let mut connection = options(&home.database()).connect().await.unwrap();
    sqlx::query(
        "UPDATE exile_record SET body = '{' WHERE number = 7;
         UPDATE exile_log SET changed = 0 WHERE id = ?1;
         INSERT INTO exile_input (log, id, body) SELECT key, 'garbled', '{' FROM exile_log WHERE id = ?1",
    )
    .bind(LogId::from(&id).as_str())
    .execute(&mut connection)
    .await
    .unwrap();
    for removed in [1, 0] {
        let purged = store.purge(later()).await.unwrap();
        assert_eq!((purged.logs, purged.records), (removed, 2 * removed));
    }
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM exile_record")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(left, 4);
}

#[tokio::test]
async fn a_long_log_goes_in_parts_and_whole() {
    let Home { store, env, folder: _folder, .. } = Home::new().await;
    let log = send(&store, "ann", "run_1", None).await;
    let mut records = vec![started(1, "ann", "run_1", None)];
    let handed = |number| {
        let record = Arc::new(Record { at_ms: 1_767_225_700_000, fact: Fact::Handed {} });
        Numbered { number, record }
    };
    records.extend((2..5000).map(handed));
    records.push(ended(5000, "run_1", EndStatus::Finished));
    append(&store, "run_1", 0, records).await;
    env.advance(Duration::from_hours(48));
    let purged = store.purge(later()).await.unwrap();
    assert_eq!((purged.logs, purged.records, purged.messages), (1, 5000, 1));
    gone(&store.read(&log, 1, 10).await);
    gone(&store.read(&log, 4999, 10).await);
    assert_eq!(store.purge(later()).await.unwrap(), Purged::default());
}
