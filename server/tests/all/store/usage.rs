//! Usage rows: written with the next append or when they are flushed, each once, and never lost.

use std::sync::Arc;

use exile_engine::env::{Env as _, StepEnv};
use exile_engine::model::Usage;
use exile_server::store::{
    self, Grouping, MINUTE_MS, OK, OPEN, QUARTER_MS, Spender, Spending, Spent, Store, UsageFilter,
    UsageRow,
};
use sqlx::ConnectOptions as _;

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
    let groups = store.usage(&all, Grouping::default(), None, 10).await.unwrap();
    groups.first().map(|group| group.spending).unwrap_or_default()
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
    store.note_usage(row("older", 7));
    store.flush_usage().await.unwrap();
    let before = jiff::Timestamp::from_millisecond(9_000).unwrap();
    let removed = async || store.purge_usage(before, 1).await.unwrap();
    assert_eq!([removed().await, removed().await, removed().await], [1, 1, 0], "one at a time");
    let found = read(&store).await;
    assert_eq!((found.calls, found.usage.input), (1, 1));
}

/// What somebody spent from one time up to another.
async fn spent(store: &Store, who: Spender<'_>, stretch: (i64, i64, i64)) -> Spent {
    store.spent(who, stretch, "USD").await.unwrap()
}

fn sum(requests: u64, calls: u64, tokens: u64) -> Spent {
    Spent { requests, calls, tokens, cost: tokens }
}

#[tokio::test]
async fn sums_are_those_of_the_rows_that_are_over_each_once() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let hour = (QUARTER_MS, 0, 4 * QUARTER_MS);
    let open = UsageRow { outcome: OPEN.into(), ..row("a", 1_000) };
    store.note_usage(open);
    store.flush_usage().await.unwrap();
    assert_eq!(spent(&store, Spender::User("ann"), hour).await, Spent::default(), "it goes on");
    let late = UsageRow { at_ms: 70_000, model: "n".into(), last: false, ..row("b", 5) };
    let other = UsageRow { currency: "CNY".into(), key: Some("key_1".into()), ..row("c", 2) };
    let business = UsageRow { business: Some("sales".into()), owner: user("bob"), ..row("d", 3) };
    for row in [row("a", 7), row("a", 7), late, other, business] {
        store.note_usage(row);
    }
    store.flush_usage().await.unwrap();
    // A row that is written again was counted.
    store.note_usage(row("a", 7));
    store.flush_usage().await.unwrap();
    let of = async |who| spent(&store, who, hour).await;
    assert_eq!(
        of(Spender::User("ann")).await,
        Spent { cost: 12, ..sum(2, 3, 14) },
        "CNY is not USD"
    );
    assert_eq!(of(Spender::Key("key_1")).await, Spent { cost: 0, ..sum(1, 1, 2) });
    assert_eq!(of(Spender::Business("sales")).await, sum(1, 1, 3));
    assert_eq!(of(Spender::Models("lab/m")).await, Spent { cost: 10, ..sum(3, 3, 12) });
    assert_eq!(of(Spender::Models("lab/*")).await, Spent { cost: 15, ..sum(3, 4, 17) });
    assert_eq!(of(Spender::Models("la")).await, Spent::default());
    assert_eq!(of(Spender::User("nobody")).await, Spent::default());
    let minute = |n| (MINUTE_MS, n * MINUTE_MS, (n + 1) * MINUTE_MS);
    assert_eq!(spent(&store, Spender::User("ann"), minute(1)).await, sum(0, 1, 5));
    assert_eq!(spent(&store, Spender::User("ann"), minute(2)).await, Spent::default());
}

#[tokio::test]
async fn a_call_that_ended_with_its_process_is_in_the_sums_as_what_was_reserved() {
    let home = Home::new().await;
    home.store.note_usage(UsageRow { outcome: OPEN.into(), ..row("a", 1_000) });
    home.store.flush_usage().await.unwrap();
    let hour = (QUARTER_MS, 0, 4 * QUARTER_MS);
    let home = home.reopen().await;
    assert_eq!(spent(&home.store, Spender::User("ann"), hour).await, sum(1, 1, 1_000));
    let home = home.reopen().await;
    assert_eq!(spent(&home.store, Spender::User("ann"), hour).await, sum(1, 1, 1_000), "once");
}

#[tokio::test]
async fn sums_beyond_belief_end_where_they_can_be_added_to() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    for n in 0..3 {
        let most = Usage { input: u64::MAX, output: u64::MAX, ..Usage::default() };
        let cost = Some(u64::MAX);
        store.note_usage(UsageRow { usage: most, cost, ..row(&n.to_string(), 0) });
        store.flush_usage().await.unwrap();
    }
    let found = spent(&store, Spender::User("ann"), (QUARTER_MS, 0, QUARTER_MS)).await;
    assert_eq!(
        (found.requests, found.tokens, found.cost),
        (3, 6_000_000_000_000, 3_000_000_000_000)
    );
}

#[tokio::test]
async fn sums_go_when_no_window_is_as_long_any_more_a_few_at_a_time() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    store.note_usage(row("a", 7));
    store.flush_usage().await.unwrap();
    let at = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap();
    let both = async || {
        let of = async |slot_ms| spent(&store, Spender::User("ann"), (slot_ms, 0, 900_000)).await;
        [of(MINUTE_MS).await.tokens, of(QUARTER_MS).await.tokens]
    };
    assert!(!store.purge_spent(at(3_600_000), 10).await.unwrap());
    assert_eq!(both().await, [7, 7]);
    let month = at(3_600_000 * 24 * 31);
    while store.purge_spent(month, 1).await.unwrap() {}
    assert_eq!(both().await, [0, 7], "a month counts on");
    while store.purge_spent(at(3_600_000 * 24 * 63), 1).await.unwrap() {}
    assert_eq!(both().await, [0, 0]);
}

/// A home of each migration, with a call of its time in it.
#[tokio::test]
async fn a_home_that_is_upgraded_keeps_what_was_spent() {
    let mut all = sqlx::migrate!("../migrations/sqlite");
    all.dangerous_set_table_name("exile_migration");
    let versions: Vec<i64> = all.iter().map(|migration| migration.version).collect();
    let older = versions.iter().filter(|version| (4..9).contains(*version));
    for version in older {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exile.db");
        let env = Arc::new(StepEnv::new());
        let at_ms = env.now().as_millisecond();
        let mut connection = store::options(&path).connect().await.unwrap();
        let mut some = sqlx::migrate!("../migrations/sqlite");
        some.dangerous_set_table_name("exile_migration");
        some.migrations.to_mut().retain(|migration| migration.version <= *version);
        some.run(&mut connection).await.unwrap();
        for (id, outcome, tokens) in [("a", "ok", 7), ("b", "open", 100), ("c", "timeout", 1)] {
            sqlx::query(
                "INSERT INTO exile_usage (id, at, owner, provider, model, input_tokens,
                     cached_tokens, written_tokens, output_tokens, reasoning_tokens, cost, currency,
                     took_ms, attempts, outcome, estimated, last)
                 VALUES (?1, ?2, 'ann', 'lab', 'm', ?3, 0, 0, 1, 0, ?3, 'USD', 1, 1, ?4, 0, 1)",
            )
            .bind(id)
            .bind(at_ms)
            .bind(tokens)
            .bind(outcome)
            .execute(&mut connection)
            .await
            .unwrap();
        }
        drop(connection);
        let store = Store::open(&path, env).await.unwrap();
        for slot_ms in [MINUTE_MS, QUARTER_MS] {
            let from_ms = at_ms / slot_ms * slot_ms;
            let stretch = (slot_ms, from_ms, from_ms + slot_ms);
            let found = spent(&store, Spender::User("ann"), stretch).await;
            assert_eq!(found, Spent { cost: 108, ..sum(3, 3, 111) }, "from {version}");
        }
    }
}
