//! What happens around a node's work: retry, time, failure, jumps, results taken again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::expr::Expression;
use exile_engine::graph::{Cache, Goto, OnError, Policy, Retry, Target};
use exile_engine::id::{ConversationId, InputId, LogId, RunId};
use exile_engine::journal::StartRun;
use exile_engine::node::{Done, Node, NodeError, Outcome};
use exile_engine::run::context::{Cx, Reached};
use exile_engine::run::event::Event;
use exile_engine::run::record::{EndStatus, Ended, Fact};
use exile_engine::state::{Reducer, State, Writes};
use exile_engine::tool::{Effect, ToolAnswer};
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};

use super::complaints::House;
use super::{Asks, talk, user};
use crate::hand::{Bench, Hand, Inner, leaf, writes};
use crate::scripted::{Counting, Line};

/// Fails as told, once per failure, and then notes itself.
#[derive(Debug)]
struct Fails {
    name: &'static str,
    errors: Mutex<VecDeque<NodeError>>,
    runs: Arc<AtomicUsize>,
}

impl Fails {
    fn new(name: &'static str, errors: Vec<NodeError>) -> (Self, Arc<AtomicUsize>) {
        let runs = Arc::new(AtomicUsize::new(0));
        (Self { name, errors: Mutex::new(errors.into()), runs: runs.clone() }, runs)
    }
}

#[async_trait]
impl Node for Fails {
    async fn run(&self, _: &Cx, _: &State) -> Result<Outcome, NodeError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        match self.errors.lock().unwrap().pop_front() {
            Some(error) => Err(error),
            None => Ok(Outcome::write(&"log".into(), json!(self.name))),
        }
    }
}

fn passing() -> NodeError {
    NodeError::Output("not yet".into())
}

fn lasting() -> NodeError {
    NodeError::Missing { what: "tool".into(), name: "x".into(), remedy: "none".into() }
}

fn retry(attempts: u32) -> Policy {
    Policy { retry: Retry { attempts, ..Retry::default() }, ..Policy::default() }
}

fn noting() -> Hand {
    Hand::default().channel("log", Reducer::Append, json!([]))
}

async fn run(hand: Hand) -> (Ended, Value) {
    let bench = Bench::new(hand.graph()).await;
    run_on(&bench, "run_1").await
}

async fn run_on(bench: &Bench, name: &str) -> (Ended, Value) {
    let (log, id) = (LogId::from(name), RunId::from(name));
    bench.start(&log, &id, Map::new()).await;
    let ended = bench.ended(&id).await;
    (ended, bench.engine.state(&log).await.unwrap()["log"].clone())
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_is_tried_again_and_one_that_will_not_is_not() {
    for (errors, attempts, runs, works) in [
        (vec![passing(), passing()], 3, 3, true),
        (vec![passing(), passing()], 2, 2, false),
        (vec![lasting()], 3, 1, false),
        (vec![passing()], 1, 1, false),
    ] {
        let (node, ran) = Fails::new("a", errors);
        let hand = noting().node("a", leaf(node)).edge("START", "a").policy("a", retry(attempts));
        let (ended, log) = run(hand).await;
        assert_eq!(ran.load(Ordering::SeqCst), runs);
        assert_eq!(ended.status == EndStatus::Finished, works, "{ended:?}");
        assert_eq!(log, if works { json!(["a"]) } else { json!([]) });
    }
}

#[tokio::test(start_paused = true)]
async fn a_graph_inside_is_tried_again_where_it_failed() {
    let (first, first_ran) = Fails::new("first", vec![]);
    let (second, second_ran) = Fails::new("second", vec![passing()]);
    let inner = noting().node("first", leaf(first)).node("second", leaf(second));
    let inner = inner.edge("START", "first").edge("first", "second").graph();
    let sub = exile_engine::node::Work::Sub(Arc::new(Inner(Arc::new(inner))));
    let hand = Hand::default().channel("log", Reducer::Replace, json!([]));
    let hand = hand.node("sub", sub).edge("START", "sub").policy("sub", retry(2));
    let (ended, log) = run(hand).await;
    assert_eq!(ended.status, EndStatus::Finished, "{ended:?}");
    assert_eq!(log, json!(["first", "second"]));
    assert_eq!((first_ran.load(Ordering::SeqCst), second_ran.load(Ordering::SeqCst)), (1, 2));
}

/// Never ends; with `beats`, calls a tool every so often.
#[derive(Debug)]
struct Slow {
    every: Duration,
    calls: usize,
}

#[async_trait]
impl Node for Slow {
    async fn run(&self, cx: &Cx, _: &State) -> Result<Outcome, NodeError> {
        for n in 0..self.calls {
            tokio::time::sleep(self.every).await;
            cx.call_tool_value(&format!("c{n}"), "beat", json!({}), false).await;
        }
        tokio::time::sleep(self.every).await;
        Ok(Outcome::write(&"log".into(), json!("slow")))
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_ends_when_its_time_or_its_silence_is_over() {
    let seconds = Duration::from_secs;
    for (calls, timeout, idle, fails_by) in [
        (0, Some(seconds(5)), None, Some("timeout")),
        (0, None, Some(seconds(5)), Some("idle_timeout")),
        (9, Some(seconds(50)), None, Some("timeout")),
        (9, None, Some(seconds(11)), None),
        (9, Some(seconds(101)), Some(seconds(11)), None),
    ] {
        let house = House::new(vec![Line::Say("")], vec![Counting::new("beat", Effect::Pure)]);
        let node = Slow { every: seconds(10), calls };
        let policy = Policy { timeout, idle_timeout: idle, ..Policy::default() };
        for inside in [false, true] {
            let (name, hand) = ("slow", noting());
            let hand = if inside {
                let inner = noting().node("in", leaf(Slow { every: node.every, calls }));
                let inner = Arc::new(inner.edge("START", "in").graph());
                hand.node(name, exile_engine::node::Work::Sub(Arc::new(Inner(inner))))
            } else {
                hand.node(name, leaf(Slow { every: node.every, calls }))
            };
            let hand = hand.edge("START", name);
            let policy = Policy {
                timeout: policy.timeout,
                idle_timeout: policy.idle_timeout,
                ..Policy::default()
            };
            let mut hand = hand.policy(name, policy);
            hand.limits.timeout = None;
            let bench = house.engine(hand).await;
            let (ended, _) = run_on(&bench, &format!("run_{calls}_{inside}_{timeout:?}")).await;
            let key = ended.error.map(|error| error.message);
            assert_eq!(key.is_some(), fails_by.is_some(), "{key:?}");
            if let (Some(message), Some(key)) = (key, fails_by) {
                assert!(message.contains(key), "{message}");
            }
            drop(bench);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_pause_before_another_attempt_is_no_part_of_its_time() {
    let retry = Retry { attempts: 2, wait: Duration::from_mins(1), ..Retry::default() };
    let policy = || Policy {
        timeout: Some(Duration::from_secs(5)),
        idle_timeout: Some(Duration::from_secs(4)),
        retry,
        ..Policy::default()
    };
    let node = || leaf(Fails::new("a", vec![passing()]).0);
    let inner = noting().node("in", node()).edge("START", "in").graph();
    let sub = exile_engine::node::Work::Sub(Arc::new(Inner(Arc::new(inner))));
    for work in [node(), sub] {
        let hand = noting().node("a", work).edge("START", "a").policy("a", policy());
        let (ended, log) = run(hand).await;
        assert_eq!((ended.status, log), (EndStatus::Finished, json!(["a"])), "{:?}", ended.error);
    }
}

#[tokio::test]
async fn a_failure_is_handled_where_the_node_says() {
    let handled = |on_error: fn(&Hand) -> OnError| async move {
        let (node, _) = Fails::new("a", vec![lasting()]);
        let hand = noting()
            .node("a", leaf(node))
            .node("next", writes(&[("log", json!("next"))]))
            .node("handler", writes(&[("log", json!("handler"))]))
            .node("beside", writes(&[("log", json!("beside"))]))
            .edge("START", "a")
            .edge("START", "beside")
            .edge("a", "next");
        let policy = Policy { on_error: on_error(&hand), ..Policy::default() };
        run(hand.policy("a", policy)).await
    };
    let (ended, log) = handled(|_| OnError::Continue).await;
    assert_eq!((ended.status, log), (EndStatus::Finished, json!(["beside", "next"])));
    let (ended, log) = handled(|hand| OnError::Node(hand.place("handler"))).await;
    assert_eq!((ended.status, log), (EndStatus::Finished, json!(["beside", "handler"])));
    let (ended, _) = handled(|_| OnError::Fail).await;
    assert_eq!(
        (ended.status, ended.error.unwrap().code),
        (EndStatus::Failed, "not_available".into())
    );
}

/// Fires what it says itself.
#[derive(Debug)]
struct Jumps(Option<Vec<Arc<str>>>);

#[async_trait]
impl Node for Jumps {
    async fn run(&self, _: &Cx, _: &State) -> Result<Outcome, NodeError> {
        Ok(Outcome::Done(Done { writes: Writes::default(), goto: self.0.clone() }))
    }
}

#[tokio::test]
async fn a_node_goes_where_its_goto_says_or_along_its_lines() {
    for (own, to, log, code) in [
        (None, "none", json!(["line"]), None),
        (None, "'left'", json!(["left"]), None),
        (None, "['left', 'right']", json!(["left", "right"]), None),
        (None, "'END'", json!([]), None),
        (None, "'line'", json!([]), Some("goto_refused")),
        (None, "1", json!([]), Some("goto_refused")),
        (Some(vec![Arc::from("right")]), "'left'", json!(["right"]), None),
        (Some(vec![Arc::from("line")]), "none", json!([]), Some("goto_refused")),
    ] {
        let hand = noting()
            .node("a", leaf(Jumps(own)))
            .node("line", writes(&[("log", json!("line"))]))
            .node("left", writes(&[("log", json!("left"))]))
            .node("right", writes(&[("log", json!("right"))]))
            .edge("START", "a")
            .edge("a", "line");
        let target = |name: &str| Target::Node(hand.place(name));
        let goto = Goto {
            to: Expression::compile(to).unwrap(),
            among: vec![target("left"), target("right"), Target::End],
            names: ["left", "right", "END"].map(Arc::from).to_vec(),
        };
        let (ended, got) =
            run(hand.policy("a", Policy { goto: Some(goto), ..Policy::default() })).await;
        assert_eq!(ended.error.map(|e| e.code).as_deref(), code, "{to}");
        assert_eq!(got, log, "{to}");
    }
}

#[tokio::test]
async fn a_result_is_taken_again_for_the_same_inputs_until_its_time_is_over() {
    let (node, ran) = Fails::new("a", vec![]);
    let hand = noting().channel("in", Reducer::Replace, json!(1));
    let hand = hand.node("a", leaf(node)).edge("START", "a");
    let cache = Cache {
        keep: Duration::from_mins(1),
        node: "hash".into(),
        reads: vec!["in".into()],
        scope: Vec::new(),
    };
    let house = House::new(vec![Line::Say("")], vec![]);
    let bench =
        house.engine(hand.policy("a", Policy { cache: Some(cache), ..Policy::default() })).await;
    let ask = async |name: &str, input: i64| {
        let (log, id) = (LogId::from(name), RunId::from(name));
        let input = json!({ "in": input }).as_object().unwrap().clone();
        bench.start(&log, &id, input).await;
        bench.ended(&id).await;
        assert_eq!(bench.engine.state(&log).await.unwrap()["log"], json!(["a"]));
        ran.load(Ordering::SeqCst)
    };
    assert_eq!(ask("run_1", 1).await, 1);
    assert_eq!(ask("run_2", 1).await, 1, "the same input");
    assert_eq!(ask("run_3", 2).await, 2, "another input");
    house.env.advance(Duration::from_mins(2));
    assert_eq!(ask("run_4", 1).await, 3, "its time is over");
    let records = house.records(&LogId::from("run_2")).await;
    let cached = records.iter().any(|r| match &r.record.fact {
        Fact::Step(step) => step.done.iter().any(|done| done.cached),
        _ => false,
    });
    assert!(cached, "the record says so");
}

#[tokio::test]
async fn a_result_that_was_worked_out_of_the_conversation_stands_for_that_one_alone() {
    let (node, ran) = Fails::new("a", vec![]);
    let hand = noting().node("a", leaf(node)).edge("START", "a");
    let cache = Cache {
        keep: Duration::from_mins(1),
        node: "hash".into(),
        reads: Vec::new(),
        scope: vec!["conversation"],
    };
    let house = House::new(vec![Line::Say("")], vec![]);
    let bench =
        house.engine(hand.policy("a", Policy { cache: Some(cache), ..Policy::default() })).await;
    for (run, conversation, times) in [
        ("run_1", Some("conv_1"), 1),
        ("run_2", Some("conv_1"), 1),
        ("run_3", Some("conv_2"), 2),
        ("run_4", None, 3),
    ] {
        let (log, id) = (LogId::from(run), RunId::from(run));
        let start = StartRun {
            conversation: conversation.map(ConversationId::from),
            ..bench.run(&id, Map::new())
        };
        bench.engine.start(&log, &InputId::from(run), start).await.unwrap();
        bench.ended(&id).await;
        assert_eq!(ran.load(Ordering::SeqCst), times, "{run}");
    }
}

/// Makes one call and fails with what the tool said.
#[derive(Debug)]
struct Calls;

#[async_trait]
impl Node for Calls {
    async fn run(&self, cx: &Cx, _: &State) -> Result<Outcome, NodeError> {
        cx.call_tool_value("first", "keeps", json!({}), false).await;
        match cx.call_tool_value("second", "breaks", json!({}), false).await {
            Reached::Done(ToolAnswer::Failed(error)) => {
                Err(NodeError::Tool { tool: "breaks".into(), error })
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_further_attempt_repeats_no_call_that_worked_and_no_unsafe_one_that_may_have() {
    for (effect, times) in [(Effect::Pure, 3), (Effect::Idempotent, 3), (Effect::Unsafe, 1)] {
        let keeps = Counting::new("keeps", Effect::Unsafe);
        let breaks = Counting::failing("breaks", effect);
        let house = House::new(vec![Line::Say("")], vec![keeps.clone(), breaks.clone()]);
        let hand = noting().node("a", leaf(Calls)).edge("START", "a").policy("a", retry(3));
        let bench = house.engine(hand).await;
        let (ended, _) = run_on(&bench, "run_1").await;
        assert_eq!(ended.status, EndStatus::Failed);
        assert_eq!(keeps.keys.lock().unwrap().len(), 1);
        assert_eq!(breaks.keys.lock().unwrap().len(), times, "{effect:?}");
        let keys: std::collections::BTreeSet<_> =
            breaks.keys.lock().unwrap().iter().cloned().collect();
        assert_eq!(keys.len(), 1, "every attempt has the same key");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_made_again_is_preceded_by_its_reset() {
    let house = House::new(vec![Line::Recover("half an ans", "the whole answer")], vec![]);
    let hand = talk().node("ask", leaf(Asks)).edge("START", "ask").edge("ask", "END");
    let bench = house.engine(hand.policy("ask", retry(2))).await;
    let (log, id) = (LogId::from("run_1"), RunId::from("run_1"));
    bench.start(&log, &id, user("go")).await;
    let events: Vec<Event> = bench.engine.events(id.clone(), 0).map(Result::unwrap).collect().await;
    let told = |e: &Event| match e.name {
        "message.delta" => Some(e.data["text"].as_str().unwrap_or_default().to_owned()),
        "message.reset" | "node.retried" | "message.finished" => Some(e.name.to_owned()),
        _ => None,
    };
    let told: Vec<String> = events.iter().filter_map(told).collect();
    let expected = [
        "half ",
        "an ",
        "ans",
        "node.retried",
        "message.reset",
        "the ",
        "whole ",
        "answer",
        "message.finished",
    ];
    assert_eq!(told, expected);
    // A reader that comes later is told the same.
    let again: Vec<Event> = bench.engine.events(id, 0).map(Result::unwrap).collect().await;
    assert_eq!(again, events);
}
