//! What users of other engines complain about most, turned around: one test per complaint, named
//! after what happens here instead. `engine/GUARANTEES.md` lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::env::{Env, StepEnv};
use exile_engine::id::{InputId, InterruptId, LogId, RunId, UserId};
use exile_engine::journal::{Input, Journal, MemoryJournal, ResumeRun};
use exile_engine::message::{Message, Role, ToolCall};
use exile_engine::model::Models;
use exile_engine::node::{Node, NodeError, Outcome, Work};
use exile_engine::run::context::{Ask, Cx, Reached};
use exile_engine::run::event::Event;
use exile_engine::run::record::{AskReason, EndStatus, Fact, Numbered, Question};
use exile_engine::state::{Reducer, State};
use exile_engine::tool::{Effect, ToolRegistry};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Asks, lines, talk, tool_loop, user};
use crate::hand::{Bench, Hand, Inner, leaf, writes};
use crate::scripted::{Counting, Line, Scripted, Tools};

/// A store, and engines over it, one after another.
pub(super) struct House {
    pub(super) env: Arc<StepEnv>,
    store: Arc<MemoryJournal>,
    model: Arc<Scripted>,
    tools: Vec<Arc<Counting>>,
}

impl House {
    pub(super) fn new(script: Vec<Line>, tools: Vec<Arc<Counting>>) -> Self {
        let env = Arc::new(StepEnv::new());
        let store = Arc::new(MemoryJournal::new(env.clone()));
        Self { env, store, model: Scripted::new(script), tools }
    }

    pub(super) async fn engine(&self, hand: Hand) -> Bench {
        let env: Arc<dyn Env> = self.env.clone();
        let models = Models::new(vec![self.model.clone()], BTreeMap::new());
        let registry = Arc::new(ToolRegistry::new(&[&Tools(self.tools.clone())]).unwrap());
        Bench::with(self.store.clone(), env, hand.graph(), models, registry).await
    }

    /// The process is gone, and so is its lease.
    pub(super) fn dies(&self, bench: Bench) {
        drop(bench);
        self.env.advance(Duration::from_mins(1));
    }

    pub(super) async fn records(&self, log: &LogId) -> Vec<Numbered> {
        self.store.read(log, 0, usize::MAX).await.unwrap().records
    }

    /// Waits until the log's last record is such a one.
    pub(super) async fn until<T>(&self, log: &LogId, last: impl Fn(&Fact) -> Option<T>) -> T {
        loop {
            let records = self.records(log).await;
            if let Some(found) = records.last().and_then(|r| last(&r.record.fact)) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn finished(bench: &Bench, run: &RunId) {
    let ended = bench.ended(run).await;
    assert_eq!(ended.status, EndStatus::Finished, "{:?}", ended.error);
}

#[tokio::test]
async fn storage_grows_with_what_changed() {
    let house = House::new(vec![Line::Say("an answer of a few words")], Vec::new());
    let bench =
        house.engine(talk().node("ask", leaf(Asks)).edge("START", "ask").edge("ask", "END"));
    let (bench, log) = (bench.await, LogId::from("conv_1"));
    let mut sizes = Vec::new();
    for turn in 0..100 {
        let run = RunId::from(format!("run_{turn:03}"));
        let message = Message::text(format!("msg_{turn:03}").into(), Role::User, "a question");
        let input = [("messages".to_owned(), json!([message]))].into_iter().collect();
        let before = house.records(&log).await.len();
        bench.start(&log, &run, input).await;
        finished(&bench, &run).await;
        let new = house.records(&log).await.split_off(before);
        let kept = new.iter().filter(|r| !matches!(r.record.fact, Fact::Snapshot { .. }));
        sizes.push(kept.map(|r| serde_json::to_vec(&r.record).unwrap().len()).sum::<usize>());
    }
    let (first, last) = (sizes[1], sizes[99]);
    assert!(last <= first + 64, "turn 2 stored {first} bytes, turn 100 {last}");
}

#[tokio::test]
async fn what_is_restored_is_what_was_stored() {
    let value = json!({
        "b": 9_007_199_254_740_993_i64, "a": 0.1, "none": null, "no": false, "text": "\u{0}è 说 \"",
        "list": [[], {}, [1, 1.0, -0.0, "1"]], "type": "constructor", "lc": 1,
    });
    let hand = || {
        let hand = Hand::default().channel("value", Reducer::Replace, Value::Null);
        let node = writes(&[("value", value.clone())]);
        hand.node("write", node).edge("START", "write").edge("write", "END")
    };
    let house = House::new(vec![Line::Say("")], Vec::new());
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    let bench = house.engine(hand()).await;
    bench.start(&log, &run, serde_json::Map::new()).await;
    finished(&bench, &run).await;
    house.dies(bench);
    let state = house.engine(hand()).await.engine.state(&log).await.unwrap();
    assert_eq!(state["value"].to_string(), value.to_string());
}

/// Calls a tool, then asks a person, then writes the answer.
#[derive(Debug)]
struct CallsThenAsks(&'static str);

#[async_trait]
impl Node for CallsThenAsks {
    async fn run(&self, cx: &Cx, _: &State) -> Result<Outcome, NodeError> {
        let wanted = ToolCall {
            id: format!("call_{}", self.0),
            name: "one".into(),
            arguments: "{}".into(),
            opaque: None,
        };
        if let Reached::Asked(id) = cx.call_tool(&wanted, false).await {
            return Ok(Outcome::Suspend(vec![id]));
        }
        let question = Question {
            reason: AskReason::Human,
            text: self.0.into(),
            choices: Vec::new(),
            schema: None,
            tool: None,
            args: None,
        };
        let ask = Ask { call: "ask".into(), question, expires: None, otherwise: None };
        Ok(match cx.ask(ask).await? {
            Reached::Asked(id) => Outcome::Suspend(vec![id]),
            Reached::Done(given) => Outcome::write(&self.0.into(), given.value),
        })
    }
}

async fn answer(bench: &Bench, run: &RunId, interrupt: &InterruptId, value: Value) {
    let resume = ResumeRun {
        run: run.clone(),
        answers: [(interrupt.clone(), value)].into(),
        by: UserId::from("user_1"),
        message: None,
    };
    let id = InputId::from(format!("answer_{interrupt}"));
    bench.engine.send(&LogId::from(run), &id, &Input::Resume(Box::new(resume))).await.unwrap();
}

#[tokio::test]
async fn answering_one_question_repeats_no_call_and_moves_no_other_answer() {
    let names = ["a", "b", "c"];
    let hand = names.iter().fold(Hand::default(), |hand, name| {
        let node = leaf(CallsThenAsks(name));
        let hand = hand.channel(name, Reducer::Replace, Value::Null);
        hand.node(name, node).edge("START", name).edge(name, "END")
    });
    let house = House::new(vec![Line::Say("")], vec![Counting::new("one", Effect::Unsafe)]);
    let bench = house.engine(hand).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, serde_json::Map::new()).await;
    let asked = |open: usize| {
        house.until(&log, move |fact| match fact {
            Fact::Waiting(waiting) if waiting.asked.len() == open => Some(waiting.asked.clone()),
            _ => None,
        })
    };
    let all = asked(3).await;
    for (answered, name) in ["c", "a", "b"].into_iter().enumerate() {
        let question = all.iter().find(|asked| asked.question.text == name).unwrap();
        answer(&bench, &run, &question.id, json!(format!("for {name}"))).await;
        if answered < 2 {
            asked(2 - answered).await;
        }
    }
    let ended = |fact: &Fact| matches!(fact, Fact::Ended(_)).then_some(());
    house.until(&log, ended).await;
    let state = bench.engine.state(&log).await.unwrap();
    assert_eq!(Value::Object(state), json!({ "a": "for a", "b": "for b", "c": "for c" }));
    assert_eq!(house.tools[0].keys.lock().unwrap().len(), 3, "one call for each node");
}

#[tokio::test]
async fn a_crash_repeats_no_side_effect() {
    let calls = vec![("c1", "quick", json!({})), ("c2", "slow", json!({}))];
    let hangs = Arc::new(Notify::new());
    let quick = Counting::new("quick", Effect::Unsafe);
    let slow = Counting::hanging("slow", Effect::Unsafe, hangs.clone());
    let house =
        House::new(vec![Line::Call(calls), Line::Say("done")], vec![quick.clone(), slow.clone()]);
    let bench = house.engine(tool_loop()).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, user("go")).await;
    hangs.notified().await;
    let is_result = |fact: &Fact| matches!(fact, Fact::Called(c) if &*c.call == "c1");
    while !house.records(&log).await.iter().any(|r| is_result(&r.record.fact)) {
        tokio::task::yield_now().await;
    }
    house.dies(bench);
    let bench = house.engine(tool_loop()).await;
    let open = house
        .until(&log, |fact| match fact {
            Fact::Waiting(waiting) => Some(waiting.open.clone()),
            _ => None,
        })
        .await;
    drop(bench);
    assert_eq!(open.iter().map(|intent| &*intent.call).collect::<Vec<_>>(), ["c2"]);
    for tool in [quick, slow] {
        assert_eq!(tool.keys.lock().unwrap().len(), 1, "{}", tool.name());
    }
}

#[tokio::test]
async fn a_restart_leaves_no_run_running() {
    let hangs = Arc::new(Notify::new());
    let house = House::new(vec![Line::Hang("so far ", hangs.clone())], Vec::new());
    let hand = || talk().node("ask", leaf(Asks)).edge("START", "ask").edge("ask", "END");
    let bench = house.engine(hand()).await;
    let runs: Vec<RunId> = (0..5).map(|n| RunId::from(format!("run_{n}"))).collect();
    for run in &runs {
        bench.start(&LogId::from(run), run, user("go")).await;
        hangs.notified().await;
    }
    house.dies(bench);
    let lively = House { model: Scripted::new(vec![Line::Say("done")]), ..house };
    let bench = lively.engine(hand()).await;
    for run in &runs {
        finished(&bench, run).await;
    }
}

/// Hangs, and tells when it is dropped.
#[derive(Debug)]
struct Hangs {
    begun: Arc<Notify>,
    gone: Arc<Notify>,
}

struct Tells(Arc<Notify>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl Node for Hangs {
    async fn run(&self, _: &Cx, _: &State) -> Result<Outcome, NodeError> {
        let _tells = Tells(self.gone.clone());
        self.begun.notify_one();
        std::future::pending().await
    }
}

/// Puts a graph inside a node that is alone in another one.
fn around(inner: Hand) -> Hand {
    let inside = Work::Sub(Arc::new(Inner(Arc::new(inner.graph()))));
    talk().node("inside", inside).edge("START", "inside").edge("inside", "END")
}

#[tokio::test]
async fn cancel_ends_what_runs_inside_a_graph_inside_a_graph() {
    let (begun, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let hangs = leaf(Hangs { begun: begun.clone(), gone: gone.clone() });
    let innermost = talk().node("hangs", hangs).edge("START", "hangs").edge("hangs", "END");
    let house = House::new(vec![Line::Say("")], Vec::new());
    let bench = house.engine(around(around(innermost))).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, user("go")).await;
    begun.notified().await;
    bench.engine.cancel(&log, &run).await.unwrap();
    gone.notified().await;
    assert_eq!(bench.ended(&run).await.status, EndStatus::Cancelled);
}

#[tokio::test]
async fn a_stream_has_no_gap_and_no_duplicate() {
    let script = vec![Line::Call(vec![("c1", "one", json!({}))]), Line::Say("one two three")];
    let house = House::new(script, vec![Counting::new("one", Effect::Pure)]);
    let bench = house.engine(around(tool_loop())).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    let read = async |after| -> Vec<Event> {
        bench.engine.events(run.clone(), after).map(Result::unwrap).collect().await
    };
    bench.start(&log, &run, user("go")).await;
    let live = read(0).await;
    let numbers: BTreeSet<u64> = live.iter().map(|event| event.number).collect();
    assert_eq!(numbers.len(), live.len(), "no two events share an id");
    let inside = live.iter().filter(|e| e.data["task"].as_str().is_some_and(|t| t.contains('/')));
    assert!(inside.count() > 6, "what happens in subgraphs is told too");
    for (n, event) in live.iter().enumerate() {
        assert_eq!(lines(&read(event.number).await), lines(&live[n + 1..]), "after {n} events");
    }
}

#[tokio::test]
async fn a_new_version_changes_no_run_in_flight() {
    let version = |text: &str| {
        let hand = Hand::default().channel("a", Reducer::Replace, Value::Null);
        let hand = hand.channel("said", Reducer::Replace, Value::Null);
        let hand = hand.node("a", leaf(CallsThenAsks("a"))).edge("START", "a");
        hand.node("then", writes(&[("said", json!(text))])).edge("a", "then")
    };
    let house = House::new(vec![Line::Say("")], vec![Counting::new("one", Effect::Unsafe)]);
    let mut bench = house.engine(version("old")).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, serde_json::Map::new()).await;
    let asked = |fact: &Fact| match fact {
        Fact::Waiting(waiting) => Some(waiting.asked[0].id.clone()),
        _ => None,
    };
    let question = house.until(&log, asked).await;
    bench.use_graph(version("new").graph(), b"new").await;
    answer(&bench, &run, &question, json!("yes")).await;
    house.until(&log, |fact| matches!(fact, Fact::Ended(_)).then_some(())).await;
    assert_eq!(bench.engine.state(&log).await.unwrap()["said"], json!("old"));
    let (log, run) = (LogId::from("run_2"), RunId::from("run_2"));
    bench.start(&log, &run, serde_json::Map::new()).await;
    let question = house.until(&log, asked).await;
    answer(&bench, &run, &question, json!("yes")).await;
    house.until(&log, |fact| matches!(fact, Fact::Ended(_)).then_some(())).await;
    assert_eq!(bench.engine.state(&log).await.unwrap()["said"], json!("new"));
}

#[tokio::test]
async fn a_join_drops_nothing_behind_a_skipped_branch_and_fires_once_after_uneven_ones() {
    let says = |name: &str| writes(&[("log", json!(name))]);
    let hand = Hand::default()
        .channel("log", Reducer::Append, json!([]))
        .node("short", says("short"))
        .node("long", says("long"))
        .node("longer", says("longer"))
        .node("skipped", says("skipped"))
        .node("last", says("last"))
        .edge("START", "short")
        .edge("START", "long")
        .edge("long", "longer")
        .when("START", "log | length > 0", "skipped")
        .otherwise("START", "END")
        .join(&["short", "longer", "skipped"], "last");
    let house = House::new(vec![Line::Say("")], Vec::new());
    let bench = house.engine(hand).await;
    let (log, run) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &run, serde_json::Map::new()).await;
    finished(&bench, &run).await;
    let state = bench.engine.state(&log).await.unwrap();
    assert_eq!(state["log"], json!(["short", "long", "longer", "last"]));
}
