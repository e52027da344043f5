//! `set`: writes channels out of expressions over the state.
//!
//! Text is an expression; any other value is written as it stands.

use std::sync::Arc;

use exile_engine::expr::{Expression, Scope};
use exile_engine::graph::build::Build;
use exile_engine::node::{Done, NodeError, NodeKind, PureNode, Work};
use exile_engine::state::{ChannelValue, State, Writes};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The kind.
pub(super) struct Kind;

/// Channels out of expressions.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SetKeys")]
struct Params {
    /// Channel → expression; what is not text is written as it stands.
    #[schemars(extend("minProperties" = 1))]
    set: Map<String, Value>,
}

impl NodeKind for Kind {
    fn name(&self) -> &'static str {
        "set"
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        Params::json_schema(generator)
    }

    fn build(&self, build: &mut Build<'_>) -> Option<Work> {
        let params: Params = build.params()?;
        let mut writes = Vec::new();
        for (name, value) in &params.set {
            let place = ["set", name.as_str()];
            let channel = build.writes(&place, name);
            if !value.is_string() {
                build.literal(&place, name, value);
            }
            writes.push(channel.zip(Source::build(build, &place, value)));
        }
        // Every one was checked; one that was reported keeps the node from being built.
        let writes = writes.into_iter().collect::<Option<_>>()?;
        Some(Work::Pure(Arc::new(Set { writes })))
    }
}

#[derive(Debug)]
struct Set {
    writes: Vec<(Arc<str>, Source)>,
}

/// Where a value comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// Text in the YAML.
    Expression(Expression),
    /// Anything else.
    Literal(Value),
}

impl Source {
    /// Compiles what stands at `place`; reports what is wrong with it.
    pub(super) fn build(build: &mut Build<'_>, place: &[&str], value: &Value) -> Option<Self> {
        if value.is_string() {
            build.expression(place).map(Self::Expression)
        } else {
            Some(Self::Literal(value.clone()))
        }
    }

    /// Its value; `key` and `name` say where it stands.
    pub(super) fn value(
        &self,
        state: &State,
        scope: &Scope,
        key: &str,
        name: &str,
    ) -> Result<ChannelValue, NodeError> {
        match self {
            Self::Literal(value) => Ok(value.clone().into()),
            Self::Expression(expression) => expression
                .eval_channel(state, scope)
                .map_err(|e| NodeError::expression(&format!("{key}.{name}"), &e)),
        }
    }
}

impl PureNode for Set {
    fn compute(&self, state: &State, scope: &Scope) -> Result<Done, NodeError> {
        let mut writes = Writes::new();
        for (channel, source) in &self.writes {
            let value = source.value(state, scope, "set", channel)?;
            writes.insert(channel.clone(), value);
        }
        Ok(Done { writes, goto: None })
    }
}
