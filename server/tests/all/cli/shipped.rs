//! What the graphs and the skill that ship do.

use std::sync::Barrier;

use serde_json::{Value, json};

use super::installation::Installation;
use super::upstream::{Say, Upstream};

/// The output of `research`.
fn research(place: &Installation) -> Value {
    let input = r#"{"messages": [{"role": "user", "content": "Why is the sky dark at night?"}]}"#;
    let ended = place.run(&["run", "research", "--input", input]);
    assert_eq!(ended.code, 0, "{ended:?}");
    serde_json::from_str(&ended.out).unwrap()
}

#[test]
fn a_reviewer_who_is_never_content_asks_for_more_twice() {
    let output = research(&Installation::bare());
    assert_eq!(output["rounds"], 2);
    assert_eq!(output["findings"].as_array().unwrap().len(), 6, "{output}");
    let messages = output["messages"].as_array().unwrap();
    let roles: Vec<&Value> = messages.iter().map(|m| &m["role"]).collect();
    assert_eq!(roles, ["user", "assistant"]);
}

#[test]
fn researchers_work_at_the_same_time_and_a_content_reviewer_ends_it() {
    // Neither researcher is answered before both have asked.
    let both = Barrier::new(2);
    let upstream = Upstream::start(move |asked| {
        let is = |part: &str| asked.body.contains(part);
        if is("Collect facts") {
            both.wait();
            Say::Text("a fact")
        } else if is("speaks against the obvious") {
            both.wait();
            Say::Text("a doubt")
        } else if is("Decide whether") {
            Say::Text(r#"{"enough": true, "missing": ""}"#)
        } else {
            Say::Text("the answer")
        }
    });
    let config = format!(
        "models: {{ default: lab/m }}\nproviders: {{ lab: {{ base_url: {}/v1 }} }}\n",
        upstream.url
    );
    let output = research(&Installation::bare().with("exile.yaml", &config));
    assert_eq!(output["rounds"], 0);
    assert_eq!(output["findings"], json!(["a fact", "a doubt"]));
    assert_eq!(output["messages"][1]["content"], "the answer");
    let asked = upstream.all();
    let review = asked.iter().find(|a| a.body.contains("Decide whether")).unwrap();
    assert!(review.body.contains("a fact") && review.body.contains("a doubt"), "{review:?}");
    assert_eq!(asked.len(), 4);
}

/// What `refund-desk` comes to when the customer wants these sums back: the output, or what the
/// run shows while it waits.
fn refunded(claims: &'static str, answer: Option<&str>) -> Value {
    let upstream = Upstream::start(move |asked| {
        if asked.body.contains("List every sum") {
            Say::Text(claims)
        } else {
            Say::Text("You will be told.")
        }
    });
    let config = format!(
        "models: {{ default: lab/m }}\nproviders: {{ lab: {{ base_url: {}/v1 }} }}\n",
        upstream.url
    );
    let place = Installation::bare().with("exile.yaml", &config);
    let input = r#"{"messages": [{"role": "user", "content": "I want my money back."}]}"#;
    let ended = place.run(&["run", "refund-desk", "--input", input]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let Some(answer) = answer else { return serde_json::from_str(&ended.out).unwrap() };
    assert!(ended.out.contains("Refund 599.0 in all, for 2*299.50?"), "{ended:?}");
    let hint = ended.out.lines().find_map(|l| l.split("exile resume ").nth(1)).unwrap();
    let run = hint.split(' ').next().unwrap();
    let done = place.run(&["resume", run, "--answer", answer]);
    assert_eq!(done.code, 0, "{done:?}");
    serde_json::from_str(&done.out).unwrap()
}

#[test]
fn a_small_refund_needs_nobody_and_a_claim_that_is_no_sum_is_left_out() {
    let output = refunded(r#"{"claims": ["100+20.5", "the blue one", "30"]}"#, None);
    assert_eq!((&output["amount"], &output["decision"]), (&json!(150.5), &json!("not_needed")));
    assert_eq!(output["messages"][1]["content"], "You will be told.");
    let bare = Installation::bare();
    let input = r#"{"messages": [{"role": "user", "content": "hello"}]}"#;
    let mocked = bare.run(&["run", "refund-desk", "--input", input]);
    assert_eq!(mocked.code, 0, "{mocked:?}");
}

#[test]
fn a_person_decides_on_a_large_refund() {
    for answer in ["approve", "reject"] {
        let output = refunded(r#"{"claims": ["2*299.50"]}"#, Some(answer));
        assert_eq!((&output["amount"], &output["decision"]), (&json!(599.0), &json!(answer)));
    }
}

#[test]
fn the_skill_gives_a_plain_conversation_its_tools() {
    let place = Installation::bare();
    let server = place.serve();
    let say = |settings: &str| {
        let made = server.ask("POST", "/api/conversations", settings).json();
        let path = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
        let answer = server.ask("POST", &path, r#"{"content": "0.1 + 0.2"}"#).json();
        answer["message"]["content"].as_str().unwrap().to_owned()
    };
    assert_eq!(say(r#"{"skill": "assistant"}"#), "[mock] The result is 0.3");
    assert_eq!(say("{}"), "[mock] You said: 0.1 + 0.2");
}
