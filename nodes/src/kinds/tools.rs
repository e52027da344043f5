//! `tools`: runs the calls that the last assistant message asks for, all at the same time.
//!
//! Answers join `messages` in the order of the calls. A call of a tool that is not allowed is
//! answered with an error that the model reads, like every failure of a tool. Allowed is what the
//! node's `skill` and `tools` name; without both, what some `llm` of the graph could have offered.

use std::sync::Arc;

use async_trait::async_trait;
use exile_engine::graph::build::Build;
use exile_engine::message::{Message, ToolCall, pending_tool_calls};
use exile_engine::node::{Node, NodeError, NodeKind, Outcome, Work};
use exile_engine::run::context::Cx;
use exile_engine::state::{Reducer, State};
use exile_engine::tool::{ToolAnswer, ToolError, ToolErrorKind};
use futures_util::future::join_all;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::Value;

use super::MESSAGES;
use super::ask::{Allowed, Ask, may_call};
use super::llm::stored;

/// The kind.
pub(super) struct Kind;

/// Runs the tool calls of the last message.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ToolsKeys")]
struct Params {
    /// The skill whose tools may be called; default: the conversation's.
    skill: Option<String>,
    /// Names and patterns of tools that may be called; they can only narrow the skill's. Without
    /// a skill and without this list: what the graph's `llm` nodes offer.
    tools: Option<Vec<String>>,
}

impl NodeKind for Kind {
    fn name(&self) -> &'static str {
        "tools"
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        Params::json_schema(generator)
    }

    fn build(&self, build: &mut Build<'_>) -> Option<Work> {
        let params: Params = build.params()?;
        let skill = params.skill.as_ref().map(|name| build.skill(&["skill"], name));
        let allowed = params.tools.as_ref().map(|list| build.tools(&["tools"], list));
        let messages = build.writes_reduced(&[], MESSAGES, Reducer::Messages)?;
        build.reads(&[], &messages);
        may_call(build, params.skill.as_ref(), params.tools.as_ref());
        let skill = match skill {
            Some(found) => Some(found?.name.clone()),
            None => None,
        };
        let offers = match (&skill, &allowed) {
            (None, None) => build.nodes().iter().filter_map(offer).collect(),
            _ => vec![Ask { skill, allowed: Allowed(allowed), ..Ask::default() }],
        };
        Some(Work::Leaf(Arc::new(Tools { offers })))
    }
}

/// What an `llm` node, as written, offers its model; `None` for other nodes and for one that
/// offers nothing.
fn offer(node: &Value) -> Option<Ask> {
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let skill = node["skill"].as_str().map(Arc::from);
    let tools = node["tools"].as_array().map(|list| list.iter().filter_map(text).collect());
    let offers = node["kind"] == "llm" && (skill.is_some() || tools.is_some());
    offers.then(|| Ask { skill, allowed: Allowed(tools), ..Ask::default() })
}

/// Runs pending calls.
#[derive(Debug)]
pub(super) struct Tools {
    /// A call is made if one of these allows it.
    pub offers: Vec<Ask>,
}

#[async_trait]
impl Node for Tools {
    async fn run(&self, cx: &Cx, state: &State) -> Result<Outcome, NodeError> {
        let calls = pending_tool_calls(&state.messages(MESSAGES));
        let mut allowed: Vec<String> = Vec::new();
        for offer in &self.offers {
            allowed.extend(offer.tools(cx)?.into_iter().map(|spec| spec.name));
        }
        let answers = calls.iter().map(async |call| {
            if allowed.contains(&call.name) {
                cx.call_tool(call).await
            } else {
                refused(cx, call, &allowed)
            }
        });
        let answers = join_all(answers).await;
        let values: Vec<Value> = answers.iter().map(stored).collect::<Result<_, _>>()?;
        Ok(Outcome::write(&MESSAGES.into(), values.into()))
    }
}

/// The answer to a call that is not allowed.
fn refused(cx: &Cx, call: &ToolCall, allowed: &[String]) -> Message {
    let there = match allowed {
        [] => "there are none here".to_owned(),
        names => format!("there are: {}", names.join(", ")),
    };
    let text = format!("no tool named `{}` may be called; {there}", call.name);
    let error = ToolError::new(ToolErrorKind::NotFound, text);
    Message::tool(cx.message_id(), call, ToolAnswer::Failed(error).to_text())
}
