//! The YAML of a graph, as types. The published JSON Schema comes from them.

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::graph::Branch;
use crate::period::Period;
use crate::state::{ChannelType, Reducer, Scope};

/// A conversation as a state graph: channels, nodes and the lines between them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "exile graph")]
pub(crate) struct GraphSpec {
    /// Its name: unique, letters, digits, `_` and `-`.
    pub(crate) graph: String,
    /// What it is for.
    #[serde(default)]
    pub(crate) description: String,
    /// `graph` (default) has `edges`, `linear` has `order`.
    #[serde(default)]
    pub(crate) mode: Mode,
    /// All tasks of a step read one snapshot.
    #[serde(default, rename = "schedule")]
    pub(crate) _schedule: Schedule,
    /// When a run must stop.
    #[serde(default)]
    pub(crate) limits: LimitsSpec,
    /// Channels that a caller may set; default: all.
    pub(crate) input: Option<Vec<String>>,
    /// Channels that a caller receives; default: all.
    pub(crate) output: Option<Vec<String>>,
    /// The channels of the state.
    #[serde(default)]
    pub(crate) state: IndexMap<String, ChannelSpec>,
    /// The nodes, by name.
    pub(crate) nodes: IndexMap<String, Map<String, Value>>,
    /// The lines between nodes, from START to END (`mode: graph`).
    pub(crate) edges: Option<Vec<EdgeSpec>>,
    /// The nodes one after another (`mode: linear`).
    pub(crate) order: Option<Vec<String>>,
}

/// How the nodes are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// By `edges`.
    #[default]
    Graph,
    /// One after another, by `order`.
    Linear,
}

/// How steps follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Schedule {
    /// All tasks of a step read one snapshot; their writes merge when all have ended.
    #[default]
    Superstep,
}

/// When a run must stop.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsSpec {
    /// Steps of the whole run, subgraphs included; default 100.
    #[schemars(range(min = 1))]
    pub(crate) steps: Option<u32>,
    /// From start to end; default 10m.
    pub(crate) timeout: Option<Period>,
    /// Tokens of all model calls, input and output; default: no limit.
    #[schemars(range(min = 1))]
    pub(crate) tokens: Option<u64>,
}

/// One channel of the state.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelSpec {
    /// What it may hold; default: anything.
    #[serde(default, rename = "type")]
    pub(crate) kind: ChannelType,
    /// What it starts as; else the reducer's empty value, else null.
    #[serde(default, deserialize_with = "present")]
    pub(crate) default: Option<Value>,
    /// How several writes merge.
    #[serde(default)]
    pub(crate) reduce: Reducer,
    /// How long its value lives.
    #[serde(default)]
    pub(crate) scope: Scope,
}

/// `default: null` is a default too.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// One line.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EdgeSpec {
    /// A node or START; a list of nodes makes a join.
    pub(crate) from: Ends,
    /// A node or END.
    pub(crate) to: String,
    /// An expression: the line is taken if it is true.
    pub(crate) when: Option<String>,
    /// The line is taken if no `when` of the node is true.
    #[serde(default, rename = "otherwise")]
    pub(crate) otherwise: Yes,
    /// The join fires when all of its sources that were not skipped have arrived.
    #[serde(rename = "join")]
    pub(crate) join: Option<JoinRule>,
}

/// Names in `from`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Ends {
    One(String),
    Many(Vec<String>),
}

impl JsonSchema for Ends {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ends".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "array"],
            "items": { "type": "string" },
            "minItems": 1,
        })
    }
}

/// `true`, or the key is not there.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Yes(pub(crate) bool);

impl JsonSchema for Yes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Yes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": true })
    }
}

/// When a join fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JoinRule {
    /// When every source has arrived or can arrive no more.
    All,
}

/// The keys that a node of any kind has.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct NodeSpec {
    /// How its `when` lines are taken.
    #[serde(default)]
    pub(crate) branch: Branch,
}
