//! Files checked as they are given, without anything served.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Library;
use super::files::{Files, Room, files, read};
use super::guard;
use crate::bundle::{Catalog, Source};
use crate::diagnostic::{Finding, Place, any_error, code};

/// What [`validate`] found.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    /// Files that were checked, in order.
    pub files: Vec<String>,
    /// All findings, by file and place.
    pub findings: Vec<Finding>,
    /// The files' texts by path, for [`diagnostic::render`](crate::diagnostic::render).
    pub sources: BTreeMap<String, String>,
}

/// Checks files and folders, each folder as a library of its own. A graph's file is checked with
/// the graphs and skills beside it.
#[must_use]
pub fn validate(paths: &[PathBuf], catalog: &Catalog) -> Validation {
    let mut validation = Validation::default();
    for path in paths {
        if path.is_dir() {
            let files = Files::read_as(path, &shown(path), &catalog.limits.files);
            validation.add(Library::default().reload(files, catalog));
        } else {
            validate_file(path, catalog, &mut validation);
        }
    }
    crate::diagnostic::sort(&mut validation.findings);
    validation
}

fn validate_file(path: &Path, catalog: &Catalog, validation: &mut Validation) {
    let limits = &catalog.limits.files;
    let source = match read(path, &shown(path), limits) {
        Ok(source) => source,
        Err(finding) => {
            validation.files.push(shown(path));
            validation.findings.push(finding);
            return;
        }
    };
    let parent = path.parent().unwrap_or(Path::new(""));
    let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let mut library = Library { aliases: catalog.models.aliases().clone(), ..Library::default() };
    let document = guard::read_all(std::slice::from_ref(&source), limits).remove(0);
    let keys = document
        .as_ref()
        .map(|document| document.keys("").into_iter().map(str::to_owned).collect::<Vec<_>>());
    let has = |key: &str| keys.as_ref().is_ok_and(|keys| keys.iter().any(|k| k == key));
    if has("skill") {
        library.add_skill(source, document, catalog);
    } else if has("graph") || has("nodes") || keys.is_err() {
        let (skills, label) = (folder.join("skills"), shown(&parent.join("skills")));
        let mut room = Room::of(limits);
        for skill in files(folder, &skills, &label, &mut room) {
            match skill {
                Ok(skill) => {
                    let document = guard::read_all(std::slice::from_ref(&skill), limits).remove(0);
                    library.add_skill(skill, document, catalog);
                }
                Err(finding) => library.files.unread.push(finding),
            }
        }
        // They are not what was asked about, and neither is what is wrong with them.
        let beside = files(folder, folder, &shown(folder), &mut room);
        let beside = beside.into_iter().filter_map(Result::ok);
        let is_other = |other: &Source| file_name(&other.path) != file_name(&source.path);
        let path = source.path.clone();
        let mut graphs: Vec<Source> = beside.filter(is_other).chain([source.clone()]).collect();
        graphs.sort_by(|a, b| file_name(&a.path).cmp(&file_name(&b.path)));
        library.add_graphs(graphs, catalog);
        library.graphs.retain(|graph| graph.source.path == path);
        library.skills.clear();
    } else {
        let message = "this file is neither a graph nor a skill";
        let fix = "begin with `graph: NAME` or `skill: NAME`";
        let place = Place::START;
        library.files.unread.push(Finding::error(
            code::NOT_A_GRAPH,
            &source.path,
            place,
            message,
            fix,
        ));
        validation.files.push(source.path.clone());
        validation.sources.insert(source.path, source.text);
    }
    validation.add(library);
}

impl Validation {
    /// Whether any finding is an error.
    #[must_use]
    pub fn failed(&self) -> bool {
        any_error(&self.findings)
    }

    fn add(&mut self, library: Library) {
        self.findings.extend(library.findings().cloned());
        let skills = library.skills.into_iter().map(|skill| skill.source);
        for source in skills.chain(library.graphs.into_iter().map(|graph| graph.source)) {
            self.files.push(source.path.clone());
            self.sources.insert(source.path, source.text);
        }
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().trim_end_matches('/').to_owned()
}

fn file_name(path: &str) -> Option<&std::ffi::OsStr> {
    Path::new(path).file_name()
}
