//! What the log says of an edit.

use exile_engine::diagnostic::Finding;
use exile_engine::library::{Library, LibraryGraph, LibrarySkill};

/// One line of the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Something serves as its file says.
    Good(String),
    /// Something does not.
    Bad(String),
}

/// A graph or a skill, as far as the log goes.
struct Seen<'l> {
    what: &'static str,
    name: &'l str,
    path: &'l str,
    /// Another one: other content.
    version: Option<&'l str>,
    findings: &'l [Finding],
}

impl<'l> From<&'l LibraryGraph> for Seen<'l> {
    fn from(graph: &'l LibraryGraph) -> Self {
        Self {
            what: "graph",
            name: &graph.name,
            path: &graph.source.path,
            version: graph.program.as_ref().map(|program| &*program.id.0),
            findings: &graph.findings,
        }
    }
}

impl<'l> From<&'l LibrarySkill> for Seen<'l> {
    fn from(skill: &'l LibrarySkill) -> Self {
        Self {
            what: "skill",
            name: &skill.name,
            path: &skill.source.path,
            version: skill.skill.as_ref().map(|_| &*skill.source.text),
            findings: &skill.findings,
        }
    }
}

impl Seen<'_> {
    fn error(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.is_error())
    }

    /// What is new about it.
    fn since(&self, before: Option<&Self>) -> Option<Change> {
        let Self { what, name, .. } = self;
        let Some(error) = self.error() else {
            let same = before.is_some_and(|b| b.version == self.version && b.error().is_none());
            return (!same).then(|| Change::Good(format!("{what} `{name}` serves as edited")));
        };
        if before.is_some_and(|before| before.findings == self.findings) {
            return None;
        }
        let instead = match self.version {
            Some(_) => "goes on with its last good version",
            None => "does not serve",
        };
        Some(Change::Bad(format!("{what} `{name}` {instead}: {error}")))
    }
}

/// What is new in `after`.
pub(super) fn between(before: &Library, after: &Library) -> Vec<Change> {
    let mut changes = Vec::new();
    let old: Vec<Seen<'_>> = all(before).collect();
    let new: Vec<Seen<'_>> = all(after).collect();
    for seen in &new {
        let same = |other: &&Seen<'_>| other.what == seen.what && other.path == seen.path;
        changes.extend(seen.since(old.iter().find(same)));
    }
    let here = |gone: &Seen<'_>| new.iter().any(|s| (s.what, s.name) == (gone.what, gone.name));
    for gone in old.iter().filter(|gone| !here(gone)) {
        changes
            .push(Change::Good(format!("{} `{}` is gone, as its file is", gone.what, gone.name)));
    }
    let unread = after.files().unread.iter().filter(|f| !before.files().unread.contains(f));
    let known = |finding: &Finding| new.iter().any(|seen| seen.findings.contains(finding));
    changes.extend(unread.filter(|f| !known(f)).map(|f| Change::Bad(f.to_string())));
    changes
}

fn all(library: &Library) -> impl Iterator<Item = Seen<'_>> {
    library.skills().iter().map(Seen::from).chain(library.graphs().iter().map(Seen::from))
}
