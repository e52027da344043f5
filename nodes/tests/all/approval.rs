//! Tools that a person must agree to: `approve` of a skill, an `agent`, `tools` and a `tool`.

use exile_engine::run::record::AskReason;
use serde_json::{Value, json};

use crate::stage::{Stage, calls, findings, says};

const CAREFUL: &str = "skill: desk\ntools: [double, fails]\napprove: [double]\n";
const PLAIN: &str = "skill: desk\ntools: [double, fails]\n";

macro_rules! one {
    ($node:literal) => {
        concat!(
            "graph: test\nstate:\n  messages: { reduce: messages }\n  out: {}\n",
            "nodes:\n  n: ",
            $node,
            "\nedges:\n  - { from: START, to: n }\n  - { from: n, to: END }\n"
        )
    };
}

const LOOP: &str = "graph: test
state:
  messages: { reduce: messages }
nodes:
  ask: { kind: llm, skill: desk }
  act: { kind: tools, skill: desk, approve: [dou*] }
edges:
  - { from: START, to: ask }
  - { from: ask, to: act, when: 'messages[-1].tool_calls is defined' }
  - { from: ask, to: END, otherwise: true }
  - { from: act, to: ask }
";

fn stage(graph: &'static str, skills: &'static [&'static str]) -> Stage {
    let asks = calls(&[("a", "double", "{\"x\": 2}"), ("b", "fails", "{\"x\": 1}")]);
    let answers = vec![asks, says("done")];
    Stage { graph, skills, answers, input: json!("go"), ..Stage::default() }
}

#[tokio::test]
async fn a_call_that_needs_a_person_waits_for_one_and_the_others_do_not() {
    for (graph, skills) in [
        (one!("{ kind: agent, skill: desk }"), &[CAREFUL][..]),
        (one!("{ kind: agent, skill: desk, approve: [double] }"), &[PLAIN]),
        (LOOP, &[PLAIN]),
    ] {
        let mut show = stage(graph, skills).begin().await;
        let asked = show.waits().await;
        assert_eq!(asked.len(), 1, "{asked:?}");
        let question = &asked[0].question;
        assert_eq!(
            (question.reason, question.tool.as_deref()),
            (AskReason::Approval, Some("double"))
        );
        assert_eq!(question.args, Some(json!({ "x": 2 })));
        show.answer(&asked[0], json!("approve")).await;
        let played = show.end().await;
        let messages = played.messages();
        assert_eq!(messages[2], "tool: 4.0", "{messages:?}");
        assert!(messages[3].contains("it is broken"), "{messages:?}");
        assert_eq!(messages[4], "assistant: done");
        assert_eq!(played.asked.len(), 2, "no model is asked again");
    }
}

#[tokio::test]
async fn a_refused_call_is_told_to_the_model_and_an_edited_one_is_made() {
    for (answer, result) in [
        (json!({ "reject": "too dear" }), "too dear"),
        (json!("reject"), "refused"),
        (json!({ "edit": { "x": 5 } }), "10.0"),
    ] {
        let mut show = stage(one!("{ kind: agent, skill: desk }"), &[CAREFUL]).begin().await;
        let asked = show.waits().await;
        show.answer(&asked[0], answer).await;
        let played = show.end().await;
        assert!(played.messages()[2].contains(result), "{:?}", played.messages());
    }
}

#[tokio::test]
async fn what_a_person_changed_is_in_the_history_that_the_model_reads_and_in_the_events() {
    for (graph, skills) in
        [(one!("{ kind: agent, skill: desk }"), &[CAREFUL][..]), (LOOP, &[PLAIN])]
    {
        for (answer, edited, called, result) in [
            (json!({ "edit": { "x": 5 } }), json!({ "x": 5 }), json!({ "x": 5 }), "10.0"),
            // What the tool does not take is not called, and the model reads whose words those were.
            (
                json!({ "edit": { "x": "five" } }),
                json!({ "x": "five" }),
                json!({ "x": "five" }),
                "invalid_args",
            ),
            (json!({ "edit": { "x": 2 } }), Value::Null, json!({ "x": 2 }), "4.0"),
            (json!("approve"), Value::Null, json!({ "x": 2 }), "4.0"),
            (json!("reject"), Value::Null, json!({ "x": 2 }), "refused"),
        ] {
            let mut show = stage(graph, skills).begin().await;
            let asked = show.waits().await;
            show.answer(&asked[0], answer.clone()).await;
            let played = show.end().await;
            let sent = &played.asked[1].messages;
            let call = sent.iter().position(|m| !m.tool_calls.is_empty()).unwrap();
            assert_eq!(sent[call].tool_calls[0].arguments, "{\"x\": 2}", "what the model wrote");
            let told = &sent[call + 1];
            assert_eq!(told.edited_arguments.clone().unwrap_or_default(), edited, "{answer}");
            assert!(told.content.contains(result), "{answer}: {}", told.content);
            assert_eq!(sent[call + 2].edited_arguments, None, "the other call is as it was");
            let event = |name: &str| {
                let of = |e: &&exile_engine::run::event::Event| {
                    e.name == name && e.data["tool"] == "double"
                };
                played.events.iter().find(of).unwrap().data.clone()
            };
            assert_eq!(event("tool.call")["arguments"], called, "{answer}");
            assert_eq!(event("tool.result")["edited_arguments"], edited, "{answer}");
        }
    }
}

#[tokio::test]
async fn a_tool_node_waits_too() {
    const NODE: &str =
        one!("{ kind: tool, tool: double, args: { x: 4 }, approve: true, into: out }");
    for (answer, out, error) in [
        (json!("approve"), json!(8.0), ""),
        (json!("reject"), Value::Null, "tool_failed: node `n`: tool `double`: a person refused"),
    ] {
        let mut show = Stage { graph: NODE, ..Stage::default() }.begin().await;
        let asked = show.waits().await;
        show.answer(&asked[0], answer).await;
        let played = show.end().await;
        assert_eq!(played.state["out"], out);
        assert!(played.error().starts_with(error), "{}", played.error());
    }
}

#[test]
fn patterns_must_cover_a_tool() {
    let graph = "graph: test
mode: linear
state:
  messages: { reduce: messages }
nodes:
  a: { kind: agent, tools: [double], approve: [dubble] }
  b: { kind: tools, approve: [mail__*] }
  c: { kind: tool, tool: double, args: { x: 1 }, approve: [double] }
order: [a, b, c]
";
    expect_test::expect![[r#"
        6: unknown_tool
        7: unknown_tool
        8: wrong_type"#]]
    .assert_eq(&findings(graph, &[]).join("\n"));
}
