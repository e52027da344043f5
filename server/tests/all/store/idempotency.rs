//! Requests that are sent twice.

use std::collections::HashMap;
use std::time::Duration;

use exile_engine::env::Env as _;
use exile_server::store::{Idempotent, KeyUse, Store, StoredAnswer};
use proptest::prelude::*;

use super::Home;
use super::write::user;

fn used(owner: &str, key: &str, body: &str) -> KeyUse {
    let route = "POST /api/runs".to_owned();
    KeyUse { owner: user(owner), key: key.to_owned(), route, body: body.to_owned() }
}

async fn begin(store: &Store, owner: &str, key: &str, body: &str) -> Idempotent {
    store.begin_idempotent(&used(owner, key, body)).await.unwrap()
}

/// The generation of a request that is to be worked on.
async fn fresh(store: &Store, owner: &str, key: &str, body: &str) -> String {
    match begin(store, owner, key, body).await {
        Idempotent::Fresh { generation } => generation,
        other => panic!("{other:?}"),
    }
}

fn answer() -> StoredAnswer {
    StoredAnswer {
        status: 202,
        headers: vec![("location".to_owned(), "/api/runs/run_1".to_owned())],
        body: Some(b"{\"id\":\"run_1\"}\0\xff".to_vec()),
    }
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_for_a_day() {
    let home = Home::new().await;
    let generation = fresh(&home.store, "ann", "k", "a").await;
    assert_eq!(begin(&home.store, "ann", "k", "a").await, Idempotent::InFlight);
    let one = used("ann", "k", "a");
    home.store.finish_idempotent(&one, &generation, answer()).await.unwrap();
    let home = home.reopen().await;
    assert_eq!(begin(&home.store, "ann", "k", "a").await, Idempotent::Replay(answer()));
    home.env.advance(Duration::from_hours(24));
    let next = fresh(&home.store, "ann", "k", "a").await;
    assert_ne!(next, generation, "another day, another request");
    // The first one's answer, come late, is not taken for that of the second.
    home.store.finish_idempotent(&one, &generation, answer()).await.unwrap();
    assert_eq!(begin(&home.store, "ann", "k", "a").await, Idempotent::InFlight);
}

#[tokio::test]
async fn a_purge_leaves_answers_for_as_long_as_was_promised() {
    let Home { store, env, folder: _folder } = Home::new().await;
    let generation = fresh(&store, "ann", "k", "a").await;
    store.finish_idempotent(&used("ann", "k", "a"), &generation, answer()).await.unwrap();
    env.advance(Duration::from_hours(23));
    store.purge(env.now()).await.unwrap();
    assert_eq!(begin(&store, "ann", "k", "a").await, Idempotent::Replay(answer()));
}

#[tokio::test]
async fn a_key_with_another_body_is_a_mismatch_before_and_after_the_answer() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let generation = fresh(&store, "ann", "k", "a").await;
    assert_eq!(begin(&store, "ann", "k", "b").await, Idempotent::Mismatch);
    store.finish_idempotent(&used("ann", "k", "a"), &generation, answer()).await.unwrap();
    assert_eq!(begin(&store, "ann", "k", "b").await, Idempotent::Mismatch);
}

#[tokio::test]
async fn keys_of_other_owners_and_routes_are_other_keys() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    fresh(&store, "ann", "k", "a").await;
    fresh(&store, "bob", "k", "b").await;
    let other = KeyUse { route: "POST /api/other".into(), ..used("ann", "k", "a") };
    let other = store.begin_idempotent(&other).await.unwrap();
    assert!(matches!(other, Idempotent::Fresh { .. }), "{other:?}");
}

#[tokio::test]
async fn an_abandoned_request_frees_its_key_and_an_answered_one_stays() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let first = fresh(&store, "ann", "k", "a").await;
    store.abandon_idempotent(&used("ann", "k", "a"), &first).await.unwrap();
    let second = fresh(&store, "ann", "k", "b").await;
    assert_ne!(first, second);
    store.finish_idempotent(&used("ann", "k", "b"), &second, answer()).await.unwrap();
    store.abandon_idempotent(&used("ann", "k", "b"), &second).await.unwrap();
    assert_eq!(begin(&store, "ann", "k", "b").await, Idempotent::Replay(answer()));
}

#[tokio::test]
async fn a_request_that_was_cut_off_goes_on_under_its_generation_and_with_its_body_alone() {
    let home = Home::new().await;
    let first = fresh(&home.store, "ann", "k", "a").await;
    let home = home.reopen().await;
    assert_eq!(begin(&home.store, "ann", "k", "b").await, Idempotent::Mismatch);
    assert_eq!(fresh(&home.store, "ann", "k", "a").await, first);
    home.store.release_idempotent(&used("ann", "k", "a"), &first).await.unwrap();
    assert_eq!(fresh(&home.store, "ann", "k", "a").await, first);
}

#[tokio::test]
async fn a_request_that_takes_longer_than_a_day_keeps_its_key() {
    let home = Home::new().await;
    fresh(&home.store, "ann", "k", "a").await;
    home.env.advance(Duration::from_hours(48));
    fresh(&home.store, "ann", "other", "a").await;
    assert_eq!(begin(&home.store, "ann", "k", "a").await, Idempotent::InFlight);
}

#[tokio::test]
async fn of_many_at_once_one_is_worked_on() {
    let Home { store, folder: _folder, .. } = Home::new().await;
    let all = futures_util::future::join_all((0..100).map(|_| begin(&store, "ann", "k", "a")));
    let fresh = all.await.into_iter().filter(|state| matches!(state, Idempotent::Fresh { .. }));
    assert_eq!(fresh.count(), 1);
}

/// What happens to the requests of one owner.
#[derive(Clone, Debug)]
enum Step {
    Send {
        key: u8,
        body: u8,
    },
    Finish {
        key: u8,
    },
    Release {
        key: u8,
    },
    Abandon {
        key: u8,
    },
    Hours(u64),
    /// The process dies, and another one opens the file.
    Dies,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2_u8, 0..3_u8).prop_map(|(key, body)| Step::Send { key, body }),
        2 => (0..2_u8).prop_map(|key| Step::Finish { key }),
        1 => (0..2_u8).prop_map(|key| Step::Release { key }),
        1 => (0..2_u8).prop_map(|key| Step::Abandon { key }),
        2 => (1..30_u64).prop_map(Step::Hours),
        1 => Just(Step::Dies),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A generation belongs to one body for ever, so that nothing which is named after it can be
    /// taken for a request with another body; and what is answered again is the answer to that body.
    #[test]
    fn whatever_the_day_no_key_swallows_another_request(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut home = Home::new().await;
            let mut bodies: HashMap<String, String> = HashMap::new();
            let mut working: HashMap<u8, (KeyUse, String)> = HashMap::new();
            for step in steps {
                match step {
                    Step::Send { key, body } => {
                        let sent = used("ann", &key.to_string(), &body.to_string());
                        match home.store.begin_idempotent(&sent).await.unwrap() {
                            Idempotent::Fresh { generation } => {
                                assert!(!working.contains_key(&key), "two at once");
                                let of = bodies.entry(generation.clone());
                                assert_eq!(*of.or_insert_with(|| sent.body.clone()), sent.body);
                                working.insert(key, (sent, generation));
                            }
                            Idempotent::Replay(answer) => {
                                assert_eq!(answer.body.unwrap(), sent.body.into_bytes());
                            }
                            Idempotent::InFlight => assert_eq!(working[&key].0, sent),
                            Idempotent::Mismatch => {}
                        }
                    }
                    Step::Finish { key } => {
                        let Some((sent, generation)) = working.remove(&key) else { continue };
                        let body = Some(sent.body.clone().into_bytes());
                        let answer = StoredAnswer { body, ..answer() };
                        home.store.finish_idempotent(&sent, &generation, answer).await.unwrap();
                    }
                    Step::Release { key } => {
                        let Some((sent, generation)) = working.remove(&key) else { continue };
                        home.store.release_idempotent(&sent, &generation).await.unwrap();
                    }
                    Step::Abandon { key } => {
                        let Some((sent, generation)) = working.remove(&key) else { continue };
                        home.store.abandon_idempotent(&sent, &generation).await.unwrap();
                    }
                    Step::Hours(hours) => home.env.advance(Duration::from_hours(hours)),
                    Step::Dies => {
                        working.clear();
                        home = home.reopen().await;
                    }
                }
            }
        });
    }
}
