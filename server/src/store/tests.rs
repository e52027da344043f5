//! What can only be seen from below: the file itself, tables of others, a full disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use exile_engine::env::StepEnv;
use exile_engine::id::{InputId, LogId, RunId, UserId, WorkerId};
use exile_engine::journal::{
    Batch, BlobId, Consumed, IfActive, Input, Journal as _, JournalError, Lease, StartRun,
    StoredMessage,
};
use exile_engine::message::{Message, Role};
use exile_engine::run::record::{
    Activation, Fact, Number, Numbered, Record, RunOptions, Step, StepDone,
};
use exile_engine::state::{Delta, Op};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tempfile::TempDir;

use super::{Store, StoreError, is_safe};

fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exile.db");
    (folder, path)
}

async fn open(path: &Path) -> Result<Store, StoreError> {
    Store::open(path, Arc::new(StepEnv::new())).await
}

/// A connection that is not the store's.
async fn connect(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    options.connect().await.unwrap()
}

/// Sends a run to a log of its own and claims it.
async fn held(store: &Store, run: &str) -> Lease {
    let start = StartRun {
        run: RunId::from(run),
        graph: "count".into(),
        bundle: BlobId::of(b"bundle"),
        owner: UserId::from("ann"),
        conversation: None,
        options: RunOptions::default(),
        input: serde_json::Map::new(),
        traceparent: None,
        if_active: IfActive::Enqueue,
        durability: None,
    };
    let start = Input::Start(Box::new(start));
    store.send(&LogId::from(run), &InputId::from("in_1"), &start).await.unwrap();
    let worker = WorkerId::from("worker");
    store.claim(&worker, Duration::from_hours(1), &[]).await.unwrap().unwrap()
}

/// One step of a small state.
fn step(number: Number) -> Numbered {
    let step = Step {
        path: "".into(),
        step: 1,
        done: vec![StepDone { task: format!("count:{number}").into(), took_ms: 0, cached: false }],
        delta: Delta::from_iter([("n".into(), Op::Set(Arc::new(number.into())))]),
        recorded: Vec::new(),
        activation: Activation {
            next: vec![format!("count:{}", number + 1).into()],
            ..Activation::default()
        },
    };
    let record = Record { at_ms: 1_767_225_700_000, fact: Fact::Step(step) };
    Numbered { number, record: Arc::new(record) }
}

fn batch(after: Number) -> Batch {
    let number = after + 1;
    Batch { after, records: vec![step(number)], reserve: number, ..Batch::default() }
}

#[test]
fn an_sqlite_with_the_wal_reset_defect_is_refused() {
    for old in ["3.7.0", "3.51.2", "2.99.99", "", "x"] {
        assert!(!is_safe(old), "{old}");
    }
    for new in ["3.51.3", "3.52.0", "4.0.0"] {
        assert!(is_safe(new), "{new}");
    }
}

#[tokio::test]
async fn a_table_named_like_ours_that_is_not_ours_is_refused_and_left_alone() {
    for made in [
        "CREATE TABLE exile_llm_message (theirs TEXT)",
        "CREATE VIEW exile_llm_skill AS SELECT 1 AS theirs",
        "CREATE TABLE exile_rag_chunk (theirs TEXT)",
    ] {
        let (_folder, path) = file();
        let mut theirs = connect(&path).await;
        sqlx::query(made).execute(&mut theirs).await.unwrap();
        let error = open(&path).await.err().unwrap();
        let StoreError::NotOpened { why, .. } = &error else { panic!("{error:?}") };
        let StoreError::Foreign { table } = &**why else { panic!("{error:?}") };
        assert!(made.contains(table.as_str()) && error.to_string().contains(table.as_str()));
        let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
            .fetch_one(&mut theirs)
            .await
            .unwrap();
        assert_eq!(tables, 1);
    }
}

#[tokio::test]
async fn tables_of_others_under_other_names_are_no_obstacle() {
    let (_folder, path) = file();
    let mut theirs = connect(&path).await;
    sqlx::query("CREATE TABLE exiles (id TEXT)").execute(&mut theirs).await.unwrap();
    open(&path).await.unwrap();
    open(&path).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let (_folder, path) = file();
    let text = "not a database, but long enough to be looked at ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let error = open(&path).await.err().unwrap();
    let said = error.to_string();
    for part in [path.to_str().unwrap(), "damaged", "file is not a database", "backup", ".recover"]
    {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn commits_are_synced_and_rows_keep_their_references() {
    let (_folder, path) = file();
    let store = open(&path).await.unwrap();
    let mut write = store.write().await.unwrap();
    for (pragma, expected) in
        [("PRAGMA journal_mode", "wal"), ("PRAGMA synchronous", "2"), ("PRAGMA foreign_keys", "1")]
    {
        let row = sqlx::query(pragma).fetch_one(write.connection()).await.unwrap();
        let found = match sqlx::Row::try_get::<String, _>(&row, 0) {
            Ok(text) => text,
            Err(_) => sqlx::Row::get::<i64, _>(&row, 0).to_string(),
        };
        assert_eq!(found, expected, "{pragma}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_whole_appends_and_room_heals_it() {
    let (_folder, path) = file();
    let store = open(&path).await.unwrap();
    let lease = held(&store, "run_1").await;
    store.append(&lease, &batch(0)).await.unwrap();
    let pages: u32 = {
        let mut write = store.write().await.unwrap();
        sqlx::query_scalar("PRAGMA page_count").fetch_one(write.connection()).await.unwrap()
    };
    store.limit_pages(pages).await.unwrap();
    let message = Message::text("msg_1".into(), Role::User, "x".repeat(100_000));
    let large = Batch {
        messages: vec![StoredMessage {
            message: Arc::new(message),
            run: RunId::from("run_1"),
            shown: true,
        }],
        consumed: vec![Consumed::taken(InputId::from("in_1"))],
        ..batch(1)
    };
    for _ in 0..3 {
        let refused = store.append(&lease, &large).await;
        assert!(matches!(refused, Err(JournalError::Full(_))), "{refused:?}");
        assert!(matches!(store.ping().await, Err(StoreError::Full(_))));
        let history = store.load(&lease.log, None).await.unwrap();
        assert_eq!((history.records.len(), history.messages.len(), history.reserved), (1, 0, 1));
        assert_eq!(store.inbox(&lease.log).await.unwrap().len(), 1);
    }
    let mut other = connect(&path).await;
    let check = sqlx::query_scalar("PRAGMA integrity_check");
    assert_eq!(check.fetch_one(&mut other).await.map(|s: String| s).unwrap(), "ok");
    store.limit_pages(0).await.unwrap();
    store.ping().await.unwrap();
    store.append(&lease, &large).await.unwrap();
    assert_eq!(store.load(&lease.log, None).await.unwrap().messages.len(), 1);
}

#[tokio::test]
async fn connections_that_went_away_while_nobody_asked_are_opened_again() {
    let (_folder, path) = file();
    let store = open(&path).await.unwrap();
    let lease = held(&store, "run_1").await;
    store.append(&lease, &batch(0)).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..super::READERS {
        idle.push(store.readers().acquire().await.unwrap());
    }
    for connection in idle {
        connection.close().await.unwrap();
    }
    store.shared.writer.close().await.unwrap();
    assert_eq!(store.load(&lease.log, None).await.unwrap().records.len(), 1);
    store.append(&lease, &batch(1)).await.unwrap();
    assert_eq!(store.load(&lease.log, None).await.unwrap().records.len(), 2);
}

#[tokio::test]
async fn a_home_of_the_first_version_is_brought_up_to_date_and_keeps_what_it_holds() {
    let (_folder, path) = file();
    let mut old = connect(&path).await;
    let mut first = super::migrations();
    first.migrations.to_mut().truncate(1);
    first.run(&mut old).await.unwrap();
    let rows = "
        INSERT INTO exile_log (id) VALUES ('run_1');
        INSERT INTO exile_llm_message
            (id, conversation, run, log, number, shown, role, content, created_at)
        VALUES ('msg_1', 'conv_1', 'run_1', 1, 1, 1, 'user', 'kept', 0)";
    sqlx::raw_sql(rows).execute(&mut old).await.unwrap();
    old.close().await.unwrap();
    let store = open(&path).await.unwrap();
    let content: String = sqlx::query_scalar("SELECT content FROM exile_llm_message")
        .fetch_one(store.readers())
        .await
        .unwrap();
    assert_eq!(content, "kept");
}

/// A home that has applied a migration refuses one of the same number that says something else.
#[test]
fn a_migration_that_has_landed_is_never_changed() {
    const LANDED: &[(&str, &str)] = &[(
        include_str!("../../../migrations/sqlite/0001_create_tables.sql"),
        "a37ea63675122df32e2879f26f6f7f04758b41b159a7376eeb778babe6b4de3c",
    )];
    for (text, hash) in LANDED {
        assert_eq!(&&*BlobId::of(text.as_bytes()).0, &format!("sha256:{hash}"));
    }
}

#[test]
fn a_lock_held_by_others_is_unavailable_and_an_unwritable_file_is_full() {
    use super::error::from_code;
    for code in [8, 10, 13, 778] {
        assert!(matches!(from_code(Some(code), String::new()), StoreError::Full(_)), "{code}");
    }
    for code in [5, 6, 261] {
        assert!(matches!(from_code(Some(code), String::new()), StoreError::Held(_)), "{code}");
    }
    for code in [14, 2058, 3850, 5130] {
        let error = from_code(Some(code), String::new());
        assert!(matches!(error, StoreError::Unavailable(_)), "{code}");
    }
    for code in [11, 26, 267, 8202, 8458] {
        assert!(matches!(from_code(Some(code), String::new()), StoreError::Damaged(_)), "{code}");
    }
}

#[tokio::test]
async fn a_file_that_another_program_holds_is_named_with_what_to_do() {
    let (_folder, path) = file();
    drop(open(&path).await.unwrap());
    let mut other = connect(&path).await;
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    let said = open(&path).await.err().unwrap().to_string();
    for part in [path.to_str().unwrap(), "another program holds", "start again"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    sqlx::query("COMMIT").execute(&mut other).await.unwrap();
    open(&path).await.unwrap();
}

/// Were each to wait for all before it, the last would wait for ten minutes.
#[tokio::test]
async fn writers_behind_a_lock_of_another_program_wait_side_by_side() {
    let (_folder, path) = file();
    let store = open(&path).await.unwrap();
    let mut other = connect(&path).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let send = |n: u32| {
        let store = store.clone();
        tokio::spawn(
            async move { store.create_user(&format!("user {n}"), super::Role::User).await },
        )
    };
    let sent: Vec<_> = (0..120).map(send).collect();
    for sent in sent {
        let error = sent.await.unwrap().err().unwrap();
        assert!(matches!(error, StoreError::Held(_)), "{error:?}");
    }
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    store.create_user("ann", super::Role::User).await.unwrap();
}

#[tokio::test]
async fn a_page_that_is_garbled_is_found_and_said() {
    let (_folder, path) = file();
    let store = open(&path).await.unwrap();
    assert_eq!(store.check().await.unwrap(), None);
    garble(&store, &path, "exile_llm_conversation").await;
    let store = open(&path).await.unwrap();
    let damage = store.check().await.unwrap().unwrap();
    let StoreError::Damaged(why) = store.ping().await.unwrap_err() else { panic!() };
    assert_eq!(why, damage);
}

/// Overwrites the first page of a table.
async fn garble(store: &Store, path: &Path, table: &str) {
    store.close().await.unwrap();
    let mut own = connect(path).await;
    let page: i64 = sqlx::query_scalar("SELECT rootpage FROM sqlite_schema WHERE name = ?1")
        .bind(table)
        .fetch_one(&mut own)
        .await
        .unwrap();
    let size: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&mut own).await.unwrap();
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut own).await.unwrap();
    own.close().await.unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let [page, size] = [page, size].map(|n| usize::try_from(n).unwrap());
    bytes[(page - 1) * size..page * size].fill(0x5a);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_record_of_a_newer_exile_is_refused_and_not_misread() {
    let (_folder, path) = file();
    let store = open(&path).await.unwrap();
    let lease = held(&store, "run_1").await;
    store.append(&lease, &batch(0)).await.unwrap();
    let mut other = connect(&path).await;
    sqlx::query("UPDATE exile_record SET version = 99").execute(&mut other).await.unwrap();
    let error = store.load(&lease.log, None).await.unwrap_err();
    assert!(matches!(&error, JournalError::Corrupt(why) if why.contains("newer")), "{error}");
}

#[tokio::test]
async fn a_small_step_is_stored_in_under_200_bytes() {
    const STEPS: u32 = 1_000;
    let (_folder, path) = file();
    let store = open(&path).await.unwrap();
    let lease = held(&store, "run_1").await;
    let steps = Batch {
        records: (1..=u64::from(STEPS)).map(step).collect(),
        reserve: u64::from(STEPS),
        ..Batch::default()
    };
    let before = pages(&path).await;
    store.append(&lease, &steps).await.unwrap();
    let each = (pages(&path).await - before) * 4096 / STEPS;
    assert!(each < 200, "{each} bytes for each step");
}

async fn pages(path: &Path) -> u32 {
    let mut other = connect(path).await;
    let pages = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut other).await.unwrap();
    other.close().await.unwrap();
    pages
}

/// 64 logs at once: fewer commits than appends, one refusal alone, and a full disk for one alone.
#[tokio::test]
async fn appends_of_many_logs_share_commits_and_fail_each_for_its_own_reason() {
    const LOGS: usize = 64;
    let (_folder, path) = file();
    let store = open(&path).await.unwrap();
    let mut leases = Vec::new();
    for n in 0..LOGS {
        leases.push(held(&store, &format!("run_{n}")).await);
    }
    leases[7].epoch += 1;
    let other = frames(&path);
    let batches: Vec<Batch> = (0..LOGS).map(|n| batch(if n == 9 { 5 } else { 0 })).collect();
    let appends = leases.iter().zip(&batches).map(|(lease, batch)| store.append(lease, batch));
    let outcomes = futures_util::future::join_all(appends).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        match n {
            7 => assert!(matches!(outcome, Err(JournalError::Fenced(_))), "{outcome:?}"),
            9 => assert!(matches!(outcome, Err(JournalError::Conflict { found: 0, .. }))),
            _ => assert!(outcome.is_ok(), "{n}: {outcome:?}"),
        }
        let stored = store.load(&leases[n].log, None).await.unwrap().records.len();
        assert_eq!(stored, usize::from(outcome.is_ok()));
    }
    let written = frames(&path) - other;
    assert!(written < LOGS, "{written} pages were written for {LOGS} appends");
}

/// Pages in the write-ahead log.
fn frames(path: &Path) -> usize {
    let wal = path.with_extension("db-wal");
    usize::try_from(std::fs::metadata(wal).unwrap().len()).unwrap() / 4120
}

#[tokio::test]
async fn a_caller_that_leaves_in_the_middle_of_an_append_leaves_nothing_half_done() {
    let (_folder, path) = file();
    let store = open(&path).await.unwrap();
    let lease = held(&store, "run_1").await;
    for polls in 0..8 {
        let before = store.load(&lease.log, None).await.unwrap();
        let head = before.records.last().map_or(0, |record| record.number);
        let batch = batch(head);
        {
            let append = store.append(&lease, &batch);
            tokio::pin!(append);
            for _ in 0..polls {
                if futures_util::poll!(append.as_mut()).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // It is stored whole, or it was never there: the next writer goes on from either.
        let other = held(&store, &format!("other_{polls}")).await;
        store.append(&other, &self::batch(0)).await.unwrap();
        let after = store.load(&lease.log, None).await.unwrap().records;
        let whole: Vec<_> = before.records.iter().chain(&batch.records).cloned().collect();
        assert!(after == before.records || after == whole, "after {polls} polls: {after:?}");
    }
}

#[tokio::test]
async fn of_a_group_that_does_not_fit_each_append_succeeds_or_fails_by_itself() {
    let (_folder, path) = file();
    let store = open(&path).await.unwrap();
    let mut leases = Vec::new();
    for n in 0..8 {
        leases.push(held(&store, &format!("run_{n}")).await);
    }
    let pages: u32 = {
        let mut write = store.write().await.unwrap();
        sqlx::query_scalar("PRAGMA page_count").fetch_one(write.connection()).await.unwrap()
    };
    store.limit_pages(pages).await.unwrap();
    let large = Message::text("msg_1".into(), Role::User, "x".repeat(100_000));
    let stored = StoredMessage { message: Arc::new(large), run: "run_3".into(), shown: true };
    let mut batches = vec![batch(0); 8];
    batches[3].messages.push(stored);
    let appends = leases.iter().zip(&batches).map(|(lease, batch)| store.append(lease, batch));
    for (n, outcome) in futures_util::future::join_all(appends).await.into_iter().enumerate() {
        let stored = store.load(&leases[n].log, None).await.unwrap().records.len();
        assert_eq!((outcome.is_ok(), stored), (n != 3, usize::from(n != 3)), "{n}: {outcome:?}");
    }
    let mut other = connect(&path).await;
    let check = sqlx::query_scalar("PRAGMA integrity_check");
    assert_eq!(check.fetch_one(&mut other).await.map(|s: String| s).unwrap(), "ok");
    store.limit_pages(0).await.unwrap();
    store.append(&leases[3], &batches[3]).await.unwrap();
}

#[tokio::test]
async fn equal_large_values_are_stored_once() {
    let (_folder, path) = file();
    let store = open(&path).await.unwrap();
    let before = pages(&path).await;
    let text = "0123456789".repeat(10_000);
    let mut logs = Vec::new();
    for name in ["run_1", "run_2"] {
        let lease = held(&store, name).await;
        let mut records = Vec::new();
        for number in 1..=20 {
            let delta = Delta::from_iter([(
                "n".into(),
                Op::Set(Arc::new(serde_json::json!({ "text": text }))),
            )]);
            let Fact::Step(small) = step(number).record.fact.clone() else { panic!("no step") };
            let fact = Fact::Step(Step { delta, ..small });
            records.push(Numbered { number, record: Arc::new(Record { at_ms: 1, fact }) });
        }
        store.append(&lease, &Batch { records: records.clone(), ..batch(0) }).await.unwrap();
        logs.push((lease.log, records));
    }
    for (log, records) in logs {
        assert_eq!(store.load(&log, None).await.unwrap().records, records);
    }
    let size = (pages(&path).await - before) * 4096;
    assert!(size < 120_000, "{size} bytes for 100,000 that are forty times the same");
}

#[tokio::test]
async fn turn_501_of_a_conversation_is_small_on_disk() {
    let (_folder, path) = file();
    let store = open(&path).await.unwrap();
    let lease = held(&store, "run_1").await;
    let before = pages(&path).await;
    for turn in 0..500_u64 {
        let run = format!("run_{turn:032}");
        let ids = [format!("msg_{turn:032}"), format!("msg_9{turn:031}")];
        let mut ask = step(turn * 4 + 1);
        let Fact::Step(small) = ask.record.fact.clone() else { panic!("no step") };
        let named = ids.iter().map(|id| id.as_str().into()).collect();
        let delta = Delta::from_iter([("messages".into(), Op::Messages(named))]);
        let fact = Fact::Step(Step { delta, ..small });
        ask.record = Arc::new(Record { at_ms: 1_767_225_700_000, fact });
        let message = |id: &String| StoredMessage {
            message: Arc::new(Message::text(id.as_str().into(), Role::User, "x".repeat(400))),
            run: run.as_str().into(),
            shown: true,
        };
        let (after, reserve) = ((turn * 4).saturating_sub(2), turn * 4 + 2);
        let records = vec![ask, step(turn * 4 + 2)];
        let messages = ids.iter().map(message).collect();
        let batch = Batch { after, records, reserve, messages, consumed: Vec::new() };
        store.append(&lease, &batch).await.unwrap();
    }
    let bytes = (pages(&path).await - before) * 4096;
    assert!(bytes < 2_000_000, "{bytes} bytes for 500 turns of 0.8 KB");
}
