//! What serves after files of a library have changed.

use std::fs;
use std::process::Command;

use exile_engine::bundle::Source;
use exile_engine::library::{Files, Library};
use exile_engine::limits::FileLimits;

use crate::kinds;

const DESK: &str = "graph: desk\ndescription: First.\nnodes:\n  a: { kind: probe, skill: support }\nedges:\n  - { from: START, to: a }\n  - { from: a, to: END }\n";
const LINE: &str =
    "graph: line\ndescription: First.\nmode: linear\nnodes:\n  a: { kind: probe }\norder: [a]\n";
const SKILL: &str = "skill: support\nsystem: Be brief.\n";
const NO_YAML: &str = "graph: [";

/// A folder's files: `skills/…` are skills.
fn files(texts: &[(&str, &str)]) -> Files {
    let source =
        |(path, text): &(&str, &str)| Source { path: (*path).into(), text: (*text).into() };
    let (skills, graphs) = texts.iter().map(source).partition(|s| s.path.starts_with("skills/"));
    Files { graphs, skills, unread: Vec::new() }
}

/// A library after each of these states of its folder.
fn after(states: &[&[(&str, &str)]]) -> Library {
    let catalog = kinds::catalog();
    states.iter().fold(Library::default(), |library, state| library.reload(files(state), &catalog))
}

/// Each graph as `name < file`, what serves, and the codes of its findings.
fn shown(library: &Library) -> Vec<String> {
    let shown = library.graphs().iter().map(|graph| {
        let serves = match &graph.program {
            Some(_) if graph.is_stale() => "serves an older file",
            Some(_) => "serves",
            None => "does not serve",
        };
        let codes: Vec<&str> = graph.findings.iter().map(|f| f.code).collect();
        format!("{} < {} {serves} {}", graph.name, graph.source.path, codes.join(" "))
    });
    shown.map(|line| line.trim_end().to_owned()).collect()
}

fn served(library: &Library, graph: &str) -> String {
    library.bundle(graph, None).unwrap().graph.text
}

#[test]
fn a_good_edit_serves_and_a_bad_one_leaves_the_last_good_version() {
    let second = LINE.replace("First", "Second");
    let wrong = second.replace("probe", "prob");
    let good = after(&[&[("a.yaml", LINE)], &[("a.yaml", &second)]]);
    assert_eq!(shown(&good), ["line < a.yaml serves"]);
    assert_eq!(served(&good, "line"), second);

    let bad = good.reload(files(&[("a.yaml", &wrong)]), &kinds::catalog());
    assert_eq!(shown(&bad), ["line < a.yaml serves an older file unknown_kind"]);
    let (before, now) = (good.graph("line").unwrap(), bad.graph("line").unwrap());
    assert_eq!((served(&bad, "line").as_str(), now.description.as_str()), (&*second, "Second."));
    assert_eq!(now.program.as_ref().unwrap().id, before.program.as_ref().unwrap().id);
    assert_eq!((now.source.text.as_str(), now.findings[0].line), (&*wrong, 5), "of the new file");
    assert_eq!(bad.bundle("line", None), good.bundle("line", None));

    let third = LINE.replace("First", "Third");
    let mended = bad.reload(files(&[("a.yaml", &third)]), &kinds::catalog());
    assert_eq!(
        (shown(&mended), served(&mended, "line")),
        (vec!["line < a.yaml serves".into()], third)
    );
}

#[test]
fn several_bad_edits_keep_the_last_version_that_was_good() {
    let bad = after(&[&[("a.yaml", LINE)], &[("a.yaml", NO_YAML)], &[("a.yaml", "nodes: {}")]]);
    assert_eq!(bad.graph("line").unwrap().findings[0].code, "empty_graph");
    assert_eq!(served(&bad, "line"), LINE);
}

#[test]
fn a_file_that_is_no_yaml_any_more_keeps_its_graphs_name() {
    let bad = after(&[&[("a.yaml", LINE)], &[("a.yaml", NO_YAML)]]);
    assert_eq!(shown(&bad), ["line < a.yaml serves an older file syntax"]);
    assert!(bad.graph("a").is_none());
}

#[test]
fn a_graph_that_never_loaded_is_not_served() {
    let library =
        after(&[&[("a.yaml", NO_YAML)], &[("a.yaml", NO_YAML), ("b.yaml", "graph: b\n")]]);
    let never =
        ["a < a.yaml does not serve syntax", "b < b.yaml does not serve missing_key missing_key"];
    assert_eq!(shown(&library), never);
    assert!(library.bundle("b", None).is_none());
}

#[test]
fn a_removed_file_takes_its_graph_along_and_a_new_one_brings_it() {
    let library = after(&[&[("a.yaml", LINE)], &[]]);
    assert_eq!(shown(&library), [""; 0]);
    let gone_while_broken = after(&[&[("a.yaml", LINE)], &[("a.yaml", NO_YAML)], &[]]);
    assert_eq!(shown(&gone_while_broken), [""; 0]);
    let back = gone_while_broken.reload(files(&[("a.yaml", NO_YAML)]), &kinds::catalog());
    assert_eq!(shown(&back), ["a < a.yaml does not serve syntax"], "nothing is remembered");
    let new = back.reload(files(&[("b.yaml", LINE)]), &kinds::catalog());
    assert_eq!(shown(&new), ["line < b.yaml serves"]);
}

#[test]
fn a_file_may_move_even_if_it_is_broken_on_the_way() {
    let moved = after(&[&[("a.yaml", LINE)], &[("b.yaml", LINE)]]);
    assert_eq!(shown(&moved), ["line < b.yaml serves"]);
    let broken = LINE.replace("probe", "prob");
    let moved = after(&[&[("a.yaml", LINE)], &[("b.yaml", &broken)]]);
    assert_eq!(shown(&moved), ["line < b.yaml serves an older file unknown_kind"]);
}

#[test]
fn what_loads_now_comes_before_what_served_under_its_name() {
    // A second file takes the name while the first is broken.
    let taken = LINE.replace("First", "Other");
    let library = after(&[&[("b.yaml", LINE)], &[("a.yaml", &taken), ("b.yaml", NO_YAML)]]);
    assert_eq!(shown(&library), ["line < a.yaml serves", "b < b.yaml does not serve syntax"]);
    assert_eq!(served(&library, "line"), taken);
    // A broken file with the name does not displace the one that serves.
    let broken = LINE.replace("probe", "prob");
    let library = after(&[&[("b.yaml", LINE)], &[("a.yaml", &broken), ("b.yaml", LINE)]]);
    assert_eq!(
        shown(&library),
        [
            "line < a.yaml does not serve unknown_kind",
            "line < b.yaml serves an older file duplicate_name"
        ]
    );
    assert_eq!(library.graph("line").unwrap().source.path, "b.yaml", "the one that serves");
}

#[test]
fn a_graph_whose_skill_breaks_keeps_its_last_good_skill() {
    let before = after(&[&[("d.yaml", DESK), ("skills/s.yaml", SKILL)]]);
    let broken = "skill: support\ntemperature: 9\n";
    let catalog = kinds::catalog();
    let after = before.reload(files(&[("d.yaml", DESK), ("skills/s.yaml", broken)]), &catalog);
    let skill = after.skill("support").unwrap();
    assert!(skill.is_stale() && skill.source.text == broken);
    assert_eq!((skill.findings[0].code, skill.findings[0].line), ("invalid_value", 2));
    assert_eq!(skill.skill.as_ref().unwrap().system.trim(), "Be brief.");
    let desk = after.graph("desk").unwrap();
    assert!(desk.program.is_some() && !desk.is_stale(), "its own file loads");
    let stale: Vec<&str> = after.stale_skills(desk).map(|skill| skill.name.as_str()).collect();
    assert_eq!(stale, ["support"]);
    assert_eq!(after.bundle("desk", None), before.bundle("desk", None));

    // An edit of the graph still comes through, and a conversation may choose the skill.
    let edited = DESK.replace("First", "Second");
    let state = [("d.yaml", edited.as_str()), ("l.yaml", LINE), ("skills/s.yaml", broken)];
    let edited_too = after.reload(files(&state), &catalog);
    assert_eq!(served(&edited_too, "desk"), edited);
    for graph in ["desk", "line"] {
        let bundle = edited_too.bundle(graph, Some("support")).unwrap();
        assert_eq!(bundle.skills["support"].text, SKILL, "{graph}");
    }
    let mended = SKILL.replace("brief", "long");
    let state = [("d.yaml", DESK), ("skills/s.yaml", mended.as_str())];
    let bundle = edited_too.reload(files(&state), &catalog).bundle("desk", None).unwrap();
    assert_eq!(bundle.skills["support"].text, mended);
}

#[test]
fn a_graph_whose_skill_is_removed_keeps_what_it_was_pinned_to() {
    let library = after(&[&[("d.yaml", DESK), ("skills/s.yaml", SKILL)], &[("d.yaml", DESK)]]);
    assert_eq!(shown(&library), ["desk < d.yaml serves an older file unknown_skill"]);
    assert!(library.skill("support").is_none());
    let bundle = library.bundle("desk", None).unwrap();
    assert_eq!(bundle.skills["support"].text, SKILL);
    assert!(bundle.compile(&kinds::catalog()).is_ok());
    assert_eq!(bundle.id(), library.graph("desk").unwrap().program.as_ref().unwrap().id);
}

#[test]
fn a_broken_file_takes_no_approval_away() {
    let asks = "skill: support\nsystem: Be brief.\ntools: [echo]\napprove: [echo]\n";
    let graph = "graph: one\nmode: linear\nnodes:\n  a: { kind: tool, tool: other, approve: true }\norder: [a]\n";
    let first: &[(&str, &str)] = &[("a.yaml", DESK), ("b.yaml", graph), ("skills/s.yaml", asks)];
    assert_eq!(after(&[first]).approvals(), ["echo", "other"]);
    let broken: &[(&str, &str)] = &[("a.yaml", DESK), ("skills/s.yaml", NO_YAML)];
    assert_eq!(after(&[first, broken]).approvals(), ["echo"], "as it serves");
    assert_eq!(after(&[first, &[]]).approvals(), [""; 0]);
}

#[test]
fn what_cannot_be_read_is_not_removed() {
    let temp = tempfile::tempdir().unwrap();
    let graphs = temp.path().join("graphs");
    fs::create_dir_all(graphs.join("skills")).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(graphs.join(name), bytes).unwrap();
    write("desk.yaml", DESK.as_bytes());
    write("line.yaml", LINE.as_bytes());
    write("skills/s.yaml", SKILL.as_bytes());
    let catalog = kinds::catalog();
    let before = Library::load(&graphs, &catalog);
    write("line.yaml", &[0xff, 0xfe]);
    write("new.yaml", &[0xff, 0xfe]);
    let after = before.reload(Files::read(&graphs, &catalog.limits.files), &catalog);
    let line = "line < graphs/line.yaml serves an older file unreadable";
    assert_eq!(shown(&after), ["desk < graphs/desk.yaml serves", line]);
    assert!(after.findings().any(|f| f.path == "graphs/new.yaml" && f.code == "unreadable"));

    // A whole folder: here `skills` is none.
    fs::remove_dir_all(graphs.join("skills")).unwrap();
    write("skills", b"");
    let after = before.reload(Files::read(&graphs, &catalog.limits.files), &catalog);
    assert!(after.skill("support").unwrap().is_stale());
    assert_eq!(served(&after, "desk"), DESK);
}

#[test]
fn the_same_files_again_change_nothing() {
    let state: &[(&str, &str)] = &[("a.yaml", LINE), ("b.yaml", NO_YAML), ("c.yaml", LINE)];
    let (once, twice) = (after(&[state]), after(&[state, state]));
    assert_eq!(once.files(), twice.files());
    assert_eq!(shown(&once), shown(&twice));
    assert_eq!(once.bundle("line", None), twice.bundle("line", None));
}

#[test]
fn what_is_no_file_or_has_no_room_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let graphs = folder.path().join("graphs");
    fs::create_dir_all(graphs.join("skills")).unwrap();
    fs::create_dir(graphs.join("folder.yaml")).unwrap();
    for pipe in ["pipe.yaml", "skills/pipe.yaml"] {
        let made = Command::new("mkfifo").arg(graphs.join(pipe)).status().unwrap();
        assert!(made.success());
    }
    let long = |letter: &str| format!("# {}\n{LINE}", letter.repeat(400));
    fs::write(graphs.join("a.yaml"), long("a")).unwrap();
    fs::write(graphs.join("b.yaml"), long("b")).unwrap();
    fs::write(graphs.join("c.yaml"), LINE).unwrap();
    let limits = FileLimits { folder: long("").len() + 500 + LINE.len(), ..FileLimits::default() };
    let files = Files::read(&graphs, &limits);
    let read: Vec<&str> = files.graphs.iter().map(|source| &*source.path).collect();
    assert_eq!(read, ["graphs/a.yaml", "graphs/c.yaml"]);
    let unread: Vec<_> = files.unread.iter().map(|f| (&*f.path, f.code)).collect();
    let expected = [
        ("graphs/skills/pipe.yaml", "unreadable"),
        ("graphs/b.yaml", "too_large"),
        ("graphs/folder.yaml", "unreadable"),
        ("graphs/pipe.yaml", "unreadable"),
    ];
    assert_eq!(unread, expected);
    assert!(files.unread[1].message.contains("`folder_size`"), "{}", files.unread[1]);
}
