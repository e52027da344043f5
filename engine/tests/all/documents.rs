//! YAML as it is read: scalars, places, limits.

use std::fmt::Write as _;

use exile_engine::diagnostic::Place;
use exile_engine::limits::FileLimits;
use exile_engine::yaml;
use proptest::prelude::*;
use serde_json::{Value, json};

fn value(text: &str) -> Value {
    yaml::parse("t.yaml", text).unwrap().to_json()
}

#[test]
fn plain_scalars_follow_yaml_1_2() {
    let text = "a: 1\nb: -2.5e3\nc: 0x1F\nd: 0o17\ne: ~\nf: true\ng: 1.2.3\nh: '1'\ni: \"true\"\nj:\n\
                k: 12e\nl: +7\nm: .5\nn: 18446744073709551615\no: 2026-11-22\np: 1_000\nq: null\nr: .inf\n";
    assert_eq!(
        value(text),
        json!({
            "a": 1, "b": -2500.0, "c": 31, "d": 15, "e": null, "f": true, "g": "1.2.3", "h": "1",
            "i": "true", "j": null, "k": "12e", "l": 7, "m": 0.5, "n": u64::MAX,
            "o": "2026-11-22", "p": "1_000", "q": null, "r": ".inf",
        })
    );
    assert_eq!(value(""), json!(null));
    assert_eq!(value("\u{feff}a: 1"), json!({ "a": 1 }));
    assert_eq!(value("a: |\n  x\n  y\nb: >\n  x\n  y\n"), json!({ "a": "x\ny\n", "b": "x y\n" }));
    assert_eq!(value("a: &x [1, 2]\nb: *x\n"), json!({ "a": [1, 2], "b": [1, 2] }));
}

#[test]
fn places_are_those_of_the_text() {
    let text = "a:\n  b: [x, \"{{ n }}\"]\n  c: |\n    one {{ m }}\n     two {{ k }}\n你: { 好: 'it {{ z }}' }\n";
    let document = yaml::parse("t.yaml", text).unwrap();
    let at = |line, column| Place { line, column };
    assert_eq!(document.key_place("/a/b"), at(2, 3));
    assert_eq!(document.place("/a/b/0"), at(2, 7));
    assert_eq!(document.place_inside("/a/b/1", 3), at(2, 14));
    assert_eq!(document.place_inside("/a/c", 7), at(4, 12));
    assert_eq!(document.place_inside("/a/c", 20), at(5, 13));
    assert_eq!(document.key_place("/你/好"), at(6, 6));
    assert_eq!(document.place_inside("/你/好", 6), at(6, 16));
    assert_eq!(document.place("/a/nothing/there"), at(2, 3), "the nearest value around it");
}

#[test]
fn a_bomb_is_counted_as_it_expands() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..200 {
        let items = vec![format!("*a{}", i - 1); 10].join(", ");
        writeln!(text, "a{i}: &a{i} [{items}]").unwrap();
    }
    let findings = yaml::parse("t.yaml", &text).unwrap_err();
    assert_eq!((findings[0].code, findings.len()), ("alias_bomb", 1));
    // Found at the line that passes the limit, long before the last: nothing was expanded on.
    let lines = FileLimits::default().values.ilog10();
    assert!(findings[0].line <= lines, "line {}", findings[0].line);
}

#[test]
fn a_large_file_is_refused_before_it_is_parsed() {
    // What follows the limit is no YAML: it was never looked at.
    let text = format!("{}\n]]]", "#".repeat(FileLimits::default().size));
    let findings = yaml::parse("t.yaml", &text).unwrap_err();
    assert_eq!((findings[0].code, findings[0].line), ("too_large", 1));
    let many = "- a\n".repeat(FileLimits::default().values + 1);
    assert_eq!(yaml::parse("t.yaml", &many).unwrap_err()[0].code, "too_large");
}

/// Text that is more often YAML than not.
fn yaml_like() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "graph: g",
        "state:",
        "nodes:",
        "edges:",
        "  a: { kind: probe }",
        "  - { from: START, to: a }",
        "  - { from: [a, b], to: END, when: \"n > 1\" }",
        "  n: { type: integer, default: 1 }",
        "order: [a]",
        "mode: linear",
        "&x",
        "*x",
        "- ",
        "  ",
        "{",
        "}",
        "[",
        "]",
        ": ",
        ",",
        "|",
        ">",
        "'",
        "\"",
        "#",
        "!!str",
        "---",
        "${X}",
        "{{ n }}",
        "{% if %}",
        "no",
        "\t",
        "你",
        "~",
        "0x",
    ]);
    let glue = prop::sample::select(vec!["\n", "\n", " ", ""]);
    prop::collection::vec((word, glue), 0..24)
        .prop_map(|parts| parts.into_iter().flat_map(|(word, glue)| [word, glue]).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_loader_panic(text in prop_oneof![yaml_like(), any::<String>()]) {
        let catalog = crate::kinds::catalog();
        for finding in crate::mistakes::findings_in(&catalog, "t.yaml", &text) {
            let lines = u32::try_from(text.lines().count()).unwrap();
            prop_assert!(finding.line >= 1 && finding.line <= lines.max(1) + 1, "{finding}");
            prop_assert!(finding.column >= 1);
        }
    }
}
