//! The graphs and skills of a folder: `*.yaml`, and `skills/*.yaml` in it.
//!
//! Invariants:
//! - A name from outside is looked up among what was loaded; it never becomes a path.
//! - A file with errors stays in the library with its findings. It does not serve: what it last
//!   served does, if the library was reloaded (`reload.rs`).
//! - What a link leads to outside the folder is not read.

mod approvals;
mod files;
pub(crate) mod guard;
mod reload;
mod validate;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

pub use self::files::Files;
pub use self::validate::{Validation, validate};
use crate::bundle::{Bundle, Catalog, Program, Source};
use crate::diagnostic::{Finding, Place, any_error, code};
use crate::document::Document;
use crate::graph::Graph;
use crate::graph::build::{Known, Names};
use crate::graph::compile::Compiled;
use crate::graph::nesting::{self, Graphs, Member};
use crate::limits::Limits;
use crate::skill::{self, Skill};
use crate::yaml;

/// One graph's file.
#[derive(Clone, Debug)]
pub struct LibraryGraph {
    /// As in the YAML; the file's name if it says none.
    pub name: String,
    /// As in the YAML.
    pub description: String,
    /// The newest file.
    pub source: Source,
    /// Errors and warnings of the newest file, sorted by place.
    pub findings: Vec<Finding>,
    /// What runs: the newest file, or the last one that loaded; `None` if none did.
    pub program: Option<Arc<Program>>,
    /// What `program` is made of; a run of it is pinned to this.
    bundle: Option<Arc<Bundle>>,
}

/// One skill's file.
#[derive(Clone, Debug)]
pub struct LibrarySkill {
    /// As in the YAML; the file's name if it says none.
    pub name: String,
    /// The newest file.
    pub source: Source,
    /// Errors and warnings of the newest file, sorted by place.
    pub findings: Vec<Finding>,
    /// Made of the newest file, or of the last one that loaded; `None` if none did.
    pub skill: Option<Arc<Skill>>,
    /// What `skill` is made of.
    served: Option<Source>,
}

/// What a folder holds.
#[derive(Clone, Debug, Default)]
pub struct Library {
    graphs: Vec<LibraryGraph>,
    skills: Vec<LibrarySkill>,
    files: Files,
    aliases: crate::model::Aliases,
    /// What `approvals.rs` read, once somebody asked.
    approvals: OnceLock<Vec<String>>,
}

impl LibraryGraph {
    /// Whether what runs is older than the file.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.program.is_some() && any_error(&self.findings)
    }
}

impl LibrarySkill {
    /// Whether what is used is older than the file.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.skill.is_some() && any_error(&self.findings)
    }
}

impl Library {
    /// Reads a folder. A folder that is not there holds nothing.
    #[must_use]
    pub fn load(folder: &Path, catalog: &Catalog) -> Self {
        Self::default().reload(Files::read(folder, &catalog.limits.files), catalog)
    }

    /// A library of these texts, as one made of files would be.
    #[must_use]
    pub fn of(graphs: Vec<Source>, skills: Vec<Source>, catalog: &Catalog) -> Self {
        Self::default().reload(Files { graphs, skills, unread: Vec::new() }, catalog)
    }

    /// The library of a server that begins: what can be checked at once. The rest is found as
    /// `not_checked_yet` and does not serve until [`reload`](Self::reload) has looked at it.
    #[must_use]
    pub fn begin(files: Files, catalog: &Catalog) -> Self {
        let mut limits = Limits::clone(&catalog.limits);
        limits.files = limits.files.at_start();
        let hasty = Catalog { limits: Arc::new(limits), ..catalog.clone() };
        Self::default().reload(files, &hasty)
    }

    /// Whether there are files that [`begin`](Self::begin) has not looked at.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.findings().any(|finding| finding.code == code::NOT_CHECKED_YET)
    }

    /// The library after its files have become these. What loads serves. A file that does not load
    /// leaves what it last served, beside the findings of what it is now; a file that is gone takes
    /// its graph or skill along.
    #[must_use]
    pub fn reload(&self, files: Files, catalog: &Catalog) -> Self {
        let aliases = catalog.models.aliases().clone();
        let mut library = Self { aliases, files: files.clone(), ..Self::default() };
        let documents = guard::read_all(&files.skills, &catalog.limits.files);
        for (source, document) in files.skills.into_iter().zip(documents) {
            library.add_skill(source, document, catalog);
        }
        reload::keep(&mut library.skills, &self.skills, &files.unread);
        library.add_graphs(files.graphs, catalog);
        reload::keep(&mut library.graphs, &self.graphs, &files.unread);
        library
    }

    /// What it is made of.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The graph of that name; of several the one that serves, else the first.
    #[must_use]
    pub fn graph(&self, name: &str) -> Option<&LibraryGraph> {
        reload::named(&self.graphs, name)
    }

    /// Every graph, by file name.
    #[must_use]
    pub fn graphs(&self) -> &[LibraryGraph] {
        &self.graphs
    }

    /// The skill of that name; of several the one that serves, else the first.
    #[must_use]
    pub fn skill(&self, name: &str) -> Option<&LibrarySkill> {
        reload::named(&self.skills, name)
    }

    /// Every skill, by file name.
    #[must_use]
    pub fn skills(&self) -> &[LibrarySkill] {
        &self.skills
    }

    /// The skills of a graph that serve although their files do not load any more.
    pub fn stale_skills<'l>(
        &'l self,
        graph: &'l LibraryGraph,
    ) -> impl Iterator<Item = &'l LibrarySkill> {
        let names = graph.program.iter().flat_map(|program| program.skills.keys());
        names.filter_map(|name| self.skill(name)).filter(|skill| skill.is_stale())
    }

    /// Everything found, in files that load and in those that do not.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        let skills = self.skills.iter().flat_map(|skill| &skill.findings);
        let graphs = self.graphs.iter().flat_map(|graph| &graph.findings);
        self.files.unread.iter().chain(skills).chain(graphs)
    }

    /// What a run of this graph is to be pinned to: its source, those of the graphs inside it, the
    /// skills they name and the conversation's. `None` if the graph or that skill is unknown or does
    /// not serve.
    #[must_use]
    pub fn bundle(&self, graph: &str, extra_skill: Option<&str>) -> Option<Bundle> {
        let mut bundle = Bundle::clone(self.graph(graph)?.bundle.as_ref()?);
        // A skill that the graph names too is in it already, as the graph was compiled with.
        if let Some(name) = extra_skill.filter(|name| !bundle.skills.contains_key(*name)) {
            bundle.skills.insert(name.to_owned(), self.skill(name)?.served.clone()?);
        }
        Some(bundle)
    }

    fn add_skill(
        &mut self,
        source: Source,
        document: Result<Document, Vec<Finding>>,
        catalog: &Catalog,
    ) {
        let none = BTreeMap::new();
        let graphs = Graphs::none();
        let known = Known { catalog, skills: &none, graphs, names: Names::Checked };
        let (name, skill, mut findings) = match document {
            Ok(document) => {
                let compiled = guard::guarded(&source.path, || skill::compile(&document, known));
                let (skill, findings) = compiled.unwrap_or_else(|findings| (None, findings));
                (text(&document, "/skill"), skill, findings)
            }
            Err(findings) => (None, None, findings),
        };
        let name = name.unwrap_or_else(|| stem(&source.path));
        let first = self.skill(&name).map(|skill| skill.source.path.clone());
        findings.extend(first.map(|first| taken(&source, "/skill", &name, &first)));
        let skill = skill.filter(|_| !any_error(&findings)).map(Arc::new);
        let served = skill.is_some().then(|| source.clone());
        self.skills.push(LibrarySkill { name, source, findings, skill, served });
    }

    /// Graphs may name each other, so all are added at once.
    fn add_graphs(&mut self, sources: Vec<Source>, catalog: &Catalog) {
        let skills = self.known_skills();
        let (mut members, mut unread) = (Vec::new(), Vec::new());
        // Of two with one name the first is the one that others run.
        let mut named: BTreeMap<String, Source> = BTreeMap::new();
        let documents = guard::read_all(&sources, &catalog.limits.files);
        for (source, document) in sources.iter().zip(documents) {
            let (document, findings) = match document {
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
        let graph = compiled.graph.take().filter(|_| !any_error(&compiled.findings));
        let pin = |graph| self.pin(source.clone(), graph, &compiled, named);
        let (bundle, program) = graph.map(pin).unzip();
        let Compiled { description, findings, .. } = compiled;
        self.graphs.push(LibraryGraph { name, description, source, findings, program, bundle });
    }

    /// What a graph, the graphs inside it and the skills they name are now.
    fn pin(
        &self,
        source: Source,
        graph: Arc<Graph>,
        compiled: &Compiled,
        named: &BTreeMap<String, Source>,
    ) -> (Arc<Bundle>, Arc<Program>) {
        let aliases = self.aliases.clone();
        let inside = |name: &String| Some((name.clone(), named.get(name)?.clone()));
        let graphs = compiled.graphs().filter_map(inside).collect();
        let mut bundle = Bundle { graph: source, graphs, skills: BTreeMap::new(), aliases };
        let mut skills = BTreeMap::new();
        for name in compiled.skills() {
            if let Some(LibrarySkill { skill: Some(skill), served: Some(served), .. }) =
                self.skill(name)
            {
                bundle.skills.insert(name.clone(), served.clone());
                skills.insert(name.clone(), skill.clone());
            }
        }
        let aliases = bundle.aliases.clone();
        let program = Program { id: bundle.id(), graph, skills, aliases };
        (Arc::new(bundle), Arc::new(program))
    }

    fn known_skills(&self) -> BTreeMap<String, Option<Arc<Skill>>> {
        let one = |file: &LibrarySkill| {
            let skill = self.skill(&file.name).and_then(|file| file.skill.clone());
            (file.name.clone(), skill)
        };
        self.skills.iter().map(one).collect()
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
