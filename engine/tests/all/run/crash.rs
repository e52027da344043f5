//! A process that dies at any append: the next one goes on, and repeats nothing that is recorded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use exile_engine::env::{Env, StepEnv};
use exile_engine::id::{LogId, RunId};
use exile_engine::journal::{Journal, MemoryJournal};
use exile_engine::message::Role;
use exile_engine::model::Models;
use exile_engine::run::engine::Stopped;
use exile_engine::run::record::{EndStatus, Fact};
use exile_engine::tool::{Effect, ToolRegistry};
use serde_json::json;

use super::{tool_loop, user};
use crate::hand::{Bench, journal_over};
use crate::scripted::{Counting, Line, Scripted, Tools};

/// A store whose process is gone after some appends: it takes nothing more.
struct Dies {
    store: Arc<MemoryJournal>,
    appends_left: AtomicUsize,
    dead: tokio::sync::Notify,
}

journal_over!(Dies, store, append: |this, lease, batch| {
    let take = |n: usize| n.checked_sub(1);
    if this.appends_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
        this.dead.notify_one();
        std::future::pending::<()>().await;
    }
    this.store.append(lease, batch).await
});

/// One run of a tool loop over a store that dies after `appends`, then over the same store.
/// `None` once the run ends before the store dies.
async fn check_crash(appends: usize, effect: Effect) -> Option<Stopped> {
    let env = Arc::new(StepEnv::new());
    let store = Arc::new(MemoryJournal::new(env.clone()));
    let model = Scripted::new(vec![
        Line::Call(vec![("c1", "one", json!({"n": 1})), ("c2", "two", json!({"n": 2}))]),
        Line::Call(vec![("c3", "one", json!({"n": 3}))]),
        Line::Say("all done"),
    ]);
    let tools = [Counting::new("one", effect), Counting::new("two", effect)];
    let registry = Arc::new(ToolRegistry::new(&[&Tools(tools.to_vec())]).unwrap());
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    let start = |journal: Arc<dyn Journal>| {
        let models = Models::new(vec![model.clone()], BTreeMap::new());
        Bench::with(
            journal,
            env.clone() as Arc<dyn Env>,
            tool_loop().graph(),
            models,
            registry.clone(),
        )
    };

    let dies = Arc::new(Dies {
        store: store.clone(),
        appends_left: AtomicUsize::new(appends),
        dead: tokio::sync::Notify::new(),
    });
    let first = start(dies.clone()).await;
    first.start(&log, &run, user("go")).await;
    tokio::select! {
        () = dies.dead.notified() => {}
        ended = first.engine.wait(&run) => {
            ended.unwrap();
            return None;
        }
    }
    let recorded = recorded_calls(&store, &log).await;
    let before = calls(&tools);
    drop(first);

    env.advance(Duration::from_mins(1));
    let second = start(store.clone()).await;
    let ended = second.engine.wait(&run).await.unwrap();
    for (key, times) in calls(&tools) {
        let again = times - before.get(&key).copied().unwrap_or(0);
        let call = key.rsplit('/').next().unwrap().to_owned();
        if recorded.contains(&call) {
            assert_eq!(again, 0, "{key} was recorded and made again after {appends} appends");
        }
        assert!(times <= 2, "{key} was made {times} times");
    }
    if matches!(&ended, Stopped::Ended(ended) if ended.status == EndStatus::Finished) {
        let state = second.engine.state(&log).await.unwrap();
        let roles: Vec<&str> = state["messages"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|m| m["role"].as_str())
            .collect();
        let expected = ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant"];
        assert_eq!(roles, expected, "after {appends} appends");
    }
    Some(ended)
}

fn calls(tools: &[Arc<Counting>]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for key in tools.iter().flat_map(|t| t.keys.lock().unwrap().clone()) {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

async fn recorded_calls(store: &MemoryJournal, log: &LogId) -> Vec<String> {
    let history = store.load(log, None).await.unwrap();
    let call = |fact: &Fact| match fact {
        Fact::Called(called) => Some(called.call.to_string()),
        _ => None,
    };
    history.records.iter().filter_map(|r| call(&r.record.fact)).collect()
}

#[tokio::test]
async fn a_run_resumes_after_a_crash_at_every_append() {
    let mut appends = 0;
    while let Some(ended) = check_crash(appends, Effect::Idempotent).await {
        let Stopped::Ended(ended) = ended else { panic!("after {appends} appends: {ended:?}") };
        assert_eq!(ended.status, EndStatus::Finished, "after {appends} appends: {ended:?}");
        appends += 1;
    }
    assert!(appends >= 10, "only {appends} points of a crash were tried");
}

#[tokio::test]
async fn an_open_unsafe_call_is_never_made_twice() {
    let (mut appends, mut attention) = (0, 0);
    while let Some(ended) = check_crash(appends, Effect::Unsafe).await {
        match ended {
            Stopped::Waiting(waiting) => {
                assert_eq!(waiting.attention.unwrap().code, "open_call");
                assert!(!waiting.open.is_empty());
                attention += 1;
            }
            Stopped::Ended(ended) => assert_eq!(ended.status, EndStatus::Finished),
            Stopped::Behind(ahead) => panic!("nothing is ahead of it: {ahead}"),
        }
        appends += 1;
    }
    assert!(attention > 0, "no crash fell between an intent and its result");
}

/// Three processes in a row may each append so much after taking the run over, and die in its
/// model call.
async fn check_poison(appends: usize) {
    let env = Arc::new(StepEnv::new());
    let store = Arc::new(MemoryJournal::new(env.clone()));
    let model = Scripted::new(vec![Line::Hang("", Arc::new(tokio::sync::Notify::new()))]);
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    let mut tries = 0;
    let stopped = loop {
        let models = Models::new(vec![model.clone()], BTreeMap::new());
        let env = env.clone();
        let dies = Arc::new(Dies {
            store: store.clone(),
            appends_left: AtomicUsize::new(if tries == 0 { 2 } else { appends }),
            dead: tokio::sync::Notify::new(),
        });
        let journal: Arc<dyn Journal> = if tries < 3 { dies.clone() } else { store.clone() };
        let bench = Bench::over(journal, env.clone(), tool_loop().graph(), models).await;
        if tries == 0 {
            bench.start(&log, &run, user("go")).await;
        }
        if tries == 3 {
            break bench.engine.wait(&run).await.unwrap();
        }
        while store.load(&log, None).await.unwrap().records.len() < 2 + tries * appends {
            tokio::task::yield_now().await;
        }
        drop(bench);
        env.advance(Duration::from_mins(1));
        tries += 1;
    };
    let Stopped::Waiting(waiting) = stopped else { panic!("{stopped:?}") };
    assert_eq!(waiting.attention.unwrap().code, "poison");
}

#[tokio::test]
async fn a_run_that_kills_its_process_is_left_to_a_person() {
    check_poison(1).await;
}

#[tokio::test]
async fn a_call_that_is_begun_again_and_again_is_no_step_forward() {
    check_poison(2).await;
}

#[tokio::test]
async fn an_unanswered_message_of_the_user_stays() {
    let model = Scripted::new(vec![Line::Break("half an ans")]);
    let env: Arc<dyn Env> = Arc::new(StepEnv::new());
    let store = Arc::new(MemoryJournal::new(env.clone()));
    let models = Models::new(vec![model], BTreeMap::new());
    let bench = Bench::over(store, env, tool_loop().graph(), models).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, user("go")).await;
    let ended = bench.ended(&run).await;
    let error = ended.error.unwrap();
    assert_eq!(error.code, "provider_truncated");
    assert_eq!(
        (error.provider.as_deref(), error.model.as_deref()),
        (Some("scripted"), Some("one"))
    );
    let state = bench.engine.state(&log).await.unwrap();
    assert_eq!(state["messages"].as_array().unwrap().len(), 1);
    assert_eq!(state["messages"][0]["role"], Role::User.as_str());
}
