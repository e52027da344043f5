//! Files that would take a server's memory, stack or time while they are checked: each ends with a
//! few findings, or loads. Everything here runs on a thread with half the stack that a worker has.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use exile_engine::answer::AnswerSchema;
use exile_engine::bundle::{Catalog, Source};
use exile_engine::diagnostic::{FINDINGS_LIMIT, Finding, render};
use exile_engine::graph::Graph;
use exile_engine::graph::build::{Build, Known, Names};
use exile_engine::graph::compile;
use exile_engine::graph::nesting::Graphs;
use exile_engine::library::{Files, Library};
use exile_engine::limits::Limits;
use exile_engine::node::{NodeKind, Work};
use exile_engine::yaml;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;

use crate::kinds;

fn on_a_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(1024 * 1024).spawn(work).unwrap().join().unwrap()
}

/// A text of so many parts.
fn many(part: &dyn Fn(usize) -> String, count: usize) -> String {
    (0..count).map(part).collect()
}

/// What becomes of a file, and what a person reads of it.
fn checked(text: &str) -> (Option<Arc<Graph>>, Vec<Finding>) {
    checked_in(&kinds::catalog(), text)
}

fn checked_in(catalog: &Catalog, text: &str) -> (Option<Arc<Graph>>, Vec<Finding>) {
    let skills = BTreeMap::new();
    let known = Known { catalog, skills: &skills, graphs: Graphs::none(), names: Names::Checked };
    let (graph, findings) = match yaml::parse_within("g.yaml", text, &catalog.limits.files) {
        Ok(document) => {
            let compiled = compile::compile(&document, known);
            (compiled.graph, compiled.findings)
        }
        Err(findings) => (None, findings),
    };
    assert!(findings.len() <= FINDINGS_LIMIT + 1, "{} findings", findings.len());
    for finding in &findings {
        assert!(finding.message.chars().count() <= 610 && finding.fix.chars().count() <= 610);
    }
    let sources = BTreeMap::from([("g.yaml".to_owned(), text.to_owned())]);
    let shown = render(&findings, &sources, false);
    assert!(shown.len() <= 4_000 * (findings.len() + 1), "{} bytes are shown", shown.len());
    (graph, findings)
}

fn codes(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.code).collect()
}

/// What is found in a file that does not load.
fn refused(text: &str) -> Vec<&'static str> {
    let text = text.to_owned();
    on_a_small_stack(move || {
        let (graph, findings) = checked(&text);
        assert!(graph.is_none());
        codes(&findings)
    })
}

#[test]
fn aliases_count_as_what_they_stand_for() {
    let long = "y".repeat(500_000);
    let mut text = format!("graph: g\nstate:\n  a: {{ default: &x \"{long}\" }}\n");
    for i in 0..2_000 {
        writeln!(text, "  b{i}: {{ default: *x }}").unwrap();
    }
    assert_eq!(refused(&text), ["alias_bomb"]);
    let key = "k".repeat(1_000);
    let keys = format!("graph: g\nx: &x {{ {key}: 1 }}\ny: [{}]\n", "*x , ".repeat(5_000));
    assert_eq!(refused(&keys), ["alias_bomb"]);
    let mut nested = format!("graph: g\na0: &a0 \"{}\"\n", "y".repeat(1_000));
    for i in 1..60 {
        writeln!(nested, "a{i}: &a{i} [*a{0}, *a{0}]", i - 1).unwrap();
    }
    assert_eq!(refused(&nested), ["alias_bomb"]);
    let twice = format!("graph: g\nx: &x \"{long}\"\ny: [*x, *x]\n");
    assert!(!refused(&twice).contains(&"alias_bomb"));
}

#[test]
fn a_file_of_mistakes_ends_after_as_many_as_a_person_reads() {
    let nodes = "graph: g\nstate: { n: { default: 0 } }\nnodes:\n";
    let floods = [
        format!("graph: g\nx: [{}]\n", "yes, ".repeat(2_000)),
        format!("graph: g\nx: [{}]\n", "!a b, ".repeat(2_000)),
        format!("graph: g\n{}", "a: 1\n".repeat(800)),
        format!("graph: g\n{}", "[a]: 1\n".repeat(400)),
        format!("graph: g\nx: [{}]\n", "1e400, ".repeat(2_000)),
        format!("graph: g\n{}", many(&|i| format!("key{i}: 1\n"), 1_500)),
        format!("graph: g\r{}", many(&|i| format!("key{i}: 1\r"), 1_500)),
        format!("{nodes}{}", many(&|i| format!("  a{i}: {{ kind: sett }}\n"), 400)),
        format!("{nodes}{}", many(&|i| format!("  a{i}: {{ kind: probe, x{i}: 1 }}\n"), 800)),
        format!(
            "{nodes}{}",
            many(&|i| format!("  a{i}: {{ kind: set, set: {{ n: m{i} }} }}\n"), 600)
        ),
        format!(
            "{nodes}  a: {{ kind: probe, tools: [{}] }}\n",
            many(&|i| format!("t{i}, "), 1_500)
        ),
        format!(
            "{nodes}  a: {{ kind: probe, text: \"{}\" }}\n",
            many(&|i| format!("{{{{ v{i} }}}}"), 400)
        ),
        format!(
            "{nodes}  a: {{ kind: probe, goto: {{ to: \"'a'\", among: [{}] }} }}\n",
            many(&|i| format!("t{i}, "), 1_500)
        ),
        format!(
            "{nodes}{}edges:\n{}",
            many(&|i| format!("  a{i}: {{ kind: probe }}\n"), 400),
            many(&|i| format!("  - {{ from: a{i}, to: b{i} }}\n"), 800)
        ),
        format!(
            "{nodes}{}edges:\n  - {{ from: START, to: a0 }}\n",
            many(&|i| format!("  a{i}: {{ kind: probe }}\n"), 800)
        ),
        format!(
            "{nodes}{}edges:\n{}",
            many(&|i| format!("  a{i}: {{ kind: probe }}\n"), 500),
            many(
                &|i| format!("  - {{ from: START, to: a{i} }}\n  - {{ from: a{i}, to: a{i} }}\n"),
                500
            )
        ),
        format!(
            "graph: g\ninput: [{}]\nstate: {{ {} }}\n",
            many(&|i| format!("b{i}, "), 400),
            many(&|i| format!("a{i}: {{}}, "), 400)
        ),
        format!("graph: g\nstate: {{ {} }}\n", many(&|i| format!("not{i}-a: {{}}, "), 400)),
        format!(
            "graph: g\nmode: linear\nnodes: {{ a: {{ kind: probe }} }}\norder: [{}]\n",
            many(&|i| format!("b{i}, "), 1_500)
        ),
        format!("skill: s\ntools: [{}]\n", many(&|i| format!("t{i}, "), 1_500)),
    ];
    on_a_small_stack(move || {
        for text in &floods {
            let (graph, findings) = checked(text);
            let start: String = text.chars().take(90).collect();
            assert!(graph.is_none() && !findings.is_empty(), "{start}");
        }
        let (_, findings) = checked(&floods[0]);
        assert_eq!(codes(&findings[..2]), ["boolean_word"; 2]);
        assert_eq!(findings.last().unwrap().code, "too_many_findings");
    });
}

#[test]
fn long_lines_keys_and_names_are_shown_in_part() {
    let long = "k".repeat(900_000);
    let texts = [
        format!("graph: g\n{long}: 1\n"),
        format!("graph: g\nx: {long}\n"),
        format!("graph: g # {long}\n x: : [\n"),
        format!("graph: \"{long}"),
        format!("graph: \"{}\"\n", "\\n".repeat(400_000)),
        format!("{{graph: g, nodes: {{{}}}}}\n", "a: { kind: sett }, ".repeat(5_000)),
        format!("graph: g\nnodes: {{ {long}: {{ kind: sett }} }}\n"),
        format!("graph: g\nnodes: {{ a: {{ kind: set, set: {{ x: {long} }} }} }}\n"),
        format!("graph: {}", "[".repeat(900_000)),
        format!("graph: {}", "{a: ".repeat(200_000)),
        format!("graph:\n {}", "- ".repeat(400_000)),
        "? ".repeat(300_000),
        many(&|i| format!("{}a:\n", " ".repeat(i)), 1_200),
    ];
    for text in &texts {
        assert!(!refused(text).is_empty());
    }
    let text = format!("graph: g\nnodes: {{ {}, a: {{ kind: sett }} }}\n", "k".repeat(100_000));
    let (_, findings) = checked(&text);
    let finding = findings.iter().find(|finding| finding.code == "unknown_kind").unwrap();
    assert_eq!((finding.line, finding.column), (2, 100_023));
    let sources = BTreeMap::from([("g.yaml".to_owned(), text)]);
    let shown = render(std::slice::from_ref(finding), &sources, false);
    assert!(shown.contains("g.yaml:2:100023") && shown.contains("kind: sett }"), "{shown}");
}

#[test]
fn lines_that_end_in_carriage_returns_are_lines() {
    for end in ["\n", "\r\n", "\r"] {
        let text = [
            "graph: g",
            "nodes:",
            "  a:",
            "    kind: probe",
            "    text: |",
            "      x",
            "      {{ y }}",
            "",
        ]
        .join(end);
        let (_, findings) = checked(&text);
        let unknown = findings.iter().find(|finding| finding.code == "unknown_variable").unwrap();
        assert_eq!((unknown.line, unknown.column), (7, 10), "{end:?}");
        let sources = BTreeMap::from([("g.yaml".to_owned(), text)]);
        let shown = render(std::slice::from_ref(unknown), &sources, false);
        assert!(shown.contains(" 7 │       {{ y }}"), "{shown}");
    }
}

/// A graph of these nodes, which write nothing that clashes, and of these lines.
fn graph(schedule: &str, nodes: usize, lines: &[String]) -> String {
    let mut text =
        format!("graph: g\nschedule: {schedule}\nstate: {{ n: {{ reduce: sum }} }}\nnodes:\n");
    for i in 0..nodes {
        writeln!(text, "  a{i}: {{ kind: set, set: {{ n: 1 }} }}").unwrap();
    }
    text + "edges:\n" + &lines.concat()
}

fn line(from: &str, to: &str) -> String {
    format!("  - {{ from: {from}, to: {to} }}\n")
}

#[test]
fn graphs_of_many_paths_load_in_a_bounded_number_of_steps() {
    let name = |i: usize| format!("a{i}");
    let (layers, wide) = (12, 16);
    let mut layered: Vec<String> = (0..wide).map(|i| line("START", &name(i))).collect();
    for (i, j) in (0..(layers - 1) * wide).flat_map(|i| (0..wide).map(move |j| (i, j))) {
        layered.push(line(&name(i), &name((i / wide + 1) * wide + j)));
    }
    layered.extend((0..wide).map(|i| line(&name((layers - 1) * wide + i), "END")));
    let chain: Vec<String> = [line("START", "a0")]
        .into_iter()
        .chain((0..1_999).map(|i| line(&name(i), &name(i + 1))))
        .chain([line("a1999", "END")])
        .collect();
    let star: Vec<String> =
        (0..1_000).flat_map(|i| [line("START", &name(i)), line(&name(i), "END")]).collect();
    let mut forward = vec![line("START", "a0")];
    for (i, j) in (0..120).flat_map(|i| (i + 1..120).map(move |j| (i, j))) {
        forward.push(line(&name(i), &name(j)));
    }
    forward.push(line("a119", "END"));
    let mut joined = vec![line("START", "a0")];
    for i in 1..80_usize {
        let from: Vec<String> = (i.saturating_sub(20)..i).map(name).collect();
        joined.push(line(&format!("[{}]", from.join(", ")), &name(i)));
    }
    joined.push(line("a79", "END"));
    let graphs =
        [(layers * wide, layered), (2_000, chain), (1_000, star), (120, forward), (80, joined)];
    on_a_small_stack(move || {
        let mut limits = Limits::default();
        limits.files.checks = 3_000_000;
        let catalog = Catalog { limits: Arc::new(limits), ..kinds::catalog() };
        for (nodes, lines) in &graphs {
            for schedule in ["superstep", "dataflow"] {
                let (graph, findings) = checked_in(&catalog, &graph(schedule, *nodes, lines));
                assert!(graph.is_some(), "{nodes} {schedule}: {findings:?}");
            }
        }
    });
}

#[test]
fn what_was_not_looked_at_is_said() {
    let lines: Vec<String> = (0..300)
        .flat_map(|i| [line("START", &format!("a{i}")), line(&format!("a{i}"), "END")])
        .collect();
    let text = graph("dataflow", 300, &lines);
    let catalog = |limits: Limits| Catalog { limits: Arc::new(limits), ..kinds::catalog() };
    let mut few = Limits::default();
    few.files.checks = 10_000;
    let (graph, findings) = checked_in(&catalog(few.clone()), &text);
    assert!(graph.is_some(), "nothing was found to be wrong");
    assert_eq!(codes(&findings), ["too_many_paths"]);
    assert!(findings[0].fix.contains("file_checks"), "{}", findings[0]);
    few.files = few.files.at_start();
    let (graph, findings) = checked_in(&catalog(few), &text);
    assert!(graph.is_none());
    assert_eq!(codes(&findings), ["not_checked_yet"]);
    // What runs needs to know of every join.
    let sources: Vec<String> = (0..900).map(|i| format!("a{i}")).collect();
    let from = format!("[{}]", sources.join(", "));
    let mut joins = vec![line("START", "a0")];
    joins.extend((900..1_000).map(|i| line(&from, &format!("a{i}"))));
    let (graph, findings) = checked(&self::graph("superstep", 1_000, &joins));
    assert!(graph.is_none());
    assert!(findings.iter().any(|f| f.code == "too_many_paths" && f.is_error()), "{findings:?}");
}

#[test]
fn nodes_inside_nodes_take_a_bounded_stack() {
    let deep = (0..58).fold("{ kind: set, set: { n: 1 } }".to_owned(), |node, _| {
        format!("{{ kind: probe, args: {node} }}")
    });
    let text = format!("graph: g\nstate: {{ n: {{}} }}\nnodes:\n  a: {deep}\n");
    assert!(!refused(&text).is_empty());
}

#[test]
fn a_schema_for_answers_is_as_much_work_as_it_is_long() {
    let of = |output: &str| {
        format!(
            "graph: g\nmode: linear\nnodes:\n  a:\n    kind: probe\n    output: {output}\norder: [a]\n"
        )
    };
    let doubling = many(
        &|i| {
            let next = format!("{{ $ref: \"#/$defs/d{}\" }}", i + 1);
            format!("d{i}: {{ allOf: [{next}, {next}] }}, ")
        },
        30,
    );
    let (open, close) = ("{ not: ".repeat(50), " }".repeat(50));
    let chained =
        many(&|i| format!("c{i}: {open}{{ $ref: \"#/$defs/c{}\" }}{close}, ", i + 1), 250);
    let patterns = many(&|i| format!("\"\\\\w{i}\": {{}}, "), 300);
    let required = many(&|i| format!("{{ required: [x{i}] }}, "), 9_000);
    for output in [
        format!("{{ $defs: {{ {doubling}d30: {{ type: integer }} }}, $ref: \"#/$defs/d0\" }}"),
        format!("{{ $defs: {{ {chained}c250: {{ type: integer }} }}, $ref: \"#/$defs/c0\" }}"),
        format!("{{ $defs: {{ {doubling}d30: {{}} }}, items: {{ $ref: \"#/$defs/d0\" }} }}"),
        format!("{{ patternProperties: {{ {patterns} }} }}"),
        format!("{{ anyOf: [{required}] }}"),
        "{ anyOf: [{ $ref: \"#\" }, { type: integer }] }".to_owned(),
        "{ pattern: \"(\\\\w{900}){90}\" }".to_owned(),
        "{ $ref: \"http://127.0.0.1:1/x\" }".to_owned(),
        "{ $ref: \"file:///etc/passwd\" }".to_owned(),
    ] {
        assert_eq!(refused(&of(&output)), ["invalid_schema"], "{}", &output[..40]);
    }
    for output in [
        "{ $ref: \"#/$defs/node\", $defs: { node: { type: object, properties: { kids: { type: array, items: { $ref: \"#/$defs/node\" } } } } } }",
        "{ type: object, properties: { a: { pattern: \"^(?=x)\" } } }",
    ] {
        let (graph, findings) = checked(&of(output));
        assert!(graph.is_some(), "{output}: {findings:?}");
    }
}

#[test]
fn an_answer_as_deep_as_it_may_be_is_checked_on_a_small_stack() {
    let deep = json!({ "$ref": "#/$defs/again", "$defs": { "again": {
        "type": ["array", "integer"],
        "items": (0..22).fold(json!({ "$ref": "#/$defs/again" }), |inner, _| json!({ "allOf": [inner] })),
    } } });
    let text = format!(
        "graph: g\nmode: linear\nnodes:\n  a: {{ kind: probe, output: {deep} }}\norder: [a]\n"
    );
    on_a_small_stack(move || {
        let (graph, findings) = checked(&text);
        assert!(graph.is_some(), "{findings:?}");
        let bounds = Limits::default().json;
        let schema = AnswerSchema::new(deep, bounds).unwrap();
        let nested = |inner: &str| format!("{}{inner}{}", "[".repeat(63), "]".repeat(63));
        assert!(schema.read(&nested("1")).is_ok());
        assert!(schema.read(&nested("\"x\"")).is_err());
    });
}

/// Fails while it is built, as a defect of exile would.
struct Broken;

impl NodeKind for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn schema(&self, _: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": false })
    }

    fn build(&self, _: &mut Build<'_>) -> Option<Work> {
        panic!("a defect of exile")
    }
}

fn source(name: &str, text: &str) -> Source {
    Source { path: format!("graphs/{name}.yaml"), text: text.to_owned() }
}

fn good(name: &str) -> String {
    format!(
        "graph: {name}\nmode: linear\nstate: {{ n: {{}} }}\nnodes: {{ a: {{ kind: set, set: {{ n: 1 }} }} }}\n\
         order: [a]\n"
    )
}

#[test]
fn a_defect_that_a_file_meets_is_a_finding_of_that_file() {
    let mut catalog = kinds::catalog();
    catalog.kinds.0.push(Arc::new(Broken));
    let bad = "graph: bad\nmode: linear\nnodes: { a: { kind: broken } }\norder: [a]\n";
    let library =
        Library::of(vec![source("bad", bad), source("good", &good("good"))], Vec::new(), &catalog);
    assert!(library.graph("good").unwrap().program.is_some());
    let bad = library.graph("bad").unwrap();
    assert!(bad.program.is_none());
    assert_eq!(codes(&bad.findings), ["unreadable"]);
    assert!(bad.findings[0].message.contains("exile failed"), "{}", bad.findings[0]);
}

#[test]
fn a_start_looks_at_large_files_later_and_at_good_ones_at_once() {
    let catalog = kinds::catalog();
    let long = format!("{}# {}\n", good("long"), "x".repeat(200_000));
    let lines: Vec<String> = (0..1_500)
        .flat_map(|i| [line("START", &format!("a{i}")), line(&format!("a{i}"), "END")])
        .collect();
    let wide = graph("dataflow", 1_500, &lines).replace("graph: g", "graph: wide");
    let files = Files {
        graphs: vec![source("good", &good("good")), source("long", &long), source("wide", &wide)],
        ..Files::default()
    };
    let begun = Library::begin(files.clone(), &catalog);
    assert!(begun.is_unfinished());
    assert!(begun.graph("good").unwrap().program.is_some());
    for name in ["long", "wide"] {
        let graph = begun.graphs().iter().find(|graph| graph.source.path.contains(name)).unwrap();
        assert!(graph.program.is_none());
        assert_eq!(codes(&graph.findings), ["not_checked_yet"]);
    }
    let whole = begun.reload(files, &catalog);
    assert!(!whole.is_unfinished());
    for name in ["good", "long", "wide"] {
        assert!(whole.graph(name).unwrap().program.is_some(), "{name}");
    }
    let many = (0..50).map(|i| {
        let name = format!("g{i:02}");
        source(&name, &format!("{}# {}\n", good(&name), "x".repeat(i * 1_000)))
    });
    let files = Files { graphs: many.collect(), ..Files::default() };
    let begun = Library::begin(files, &catalog);
    let served = begun.graphs().iter().filter(|graph| graph.program.is_some()).count();
    assert!((40..50).contains(&served), "the smallest ones first: {served}");
}
