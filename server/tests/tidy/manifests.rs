//! Rules over `Cargo.toml` files: who may depend on whom, and that versions stand in one place.

use super::tree::Tree;

/// Which crates of the workspace each crate may depend on.
pub(crate) const ARROWS: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("nodes", &["exile-engine"]),
    ("plugins", &["exile-engine"]),
    ("server", &["exile-engine", "exile-nodes", "exile-plugins"]),
];

/// Which crate may depend on what. A name that ends in `*` covers all that begin so.
const OWNERS: &[(&str, &str)] = &[
    ("petgraph", "engine"),
    ("serde_yaml", "engine"),
    ("serde-saphyr", "engine"),
    ("minijinja", "engine"),
    ("miette", "engine"),
    ("jsonschema", "engine"),
    ("reqwest", "nodes"),
    ("rustls", "nodes"),
    ("tantivy", "nodes"),
    ("fastembed", "nodes"),
    ("wasmtime*", "plugins"),
    ("rmcp", "plugins"),
    ("sqlx", "server"),
    ("fail", "server"),
    ("notify", "server"),
    ("axum*", "server"),
    ("hyper*", "server"),
    ("socket2", "server"),
    ("clap", "server"),
    ("hmac", "server"),
    ("opentelemetry*", "server"),
    ("tracing-opentelemetry", "server"),
    ("utoipa*", "server"),
];

/// Crates depend along the arrows only, in tests too.
pub(crate) fn arrows(tree: &Tree) -> Vec<String> {
    each_dependency(tree, |folder, name, _| {
        let (_, allowed) = ARROWS.iter().find(|(from, _)| *from == folder)?;
        (name.starts_with("exile-") && !allowed.contains(&name))
            .then(|| format!("{folder} may not depend on {name}"))
    })
}

/// A dependency has one owner.
pub(crate) fn owners(tree: &Tree) -> Vec<String> {
    let covers = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    };
    each_dependency(tree, |folder, name, _| {
        let (_, owner) = OWNERS.iter().find(|(pattern, _)| covers(pattern, name))?;
        (*owner != folder).then(|| format!("{name} belongs to {owner}"))
    })
}

/// Versions stand in the workspace's table alone.
pub(crate) fn one_version(tree: &Tree) -> Vec<String> {
    each_dependency(tree, |_, name, line| {
        let inherited = line.replace(' ', "").contains("workspace=true");
        (!inherited).then(|| format!("{name} does not say `workspace = true`"))
    })
}

/// Every crate takes the workspace's lints, and these demand documentation.
pub(crate) fn lints(tree: &Tree) -> Vec<String> {
    let root = tree.files.iter().filter(|f| f.path == "Cargo.toml");
    let silent = root.filter(|f| {
        !section(&f.text, "[workspace.lints.rust]").any(|l| l.starts_with("missing_docs"))
    });
    let silent = silent.map(|f| format!("{}: `missing_docs` is off", f.path));
    let loose = tree.manifests().filter(|(folder, file)| {
        ARROWS.iter().any(|(name, _)| name == folder)
            && !section(&file.text, "[lints]").any(|l| l == "workspace = true")
    });
    let loose =
        loose.map(|(_, file)| format!("{}: does not take the workspace's lints", file.path));
    silent.chain(loose).collect()
}

/// Every crate is under the one licence, which lets anyone host it.
pub(crate) fn licence(tree: &Tree) -> Vec<String> {
    let own = tree.manifests().filter(|(folder, file)| {
        ARROWS.iter().any(|(name, _)| name == folder)
            && !section(&file.text, "[package]").any(|l| l == "license.workspace = true")
    });
    let own = own.map(|(_, file)| format!("{}: does not take the workspace's licence", file.path));
    let root = tree.files.iter().filter(|f| f.path == "Cargo.toml");
    let other = root.filter(|f| {
        !section(&f.text, "[workspace.package]").any(|l| l == "license = \"Apache-2.0\"")
    });
    own.chain(other.map(|f| format!("{}: the licence is not Apache-2.0", f.path))).collect()
}

/// Calls `complain(folder, dependency, its line)` for every dependency of the four crates.
fn each_dependency(
    tree: &Tree,
    complain: impl Fn(&str, &str, &str) -> Option<String>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for (folder, file) in tree.manifests() {
        if !ARROWS.iter().any(|(name, _)| *name == folder) {
            continue;
        }
        for kind in ["[dependencies]", "[dev-dependencies]", "[build-dependencies]"] {
            for line in section(&file.text, kind) {
                let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
                let complaint = complain(folder, name, line);
                complaints.extend(complaint.map(|c| format!("{}: {c}", file.path)));
            }
        }
    }
    complaints
}

/// The `key = value` lines of one section.
fn section<'t>(text: &'t str, head: &'t str) -> impl Iterator<Item = &'t str> {
    let lines = text.lines().map(str::trim).skip_while(move |l| *l != head).skip(1);
    lines.take_while(|l| !l.starts_with('[')).filter(|l| !l.is_empty() && !l.starts_with('#'))
}
