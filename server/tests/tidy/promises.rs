//! Rules over what is promised in words: `engine/GUARANTEES.md` names the tests that show it, and
//! the pages list every key below `limits`, every event of a stream, and everything that an
//! expression can name.

use std::collections::BTreeSet;

use super::tree::Tree;

const PAPER: &str = "engine/GUARANTEES.md";

/// Every row of a table ends with tests, and every one of them exists.
pub(crate) fn tested(tree: &Tree) -> Vec<String> {
    let tests: BTreeSet<&str> = tree.rust().flat_map(|file| tests(&file.text)).collect();
    let papers = tree.files.iter().filter(|file| file.path == PAPER);
    let mut complaints = Vec::new();
    for (number, row) in papers.flat_map(|paper| paper.text.lines().enumerate()) {
        let Some(cell) = last_cell(row) else { continue };
        let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        let place = format!("{PAPER}:{}", number + 1);
        if named.is_empty() {
            complaints.push(format!("{place}: the row names no test"));
        }
        let missing = named.iter().filter(|name| !tests.contains(**name));
        complaints.extend(missing.map(|name| format!("{place}: there is no test `{name}`")));
    }
    complaints
}

const LIMITS: &str = "server/src/config/limits.rs";
const CONFIGURATION: [&str; 2] = ["server/CONFIGURATION.md", "server/CONFIGURATION.zh.md"];

/// Every key below `limits` in `exile.yaml` has a row in the table of limits.
pub(crate) fn limits_listed(tree: &Tree) -> Vec<String> {
    let source = tree.file(LIMITS).map_or("", |file| &file.text);
    let keys = source
        .lines()
        .filter_map(|line| line.strip_prefix("    pub ")?.split_once(": Option<"))
        .map(|(key, _)| key);
    let keys: Vec<&str> = keys.collect();
    let mut complaints = Vec::new();
    for page in CONFIGURATION.iter().filter_map(|path| tree.file(path)) {
        let rows = page.text.lines().filter(|line| line.starts_with("| `"));
        let first: String = rows.filter_map(|row| row.split('|').nth(1)).collect();
        let missing = keys.iter().filter(|key| !first.contains(&format!("`{key}`")));
        let say = |key| format!("{}: the table of limits has no row for `{key}`", page.path);
        complaints.extend(missing.map(say));
    }
    complaints
}

const EVENTS: &str = "engine/src/run/event.rs";
const STREAM: [&str; 2] = ["server/EVENTS.md", "server/EVENTS.zh.md"];

/// Every kind of event has a row with all its fields.
pub(crate) fn events_listed(tree: &Tree) -> Vec<String> {
    let source = tree.file(EVENTS).map_or("", |file| &file.text);
    let kinds = source.split_once("KINDS: &[Kind] = &[").map_or("", |(_, after)| after);
    let kinds = kinds.split_once("\n];").map_or("", |(kinds, _)| kinds);
    let calls = kinds.split("kind(").flat_map(|part| part.split("last(")).skip(1);
    let mut complaints = Vec::new();
    for mut texts in calls.map(|call| call.split('"').skip(1).step_by(2)) {
        let Some(name) = texts.next() else { continue };
        // What it is about, then its fields.
        let fields: Vec<&str> = texts.skip(1).collect();
        for page in STREAM.iter().filter_map(|path| tree.file(path)) {
            let begins = format!("| `{name}` |");
            let row = page.text.lines().find(|line| line.starts_with(&begins));
            let Some(row) = row else {
                complaints.push(format!("{}: no row tells of `{name}`", page.path));
                continue;
            };
            let missing = fields.iter().filter(|field| !row.contains(&format!("`{field}`")));
            let say = |field| format!("{}: `{name}` has no field `{field}`", page.path);
            complaints.extend(missing.map(say));
        }
    }
    complaints
}

/// Tables of what an expression can name.
const LANGUAGE: [&str; 3] =
    ["engine/src/expr/filters/mod.rs", "engine/src/expr/checks.rs", "engine/src/expr/functions.rs"];
const GRAPHS: [&str; 2] = ["graphs/README.md", "graphs/README.zh.md"];

/// Every filter, test and function of expressions is told to those who write graphs.
pub(crate) fn language_listed(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for table in LANGUAGE.iter().filter_map(|path| tree.file(path)) {
        let rows = table.text.split_once("const TABLE").map_or("", |(_, after)| after);
        let rows = rows.split_once("];").map_or("", |(rows, _)| rows);
        // Rows stand after a space or a bracket; calls in them stand after their names.
        let begins = rows.match_indices("(\"").filter(|(at, _)| rows[..*at].ends_with([' ', '[']));
        let names = begins.filter_map(|(at, mark)| rows[at + mark.len()..].split('"').next());
        for name in names {
            for page in GRAPHS.iter().filter_map(|path| tree.file(path)) {
                let forms = [format!("`{name}`"), format!("`{name}(")];
                if !forms.iter().any(|form| page.text.contains(form)) {
                    complaints.push(format!("{}: says nothing of `{name}`", page.path));
                }
            }
        }
    }
    complaints
}

/// The last cell of a row that is neither a table's head nor the line below it.
fn last_cell(line: &str) -> Option<&str> {
    let cell = line.strip_prefix('|')?.strip_suffix('|')?.rsplit('|').next()?.trim();
    (cell != "Test" && !cell.starts_with("---")).then_some(cell)
}

/// Names of functions below a test attribute.
fn tests(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if !(line.starts_with("#[test]") || line.starts_with("#[tokio::test")) {
            continue;
        }
        let signature = lines.by_ref().find(|line| !line.starts_with('#'));
        let name = signature.and_then(|line| line.split_once("fn ")?.1.split('(').next());
        found.extend(name);
    }
    found
}
