//! The YAML of a graph, as types. The published JSON Schema comes from them.

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::graph::{Branch, Schedule};
use crate::period::Period;
use crate::run::record::Durability;
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
    /// How steps follow each other.
    #[serde(default)]
    pub(crate) schedule: Schedule,
    /// When the records of its runs are stored, where the caller does not say.
    #[serde(default)]
    pub(crate) durability: Durability,
    /// When it must stop, also where it runs inside another.
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

/// When a graph must stop, also where it runs inside another.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsSpec {
    /// Its own steps; those of a graph inside it count there. Default 100.
    #[schemars(range(min = 1))]
    pub(crate) steps: Option<u32>,
    /// From start to end; default 10m for a run, and none for a graph inside another.
    pub(crate) timeout: Option<Period>,
    /// Tokens of all model calls in it and further in, input and output; default: no limit.
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
    /// How many of its sources a join waits for: `all` (default) that were not skipped, `any`
    /// one, or a number of them.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum JoinRule {
    Word(JoinWord),
    Count(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JoinWord {
    All,
    Any,
}

impl JsonSchema for JoinRule {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "JoinRule".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "enum": ["all", "any"] }, { "type": "integer", "minimum": 1 }] })
    }
}

/// The keys that a node of any kind has. Order of failure: an attempt ends by itself or by a
/// timeout; `retry` begins another one; then `on_error`; then the run fails.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct NodeSpec {
    /// How its `when` lines are taken.
    #[serde(default)]
    pub(crate) branch: Branch,
    /// Attempts after one that failed: how many at most, or that and the waits between them.
    pub(crate) retry: Option<RetrySpec>,
    /// Longest attempt.
    pub(crate) timeout: Option<Period>,
    /// Longest silence of an attempt: no delta, no call that begins or ends.
    pub(crate) idle_timeout: Option<Period>,
    /// What follows when it failed for good: `fail` (default) ends the run, `continue` follows
    /// its lines, a node's name fires that node in place of them. What it would have written is
    /// dropped.
    pub(crate) on_error: Option<String>,
    /// How long its result stands for the same inputs of the same user. Only where everything
    /// that it may call is `pure`.
    pub(crate) cache: Option<Period>,
    /// Nodes that it fires in place of its lines.
    pub(crate) goto: Option<GotoSpec>,
}

/// Names of the keys in [`NodeSpec`], and `kind`.
pub(crate) const COMMON_KEYS: [&str; 8] =
    ["kind", "branch", "retry", "timeout", "idle_timeout", "on_error", "cache", "goto"];

/// `2`, or a map.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum RetrySpec {
    Attempts(u32),
    Waits(RetryWaits),
}

/// Further attempts and the waits before them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct RetryWaits {
    /// Attempts at most after the first: 2 means three in all.
    #[schemars(range(min = 0, max = 100))]
    pub(crate) attempts: u32,
    /// Before the second attempt, doubled before each one after it, and spread at random by half;
    /// default 500ms.
    pub(crate) wait: Option<Period>,
    /// Longest wait, unless a provider asks for a longer one; default 30s.
    pub(crate) max_wait: Option<Period>,
}

impl JsonSchema for RetrySpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RetrySpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let attempts = json_schema!({ "type": "integer", "minimum": 0, "maximum": 100 });
        json_schema!({ "anyOf": [attempts, generator.subschema_for::<RetryWaits>()] })
    }
}

/// Where a node goes on by itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct GotoSpec {
    /// An expression, read after the node's writes: a node's name, a list of them, or null for
    /// the node's lines.
    pub(crate) to: String,
    /// The nodes that it may name, and END.
    #[schemars(length(min = 1))]
    pub(crate) among: Vec<String>,
}
