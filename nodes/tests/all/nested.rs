//! Kind `graph`: what goes in, what comes out, what the user sees of it.

use serde_json::json;

use crate::stage::{Stage, calls, findings_with, says};

/// A graph that talks about a topic.
const TALK: &str = "graph: talk
input: [messages, topic]
output: [messages, words]
state:
  messages: { reduce: messages }
  topic: { type: string }
  words: { type: number, reduce: sum, default: 1 }
nodes:
  say: { kind: llm, system: 'Talk of {{ topic }}.' }
  count: { kind: set, set: { words: 2 } }
edges:
  - { from: START, to: say }
  - { from: say, to: count }
  - { from: count, to: END }
";

/// One node named `n`.
macro_rules! one {
    ($node:literal) => {
        concat!(
            "graph: test\nstate:\n  messages: { reduce: messages }\n  out: {}\n  total: { type: number, reduce: sum, default: 100 }\n",
            "nodes:\n  n: ", $node, "\nedges:\n  - { from: START, to: n }\n  - { from: n, to: END }\n"
        )
    };
}

fn stage(graph: &'static str) -> Stage {
    let answers = vec![says("Earl Grey")];
    Stage { graph, inside: &[TALK], answers, input: json!("hi"), ..Stage::default() }
}

#[tokio::test]
async fn nothing_is_shared_by_name() {
    let played = stage(one!("{ kind: graph, graph: talk, with: { topic: \"'tea'\" }, into: out }"))
        .play()
        .await;
    assert_eq!(played.error(), "");
    assert_eq!(played.sent(0), ["system: Talk of tea."], "no message went in");
    assert_eq!(played.messages(), ["user: hi"], "and none came out");
    assert_eq!(played.state["out"]["words"], 3, "its own channel, from its own default");
    assert_eq!(played.state["out"]["messages"][0]["content"], "Earl Grey");
    assert_eq!(played.state["out"].as_object().unwrap().len(), 2, "outputs alone");
    assert_eq!(
        (played.deltas("message.delta"), played.deltas("node.delta")),
        (String::new(), "Earl Grey".into())
    );
}

#[tokio::test]
async fn messages_that_are_handed_over_are_shown_as_they_are_written() {
    let graph = one!(
        "{ kind: graph, graph: talk, with: { topic: \"'tea'\", messages: messages }, into: { messages: messages, total: words } }"
    );
    let played = stage(graph).play().await;
    assert_eq!(played.sent(0), ["system: Talk of tea.", "user: hi"]);
    assert_eq!(played.messages(), ["user: hi", "assistant: Earl Grey"]);
    assert_eq!(played.deltas("message.delta"), "Earl Grey");
    assert_eq!(played.state["total"], 103, "merged by the outer channel's reducer");
}

#[tokio::test]
async fn a_graph_inside_one_that_keeps_to_itself_keeps_to_itself() {
    const BETWEEN: &str = "graph: between
output: [messages]
state:
  messages: { reduce: messages }
nodes:
  t: { kind: graph, graph: talk, with: { topic: \"'tea'\" }, into: { messages: messages } }
edges:
  - { from: START, to: t }
  - { from: t, to: END }
";
    for (graph, shown) in [
        (one!("{ kind: graph, graph: between, into: { messages: messages } }"), "Earl Grey"),
        (one!("{ kind: graph, graph: between, into: { out: messages } }"), ""),
    ] {
        let played = Stage { inside: &[BETWEEN, TALK], ..stage(graph) }.play().await;
        assert_eq!(played.error(), "");
        assert_eq!(played.deltas("message.delta"), shown);
        let last = played.messages().pop().unwrap();
        assert_eq!(last, if shown.is_empty() { "user: hi" } else { "assistant: Earl Grey" });
    }
}

#[tokio::test]
async fn skills_of_a_graph_inside_are_pinned_with_the_run() {
    const SKILL: &str = "skill: desk\nsystem: You work.\ntools: [double]\n";
    const WORKS: &str = "graph: works
state:
  messages: { reduce: messages }
nodes:
  a: { kind: agent, skill: desk, prompt: Go. }
edges:
  - { from: START, to: a }
  - { from: a, to: END }
";
    let played = Stage {
        graph: one!("{ kind: graph, graph: works, into: { messages: messages } }"),
        inside: &[WORKS],
        skills: &[SKILL],
        answers: vec![calls(&[("a", "double", "{\"x\": 2}")]), says("four")],
        input: json!("hi"),
        ..Stage::default()
    }
    .play()
    .await;
    assert_eq!(played.error(), "");
    assert_eq!(played.sent(0)[0], "system: You work.");
    assert_eq!(
        played.messages(),
        ["user: hi", "assistant:  [\"a\"]", "tool: 4.0", "assistant: four"]
    );
}

#[tokio::test]
async fn a_value_of_the_wrong_type_does_not_go_in() {
    let graph = one!("{ kind: graph, graph: talk, with: { topic: total }, into: out }");
    let played = stage(graph).play().await;
    assert!(played.error().starts_with("write_refused: "), "{}", played.error());
    assert!(played.error().contains("`topic` takes string, got 100"), "{}", played.error());
}

#[test]
fn what_loading_finds() {
    let graph = "graph: test
mode: linear
state:
  messages: { reduce: messages }
  out: { type: string }
nodes:
  a: { kind: graph, graph: tlak }
  b: { kind: graph, graph: talk }
  c: { kind: graph, graph: talk, with: { topic: 5, tpoic: out, words: 1 }, into: out }
  d: { kind: graph, graph: talk, with: { topic: oout }, into: { otu: words, out: topic, messages: words } }
  e: { kind: graph, graph: talk, with: { topic: out }, into: messages }
  f: { kind: graph, graph: test }
order: [a, b, c, d, e, f]
";
    expect_test::expect![[r#"
        7: unknown_graph
        8: the graph `talk` must be given `topic` → add `with: { topic: … }`, or give it a default there
        9: literal_type
        9: unknown_channel
        9: unknown_channel
        9: literal_type
        10: bare_word
        10: unknown_channel
        10: unknown_channel
        10: `messages` holds messages, and `words` of `talk` does not → name a channel with `reduce: messages`
        11: `messages` holds messages, and `into` writes a value → remove `into`, or name another channel
        12: endless_graph"#]].assert_eq(&findings_with(graph, &[], &[TALK]).join("\n"));
}
