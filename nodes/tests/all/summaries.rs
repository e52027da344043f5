//! Kind `summarize`: when a summary is made, what it stands for, and who is sent it.

use serde_json::{Value, json};

use crate::stage::{Played, Stage, says};

macro_rules! graph {
    ($summarize:literal, $answer:literal) => {
        concat!(
            "graph: test\nstate:\n  messages: { reduce: messages }\n",
            "nodes:\n  s: ", $summarize, "\n  a: ", $answer,
            "\nedges:\n  - { from: START, to: s }\n  - { from: s, to: a }\n  - { from: a, to: END }\n"
        )
    };
}

/// Six messages of 40 letters each, and before them what `first` says.
fn history(first: &[Value]) -> Value {
    let message = |i: usize| {
        let role = if i.is_multiple_of(2) { "user" } else { "assistant" };
        json!({ "id": format!("m{i}"), "role": role, "content": format!("{i}").repeat(40) })
    };
    let messages: Vec<Value> = first.iter().cloned().chain((0..6).map(message)).collect();
    json!({ "messages": messages })
}

fn shapes(sent: &[String]) -> Vec<String> {
    sent.iter().map(|line| line.chars().take(24).collect()).collect()
}

async fn play(graph: &'static str, input: Value) -> Played {
    let answers = vec![says("They counted."), says("fine")];
    Stage { graph, answers, input, ..Stage::default() }.play().await
}

#[tokio::test]
async fn what_is_long_is_replaced_for_the_model_and_stays_in_the_conversation() {
    for graph in [
        graph!(
            "{ kind: summarize, over: 50, keep: 2, model: fast, prompt: Keep names. }",
            "{ kind: llm }"
        ),
        graph!(
            "{ kind: summarize, over: 50, keep: 2, model: fast, prompt: Keep names. }",
            "{ kind: agent }"
        ),
    ] {
        let played = play(graph, history(&[])).await;
        assert_eq!(played.error(), "");
        assert_eq!(&*played.asked[0].model, "fast");
        let asked = played.sent(0);
        assert!(asked[0].ends_with("Keep names."), "{}", asked[0]);
        assert_eq!(asked[1].matches("user: ").count(), 1 + 2, "its own, and 0 and 2: {}", asked[1]);
        assert!(asked[1].contains(&"3".repeat(40)) && !asked[1].contains("44"), "{}", asked[1]);
        let sent = played.sent(1);
        assert_eq!(
            shapes(&sent),
            ["system: Summary of the c", "user: 444444444444444444", "assistant: 5555555555555"]
        );
        assert!(sent[0].ends_with("They counted."));
        let messages = played.state["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 6 + 2, "all six, the summary and the answer");
        assert_eq!(
            (&messages[6]["role"], &messages[6]["covers"]),
            (&json!("system"), &json!("m3"))
        );
        assert_eq!(played.deltas("message.delta"), "fine", "the user sees nothing of it");
        assert_eq!(played.deltas("node.delta"), "They counted.");
    }
}

#[tokio::test]
async fn what_is_short_is_left_alone() {
    let graph = graph!("{ kind: summarize, over: 84, keep: 2 }", "{ kind: llm }");
    let played = play(graph, history(&[])).await;
    assert_eq!(played.asked.len(), 1, "six times ten tokens and four");
    assert_eq!(played.sent(0).len(), 6);
    let all_kept = graph!("{ kind: summarize, over: 10, keep: 10 }", "{ kind: llm }");
    assert_eq!(play(all_kept, history(&[])).await.asked.len(), 1, "nothing could be left out");
}

#[tokio::test]
async fn a_later_summary_takes_the_earlier_one_in() {
    let old = [
        json!({ "id": "o1", "role": "user", "content": "old" }),
        json!({ "id": "s1", "role": "system", "content": "Before: x.", "covers": "o1" }),
    ];
    let graph = graph!("{ kind: summarize, over: 50, keep: 2 }", "{ kind: llm }");
    let played = play(graph, history(&old)).await;
    let asked = &played.sent(0)[1];
    assert!(
        asked.contains("summary of what came before: Before: x.") && !asked.contains("old"),
        "{asked}"
    );
    assert_eq!(played.sent(1).len(), 3, "the newest, and what it does not cover");
    assert!(played.sent(1)[0].ends_with("They counted."));
    assert_eq!(played.state["messages"].as_array().unwrap().len(), 8 + 2);
}

#[tokio::test]
async fn a_tool_call_stays_with_its_result() {
    let call = json!({ "id": "c", "name": "double", "arguments": "{}" });
    let old = [
        json!({ "id": "x", "role": "assistant", "tool_calls": [call] }),
        json!({ "id": "y", "role": "tool", "tool_call_id": "c", "content": "4" }),
    ];
    let graph = graph!("{ kind: summarize, over: 10, keep: 7 }", "{ kind: llm }");
    let played = play(graph, history(&old)).await;
    assert_eq!(played.asked.len(), 1, "one of the pair alone cannot be left out");
    let graph = graph!("{ kind: summarize, over: 10, keep: 6 }", "{ kind: llm }");
    let played = play(graph, history(&old)).await;
    assert_eq!(played.state["messages"][8]["covers"], "y");
    assert!(played.sent(0)[1].contains("[calls double with {}]"), "{}", played.sent(0)[1]);
}

#[tokio::test]
async fn a_summary_that_says_nothing_fails() {
    let graph = graph!("{ kind: summarize, over: 10, keep: 1 }", "{ kind: llm }");
    for (answer, error) in [(says("  "), "the summary is empty"), (says("x").cut(), "token limit")]
    {
        let stage = Stage { graph, answers: vec![answer], input: history(&[]), ..Stage::default() };
        let played = stage.play().await;
        assert!(played.error().contains(error), "{}", played.error());
    }
}
