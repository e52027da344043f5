//! Rules over what is promised in words: `engine/GUARANTEES.md` names the tests that show it, and
//! both READMEs list every key below `limits`.

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
const READMES: [&str; 2] = ["README.md", "README.zh.md"];

/// Every key below `limits` in `exile.yaml` has a row in the table of limits.
pub(crate) fn limits_listed(tree: &Tree) -> Vec<String> {
    let keys: Vec<&str> = tree
        .files
        .iter()
        .filter(|file| file.path == LIMITS)
        .flat_map(|file| file.text.lines())
        .filter_map(|line| line.strip_prefix("    pub ")?.split_once(": Option<"))
        .map(|(key, _)| key)
        .collect();
    let mut complaints = Vec::new();
    for readme in tree.files.iter().filter(|file| READMES.contains(&&*file.path)) {
        let rows = readme.text.lines().filter(|line| line.starts_with("| `"));
        let first: String = rows.filter_map(|row| row.split('|').nth(1)).collect();
        let missing = keys.iter().filter(|key| !first.contains(&format!("`{key}`")));
        let say = |key| format!("{}: the table of limits has no row for `{key}`", readme.path);
        complaints.extend(missing.map(say));
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
