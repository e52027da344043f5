//! What goes on serving when a file does not load any more.
//!
//! Invariants:
//! - What loads now comes first: nothing older stands in the way of its name.
//! - One name is served once.
//! - What never loaded is not served.

use std::collections::BTreeSet;

use super::{LibraryGraph, LibrarySkill};
use crate::bundle::Source;
use crate::diagnostic::Finding;

/// A graph or a skill: its newest file, and what is served.
pub(super) trait Entry: Sized {
    /// What others call it.
    fn name(&self) -> &str;
    /// Its newest file and what was found there.
    fn file(&self) -> (&Source, &[Finding]);
    /// Whether anything is served, be it the newest file or an older one.
    fn serves(&self) -> bool;
    /// The same name serving the same, beside another newest file.
    fn beside(&self, source: &Source, findings: &[Finding]) -> Self;

    /// Where the file is.
    fn path(&self) -> &str {
        &self.file().0.path
    }
}

impl Entry for LibraryGraph {
    fn name(&self) -> &str {
        &self.name
    }

    fn file(&self) -> (&Source, &[Finding]) {
        (&self.source, &self.findings)
    }

    fn serves(&self) -> bool {
        self.program.is_some()
    }

    fn beside(&self, source: &Source, findings: &[Finding]) -> Self {
        Self { source: source.clone(), findings: findings.to_vec(), ..self.clone() }
    }
}

impl Entry for LibrarySkill {
    fn name(&self) -> &str {
        &self.name
    }

    fn file(&self) -> (&Source, &[Finding]) {
        (&self.source, &self.findings)
    }

    fn serves(&self) -> bool {
        self.skill.is_some()
    }

    fn beside(&self, source: &Source, findings: &[Finding]) -> Self {
        Self { source: source.clone(), findings: findings.to_vec(), ..self.clone() }
    }
}

/// The entry of that name; of several the one that serves, else the first.
pub(super) fn named<'e, E: Entry>(entries: &'e [E], name: &str) -> Option<&'e E> {
    let mut named = entries.iter().filter(|entry| entry.name() == name);
    named.clone().find(|entry| entry.serves()).or_else(|| named.next())
}

/// Lets those of `entries`, compiled from the newest files, that do not load serve what they served
/// in `previous`. A file that exists but cannot be read is one that does not load.
pub(super) fn keep<E: Entry>(entries: &mut Vec<E>, previous: &[E], unread: &[Finding]) {
    let previous: Vec<&E> = previous.iter().filter(|last| last.serves()).collect();
    for last in &previous {
        let here = entries.iter().any(|entry| entry.path() == last.path());
        let finding = unread.iter().find(|finding| covers(&finding.path, last.path()));
        if let Some(finding) = finding.filter(|_| !here && !serves(entries, last.name())) {
            entries.push(last.beside(last.file().0, std::slice::from_ref(finding)));
        }
    }
    entries.sort_by(|a, b| a.path().cmp(b.path()));
    let paths: BTreeSet<String> = entries.iter().map(|entry| entry.path().to_owned()).collect();
    for at in 0..entries.len() {
        let entry = &entries[at];
        // The same file; or one that has moved and was broken on the way.
        let same = |last: &&&E| last.path() == entry.path();
        let moved = |last: &&&E| last.name() == entry.name() && !paths.contains(last.path());
        let last = previous.iter().find(same).or_else(|| previous.iter().find(moved));
        if let Some(last) = last.filter(|last| !entry.serves() && !serves(entries, last.name())) {
            let (source, findings) = entry.file();
            entries[at] = last.beside(source, findings);
        }
    }
}

fn serves<E: Entry>(entries: &[E], name: &str) -> bool {
    entries.iter().any(|entry| entry.serves() && entry.name() == name)
}

/// Whether `path` is `file`, or lies in it.
fn covers(file: &str, path: &str) -> bool {
    path.strip_prefix(file).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
