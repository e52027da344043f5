//! The graphs and skills of a folder: `*.yaml`, and `skills/*.yaml` in it.
//!
//! Invariants:
//! - A name from outside is looked up among what was loaded; it never becomes a path.
//! - A file with errors stays in the library with its findings and cannot run.
//! - What a link leads to outside the folder is not read.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bundle::{Bundle, Catalog, Program, Source};
use crate::diagnostic::{Finding, Place, any_error, code};
use crate::document::Document;
use crate::graph::build::{Known, Names};
use crate::graph::compile::Compiled;
use crate::graph::nesting::{self, Graphs, Member};
use crate::skill::{self, Skill};
use crate::yaml;

/// One graph's file.
#[derive(Clone, Debug)]
pub struct LibraryGraph {
    /// As in the YAML; the file's name if it says none.
    pub name: String,
    /// As in the YAML.
    pub description: String,
    /// The file.
    pub source: Source,
    /// Errors and warnings, sorted by place.
    pub findings: Vec<Finding>,
    /// What runs; `None` if there is an error.
    pub program: Option<Arc<Program>>,
    /// The sources of the graphs inside it, by name.
    inside: BTreeMap<String, Source>,
}

/// One skill's file.
#[derive(Clone, Debug)]
pub struct LibrarySkill {
    /// As in the YAML; the file's name if it says none.
    pub name: String,
    /// The file.
    pub source: Source,
    /// Errors and warnings, sorted by place.
    pub findings: Vec<Finding>,
    /// `None` if there is an error.
    pub skill: Option<Arc<Skill>>,
}

/// What a folder holds.
#[derive(Clone, Debug, Default)]
pub struct Library {
    graphs: Vec<LibraryGraph>,
    skills: Vec<LibrarySkill>,
    /// About files that could not be read at all.
    findings: Vec<Finding>,
    aliases: crate::model::Aliases,
}

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

impl Library {
    /// Reads a folder. A folder that is not there holds nothing.
    #[must_use]
    pub fn load(folder: &Path, catalog: &Catalog) -> Self {
        let label = folder.file_name().map_or("graphs".into(), |name| name.to_string_lossy());
        Self::load_as(folder, &label, catalog)
    }

    /// A library of these texts, as one made of files would be.
    #[must_use]
    pub fn of(graphs: Vec<Source>, skills: Vec<Source>, catalog: &Catalog) -> Self {
        let mut library = Self { aliases: catalog.models.aliases().clone(), ..Self::default() };
        for source in skills {
            library.add_skill(source, catalog);
        }
        library.add_graphs(graphs, catalog);
        library
    }

    /// `label` stands for the folder in findings and bundles.
    fn load_as(folder: &Path, label: &str, catalog: &Catalog) -> Self {
        let mut findings = Vec::new();
        let mut good = |files: Vec<Result<Source, Finding>>| -> Vec<Source> {
            files.into_iter().filter_map(|file| file.map_err(|f| findings.push(f)).ok()).collect()
        };
        let skills = good(files(folder, &folder.join("skills"), &format!("{label}/skills")));
        let graphs = good(files(folder, folder, label));
        Self { findings, ..Self::of(graphs, skills, catalog) }
    }

    /// The graph of that name.
    #[must_use]
    pub fn graph(&self, name: &str) -> Option<&LibraryGraph> {
        self.graphs.iter().find(|graph| graph.name == name)
    }

    /// Every graph, by file name.
    #[must_use]
    pub fn graphs(&self) -> &[LibraryGraph] {
        &self.graphs
    }

    /// The skill of that name.
    #[must_use]
    pub fn skill(&self, name: &str) -> Option<&LibrarySkill> {
        self.skills.iter().find(|skill| skill.name == name)
    }

    /// Every skill, by file name.
    #[must_use]
    pub fn skills(&self) -> &[LibrarySkill] {
        &self.skills
    }

    /// Everything found, in files that load and in those that do not.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        let skills = self.skills.iter().flat_map(|skill| &skill.findings);
        let graphs = self.graphs.iter().flat_map(|graph| &graph.findings);
        self.findings.iter().chain(skills).chain(graphs)
    }

    /// What a run of this graph is to be pinned to: its source, those of the graphs inside it, of
    /// the skills they name and of the conversation's. `None` if the graph or that skill is unknown or does not load.
    #[must_use]
    pub fn bundle(&self, graph: &str, extra_skill: Option<&str>) -> Option<Bundle> {
        let graph = self.graph(graph)?;
        let program = graph.program.as_ref()?;
        let named = program.skills.keys().map(String::as_str);
        let skills = named
            .chain(extra_skill)
            .map(|name| {
                let skill = self.skill(name).filter(|skill| skill.skill.is_some())?;
                Some((name.to_owned(), skill.source.clone()))
            })
            .collect::<Option<_>>()?;
        let (graph, graphs) = (graph.source.clone(), graph.inside.clone());
        Some(Bundle { graph, graphs, skills, aliases: self.aliases.clone() })
    }

    fn add_skill(&mut self, source: Source, catalog: &Catalog) {
        let none = BTreeMap::new();
        let graphs = Graphs::none();
        let known = Known { catalog, skills: &none, graphs, names: Names::Checked };
        let (name, skill, mut findings) = match yaml::parse(&source.path, &source.text) {
            Ok(document) => {
                let (skill, findings) = skill::compile(&document, known);
                (text(&document, "/skill"), skill, findings)
            }
            Err(findings) => (None, None, findings),
        };
        let name = name.unwrap_or_else(|| stem(&source.path));
        let first = self.skill(&name).map(|skill| skill.source.path.clone());
        findings.extend(first.map(|first| taken(&source, "/skill", &name, &first)));
        let skill = skill.filter(|_| !any_error(&findings)).map(Arc::new);
        self.skills.push(LibrarySkill { name, source, findings, skill });
    }

    /// Graphs may name each other, so all are added at once.
    fn add_graphs(&mut self, sources: Vec<Source>, catalog: &Catalog) {
        let skills = self.known_skills();
        let (mut members, mut unread) = (Vec::new(), Vec::new());
        // Of two with one name the first is the one that others run.
        let mut named: BTreeMap<String, Source> = BTreeMap::new();
        for source in &sources {
            let (document, findings) = match yaml::parse(&source.path, &source.text) {
                Ok(document) => (Some(document), Vec::new()),
                Err(findings) => (None, findings),
            };
            let name = nesting::name_of(document.as_ref(), &source.path);
            named.entry(name.clone()).or_insert_with(|| source.clone());
            members.push(Member { name, document });
            unread.push(findings);
        }
        let compiled = nesting::compile_all(&members, catalog, &skills, Names::Checked);
        for (((source, member), compiled), unread) in
            sources.into_iter().zip(members).zip(compiled).zip(unread)
        {
            let compiled = compiled.unwrap_or_else(|| Compiled::unread(unread));
            self.add_graph(member.name, source, compiled, &named);
        }
    }

    fn add_graph(
        &mut self,
        name: String,
        source: Source,
        mut compiled: Compiled,
        named: &BTreeMap<String, Source>,
    ) {
        let first = self.graph(&name).map(|graph| graph.source.path.clone());
        let taken = first.map(|first| taken(&source, "/graph", &name, &first));
        compiled.findings.extend(taken);
        let inside = |name: &String| Some((name.clone(), named.get(name)?.clone()));
        let inside: BTreeMap<_, _> = compiled.graphs().filter_map(inside).collect();
        let graph = compiled.graph.take().filter(|_| !any_error(&compiled.findings));
        let program = graph.map(|graph| {
            let mut bundle = Bundle {
                graph: source.clone(),
                graphs: inside.clone(),
                skills: BTreeMap::new(),
                aliases: self.aliases.clone(),
            };
            let mut skills = BTreeMap::new();
            for name in compiled.skills() {
                if let Some(LibrarySkill { source, skill: Some(skill), .. }) = self.skill(name) {
                    bundle.skills.insert(name.clone(), source.clone());
                    skills.insert(name.clone(), skill.clone());
                }
            }
            Arc::new(Program { id: bundle.id(), graph, skills, aliases: bundle.aliases })
        });
        let Compiled { description, findings, .. } = compiled;
        self.graphs.push(LibraryGraph { name, description, source, findings, program, inside });
    }

    fn known_skills(&self) -> BTreeMap<String, Option<Arc<Skill>>> {
        // Of two with one name the first stands, as in `skill`.
        let skills = self.skills.iter().rev();
        skills.map(|skill| (skill.name.clone(), skill.skill.clone())).collect()
    }
}

/// Checks files and folders, each folder as a library of its own. A graph's file is checked with
/// the graphs and skills beside it.
#[must_use]
pub fn validate(paths: &[PathBuf], catalog: &Catalog) -> Validation {
    let mut validation = Validation::default();
    for path in paths {
        if path.is_dir() {
            validation.add(Library::load_as(path, &shown(path), catalog));
        } else {
            validate_file(path, catalog, &mut validation);
        }
    }
    crate::diagnostic::sort(&mut validation.findings);
    validation
}

fn validate_file(path: &Path, catalog: &Catalog, validation: &mut Validation) {
    let source = match read(path, &shown(path)) {
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
    let keys = yaml::parse(&source.path, &source.text)
        .map(|document| document.keys("").into_iter().map(str::to_owned).collect::<Vec<_>>());
    let has = |key: &str| keys.as_ref().is_ok_and(|keys| keys.iter().any(|k| k == key));
    if has("skill") {
        library.add_skill(source, catalog);
    } else if has("graph") || has("nodes") || keys.is_err() {
        for skill in files(folder, &folder.join("skills"), &shown(&parent.join("skills"))) {
            match skill {
                Ok(skill) => library.add_skill(skill, catalog),
                Err(finding) => library.findings.push(finding),
            }
        }
        // They are not what was asked about, and neither is what is wrong with them.
        let beside = files(folder, folder, &shown(folder)).into_iter().filter_map(Result::ok);
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
        library.findings.push(Finding::error(code::NOT_A_GRAPH, &source.path, place, message, fix));
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

/// The YAML files of a folder, by name; none if it is not there. What cannot be read, or lies
/// outside `root`, is a finding.
fn files(root: &Path, folder: &Path, label: &str) -> Vec<Result<Source, Finding>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![Err(unreadable(label, &error.to_string()))],
    };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| [".yaml", ".yml"].iter().any(|end| name.ends_with(end)))
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    let inside = |path: &Path| -> io::Result<bool> {
        Ok(path.canonicalize()?.starts_with(root.canonicalize()?))
    };
    names
        .iter()
        .map(|name| {
            let (path, shown) = (folder.join(name), format!("{label}/{name}"));
            match inside(&path) {
                Ok(true) => read(&path, &shown),
                Ok(false) => Err(unreadable(&shown, "it is a link that leads outside the folder")),
                Err(error) => Err(unreadable(&shown, &error.to_string())),
            }
        })
        .collect()
}

/// Reads one file, unless it is too large to be looked at.
fn read(path: &Path, shown: &str) -> Result<Source, Finding> {
    let failed = |error: io::Error| unreadable(shown, &error.to_string());
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > yaml::SIZE_LIMIT as u64 {
        let message = format!("the file has {size} bytes, more than {}", yaml::SIZE_LIMIT);
        let fix = "split it, or move data out of it";
        return Err(Finding::error(code::TOO_LARGE, shown, Place::START, message, fix));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    Ok(Source { path: shown.to_owned(), text })
}

fn unreadable(path: &str, why: &str) -> Finding {
    let fix = "it must be a readable UTF-8 file inside the folder";
    Finding::error(code::UNREADABLE, path, Place::START, format!("cannot be read: {why}"), fix)
}

fn taken(source: &Source, pointer: &str, name: &str, first: &str) -> Finding {
    let place = yaml::parse(&source.path, &source.text)
        .map_or(Place::START, |document| document.place(pointer));
    let message = format!("the name `{name}` is taken by {first}");
    Finding::error(code::DUPLICATE_NAME, &source.path, place, message, "choose another name")
}

fn file_name(path: &str) -> Option<&std::ffi::OsStr> {
    Path::new(path).file_name()
}

fn text(document: &Document, pointer: &str) -> Option<String> {
    document.value(pointer)?.as_str().map(str::to_owned)
}

fn stem(path: &str) -> String {
    Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().trim_end_matches('/').to_owned()
}
