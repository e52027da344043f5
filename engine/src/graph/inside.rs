//! What a node kind may ask for when it holds a graph or another node, and what comes of that for
//! the node around it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::diagnostic::{code, suggest};
use crate::graph::build::{Access, Build, Call};
use crate::graph::nesting::{DEPTH_LIMIT, Inner, Unusable};
use crate::graph::{GraphNode, channels, compile};
use crate::state::Channels;

/// What a node needs besides its own YAML, for its graph's bundle and for those who use it.
#[derive(Clone, Debug, Default)]
pub(super) struct Brings {
    /// Skills that it names.
    pub(super) skills: BTreeSet<String>,
    /// Graphs that it runs, those inside them included, and hashes of their texts.
    pub(super) graphs: BTreeMap<String, Arc<str>>,
    /// Of the graphs inside it, those that stand deepest in one another, from the outside in.
    pub(super) deepest: Vec<String>,
    /// The call of the strongest effect; `None` if there is none.
    pub(super) call: Option<Call>,
    /// Names that are no channels and that it reads.
    pub(super) scope: BTreeSet<&'static str>,
}

impl Brings {
    pub(super) fn add(&mut self, more: &Self) {
        self.scope.extend(&more.scope);
        self.skills.extend(more.skills.iter().cloned());
        self.graphs.extend(more.graphs.iter().map(|(name, hash)| (name.clone(), hash.clone())));
        if more.deepest.len() > self.deepest.len() {
            self.deepest.clone_from(&more.deepest);
        }
        if let Some(call) = &more.call {
            self.call(call.clone());
        }
    }

    /// Of calls of the same effect the first stands.
    pub(super) fn call(&mut self, call: Call) {
        if self.call.as_ref().is_none_or(|known| known.effect < call.effect) {
            self.call = Some(call);
        }
    }
}

/// A node inside a node.
#[derive(Debug)]
pub struct Nested {
    /// The node, with one line that leads to the end.
    pub node: GraphNode,
    /// The channels that it writes.
    pub writes: BTreeSet<Arc<str>>,
    pub(super) reads: Vec<Access>,
}

impl<'a> Build<'a> {
    /// The graph of that name, for this node to run; reports an unknown one, one that does not
    /// load, and one that cannot stand here.
    pub fn graph(&mut self, place: &[&str], name: &str) -> Option<&'a Inner> {
        let graphs = self.known.graphs;
        let (code, message, fix) = match graphs.find(self.graph, name) {
            Ok(inner) if inner.brings.deepest.len() < DEPTH_LIMIT => {
                self.brings.add(&inner.brings);
                return Some(inner);
            }
            Ok(inner) => {
                let way = inner.brings.deepest.join(" → ");
                let message = format!(
                    "more than {DEPTH_LIMIT} graphs would stand inside one another: {} → {way}",
                    self.graph
                );
                (code::NESTED_TOO_DEEP, message, "put the work of several of them into one".into())
            }
            Err(Unusable::Endless(way)) => {
                let message = format!("a graph cannot contain itself: {}", way.join(" → "));
                let fix = "take one of these graphs out of the other; lines make a loop inside one";
                (code::ENDLESS_GRAPH, message, fix.into())
            }
            Err(Unusable::Broken) => {
                let message = format!("the graph `{name}` does not load");
                (code::BROKEN_GRAPH, message, "mend its file first".into())
            }
            Err(Unusable::Unknown) => {
                let message = format!("no graph is named `{name}`");
                (code::UNKNOWN_GRAPH, message, suggest(name, graphs.names()))
            }
        };
        self.report_as(code, place, message, fix);
        None
    }

    /// Checks the name of a variable that is read beside the channels; reports one that cannot be
    /// read and one that is taken.
    pub fn variable(&mut self, place: &[&str], name: &str) -> Option<Arc<str>> {
        let pointer = self.at(place);
        if let Some(finding) = channels::name_finding(self.document, &pointer, name) {
            self.findings.push(finding);
            return None;
        }
        if self.channels.get(name).is_some() {
            let message = format!("`{name}` is a channel already");
            let fix = "choose another name";
            self.report_as(code::DUPLICATE_NAME, place, message, fix);
            return None;
        }
        Some(name.into())
    }

    /// Whether nodes of that kind have a key of that name, besides those that every node has.
    #[must_use]
    pub fn kind_has(&self, kind: &str, key: &str) -> bool {
        let kind = self.known.catalog.kinds.get(kind);
        kind.is_some_and(|kind| !crate::schema::node(&**kind)["properties"][key].is_null())
    }

    /// Builds the node that `yaml` describes and that stands at `place` inside this one: its
    /// names mean `channels`, and it talks to nobody. What is wrong is reported where it stands.
    pub fn nested(
        &mut self,
        place: &[&str],
        yaml: &Map<String, Value>,
        channels: &Arc<Channels>,
        name: &str,
    ) -> Option<Nested> {
        let scene = compile::Scene {
            document: self.document,
            graph: self.graph,
            channels,
            shown: false,
            handles_error: self.handles_error,
            memo: self.memo,
            known: self.known,
        };
        let (nested, brings) =
            compile::nested(scene, name, &self.at(place), yaml, &mut self.findings)?;
        self.brings.add(&brings);
        let outer = nested.reads.iter().filter(|read| self.channels.get(&read.channel).is_some());
        self.reads.extend(outer.cloned());
        Some(nested)
    }

    /// Checks that a graph inside the node offers a channel of that name; reports another.
    pub fn offered(
        &mut self,
        place: &[&str],
        graph: &str,
        offers: &[Arc<str>],
        channel: &str,
    ) -> Option<Arc<str>> {
        let found = offers.iter().find(|name| ***name == *channel);
        if found.is_none() {
            let what = if place.first() == Some(&"with") { "input" } else { "output" };
            let message = format!("`{channel}` is no {what} channel of the graph `{graph}`");
            let fix = suggest(channel, offers.iter().map(|name| &**name));
            self.report_as(code::UNKNOWN_CHANNEL, place, message, fix);
        }
        found.cloned()
    }
}
