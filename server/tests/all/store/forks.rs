//! Rows of runs that wait, that go back, and that are forks.

use exile_engine::id::{ConversationId, LogId, MessageId, RunId};
use exile_engine::journal::{Batch, BlobId, Journal as _, Lease};
use exile_engine::message::Role;
use exile_engine::run::record::{EndStatus, Fact, Number, Numbered, RunError};
use exile_server::store::{Deletion, Page, RunRow, RunStatus, Store};

use super::write::{
    claim, conversation, ended, forked, message, record, send, send_fork, started, turn, user,
    waiting,
};
use super::{Home, PAGE};

async fn run(store: &Store, id: &str) -> RunRow {
    store.run(&user("ann"), &RunId::from(id)).await.unwrap().unwrap()
}

async fn append(store: &Store, lease: &Lease, after: Number, records: Vec<Numbered>) {
    store.append(lease, &Batch { after, records, ..Batch::default() }).await.unwrap();
}

/// What the user sees of the conversation.
async fn shown(store: &Store, id: &ConversationId) -> Vec<String> {
    let listed =
        store.list_messages(&user("ann"), id, Page::default(), PAGE).await.unwrap().unwrap();
    listed.items.into_iter().map(|row| row.message.id.to_string()).collect()
}

#[tokio::test]
async fn a_run_that_waits_says_so_until_something_follows() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    send(&store, "ann", "run_1", None).await;
    let lease = claim(&store).await;
    let records = vec![started(1, "ann", "run_1", None), waiting(2, "run_1", None)];
    append(&store, &lease, 0, records).await;
    let row = run(&store, "run_1").await;
    assert_eq!((row.status, row.error, row.last), (RunStatus::Waiting, None, 2));

    let attention = RunError::new("open_call".to_owned(), "a call may have happened".to_owned());
    let records = vec![waiting(3, "run_1", Some(attention.clone()))];
    append(&store, &lease, 2, records).await;
    let row = run(&store, "run_1").await;
    assert_eq!((row.status, row.error), (RunStatus::NeedsAttention, Some(attention)));

    append(&store, &lease, 3, vec![record(4, 5, Fact::Resumed { epoch: 9, trial: None })]).await;
    let row = run(&store, "run_1").await;
    assert_eq!((row.status, row.error, row.ended_at), (RunStatus::Running, None, None));
    append(&store, &lease, 4, vec![waiting(5, "run_1", None)]).await;
    append(&store, &lease, 5, vec![ended(6, "run_1", EndStatus::Cancelled)]).await;
    assert_eq!(run(&store, "run_1").await.status, RunStatus::Cancelled);
}

#[tokio::test]
async fn a_run_that_was_moved_is_pinned_to_its_new_bundle() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    send(&store, "ann", "run_1", None).await;
    let lease = claim(&store).await;
    let bundle = BlobId::of(b"new");
    let moved = record(2, 5, Fact::Migrated { bundle: bundle.clone() });
    append(&store, &lease, 0, vec![started(1, "ann", "run_1", None), moved]).await;
    assert_eq!(run(&store, "run_1").await.bundle, bundle);
}

#[tokio::test]
async fn a_fork_inside_a_conversation_hides_what_it_went_back_over() {
    let home = Home::new().await;
    let store = home.store.clone();
    let id = conversation(&store, "ann").await;
    turn(&store, "ann", "run_1", &id, 0).await;
    turn(&store, "ann", "run_2", &id, 5).await;
    let log = LogId::from(&id);
    send_fork(&store, ("run_3", "run_2"), &log, 6, Some(&id)).await;
    assert_eq!(run(&store, "run_3").await.status, RunStatus::Queued);
    assert_eq!(home.input("run_3").await, home.input("run_2").await);
    let lease = claim(&store).await;
    append(&store, &lease, 10, vec![forked(12, Some("run_3"), "run_2", 6)]).await;
    let row = run(&store, "run_3").await;
    assert_eq!((row.status, row.first), (RunStatus::Running, 12));
    assert_eq!(run(&store, "run_2").await.status, RunStatus::Finished);
    let first = ["msg_run_1_asked", "msg_run_1_answered", "msg_run_2_asked"];
    assert_eq!(shown(&store, &id).await, first);
    let answered = MessageId::from("msg_run_2_answered");
    assert!(store.message(&user("ann"), &answered).await.unwrap().is_some());

    let answer = Batch {
        after: 12,
        records: vec![ended(13, "run_3", EndStatus::Finished)],
        messages: vec![message("msg_new", "run_3", Role::Assistant, "new", true)],
        ..Batch::default()
    };
    store.append(&lease, &answer).await.unwrap();
    assert_eq!(shown(&store, &id).await, [&first[..], &["msg_new"]].concat());
    // Going back into what was left brings it back.
    append(&store, &lease, 13, vec![forked(14, None, "run_2", 10)]).await;
    assert_eq!(shown(&store, &id).await, [&first[..], &["msg_run_2_answered"]].concat());
}

#[tokio::test]
async fn the_run_that_was_gone_back_over_is_cancelled() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    send(&store, "ann", "run_1", None).await;
    let lease = claim(&store).await;
    append(&store, &lease, 0, vec![started(1, "ann", "run_1", None)]).await;
    append(&store, &lease, 1, vec![waiting(2, "run_1", None)]).await;
    send_fork(&store, ("run_2", "run_1"), &lease.log, 1, None).await;
    let lease = claim_own(&store, "run_2").await;
    append(&store, &lease, 1, vec![forked(9, Some("run_2"), "run_1", 1)]).await;
    assert_eq!(run(&store, "run_1").await.status, RunStatus::Waiting);
    append(&store, &lease, 9, vec![forked(10, None, "run_2", 1)]).await;
    let row = run(&store, "run_2").await;
    assert_eq!((row.status, row.last), (RunStatus::Cancelled, 10));
    assert!(row.ended_at.is_some());
}

/// Claims the log of that name.
async fn claim_own(store: &Store, log: &str) -> Lease {
    let lease = claim(store).await;
    assert_eq!(lease.log.as_str(), log);
    lease
}

#[tokio::test]
async fn a_fork_outlives_the_conversation_that_it_forks() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let id = conversation(&store, "ann").await;
    turn(&store, "ann", "run_1", &id, 0).await;
    let child = send_fork(&store, ("run_2", "run_1"), &LogId::from(&id), 5, None).await;
    let grandchild = send_fork(&store, ("run_3", "run_2"), &child, 1, None).await;
    let before = store.load(&grandchild, None).await.unwrap();
    assert_eq!((before.records.len(), before.messages.len()), (1, 1));
    let deleted = store.delete_conversation(&user("ann"), &id).await.unwrap();
    assert_eq!(deleted, Deletion::Deleted);
    assert_eq!(store.load(&grandchild, None).await.unwrap(), before);
    assert_eq!(store.load(&child, None).await.unwrap().records.len(), 2);
    assert!(store.find(&RunId::from("run_1")).await.unwrap().is_none());
}
