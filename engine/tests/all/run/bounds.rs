//! What a run may hold, and what is said when it would hold more.

use std::sync::Arc;

use async_trait::async_trait;
use exile_engine::graph::Graph;
use exile_engine::id::{InputId, LogId, RunId, UserId};
use exile_engine::journal::{EditRun, Input, Refusal, ResumeRun, Verdict};
use exile_engine::json::Bounds;
use exile_engine::limits::Limits;
use exile_engine::node::{Node, NodeError, Outcome, Work};
use exile_engine::run::context::Cx;
use exile_engine::run::engine::Stopped;
use exile_engine::run::record::{EndStatus, RunError};
use exile_engine::state::{ChannelValue, Reducer, State};
use serde_json::{Map, Value, json};

use super::questions::Asking;
use super::talk;
use crate::hand::{Bench, Does, Each, Hand, Inner, leaf, writes};

/// From a channel's value to what is written next.
type Grow = fn(&Value) -> Value;

/// A node that makes a channel's value into another one, over and over.
fn grows(reduce: Reducer, initial: Value, grow: Grow) -> Hand {
    let grow = move |state: &State| {
        let value = state.get("x").map(|x| grow(&x.to_json())).unwrap_or_default();
        Ok(std::iter::once(("x".into(), value.into())).collect())
    };
    let mut hand = Hand::default()
        .channel("x", reduce, initial)
        .node("grow", leaf(Does(Box::new(grow))))
        .edge("START", "grow")
        .edge("grow", "grow");
    hand.limits.steps = Some(u32::MAX);
    hand
}

/// Runs a graph to its failure, and starts another run of the same log after it.
async fn failure(graph: Graph, limits: Limits) -> RunError {
    let bench = Bench::limited(graph, limits).await;
    let (log, run) = (LogId::from("log_1"), RunId::from("run_1"));
    bench.start(&log, &run, Map::new()).await;
    let error = bench.ended(&run).await.error.unwrap();
    // What was refused left the log as it can be read.
    let next = RunId::from("run_2");
    bench.start(&log, &next, Map::new()).await;
    assert_eq!(bench.ended(&next).await.status, EndStatus::Failed);
    error
}

#[tokio::test]
async fn a_value_that_nests_too_deep_is_refused_when_it_is_written() {
    let limits = Limits { json: Bounds { depth: 20, ..Bounds::DEFAULT }, ..Limits::default() };
    let deeper = grows(Reducer::Replace, json!(1), |x| json!([x]));
    let error = failure(deeper.graph(), limits).await;
    assert_eq!(error.code, "write_refused");
    assert!(error.message.contains("at most 20 levels (`limits.nesting`)"), "{error:?}");
    assert_eq!(error.node.as_deref(), Some("grow"));
}

#[tokio::test]
async fn a_state_that_grows_too_large_is_refused_when_it_is_written() {
    let cases: [(Reducer, Value, Grow); 5] = [
        (Reducer::Replace, json!("x"), |x| format!("{0}{0}", x.as_str().unwrap()).into()),
        (Reducer::Replace, json!([1]), |x| {
            let items = x.as_array().unwrap();
            items.iter().chain(items).cloned().collect()
        }),
        (Reducer::Append, json!([1]), Value::clone),
        (Reducer::Union, json!([0]), |x| {
            let count = x.as_array().unwrap().len();
            (count..2 * count).map(Value::from).collect()
        }),
        (Reducer::Merge, json!({ "k": 1 }), |x| {
            let count = x.as_object().unwrap().len();
            let fields = (count..2 * count).map(|n| (format!("k{n}"), Value::from(n)));
            Value::Object(fields.collect())
        }),
    ];
    for (reduce, initial, grow) in cases {
        let limits = Limits { state: 100_000, ..Limits::default() };
        let error = failure(grows(reduce, initial, grow).graph(), limits).await;
        assert_eq!(error.code, "limit_reached", "{error:?}");
        assert!(error.message.contains("`limits.state: 100KB`"), "{error:?}");
        assert!(error.message.contains("`x`"), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_written_over_and_over_does_not_count_twice() {
    let once = |_: &Value| json!({ "k": "the same text again" });
    let mut hand = grows(Reducer::Merge, json!({}), once);
    hand.limits.steps = Some(500);
    let error = failure(hand.graph(), Limits { state: 5_000, ..Limits::default() }).await;
    assert!(error.message.contains("limits.steps"), "{error:?}");
}

#[tokio::test]
async fn messages_count_as_what_they_hold() {
    let said = |_: &State| {
        let text = "word ".repeat(1000);
        let message = json!({ "role": "user", "content": text });
        Ok(std::iter::once(("messages".into(), message.into())).collect())
    };
    let mut hand = talk().node("say", leaf(Does(Box::new(said)))).edge("START", "say");
    hand = hand.edge("say", "say");
    hand.limits.steps = Some(u32::MAX);
    let error = failure(hand.graph(), Limits { state: 100_000, ..Limits::default() }).await;
    assert!(error.message.contains("`limits.state: 100KB`"), "{error:?}");
}

#[tokio::test]
async fn what_is_said_to_a_full_conversation_is_refused_and_leaves_nothing() {
    let hand = talk().node("say", writes(&[])).edge("START", "say");
    let limits = Limits { state: 100_000, ..Limits::default() };
    let bench = Bench::limited(hand.graph(), limits).await;
    let log = LogId::from("conv_1");
    let say = async |n: usize, bytes: usize| {
        let run = RunId::from(format!("run_{n}"));
        let text = "x".repeat(bytes);
        let said = json!([{ "id": format!("msg_{n}"), "role": "user", "content": text }]);
        bench.start(&log, &run, [("messages".to_owned(), said)].into_iter().collect()).await;
        bench.ended(&run).await
    };
    assert_eq!(say(1, 60_000).await.status, EndStatus::Finished);
    for n in 2..5 {
        let error = say(n, 60_000).await.error.unwrap();
        assert_eq!(error.code, "state_full");
        assert!(error.message.contains("`limits.state: 100KB`"), "{error:?}");
    }
    assert_eq!(say(5, 10_000).await.status, EndStatus::Finished);
    let state = bench.engine.state(&log).await.unwrap();
    assert_eq!(state["messages"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_person_makes_of_a_state_is_counted_while_it_waits_and_between_runs() {
    let hand = talk().channel("answer", Reducer::Replace, json!(null));
    let asking = Asking { expires: None };
    let hand = hand.node("ask", leaf(asking)).edge("START", "ask").edge("ask", "END");
    let limits = Limits { state: 100_000, ..Limits::default() };
    let bench = Bench::limited(hand.graph(), limits).await;
    let (log, run) = (LogId::from("conv_1"), RunId::from("run_1"));
    bench.start(&log, &run, Map::new()).await;
    let Stopped::Waiting(waiting) = bench.engine.wait(&run).await.unwrap() else {
        panic!("nobody was asked");
    };
    let submit = async |id: &str, input| {
        bench.engine.submit(&log, &InputId::from(id), &input).await.unwrap().unwrap()
    };
    let edit = async |n: usize, channel: &str, bytes: usize| {
        let text = "x".repeat(bytes);
        let value = match channel {
            "messages" => json!([{ "id": format!("msg_{n}"), "role": "user", "content": text }]),
            _ => json!(text),
        };
        let writes = [(channel.to_owned(), value)].into_iter().collect();
        let (run, by) = (run.clone(), UserId::from("user_1"));
        let change = EditRun { run, path: String::new(), as_node: None, writes, by };
        submit(&format!("edit_{n}"), Input::Edit(change)).await
    };
    let refused = |verdict: &Verdict| matches!(verdict, Verdict::Refused(Refusal::Edit { why }) if why.contains("`limits.state"));
    assert_eq!(edit(1, "messages", 60_000).await, Verdict::Taken);
    assert!(refused(&edit(2, "messages", 60_000).await));
    assert!(refused(&edit(3, "answer", 60_000).await));
    let answers = [(waiting.asked[0].id.clone(), json!("yes"))].into();
    let (by, message) = (UserId::from("user_1"), None);
    let resume = ResumeRun { run: run.clone(), answers, by, message };
    assert_eq!(submit("answer", Input::Resume(Box::new(resume))).await, Verdict::Taken);
    assert_eq!(bench.ended(&run).await.status, EndStatus::Finished);
    assert!(refused(&edit(4, "messages", 60_000).await));
    assert!(refused(&edit(5, "answer", 60_000).await));
    assert_eq!(edit(6, "answer", 10_000).await, Verdict::Taken);
    let state = bench.engine.state(&log).await.unwrap();
    assert_eq!(state["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_list_that_is_too_long_for_a_map_is_refused_before_it_begins() {
    let hand = Hand::default()
        .channel("log", Reducer::Append, json!([]))
        .node("each", Each::new(11, 2, writes(&[("result", json!(1))])).work())
        .edge("START", "each");
    let error = failure(hand.graph(), Limits { map_items: 10, ..Limits::default() }).await;
    assert_eq!(error.code, "limit_reached");
    assert!(error.message.contains("11 items, more than `limits.map_items: 10`"), "{error:?}");
}

#[tokio::test]
async fn a_message_without_an_id_gets_one() {
    let said = json!([{ "role": "user", "content": "a" }, { "role": "user", "content": "b" }]);
    let inner = talk().node("say", writes(&[("messages", said.clone())])).edge("START", "say");
    let hand = talk()
        .node("say", writes(&[("messages", said)]))
        .node("again", Work::Sub(Arc::new(Inner(Arc::new(inner.graph())))))
        .edge("START", "say")
        .edge("say", "again");
    let bench = Bench::new(hand.graph()).await;
    let (log, run) = (LogId::from("log_1"), RunId::from("run_1"));
    bench.start(&log, &run, Map::new()).await;
    assert_eq!(bench.ended(&run).await.status, EndStatus::Finished);
    let state = bench.engine.state(&log).await.unwrap();
    let messages = state["messages"].as_array().unwrap();
    let said: Vec<&str> = messages.iter().map(|m| m["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["a", "b", "a", "b"]);
    let mut ids: Vec<&str> = messages.iter().map(|m| m["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

/// Fails for one item.
#[derive(Debug)]
struct FailsAt(u64);

#[async_trait]
impl Node for FailsAt {
    async fn run(&self, _: &Cx, state: &State) -> Result<Outcome, NodeError> {
        if state.get("item").and_then(ChannelValue::as_u64) == Some(self.0) {
            return Err(NodeError::Limit("enough".into()));
        }
        Ok(Outcome::write(&"result".into(), json!(1)))
    }
}

#[tokio::test]
async fn a_failure_names_its_node_its_item_and_its_path() {
    let each = || Each::new(20, 4, leaf(FailsAt(13))).work();
    let log = || Hand::default().channel("log", Reducer::Append, json!([]));
    let inner = log().node("each", each()).edge("START", "each");
    let inner = Work::Sub(Arc::new(Inner(Arc::new(inner.graph()))));
    for (work, path, words) in [
        (each(), "outer:1/item:14", "node `outer`, item 14: enough"),
        (inner, "outer:1/each:1/item:14", "node `outer`, node `each`, item 14: enough"),
    ] {
        let hand = log().node("outer", work).edge("START", "outer");
        let error = failure(hand.graph(), Limits::default()).await;
        assert_eq!(error.message, words);
        assert_eq!(error.path.as_deref(), Some(path));
        assert_eq!((error.node.as_deref(), error.item), (Some("outer"), Some(14)));
    }
}

#[tokio::test]
async fn each_graph_counts_its_own_steps() {
    let log = || Hand::default().channel("log", Reducer::Append, json!([]));
    let chain = |steps: usize| {
        let name = |n: usize| format!("n{n}");
        let note = || writes(&[("log", json!([1]))]);
        let hand = (0..steps).fold(log(), |hand, n| hand.node(&name(n), note()));
        (1..steps).fold(hand.edge("START", "n0"), |hand, n| hand.edge(&name(n - 1), &name(n)))
    };
    let run = |inner_limit: Option<u32>| async move {
        let mut inner = chain(6);
        inner.limits.steps = inner_limit;
        let inner = Arc::new(inner.graph());
        let sub = || Work::Sub(Arc::new(Inner(inner.clone())));
        // The channel begins anew inside, so that what comes out replaces what was there.
        let mut outer = Hand::default().channel("log", Reducer::Replace, json!([]));
        for n in 0..3 {
            outer = outer.node(&format!("sub{n}"), sub());
        }
        outer = outer.edge("START", "sub0").edge("sub0", "sub1").edge("sub1", "sub2");
        outer.limits.steps = Some(4);
        let bench = Bench::new(outer.graph()).await;
        let (log, run) = (LogId::from("log_1"), RunId::from("run_1"));
        bench.start(&log, &run, Map::new()).await;
        bench.ended(&run).await.error.map(|error| error.message)
    };
    assert_eq!(run(Some(7)).await, None, "three times six steps inside three steps");
    let error = run(Some(5)).await.unwrap();
    assert!(
        error.starts_with("node `sub0`: the graph `hand` reached its `limits.steps: 5`"),
        "{error}"
    );
}
