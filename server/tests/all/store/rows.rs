//! Conversations, messages and runs: what their owner sees, and that nobody else does.

use exile_engine::id::{ConversationId, MessageId, RunId};
use exile_engine::journal::{Batch, Consumed, Journal as _};
use exile_engine::message::Role;
use exile_engine::model::Usage;
use exile_engine::run::record::EndStatus;
use exile_server::store::{
    Deletion, MessageRow, Page, RunFilter, RunRow, RunStatus, SkillRow, Store, StoreError,
};
use sqlx::ConnectOptions as _;

use super::write::{TRACE, claim, conversation, ended, message, send, started, step, turn, user};
use super::{Home, PAGE};

async fn status(store: &Store, run: &str) -> RunStatus {
    store.run(&user("ann"), &RunId::from(run)).await.unwrap().unwrap().status
}

fn page(after: Option<String>, limit: u32) -> Page {
    Page { after, limit }
}

#[tokio::test]
async fn a_conversation_is_read_back_as_it_was_made_after_a_restart_too() {
    let home = Home::new().await;
    let id = conversation(&home.store, "ann").await;
    let made = home.store.conversation(&user("ann"), &id).await.unwrap().unwrap();
    let home = home.reopen().await;
    let found = home.store.conversation(&user("ann"), &id).await.unwrap().unwrap();
    assert_eq!(found, made);
    assert_eq!(found.title.as_deref(), Some("Title"));
    assert_eq!(found.graph, "chat");
    assert_eq!(found.skill.as_deref(), Some("support"));
    assert_eq!((found.provider.as_deref(), found.model.as_deref()), (Some("mock"), Some("mock/m")));
    assert_eq!(found.business.as_deref(), Some("marketing"));
    assert_eq!(found.system_prompt.as_deref(), Some("Be brief."));
}

#[tokio::test]
async fn another_owner_finds_nothing_by_any_read() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let id = conversation(&store, "ann").await;
    turn(&store, "ann", "run_1", &id, 0).await;
    for (owner, sees) in [("ann", true), ("bob", false), ("", false), ("ANN", false)] {
        let owner = user(owner);
        let run = RunId::from("run_1");
        let asked = MessageId::from("msg_run_1_asked");
        assert_eq!(store.conversation(&owner, &id).await.unwrap().is_some(), sees);
        let listed = store.list_conversations(&owner, Page::default(), PAGE).await.unwrap();
        assert_eq!(!listed.items.is_empty(), sees);
        let messages = store.list_messages(&owner, &id, Page::default(), PAGE).await.unwrap();
        assert_eq!(messages.is_some(), sees);
        assert_eq!(store.message(&owner, &asked).await.unwrap().is_some(), sees);
        assert_eq!(store.run(&owner, &run).await.unwrap().is_some(), sees);
        let of = RunFilter { conversation: Some(id.clone()), ..RunFilter::default() };
        for filter in [RunFilter::default(), of] {
            let runs = store.list_runs(&owner, filter, Page::default()).await.unwrap();
            assert_eq!(!runs.items.is_empty(), sees);
        }
    }
    let refused = store.delete_conversation(&user("bob"), &id).await.unwrap();
    assert_eq!(refused, Deletion::Unknown);
    assert!(store.conversation(&user("ann"), &id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_conversation_shows_its_messages_in_order_and_hides_inner_ones() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let id = conversation(&store, "ann").await;
    turn(&store, "ann", "run_1", &id, 0).await;
    turn(&store, "ann", "run_2", &id, 5).await;
    let owner = user("ann");
    let all = store.list_messages(&owner, &id, Page::default(), PAGE).await.unwrap().unwrap();
    let shown: Vec<_> = all.items.iter().map(|m| m.message.id.to_string()).collect();
    let expected =
        ["msg_run_1_asked", "msg_run_1_answered", "msg_run_2_asked", "msg_run_2_answered"];
    assert_eq!(shown, expected);
    assert_eq!(all.next, None);
    let answer = &all.items[1];
    assert_eq!((answer.message.role, answer.message.content.as_str()), (Role::Assistant, "answer"));
    assert_eq!((answer.run.as_str(), answer.conversation.as_ref()), ("run_1", Some(&id)));
    assert_eq!((answer.number, answer.created_at.as_millisecond()), (5, 1_767_225_800_000));
    let hidden = MessageId::from("msg_run_1_hidden");
    assert!(store.message(&owner, &hidden).await.unwrap().is_some());
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(conversation(&store, "ann").await);
        conversation(&store, "bob").await;
    }
    ids.reverse();
    for limit in [1, 2, 4, 5, 6] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let part =
                store.list_conversations(&user("ann"), page(after, limit), PAGE).await.unwrap();
            assert!(part.items.len() <= limit as usize);
            found.extend(part.items.into_iter().map(|c| c.id));
            after = part.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, ids, "in pages of {limit}");
    }
    let none = store.list_conversations(&user("ann"), page(None, 0), PAGE).await.unwrap();
    assert_eq!(none.items.len(), 1, "a page holds at least one");
}

#[tokio::test]
async fn a_cursor_that_no_list_gave_out_is_refused() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    for cursor in ["", "1", "../..", "AAAA", "' OR 1=1 --", "AAAAAAAAAAAAAAAAAAAAAAAA"] {
        let listed =
            store.list_conversations(&user("ann"), page(Some(cursor.to_owned()), 5), PAGE).await;
        assert!(matches!(listed, Err(StoreError::Cursor)), "{cursor}");
    }
}

#[tokio::test]
async fn a_run_row_follows_its_records() {
    let home = Home::new().await;
    let store = home.store.clone();
    let owner = user("ann");
    send(&store, "ann", "run_1", None).await;
    let run = store.run(&owner, &RunId::from("run_1")).await.unwrap().unwrap();
    assert_eq!((run.status, run.first, run.last), (RunStatus::Queued, 0, 0));
    assert_eq!((run.log.as_str(), run.graph.as_str()), ("run_1", "chat"));
    assert_eq!(home.input("run_1").await["n"], 1);
    assert_eq!(run.trace_id.as_deref(), Some(TRACE));
    assert_eq!((run.started_at, run.ended_at), (None, None));

    let lease = claim(&store).await;
    let begin = Batch {
        records: vec![started(3, "ann", "run_1", None)],
        reserve: 9,
        messages: vec![message("msg_run_1_asked", "run_1", Role::User, "q", true)],
        ..Batch::default()
    };
    store.append(&lease, &begin).await.unwrap();
    let run = store.run(&owner, &RunId::from("run_1")).await.unwrap().unwrap();
    assert_eq!((run.status, run.first, run.last), (RunStatus::Running, 3, 3));
    assert_eq!(run.started_at.map(jiff::Timestamp::as_millisecond), Some(1_767_225_700_000));

    let records = vec![step(5, "msg_run_1_asked")];
    store.append(&lease, &Batch { after: 3, records, ..Batch::default() }).await.unwrap();
    let run = store.run(&owner, &RunId::from("run_1")).await.unwrap().unwrap();
    assert_eq!((run.status, run.first, run.last), (RunStatus::Running, 3, 5));

    let records = vec![ended(8, "run_1", EndStatus::Failed)];
    store.append(&lease, &Batch { after: 5, records, ..Batch::default() }).await.unwrap();
    let run = store.run(&owner, &RunId::from("run_1")).await.unwrap().unwrap();
    assert_eq!((run.status, run.first, run.last), (RunStatus::Failed, 3, 8));
    assert_eq!(run.usage, Usage { input: 30, cached: 10, written: 0, output: 20, reasoning: 5 });
    assert_eq!(run.error.unwrap().code, "provider_unavailable");
    assert_eq!(run.ended_at.map(jiff::Timestamp::as_millisecond), Some(1_767_225_800_000));
}

#[tokio::test]
async fn every_end_has_its_status() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    for (run, end, expected) in [
        ("run_1", EndStatus::Finished, RunStatus::Finished),
        ("run_2", EndStatus::Failed, RunStatus::Failed),
        ("run_3", EndStatus::Cancelled, RunStatus::Cancelled),
    ] {
        send(&store, "ann", run, None).await;
        let lease = claim(&store).await;
        let records = vec![started(1, "ann", run, None), ended(2, run, end)];
        store.append(&lease, &Batch { records, ..Batch::default() }).await.unwrap();
        assert_eq!(status(&store, run).await, expected);
        assert_eq!(RunStatus::parse(expected.as_str()), Some(expected));
    }
}

#[tokio::test]
async fn runs_are_listed_newest_first_and_filtered() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let id = conversation(&store, "ann").await;
    turn(&store, "ann", "run_1", &id, 0).await;
    send(&store, "ann", "run_2", None).await;
    send(&store, "ann", "run_3", Some(&id)).await;
    let none = RunFilter::default();
    for (filter, expected) in [
        (none.clone(), vec!["run_3", "run_2", "run_1"]),
        (RunFilter { conversation: Some(id), ..none.clone() }, vec!["run_3", "run_1"]),
        (RunFilter { status: Some(RunStatus::Finished), ..none.clone() }, vec!["run_1"]),
        (RunFilter { graph: Some("other".to_owned()), ..none.clone() }, vec![]),
        (RunFilter { graph: Some("chat".to_owned()), ..none }, vec!["run_3", "run_2", "run_1"]),
    ] {
        let runs = store.list_runs(&user("ann"), filter, Page::default()).await.unwrap();
        let found: Vec<_> = runs.items.iter().map(|r| r.id.as_str()).collect();
        assert_eq!(found, expected);
    }
}

/// Every way to ask, in pages, against what going through all of them gives.
#[tokio::test]
async fn every_filter_of_runs_gives_what_it_names_and_nothing_else() {
    let home = Home::new().await;
    let store = &home.store;
    let of = [None, Some(conversation(store, "ann").await), Some(conversation(store, "ann").await)];
    let mut connection = exile_server::store::options(&home.database()).connect().await.unwrap();
    for n in 0..84 {
        let (run, of) = (format!("run_{n}"), of[n % 3].as_ref());
        send(store, "ann", &run, of).await;
        send(store, "bob", &format!("other_{n}"), None).await;
        sqlx::query("UPDATE exile_run SET status = ?2, graph = ?3 WHERE id = ?1")
            .bind(&run)
            .bind(RunStatus::ALL[n / 3 % 7].as_str())
            .bind(["chat", "agent"][n / 21 % 2])
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let all = Page { after: None, limit: 200 };
    let all = store.list_runs(&user("ann"), RunFilter::default(), all).await.unwrap().items;
    assert_eq!(all.len(), 84);
    let whole = Page { after: None, limit: 200 };
    let everybody = store.list_all_runs(RunFilter::default(), whole.clone()).await.unwrap().items;
    assert_eq!(everybody.len(), 168);
    for conversation in of {
        for status in RunStatus::ALL.into_iter().map(Some).chain([None]) {
            for graph in [None, Some("chat"), Some("agent"), Some("none")] {
                let named = |row: &&RunRow| {
                    (conversation.is_none() || row.conversation == conversation)
                        && status.is_none_or(|status| row.status == status)
                        && graph.is_none_or(|graph| row.graph == graph)
                };
                let expected: Vec<_> = all.iter().filter(named).map(|row| &row.id).collect();
                let filter = RunFilter {
                    conversation: conversation.clone(),
                    status,
                    graph: graph.map(str::to_owned),
                };
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let part = page(after, 5);
                    let part = store.list_runs(&user("ann"), filter.clone(), part).await.unwrap();
                    found.extend(part.items.into_iter().map(|row| row.id));
                    after = part.next;
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter:?}");
                let of_all = store.list_all_runs(filter.clone(), whole.clone()).await.unwrap();
                let expected = everybody.iter().filter(named);
                assert!(of_all.items.iter().eq(expected), "{filter:?} of everybody");
                let others = store.list_runs(&user("bob"), filter, Page::default()).await.unwrap();
                assert!(others.items.iter().all(|row| row.owner == user("bob")));
            }
        }
    }
}

#[tokio::test]
async fn a_page_of_messages_or_conversations_holds_no_more_bytes_than_it_may() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let id = conversation(&store, "ann").await;
    for n in 0..10 {
        turn(&store, "ann", &format!("run_{n}"), &id, n * 5).await;
    }
    let owner = user("ann");
    let whole = page(None, 200);
    let all = store.list_messages(&owner, &id, whole, PAGE).await.unwrap().unwrap().items;
    let size = |row: &MessageRow| row.message.content.len();
    for bytes in [0, 1, 6, 13, 20, 64, PAGE] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let part = store.list_messages(&owner, &id, page(after, 7), bytes).await.unwrap();
            let part = part.unwrap();
            let total: usize = part.items.iter().map(size).sum();
            assert!(part.items.len() == 1 || total <= bytes, "{total} in pages of {bytes}");
            found.extend(part.items);
            after = part.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, all, "in pages of {bytes} bytes");
    }
    for _ in 0..3 {
        conversation(&store, "ann").await;
    }
    let part = store.list_conversations(&owner, Page::default(), 20).await.unwrap();
    assert_eq!((part.items.len(), part.next.is_some()), (1, true), "14 bytes each");
}

#[tokio::test]
async fn deleting_a_conversation_takes_all_of_it_and_waits_for_its_runs() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let (owner, id) = (user("ann"), conversation(&store, "ann").await);
    let other = conversation(&store, "ann").await;
    turn(&store, "ann", "run_1", &id, 0).await;
    turn(&store, "ann", "run_9", &other, 0).await;
    let log = send(&store, "ann", "run_2", Some(&id)).await;
    assert_eq!(store.delete_conversation(&owner, &id).await.unwrap(), Deletion::Active);
    let lease = claim(&store).await;
    let consumed = vec![Consumed::taken("in_run_2".into())];
    let records = vec![ended(9, "run_2", EndStatus::Cancelled)];
    let batch = Batch { after: 5, records, consumed, ..Batch::default() };
    store.append(&lease, &batch).await.unwrap();
    assert_eq!(store.delete_conversation(&owner, &id).await.unwrap(), Deletion::Deleted);
    assert_eq!(store.delete_conversation(&owner, &id).await.unwrap(), Deletion::Unknown);

    assert!(store.conversation(&owner, &id).await.unwrap().is_none());
    assert!(store.load(&log, None).await.unwrap().records.is_empty());
    assert!(store.run(&owner, &RunId::from("run_1")).await.unwrap().is_none());
    assert!(store.find(&RunId::from("run_2")).await.unwrap().is_none());
    let asked = MessageId::from("msg_run_1_asked");
    assert!(store.message(&owner, &asked).await.unwrap().is_none());
    assert!(store.run(&owner, &RunId::from("run_9")).await.unwrap().is_some());
    let kept = store.list_messages(&owner, &other, Page::default(), PAGE).await.unwrap().unwrap();
    assert_eq!(kept.items.len(), 2);
}

#[tokio::test]
async fn a_run_in_a_conversation_that_is_gone_is_refused_whole() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let gone = ConversationId::from("conv_gone");
    let start = exile_engine::journal::StartRun {
        run: RunId::from("run_1"),
        graph: "chat".into(),
        bundle: exile_engine::journal::BlobId::of(b"bundle"),
        owner: user("ann"),
        conversation: Some(gone.clone()),
        options: exile_engine::run::record::RunOptions::default(),
        input: serde_json::Map::new(),
        traceparent: None,
        if_active: exile_engine::journal::IfActive::Enqueue,
        durability: None,
    };
    let input = exile_engine::journal::Input::Start(Box::new(start));
    let log = exile_engine::id::LogId::from(&gone);
    store.send(&log, &"in_1".into(), &input).await.unwrap_err();
    assert!(store.inbox(&log).await.unwrap().is_empty());
    assert!(store.find(&RunId::from("run_1")).await.unwrap().is_none());
    store.ping().await.unwrap();
}

#[tokio::test]
async fn one_log_cannot_replace_a_message_of_another() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    for (owner, run) in [("ann", "run_1"), ("bob", "run_2")] {
        send(&store, owner, run, None).await;
        let lease = claim(&store).await;
        let batch = Batch {
            records: vec![started(1, owner, run, None)],
            messages: vec![message("msg_same", run, Role::User, owner, true)],
            ..Batch::default()
        };
        store.append(&lease, &batch).await.unwrap();
    }
    for owner in ["ann", "bob"] {
        let found = store.message(&user(owner), &MessageId::from("msg_same")).await.unwrap();
        assert_eq!(found.unwrap().message.content, owner);
    }
}

#[tokio::test]
async fn skills_follow_the_files() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let skill = |name: &str| SkillRow {
        name: name.to_owned(),
        description: "d".to_owned(),
        prompt: "p".to_owned(),
        model: None,
        temperature: Some(0.2),
        tools: vec!["calculator".to_owned()],
        rag_config: Some(serde_json::json!({ "top_k": 6 })),
        mcp_servers: Vec::new(),
        source: format!("graphs/skills/{name}.yaml"),
    };
    store.sync_skills(&[skill("a"), skill("b")]).await.unwrap();
    store.sync_skills(&[skill("b"), skill("c")]).await.unwrap();
    let names: Vec<_> = store.skills().await.unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(store.skills().await.unwrap()[0], skill("b"));
}
