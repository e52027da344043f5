//! Whatever becomes of calls, counters in memory and rows in the store tell the same.

use std::sync::Arc;

use exile_engine::env::StepEnv;
use exile_engine::id::UserId;
use exile_engine::model::card::{Catalogue, Claims};
use exile_engine::model::meter::{Bill, Meter as _, Payer, Size};
use exile_engine::model::{ModelRef, ProviderFault, Usage};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::calendar::Per;
use super::counters::{Counter, Reservation};
use super::{Allowance, Currency, Kind, Money, QuotaFile, Rules, SharedMeter, Unit, UsageMeter};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// What becomes of one of the calls that go on, by its place among them.
#[derive(Clone, Debug)]
enum Event {
    Begin,
    /// It asks that model, if it asks none.
    Ask(usize, usize),
    Answer(usize, Option<u64>),
    /// `true`: in the middle of an answer.
    Fail(usize, bool),
    /// It ends, or its caller leaves.
    End(usize),
    /// Rows are written, so that those of calls that go on are, too.
    Flush,
    /// Somebody sets the quota of the user, or takes it away.
    Quota(Option<(Unit, u64)>),
}

fn event() -> impl Strategy<Value = Event> {
    let call = 0..6_usize;
    prop_oneof![
        2 => Just(Event::Begin),
        4 => (call.clone(), 0..3_usize).prop_map(|(call, model)| Event::Ask(call, model)),
        3 => (call.clone(), prop::option::of(0..200_u64)).prop_map(|(c, n)| Event::Answer(c, n)),
        2 => (call.clone(), any::<bool>()).prop_map(|(call, worked)| Event::Fail(call, worked)),
        2 => call.prop_map(Event::End),
        1 => Just(Event::Flush),
        1 => prop::option::of((prop::sample::select(&Unit::ALL[..]), 1..3000_u64))
            .prop_map(Event::Quota),
    ]
}

struct Installation {
    _folder: TempDir,
    store: Store,
    meter: Arc<UsageMeter>,
}

fn value<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A meter over the rows of a store.
async fn meter(store: &Store) -> Arc<UsageMeter> {
    let prices = json!([{ "currency": "USD", "input": 3, "output": 7 }]);
    let claims: Claims = value(json!({ "lab/*": [{ "prices": prices }] }));
    let all =
        json!({ "tokens": ["2000/day", "9000/month"], "requests": "30/day", "money": "1/day" });
    let quotas: QuotaFile = value(json!({
        "key": { "*": all }, "business": { "sales": all }, "model": { "lab/*": all, "lab/m1": all },
    }));
    let rules = Rules {
        quotas,
        money: Money::new(&Currency::default()),
        zone: TimeZone::UTC,
        catalogue: Catalogue::empty().with(claims, "test"),
    };
    let (env, metrics) = (Arc::new(StepEnv::new()), Arc::new(Metrics::new().unwrap()));
    UsageMeter::open(store.clone(), env, metrics, rules).await.unwrap()
}

/// What each counter that anybody takes from has left of a large limit.
async fn left(meter: &UsageMeter) -> Vec<u64> {
    let subjects = [
        (Kind::User, "ann"),
        (Kind::Key, "key_1"),
        (Kind::Business, "sales"),
        (Kind::Model, "lab/*"),
        (Kind::Model, "lab/m1"),
    ];
    let now = meter.now();
    let mut reservations = Vec::new();
    for (kind, subject) in subjects {
        for unit in Unit::ALL {
            for per in [Per::Day, Per::Month] {
                let counter = Counter { kind, subject: subject.into(), unit, per };
                let window = per.window(now, &meter.zone);
                reservations.push(Reservation { counter, window, limit: 1_000_000_000, amount: 0 });
            }
        }
    }
    meter.left(&reservations).await.unwrap()
}

impl Installation {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exile.db");
        let store = Store::open(&path, Arc::new(StepEnv::new())).await.unwrap();
        let meter = meter(&store).await;
        Self { _folder: folder, store, meter }
    }

    async fn live(&self, events: Vec<Event>) {
        let payer = Payer {
            owner: UserId::from("ann"),
            key: Some("key_1".into()),
            business: Some("sales".into()),
            graph: None,
            run: None,
        };
        let meter = SharedMeter(self.meter.clone());
        // `true`: it asks a model.
        let mut calls: Vec<(Box<dyn Bill>, bool)> = Vec::new();
        for event in events {
            match event {
                Event::Begin => calls.push((meter.open(&payer), false)),
                Event::Ask(call, model) => {
                    let Some((call_meter, asks @ false)) = calls.get_mut(call) else { continue };
                    let model = format!("m{model}").into();
                    let model = ModelRef { provider: "lab".into(), model };
                    let size = Size { output: Some(100), ..Size::default() };
                    *asks = call_meter.reserve(&model, size).await.is_ok();
                }
                Event::Answer(call, tokens) => {
                    let Some((call_meter, asks @ true)) = calls.get_mut(call) else { continue };
                    let usage = |n| Usage { input: n, output: n / 2, ..Usage::default() };
                    call_meter.answered(tokens.map(usage), &[]);
                    *asks = false;
                }
                Event::Fail(call, worked) => {
                    let Some((call_meter, asks @ true)) = calls.get_mut(call) else { continue };
                    let detail = "it failed".to_owned();
                    call_meter.failed(&if worked {
                        ProviderFault::Truncated { detail }
                    } else {
                        ProviderFault::Unavailable { status: 503, detail }
                    });
                    *asks = false;
                }
                Event::End(call) => {
                    if call < calls.len() {
                        drop(calls.remove(call));
                    }
                }
                Event::Flush => self.meter.flush().await.unwrap(),
                Event::Quota(most) => {
                    let allowance =
                        most.map(|(unit, n)| json!({ unit.as_str(): format!("{n}/day") }));
                    let allowance: Option<Allowance> = allowance.map(value);
                    self.meter.set_quota(Kind::User, "ann", allowance.as_ref()).await.unwrap();
                }
            }
        }
    }
}

/// What counters and what rows tell once `events` have happened.
async fn told(events: Vec<Event>) -> (Vec<u64>, Vec<u64>) {
    let installation = Installation::new().await;
    installation.live(events).await;
    let counted = left(&installation.meter).await;
    installation.meter.flush().await.unwrap();
    (counted, left(&*meter(&installation.store).await).await)
}

#[tokio::test]
async fn what_a_call_spent_before_its_quota_was_set_counts_with_what_it_spends_later() {
    for unit in Unit::ALL {
        let begins = [Event::Begin, Event::Ask(0, 1), Event::Answer(0, Some(10))];
        let quota = Event::Quota(Some((unit, 1000)));
        let goes_on = [quota, Event::Ask(0, 1), Event::Answer(0, Some(20))];
        let (counted, written) = told(begins.into_iter().chain(goes_on).collect()).await;
        assert_eq!(counted, written, "{}", unit.as_str());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn counters_and_rows_tell_the_same_once_all_calls_are_over(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (counted, written) = runtime.block_on(told(events));
        prop_assert_eq!(counted, written);
    }
}
