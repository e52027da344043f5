//! Runs that wait for a person, on the command line.

use serde_json::Value;

use super::installation::{Ended, Installation};

const TEA: &str = "graph: tea
input: [messages]
output: [cup, why]
state: { messages: { reduce: messages }, cup: {}, why: {} }
nodes:
  cup: { kind: human, ask: Which cup?, choices: [small, large], into: cup }
  why: { kind: human, ask: Why?, into: why }
order: [cup, why]
mode: linear
";

fn place() -> Installation {
    Installation::bare().with("graphs/tea.yaml", TEA)
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {ended:?}"))
}

/// A run that waits for the first answer.
fn waiting(place: &Installation) -> String {
    let ended = place.run(&["run", "tea", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let waits = json(&ended);
    assert_eq!(waits["run"]["status"], "waiting");
    waits["run"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_run_shows_its_question_and_is_answered_from_another_process() {
    let place = place();
    let asked = place.run(&["run", "tea", "--durability", "exit"]);
    assert_eq!(asked.code, 0, "{asked:?}");
    assert!(asked.out.contains("Which cup?\n  1) small\n  2) large"), "{}", asked.out);
    let hint = asked.out.lines().find_map(|l| l.split("exile resume ").nth(1)).unwrap();
    let (run, interrupt) = hint.split_once(" --answer ").unwrap();
    let interrupt = interrupt.trim_end_matches("=…");

    let wrong = place.run(&["resume", run, "--answer", &format!("{interrupt}=bucket")]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert!(wrong.err.contains("small, large"), "{}", wrong.err);
    let usage = place.run(&["resume", run, "--answer", "int_none=1", "--answer", "x=2"]);
    assert_eq!(usage.code, 2, "{usage:?}");
    assert!(usage.err.contains(interrupt), "it names the open ones: {}", usage.err);
    let first = place.run(&["resume", run, "--answer", &format!("{interrupt}=2")]);
    assert_eq!(first.code, 0, "{first:?}");
    assert!(first.out.starts_with("Why?"), "{}", first.out);
    let done = place.run(&["resume", run, "--answer", "thirst"]);
    assert_eq!(done.code, 0, "{done:?}");
    let values = json(&done);
    assert_eq!((&values["cup"], &values["why"]), (&"large".into(), &"thirst".into()));
    let over = place.run(&["resume", run, "--answer", "more"]);
    assert_ne!(over.code, 0, "{over:?}");

    let trace = place.run(&["trace", run]).out;
    assert!(trace.contains("run.waiting") && trace.contains("Which cup?"), "{trace}");
    let resolved = place.run(&["resolve", run, "retry"]);
    assert_eq!(resolved.code, 1);
    assert!(resolved.err.contains("needs no attention"), "{}", resolved.err);
}

#[test]
fn a_chat_asks_and_takes_the_answers() {
    let place = place();
    let said = place.run_with(&["chat", "tea"], "hello\n1\nbecause\n");
    assert_eq!(said.code, 0, "{said:?}");
    let order = ["Which cup?", "1) small", "Why?"].map(|text| said.out.find(text));
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{}", said.out);
    let runs = place.run(&["run", "tea", "--json"]);
    assert_eq!(json(&runs)["run"]["status"], "waiting");
}

#[test]
fn checkpoints_are_listed_and_forked_from_and_a_run_is_moved() {
    let place = place();
    let run = waiting(&place);
    let listed = json(&place.run(&["checkpoints", &run, "--json"]));
    let kinds: Vec<&Value> =
        listed["items"].as_array().unwrap().iter().map(|c| &c["kind"]).collect();
    assert_eq!(kinds, ["start", "waiting"]);
    let table = place.run(&["checkpoints", &run]).out;
    assert!(table.contains("cup:1"), "{table}");
    let at = listed["items"][0]["number"].to_string();
    let fork = place.run(&["fork", &run, "--at", &at]);
    assert_eq!(fork.code, 0, "{fork:?}");
    let fork = fork.out.trim().to_owned();
    assert!(fork.starts_with("run_") && fork != run, "{fork}");

    let place = place.with("graphs/tea.yaml", &TEA.replace("Why?", "Why now?"));
    let tried = place.run(&["migrate", &run, "--dry-run"]);
    assert_eq!((tried.code, tried.out.trim()), (0, "it fits the graph as it is now"));
    assert_eq!(place.run(&["migrate", &run]).out.trim(), "moved");
    let place = place.with(
        "graphs/tea.yaml",
        &TEA.replace(
            "cup: { kind: human, ask: Which cup?, choices: [small, large]",
            "cup: { kind: set, set: { why: messages }",
        )
        .replace(", into: cup }", " }"),
    );
    let refused = place.run(&["migrate", &run]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.out.contains("`cup`"), "{refused:?}");
}
