//! `set`: writes channels out of expressions over the state.
//!
//! Text is an expression; any other value is written as it stands.

use std::sync::Arc;

use async_trait::async_trait;
use exile_engine::expr::{Expression, Scope};
use exile_engine::graph::build::Build;
use exile_engine::node::{Node, NodeError, NodeKind, Outcome, Work};
use exile_engine::run::context::Cx;
use exile_engine::state::{State, Writes};
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
        Some(Work::Leaf(Arc::new(Set { writes })))
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
    ) -> Result<Value, NodeError> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Expression(expression) => expression
                .eval(state, scope)
                .map_err(|e| NodeError::expression(&format!("{key}.{name}"), &e)),
        }
    }
}

#[async_trait]
impl Node for Set {
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError> {
        let mut writes = Writes::new();
        for (channel, source) in &self.writes {
            let value = source.value(state, cx.scope(), "set", channel)?;
            writes.insert(channel.clone(), value);
        }
        Ok(Outcome::writes(writes))
    }
}
