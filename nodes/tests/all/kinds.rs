//! Node kinds, by what they send, write and show.

use exile_engine::model::ToolChoice;
use exile_engine::run::record::{EndStatus, RunOptions};
use serde_json::json;

use crate::stage::{Stage, calls, says};

const SKILL: &str = "skill: desk
model: fast
temperature: 0.2
system: You work at a desk.
tools: [double, fails]
";

/// One node named `n` between START and END.
macro_rules! one {
    ($node:literal) => {
        concat!(
            "graph: test\nstate:\n  messages: { reduce: messages }\n  out: {}\n  topic: { type: string, default: tea }\n",
            "nodes:\n  n: ", $node, "\nedges:\n  - { from: START, to: n }\n  - { from: n, to: END }\n"
        )
    };
}

fn options(skill: Option<&str>, model: Option<&str>, system: Option<&str>) -> RunOptions {
    RunOptions {
        skill: skill.map(str::to_owned),
        model: model.map(str::to_owned),
        system_prompt: system.map(str::to_owned),
        business: None,
        key: None,
    }
}

#[tokio::test]
async fn an_llm_answers_into_the_conversation_and_is_watched() {
    let played = Stage {
        graph: one!("{ kind: llm, system: 'Talk of {{ topic }}.', prompt: 'Now, {{ topic }}!' }"),
        answers: vec![says("Earl Grey")],
        options: options(None, None, Some("Be brief.")),
        input: json!("hi"),
        ..Stage::default()
    }
    .play()
    .await;
    assert_eq!(
        played.sent(0),
        ["system: Be brief.", "system: Talk of tea.", "user: hi", "user: Now, tea!"]
    );
    assert_eq!(played.messages(), ["user: hi", "assistant: Earl Grey"], "the prompt is not stored");
    assert_eq!(played.deltas("message.delta"), "Earl Grey");
    assert_eq!(&*played.asked[0].model, "default");
    assert!(played.offered(0).is_empty());
}

#[tokio::test]
async fn with_into_the_answer_goes_there_alone() {
    let played = Stage {
        graph: one!("{ kind: llm, prompt: Name a tea, into: out }"),
        answers: vec![says("Earl Grey")],
        options: options(None, None, Some("Be brief.")),
        input: json!("hi"),
        ..Stage::default()
    }
    .play()
    .await;
    assert_eq!(played.state["out"], "Earl Grey");
    assert_eq!(played.messages(), ["user: hi"]);
    assert_eq!(played.sent(0), ["user: hi", "user: Name a tea"], "it does not talk to the user");
    assert_eq!(played.deltas("message.delta"), "");
    assert_eq!(played.deltas("node.delta"), "Earl Grey");
}

#[tokio::test]
async fn skill_model_and_temperature_follow_their_precedence() {
    const PLAIN: &str = one!("{ kind: llm }");
    const SKILLED: &str = one!("{ kind: llm, skill: desk }");
    const OWN: &str =
        one!("{ kind: llm, skill: desk, model: stage/own, temperature: 1, max_tokens: 7 }");
    for (graph, chosen, model, temperature) in [
        (PLAIN, options(None, None, None), "default", None),
        (PLAIN, options(Some("desk"), None, None), "fast", Some(0.2)),
        (PLAIN, options(Some("desk"), Some("stage/mine"), None), "mine", Some(0.2)),
        (SKILLED, options(None, None, None), "fast", Some(0.2)),
        (SKILLED, options(None, Some("stage/mine"), None), "mine", Some(0.2)),
        (OWN, options(None, Some("stage/mine"), None), "own", Some(1.0)),
    ] {
        let played = Stage {
            graph,
            skills: &[SKILL],
            options: chosen.clone(),
            answers: vec![says("ok")],
            input: json!("hi"),
            ..Stage::default()
        }
        .play()
        .await;
        let asked = &played.asked[0];
        assert_eq!((&*asked.model, asked.temperature), (model, temperature), "{chosen:?}");
    }
}

#[tokio::test]
async fn a_graph_of_llm_and_tools_loops_until_there_is_an_answer() {
    let played = Stage {
        graph: "graph: test
state:
  messages: { reduce: messages }
nodes:
  ask: { kind: llm, skill: desk, tools: [double] }
  act: { kind: tools }
edges:
  - { from: START, to: ask }
  - { from: ask, to: act, when: 'messages[-1].tool_calls is defined' }
  - { from: ask, to: END, otherwise: true }
  - { from: act, to: ask }
",
        skills: &[SKILL],
        answers: vec![
            calls(&[("a", "double", "{\"x\": 4}"), ("b", "fails", "{\"x\": 1}"), ("c", "rm", "")]),
            says("8"),
        ],
        input: json!("2 * 4?"),
        ..Stage::default()
    }
    .play()
    .await;
    assert_eq!(played.error(), "");
    assert_eq!(played.offered(0), ["double"]);
    let sent = played.sent(1);
    assert_eq!(sent[3], "tool: 8.0");
    assert!(sent[4].contains("not_found") && sent[4].contains("there are: double"), "{}", sent[4]);
    assert!(sent[5].contains("not_found"), "{}", sent[5]);
    assert_eq!(played.messages().last().unwrap(), "assistant: 8");
}

#[tokio::test]
async fn calls_of_one_message_run_at_the_same_time_and_answer_in_order() {
    let played = Stage {
        graph: one!("{ kind: agent, tools: [meets] }"),
        answers: vec![
            calls(&[("a", "meets", "{\"x\": 1}"), ("b", "meets", "{\"x\": 2}")]),
            says("done"),
        ],
        input: json!("go"),
        ..Stage::default()
    }
    .play()
    .await;
    assert_eq!(played.sent(1)[1..], ["assistant:  [\"a\", \"b\"]", "tool: 1", "tool: 2"]);
}

#[tokio::test]
async fn an_agent_calls_tools_until_it_answers_and_everything_joins_the_conversation() {
    let played = Stage {
        graph: one!("{ kind: agent, skill: desk, system: 'About {{ topic }}.', prompt: Go. }"),
        skills: &[SKILL],
        answers: vec![
            calls(&[("a", "double", "{\"x\": 2}")]),
            calls(&[("b", "double", "{\"x\": \"four\"}"), ("c", "fails", "{\"x\": 1}")]),
            says("four"),
        ],
        input: json!("2 * 2?"),
        ..Stage::default()
    }
    .play()
    .await;
    assert_eq!(played.offered(0), ["double", "fails"]);
    let sent = played.sent(2);
    assert_eq!(
        sent[..5],
        [
            "system: You work at a desk.",
            "system: About tea.",
            "user: 2 * 2?",
            "user: Go.",
            "assistant:  [\"a\"]"
        ],
        "the prompt stays before what the agent adds"
    );
    assert!(sent[7].contains("invalid_args") && sent[8].contains("it is broken"), "{sent:?}");
    let messages = played.messages();
    assert_eq!((messages.len(), messages[6].as_str()), (7, "assistant: four"));
    assert_eq!(played.deltas("message.delta"), "four");
}

#[tokio::test]
async fn an_agent_without_a_skill_has_no_tools_and_takes_those_of_the_conversation() {
    for (skill, offered) in [(None, &[][..]), (Some("desk"), &["double", "fails"][..])] {
        let played = Stage {
            graph: one!("{ kind: agent }"),
            skills: &[SKILL],
            options: options(skill, None, None),
            answers: vec![says("ok")],
            input: json!("hi"),
            ..Stage::default()
        }
        .play()
        .await;
        assert_eq!(played.offered(0), offered);
    }
    let narrowed = Stage {
        graph: one!("{ kind: agent, tools: [fails, meets] }"),
        skills: &[SKILL],
        options: options(Some("desk"), None, None),
        answers: vec![says("ok")],
        input: json!("hi"),
        ..Stage::default()
    };
    assert_eq!(narrowed.play().await.offered(0), ["fails"]);
}

#[tokio::test]
async fn an_agent_with_into_hands_over_its_last_words_alone() {
    let played = Stage {
        graph: one!("{ kind: agent, tools: [double], into: out }"),
        answers: vec![calls(&[("a", "double", "{\"x\": 2}")]), says("four")],
        input: json!("2 * 2?"),
        ..Stage::default()
    }
    .play()
    .await;
    assert_eq!(played.state["out"], "four");
    assert_eq!(played.messages(), ["user: 2 * 2?"]);
    assert_eq!(played.deltas("message.delta"), "");
}

#[tokio::test]
async fn the_last_turn_of_an_agent_must_answer() {
    let stage = |last| Stage {
        graph: one!("{ kind: agent, tools: [double], max_turns: 2 }"),
        answers: vec![calls(&[("a", "double", "{\"x\": 2}")]), last],
        input: json!("2 * 2?"),
        ..Stage::default()
    };
    let answered = stage(says("four")).play().await;
    assert_eq!(answered.asked[0].tool_choice, ToolChoice::Auto);
    assert_eq!(answered.asked[1].tool_choice, ToolChoice::None);
    assert_eq!(answered.messages().last().unwrap(), "assistant: four");
    let stubborn = stage(calls(&[("b", "double", "{\"x\": 2}")])).play().await;
    assert_eq!(stubborn.ended.status, EndStatus::Failed);
    assert!(stubborn.error().starts_with("limit_reached: "), "{}", stubborn.error());
    assert!(stubborn.error().contains("raise max_turns"), "{}", stubborn.error());
    let kept = stubborn.messages();
    assert!(kept.contains(&"tool: 4.0".to_owned()), "what was done stays: {kept:?}");
}

#[tokio::test]
async fn an_answer_that_was_cut_before_a_word_is_an_error() {
    for node in [one!("{ kind: llm, max_tokens: 9 }"), one!("{ kind: agent, max_tokens: 9 }")] {
        let played = Stage {
            graph: node,
            answers: vec![says("").cut()],
            input: json!("hi"),
            ..Stage::default()
        }
        .play()
        .await;
        assert_eq!(played.asked[0].max_tokens, Some(9));
        assert!(played.error().contains("raise max_tokens"), "{}", played.error());
    }
}

const CLASSIFY: &str = one!(
    "{ kind: llm, system: Sort it., into: out, output: { type: object, required: [n], properties: { n: { type: integer } } } }"
);

#[tokio::test]
async fn an_output_schema_is_told_checked_and_asked_for_again() {
    let played = Stage {
        graph: CLASSIFY,
        answers: vec![says("seven"), says("{\"n\": \"7\"}"), says("```json\n{\"n\": 7}\n```")],
        input: json!("hi"),
        ..Stage::default()
    }
    .play()
    .await;
    assert_eq!(played.error(), "");
    assert_eq!(played.state["out"], json!({ "n": 7 }));
    assert!(played.sent(0)[0].contains("Sort it.\n\nAnswer with one JSON value"));
    assert_eq!(played.asked[0].output_schema.as_ref().unwrap()["required"], json!(["n"]));
    let again = played.sent(2);
    assert_eq!(again[2], "assistant: seven");
    assert!(again[3].starts_with("user: That cannot be used: it is not JSON"), "{}", again[3]);
    assert!(again[5].contains("/n: "), "{}", again[5]);
}

#[tokio::test]
async fn an_output_that_never_fits_fails_the_node() {
    let played = Stage {
        graph: CLASSIFY,
        answers: vec![says("no"), says("no"), says("no"), says("{\"n\": 1}")],
        input: json!("hi"),
        ..Stage::default()
    }
    .play()
    .await;
    assert_eq!(played.asked.len(), 3);
    assert!(played.error().starts_with("output_invalid: "), "{}", played.error());
}

#[tokio::test]
async fn a_tool_choice_is_passed_on() {
    for (graph, choice) in [
        (one!("{ kind: llm, tools: [double], tool_choice: required }"), ToolChoice::Required),
        (
            one!("{ kind: llm, tools: [double], tool_choice: double }"),
            ToolChoice::Named("double".into()),
        ),
    ] {
        let stage =
            Stage { graph, answers: vec![says("x")], input: json!("hi"), ..Stage::default() };
        assert_eq!(stage.play().await.asked[0].tool_choice, choice);
    }
}

#[tokio::test]
async fn a_tool_is_called_with_rendered_arguments() {
    let played = Stage {
        graph: "graph: test
state:
  x: { type: number }
  out: { type: number }
nodes:
  n: { kind: tool, tool: double, args: { x: '{{ x }}' }, into: out }
edges:
  - { from: START, to: n }
  - { from: n, to: END }
",
        input: json!({ "x": 21 }),
        ..Stage::default()
    }
    .play()
    .await;
    assert_eq!((played.error().as_str(), &played.state["out"]), ("", &json!(42.0)));
}

#[tokio::test]
async fn a_tool_that_fails_fails_its_node() {
    let graph = one!("{ kind: tool, tool: fails, args: { x: 1 }, into: out }");
    let played = Stage { graph, ..Stage::default() }.play().await;
    assert_eq!(played.error(), "tool_failed: node `n`: tool `fails`: it is broken");
}

#[tokio::test]
async fn set_writes_expressions_and_literals() {
    let played = Stage {
        graph: "graph: test
state:
  n: { type: integer, default: 2 }
  list: { type: array, reduce: append }
  text: { type: string }
  flag: { type: boolean }
nodes:
  s: { kind: set, set: { n: n * 3, list: [1, two], text: \"'a' ~ n\", flag: true } }
edges:
  - { from: START, to: s }
  - { from: s, to: END }
",
        ..Stage::default()
    }
    .play()
    .await;
    let expected = json!({ "n": 6, "list": [1, "two"], "text": "a2", "flag": true });
    assert_eq!(json!(played.state), expected, "all from one snapshot");
}
