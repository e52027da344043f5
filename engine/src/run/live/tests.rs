//! What is kept for readers, and for how long.

use futures_util::FutureExt as _;
use serde_json::json;

use super::*;

fn lease(epoch: u64) -> Lease {
    Lease { log: LogId::from("log_1"), epoch, owner: None, head: 0, reserved: 0 }
}

fn delta(number: Number) -> Shown {
    let (task, call) = ("task:1".into(), "model".into());
    let delta = Delta::Text("word ".into());
    Shown::Delta(StreamedDelta { number, task, call, shown: true, delta })
}

async fn show(live: &MemoryLive, epoch: u64, number: Number) {
    let news = News { shown: vec![delta(number)], partial: false, last: number };
    live.publish(&lease(epoch), news).await;
}

fn waits(live: &MemoryLive) -> (usize, usize) {
    let logs = locked(&live.logs);
    logs.get(&lease(1).log).map_or((0, 0), |feed| (feed.waiting.len(), feed.bytes))
}

fn text(subscription: &mut Subscription) -> Vec<Number> {
    let mut numbers = Vec::new();
    while let Some(Some(event)) = subscription.events.next().now_or_never() {
        assert_eq!(event.data["text"], json!("word "));
        numbers.push(event.number);
    }
    numbers
}

#[tokio::test]
async fn what_waits_for_readers_is_bounded_and_given_back() {
    let live = MemoryLive::default();
    live.begin(&lease(1), 0).await;
    let log = lease(1).log;
    let mut reader = live.subscribe(&log).await;
    let lazy = live.subscribe(&log).await;
    for number in 1..=10_000 {
        show(&live, 1, number).await;
        assert_eq!(text(&mut reader), [number], "who reads is not cut off");
        let (events, bytes) = waits(&live);
        assert!(events <= WAITING && bytes <= WAITING_BYTES, "{events} events, {bytes} bytes");
    }
    assert!(reader.events.is_whole() && !lazy.events.is_whole());
    assert_eq!(waits(&live), (0, 0), "nobody is behind");
    drop((reader, lazy));
    live.end(&lease(1)).await;
    assert!(locked(&live.logs).is_empty());
}

#[tokio::test]
async fn a_reader_that_leaves_takes_with_it_what_waited_for_it() {
    let live = MemoryLive::default();
    live.begin(&lease(1), 0).await;
    let lazy = live.subscribe(&lease(1).log).await;
    for number in 1..=100 {
        show(&live, 1, number).await;
    }
    assert_eq!(waits(&live).0, 100);
    drop(lazy);
    assert_eq!(waits(&live), (0, 0));
}

#[tokio::test]
async fn whoever_lost_the_log_shows_nothing_more() {
    let live = MemoryLive::default();
    live.begin(&lease(1), 0).await;
    show(&live, 1, 1).await;
    live.begin(&lease(2), 10_000).await;
    let mut reader = live.subscribe(&lease(2).log).await;
    assert_eq!((reader.shown, reader.open.len()), (Some(10_000), 0));
    show(&live, 1, 2).await;
    live.end(&lease(1)).await;
    live.begin(&lease(1), 2).await;
    show(&live, 2, 10_001).await;
    assert_eq!(text(&mut reader), [10_001]);
    assert!(reader.events.is_whole());
}

#[tokio::test]
async fn a_log_that_changes_hands_is_read_on_from_the_journal() {
    let live = MemoryLive::default();
    let idle = live.subscribe(&lease(1).log).await;
    assert_eq!(idle.shown, None);
    live.begin(&lease(1), 0).await;
    assert!(!idle.events.is_whole(), "what was read since may stand behind deltas to come");
    let mut reader = live.subscribe(&lease(1).log).await;
    live.begin(&lease(2), 7).await;
    assert!(reader.events.next().await.is_none());
}
