//! Rules over the modules of a crate: how many there are on top, which way their arrows point, and
//! that no two public types share a name.
//!
//! Read are `crate::x` paths, and `super::x` where `super` is the crate, in shipped code: comments,
//! `tests.rs` files and `#[cfg(test)] mod … { … }`, which stands last in a file, may name anything.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{SourceFile, Tree};

/// Folders with the sources of crates.
const CRATES: &[&str] = &["engine", "nodes", "plugins", "server"];

/// The crate whose modules have an order, which the table of its `lib.rs` is.
const ORDERED: &str = "server/src/";

/// Most entries of the ordered crate beside `main.rs` and `lib.rs`.
const MOST: usize = 12;

/// Modules that lead to each other, with the reason. A circle that is gone is taken off this list.
const CIRCLES: &[Circle] = &[(
    "engine",
    &["bundle", "graph", "journal", "library", "model", "node", "run", "schema", "skill", "span"],
    "its modules have not been housed yet",
)];

/// Names that several public types of a crate share. One that is shared no more is taken off this
/// list.
const TWINS: &[Twins] = &[(
    "engine",
    &[
        "Answered", "Asked", "Limits", "Line", "Names", "Needs", "Place", "Question", "Retry",
        "Scope", "Size",
    ],
)];

/// A crate, its modules that lead to each other in the order of the alphabet, and why they may.
pub(crate) type Circle = (&'static str, &'static [&'static str], &'static str);

/// A crate and names that several of its public types share.
pub(crate) type Twins = (&'static str, &'static [&'static str]);

/// Whoever opens the sources of the server sees a dozen names.
pub(crate) fn few_on_top(tree: &Tree) -> Vec<String> {
    let below = tree.files.iter().filter_map(|file| file.path.strip_prefix(ORDERED));
    let mut top: BTreeSet<&str> = below.filter_map(|path| path.split('/').next()).collect();
    top.remove("main.rs");
    top.remove("lib.rs");
    if top.len() <= MOST {
        return Vec::new();
    }
    let names = top.iter().copied().collect::<Vec<_>>().join(", ");
    vec![format!("{ORDERED}: {} entries, {MOST} are allowed: {names}", top.len())]
}

/// A module of the server names those that stand below it in the table of `lib.rs`, and no others.
pub(crate) fn ordered(tree: &Tree) -> Vec<String> {
    let path = format!("{ORDERED}lib.rs");
    let Some(lib) = tree.files.iter().find(|file| file.path == path) else { return Vec::new() };
    let rows = lib.text.lines().filter_map(|line| line.strip_prefix("//! | [`")?.split('`').next());
    let order: Vec<&str> = rows.collect();
    let place = |name: &str| order.iter().position(|row| *row == name);
    let modules = modules(tree, "server");
    let mut complaints = Vec::new();
    for module in modules.iter().filter(|module| place(module).is_none()) {
        complaints.push(format!("{path}: the table has no row for `{module}`"));
    }
    for arrow in arrows(tree, "server", &modules) {
        if let (Some(from), Some(to)) = (place(&arrow.from), place(&arrow.to))
            && from > to
        {
            let Arrow { from, to, file } = arrow;
            complaints.push(format!("{file}: `{from}` may not name `{to}`, which stands above it"));
        }
    }
    complaints
}

/// The modules of a crate lead to each other one way.
pub(crate) fn circles(tree: &Tree) -> Vec<String> {
    circles_but(tree, CIRCLES)
}

/// The same, but for known ones.
pub(crate) fn circles_but(tree: &Tree, known: &[Circle]) -> Vec<String> {
    let mut found = BTreeSet::new();
    for name in CRATES {
        let modules = modules(tree, name);
        let mut reached: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for arrow in arrows(tree, name, &modules) {
            reached.entry(arrow.from).or_default().insert(arrow.to);
        }
        close(&mut reached);
        let leads = |from: &str, to: &str| reached.get(from).is_some_and(|to_| to_.contains(to));
        for module in modules.iter().filter(|module| leads(module, module)) {
            let both = |other: &&String| leads(module, other) && leads(other, module);
            let circle: Vec<String> = modules.iter().filter(both).cloned().collect();
            found.insert((*name, circle));
        }
    }
    let is = |k: &Circle, name: &str, circle: &[String]| k.0 == name && circle.iter().eq(k.1);
    let new = found.iter().filter(|(name, circle)| !known.iter().any(|k| is(k, name, circle)));
    let new = new.map(|(name, circle)| format!("{name}/src: a circle of {}", circle.join(", ")));
    let gone = known.iter().filter(|k| !found.iter().any(|(name, circle)| is(k, name, circle)));
    let gone = gone.map(|k| format!("{}/src: no circle is {} any more", k.0, k.1.join(", ")));
    new.chain(gone).collect()
}

/// Whoever reads the name of a public type knows which one is meant.
pub(crate) fn one_name_each(tree: &Tree) -> Vec<String> {
    one_name_each_but(tree, TWINS)
}

/// The same, but for known names.
pub(crate) fn one_name_each_but(tree: &Tree, known: &[Twins]) -> Vec<String> {
    let mut complaints = Vec::new();
    for name in CRATES {
        let known = known.iter().find(|(of, _)| of == name).map_or(&[][..], |(_, names)| names);
        let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for file in sources(tree, name) {
            for defined in shipped(file).lines().filter_map(public_type) {
                places.entry(defined.to_owned()).or_default().push(&file.path);
            }
        }
        places.retain(|_, files| files.len() > 1);
        let new = places.iter().filter(|(twin, _)| !known.contains(&twin.as_str()));
        let new = new.map(|(twin, at)| format!("{}: `{twin}` names several types", at.join(", ")));
        let gone = known.iter().filter(|twin| !places.contains_key(**twin));
        let gone = gone.map(|twin| format!("{name}/src: `{twin}` names one type by now"));
        complaints.extend(new.chain(gone));
    }
    complaints
}

/// That code of one module names another.
struct Arrow {
    from: String,
    to: String,
    file: String,
}

/// The shipped files of a crate.
fn sources<'t>(tree: &'t Tree, name: &str) -> impl Iterator<Item = &'t SourceFile> {
    let folder = format!("{name}/src/");
    tree.shipped().filter(move |file| file.path.starts_with(&folder))
}

/// The modules on top of a crate.
fn modules(tree: &Tree, name: &str) -> BTreeSet<String> {
    let modules = sources(tree, name).map(|file| module_of(&file.path));
    modules.filter(|module| !matches!(*module, "main" | "lib")).map(str::to_owned).collect()
}

/// The module on top that a file belongs to.
fn module_of(path: &str) -> &str {
    let top = path.split('/').nth(2).unwrap_or_default();
    top.strip_suffix(".rs").unwrap_or(top)
}

/// Each arrow between modules, once a file.
fn arrows(tree: &Tree, name: &str, modules: &BTreeSet<String>) -> Vec<Arrow> {
    let mut arrows = Vec::new();
    for file in sources(tree, name) {
        let from = module_of(&file.path);
        let parts = file.path.split('/').count();
        let is_module = parts == 3 || (parts == 4 && file.path.ends_with("/mod.rs"));
        let code = shipped(file);
        let mut named = named_after(&code, "crate::");
        if is_module {
            named.extend(named_after(&code, "super::"));
        }
        for to in named.into_iter().filter(|to| to != from && modules.contains(to)) {
            if modules.contains(from) {
                arrows.push(Arrow { from: from.to_owned(), to, file: file.path.clone() });
            }
        }
    }
    arrows
}

/// The names that follow `root`, one or a list in braces.
fn named_after(code: &str, root: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let first = |text: &str| text.trim_start().split(|c| !part(c)).next().unwrap_or("").to_owned();
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        let before = &code[..at];
        if before.ends_with(part) || before.ends_with(':') {
            continue;
        }
        let rest = &code[at + root.len()..];
        match rest.strip_prefix('{') {
            Some(list) => named.extend(outer_items(list).map(first)),
            None => _ = named.insert(first(rest)),
        }
    }
    named
}

/// The items of a list in braces, up to its end; those of lists inside it belong to one item.
fn outer_items(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    let mut end = list.len();
    let mut cuts = Vec::new();
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                end = at;
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => cuts.push(at),
            _ => {}
        }
    }
    let begins = std::iter::once(0).chain(cuts.clone().into_iter().map(|at| at + 1));
    begins.zip(cuts.into_iter().chain([end])).map(|(from, to)| &list[from..to])
}

/// Adds what can be reached by several arrows.
fn close(reached: &mut BTreeMap<String, BTreeSet<String>>) {
    loop {
        let mut grown = false;
        for from in reached.keys().cloned().collect::<Vec<_>>() {
            let next = reached[&from].iter().filter_map(|to| reached.get(to)).flatten();
            let next: BTreeSet<String> = next.cloned().collect();
            let known = reached.entry(from).or_default();
            let before = known.len();
            known.extend(next);
            grown |= known.len() > before;
        }
        if !grown {
            return;
        }
    }
}

/// The code of a file without its tests.
fn shipped(file: &SourceFile) -> String {
    let code = file.code();
    let tests = code.match_indices("#[cfg(test)]\nmod ").find(|(at, _)| {
        let line = code[*at..].lines().nth(1).unwrap_or_default();
        line.trim_end().ends_with('{')
    });
    tests.map_or(code.clone(), |(at, _)| code[..at].to_owned())
}

/// The name of the public type that a line begins.
fn public_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let kinds = ["struct ", "enum ", "trait "];
    let rest = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}
