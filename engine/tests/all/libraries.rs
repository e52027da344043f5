//! Folders of graphs and skills, and what a run is pinned to.

use std::fs;
use std::path::{Path, PathBuf};

use exile_engine::bundle::{Bundle, Source};
use exile_engine::library::{Library, validate};
use exile_engine::node::NodeKinds;

use crate::kinds;

const GRAPH: &str = "graph: desk\ndescription: Answers.\nnodes:\n  a: { kind: probe, skill: support }\nedges:\n  - { from: START, to: a }\n  - { from: a, to: END }\n";
const LINEAR: &str = "graph: line\nmode: linear\nnodes:\n  a: { kind: probe }\norder: [a]\n";
const SKILL: &str = "skill: support\nmodel: fast\ntools: [echo]\nsystem: Be brief.\n";

/// A folder `graphs` with these files; `skills/…` among them.
fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let graphs = temp.path().join("graphs");
    fs::create_dir_all(graphs.join("skills")).unwrap();
    for (name, text) in files {
        fs::write(graphs.join(name), text).unwrap();
    }
    (temp, graphs)
}

fn codes(library: &Library) -> Vec<String> {
    library.findings().map(|f| format!("{}: {}", f.path, f.code)).collect()
}

#[test]
fn graphs_and_skills_are_found_by_name() {
    let (_temp, graphs) = folder(&[
        ("desk.yaml", GRAPH),
        ("b.yml", LINEAR),
        ("skills/s.yaml", SKILL),
        ("note.txt", "x"),
    ]);
    let library = Library::load(&graphs, &kinds::catalog());
    assert_eq!(codes(&library), Vec::<String>::new());
    let names: Vec<&str> = library.graphs().iter().map(|graph| graph.name.as_str()).collect();
    assert_eq!(names, ["line", "desk"], "by file name");
    let desk = library.graph("desk").unwrap();
    assert_eq!(
        (desk.description.as_str(), desk.source.path.as_str()),
        ("Answers.", "graphs/desk.yaml")
    );
    let program = desk.program.as_ref().unwrap();
    assert_eq!(program.skills["support"].tools, ["echo"]);
    assert_eq!(&*program.skills["support"].model.clone().unwrap(), "fast");
    assert_eq!(library.skill("support").unwrap().source.path, "graphs/skills/s.yaml");
    assert!(library.graph("../desk").is_none() && library.graph("desk.yaml").is_none());
    assert!(Library::load(Path::new("/nowhere/at/all"), &kinds::catalog()).graphs().is_empty());
}

#[test]
fn a_bundle_has_the_same_address_everywhere_and_compiles_to_the_same_program() {
    let (_temp, graphs) = folder(&[("desk.yaml", GRAPH), ("skills/s.yaml", SKILL)]);
    let (_other, copy) = folder(&[("desk.yaml", GRAPH), ("skills/s.yaml", SKILL)]);
    let catalog = kinds::catalog();
    let (one, two) = (Library::load(&graphs, &catalog), Library::load(&copy, &catalog));
    let bundle = one.bundle("desk", None).unwrap();
    assert_eq!(bundle, two.bundle("desk", None).unwrap());
    assert_eq!(bundle.id(), one.graph("desk").unwrap().program.as_ref().unwrap().id);
    assert_eq!(Bundle::from_bytes(&bundle.to_bytes()).unwrap(), bundle);
    let program = bundle.compile(&catalog).unwrap();
    assert_eq!((program.id, &*program.graph.name), (bundle.id(), "desk"));
    assert!(program.skills.contains_key("support"));

    fs::write(copy.join("skills/s.yaml"), SKILL.replace("brief", "long")).unwrap();
    let changed = Library::load(&copy, &catalog).bundle("desk", None).unwrap();
    assert_ne!(changed.id(), bundle.id(), "a changed skill is another bundle");
}

#[test]
fn a_bundle_holds_the_conversations_skill_too() {
    let (_temp, graphs) = folder(&[("line.yaml", LINEAR), ("skills/s.yaml", SKILL)]);
    let library = Library::load(&graphs, &kinds::catalog());
    assert!(library.bundle("line", None).unwrap().skills.is_empty());
    assert!(library.bundle("line", Some("support")).unwrap().skills.contains_key("support"));
    assert_eq!(library.bundle("line", Some("nobody")), None);
    assert_eq!(library.bundle("nothing", None), None);
}

#[test]
fn a_pinned_bundle_compiles_although_its_tools_and_models_are_gone() {
    let graph = GRAPH.replace("skill: support", "skill: support, tool: shop__order, model: fast");
    let (_temp, graphs) = folder(&[("desk.yaml", &graph), ("skills/s.yaml", SKILL)]);
    let mut catalog = kinds::catalog();
    let bundle = Library::load(&graphs, &catalog).bundle("desk", None).unwrap();
    catalog.tools = std::sync::Arc::default();
    catalog.models = std::sync::Arc::default();
    assert!(bundle.compile(&catalog).is_ok());
    assert!(
        Library::load(&graphs, &catalog).bundle("desk", None).is_none(),
        "a new run is refused"
    );
    catalog.kinds = NodeKinds::default();
    assert_eq!(bundle.compile(&catalog).unwrap_err()[0].code, "unknown_kind");
}

#[test]
fn a_broken_file_stays_with_its_findings_and_breaks_nothing_else() {
    let (_temp, graphs) = folder(&[
        ("broken.yaml", "graph: broken\nnodes: ["),
        ("line.yaml", LINEAR),
        ("desk.yaml", GRAPH),
        ("skills/s.yaml", "skill: support\ntemperature: 9\n"),
    ]);
    let library = Library::load(&graphs, &kinds::catalog());
    let found = codes(&library);
    assert_eq!(
        found,
        [
            "graphs/skills/s.yaml: invalid_value",
            "graphs/broken.yaml: syntax",
            "graphs/desk.yaml: broken_skill",
        ]
    );
    assert!(library.graph("broken").unwrap().program.is_none());
    assert!(library.graph("line").unwrap().program.is_some());
    assert_eq!(library.bundle("desk", None), None);
}

#[test]
fn of_two_files_with_one_name_the_first_stands() {
    let (_temp, graphs) = folder(&[
        ("a.yaml", LINEAR),
        ("b.yaml", LINEAR),
        ("skills/a.yaml", SKILL),
        ("skills/b.yaml", SKILL),
    ]);
    let library = Library::load(&graphs, &kinds::catalog());
    assert_eq!(
        codes(&library),
        ["graphs/skills/b.yaml: duplicate_name", "graphs/b.yaml: duplicate_name"]
    );
    assert!(library.graph("line").unwrap().program.is_some());
    assert!(library.graphs()[1].program.is_none());
    assert!(library.skill("support").unwrap().skill.is_some());
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_folder_is_not_followed() {
    let (temp, graphs) = folder(&[]);
    fs::write(temp.path().join("secret.yaml"), LINEAR).unwrap();
    std::os::unix::fs::symlink(temp.path().join("secret.yaml"), graphs.join("x.yaml")).unwrap();
    let library = Library::load(&graphs, &kinds::catalog());
    assert_eq!(codes(&library), ["graphs/x.yaml: unreadable"]);
    assert!(library.graphs().is_empty());
}

#[test]
fn files_that_are_too_large_or_no_text_are_findings() {
    let (_temp, graphs) = folder(&[]);
    fs::write(graphs.join("big.yaml"), vec![b'#'; 2 * 1024 * 1024]).unwrap();
    fs::write(graphs.join("bytes.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    let library = Library::load(&graphs, &kinds::catalog());
    assert_eq!(codes(&library), ["graphs/big.yaml: too_large", "graphs/bytes.yaml: unreadable"]);
}

#[test]
fn paths_are_validated_as_they_were_given() {
    let (temp, graphs) = folder(&[
        ("desk.yaml", GRAPH),
        ("wrong.yaml", "graph: wrong\nnodes: {}\nedges: []\n"),
        ("skills/s.yaml", SKILL),
    ]);
    let other = temp.path().join("other.yaml");
    fs::write(&other, "services: {}\n").unwrap();
    let catalog = kinds::catalog();
    let check = |paths: &[&Path]| {
        let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
        let validation = validate(&paths, &catalog);
        let inside = |path: &str| path.replace(temp.path().to_str().unwrap(), "");
        let found: Vec<String> =
            validation.findings.iter().map(|f| format!("{} {}", inside(&f.path), f.code)).collect();
        for finding in &validation.findings {
            assert!(validation.sources.contains_key(&finding.path) || finding.code == "unreadable");
        }
        (validation.files.len(), validation.failed(), found)
    };
    assert_eq!(
        check(&[&graphs.join("desk.yaml")]),
        (1, false, vec![]),
        "with the skills beside it"
    );
    assert_eq!(check(&[&graphs.join("skills/s.yaml")]), (1, false, vec![]));
    let wrong = "/graphs/wrong.yaml empty_graph".to_owned();
    assert_eq!(check(&[&graphs]), (3, true, vec![wrong]));
    assert_eq!(check(&[&other]), (1, true, vec!["/other.yaml not_a_graph".to_owned()]));
    assert_eq!(
        check(&[&temp.path().join("no.yaml")]),
        (1, true, vec!["/no.yaml unreadable".to_owned()])
    );
}

/// A graph of this name whose nodes run these graphs.
fn runs(name: &str, inside: &[&str]) -> String {
    let node = |(i, graph): (usize, &&str)| format!("  n{i}: {{ kind: probe, graph: {graph} }}\n");
    let nodes: String = inside.iter().enumerate().map(node).collect();
    let last = "  end: { kind: probe, skill: support }";
    let names: Vec<String> = (0..inside.len()).map(|i| format!("n{i}, ")).collect();
    let order = names.concat();
    format!("graph: {name}\nmode: linear\nnodes:\n{nodes}{last}\norder: [{order}end]\n")
}

/// A library of these graphs and the skill `support`.
fn library(graphs: &[(&str, &[&str])]) -> Library {
    let source = |path: String, text: String| Source { path, text };
    let graphs =
        graphs.iter().map(|(name, inside)| source(format!("{name}.yaml"), runs(name, inside)));
    let skill = source("support.yaml".to_owned(), SKILL.to_owned());
    Library::of(graphs.collect(), vec![skill], &kinds::catalog())
}

#[test]
fn a_graph_is_pinned_with_all_that_is_inside_it() {
    let one = library(&[("a", &["b", "b"]), ("b", &["c"]), ("c", &[]), ("d", &[])]);
    assert_eq!(codes(&one), Vec::<String>::new(), "whatever the order of the files");
    let bundle = one.bundle("a", None).unwrap();
    assert_eq!(bundle.graphs.keys().collect::<Vec<_>>(), ["b", "c"]);
    assert!(bundle.skills.contains_key("support"), "what those inside need is needed");
    assert_eq!(bundle.id(), one.graph("a").unwrap().program.as_ref().unwrap().id);
    assert_eq!(bundle.compile(&kinds::catalog()).unwrap().id, bundle.id());
    let other = library(&[("a", &["b", "b"]), ("b", &["c"]), ("c", &["d"]), ("d", &[])]);
    assert_ne!(other.bundle("a", None).unwrap().id(), bundle.id(), "a change inside is a change");
    let alone = one.bundle("c", None).unwrap();
    assert!(!String::from_utf8(alone.to_bytes()).unwrap().contains("graphs"), "nothing inside");
}

#[test]
fn a_graph_that_contains_itself_does_not_load_and_the_way_is_named() {
    let found =
        library(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("d", &["a"]), ("e", &["e"])]);
    let messages: Vec<String> =
        found.findings().map(|f| format!("{}:{} {}", f.path, f.line, f.message)).collect();
    expect_test::expect![[r"
        a.yaml:4 a graph cannot contain itself: a → b → c → a
        b.yaml:4 a graph cannot contain itself: b → c → a → b
        c.yaml:4 a graph cannot contain itself: c → a → b → c
        d.yaml:4 the graph `a` does not load
        e.yaml:4 a graph cannot contain itself: e → e"]]
    .assert_eq(&messages.join("\n"));
    assert!(found.graphs().iter().all(|graph| graph.program.is_none()));
}

#[test]
fn sixteen_graphs_inside_one_another_are_the_most() {
    let names: Vec<String> = (0..17).map(|i| format!("g{i:02}")).collect();
    let next: Vec<Vec<&str>> =
        (1..=17).map(|i| names.get(i).map(String::as_str).into_iter().collect()).collect();
    let graphs: Vec<(&str, &[&str])> =
        names.iter().zip(&next).map(|(name, next)| (name.as_str(), next.as_slice())).collect();
    let library = library(&graphs);
    assert_eq!(codes(&library), ["g00.yaml: nested_too_deep"]);
    assert!(library.graph("g01").unwrap().program.is_some(), "sixteen");
    let finding = library.findings().next().unwrap();
    assert!(finding.message.contains("g00 → g01 → ") && finding.message.ends_with("→ g16"));
}

#[test]
fn who_runs_a_broken_graph_says_so() {
    let (_temp, graphs) = folder(&[
        ("a.yaml", &runs("a", &["b", "missing"])),
        ("b.yaml", "graph: b\nnodes: {}\nedges: []\n"),
        ("c.yaml", &runs("c", &["d"])),
        ("d.yaml", "graph: ["),
        ("skills/s.yaml", SKILL),
    ]);
    let catalog = kinds::catalog();
    assert_eq!(
        codes(&Library::load(&graphs, &catalog)),
        [
            "graphs/a.yaml: broken_graph",
            "graphs/a.yaml: unknown_graph",
            "graphs/b.yaml: empty_graph",
            "graphs/c.yaml: broken_graph",
            "graphs/d.yaml: syntax",
        ]
    );
    let one = validate(&[graphs.join("a.yaml")], &catalog);
    let found: Vec<&str> = one.findings.iter().map(|f| f.code).collect();
    assert_eq!((one.files.len(), found), (1, vec!["broken_graph", "unknown_graph"]), "beside it");
}

#[test]
fn what_a_graph_inside_reads_counts_for_the_cache_around_it() {
    let inner = |text: &str| Source {
        path: "inner.yaml".into(),
        text: format!(
            "graph: inner\nmode: linear\nnodes:\n  a: {{ kind: probe, text: \"{text}\" }}\norder: [a]\n"
        ),
    };
    let outer = Source {
        path: "outer.yaml".into(),
        text: "graph: outer\nmode: linear\nnodes:\n  a: { kind: probe, graph: inner, cache: 1h }\n\
               order: [a]\n"
            .into(),
    };
    let library =
        |text: &str| Library::of(vec![inner(text), outer.clone()], Vec::new(), &kinds::catalog());
    let told = library("{{ conversation.id }}{{ user.id }}");
    let graph = &told.graph("outer").unwrap().program.as_ref().unwrap().graph;
    assert_eq!(graph.nodes[0].policy.cache.as_ref().unwrap().scope, ["conversation", "user"]);
    let useless = library("{{ now }}");
    assert_eq!(codes(&useless), ["outer.yaml: useless_cache"]);
    let finding = useless.findings().next().unwrap();
    assert_eq!((finding.line, finding.column), (4, 35));
}
