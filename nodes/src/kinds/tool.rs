//! `tool`: one named call with given arguments; its value goes to a channel.
//!
//! A failing tool fails the node: nobody is there to read the error.

use std::sync::Arc;

use async_trait::async_trait;
use exile_engine::expr::ValueTemplate;
use exile_engine::graph::build::Build;
use exile_engine::node::{Node, NodeError, NodeKind, Outcome, Work};
use exile_engine::run::context::{Cx, Reached};
use exile_engine::state::State;
use exile_engine::tool::ToolAnswer;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::ask::{found, written};

/// The kind.
pub(super) struct Kind;

/// One call of a tool.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ToolKeys")]
struct Params {
    /// The tool's name.
    tool: String,
    /// Its arguments: templates, of which one that is exactly `{{ … }}` keeps its type.
    args: Option<Map<String, Value>>,
    /// Whether a person must agree first.
    #[serde(default)]
    approve: bool,
    /// The channel that its value goes to.
    into: Option<String>,
}

impl NodeKind for Kind {
    fn name(&self) -> &'static str {
        "tool"
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        Params::json_schema(generator)
    }

    fn build(&self, build: &mut Build<'_>) -> Option<Work> {
        let params: Params = build.params()?;
        let tool = build.tool(&["tool"], &params.tool);
        build.calls_tools(std::slice::from_ref(&params.tool));
        let args = params.args.is_some().then(|| build.value_template(&["args"]));
        let into = params.into.as_ref().map(|name| written(build, name));
        let args = match args {
            Some(args) => Some(args?),
            None => None,
        };
        let literal = args.as_ref().map_or(Some(json!({})), ValueTemplate::literal);
        if let Some(literal) = literal {
            build.tool_arguments(&["args"], &params.tool, &literal);
        }
        Some(Work::Leaf(Arc::new(Call {
            tool: tool?,
            args,
            approve: params.approve,
            into: found(into)?,
        })))
    }
}

#[derive(Debug)]
struct Call {
    tool: Arc<str>,
    args: Option<ValueTemplate>,
    approve: bool,
    into: Option<Arc<str>>,
}

#[async_trait]
impl Node for Call {
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError> {
        let args = match &self.args {
            Some(args) => {
                args.eval(state, cx.scope()).map_err(|e| NodeError::expression("args", &e))?
            }
            None => json!({}),
        };
        match cx.call_tool_value("tool", &self.tool, args, self.approve).await {
            Reached::Done(ToolAnswer::Done(value)) => Ok(match &self.into {
                Some(into) => Outcome::write(into, value),
                None => Outcome::nothing(),
            }),
            Reached::Done(ToolAnswer::Failed(error)) => {
                Err(NodeError::Tool { tool: self.tool.to_string(), error })
            }
            Reached::Done(ToolAnswer::Ask(_)) => {
                Err(NodeError::Internal("a tool's question was not put to anybody".into()))
            }
            Reached::Asked(id) => Ok(Outcome::Suspend(vec![id])),
        }
    }
}
