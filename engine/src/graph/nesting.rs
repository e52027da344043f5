//! Graphs inside graphs: which one runs which, and in what order they are compiled.
//!
//! Invariants:
//! - A graph is compiled after those that it runs, so that what is inside is known: its channels,
//!   its skills, the tools it may call.
//! - One that contains itself, directly or through others, never compiles; nor does one that
//!   would make more than [`DEPTH_LIMIT`] graphs stand inside one another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::bundle::{Catalog, Source};
use crate::diagnostic::Finding;
use crate::document::Document;
use crate::graph::Graph;
use crate::graph::build::{Known, Names};
use crate::graph::compile::{self, Compiled};
use crate::graph::inside::Brings;
use crate::library::guard::guarded;
use crate::limits::FileLimits;
use crate::skill::Skill;
use crate::yaml;

/// Graphs inside one another at most, the run's own included.
pub const DEPTH_LIMIT: usize = 16;

/// A graph as the nodes that run it see it.
#[derive(Clone, Debug)]
pub struct Inner {
    /// For a node whose graph talks to the user and takes its messages over.
    pub(super) shown: Arc<Graph>,
    /// For every other one: its messages are its own.
    pub(super) hidden: Arc<Graph>,
    /// Listed inputs that begin as nothing and so must be given.
    pub(super) required: Vec<Arc<str>>,
    /// What its nodes bring, itself and the graphs in it included.
    pub(super) brings: Brings,
}

impl Inner {
    /// Its compiled form: one whose messages the user sees, or one that talks to nobody.
    #[must_use]
    pub fn graph(&self, shown: bool) -> &Arc<Graph> {
        if shown { &self.shown } else { &self.hidden }
    }

    /// Channels that it must be given.
    #[must_use]
    pub fn required(&self) -> &[Arc<str>] {
        &self.required
    }
}

/// The graphs that nodes may name.
#[derive(Debug, Default)]
pub struct Graphs {
    /// Of every graph there is, those that it names.
    uses: BTreeMap<String, BTreeSet<String>>,
    /// Those that compiled.
    ready: BTreeMap<String, Inner>,
}

/// Why a graph cannot be run by a node.
pub(super) enum Unusable {
    /// There is none of that name.
    Unknown,
    /// Its file does not load.
    Broken,
    /// It leads back to where it is named: the way, both ends included.
    Endless(Vec<String>),
}

impl Graphs {
    /// There are no others.
    #[must_use]
    pub fn none() -> &'static Self {
        static NONE: Graphs = Graphs { uses: BTreeMap::new(), ready: BTreeMap::new() };
        &NONE
    }

    /// The names there are.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.uses.keys().map(String::as_str)
    }

    /// The graph `name`, for a node of the graph `user`.
    pub(super) fn find(&self, user: &str, name: &str) -> Result<&Inner, Unusable> {
        if let Some(way) = self.way(name, user) {
            return Err(Unusable::Endless(std::iter::once(user.to_owned()).chain(way).collect()));
        }
        match self.ready.get(name) {
            Some(inner) => Ok(inner),
            None if self.uses.contains_key(name) => Err(Unusable::Broken),
            None => Err(Unusable::Unknown),
        }
    }

    /// The shortest way from one graph through those that it names to another.
    fn way(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut came: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            if at == to {
                let mut way = vec![at.to_owned()];
                let mut last = at;
                while last != from {
                    last = came.get(last)?;
                    way.push(last.to_owned());
                }
                way.reverse();
                return Some(way);
            }
            for next in self.uses.get(at).into_iter().flatten() {
                if next != from && !came.contains_key(next.as_str()) {
                    came.insert(next, at);
                    queue.push_back(next);
                }
            }
        }
        None
    }
}

/// One of several graphs that may name each other.
#[derive(Debug)]
pub struct Member {
    /// What others call it.
    pub name: String,
    /// Its file; `None` if it is no YAML.
    pub document: Option<Document>,
}

impl Member {
    /// Reads a file.
    pub fn read(source: &Source, limits: &FileLimits) -> Result<Self, Vec<Finding>> {
        let document = yaml::parse_within(&source.path, &source.text, limits)?;
        Ok(Self { name: name_of(Some(&document), &source.path), document: Some(document) })
    }
}

/// What a graph is called: as in the YAML, else as its file.
#[must_use]
pub fn name_of(document: Option<&Document>, path: &str) -> String {
    let name = document.and_then(|document| document.value("/graph"));
    let stem = || Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    name.and_then(|name| name.as_str().map(str::to_owned)).or_else(stem).unwrap_or_default()
}

/// Compiles graphs that may name each other; of two with one name, the first is the one that is
/// meant. What became of each, in the given order; `None` without a document.
#[must_use]
pub fn compile_all(
    members: &[Member],
    catalog: &Catalog,
    skills: &BTreeMap<String, Option<Arc<Skill>>>,
    names: Names,
) -> Vec<Option<Compiled>> {
    let mut graphs = Graphs::default();
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    let uses: Vec<BTreeSet<String>> = members.iter().map(used).collect();
    for (i, member) in members.iter().enumerate() {
        if !first.contains_key(member.name.as_str()) {
            first.insert(&member.name, i);
            graphs.uses.insert(member.name.clone(), uses[i].clone());
        }
    }
    let mut compiled: Vec<Option<Compiled>> = members.iter().map(|_| None).collect();
    for i in order(&uses, &first) {
        let Some(document) = &members[i].document else { continue };
        let known = Known { catalog, skills, graphs: &graphs, names };
        let one = guarded(document.path(), || compile::compile(document, known));
        let one = one.unwrap_or_else(Compiled::unread);
        let name = &members[i].name;
        let named = first.get(name.as_str()) == Some(&i) && uses.iter().any(|u| u.contains(name));
        let inner = || guarded(document.path(), || inner(document, known, &one)).ok().flatten();
        if named && let Some(inner) = inner() {
            graphs.ready.insert(name.clone(), inner);
        }
        compiled[i] = Some(one);
    }
    compiled
}

fn inner(document: &Document, known: Known<'_>, one: &Compiled) -> Option<Inner> {
    let shown = one.graph.clone()?;
    let hidden = compile::hidden(document, known)?;
    let mut brings = one.brings.clone();
    let hash = crate::hex(&Sha256::digest(document.text().as_bytes()));
    brings.graphs.insert(one.name.clone(), hash.into());
    brings.deepest.insert(0, one.name.clone());
    Some(Inner { shown, hidden, required: one.required.clone(), brings })
}

/// What a graph's nodes name, as written.
fn used(member: &Member) -> BTreeSet<String> {
    let nodes = member.document.as_ref().and_then(|document| document.value("/nodes"));
    let mut names = BTreeSet::new();
    for node in nodes.iter().filter_map(Value::as_object).flat_map(|nodes| nodes.values()) {
        names_in(node, &mut names);
    }
    names
}

/// `graph: NAME`, also in a node inside this one.
fn names_in(node: &Value, names: &mut BTreeSet<String>) {
    names.extend(node["graph"].as_str().map(str::to_owned));
    if node["node"].is_object() {
        names_in(&node["node"], names);
    }
}

/// Each after those that it uses, where they do not use each other.
fn order(uses: &[BTreeSet<String>], first: &BTreeMap<&str, usize>) -> Vec<usize> {
    let (mut done, mut seen) = (Vec::with_capacity(uses.len()), vec![false; uses.len()]);
    for root in 0..uses.len() {
        let mut stack = vec![(root, false)];
        while let Some((at, used_ones_are_done)) = stack.pop() {
            if used_ones_are_done {
                done.push(at);
            } else if !std::mem::replace(&mut seen[at], true) {
                stack.push((at, true));
                let inside = uses[at].iter().filter_map(|name| first.get(name.as_str()));
                stack.extend(inside.map(|i| (*i, false)));
            }
        }
    }
    done
}
