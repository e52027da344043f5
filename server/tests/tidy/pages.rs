//! Rules over the pages: the front door is short and shows the whole house, every page is there in
//! both languages, and every link leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::tree::{SourceFile, Tree};

/// The pages that a newcomer reads first, each with the heading of its map.
const FRONT: &[(&str, &str)] = &[("README.md", "## Map"), ("README.zh.md", "## 目录结构")];

/// Most words of one of them.
const WORDS: usize = 900;

/// Pages that are kept in one language: what is promised names tests, and what changed is a log.
const ALONE: &[&str] = &["CHANGELOG.md", "engine/GUARANTEES.md"];

/// The front door can be read in one go.
pub(crate) fn short(tree: &Tree) -> Vec<String> {
    let front = FRONT.iter().filter_map(|(path, _)| tree.file(path));
    let long = front.map(|page| (page, words(&page.text))).filter(|(_, count)| *count > WORDS);
    long.map(|(page, count)| format!("{}: {count} words, {WORDS} are allowed", page.path)).collect()
}

/// The map in the front door has every folder of the root and every folder directly below a `src`,
/// and no other.
pub(crate) fn mapped(tree: &Tree) -> Vec<String> {
    let there = folders(tree);
    let mut complaints = Vec::new();
    for (path, heading) in FRONT {
        let Some(page) = tree.file(path) else { continue };
        let shown = map(&page.text, heading);
        // Folders that begin with a dot are tools' own: they may be on the map.
        let missing = there.iter().filter(|f| !f.starts_with('.') && !shown.contains(*f));
        complaints.extend(missing.map(|f| format!("{path}: the map does not show `{f}/`")));
        let gone = shown.iter().filter(|folder| !there.contains(*folder));
        complaints
            .extend(gone.map(|f| format!("{path}: the map shows `{f}/`, which is not there")));
    }
    complaints
}

/// Whoever reads Chinese finds every page too.
pub(crate) fn twins(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for page in pages(tree).filter(|page| !ALONE.contains(&&*page.path)) {
        let twin = match page.path.strip_suffix(".zh.md") {
            Some(name) => format!("{name}.md"),
            None => format!("{}.zh.md", page.path.trim_end_matches(".md")),
        };
        if tree.file(&twin).is_none() {
            complaints.push(format!("{}: there is no {twin}", page.path));
        }
    }
    complaints
}

/// What a page links to in this repository is there, the heading included.
pub(crate) fn linked(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for page in pages(tree) {
        for (line, target) in links(&page.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let complain = |what: &str| format!("{}:{line}: `{target}` {what}", page.path);
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let Some(path) = resolved(&page.path, path) else {
                complaints.push(complain("leads out of the repository"));
                continue;
            };
            let file = tree.file(&path);
            let has = |file: &SourceFile| anchors(&file.text).contains(heading);
            let is_named = heading.is_empty() || file.is_some_and(has);
            if file.is_none() && !tree.holds(&path) {
                complaints.push(complain("is not there"));
            } else if !is_named {
                complaints.push(complain("has no such heading"));
            }
        }
    }
    complaints
}

/// Pages, without those of tools.
fn pages(tree: &Tree) -> impl Iterator<Item = &SourceFile> {
    let is_page = |path: &str| Path::new(path).extension().is_some_and(|end| end == "md");
    let is_hidden = |path: &str| path.split('/').any(|part| part.starts_with('.'));
    tree.files.iter().filter(move |file| is_page(&file.path) && !is_hidden(&file.path))
}

/// As many as `wc -w` counts. Chinese has no spaces: three of its characters count as two words.
fn words(text: &str) -> usize {
    let han = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    let mark =
        |c: char| ('\u{3000}'..='\u{303f}').contains(&c) || ('\u{ff00}'..='\u{ffef}').contains(&c);
    let characters = text.chars().filter(|c| han(*c)).count();
    let rest: String = text.chars().map(|c| if han(c) || mark(c) { ' ' } else { c }).collect();
    rest.split_whitespace().count() + characters * 2 / 3
}

/// Folders of the root, and those directly below a `src` in one of them.
fn folders(tree: &Tree) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in &tree.files {
        let parts: Vec<&str> = file.path.split('/').collect();
        if let [top, _, ..] = parts[..] {
            found.insert(top.to_owned());
        }
        if let [top, "src", folder, _, ..] = parts[..] {
            found.insert(format!("{top}/src/{folder}"));
        }
    }
    found
}

/// The folders on a map. A line that begins with `NAME/` opens a folder. Below it, the entry `src/`
/// lists what is in its `src`, on deeper lines too; other entries are for the reader alone.
fn map(page: &str, heading: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let after = page.lines().skip_while(|line| *line != heading);
    let block = after.skip_while(|line| !line.starts_with("```")).skip(1);
    let (mut top, mut in_source) = ("", false);
    for line in block.take_while(|line| !line.starts_with("```")) {
        let mut names = line.split_whitespace().map_while(|word| word.strip_suffix('/')).peekable();
        match line.len() - line.trim_start().len() {
            0 => {
                (top, in_source) = (names.next().unwrap_or_default(), false);
                found.extend((!top.is_empty()).then(|| top.to_owned()));
            }
            2 => in_source = names.next_if_eq(&"src").is_some(),
            _ => {}
        }
        if in_source {
            found.extend(names.map(|name| format!("{top}/src/{name}")));
        }
    }
    found
}

/// Where links of a page lead, each with its line; code holds none.
fn links(page: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in text_lines(page) {
        // Of the parts between backticks every second one is code.
        for part in line.split('`').step_by(2) {
            let ends = part.match_indices("](").map(|(at, mark)| at + mark.len());
            let targets = ends.filter_map(|at| part[at..].split_once(')'));
            found.extend(targets.map(|(target, _)| (number, target)));
        }
    }
    found
}

/// What a link can name in a page: its headings, as they are written in an address.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    let mut found = BTreeSet::new();
    for (_, line) in text_lines(page).filter(|(_, line)| line.starts_with('#')) {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let name = heading.chars().filter(kept).collect::<String>().replace(' ', "-");
        let before: &mut usize = seen.entry(name.clone()).or_default();
        found.insert(if *before == 0 { name } else { format!("{name}-{before}") });
        *before += 1;
    }
    found
}

/// Lines outside of blocks of code, counted from 1.
fn text_lines(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    page.lines().enumerate().filter_map(move |(i, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        (!fence && !in_code).then_some((i + 1, line))
    })
}

/// A target as a path from the root; `None` if it leads out. An empty one is the page itself.
fn resolved(page: &str, target: &str) -> Option<String> {
    if target.is_empty() {
        return Some(page.to_owned());
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
