//! What a node kind may ask for while it is built from its YAML.
//!
//! Everything that is wrong is reported, with its place; a kind goes on as far as it can, so that
//! one reading of the findings is enough.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::bundle::Catalog;
use crate::diagnostic::{FINDINGS_LIMIT, Finding, code, suggest};
use crate::document::{Document, child};
use crate::expr::{Expression, Template, ValueTemplate};
use crate::graph::inside::Brings;
use crate::graph::nesting::Graphs;
use crate::graph::text::Texts;
use crate::limits::Limits;
use crate::shape;
use crate::skill::Skill;
use crate::state::{Channels, Reducer, short};
use crate::tool::{self, Effect, ToolSpec};
use crate::validator::{self, Refused};

/// Whether names of tools and models must be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// An unknown one is an error: the file is being loaded.
    Checked,
    /// They were known when the run started; one that is gone since is found when it is called.
    Pinned,
}

/// What names in a graph may refer to.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Kinds, tools and models.
    pub catalog: &'a Catalog,
    /// Skills by name; `None`: its file does not load.
    pub skills: &'a BTreeMap<String, Option<Arc<Skill>>>,
    /// Graphs that nodes may run.
    pub graphs: &'a Graphs,
    /// How strict to be.
    pub names: Names,
}

/// What kinds make of all nodes of one graph, by its type.
#[derive(Default)]
pub(super) struct Memo(RefCell<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

/// A channel that a node reads or writes.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) channel: Arc<str>,
    /// A JSON pointer to what says so.
    pub(super) pointer: String,
    /// Where it stands in the text there, in bytes.
    pub(super) at: Option<usize>,
}

/// A name that is no channel and that a node reads, such as `now`.
#[derive(Clone, Debug)]
pub(super) struct ScopeRead {
    pub(super) name: &'static str,
    /// A JSON pointer to the text, and where it stands there, in bytes.
    pub(super) pointer: String,
    pub(super) at: usize,
}

/// What a node may do to the world.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// As it is spoken of, e.g. ``the tool `mail__send` ``.
    pub(super) what: String,
    pub(super) effect: Effect,
}

/// One node under construction. Every `place` below is a path inside the node, e.g.
/// `&["set", "amount"]`; findings are reported at its line and column.
pub struct Build<'a> {
    pub(super) known: Known<'a>,
    pub(super) document: &'a Document,
    /// The graph that it is a node of.
    pub(super) graph: &'a str,
    pub(super) channels: &'a Arc<Channels>,
    pub(super) shown: bool,
    /// Whether it handles another's failure and may read `error`.
    pub(super) handles_error: bool,
    pub(super) memo: &'a Memo,
    pub(super) name: Arc<str>,
    /// A JSON pointer to the node.
    pub(super) pointer: String,
    /// The keys of its own.
    pub(super) own: Map<String, Value>,
    pub(super) writes: Vec<Access>,
    pub(super) reads: Vec<Access>,
    pub(super) scope: Vec<ScopeRead>,
    pub(super) brings: Brings,
    pub(super) findings: Vec<Finding>,
}

impl Build<'_> {
    /// How much the installation admits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.known.catalog.limits
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The keys of its own (without `kind`, `branch`, …), which meet the kind's schema.
    pub fn params<T: DeserializeOwned>(&mut self) -> Option<T> {
        let read = serde_json::from_value(Value::Object(self.own.clone()));
        let report =
            |error| self.findings.push(shape::unread(self.document, &self.pointer, &error));
        read.map_err(report).ok()
    }

    /// The declared channels of the graph.
    #[must_use]
    pub fn channels(&self) -> &Arc<Channels> {
        self.channels
    }

    /// Whether messages that the node writes to `messages` are shown to the user: those of a run's
    /// own graph are, those of a graph inside a node only where it hands them over.
    #[must_use]
    pub fn shown(&self) -> bool {
        self.shown
    }

    /// Compiles the text at `place` as an expression; names it reads must be channels, `user`,
    /// `run`, `conversation`, `now`, or `error` in a node that handles another's failure. Reports braces and undeclared names. `None` without a
    /// finding if there is no text.
    pub fn expression(&mut self, place: &[&str]) -> Option<Expression> {
        let source = self.text_at(place)?;
        let pointer = self.at(place);
        self.texts().expression(&pointer, &source)
    }

    /// Compiles the text at `place` as a template. `None` without a finding if there is no text.
    pub fn template(&mut self, place: &[&str]) -> Option<Template> {
        let source = self.text_at(place)?;
        let pointer = self.at(place);
        self.texts().template(&pointer, &source)
    }

    /// Compiles every string inside the value at `place` as a template. `None` without a finding
    /// if there is no value.
    pub fn value_template(&mut self, place: &[&str]) -> Option<ValueTemplate> {
        let value = self.value_at(place)?.clone();
        let pointer = self.at(place);
        self.texts().value(&pointer, &value)
    }

    /// Notes that the node writes this channel; reports an undeclared one.
    pub fn writes(&mut self, place: &[&str], channel: &str) -> Option<Arc<str>> {
        let name = self.declared(place, channel, "")?;
        self.writes.push(self.access(place, &name));
        Some(name)
    }

    /// Like [`writes`](Self::writes), for a channel that must have this reducer, with the fix to
    /// suggest if it is missing (e.g. `messages: { reduce: messages }`).
    pub fn writes_reduced(
        &mut self,
        place: &[&str],
        channel: &str,
        reducer: Reducer,
    ) -> Option<Arc<str>> {
        let wanted = format!("{reducer:?}").to_lowercase();
        let line = format!("{channel}: {{ reduce: {wanted} }}");
        let name = self.declared(place, channel, &line)?;
        if self.channels.get(channel).is_some_and(|declared| declared.reduce != reducer) {
            let message = format!("the channel `{channel}` must have `reduce: {wanted}`");
            self.report_as(
                code::WRONG_REDUCER,
                place,
                message,
                format!("declare `{line}` under `state`"),
            );
            return None;
        }
        self.writes.push(self.access(place, &name));
        Some(name)
    }

    /// Checks a literal that the node will write to `channel` against the channel's type; whether
    /// it fits. An undeclared channel is for [`writes`](Self::writes) to report.
    pub fn literal(&mut self, place: &[&str], channel: &str, value: &Value) -> bool {
        let channels = self.channels;
        self.literal_of(channels, place, channel, value)
    }

    /// The same for a channel of another graph, [`graph`](Self::graph).
    pub fn literal_of(
        &mut self,
        channels: &Channels,
        place: &[&str],
        channel: &str,
        value: &Value,
    ) -> bool {
        let Some(declared) = channels.get(channel) else { return true };
        if let Some(takes) = unfit(declared.reduce, declared.kind, value) {
            let message = format!("the channel `{channel}` takes {takes}, not {}", short(value));
            let fix = format!("write {takes}, or change the channel's type");
            self.report_as(code::LITERAL_TYPE, place, message, fix);
            return false;
        }
        true
    }

    /// Notes that the node reads this channel; reports an undeclared one.
    pub fn reads(&mut self, place: &[&str], channel: &str) -> Option<Arc<str>> {
        let name = self.declared(place, channel, "")?;
        self.reads.push(self.access(place, &name));
        Some(name)
    }

    /// Notes that the node may make a call of this effect, besides those of tools that it
    /// [`calls_tools`](Self::calls_tools); `what` as it is spoken of. A model's answer and reading
    /// are no effect.
    pub fn calls(&mut self, what: impl Into<String>, effect: Effect) {
        self.brings.call(Call { what: what.into(), effect });
    }

    /// Notes that the node may call the tools of these names and patterns.
    pub fn calls_tools(&mut self, patterns: &[String]) {
        let covered = |spec: &&ToolSpec| patterns.iter().any(|p| tool::matches(p, &spec.name));
        let specs = self.known.catalog.tools.specs().filter(covered);
        // Of equals the first.
        if let Some(spec) = specs.reduce(|a, b| if b.effect > a.effect { b } else { a }) {
            self.calls(format!("the tool `{}`", spec.name), spec.effect);
        }
    }

    /// The skill of that name; reports an unknown one and one that does not load.
    pub fn skill(&mut self, place: &[&str], name: &str) -> Option<Arc<Skill>> {
        match self.known.skills.get(name) {
            Some(Some(skill)) => {
                self.brings.skills.insert(name.to_owned());
                Some(skill.clone())
            }
            Some(None) => {
                let message = format!("the skill `{name}` does not load");
                self.report_as(code::BROKEN_SKILL, place, message, "mend its file first");
                None
            }
            None => {
                let fix = suggest(name, self.known.skills.keys().map(String::as_str));
                self.report_as(
                    code::UNKNOWN_SKILL,
                    place,
                    format!("no skill is named `{name}`"),
                    fix,
                );
                None
            }
        }
    }

    /// Checks that an alias or `provider/model` is known; reports an unknown one.
    pub fn model(&mut self, place: &[&str], name: &str) -> Option<Arc<str>> {
        if let Some((message, fix)) = unknown_model(&self.known, name) {
            self.report_as(code::UNKNOWN_MODEL, place, message, fix);
            return None;
        }
        Some(name.into())
    }

    /// Checks that a tool is registered; reports an unknown one. Literal `args` (no template in
    /// them) are checked against its schema by the caller through [`report`](Self::report).
    pub fn tool(&mut self, place: &[&str], name: &str) -> Option<Arc<str>> {
        if let Some((message, fix)) = unknown_tool(&self.known, name) {
            self.report_as(code::UNKNOWN_TOOL, place, message, fix);
            return None;
        }
        Some(name.into())
    }

    /// Checks literal arguments of a tool against its schema; reports everything that is wrong.
    pub fn tool_arguments(&mut self, place: &[&str], tool: &str, args: &Value) {
        let tools = &self.known.catalog.tools;
        if tools.spec(tool).is_none() {
            // Reported where it is named, or gone since the run started.
            return;
        }
        if let Err(error) = tools.validate(tool, args) {
            let message = format!("`{tool}` does not take these arguments: {}", error.message);
            // The arguments may be left out altogether.
            let place = if self.value_at(place).is_some() { place } else { &[] };
            let fix = format!("see `exile tool list` for the arguments of `{tool}`");
            self.report_as(code::INVALID_NODE, place, message, fix);
        }
    }

    /// What a kind that works with other nodes makes of them all, as they are written and unchecked.
    /// It is made once for the graph, by the first node that asks, and shared by all that ask for
    /// the same type.
    pub fn once_per_graph<T: Send + Sync + 'static>(
        &self,
        make: impl FnOnce(&[Value]) -> T,
    ) -> Arc<T> {
        let known = self.memo.0.borrow().get(&TypeId::of::<T>()).cloned();
        if let Some(Ok(known)) = known.map(Arc::downcast) {
            return known;
        }
        let nodes = self.document.value("/nodes");
        let nodes = nodes.as_ref().and_then(Value::as_object);
        let nodes: Vec<Value> = nodes.into_iter().flat_map(|n| n.values().cloned()).collect();
        let made = Arc::new(make(&nodes));
        self.memo.0.borrow_mut().insert(TypeId::of::<T>(), made.clone());
        made
    }

    /// Checks names and patterns of tools at a list; reports those that match no tool.
    pub fn tools(&mut self, place: &[&str], patterns: &[String]) -> Vec<String> {
        for (i, pattern) in patterns.iter().enumerate() {
            if self.findings.len() > FINDINGS_LIMIT {
                break;
            }
            if let Some((message, fix)) = unknown_tool(&self.known, pattern) {
                let index = i.to_string();
                let item: Vec<&str> = place.iter().copied().chain([index.as_str()]).collect();
                self.report_as(code::UNKNOWN_TOOL, &item, message, fix);
            }
        }
        patterns.to_vec()
    }

    /// Compiles a JSON Schema given in the YAML; reports an invalid one.
    pub fn json_schema(&mut self, place: &[&str]) -> Option<Value> {
        let schema = self.value_at(place)?.clone();
        match validator::of_author(&schema) {
            Ok(_) => Some(schema),
            Err(Refused { message, pointer }) => {
                let pointer = format!("{}{pointer}", self.at(place));
                let message = format!("this is no JSON Schema: {message}");
                let fix = "see json-schema.org; types are string, number, integer, boolean, array, object";
                self.findings.push(self.document.error_at(
                    code::INVALID_SCHEMA,
                    &pointer,
                    message,
                    fix,
                ));
                None
            }
        }
    }

    /// Reports an error at `place` (its key, if the value has no place of its own), with its fix.
    pub fn report(&mut self, place: &[&str], message: impl Into<String>, fix: impl Into<String>) {
        self.report_as(code::INVALID_NODE, place, message, fix);
    }

    pub(super) fn report_as(
        &mut self,
        code: &'static str,
        place: &[&str],
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let pointer = self.at(place);
        // A node has a name before its map begins; what is wrong with all of it stands there.
        let finding = if place.is_empty() {
            self.document.error_at_key(code, &pointer, message, fix)
        } else {
            self.document.error_at(code, &pointer, message, fix)
        };
        self.findings.push(finding);
    }

    fn declared(&mut self, place: &[&str], channel: &str, line: &str) -> Option<Arc<str>> {
        if let Some(declared) = self.channels.get(channel) {
            return Some(declared.name.clone());
        }
        let message = format!("no channel is named `{channel}`");
        let names = self.channels.iter().map(|channel| &*channel.name);
        let fix = if line.is_empty() {
            format!("{} (or declare it under `state`)", suggest(channel, names))
        } else {
            format!("add `{line}` under `state`")
        };
        // An implied channel has no text of its own: the node's name is the nearest.
        let place = if self.value_at(place).is_some() { place } else { &[] };
        self.report_as(code::UNKNOWN_CHANNEL, place, message, fix);
        None
    }

    pub(super) fn at(&self, place: &[&str]) -> String {
        place.iter().fold(self.pointer.clone(), |pointer, key| child(&pointer, key))
    }

    fn value_at(&self, place: &[&str]) -> Option<&Value> {
        let (first, rest) = place.split_first()?;
        rest.iter().try_fold(self.own.get(*first)?, |value, key| match value {
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            other => other.get(key),
        })
    }

    fn text_at(&self, place: &[&str]) -> Option<String> {
        self.value_at(place)?.as_str().map(str::to_owned)
    }

    fn access(&self, place: &[&str], channel: &Arc<str>) -> Access {
        Access { channel: channel.clone(), pointer: self.at(place), at: None }
    }

    fn texts(&mut self) -> Texts<'_> {
        Texts {
            document: self.document,
            channels: self.channels,
            limits: self.known.catalog.limits.expression,
            handles_error: self.handles_error,
            reads: &mut self.reads,
            scope: &mut self.scope,
            findings: &mut self.findings,
        }
    }
}

/// What a channel takes, if `value` is none of it.
pub(super) fn unfit(
    reduce: Reducer,
    kind: crate::state::ChannelType,
    value: &Value,
) -> Option<String> {
    let (fits, takes) = match reduce {
        Reducer::Replace => {
            let name = format!("{kind:?}").to_lowercase();
            (kind.admits(value), shape::spoken(&name).to_owned())
        }
        Reducer::Sum => (value.is_number(), "a number".to_owned()),
        Reducer::Merge => (value.is_object(), "a map".to_owned()),
        Reducer::Messages => (value.is_object() || value.is_array(), "messages".to_owned()),
        Reducer::Append | Reducer::Union => (true, String::new()),
    };
    (!fits).then_some(takes)
}

/// Message and fix for a model that nobody knows.
pub(crate) fn unknown_model(known: &Known<'_>, name: &str) -> Option<(String, String)> {
    if known.names == Names::Pinned || known.catalog.models.knows(name) {
        return None;
    }
    let names = known.catalog.models.names();
    let message = format!("`{name}` is neither an alias nor a model of a configured provider");
    let fix = suggest(name, names.iter().map(String::as_str));
    Some((message, format!("{fix} (aliases stand under `models` in exile.yaml)")))
}

/// Message and fix for a tool or pattern that covers nothing.
pub(crate) fn unknown_tool(known: &Known<'_>, pattern: &str) -> Option<(String, String)> {
    let mut tools = known.catalog.tools.specs();
    if known.names == Names::Pinned || tools.any(|spec| tool::matches(pattern, &spec.name)) {
        return None;
    }
    let message = match pattern.strip_suffix('*') {
        Some(prefix) => format!("no tool's name begins with `{prefix}`"),
        None => format!("no tool is named `{pattern}`"),
    };
    let names = known.catalog.tools.specs().map(|spec| spec.name.as_str());
    Some((message, suggest(pattern, names)))
}
