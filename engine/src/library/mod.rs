//! The graphs and skills of a folder: `*.yaml`, and `skills/*.yaml` in it.
//!
//! Invariants:
//! - A name from outside is looked up among what was loaded; it never becomes a path.
//! - A file with errors stays in the library with its findings and cannot run.
//! - What a link leads to outside the folder is not read.

mod files;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use self::files::files;
pub use self::validate::{Validation, validate};
use crate::bundle::{Bundle, Catalog, Program, Source};
use crate::diagnostic::{Finding, Place, any_error, code};
use crate::document::Document;
use crate::graph::build::{Known, Names};
use crate::graph::compile::{self, Compiled};
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
        for source in graphs {
            library.add_graph(source, catalog);
        }
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

    /// What a run of this graph is to be pinned to: its source, the skills it names and the
    /// conversation's. `None` if the graph or that skill is unknown or does not load.
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
        Some(Bundle { graph: graph.source.clone(), skills, aliases: self.aliases.clone() })
    }

    fn add_skill(&mut self, source: Source, catalog: &Catalog) {
        let none = BTreeMap::new();
        let known = Known { catalog, skills: &none, names: Names::Checked };
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

    fn add_graph(&mut self, source: Source, catalog: &Catalog) {
        let skills = self.known_skills();
        let known = Known { catalog, skills: &skills, names: Names::Checked };
        let (compiled, name) = match yaml::parse(&source.path, &source.text) {
            Ok(document) => {
                let compiled = compile::compile(&document, known);
                (compiled, text(&document, "/graph"))
            }
            Err(findings) => (
                Compiled {
                    name: String::new(),
                    description: String::new(),
                    graph: None,
                    skills: BTreeSet::new(),
                    findings,
                },
                None,
            ),
        };
        let Compiled { description, graph, skills: named, mut findings, .. } = compiled;
        let name = name.unwrap_or_else(|| stem(&source.path));
        let first = self.graph(&name).map(|graph| graph.source.path.clone());
        findings.extend(first.map(|first| taken(&source, "/graph", &name, &first)));
        let graph = graph.filter(|_| !any_error(&findings));
        let program = graph.map(|graph| {
            let mut bundle = Bundle {
                graph: source.clone(),
                skills: BTreeMap::new(),
                aliases: self.aliases.clone(),
            };
            let mut pinned = BTreeMap::new();
            for name in &named {
                if let (Some(file), Some(Some(skill))) = (self.skill(name), skills.get(name)) {
                    bundle.skills.insert(name.clone(), file.source.clone());
                    pinned.insert(name.clone(), skill.clone());
                }
            }
            let aliases = self.aliases.clone();
            Arc::new(Program { id: bundle.id(), graph: Arc::new(graph), skills: pinned, aliases })
        });
        self.graphs.push(LibraryGraph { name, description, source, findings, program });
    }

    fn known_skills(&self) -> BTreeMap<String, Option<Arc<Skill>>> {
        // Of two with one name the first stands, as in `skill`.
        let skills = self.skills.iter().rev();
        skills.map(|skill| (skill.name.clone(), skill.skill.clone())).collect()
    }
}

fn taken(source: &Source, pointer: &str, name: &str, first: &str) -> Finding {
    let place = yaml::parse(&source.path, &source.text)
        .map_or(Place::START, |document| document.place(pointer));
    let message = format!("the name `{name}` is taken by {first}");
    Finding::error(code::DUPLICATE_NAME, &source.path, place, message, "choose another name")
}

fn text(document: &Document, pointer: &str) -> Option<String> {
    document.value(pointer)?.as_str().map(str::to_owned)
}

fn stem(path: &str) -> String {
    Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}
