//! Kind `human`: what is asked, what counts as an answer, where it goes.

use std::time::Duration;

use exile_engine::run::record::{AskReason, EndStatus};
use serde_json::json;

use crate::stage::{Stage, findings, says};

/// One node named `n`, then one that shows what there is.
macro_rules! asks {
    ($node:literal) => {
        concat!(
            "graph: test\nstate:\n  messages: { reduce: messages }\n  out: { type: string }\n  amount: { type: number, default: 7 }\n",
            "nodes:\n  n: ", $node, "\nedges:\n  - { from: START, to: n }\n  - { from: n, to: END }\n"
        )
    };
}

const CHOOSE: &str = asks!(
    "{ kind: human, ask: 'Refund {{ amount }}?', choices: [approve, reject], expires: { after: 2d, answer: reject }, into: out }"
);
const SAY: &str = asks!("{ kind: human, ask: 'Which order?', into: out }");
const TALK: &str = asks!("{ kind: human, ask: 'Which order?' }");

#[tokio::test]
async fn a_choice_is_asked_for_and_goes_where_the_node_says() {
    let mut show = Stage { graph: CHOOSE, ..Stage::default() }.begin().await;
    let asked = show.waits().await;
    let question = &asked[0].question;
    assert_eq!(asked.len(), 1);
    assert_eq!((question.reason, question.text.as_str()), (AskReason::Human, "Refund 7?"));
    assert_eq!(question.choices, ["approve", "reject"]);
    assert_eq!(asked[0].otherwise, Some(json!("reject")));
    assert!(asked[0].expires_ms.is_some());
    show.answer(&asked[0], json!("approve")).await;
    let played = show.end().await;
    assert_eq!((played.error().as_str(), &played.state["out"]), ("", &json!("approve")));
    assert!(played.messages().is_empty(), "a choice is no message");
}

#[tokio::test]
async fn a_free_text_goes_to_its_channel_and_as_a_message_into_the_conversation() {
    let mut show = Stage { graph: SAY, ..Stage::default() }.begin().await;
    let asked = show.waits().await;
    assert_eq!((asked[0].question.choices.len(), asked[0].expires_ms), (0, None));
    show.say(&asked[0], "A-17").await;
    let played = show.end().await;
    assert_eq!(played.state["out"], "A-17");
    assert_eq!(played.messages(), ["user: A-17"]);
    assert_eq!(played.state["messages"][0]["id"], "msg_said", "the very message");

    let mut show = Stage { graph: SAY, ..Stage::default() }.begin().await;
    let asked = show.waits().await;
    show.answer(&asked[0], json!("A-18")).await;
    let played = show.end().await;
    assert_eq!(played.state["out"], "A-18");
    assert!(played.messages().is_empty(), "it was not said in the conversation");
}

#[tokio::test]
async fn without_a_channel_the_answer_is_a_message_however_it_was_given() {
    for by_message in [true, false] {
        let mut show = Stage { graph: TALK, input: json!("hi"), ..Stage::default() }.begin().await;
        let asked = show.waits().await;
        if by_message {
            show.say(&asked[0], "A-17").await;
        } else {
            show.answer(&asked[0], json!("A-17")).await;
        }
        assert_eq!(show.end().await.messages(), ["user: hi", "user: A-17"]);
    }
}

#[tokio::test]
async fn a_question_that_expires_has_its_answer_or_fails() {
    const HARD: &str =
        asks!("{ kind: human, ask: Well?, choices: [a, b], expires: { after: 1h }, into: out }");
    for (graph, status, out) in
        [(CHOOSE, EndStatus::Finished, json!("reject")), (HARD, EndStatus::Failed, json!(null))]
    {
        let mut show = Stage { graph, ..Stage::default() }.begin().await;
        show.waits().await;
        show.env.advance(Duration::from_hours(49));
        let played = show.end().await;
        assert_eq!((played.ended.status, &played.state["out"]), (status, &out));
        if status == EndStatus::Failed {
            assert!(played.error().starts_with("interrupt_expired: "), "{}", played.error());
        }
    }
}

#[tokio::test]
async fn two_people_are_asked_at_once_and_each_answer_finds_its_node() {
    const BOTH: &str = "graph: test
state:
  first: {}
  second: {}
  said: {}
nodes:
  a: { kind: human, ask: A?, choices: [x, y], into: first }
  b: { kind: human, ask: B?, choices: [x, y], into: second }
  c: { kind: llm, prompt: go, into: said }
edges:
  - { from: START, to: a }
  - { from: START, to: b }
  - { from: START, to: c }
  - { from: [a, b, c], to: END }
";
    let stage = Stage { graph: BOTH, answers: vec![says("once")], ..Stage::default() };
    let mut show = stage.begin().await;
    let asked = show.waits().await;
    let of = |text: &str| asked.iter().find(|a| a.question.text == text).unwrap();
    show.answer(of("B?"), json!("y")).await;
    let left = show.waits().await;
    assert_eq!(left.iter().map(|a| a.question.text.as_str()).collect::<Vec<_>>(), ["A?"]);
    assert_eq!(left[0].id, of("A?").id, "the same question");
    show.answer(&left[0], json!("x")).await;
    let played = show.end().await;
    assert_eq!((&played.state["first"], &played.state["second"]), (&json!("x"), &json!("y")));
    assert_eq!((&played.state["said"], played.asked.len()), (&json!("once"), 1), "asked once");
}

#[test]
fn what_loading_finds() {
    let graph = "graph: test
mode: linear
state:
  out: { type: number }
  word: {}
nodes:
  a: { kind: human, ask: A?, choices: [x, y], expires: { after: 2d, answer: z }, into: word }
  b: { kind: human, ask: B?, choices: [x, x, ''], into: word }
  c: { kind: human, ask: C? }
  d: { kind: human, ask: '{{ wrod }}', into: wrod }
  e: { kind: human, ask: E?, choices: [x], into: out }
  f: { kind: human, ask: F?, choices: [], expires: { after: soon }, into: word }
  g: { kind: human, ask: G?, choices: [x] }
order: [a, b, c, d, e, f, g]
";
    expect_test::expect![[r#"
        7: `z` is not among the choices → write one of: x, y
        8: `x` is listed twice → keep one
        8: a choice cannot be empty → write a word, or remove it
        9: the answer goes nowhere: there is no `into` → add `into: CHANNEL`
        10: unknown_variable
        10: unknown_channel
        11: literal_type
        12: invalid_value
        12: invalid_value
        13: the answer goes nowhere: there is no `into` → add `into: CHANNEL`"#]]
    .assert_eq(&findings(graph, &[]).join("\n"));
}
