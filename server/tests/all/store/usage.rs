//! Usage rows: written with the next append or when they are flushed, each once, and never lost.

use exile_engine::model::Usage;
use exile_server::store::{Grouping, OK, Slot, Spending, Store, UsageFilter, UsageRow};

use super::Home;
use super::write::{conversation, turn, user};

fn row(id: &str, input: u64) -> UsageRow {
    UsageRow {
        id: id.into(),
        at_ms: 5_000,
        owner: user("ann"),
        key: None,
        provider: "lab".into(),
        model: "m".into(),
        business: None,
        graph: None,
        run: None,
        usage: Usage { input, ..Usage::default() },
        cost: Some(input),
        currency: "USD".into(),
        took_ms: 1,
        first_ms: None,
        attempts: 1,
        outcome: OK.into(),
        estimated: false,
        last: true,
    }
}

async fn read(store: &Store) -> Spending {
    let all = UsageFilter { to_ms: i64::MAX, ..UsageFilter::default() };
    let slots: Vec<Slot> = store.usage(&all, Grouping::default()).await.unwrap();
    slots.first().map(|slot| slot.spending).unwrap_or_default()
}

#[tokio::test]
async fn rows_go_with_the_next_append() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let id = conversation(&store, "ann").await;
    store.note_usage(row("a", 7));
    assert_eq!(read(&store).await.calls, 0);
    turn(&store, "ann", "run_1", &id, 0).await;
    let found = read(&store).await;
    assert_eq!((found.calls, found.usage.input, store.waiting_usage()), (1, 7, 0));
}

#[tokio::test]
async fn a_row_that_is_written_again_replaces_itself() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    store.note_usage(row("a", 7));
    store.flush_usage().await.unwrap();
    store.note_usage(row("a", 9));
    store.note_usage(row("b", 1));
    store.flush_usage().await.unwrap();
    let found = read(&store).await;
    assert_eq!((found.calls, found.usage.input, found.cost), (2, 10, 10));
}

#[tokio::test]
async fn what_could_not_be_written_waits_and_what_is_beyond_belief_is_bounded() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    store.limit_pages(1).await.unwrap();
    for n in 0..200 {
        store.note_usage(row(&format!("row {n}"), 1));
    }
    assert!(store.flush_usage().await.is_err());
    assert_eq!(store.waiting_usage(), 200);
    store.limit_pages(0).await.unwrap();
    store.note_usage(row("too much", u64::MAX));
    store.flush_usage().await.unwrap();
    let found = read(&store).await;
    assert_eq!((found.calls, found.usage.input), (201, 1_000_000_000_200));
}

#[tokio::test]
async fn usage_is_removed_when_it_is_old() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    store.note_usage(row("old", 7));
    store.note_usage(UsageRow { at_ms: 9_000, ..row("new", 1) });
    store.flush_usage().await.unwrap();
    let before = jiff::Timestamp::from_millisecond(9_000).unwrap();
    assert_eq!(store.purge_usage(before).await.unwrap(), 1);
    let found = read(&store).await;
    assert_eq!((found.calls, found.usage.input), (1, 1));
}
