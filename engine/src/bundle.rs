//! What a run is pinned to: the sources of its graph, of the graphs inside it and of its skills,
//! and the models its aliases stood
//! for, under one content hash.
//!
//! Invariants:
//! - The same content gives the same bytes and so the same address, on every replica.
//! - A program is made from a bundle and the installation's kinds alone: no file is read again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Finding;
use crate::graph::Graph;
use crate::graph::build::{Known, Names};
use crate::graph::compile::Compiled;
use crate::graph::nesting::{self, Graphs, Member};
use crate::journal::BlobId;
use crate::library::guard::guarded;
use crate::limits::Limits;
use crate::model::{Aliases, Models};
use crate::node::NodeKinds;
use crate::skill::{self, Skill};
use crate::tool::ToolRegistry;
use crate::yaml;

/// What names in YAML may refer to.
#[derive(Clone)]
pub struct Catalog {
    /// Node kinds.
    pub kinds: NodeKinds,
    /// Tools.
    pub tools: Arc<ToolRegistry>,
    /// Models and aliases.
    pub models: Arc<Models>,
    /// How much is admitted.
    pub limits: Arc<Limits>,
}

/// One YAML file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// As shown in findings, e.g. `graphs/chat.yaml`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Sources of one graph, of the graphs inside it and of the skills that a run of it may use, and
/// the aliases of that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The graph.
    pub graph: Source,
    /// The graphs inside it, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub graphs: BTreeMap<String, Source>,
    /// By name.
    pub skills: BTreeMap<String, Source>,
    /// As configured when the run started.
    pub aliases: Aliases,
}

/// A compiled bundle: all that is needed to run.
#[derive(Debug)]
pub struct Program {
    /// Its address.
    pub id: BlobId,
    /// The graph.
    pub graph: Arc<Graph>,
    /// By name.
    pub skills: BTreeMap<String, Arc<Skill>>,
    /// As pinned.
    pub aliases: Aliases,
}

impl Bundle {
    /// The bytes whose hash is the bundle's address: the same content gives the same bytes.
    #[must_use]
    #[allow(clippy::expect_used, clippy::missing_panics_doc, reason = "texts are always JSON")]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts, and maps with text keys, are JSON")
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The bundle's address.
    #[must_use]
    pub fn id(&self) -> BlobId {
        BlobId::of(&self.to_bytes())
    }

    /// Checks and compiles. A bundle that was checked once and is compiled again after a restart
    /// may name tools or models that are gone: that is found when they are called
    /// (`NodeError::Missing`), so names of tools and models are not findings here.
    pub fn compile(&self, catalog: &Catalog) -> Result<Program, Vec<Finding>> {
        guarded(&self.graph.path, || self.compiled(catalog)).flatten()
    }

    fn compiled(&self, catalog: &Catalog) -> Result<Program, Vec<Finding>> {
        let (none, limits) = (BTreeMap::new(), &catalog.limits.files);
        let mut skills = BTreeMap::new();
        for (name, source) in &self.skills {
            let document = yaml::parse_within(&source.path, &source.text, limits)?;
            let graphs = Graphs::none();
            let known = Known { catalog, skills: &none, graphs, names: Names::Pinned };
            let (skill, findings) = skill::compile(&document, known);
            skills.insert(name.clone(), Some(Arc::new(skill.ok_or(findings)?)));
        }
        let inside = self.graphs.values();
        let members = std::iter::once(&self.graph).chain(inside);
        let members =
            members.map(|source| Member::read(source, limits)).collect::<Result<Vec<_>, _>>()?;
        let compiled = nesting::compile_all(&members, catalog, &skills, Names::Pinned);
        let graph = main_of(compiled)?;
        let skills = skills.into_iter().filter_map(|(name, skill)| Some((name, skill?))).collect();
        Ok(Program { id: self.id(), graph, skills, aliases: self.aliases.clone() })
    }
}

/// The first graph, or all that is wrong, also inside the others.
fn main_of(compiled: Vec<Option<Compiled>>) -> Result<Arc<Graph>, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut graphs = compiled.into_iter().flatten().map(|mut one| {
        findings.append(&mut one.findings);
        one.graph
    });
    let main = graphs.next().flatten();
    graphs.for_each(drop);
    main.ok_or(findings)
}
