//! `graph`: runs another graph inside this one, to any depth.
//!
//! Invariants:
//! - The two share nothing by name: what goes in stands under `with`, what comes out under `into`.
//! - The inner graph's messages are its own, unless `into` hands its `messages` over to those of a
//!   graph that talks to the user: then they are shown as they are written, and stay in the
//!   conversation even if the run is cut short.

use std::sync::Arc;

use exile_engine::expr::Scope;
use exile_engine::graph::Graph;
use exile_engine::graph::build::Build;
use exile_engine::graph::nesting::Inner;
use exile_engine::node::{Done, NodeError, NodeKind, Subgraph, Work};
use exile_engine::run::writes::name_messages;
use exile_engine::state::{Channel, ChannelValue, MessageList, MessageMap, Reducer, State, Writes};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::ask::written;
use super::set::Source;
use super::{MESSAGES, history};

/// The kind.
pub(super) struct Kind;

/// A graph inside this one.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "GraphKeys")]
struct Params {
    /// The graph's name.
    graph: String,
    /// Its input channel → an expression over this graph's state; what is not text is given as it
    /// stands.
    with: Option<Map<String, Value>>,
    /// The channel that gets its output channels as one map; or channel → its output channel.
    #[serde(default)]
    into: Option<Target>,
}

/// Where what the inner graph gives goes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Target {
    Whole(String),
    Each(Map<String, Value>),
}

impl JsonSchema for Target {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Target".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "object"],
            "additionalProperties": { "type": "string" },
            "minProperties": 1,
        })
    }
}

impl NodeKind for Kind {
    fn name(&self) -> &'static str {
        "graph"
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        Params::json_schema(generator)
    }

    fn build(&self, build: &mut Build<'_>) -> Option<Work> {
        let params: Params = build.params()?;
        let inner = build.graph(&["graph"], &params.graph);
        let with = params.with.unwrap_or_default();
        let enter = inputs(build, &params.graph, inner, &with);
        let shown = build.shown() && hands_over(params.into.as_ref());
        let exit = outputs(build, &params.graph, inner, params.into);
        let graph = inner?.graph(shown).clone();
        Some(Work::Sub(Arc::new(Inside { graph, enter: enter?, exit: exit? })))
    }
}

/// Whether the inner graph's messages become this one's.
fn hands_over(into: Option<&Target>) -> bool {
    matches!(into, Some(Target::Each(map)) if map.get(MESSAGES).is_some_and(|v| v == MESSAGES))
}

/// What stands under `with`; `None` if anything is wrong with it.
fn inputs(
    build: &mut Build<'_>,
    name: &str,
    inner: Option<&Inner>,
    with: &Map<String, Value>,
) -> Option<Vec<(Arc<str>, Source)>> {
    let mut inputs = Vec::new();
    for (channel, value) in with {
        let place = ["with", channel.as_str()];
        let source = Source::build(build, &place, value);
        let Some(inner) = inner else { continue };
        let graph = inner.graph(false);
        let channel = build.offered(&place, name, &graph.input, channel);
        let literal = matches!(source, Some(Source::Literal(_)));
        let fits = !literal
            || channel.as_ref().is_none_or(|c| build.literal_of(&graph.channels, &place, c, value));
        inputs.push(channel.zip(source).filter(|_| fits));
    }
    let missing = inner.into_iter().flat_map(Inner::required);
    let missing: Vec<&str> = missing.map(|c| &**c).filter(|c| !with.contains_key(*c)).collect();
    if !missing.is_empty() {
        let place: &[&str] = if with.is_empty() { &["graph"] } else { &["with"] };
        let message = format!("the graph `{name}` must be given `{}`", missing.join("`, `"));
        let keys: Vec<String> = missing.iter().map(|key| format!("{key}: …")).collect();
        let fix = format!("add `with: {{ {} }}`, or give it a default there", keys.join(", "));
        build.report(place, message, fix);
        return None;
    }
    inputs.into_iter().collect()
}

/// What stands under `into`; `None` if anything is wrong with it.
fn outputs(
    build: &mut Build<'_>,
    name: &str,
    inner: Option<&Inner>,
    into: Option<Target>,
) -> Option<Exit> {
    let map = match into {
        None => return Some(Exit::Each(Vec::new())),
        Some(Target::Whole(channel)) => {
            let into = written(build, &channel)?;
            let fits = build.literal(&["into"], &channel, &json!({}));
            return fits.then_some(Exit::Whole(into));
        }
        Some(Target::Each(map)) => map,
    };
    let mut pairs = Vec::new();
    for (outer, from) in &map {
        let place = ["into", outer.as_str()];
        let written = build.writes(&place, outer);
        let Some(inner) = inner else { continue };
        let graph = inner.graph(false);
        let from = build.offered(&place, name, &graph.output, from.as_str().unwrap_or_default());
        pairs.push(written.zip(from).and_then(|(outer, from)| {
            let holds = |reduce: Option<Reducer>| reduce == Some(Reducer::Messages);
            let messages = holds(build.channels().get(&outer).map(|c| c.reduce));
            if messages && !holds(graph.channels.get(&from).map(|c| c.reduce)) {
                let message =
                    format!("`{outer}` holds messages, and `{from}` of `{name}` does not");
                build.report(&place, message, "name a channel with `reduce: messages`");
                return None;
            }
            Some(Pair { outer, from, messages })
        }));
    }
    pairs.into_iter().collect::<Option<_>>().map(Exit::Each)
}

#[derive(Debug)]
struct Inside {
    graph: Arc<Graph>,
    enter: Vec<(Arc<str>, Source)>,
    exit: Exit,
}

/// What the outer state gets.
#[derive(Debug)]
enum Exit {
    /// Every output channel, as one map.
    Whole(Arc<str>),
    /// One after another.
    Each(Vec<Pair>),
}

#[derive(Debug)]
struct Pair {
    outer: Arc<str>,
    from: Arc<str>,
    /// Only the new ones are handed over.
    messages: bool,
}

impl Subgraph for Inside {
    fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    fn enter(&self, outer: &State, scope: &Scope, path: &str) -> Result<Writes, NodeError> {
        let value = |(channel, source): &(Arc<str>, Source)| {
            Ok((channel.clone(), source.value(outer, scope, "with", channel)?))
        };
        let mut given: Writes = self.enter.iter().map(value).collect::<Result<_, NodeError>>()?;
        for (channel, value) in given.iter_mut() {
            let channel = self.graph.channels.get(channel);
            let of_messages = channel.filter(|channel| channel.reduce == Reducer::Messages);
            if let (Some(Channel { name, .. }), ChannelValue::Json(json)) = (of_messages, &value) {
                let mut json = Value::clone(json);
                name_messages(&mut json, &format!("{}/{path}/{name}", scope.run));
                *value = json.into();
            }
        }
        merged(&self.graph, &given)
    }

    fn exit(&self, before: &State, inner: &State) -> Result<Done, NodeError> {
        let value = |name: &Arc<str>| inner.get(name).cloned().unwrap_or_default();
        let writes = match &self.exit {
            Exit::Whole(channel) => {
                let json = |name: &Arc<str>| value(name).to_json().into_owned();
                let named = self.graph.output.iter().map(|name| (name.to_string(), json(name)));
                let map: Map<String, Value> = named.collect();
                std::iter::once((channel.clone(), map.into())).collect()
            }
            Exit::Each(pairs) => pairs
                .iter()
                .map(|Pair { outer, from, messages }| {
                    let new = || history::added(before, inner, from).into();
                    (outer.clone(), if *messages { new() } else { value(from) })
                })
                .collect(),
        };
        Ok(Done { writes, goto: None })
    }

    fn abandon(&self, before: &State, inner: &State) -> Writes {
        let Exit::Each(pairs) = &self.exit else { return Writes::new() };
        let seen = pairs.iter().filter(|pair| self.graph.shown && pair.messages);
        let new = seen.map(|p| (p.outer.clone(), history::added(before, inner, &p.from)));
        new.filter(|(_, new)| !new.is_empty()).map(|(c, new)| (c, new.into())).collect()
    }
}

/// What the channels of a graph begin as when they are given these values, each merged by its
/// reducer as a caller's input is.
fn merged(graph: &Graph, given: &Writes) -> Result<Writes, NodeError> {
    let mut state = State::new(graph.channels.clone());
    let delta = state.merge([given])?;
    let lists = given.values().filter_map(|value| match value {
        ChannelValue::Messages(list) => Some(list.clone()),
        ChannelValue::Json(value) => MessageList::parse(value).ok(),
    });
    let mut messages = MessageMap::new();
    for list in lists {
        messages.extend(list.iter().map(|message| (message.id.clone(), message.clone())));
    }
    state.apply(&delta, &messages)?;
    let value = |name: &Arc<str>| Some((name.clone(), state.get(name)?.clone()));
    Ok(given.keys().filter_map(value).collect())
}
