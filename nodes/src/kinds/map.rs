//! `map`: runs a node once for each item of a list, several at the same time.
//!
//! Invariants:
//! - Each item has a state of its own: the outer channels as they stand when the map begins, the
//!   item under the name in `as`, and `result`, which the node inside writes (its `into`, where
//!   the YAML says none). Nothing else of what it writes leaves the item, but for messages.
//! - Results stand in the order of the items, whichever came first.

use std::sync::Arc;

use exile_engine::expr::{Expression, Scope};
use exile_engine::graph::build::Build;
use exile_engine::graph::inside::Nested;
use exile_engine::graph::{Branch, Graph, Guard, Limits, Line, Names, Schedule, Target};
use exile_engine::node::{Done, ForEach, NodeError, NodeKind, Work};
use exile_engine::run::record::Durability;
use exile_engine::state::{
    Channel, ChannelType, ChannelValue, Channels, MessageList, Reducer, State, Writes, short,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::MESSAGES;
use super::ask::{found, written};

/// Items at the same time where the node does not say: enough to hide what waiting costs, and
/// few enough for the rate limits that providers give to a new account.
const CONCURRENCY: usize = 8;

/// Where an item's result is written.
const RESULT: &str = "result";

/// What the node inside is called, in paths and events.
const ITEM: &str = "item";

/// The kind.
pub(super) struct Kind;

/// A node once for each item of a list.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MapKeys")]
struct Params {
    /// An expression that gives the list.
    #[serde(rename = "over")]
    _over: String,
    /// What an item is called inside.
    r#as: String,
    /// The node that is run for each item; its result is what it writes to `result`, which its
    /// `into` is by default.
    #[serde(default)]
    #[schemars(schema_with = "any_node")]
    node: Option<Map<String, Value>>,
    /// Instead of `node`: the graph that is run for each item.
    graph: Option<String>,
    /// With `graph`: its input channel → an expression over the item's state.
    with: Option<Map<String, Value>>,
    /// Items at the same time, at most; default 8.
    #[schemars(range(min = 1, max = 1000))]
    concurrency: Option<usize>,
    /// The channel that the list of results goes to.
    into: Option<String>,
    /// What follows an item that failed.
    #[serde(default)]
    on_item_error: OnItemError,
}

/// What follows an item that failed.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OnItemError {
    /// The others finish, then the map fails.
    #[default]
    Fail,
    /// It is left out.
    Skip,
    /// `{ error: { code, message } }` stands in its place.
    Keep,
}

fn any_node(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "#/definitions/Node" })
}

impl NodeKind for Kind {
    fn name(&self) -> &'static str {
        "map"
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        Params::json_schema(generator)
    }

    fn build(&self, build: &mut Build<'_>) -> Option<Work> {
        let params: Params = build.params()?;
        let over = build.expression(&["over"]);
        let item = item_name(build, &params.r#as);
        let into = params.into.as_ref().map(|name| written(build, name));
        if let Some(name) = &params.into {
            build.literal(&["into"], name, &json!([]));
        }
        let channels = Arc::new(inside(build.channels(), item.as_ref()));
        let nested = nested(build, &params, &channels)?;
        let messages = check_writes(build, &params, &nested)?;
        let (over, item, into) = (over?, item?, found(into)?);
        Some(Work::Each(Arc::new(Each {
            graph: Arc::new(one(build.name().clone(), channels, nested)),
            over,
            item,
            into,
            messages,
            concurrency: params.concurrency.unwrap_or(CONCURRENCY),
            on_error: params.on_item_error,
        })))
    }
}

/// The name in `as`.
fn item_name(build: &mut Build<'_>, name: &str) -> Option<Arc<str>> {
    if name == RESULT {
        let message = format!("`{RESULT}` is where an item's result is written");
        build.report(&["as"], message, "call the item something else");
        return None;
    }
    build.variable(&["as"], name)
}

/// The channels of an item's state.
fn inside(outer: &Channels, item: Option<&Arc<str>>) -> Channels {
    let own = |name: &str| Channel {
        name: name.into(),
        kind: ChannelType::Any,
        reduce: Reducer::Replace,
        initial: Arc::new(Value::Null),
        scope: exile_engine::state::Scope::Run,
    };
    let own = item.map(|name| own(name)).into_iter().chain([own(RESULT)]);
    // Of two with one name the first stands: `result` is the item's own.
    Channels::new(own.chain(outer.iter().filter(|c| &*c.name != RESULT).cloned()).collect())
}

/// The node inside, from `node` or `graph`.
fn nested(build: &mut Build<'_>, params: &Params, channels: &Arc<Channels>) -> Option<Nested> {
    if params.with.is_some() && params.graph.is_none() {
        build.report(&["with"], "`with` goes with `graph`", "move it into `node`, or remove it");
    }
    match (&params.node, &params.graph) {
        (Some(node), None) => {
            let mut yaml = node.clone();
            let kind = yaml.get("kind").and_then(Value::as_str).unwrap_or_default();
            if build.kind_has(kind, "into") && !yaml.contains_key("into") {
                yaml.insert("into".into(), RESULT.into());
            }
            build.nested(&["node"], &yaml, channels, ITEM)
        }
        (None, Some(graph)) => {
            let mut yaml = Map::new();
            yaml.insert("kind".into(), "graph".into());
            yaml.insert("graph".into(), graph.as_str().into());
            yaml.extend(params.with.clone().map(|with| ("with".to_owned(), with.into())));
            yaml.insert("into".into(), RESULT.into());
            build.nested(&[], &yaml, channels, ITEM)
        }
        (Some(_), Some(_)) => {
            build.report(&["graph"], "a map has a `node` or a `graph`, not both", "remove one");
            None
        }
        (None, None) => {
            let fix = "add `node: { kind: … }` or `graph: NAME`";
            build.report(&[], "a map needs what it does with an item", fix);
            None
        }
    }
}

/// Whether items may write messages; `None` if something they write would be lost.
fn check_writes(build: &mut Build<'_>, params: &Params, nested: &Nested) -> Option<bool> {
    let place: &[&str] = if params.node.is_some() { &["node"] } else { &["graph"] };
    let mut good = true;
    for channel in nested.writes.iter().filter(|c| ![RESULT, MESSAGES].contains(&&***c)) {
        let message = format!("an item writes to `{RESULT}` alone: `{channel}` would be lost");
        let fix = format!("write `{RESULT}`, and let the map's own `into` name `{channel}`");
        build.report(place, message, fix);
        good = false;
    }
    if params.into.is_some() && !nested.writes.contains(RESULT) {
        let message = format!("the node inside writes nothing to `{RESULT}`");
        let fix = format!("let it write `{RESULT}`, or remove the map's `into`");
        build.report(place, message, fix);
        good = false;
    }
    let messages = nested.writes.contains(MESSAGES);
    if messages {
        build.writes_reduced(&[], MESSAGES, Reducer::Messages)?;
    }
    good.then_some(messages)
}

/// A graph of the one node.
fn one(name: Arc<str>, channels: Arc<Channels>, nested: Nested) -> Graph {
    Graph {
        name,
        channels,
        nodes: vec![nested.node],
        start: vec![Line { guard: Guard::Always, to: Target::Node(0) }],
        start_branch: Branch::First,
        joins: Vec::new(),
        schedule: Schedule::default(),
        durability: Durability::default(),
        limits: Limits::default(),
        input: Vec::new(),
        output: Vec::new(),
        shown: false,
        names: Names::default(),
    }
}

#[derive(Debug)]
struct Each {
    graph: Arc<Graph>,
    over: Expression,
    item: Arc<str>,
    into: Option<Arc<str>>,
    /// Messages of the items join the conversation.
    messages: bool,
    concurrency: usize,
    on_error: OnItemError,
}

impl ForEach for Each {
    fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    fn enter(&self, outer: &State, scope: &Scope) -> Result<Vec<Writes>, NodeError> {
        let list = self.over.eval(outer, scope).map_err(|e| NodeError::expression("over", &e))?;
        let Value::Array(items) = list else {
            let error = format!("it gave {}, which is no list", short(&list));
            return Err(NodeError::Expression { place: "over".into(), error });
        };
        let begin = |item: Value| std::iter::once((self.item.clone(), item.into())).collect();
        Ok(items.into_iter().map(begin).collect())
    }

    fn exit(&self, items: Vec<Result<Writes, NodeError>>) -> Result<Done, NodeError> {
        let (mut results, mut messages) = (Vec::with_capacity(items.len()), MessageList::default());
        for item in items {
            match (item, self.on_error) {
                (Ok(mut writes), _) => {
                    if let Some(ChannelValue::Messages(list)) = writes.remove(MESSAGES) {
                        messages.extend(list.iter().cloned());
                    }
                    let result = writes.remove(RESULT);
                    results.push(result.map_or(Value::Null, |value| value.to_json().into_owned()));
                }
                (Err(error), OnItemError::Fail) => return Err(error),
                (Err(_), OnItemError::Skip) => {}
                (Err(error), OnItemError::Keep) => {
                    let error = json!({ "code": error.code(), "message": error.to_string() });
                    results.push(json!({ "error": error }));
                }
            }
        }
        let mut writes = Writes::new();
        if let Some(into) = &self.into {
            writes.insert(into.clone(), results.into());
        }
        if self.messages && !messages.is_empty() {
            writes.insert(MESSAGES.into(), messages.into());
        }
        Ok(Done { writes, goto: None })
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }
}
