//! `set`: writes channels out of expressions over the state.
//!
//! Text is an expression; any other value is written as it stands.

use std::sync::Arc;

use async_trait::async_trait;
use exile_engine::expr::Expression;
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
            let source = if value.is_string() {
                build.expression(&place).map(Source::Expression)
            } else {
                build.literal(&place, name, value);
                Some(Source::Literal(value.clone()))
            };
            writes.push(channel.zip(source));
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

#[derive(Debug)]
enum Source {
    Expression(Expression),
    Literal(Value),
}

#[async_trait]
impl Node for Set {
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError> {
        let mut writes = Writes::new();
        for (channel, source) in &self.writes {
            let value = match source {
                Source::Literal(value) => value.clone(),
                Source::Expression(expression) => expression
                    .eval(state, cx.scope())
                    .map_err(|e| NodeError::expression(&format!("set.{channel}"), &e))?,
            };
            writes.insert(channel.clone(), value);
        }
        Ok(Outcome { writes })
    }
}
