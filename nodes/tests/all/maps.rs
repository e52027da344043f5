//! Kind `map`: what an item knows, what it gives, and what follows when one fails.

use exile_engine::run::record::EndStatus;
use serde_json::json;

use crate::stage::{Stage, calls, findings, says};

/// Channels, one node named `n`.
macro_rules! one {
    ($node:literal) => {
        concat!(
            "graph: test\nstate:\n  messages: { reduce: messages }\n  list: { type: array, default: [1, 2, 3] }\n",
            "  base: { type: number, default: 10 }\n  out: { type: array }\n",
            "nodes:\n  n: ", $node, "\nedges:\n  - { from: START, to: n }\n  - { from: n, to: END }\n"
        )
    };
}

#[tokio::test]
async fn each_item_has_its_own_state_and_results_keep_the_order() {
    for (graph, out) in [
        (
            one!(
                "{ kind: map, over: list, as: x, node: { kind: tool, tool: double, args: { x: '{{ x + base }}' } }, into: out }"
            ),
            json!([22.0, 24.0, 26.0]),
        ),
        (
            one!(
                "{ kind: map, over: list, as: x, node: { kind: set, set: { result: 'x * x' } }, into: out }"
            ),
            json!([1, 4, 9]),
        ),
        (
            one!(
                "{ kind: map, over: 'list[:0]', as: x, node: { kind: set, set: { result: x } }, into: out }"
            ),
            json!([]),
        ),
    ] {
        let played = Stage { graph, ..Stage::default() }.play().await;
        assert_eq!((played.error().as_str(), &played.state["out"]), ("", &out));
    }
}

#[tokio::test]
async fn items_are_worked_on_at_the_same_time() {
    // `meets` answers once two calls of it are under way.
    let played = Stage {
        graph: one!("{ kind: map, over: 'list[:2]', as: x, concurrency: 2, node: { kind: tool, tool: meets, args: { x: '{{ x }}' } }, into: out }"),
        ..Stage::default()
    }
    .play()
    .await;
    assert_eq!(played.state["out"], json!([1, 2]));
}

#[tokio::test]
async fn an_item_that_fails_fails_the_map_or_is_left_out_or_kept() {
    const FAIL: &str = one!(
        "{ kind: map, over: list, as: x, node: { kind: set, set: { result: '4 // (x - 2)' } }, into: out }"
    );
    const SKIP: &str = one!(
        "{ kind: map, over: list, as: x, on_item_error: skip, node: { kind: set, set: { result: '4 // (x - 2)' } }, into: out }"
    );
    const KEEP: &str = one!(
        "{ kind: map, over: list, as: x, on_item_error: keep, node: { kind: tool, tool: fails, args: { x: '{{ x }}' } }, into: out }"
    );
    let failed = Stage { graph: FAIL, ..Stage::default() }.play().await;
    assert_eq!(failed.ended.status, EndStatus::Failed);
    assert!(failed.error().starts_with("expression_failed: "), "{}", failed.error());
    let skipped = Stage { graph: SKIP, ..Stage::default() }.play().await;
    assert_eq!(skipped.state["out"], json!([-4, 4]), "{}", skipped.error());
    let kept = Stage { graph: KEEP, ..Stage::default() }.play().await;
    let error =
        json!({ "error": { "code": "tool_failed", "message": "tool `fails`: it is broken" } });
    assert_eq!(kept.state["out"], json!([error, error, error]));
}

#[tokio::test]
async fn what_is_no_list_fails() {
    let graph = one!(
        "{ kind: map, over: base, as: x, node: { kind: set, set: { result: x } }, into: out }"
    );
    let played = Stage { graph, ..Stage::default() }.play().await;
    assert!(played.error().contains("over: it gave 10, which is no list"), "{}", played.error());
}

#[tokio::test]
async fn a_map_inside_a_map() {
    let played = Stage {
        graph: one!("{ kind: map, over: list, as: x, node: { kind: map, over: 'list[:2]', as: y, node: { kind: set, set: { result: 'x * 10 + y' } } }, into: out }"),
        ..Stage::default()
    }
    .play()
    .await;
    assert_eq!(played.state["out"], json!([[11, 12], [21, 22], [31, 32]]), "{}", played.error());
}

#[tokio::test]
async fn an_agent_inside_a_map_reads_the_conversation_and_does_not_talk_to_the_user() {
    let played = Stage {
        graph: one!("{ kind: map, over: 'list[:1]', as: x, node: { kind: agent, tools: [double], system: 'Item {{ x }}.' }, into: out }"),
        answers: vec![calls(&[("a", "double", "{\"x\": 2}")]), says("four")],
        input: json!("hi"),
        ..Stage::default()
    }
    .play()
    .await;
    assert_eq!(played.error(), "");
    assert_eq!(played.state["out"], json!(["four"]));
    assert_eq!(played.sent(0), ["system: Item 1.", "user: hi"]);
    assert_eq!(played.messages(), ["user: hi"]);
    assert_eq!(played.deltas("message.delta"), "");
}

#[tokio::test]
async fn a_graph_inside_a_map() {
    const SQUARE: &str = "graph: square
input: [x]
output: [y]
state:
  x: { type: number }
  y: { type: number }
nodes:
  s: { kind: set, set: { y: x * x } }
edges:
  - { from: START, to: s }
  - { from: s, to: END }
";
    for graph in [
        one!("{ kind: map, over: list, as: x, graph: square, with: { x: x + 1 }, into: out }"),
        one!(
            "{ kind: map, over: list, as: x, node: { kind: graph, graph: square, with: { x: x + 1 } }, into: out }"
        ),
    ] {
        let played = Stage { graph, inside: &[SQUARE], ..Stage::default() }.play().await;
        assert_eq!(
            (played.error().as_str(), &played.state["out"]),
            ("", &json!([{ "y": 4 }, { "y": 9 }, { "y": 16 }]))
        );
    }
}

#[tokio::test]
async fn every_item_may_ask_a_person() {
    let mut show = Stage {
        graph: one!("{ kind: map, over: 'list[:2]', as: x, node: { kind: human, ask: 'Is {{ x }} odd?', choices: [y, n] }, into: out }"),
        ..Stage::default()
    }
    .begin()
    .await;
    let asked = show.waits().await;
    let texts: Vec<&str> = asked.iter().map(|a| a.question.text.as_str()).collect();
    assert_eq!(texts, ["Is 1 odd?", "Is 2 odd?"]);
    show.answer(&asked[1], json!("n")).await;
    let left = show.waits().await;
    assert_eq!(left.len(), 1);
    show.answer(&left[0], json!("y")).await;
    assert_eq!(show.end().await.state["out"], json!(["y", "n"]));
}

#[test]
fn what_loading_finds() {
    let graph = "graph: test
mode: linear
state:
  list: { type: array }
  out: { type: number }
  all: { type: array }
nodes:
  a: { kind: map, over: lsit, as: list, node: { kind: set, set: { result: x } }, into: all }
  b: { kind: map, over: list, as: result, node: { kind: set, set: { result: 1 } }, into: out }
  c: { kind: map, over: list, as: x }
  d:
    kind: map
    over: list
    as: x
    with: { y: 1 }
    node: { kind: set, set: { all: [1], rseult: y } }
    into: all
  e:
    kind: map
    over: list
    as: user
    node:
      kind: tool
      tool: duoble
      args: { x: '{{ itme }}' }
      inot: result
  f: { kind: map, over: list, as: x, graph: nothing, node: { kind: set, set: { result: x } } }
  g: { kind: map, over: list, as: x, graph: nothing, concurrency: 0 }
  h: { kind: map, over: list, as: x, graph: nothing }
  i: { kind: map, over: list, as: x, node: { kind: map, over: x, as: x, node: { kind: nothing } } }
  j: { kind: map, over: list, as: x, node: { kind: set, set: { all: x } } }
order: [a, b, c, d, e, f, g, h, i, j]
";
    expect_test::expect![[r#"
        8: bare_word
        8: duplicate_name
        8: bare_word
        9: `result` is where an item's result is written → call the item something else
        9: literal_type
        10: a map needs what it does with an item → add `node: { kind: … }` or `graph: NAME`
        15: `with` goes with `graph` → move it into `node`, or remove it
        16: bare_word
        16: unknown_channel
        21: invalid_name
        26: unknown_key
        27: a map has a `node` or a `graph`, not both → remove one
        28: invalid_value
        29: unknown_graph
        30: duplicate_name
        30: unknown_kind
        31: an item writes to `result` alone: `all` would be lost → write `result`, and let the map's own `into` name `all`"#]].assert_eq(&findings(graph, &[]).join("\n"));
}

#[tokio::test]
async fn a_node_that_handles_a_failure_reads_what_failed_and_where() {
    const MAP: &str = "graph: test
state:
  list: { type: array, default: [1, 2, 3] }
  out: { type: array }
  told: {}
nodes:
  each: { kind: map, over: list, as: x, node: { kind: set, set: { result: '4 // (x - 2)' } }, into: out, on_error: mend }
  mend: { kind: set, set: { told: '[error.code, error.node, error.item, error.message]' } }
edges:
  - { from: START, to: each }
  - { from: each, to: END }
  - { from: mend, to: END }
";
    const INSIDE: &str = "graph: test
state:
  list: { type: array, default: [1, 2, 3] }
  told: {}
nodes:
  sub: { kind: graph, graph: inner, with: { list: list }, into: { told: told }, on_error: mend }
  mend: { kind: set, set: { told: '[error.code, error.node, error.item, error.message]' } }
edges:
  - { from: START, to: sub }
  - { from: sub, to: END }
  - { from: mend, to: END }
";
    const INNER: &str = "graph: inner
input: [list]
output: [told]
state:
  list: { type: array }
  told: {}
nodes:
  each: { kind: map, over: list, as: x, node: { kind: set, set: { result: '4 // (x - 2)' } }, into: told }
edges:
  - { from: START, to: each }
  - { from: each, to: END }
";
    let told = |node, item| json!(["expression_failed", node, item]);
    let map = Stage { graph: MAP, ..Stage::default() }.play().await;
    let inside = Stage { graph: INSIDE, inside: &[INNER], ..Stage::default() }.play().await;
    for (played, told) in [(map, told("each", json!(2))), (inside, told("sub", json!(null)))] {
        let mut read = played.state["told"].as_array().cloned().unwrap_or_default();
        let message = read.pop().unwrap_or_default();
        assert_eq!(json!(read), told, "{}", played.error());
        assert!(message.as_str().unwrap().contains("4 // (x - 2)"), "{message}");
    }
}
