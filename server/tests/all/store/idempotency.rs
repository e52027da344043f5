//! Requests that are sent twice.

use std::time::Duration;

use exile_server::store::{Idempotent, Store, StoredAnswer};

use super::Home;
use super::write::user;

const ROUTE: &str = "POST /api/runs";

async fn begin(store: &Store, owner: &str, key: &str, body: &str) -> Idempotent {
    store.begin_idempotent(&user(owner), key, ROUTE, body).await.unwrap()
}

fn answer() -> StoredAnswer {
    StoredAnswer {
        status: 202,
        headers: vec![("location".to_owned(), "/api/runs/run_1".to_owned())],
        body: b"{\"id\":\"run_1\"}\0\xff".to_vec(),
    }
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_for_a_day() {
    let home = Home::new().await;
    assert_eq!(begin(&home.store, "ann", "k", "a").await, Idempotent::Fresh);
    assert_eq!(begin(&home.store, "ann", "k", "a").await, Idempotent::InFlight);
    home.store.finish_idempotent(&user("ann"), "k", ROUTE, answer()).await.unwrap();
    let home = home.reopen().await;
    assert_eq!(begin(&home.store, "ann", "k", "a").await, Idempotent::Replay(answer()));
    home.env.advance(Duration::from_hours(24));
    assert_eq!(begin(&home.store, "ann", "k", "a").await, Idempotent::Fresh);
}

#[tokio::test]
async fn a_key_with_another_body_is_a_mismatch_before_and_after_the_answer() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    begin(&store, "ann", "k", "a").await;
    assert_eq!(begin(&store, "ann", "k", "b").await, Idempotent::Mismatch);
    store.finish_idempotent(&user("ann"), "k", ROUTE, answer()).await.unwrap();
    assert_eq!(begin(&store, "ann", "k", "b").await, Idempotent::Mismatch);
}

#[tokio::test]
async fn keys_of_other_owners_and_routes_are_other_keys() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    begin(&store, "ann", "k", "a").await;
    assert_eq!(begin(&store, "bob", "k", "b").await, Idempotent::Fresh);
    let other = store.begin_idempotent(&user("ann"), "k", "POST /api/other", "a").await.unwrap();
    assert_eq!(other, Idempotent::Fresh);
}

#[tokio::test]
async fn an_abandoned_request_may_be_sent_again_and_an_answered_one_stays() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    begin(&store, "ann", "k", "a").await;
    store.abandon_idempotent(&user("ann"), "k", ROUTE).await.unwrap();
    assert_eq!(begin(&store, "ann", "k", "b").await, Idempotent::Fresh);
    store.finish_idempotent(&user("ann"), "k", ROUTE, answer()).await.unwrap();
    store.abandon_idempotent(&user("ann"), "k", ROUTE).await.unwrap();
    assert_eq!(begin(&store, "ann", "k", "b").await, Idempotent::Replay(answer()));
}

#[tokio::test]
async fn a_request_in_flight_when_the_process_died_may_be_sent_again() {
    let home = Home::new().await;
    begin(&home.store, "ann", "k", "a").await;
    let home = home.reopen().await;
    assert_eq!(begin(&home.store, "ann", "k", "a").await, Idempotent::Fresh);
}

#[tokio::test]
async fn of_many_at_once_one_is_worked_on() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let all = futures_util::future::join_all((0..100).map(|_| begin(&store, "ann", "k", "a")));
    let fresh = all.await.into_iter().filter(|state| *state == Idempotent::Fresh).count();
    assert_eq!(fresh, 1);
}
