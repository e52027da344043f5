//! Files with mistakes, as people make them: each says in its first line what is found, and where;
//! `mistakes/findings.txt` says of all of them what a person reads. `UPDATE=1` writes both anew,
//! to be read before they are committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use exile_engine::bundle::Catalog;
use exile_engine::diagnostic::{Finding, code};
use exile_engine::graph::build::{Known, Names};
use exile_engine::graph::compile;
use exile_engine::graph::nesting::Graphs;
use exile_engine::skill::{self, Skill};
use exile_engine::yaml;

use crate::kinds;

/// Codes that files beside each other or of another size raise: `libraries.rs`, `documents.rs` and
/// `floods.rs`.
const ELSEWHERE: [&str; 8] = [
    code::BROKEN_GRAPH,
    code::NESTED_TOO_DEEP,
    code::NOT_A_GRAPH,
    code::NOT_CHECKED_YET,
    code::TOO_LARGE,
    code::TOO_MANY_FINDINGS,
    code::TOO_MANY_PATHS,
    code::UNREADABLE,
];

/// Everything found in a graph or skill, for a library with the skill `support` and one that
/// does not load.
fn findings(path: &str, text: &str) -> Vec<Finding> {
    findings_in(&kinds::catalog(), path, text)
}

/// The same, for an installation that is at hand.
pub fn findings_in(catalog: &Catalog, path: &str, text: &str) -> Vec<Finding> {
    let document = match yaml::parse(path, text) {
        Ok(document) => document,
        Err(findings) => return findings,
    };
    let mut skills: BTreeMap<String, Option<Arc<Skill>>> = BTreeMap::new();
    let known = Known { catalog, skills: &skills, graphs: Graphs::none(), names: Names::Checked };
    let support = yaml::parse("support.yaml", "skill: support").unwrap();
    let support = skill::compile(&support, known).0.unwrap();
    if document.keys("").contains(&"skill") {
        return skill::compile(&document, known).1;
    }
    skills.insert("support".to_owned(), Some(Arc::new(support)));
    skills.insert("broken".to_owned(), None);
    let known = Known { catalog, skills: &skills, graphs: Graphs::none(), names: Names::Checked };
    let compiled = compile::compile(&document, known);
    let wrong = compiled.findings.iter().any(Finding::is_error);
    assert_eq!(compiled.graph.is_none(), wrong, "{path}: a graph with an error does not load");
    compiled.findings
}

/// Compares what the first line of a file says with what is found: `code line:column` each.
fn check(path: &Path) -> Vec<Finding> {
    let text = std::fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let found = findings(name, &text);
    let mark = |f: &Finding| if f.is_error() { "" } else { " (warning)" };
    let summary: Vec<String> =
        found.iter().map(|f| format!("{} {}:{}{}", f.code, f.line, f.column, mark(f))).collect();
    let (first, rest) = text.split_once('\n').unwrap();
    let header = format!("# expect: {}", summary.join(", "));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, format!("{header}\n{rest}")).unwrap();
    } else {
        let shown: Vec<String> = found.iter().map(Finding::to_string).collect();
        assert_eq!(first, header, "{name}:\n{}", shown.join("\n"));
    }
    for finding in &found {
        assert!(!finding.message.is_empty() && !finding.fix.is_empty(), "{finding}");
    }
    found
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/mistakes")
}

fn corpus() -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    files
}

#[test]
fn every_mistake_is_found_where_it_is_and_every_code_has_a_mistake() {
    let mut seen: BTreeSet<&str> = ELSEWHERE.into();
    let mut said = String::new();
    for file in corpus() {
        let found = check(&file);
        assert!(!found.is_empty(), "{} holds no mistake", file.display());
        seen.extend(found.iter().map(|finding| finding.code));
        for finding in &found {
            writeln!(said, "{finding}").unwrap();
        }
    }
    let golden = folder().join("findings.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&golden, &said).unwrap();
    }
    assert_eq!(std::fs::read_to_string(golden).unwrap(), said);
    let all: BTreeSet<&str> = code::ALL.iter().copied().collect();
    let missing: Vec<_> = all.difference(&seen).collect();
    assert!(missing.is_empty(), "no mistake raises {missing:?}");
}

#[test]
fn findings_name_what_was_probably_meant() {
    let fix = |yaml: &str, code: &str| {
        let found = findings("g.yaml", yaml);
        found.into_iter().find(|f| f.code == code).map(|f| f.fix).unwrap_or_default()
    };
    let graph = |node: &str| {
        format!(
            "graph: g\nstate: {{ count: {{ type: integer }} }}\nnodes:\n  a: {node}\nedges:\n  - {{ from: START, to: a }}\n  - {{ from: a, to: END }}\n"
        )
    };
    let meant = |node: &str, code: &str| fix(&graph(node), code);
    assert_eq!(meant("{ kind: proob }", "unknown_kind"), "did you mean `probe`?");
    assert_eq!(meant("{ kind: probe, tool: ecko }", "unknown_tool"), "did you mean `echo`?");
    assert_eq!(meant("{ kind: probe, txt: x }", "unknown_key"), "did you mean `text`?");
    assert!(meant("{ kind: set, set: { count: hello } }", "bare_word").contains("\"'hello'\""));
    assert_eq!(
        meant("{ kind: probe, replies: true }", "unknown_channel"),
        "add `messages: { reduce: messages }` under `state`"
    );
}

#[test]
fn a_finding_renders_with_its_line_and_a_caret() {
    let text = "graph: g\nnodes:\n  a: { kind: sett }\nedges:\n  - { from: START, to: a }\n  - { from: a, to: END }\n";
    let found = findings("g.yaml", text);
    let sources = BTreeMap::from([("g.yaml".to_owned(), text.to_owned())]);
    let shown = exile_engine::diagnostic::render(&found, &sources, false);
    expect_test::expect![[r"
        unknown_kind

          × no kind of node is named `sett`
           ╭─[g.yaml:3:14]
         2 │ nodes:
         3 │   a: { kind: sett }
           ·              ────
         4 │ edges:
           ╰────
          help: did you mean `set`?
    "]]
    .assert_eq(&shown);
}

#[test]
fn what_others_find_while_running_is_found_when_the_file_is_loaded() {
    for (file, code) in [
        ("parallel_write.yaml", "parallel_write"),
        ("parallel_read.yaml", "parallel_read"),
        ("unreachable_node.yaml", "unreachable_node"),
        ("unknown_key.yaml", "unknown_key"),
        ("unknown_channel.yaml", "unknown_channel"),
        ("endless_cycle.yaml", "endless_cycle"),
    ] {
        let path = folder().join(file);
        let found = check(&path);
        assert!(found.iter().any(|f| f.code == code), "{file}: {found:?}");
    }
}
