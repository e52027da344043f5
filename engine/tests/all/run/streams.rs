//! Readers: whole streams, broken ones, late ones, and ones that never read.

use std::collections::BTreeMap;
use std::sync::Arc;

use exile_engine::env::{Env, StepEnv};
use exile_engine::id::{LogId, RunId};
use exile_engine::journal::MemoryJournal;
use exile_engine::model::Models;
use exile_engine::run::event::Event;
use exile_engine::tool::{Effect, ToolRegistry};
use expect_test::expect;
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::sync::Notify;

use super::{lines, tool_loop, user};
use crate::hand::Bench;
use crate::scripted::{Counting, Line, Scripted, Tools};

async fn bench(script: Vec<Line>) -> Bench {
    let env: Arc<dyn Env> = Arc::new(StepEnv::new());
    let store = Arc::new(MemoryJournal::new(env.clone()));
    let models = Models::new(vec![Scripted::new(script)], BTreeMap::new());
    let tools = vec![Counting::new("one", Effect::Pure)];
    let registry = Arc::new(ToolRegistry::new(&[&Tools(tools)]).unwrap());
    Bench::with(store, env, tool_loop().graph(), models, registry).await
}

async fn read(bench: &Bench, run: &RunId, after: u64) -> Vec<Event> {
    bench.engine.events(run.clone(), after).map(Result::unwrap).collect().await
}

fn script() -> Vec<Line> {
    vec![Line::Call(vec![("c1", "one", json!({"n": 1}))]), Line::Say("one two three 四 五")]
}

#[tokio::test]
async fn a_tool_loop_is_told_as_it_happens() {
    let bench = bench(script()).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, user("go")).await;
    let events = read(&bench, &run, 0).await;
    let told: Vec<String> = lines(&events)
        .lines()
        .filter(|l| !l.contains("state.update"))
        .map(|l| l.split_once(' ').unwrap().1.to_owned())
        .collect();
    expect![[r#"
        run.started
        step.started ["ask:1"]
        node.started ask:1
        model.finished ask:1
        message.finished ask:1
        node.finished ask:1
        step.started ["tools:1"]
        node.started tools:1
        tool.call tools:1 one
        tool.result tools:1 one {"n":1}
        node.finished tools:1
        step.started ["ask:2"]
        node.started ask:2
        message.delta ask:2 one 
        message.delta ask:2 two 
        message.delta ask:2 three 
        message.delta ask:2 四 
        message.delta ask:2 五
        model.finished ask:2
        message.finished ask:2
        node.finished ask:2
        run.finished finished"#]]
    .assert_eq(&told.join("\n"));
}

#[tokio::test]
async fn a_reader_that_comes_back_gets_exactly_the_rest() {
    let bench = bench(script()).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, user("go")).await;
    let whole = read(&bench, &run, 0).await;
    assert!(whole.windows(2).all(|w| w[0].number < w[1].number), "numbers rise strictly");
    for cut in 0..=whole.len() {
        let seen = cut.checked_sub(1).map_or(0, |i| whole[i].number);
        assert_eq!(lines(&read(&bench, &run, seen).await), lines(&whole[cut..]), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_late_reader_of_an_open_call_gets_its_deltas() {
    let hangs = Arc::new(Notify::new());
    let bench = bench(vec![Line::Hang("so far ", hangs.clone())]).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, user("go")).await;
    hangs.notified().await;
    let mut events = bench.engine.events(run.clone(), 0);
    let mut text = String::new();
    while text != "so far " {
        let event = events.next().await.unwrap().unwrap();
        if event.name == "message.delta" {
            text += event.data["text"].as_str().unwrap();
        }
    }
    bench.engine.cancel(&log, &run).await.unwrap();
    let rest: Vec<Event> = events.map(Result::unwrap).collect().await;
    assert_eq!(rest.last().unwrap().name, "run.cancelled");
}

#[tokio::test]
async fn a_reader_that_never_reads_slows_nobody_and_misses_nothing() {
    let text: &'static str = Box::leak("word ".repeat(5000).into_boxed_str());
    let bench = bench(vec![Line::Say(text)]).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    let mut lazy = bench.engine.events(run.clone(), 0);
    bench.start(&log, &run, user("go")).await;
    let first = lazy.next().await.unwrap().unwrap();
    bench.ended(&run).await;
    let mut all = vec![first];
    all.extend(lazy.map(Result::unwrap).collect::<Vec<_>>().await);
    let said: String = all
        .iter()
        .filter(|e| e.name == "message.delta")
        .filter_map(|e| e.data["text"].as_str())
        .collect();
    assert_eq!(said, text);
    assert_eq!(lines(&all), lines(&read(&bench, &run, 0).await));
}

#[tokio::test]
async fn runs_of_one_log_have_streams_of_their_own() {
    let bench = bench(vec![Line::Say("first"), Line::Say("second")]).await;
    let log = LogId::from("conv_1");
    bench.start(&log, &"run_1".into(), user("go")).await;
    bench.start(&log, &"run_2".into(), serde_json::Map::new()).await;
    for (run, said) in [("run_2", "second"), ("run_1", "first")] {
        let events = read(&bench, &run.into(), 0).await;
        assert!(events[0].begins(&run.into()));
        let told: Vec<&str> = events.iter().filter_map(|e| e.data["text"].as_str()).collect();
        assert_eq!(told, [said]);
    }
}

/// A reader that comes in the middle of an append, before it is stored.
struct ReadsMeanwhile {
    store: Arc<MemoryJournal>,
    came: tokio::sync::mpsc::Sender<tokio::sync::oneshot::Sender<()>>,
}

crate::hand::journal_over!(ReadsMeanwhile, store, append: |this, lease, batch| {
    let (read, has_read) = tokio::sync::oneshot::channel();
    if this.came.send(read).await.is_ok() {
        let _ = has_read.await;
    }
    this.store.append(lease, batch).await
});

#[tokio::test]
async fn a_reader_that_comes_in_the_middle_of_an_append_misses_nothing() {
    let env: Arc<dyn Env> = Arc::new(StepEnv::new());
    let (came, mut coming) = tokio::sync::mpsc::channel(1);
    let store = Arc::new(MemoryJournal::new(env.clone()));
    let journal = Arc::new(ReadsMeanwhile { store, came });
    let models = Models::new(vec![Scripted::new(vec![Line::Say("hi")])], BTreeMap::new());
    let bench = Bench::over(journal, env, tool_loop().graph(), models).await;
    let run = RunId::from("run_1");
    bench.start(&LogId::from("run_1"), &run, user("go")).await;
    let mut readers = Vec::new();
    while let Some(go_on) = coming.recv().await {
        let mut reader = bench.engine.events(run.clone(), 0);
        // One look makes the reader subscribe and read what the journal has so far.
        let first = futures_util::FutureExt::now_or_never(reader.next());
        readers.push((first.flatten(), reader));
        let _ = go_on.send(());
        if readers.len() == 4 {
            break;
        }
    }
    drop(coming);
    let whole = lines(&read(&bench, &run, 0).await);
    for (first, reader) in readers {
        let mut events: Vec<Event> = first.map(Result::unwrap).into_iter().collect();
        events.extend(reader.map(Result::unwrap).collect::<Vec<_>>().await);
        assert_eq!(lines(&events), whole);
    }
}
