//! Holds the shape of the source tree: arrows, owners, names, sizes, documentation.
//!
//! Every rule is a pure function from a listing of files to complaints. `the_tree_is_tidy` runs
//! all of them over the repository; each other test breaks one rule in a small sample and sees
//! it fail.

#[path = "tidy/manifests.rs"]
mod manifests;
#[path = "tidy/modules.rs"]
mod modules;
#[path = "tidy/pages.rs"]
mod pages;
#[path = "tidy/promises.rs"]
mod promises;
#[path = "tidy/sources.rs"]
mod sources;
#[path = "tidy/tree.rs"]
mod tree;

use std::path::Path;

use tree::Tree;

/// A rule: complaints, each naming the file first.
type Rule = fn(&Tree) -> Vec<String>;

const RULES: &[Rule] = &[
    manifests::arrows,
    manifests::owners,
    manifests::one_version,
    manifests::lints,
    manifests::licence,
    sources::arrows,
    sources::owners,
    sources::span_names,
    sources::folders,
    sources::openings,
    sources::lengths,
    sources::names,
    sources::finished,
    sources::checked,
    sources::documented,
    modules::few_on_top,
    modules::ordered,
    modules::circles,
    modules::one_name_each,
    promises::tested,
    promises::limits_listed,
    promises::events_listed,
    promises::language_listed,
    pages::short,
    pages::mapped,
    pages::twins,
    pages::linked,
];

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("server lies in the root");
    let tree = Tree::read(root).expect("the repository can be read");
    let complaints: Vec<String> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Feeds a rule one broken file and expects exactly this complaint; a mended one gives none.
fn check(rule: Rule, path: &str, broken: &str, mended: &str, complaint: &str) {
    check_files(rule, (path, broken), (path, mended), complaint);
}

fn check_files(rule: Rule, broken: (&str, &str), mended: (&str, &str), complaint: &str) {
    assert_eq!(rule(&Tree::of(&[broken])), [complaint], "the broken sample");
    assert_eq!(rule(&Tree::of(&[mended])), [""; 0], "the mended sample");
}

#[test]
fn a_manifest_against_an_arrow_is_seen() {
    check(
        manifests::arrows,
        "nodes/Cargo.toml",
        "[dev-dependencies]\nexile-plugins.workspace = true\n",
        "[dependencies]\nexile-engine.workspace = true\n",
        "nodes/Cargo.toml: nodes may not depend on exile-plugins",
    );
}

#[test]
fn a_foreign_dependency_in_a_manifest_is_seen() {
    check(
        manifests::owners,
        "plugins/Cargo.toml",
        "[dependencies]\nreqwest.workspace = true\n",
        "[dependencies]\nserde.workspace = true\n",
        "plugins/Cargo.toml: reqwest belongs to nodes",
    );
}

#[test]
fn a_version_outside_the_workspace_table_is_seen() {
    check(
        manifests::one_version,
        "nodes/Cargo.toml",
        "[dependencies]\nserde = \"1\"\n",
        "[dependencies]\nserde.workspace = true\ntokio = { workspace = true, features = [\"fs\"] }\n",
        "nodes/Cargo.toml: serde does not say `workspace = true`",
    );
}

#[test]
fn a_crate_outside_the_lints_is_seen() {
    check(
        manifests::lints,
        "nodes/Cargo.toml",
        "[package]\nname = \"exile-nodes\"\n",
        "[package]\nname = \"exile-nodes\"\n\n[lints]\nworkspace = true\n",
        "nodes/Cargo.toml: does not take the workspace's lints",
    );
}

#[test]
fn a_workspace_that_lets_items_go_undocumented_is_seen() {
    check(
        manifests::lints,
        "Cargo.toml",
        "[workspace.lints.rust]\nunsafe_code = \"deny\"\n",
        "[workspace.lints.rust]\nmissing_docs = \"warn\"\n",
        "Cargo.toml: `missing_docs` is off",
    );
}

#[test]
fn anyone_may_host_it() {
    check(
        manifests::licence,
        "engine/Cargo.toml",
        "[package]\nname = \"exile-engine\"\nlicense = \"BUSL-1.1\"\n",
        "[package]\nname = \"exile-engine\"\nlicense.workspace = true\n",
        "engine/Cargo.toml: does not take the workspace's licence",
    );
}

#[test]
fn a_use_against_an_arrow_is_seen() {
    check(
        sources::arrows,
        "plugins/src/lib.rs",
        "//! Tools.\nuse exile_nodes::http::Client;\n",
        "//! Tools; `exile_nodes::http` is behind the trait.\nuse exile_engine::http::Http;\n",
        "plugins/src/lib.rs: plugins may not name exile_nodes",
    );
}

#[test]
fn a_dependency_named_outside_its_owner_is_seen() {
    check(
        sources::owners,
        "server/src/api/runs/list.rs",
        "//! Runs.\nlet pool: sqlx::SqlitePool = open();\n",
        "//! Runs.\nlet store = Store::open(); // not sqlx::SqlitePool\n",
        "server/src/api/runs/list.rs: sqlx belongs to server/src/store/",
    );
}

#[test]
fn a_status_code_outside_its_file_is_seen() {
    check(
        sources::owners,
        "server/src/api/runs/list.rs",
        "//! Runs.\nuse axum::http::{HeaderMap, StatusCode};\n",
        "//! Runs.\nuse axum::http::HeaderMap;\n",
        "server/src/api/runs/list.rs: StatusCode belongs to server/src/http/problem/status.rs, nodes/src/http.rs",
    );
}

#[test]
fn the_yaml_library_outside_its_file_is_seen() {
    check(
        sources::owners,
        "engine/src/skill.rs",
        "//! Skills.\nlet skill = serde_yaml::from_str(text);\n",
        "//! Skills.\nlet skill = yaml::parse(path, text);\n",
        "engine/src/skill.rs: serde_yaml belongs to engine/src/yaml.rs",
    );
}

#[test]
fn an_attribute_name_outside_its_file_is_seen() {
    let name = concat!("gen_ai", ".usage.input_tokens");
    check(
        sources::span_names,
        "nodes/src/kinds/llm.rs",
        &format!("//! A model call.\nspan.record(\"{name}\", 3);\n"),
        "//! A model call.\nspan::chat_ended(&span, Ok(&reply));\n",
        "nodes/src/kinds/llm.rs: span attributes are named in engine/src/span.rs",
    );
}

#[test]
fn a_new_top_level_folder_is_seen() {
    check_files(
        sources::folders,
        ("scripts/build.sh", ""),
        (".ci/build.sh", ""),
        "scripts/build.sh: `scripts` is not on the map",
    );
}

#[test]
fn a_file_without_a_purpose_is_seen() {
    check(
        sources::openings,
        "engine/src/lib.rs",
        "pub mod graph;\n",
        "//! The engine.\npub mod graph;\n",
        "engine/src/lib.rs: does not open with `//!` and its purpose",
    );
}

#[test]
fn a_file_too_long_to_read_is_seen() {
    check(
        sources::lengths,
        "engine/src/lib.rs",
        &"//\n".repeat(801),
        &"//\n".repeat(200),
        "engine/src/lib.rs: 801 lines, 800 are allowed",
    );
}

#[test]
fn long_files_in_general_are_seen() {
    let long = "//\n".repeat(201);
    let tree = Tree::of(&[("a/src/a.rs", &long), ("a/src/b.rs", &long), ("a/src/c.rs", "//")]);
    assert_eq!(
        sources::lengths(&tree),
        ["half of all files have more than 201 lines, 200 are meant"]
    );
}

#[test]
fn a_name_that_says_nothing_is_seen() {
    check_files(
        sources::names,
        (concat!("engine/src/", "utils", ".rs"), "//! Odds and ends.\n"),
        ("engine/src/period.rs", "//! Spans of time.\n"),
        concat!("engine/src/", "utils", ".rs: `", "utils", "` says nothing"),
    );
}

#[test]
fn a_module_that_says_nothing_is_seen() {
    check(
        sources::names,
        "engine/src/lib.rs",
        concat!("mod ", "helpers", " {}\n"),
        "mod reducers {}\n",
        concat!("engine/src/lib.rs: `", "helpers", "` says nothing"),
    );
}

#[test]
fn code_that_the_compiler_cannot_check_is_seen() {
    let block = concat!("fn run() { un", "safe { halt() } }\n");
    check(
        sources::checked,
        "engine/src/lib.rs",
        block,
        "fn run() {}\n",
        &format!("engine/src/lib.rs: `{}` is not allowed here", block.trim_end()),
    );
    check(
        sources::checked,
        "server/src/cli/allocator.rs",
        block,
        &format!("// SAFETY: it halts.\n{block}"),
        &format!(
            "server/src/cli/allocator.rs: `{}` has no `// SAFETY:` above it",
            block.trim_end()
        ),
    );
}

#[test]
fn unfinished_work_is_seen() {
    check(
        sources::finished,
        "engine/src/lib.rs",
        concat!("fn run() { to", "do!() }\n"),
        "fn run() {}\n",
        concat!("engine/src/lib.rs: `to", "do!` is unfinished work"),
    );
}

#[test]
fn an_item_excused_from_documentation_is_seen() {
    check(
        sources::documented,
        "engine/src/lib.rs",
        concat!("#![allow(missing", "_docs)]\n"),
        "//! Documented.\n",
        concat!("engine/src/lib.rs: allows `missing", "_docs`"),
    );
}

#[test]
fn a_thirteenth_entry_on_top_of_the_server_is_seen() {
    let entries = |count: u8| {
        let paths = (b'a'..).take(count.into()).map(|c| format!("server/src/{}.rs", char::from(c)));
        let paths: Vec<String> =
            paths.chain(["main.rs", "lib.rs"].map(|f| format!("server/src/{f}"))).collect();
        let files: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), "")).collect();
        modules::few_on_top(&Tree::of(&files))
    };
    assert_eq!(entries(12), [""; 0]);
    let all: Vec<String> = ('a'..='m').map(|c| format!("{c}.rs")).collect();
    let complaint = format!("server/src/: 13 entries, 12 are allowed: {}", all.join(", "));
    assert_eq!(entries(13), [complaint]);
}

#[test]
fn an_arrow_against_the_order_of_the_server_is_seen() {
    let lib = "//! | [`http`] | routes |\n//! | [`store`] | rows |\n";
    let check = |http: &str, store: &str| {
        modules::ordered(&Tree::of(&[
            ("server/src/lib.rs", lib),
            ("server/src/http/mod.rs", http),
            ("server/src/store/users.rs", store),
        ]))
    };
    assert_eq!(check("use crate::store::Store;", "//! Not `crate::http`."), [""; 0]);
    let complaint = "server/src/store/users.rs: `store` may not name `http`, which stands above it";
    assert_eq!(check("", "fn f() -> crate::http::Problem {}"), [complaint]);
    assert_eq!(check("", "use crate::{http::{Problem, auth}, store};"), [complaint]);
    let unlisted =
        modules::ordered(&Tree::of(&[("server/src/lib.rs", lib), ("server/src/extra.rs", "")]));
    assert_eq!(unlisted, ["server/src/lib.rs: the table has no row for `extra`"]);
}

#[test]
fn a_circle_between_modules_is_seen() {
    let tree = |first: &str, last: &str| {
        Tree::of(&[
            ("nodes/src/a.rs", first),
            ("nodes/src/b/mod.rs", "use super::{c, d::D};"),
            ("nodes/src/c/deep/file.rs", last),
            ("nodes/src/d.rs", ""),
            ("nodes/src/c/tests.rs", "use crate::a::A;"),
        ])
    };
    let tests = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n";
    let circle = tree("use crate::b::B;", "use crate::a::A;");
    assert_eq!(modules::circles_but(&tree("use crate::b::B;", tests), &[]), [""; 0]);
    assert_eq!(modules::circles_but(&circle, &[]), ["nodes/src: a circle of a, b, c"]);
    let known: &[modules::Circle] = &[("nodes", &["a", "b", "c"], "being mended")];
    assert_eq!(modules::circles_but(&circle, known), [""; 0]);
    assert_eq!(
        modules::circles_but(&tree("", tests), known),
        ["nodes/src: no circle is a, b, c any more"]
    );
}

#[test]
fn two_public_types_of_one_name_are_seen() {
    let tree = |second: &str| {
        let first = "/// One.\npub struct Page<T> {}\n";
        Tree::of(&[
            ("engine/src/a.rs", first),
            ("engine/src/b.rs", second),
            ("nodes/src/a.rs", first),
        ])
    };
    let twins = tree("pub enum Page {\n");
    let complaint = "engine/src/a.rs, engine/src/b.rs: `Page` names several types";
    assert_eq!(modules::one_name_each_but(&twins, &[]), [complaint]);
    for fine in ["pub(super) struct Page;\n", "struct Page;\n", "pub struct Pages;\n"] {
        assert_eq!(modules::one_name_each_but(&tree(fine), &[]), [""; 0], "{fine}");
    }
    let known: &[modules::Twins] = &[("engine", &["Page"])];
    assert_eq!(modules::one_name_each_but(&twins, known), [""; 0]);
    assert_eq!(
        modules::one_name_each_but(&tree(""), known),
        ["engine/src: `Page` names one type by now"]
    );
}

const PROMISING: &str = "engine/GUARANTEES.md";

fn promise(test: &str) -> String {
    format!("| Fault | Promise | Test |\n|---|---|---|\n| kill | nothing is lost | {test} |\n")
}

#[test]
fn a_promise_without_a_test_is_seen() {
    let test = concat!("#[", "test]\nfn nothing_is_lost() {}\n");
    let check = |paper: &str| {
        promises::tested(&Tree::of(&[
            (PROMISING, &promise(paper)),
            ("engine/tests/all/a.rs", test),
        ]))
    };
    let place = "engine/GUARANTEES.md:3";
    assert_eq!(check("`nothing_is_lost`"), [""; 0]);
    assert_eq!(check("nothing_is_lost"), [format!("{place}: the row names no test")]);
    assert_eq!(check("`all_is_kept`"), [format!("{place}: there is no test `all_is_kept`")]);
}

#[test]
fn a_limit_that_the_configuration_does_not_list_is_seen() {
    let limits =
        "pub struct LimitsFile {\n    pub body: Option<Size>,\n    pub head: Option<Size>,\n}\n";
    let page = "server/CONFIGURATION.md";
    let check = |text: &str| {
        let tree = Tree::of(&[("server/src/config/limits.rs", limits), (page, text)]);
        promises::limits_listed(&tree)
    };
    assert_eq!(check("| `body`, `head` | bytes | 1MiB |\n"), [""; 0]);
    let complaint = format!("{page}: the table of limits has no row for `head`");
    assert_eq!(check("`head` is one.\n| `body` | more than `head` | 1MiB |\n"), [complaint]);
}

#[test]
fn an_event_or_a_field_that_the_page_does_not_tell_is_seen() {
    let kinds = "pub const KINDS: &[Kind] = &[\n    kind(\"run.started\", \"a run began\", &[\"run\"]),\n    \
                 last(\n        \"run.failed\",\n        \"it failed\",\n        &[\"run\", \"error\"],\n    ),\n];\n";
    let page = "server/EVENTS.zh.md";
    let check = |text: &str| {
        promises::events_listed(&Tree::of(&[("engine/src/run/event.rs", kinds), (page, text)]))
    };
    let begins = "| `run.started` | 开始 | `run` |\n";
    assert_eq!(check(&format!("{begins}| `run.failed` | 失败 | `run`, `error` |\n")), [""; 0]);
    assert_eq!(check(begins), [format!("{page}: no row tells of `run.failed`")]);
    assert_eq!(
        check(&format!("{begins}| `run.failed` | 失败 | `run` |\n")),
        [format!("{page}: `run.failed` has no field `error`")]
    );
}

#[test]
fn a_filter_that_the_page_does_not_tell_is_seen() {
    let table = "const TABLE: &[(&str, Filter)] = &[\n    (\"abs\", numbers::abs),\n    (\"in\", |given| \
                 given.needed(\"text\")),\n];\n";
    let page = "graphs/README.md";
    let check = |text: &str| {
        let tree = Tree::of(&[("engine/src/expr/filters/mod.rs", table), (page, text)]);
        promises::language_listed(&tree)
    };
    assert_eq!(check("`abs`, `in(text)`"), [""; 0]);
    assert_eq!(check("`abs`, in"), [format!("{page}: says nothing of `in`")]);
}

#[test]
fn a_front_door_that_is_a_manual_is_seen() {
    check(
        pages::short,
        "README.md",
        &"word ".repeat(901),
        &"word ".repeat(900),
        "README.md: 901 words, 900 are allowed",
    );
    check(
        pages::short,
        "README.zh.md",
        &"一个字，".repeat(500),
        &format!("{}`make run`", "一个字，".repeat(449)),
        "README.zh.md: 1000 words, 900 are allowed",
    );
}

#[test]
fn a_folder_that_the_map_does_not_show_is_seen() {
    let sources = [("engine/src/run/mod.rs", ""), ("engine/src/lib.rs", ""), (".ci/run", "")];
    let check = |map: &str| {
        let page = format!("# exile\n\n## Map\n\n```text\n{map}```\n");
        let mut files = sources.to_vec();
        files.push(("README.md", &page));
        pages::mapped(&Tree::of(&files))
    };
    assert_eq!(check("engine/   runs\n  src/    run/\n"), [""; 0]);
    assert_eq!(check("engine/\n  src/\n      run/\n  tests/  all/\n.ci/  tests\n"), [""; 0]);
    assert_eq!(check("engine/   runs\n"), ["README.md: the map does not show `engine/src/run/`"]);
    assert_eq!(
        check("engine/\n  src/    run/ graph/\nnodes/\n"),
        [
            "README.md: the map shows `engine/src/graph/`, which is not there",
            "README.md: the map shows `nodes/`, which is not there"
        ]
    );
    assert_eq!(
        check("nothing\n"),
        [
            "README.md: the map does not show `engine/`",
            "README.md: the map does not show `engine/src/run/`"
        ]
    );
}

#[test]
fn a_page_in_one_language_is_seen() {
    let twins = |paths: &[&str]| {
        let files: Vec<(&str, &str)> = paths.iter().map(|path| (*path, "")).collect();
        pages::twins(&Tree::of(&files))
    };
    let both = ["README.md", "README.zh.md", "server/EVENTS.md", "server/EVENTS.zh.md"];
    assert_eq!(twins(&both), [""; 0]);
    assert_eq!(twins(&["CHANGELOG.md", "engine/GUARANTEES.md", ".venv/x/README.md"]), [""; 0]);
    assert_eq!(twins(&["server/EVENTS.md"]), ["server/EVENTS.md: there is no server/EVENTS.zh.md"]);
    assert_eq!(twins(&["nodes/README.zh.md"]), ["nodes/README.zh.md: there is no nodes/README.md"]);
}

#[test]
fn a_link_that_leads_nowhere_is_seen() {
    let other =
        ("server/README.md", "# The server\n\n## OpenAI's clients\n\n## 运行 是怎样推进的\n");
    let check = |text: &str| {
        let files = [("graphs/a.yaml", ""), ("graphs/README.md", text), other];
        pages::linked(&Tree::of(&files))
    };
    for good in [
        "[a](a.yaml), [server](../server/README.md#openais-clients), [folder](../server/)",
        "[here](#graphs)\n\n# Graphs\n",
        "[away](https://example.com/none), [`code`](../server/README.md#运行-是怎样推进的)",
        "`[no](none.md)`\n\n```md\n[no](none.md)\n```\n",
    ] {
        assert_eq!(check(good), [""; 0], "{good}");
    }
    for (bad, complaint) in [
        ("\n[b](b.yaml)", "graphs/README.md:2: `b.yaml` is not there"),
        ("[s](../server/README.md#none)", "`../server/README.md#none` has no such heading"),
        ("[f](../server#none)", "`../server#none` has no such heading"),
        ("[out](../../README.md)", "`../../README.md` leads out of the repository"),
    ] {
        let found = check(bad);
        assert!(found.len() == 1 && found[0].ends_with(complaint), "{bad}: {found:?}");
    }
}
