//! Rules over source files: owners inside a crate, names, sizes, openings.

use super::manifests::ARROWS;
use super::tree::{SourceFile, Tree};

/// What the root may hold besides files. Folders that begin with a dot are tools' own.
const FOLDERS: &[&str] =
    &["engine", "nodes", "plugins", "server", "graphs", "migrations", "examples"];

/// What may be named only below these paths, in shipped code.
const OWNERS: &[(&str, &[&str])] = &[
    ("petgraph", &["engine/"]),
    ("serde_yaml", &["engine/src/yaml.rs"]),
    ("minijinja", &["engine/"]),
    ("reqwest", &["nodes/src/http.rs"]),
    ("rustls", &["nodes/src/http.rs"]),
    ("tantivy", &["nodes/"]),
    ("fastembed", &["nodes/"]),
    ("wasmtime", &["plugins/"]),
    ("rmcp", &["plugins/"]),
    ("sqlx", &["server/src/store/"]),
    ("axum", &["server/src/api/", "server/src/http/", "server/src/openai/", "server/src/process/"]),
    ("hyper", &["server/src/process/serve/", "server/src/http/held.rs"]),
    ("hyper_util", &["server/src/process/serve/"]),
    ("socket2", &["server/src/process/serve/"]),
    ("ipnet", &["server/src/config/proxies.rs"]),
    ("libc", &["server/src/cli/allocator.rs"]),
    ("notify", &["server/src/library/"]),
    ("opentelemetry", &["server/src/telemetry/"]),
    ("opentelemetry_sdk", &["server/src/telemetry/"]),
    ("opentelemetry_otlp", &["server/src/telemetry/"]),
    ("tracing_opentelemetry", &["server/src/telemetry/"]),
    ("hmac", &["server/src/config/local_key.rs"]),
    ("StatusCode", &["server/src/http/problem/status.rs", "nodes/src/http.rs"]),
];

/// Files that may hold `unsafe` code.
const UNSAFE: &[&str] = &["server/src/cli/allocator.rs"];

/// Names that never refuse a new member.
const EMPTY_NAMES: &[&str] = &[
    concat!("ut", "ils"),
    concat!("hel", "pers"),
    concat!("com", "mon"),
    concat!("mana", "ger"),
    concat!("mi", "sc"),
];

/// What such code begins with.
const KEYWORD: &str = concat!("un", "safe");

/// What unfinished work is marked with.
const MARKS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("ST", "UB"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
];

/// Longest file, in lines.
const LONGEST: usize = 800;
/// Longest median, in lines.
const MEDIAN: usize = 200;

/// Sources name crates of the workspace along the arrows only, in tests too.
pub(crate) fn arrows(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in tree.rust() {
        let folder = file.path.split('/').next().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == folder) else { continue };
        for (other, _) in ARROWS.iter().filter(|(other, _)| *other != folder) {
            let name = format!("exile_{other}");
            if !allowed.contains(&format!("exile-{other}").as_str()) && file.names(&name) {
                complaints.push(format!("{}: {folder} may not name {name}", file.path));
            }
        }
    }
    complaints
}

/// What has an owner is named by its owner alone.
pub(crate) fn owners(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in tree.shipped() {
        for (name, places) in OWNERS {
            let at_home = places.iter().any(|place| file.path.starts_with(place));
            if !at_home && file.names(name) {
                complaints.push(format!("{}: {name} belongs to {}", file.path, places.join(", ")));
            }
        }
    }
    complaints
}

/// Attributes of the `GenAI` conventions have one file.
pub(crate) fn span_names(tree: &Tree) -> Vec<String> {
    let foreign = tree.shipped().filter(|f| f.path != "engine/src/span.rs");
    let naming = foreign.filter(|f| f.code().contains(concat!("gen_ai", ".")));
    complain(naming, "span attributes are named in engine/src/span.rs")
}

/// The root holds the folders of the map.
pub(crate) fn folders(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in &tree.files {
        let Some((folder, _)) = file.path.split_once('/') else { continue };
        if !folder.starts_with('.') && !FOLDERS.contains(&folder) {
            complaints.push(format!("{}: `{folder}` is not on the map", file.path));
        }
    }
    complaints
}

/// Every file says first what it is for.
pub(crate) fn openings(tree: &Tree) -> Vec<String> {
    let silent = tree.rust().filter(|f| !f.text.starts_with("//! "));
    complain(silent, "does not open with `//!` and its purpose")
}

/// Files can be read in one sitting.
pub(crate) fn lengths(tree: &Tree) -> Vec<String> {
    let lines = |f: &SourceFile| f.text.lines().count();
    let long = tree.rust().filter(|f| lines(f) > LONGEST);
    let mut complaints: Vec<String> =
        long.map(|f| format!("{}: {} lines, {LONGEST} are allowed", f.path, lines(f))).collect();
    let mut all: Vec<usize> = tree.rust().map(lines).collect();
    all.sort_unstable();
    // A sample of a single file has no half to speak of.
    if let Some(median) = all.get(all.len() / 2).filter(|m| **m > MEDIAN && all.len() > 1) {
        complaints
            .push(format!("half of all files have more than {median} lines, {MEDIAN} are meant"));
    }
    complaints
}

/// Files, folders and modules are named for what they hold.
pub(crate) fn names(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in tree.rust() {
        for empty in EMPTY_NAMES {
            let part = file.path.split(['/', '.']).any(|p| p == *empty);
            let module = file.code().lines().any(|l| declares(l, empty));
            if part || module {
                complaints.push(format!("{}: `{empty}` says nothing", file.path));
            }
        }
    }
    complaints
}

/// Nothing that is shipped is left for later.
pub(crate) fn finished(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in tree.shipped() {
        for mark in MARKS.iter().filter(|mark| file.text.contains(**mark)) {
            complaints.push(format!("{}: `{mark}` is unfinished work", file.path));
        }
    }
    complaints
}

/// What the compiler cannot check stands in few files, and says why it is right.
pub(crate) fn checked(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in tree.rust() {
        let lines: Vec<&str> = file.text.lines().map(str::trim_start).collect();
        let opens = |line: &str| {
            let words = ["{", "fn ", "impl ", "extern "].map(|next| format!("{KEYWORD} {next}"));
            !line.starts_with("//") && words.iter().any(|word| line.contains(word))
        };
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| opens(line)) {
            let above = lines[..number].iter().rev().take_while(|line| line.starts_with("//"));
            if !UNSAFE.contains(&&*file.path) {
                complaints.push(format!("{}: `{line}` is not allowed here", file.path));
            } else if !above.into_iter().any(|line| line.starts_with("// SAFETY: ")) {
                complaints.push(format!("{}: `{line}` has no `// SAFETY:` above it", file.path));
            }
        }
    }
    complaints
}

/// No shipped file excuses itself from documenting what it offers.
pub(crate) fn documented(tree: &Tree) -> Vec<String> {
    let lint = concat!("missing", "_docs");
    let excused = tree.shipped().filter(|f| f.names(lint) && f.code().contains("allow("));
    complain(excused, &format!("allows `{lint}`"))
}

fn declares(line: &str, name: &str) -> bool {
    let mut words = line.split([' ', ';', '{', '(', ')']).filter(|w| !w.is_empty());
    words.by_ref().any(|w| w == "mod") && words.next() == Some(name)
}

fn complain<'t>(files: impl Iterator<Item = &'t SourceFile>, what: &str) -> Vec<String> {
    files.map(|f| format!("{}: {what}", f.path)).collect()
}
