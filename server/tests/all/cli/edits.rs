//! Files of graphs and skills edited while the server runs.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::installation::{Installation, Serving};
use super::web::Answer;

/// How many times, 10 ms apart, the API is asked until an edit must have come through.
const LOOKS: u32 = 2_000;

/// A graph that answers `says`.
fn graph(says: &str) -> String {
    format!(
        "graph: desk\nmode: linear\noutput: [said]\nstate: {{ said: {{ type: string }} }}\n\
         nodes:\n  a: {{ kind: set, set: {{ said: \"'{says}'\" }} }}\norder: [a]\n"
    )
}

/// Saves as many editors do: a new file is moved over the old one.
fn save(place: &Installation, path: &str, text: &str) {
    let new = place.path(&format!("{path}~"));
    fs::write(&new, text).unwrap();
    fs::rename(new, place.path(path)).unwrap();
}

fn until(server: &Serving, path: &str, seen: impl Fn(&Answer) -> bool) -> Answer {
    for _ in 0..LOOKS {
        let answer = server.ask("GET", path, "");
        if seen(&answer) {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{path} is still {:?}", server.ask("GET", path, ""));
}

/// The graph `desk` once it is as wished.
fn desk(server: &Serving, seen: impl Fn(&Value) -> bool) -> Value {
    until(server, "/api/graphs/desk", |a| a.status == 200 && seen(&a.json())).json()
}

/// What a new run of `desk` says.
fn said(server: &Serving) -> Value {
    let ran = server.ask("POST", "/api/runs/wait", r#"{"graph": "desk"}"#);
    assert_eq!(ran.status, 200, "{ran:?}");
    ran.json()["output"]["said"].clone()
}

#[test]
fn an_edit_serves_at_once_and_a_bad_one_leaves_the_last_good_version() {
    let place = Installation::bare().with("graphs/desk.yaml", &graph("one"));
    let server = place.serve();
    let first = desk(&server, |_| true);
    assert_eq!((&first["serves"], &first["stale"]), (&json!(true), &json!(false)));
    assert_eq!(said(&server), "one");

    fs::write(place.path("graphs/desk.yaml"), graph("two")).unwrap();
    let second = desk(&server, |g| g["bundle"] != first["bundle"]);
    assert_eq!((said(&server), &second["stale"]), (json!("two"), &json!(false)));

    let bad = graph("three").replace("kind: set", "kind: sett");
    fs::write(place.path("graphs/desk.yaml"), &bad).unwrap();
    let third = desk(&server, |g| g["stale"] == true);
    assert_eq!(said(&server), "two", "the last good version");
    assert_eq!((&third["serves"], &third["bundle"]), (&json!(true), &second["bundle"]));
    assert_eq!((&third["source"], &third["errors"]), (&json!(bad), &json!(1)));
    let found = &third["findings"][0];
    assert_eq!((&found["code"], &found["severity"]), (&json!("unknown_kind"), &json!("error")));
    let at = (&found["path"], &found["line"], &found["column"]);
    assert_eq!(at, (&json!("graphs/desk.yaml"), &json!(6), &json!(14)));
    assert!(found["message"].as_str().unwrap().contains("sett"), "{found}");
    assert_eq!(found["fix"], "did you mean `set`?");
    let list = server.ask("GET", "/api/graphs", "").json();
    let listed = &list["items"][0];
    assert_eq!((&listed["stale"], &listed["bundle"]), (&json!(true), &second["bundle"]));

    save(&place, "graphs/desk.yaml", &graph("four"));
    let fourth = desk(&server, |g| g["stale"] == false);
    assert_eq!((said(&server), &fourth["findings"]), (json!("four"), &json!([])));

    let log = server.terminate().err;
    let lines = ["INFO", "graph `desk` serves as edited", "WARN", "goes on with its last good"];
    for part in lines.iter().chain(&["graphs/desk.yaml:6:14"]) {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[test]
fn graphs_come_move_and_go_with_their_files() {
    let place = Installation::bare().with("graphs/desk.yaml", &graph("one"));
    let server = place.serve();
    let other = graph("new").replace("desk", "other");
    save(&place, "graphs/other.yaml", &other);
    until(&server, "/api/graphs/other", |a| a.status == 200);

    fs::rename(place.path("graphs/other.yaml"), place.path("graphs/moved.yml")).unwrap();
    fs::write(place.path("graphs/desk.yaml"), graph("two")).unwrap();
    desk(&server, |g| g["source"] == graph("two").as_str());
    assert_eq!(server.ask("GET", "/api/graphs/other", "").status, 200);

    fs::remove_file(place.path("graphs/moved.yml")).unwrap();
    until(&server, "/api/graphs/other", |a| a.status == 404);
    let run = server.ask("POST", "/api/runs/wait", r#"{"graph": "other"}"#);
    assert_eq!(run.json()["code"], "unknown_graph", "{run:?}");
    assert_eq!(said(&server), "two");
}

#[test]
fn of_many_edits_the_last_one_stays() {
    let place = Installation::bare().with("graphs/desk.yaml", &graph("0"));
    let server = place.serve();
    for n in 1..=300 {
        let text = graph(&n.to_string());
        match n % 2 {
            0 => fs::write(place.path("graphs/desk.yaml"), text).unwrap(),
            _ => save(&place, "graphs/desk.yaml", &text),
        }
    }
    desk(&server, |g| g["source"] == graph("300").as_str());
    assert_eq!(said(&server), "300");
}

#[test]
fn a_skill_that_breaks_serves_as_it_was_and_its_graph_says_so() {
    let uses = "graph: desk\nmode: linear\nstate: { messages: { reduce: messages } }\n\
                nodes:\n  a: { kind: agent, skill: clerk }\norder: [a]\n";
    let place = Installation::bare().with("graphs/desk.yaml", uses);
    let server = place.serve();
    assert_eq!(desk(&server, |_| true)["serves"], false, "there is no such skill");
    // The folder `skills` comes while the server runs.
    let place = place.with("graphs/skills/clerk.yaml", "skill: clerk\nsystem: Be brief.\n");
    let good = desk(&server, |g| g["serves"] == true);

    let broken = "skill: clerk\ntemperature: 9\n";
    save(&place, "graphs/skills/clerk.yaml", broken);
    let stale = desk(&server, |g| g["stale"] == true);
    assert_eq!((&stale["serves"], &stale["bundle"]), (&json!(true), &good["bundle"]));
    let found = &stale["findings"][0];
    let at = (&found["path"], &found["line"], &found["code"]);
    assert_eq!(at, (&json!("graphs/skills/clerk.yaml"), &json!(2), &json!("invalid_value")));
    let skill = server.ask("GET", "/api/skills/clerk", "").json();
    assert_eq!((&skill["serves"], &skill["stale"]), (&json!(true), &json!(true)));
    assert_eq!(skill["system"], "Be brief.");

    save(&place, "graphs/skills/clerk.yaml", "skill: clerk\nsystem: Be long.\n");
    let mended = desk(&server, |g| g["stale"] == false);
    assert_ne!(mended["bundle"], good["bundle"]);
}

#[test]
fn a_whole_folder_may_be_put_in_place_of_another() {
    let place = Installation::bare()
        .with("graphs/desk.yaml", &graph("one"))
        .with("next/desk.yaml", &graph("two"));
    let server = place.serve();
    fs::rename(place.path("graphs"), place.path("before")).unwrap();
    fs::rename(place.path("next"), place.path("graphs")).unwrap();
    desk(&server, |g| g["source"] == graph("two").as_str());
    // And it is the new one that is watched.
    fs::write(place.path("graphs/desk.yaml"), graph("three")).unwrap();
    desk(&server, |g| g["source"] == graph("three").as_str());
    assert_eq!(said(&server), "three");
}
